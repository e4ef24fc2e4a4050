//! A pool at work: it does what its crew decides, whenever something has happened.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::crew::{Action, Crew, MemberNumber, Rules};
use super::limits::Limits;
use super::process::{Order, Process};
use super::spec::{PoolError, PoolFailure, PoolId, PoolInfo, PoolSpec, PoolState, ProcessInfo, ProcessState};
use crate::counters::count;
use crate::dispatch::{Failing, Flushes, PoolKey};
use crate::functions::Shared;

/// So many processes that have ended are remembered, for whoever asks what became of them.
const REMEMBERED: usize = 32;

/// Whether a pool has come to serve.
#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    NotYet,
    Ready,
    Failed(Arc<PoolFailure>),
    Gone,
}

/// A pool of worker processes.
pub(crate) struct Pool {
    id: PoolId,
    key: PoolKey,
    name: Arc<str>,
    version: Arc<str>,
    spec: PoolSpec,
    limits: Limits,
    state: Mutex<State>,
    /// Something has happened.
    wake: Arc<Notify>,
    readiness: watch::Sender<Readiness>,
}

struct State {
    crew: Crew,
    processes: BTreeMap<MemberNumber, Arc<Process>>,
    /// The latest that have ended.
    ended: VecDeque<Arc<Process>>,
    last_failure: Option<Arc<PoolFailure>>,
    /// The calls have been told that it fails.
    is_failing: bool,
}

/// What follows from a look at the pool.
struct Step {
    actions: Vec<Action>,
    look_at: Option<Instant>,
    is_gone: bool,
}

impl Pool {
    pub(super) fn new(id: PoolId, spec: PoolSpec, shared: &Shared) -> Result<Pool, PoolError> {
        if let Some(missing) = spec.env.secrets.iter().find(|name| std::env::var_os(name).is_none()) {
            return Err(PoolError::NoSecret { pool: spec.name, variable: missing.clone() });
        }
        let config = &shared.config;
        if !spec.resources.is_empty() && config.launcher.is_none() {
            let reason = "this server cannot limit what its processes use";
            return Err(PoolError::Invalid { pool: spec.name, reason });
        }
        let limits = Limits::new(spec.resources, shared.pools.groups(), &config.proc);
        if let Some(reason) = limits.not_in_force() {
            tracing::warn!(pool = %spec.name, "{reason}");
        }
        let rules = Rules {
            min: spec.min,
            max: spec.max,
            idle_after: spec.idle_after,
            start_timeout: spec.start_timeout,
            max_calls: spec.max_calls,
            max_age: spec.max_age,
            restart_pause: config.restart_pause,
            restart_pause_max: config.restart_pause_max,
            healthy_after: config.healthy_after,
        };
        let wake = Arc::new(Notify::new());
        let state = State {
            crew: Crew::new(&spec.name, rules, Instant::now()),
            processes: BTreeMap::new(),
            ended: VecDeque::new(),
            last_failure: None,
            is_failing: false,
        };
        Ok(Pool {
            id,
            key: shared.dispatch.lock().add_pool(Arc::clone(&wake), spec.held),
            name: spec.name.as_str().into(),
            version: spec.version.as_str().into(),
            spec,
            limits,
            state: Mutex::new(state),
            wake,
            readiness: watch::Sender::new(Readiness::NotYet),
        })
    }

    pub(super) fn key(&self) -> PoolKey {
        self.key
    }

    pub(super) fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// A process has registered.
    pub(super) fn registered(&self, number: MemberNumber, now: Instant) {
        self.state.lock().crew.registered(number, now);
        self.readiness.send_if_modified(|readiness| {
            let is_new = !matches!(readiness, Readiness::Ready | Readiness::Gone);
            if is_new {
                *readiness = Readiness::Ready;
            }
            is_new
        });
        self.wake.notify_one();
    }

    /// A process has lost its connection.
    pub(super) fn disconnected(&self, number: MemberNumber, now: Instant) {
        self.state.lock().crew.disconnected(number, now);
        self.wake.notify_one();
    }

    /// Replaces every process, one by one: each takes no more calls once its replacement has registered,
    /// finishes what it has, and ends.
    pub(crate) fn restart(&self, shared: &Shared) {
        self.state.lock().crew.replace_all();
        let mut flushes = Flushes::default();
        shared.dispatch.lock().set_failing(self.key, None, Instant::now(), &mut flushes);
        shared.perform(flushes, None);
        self.wake.notify_one();
    }

    /// A process does not answer: it gets no more calls, and ends soon.
    pub(super) fn dismiss(&self, number: MemberNumber) {
        let mut state = self.state.lock();
        state.crew.dismiss(number);
        if let Some(process) = state.processes.get(&number) {
            process.order(Order::Hurry);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// What becomes of a process, or became of it lately.
    pub(super) fn end_of(&self, number: MemberNumber) -> Option<watch::Receiver<Option<Arc<str>>>> {
        let state = self.state.lock();
        let ended = || state.ended.iter().find(|process| process.number() == number);
        state.processes.get(&number).or_else(ended).map(|process| process.end())
    }

    /// Its processes take calls from now on.
    pub(crate) fn release(&self, shared: &Shared) {
        let mut flushes = Flushes::default();
        shared.dispatch.lock().release_pool(self.key, Instant::now(), &mut flushes);
        shared.perform(flushes, None);
    }

    /// No process takes any more calls; each finishes what it has, and ends.
    pub(crate) fn close(&self, shared: &Arc<Shared>) {
        let mut flushes = Flushes::default();
        let mut state = self.state.lock();
        state.crew.close();
        let now = Instant::now();
        let mut dispatch = shared.dispatch.lock();
        for process in state.processes.values() {
            if let Some(worker) = process.worker() {
                dispatch.send_drain(worker, now, &mut flushes);
            }
        }
        dispatch.close_pool(self.key, now, &mut flushes);
        drop(dispatch);
        drop(state);
        shared.perform(flushes, None);
        shared.expire_later();
        self.wake.notify_one();
    }

    /// Until the pool has been closed and its last process has ended, or the engine has stopped.
    pub(super) async fn run(self: Arc<Pool>, shared: Arc<Shared>) {
        while !shared.closing.is_cancelled() {
            let now = Instant::now();
            let Step { actions, look_at, is_gone } = self.step(&shared, now);
            if is_gone {
                break;
            }
            if !actions.is_empty() {
                for action in actions {
                    self.perform(action, &shared, now);
                }
                continue;
            }
            let look = async {
                match look_at {
                    Some(look_at) => sleep_until(look_at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = look => {}
                () = shared.closing.cancelled() => {}
            }
        }
        // The engine ends what is left.
        while !self.state.lock().processes.is_empty() {
            self.wake.notified().await;
        }
        let mut flushes = Flushes::default();
        shared.dispatch.lock().remove_pool(self.key, Instant::now(), &mut flushes);
        shared.perform(flushes, None);
        shared.pools.remove(self.id);
        self.readiness.send_replace(Readiness::Gone);
        tracing::info!(pool = %self.name, version = %self.version, "worker pool ended");
    }

    fn step(&self, shared: &Shared, now: Instant) -> Step {
        let mut state = self.state.lock();
        let State { crew, processes, .. } = &mut *state;
        // Under one lock, so that no call begins to wait between the look and the wish to be told.
        let mut dispatch = shared.dispatch.lock();
        let load = dispatch.pool_load(self.key);
        let actions = crew.decide(&load, now);
        shared.counters.recycled.fetch_add(crew.take_recycled(), Ordering::Relaxed);
        dispatch.set_wanted(self.key, crew.wants(&load));
        drop(dispatch);
        for worker in load.workers.iter().filter(|worker| worker.idle_since.is_some()) {
            if let Some(process) = processes.get(&worker.member).filter(|_| crew.is_leaving(worker.member)) {
                process.order(Order::End);
            }
        }
        for (number, process) in &*processes {
            if crew.is_leaving(*number) && process.worker().is_none() {
                process.order(Order::End);
            }
        }
        let step = Step { actions, look_at: crew.next_look(now), is_gone: crew.is_gone() && processes.is_empty() };
        self.tell_failing(&mut state, shared, now);
        step
    }

    /// Calls are told when it begins to fail; a process that registers tells them that it serves.
    fn tell_failing(&self, state: &mut State, shared: &Shared, now: Instant) {
        let is_failing = state.crew.is_failing(now);
        if is_failing == state.is_failing {
            return;
        }
        state.is_failing = is_failing;
        let mut flushes = Flushes::default();
        let failed_before = state.last_failure.clone();
        let why = failed_before.unwrap_or_else(|| self.failure("has not registered in time".into(), Vec::new()));
        if is_failing {
            tracing::error!(pool = %self.name, version = %self.version, "{why}; calls of its functions are refused");
            let failing = Failing { why: Arc::clone(&why), until: None };
            shared.dispatch.lock().set_failing(self.key, Some(failing), now, &mut flushes);
            self.fail_readiness(why);
            // Whoever waits for a worker that may offer a function looks again.
            shared.note_worker();
        } else if state.crew.is_asleep() {
            let until = state.crew.paused_until().or(Some(now));
            let failing = Failing { why, until };
            shared.dispatch.lock().set_failing(self.key, Some(failing), now, &mut flushes);
        }
        shared.perform(flushes, None);
    }

    fn fail_readiness(&self, why: Arc<PoolFailure>) {
        self.readiness.send_if_modified(|readiness| {
            let is_open = matches!(readiness, Readiness::NotYet);
            if is_open {
                *readiness = Readiness::Failed(why);
            }
            is_open
        });
    }

    fn failure(&self, reason: Arc<str>, lines: Vec<Arc<str>>) -> Arc<PoolFailure> {
        Arc::new(PoolFailure { pool: Arc::clone(&self.name), reason, lines })
    }

    fn perform(self: &Arc<Pool>, action: Action, shared: &Arc<Shared>, now: Instant) {
        match action {
            Action::Start(number) => self.start(number, shared),
            Action::Drain(number) => {
                let Some(process) = self.state.lock().processes.get(&number).cloned() else { return };
                match process.worker() {
                    Some(worker) => {
                        let mut flushes = Flushes::default();
                        if shared.dispatch.lock().send_drain(worker, now, &mut flushes) {
                            shared.expire_later();
                        }
                        shared.perform(flushes, None);
                        process.order(Order::Drain);
                    }
                    None => process.order(Order::End),
                }
            }
            Action::Kill(number) => {
                if let Some(process) = self.state.lock().processes.get(&number) {
                    tracing::warn!(worker = %process.name(), within = ?self.spec.start_timeout, "worker process has not registered in time");
                    process.order(Order::End);
                }
            }
        }
    }

    fn start(self: &Arc<Pool>, number: MemberNumber, shared: &Arc<Shared>) {
        let process = {
            let mut state = self.state.lock();
            let process = Arc::new(Process::new(number, self.free_name(&state), shared.config.log_rate));
            state.processes.insert(number, Arc::clone(&process));
            process
        };
        shared.pools.enter(self, &process);
        match process.start(&self.spec, &self.limits, &self.version, shared) {
            Ok(running) => {
                let (pool, task_shared) = (Arc::clone(self), Arc::clone(shared));
                let task = async move {
                    let how = process.attend(running, pool.spec.drain_grace, &pool.limits, &task_shared).await;
                    pool.ended(&process, &how, &task_shared);
                };
                shared.pools.tasks().spawn_on(task, &shared.runtime);
            }
            Err(error) => {
                let how = format!("could not be started: {error}");
                self.ended(&process, &how, shared);
            }
        }
    }

    /// One process at a time has a name.
    fn free_name(&self, state: &State) -> Arc<str> {
        if self.spec.max == 1 {
            return Arc::clone(&self.name);
        }
        let is_free = |name: &Arc<str>| {
            let is_leaving = |process: &Process| state.crew.is_leaving(process.number());
            !state.processes.values().any(|process| process.name() == name && !is_leaving(process))
        };
        let mut names = (1..).map(|index| Arc::from(format!("{}-{index}", self.name)));
        names.find(is_free).unwrap_or_else(|| Arc::clone(&self.name))
    }

    fn ended(&self, process: &Arc<Process>, how: &str, shared: &Shared) {
        let now = Instant::now();
        shared.pools.leave(process);
        process.ended(how);
        shared.tell_dropped(process.budget(), process.name(), &self.version);
        let mut state = self.state.lock();
        state.processes.remove(&process.number());
        state.ended.push_back(Arc::clone(process));
        if state.ended.len() > REMEMBERED {
            state.ended.pop_front();
        }
        let is_unexpected = !state.crew.is_leaving(process.number()) && !shared.closing.is_cancelled();
        state.crew.ended(process.number(), now);
        if is_unexpected {
            count(&shared.counters.restarts);
            tracing::warn!(worker = %process.name(), "worker process {how}");
            let failure = self.failure(how.into(), process.last_lines());
            state.last_failure = Some(Arc::clone(&failure));
            self.fail_readiness(failure);
        } else {
            tracing::info!(worker = %process.name(), "worker process {how}");
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn info(&self, shared: &Shared) -> PoolInfo {
        let now = Instant::now();
        let state = self.state.lock();
        let (load, functions) = {
            let dispatch = shared.dispatch.lock();
            (dispatch.pool_load(self.key), dispatch.pool_functions(self.key))
        };
        let processes = state.processes.values().map(|process| {
            let worker = load.workers.iter().find(|worker| worker.member == process.number());
            ProcessInfo {
                name: Arc::clone(process.name()),
                pid: process.pid(),
                state: match worker {
                    _ if state.crew.is_leaving(process.number()) => ProcessState::Leaving,
                    Some(_) => ProcessState::Serving,
                    None => ProcessState::Starting,
                },
                age: process.age(),
                running: worker.map_or(0, |worker| worker.running),
                given: worker.map_or(0, |worker| worker.given),
            }
        });
        let processes: Vec<ProcessInfo> = processes.collect();
        let is_serving = processes.iter().any(|process| process.state == ProcessState::Serving);
        let pool_state = match () {
            () if state.crew.is_closing() => PoolState::Draining,
            () if state.crew.is_failing(now) => PoolState::Failing,
            () if is_serving => PoolState::Serving,
            () if state.crew.is_asleep() => PoolState::Asleep,
            () => PoolState::Starting,
        };
        PoolInfo {
            id: self.id,
            name: Arc::clone(&self.name),
            version: Arc::clone(&self.version),
            state: pool_state,
            min: self.spec.min,
            max: self.spec.max,
            processes,
            functions,
            limits: self.limits.in_force(),
            limits_not_in_force: self.limits.not_in_force(),
            waiting: load.waiting,
            last_failure: state.last_failure.clone(),
        }
    }
}
