//! Worker processes that this engine starts: which there are, and which connection belongs to which.
//!
//! A **command** runs as a number of **slots**; in each slot one process lives at a time (two, while one
//! replaces the other), one **incarnation** after another ([`supervise`](crate::supervise)). A process gets a
//! token in `BOKI_WORKER` and sends it when it registers; that is how its connection is recognised.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::{Flushes, WorkerKey};
use crate::error::CallError;
use crate::functions::Shared;
use crate::link::Link;
use crate::supervise::Supervisor;

/// How to start worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// What a human calls them.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Added to the environment of the engine. `BOKI_URL` and `BOKI_WORKER` are set in any case.
    pub env: Vec<(String, String)>,
    /// Where it runs; `None`: where the engine does.
    pub dir: Option<PathBuf>,
    /// How many processes.
    pub processes: usize,
}

/// All processes.
#[derive(Default)]
pub(crate) struct Processes {
    state: Mutex<State>,
    /// The engine has stopped: processes are to end.
    stopping: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    /// Which process has which token: its slot, and its incarnation.
    tokens: BTreeMap<String, (Arc<Slot>, u64)>,
    slots: Vec<(String, Arc<Slot>)>,
}

/// A place for one process.
pub(crate) struct Slot {
    name: Arc<str>,
    /// The highest incarnation that has registered.
    registered: watch::Sender<u64>,
    state: Mutex<SlotState>,
    restart: Notify,
}

#[derive(Default)]
struct SlotState {
    /// A process of this slot is about to register.
    expected: bool,
    connected: BTreeMap<u64, WorkerKey>,
}

impl Processes {
    pub(crate) fn start(shared: &Arc<Shared>, commands: Vec<WorkerCommand>, url: &str) {
        for command in commands {
            let command = Arc::new(command);
            for index in 0..command.processes {
                let name = match command.processes {
                    1 => command.name.clone(),
                    _ => format!("{}-{}", command.name, index + 1),
                };
                let (registered, _) = watch::channel(0);
                let (state, restart) = (Mutex::default(), Notify::new());
                let slot = Arc::new(Slot { name: name.into(), registered, state, restart });
                shared.processes.state.lock().slots.push((command.name.clone(), Arc::clone(&slot)));
                slot.expect(shared);
                let supervisor = Supervisor::new(Arc::clone(shared), slot, Arc::clone(&command), url.to_owned());
                shared.processes.tasks.spawn_on(supervisor.run(), &shared.runtime);
            }
        }
    }

    /// The process that registers with `token`, if it has one.
    pub(crate) fn attached(&self, token: &str, link: &Link) -> Result<Option<Attached>, CallError> {
        if token.is_empty() {
            return Ok(None);
        }
        let state = self.state.lock();
        let Some((slot, incarnation)) = state.tokens.get(token) else {
            return Err(CallError::InvalidWorker { reason: UNKNOWN_PROCESS });
        };
        Ok(Some(Attached { slot: Arc::clone(slot), incarnation: *incarnation, link: link.clone() }))
    }

    /// A token for a process about to be started.
    pub(crate) fn enter(&self, slot: &Arc<Slot>, incarnation: u64) -> String {
        let random = RandomState::new();
        let token = format!("{:016x}{:016x}", random.hash_one(&slot.name), random.hash_one(incarnation));
        self.state.lock().tokens.insert(token.clone(), (Arc::clone(slot), incarnation));
        token
    }

    /// The process has ended.
    pub(crate) fn leave(&self, token: &str) {
        self.state.lock().tokens.remove(token);
    }

    pub(crate) fn restart(&self, name: &str) -> bool {
        let state = self.state.lock();
        let mut found = false;
        for (_, slot) in state.slots.iter().filter(|(command, _)| command == name) {
            slot.restart.notify_one();
            found = true;
        }
        found
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends all processes.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

const UNKNOWN_PROCESS: &str = "its process was not started by this engine";

impl Slot {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Calls of functions that no worker offers wait from now on.
    pub(crate) fn expect(&self, shared: &Shared) {
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.expected, true) {
            shared.dispatch.lock().expect_worker();
        }
    }

    /// No process of this slot is about to register.
    pub(crate) fn settle(&self, shared: &Shared) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.expected, false) {
            let mut flushes = Flushes::default();
            shared.dispatch.lock().worker_settled(Instant::now(), &mut flushes);
            shared.perform(flushes, None);
        }
    }

    /// Becomes ready when incarnation `number` or a later one has registered.
    pub(crate) async fn has_registered(&self, number: u64) {
        let mut registered = self.registered.subscribe();
        // The sender lives as long as the slot.
        let _ = registered.wait_for(|registered| *registered >= number).await;
    }

    /// Becomes ready when the process is to be replaced.
    pub(crate) async fn restart_asked(&self) {
        self.restart.notified().await;
    }

    /// The connection of an incarnation.
    pub(crate) fn worker_of(&self, incarnation: u64) -> Option<WorkerKey> {
        self.state.lock().connected.get(&incarnation).copied()
    }
}

/// The process behind a connection.
pub(crate) struct Attached {
    slot: Arc<Slot>,
    incarnation: u64,
    link: Link,
}

impl Attached {
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.slot.name
    }

    /// It has registered as `worker`.
    pub(crate) fn registered(&self, worker: WorkerKey, shared: &Shared) {
        self.slot.state.lock().connected.insert(self.incarnation, worker);
        self.slot.settle(shared);
        self.slot.registered.send_if_modified(|registered| {
            let newer = self.incarnation > *registered;
            *registered = self.incarnation.max(*registered);
            newer
        });
    }

    /// Its connection has ended: it will connect again, or end and be started again.
    pub(crate) fn disconnected(&self, worker: WorkerKey, shared: &Shared) {
        self.link.close();
        let mut state = self.slot.state.lock();
        if state.connected.get(&self.incarnation) == Some(&worker) {
            state.connected.remove(&self.incarnation);
        }
        let replaced = *self.slot.registered.borrow() > self.incarnation;
        drop(state);
        if !replaced && !shared.closing.is_cancelled() {
            self.slot.expect(shared);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.name)
    }
}
