//! The pools of this engine, and which connection belongs to which of their processes.
//!
//! A process gets a token in `BOKI_WORKER` and sends it when it registers; that is how its connection is recognised.
//! The token of a process that has ended is worth nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::launch::Guard;
use super::limits::Groups;
use super::process::Process;
use super::run::Pool;
use super::spec::{PoolError, PoolId, PoolInfo, PoolSpec};
use crate::dispatch::{Seat, WorkerKey};
use crate::error::CallError;
use crate::flood::LogBudget;
use crate::functions::Shared;
use crate::link::Link;

/// How long the end of a process is waited for whose connection has ended.
const ENDS_WITHIN: Duration = Duration::from_millis(500);

const UNKNOWN_PROCESS: &str = "its process was not started by this engine";

/// All pools.
#[derive(Default)]
pub(crate) struct Pools {
    state: Mutex<State>,
    /// The engine has stopped: processes are to end.
    stopping: CancellationToken,
    tasks: TaskTracker,
    guard: Guard,
    groups: Groups,
}

#[derive(Default)]
struct State {
    pools: BTreeMap<PoolId, Arc<Pool>>,
    last_id: u64,
    /// Which process has which token.
    tokens: BTreeMap<String, (Arc<Pool>, Arc<Process>)>,
}

impl Pools {
    pub(crate) fn start(shared: &Arc<Shared>, spec: PoolSpec) -> Result<PoolId, PoolError> {
        spec.check()?;
        if shared.closing.is_cancelled() {
            return Err(PoolError::ShuttingDown { pool: spec.name });
        }
        let mut state = shared.pools.state.lock();
        state.last_id += 1;
        let id = PoolId(state.last_id);
        let pool = Arc::new(Pool::new(id, spec, shared)?);
        state.pools.insert(id, Arc::clone(&pool));
        drop(state);
        shared.pools.tasks.spawn_on(Pool::run(pool, Arc::clone(shared)), &shared.runtime);
        Ok(id)
    }

    pub(crate) fn get(&self, id: PoolId) -> Option<Arc<Pool>> {
        self.state.lock().pools.get(&id).cloned()
    }

    /// The pool has ended.
    pub(super) fn remove(&self, id: PoolId) {
        self.state.lock().pools.remove(&id);
    }

    pub(crate) fn list(&self, shared: &Shared) -> Vec<PoolInfo> {
        let pools: Vec<Arc<Pool>> = self.state.lock().pools.values().cloned().collect();
        pools.iter().map(|pool| pool.info(shared)).collect()
    }

    /// The process that registers with `token`, if it has one.
    pub(crate) fn attached(&self, token: &str, link: &Link) -> Result<Option<Attached>, CallError> {
        if token.is_empty() {
            return Ok(None);
        }
        let state = self.state.lock();
        let Some((pool, process)) = state.tokens.get(token) else {
            return Err(CallError::InvalidWorker { reason: UNKNOWN_PROCESS });
        };
        Ok(Some(Attached { pool: Arc::clone(pool), process: Arc::clone(process), link: link.clone() }))
    }

    /// What has become of the process that `seat` was; waits a moment for it to end, since its connection ends before.
    pub(crate) async fn end_of(&self, seat: Seat) -> Option<Arc<str>> {
        let pool = self.state.lock().pools.values().find(|pool| pool.key() == seat.pool).cloned()?;
        let mut end = pool.end_of(seat.member)?;
        let ended = timeout(ENDS_WITHIN, end.wait_for(Option::is_some)).await.ok()?.ok()?;
        ended.clone()
    }

    /// A worker does not answer a call that was given up.
    pub(crate) fn stuck(&self, seat: Seat) {
        let pool = self.state.lock().pools.values().find(|pool| pool.key() == seat.pool).cloned();
        if let Some(pool) = pool {
            pool.dismiss(seat.member);
        }
    }

    /// A process is about to be started.
    pub(super) fn enter(&self, pool: &Arc<Pool>, process: &Arc<Process>) {
        self.state.lock().tokens.insert(process.token().to_owned(), (Arc::clone(pool), Arc::clone(process)));
    }

    /// A process has ended.
    pub(super) fn leave(&self, process: &Process) {
        self.state.lock().tokens.remove(process.token());
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(super) fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends all processes.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// A token that nobody guesses.
pub(super) fn new_token() -> String {
    // Each state has keys of its own, from the system's randomness.
    let half = || RandomState::new().hash_one("worker");
    format!("{:016x}{:016x}", half(), half())
}

/// The process behind a connection.
pub(crate) struct Attached {
    pool: Arc<Pool>,
    process: Arc<Process>,
    link: Link,
}

impl Attached {
    pub(crate) fn name(&self) -> &Arc<str> {
        self.process.name()
    }

    /// How much it may log, over its connection and otherwise.
    pub(crate) fn budget(&self) -> &Arc<Mutex<LogBudget>> {
        self.process.budget()
    }

    /// How many calls it takes at once, if it says `concurrency` itself.
    pub(crate) fn concurrency(&self, concurrency: u32) -> u32 {
        self.pool.spec().concurrency.map_or(concurrency, |most| most.min(concurrency))
    }

    pub(crate) fn seat(&self) -> Seat {
        Seat { pool: self.pool.key(), member: self.process.number(), max_calls: self.pool.spec().max_calls }
    }

    /// It has registered as `worker`.
    pub(crate) fn registered(&self, worker: WorkerKey) {
        self.process.connected(worker);
        self.pool.registered(self.process.number(), Instant::now());
    }

    /// Its connection has ended: it will connect again, or end and be started again.
    pub(crate) fn disconnected(&self, worker: WorkerKey) {
        self.link.close();
        if self.process.disconnected(worker) {
            self.pool.disconnected(self.process.number(), Instant::now());
        }
    }
}
