//! The scheduler: which call runs when and where.
//!
//! It knows the functions, the workers that offer them, the limits, and the attempts that wait or run. This is plain data
//! behind one lock: nothing here waits, reads a clock or logs. An **attempt** is one try of a call. It waits in a
//! [lane](lanes) until a worker that offers the function has a free place on its level and every [limit](buckets) on it
//! takes one more, runs there, and ends exactly once: with the worker's answer, with the loss of the worker, or by being
//! given up. What follows from its end (another attempt, a result) is not decided here.
//!
//! Invariants:
//! - A worker's place, and what an attempt takes of its limits, is held until the worker answers or is gone, even if the
//!   attempt was given up meanwhile. So a worker never has more calls than it asked for, and a limit is never exceeded.
//! - No ready call waits while a worker has a place for it ([`choose`]).
//! - Keys are never reused, so a late or second answer finds nothing.
//! - Attempts on one level never wait for places of another, which is why nesting cannot block itself ([`family`]).

mod buckets;
mod choose;
mod ending;
mod family;
mod lanes;
mod picture;
mod pools;
mod rules;
mod stuck;
mod submit;
mod workers;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use boki_log::Position;
use slotmap::{Key, KeyData, SlotMap, new_key_type};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::config::FunctionsConfig;
use crate::exchange::Reply;
use crate::link::{Invocation, Link};

pub(crate) use buckets::InForce;
use buckets::{BucketKey, Buckets};
use lanes::{Lane, LaneId, LaneState, Level};
pub(crate) use pools::{Failing, PoolKey, Seat, Wanted};
pub(crate) use stuck::Overdue;
pub(crate) use workers::NewWorker;

new_key_type! {
    /// A function that is known.
    pub(crate) struct FunctionKey;
    /// A worker that is connected.
    pub(crate) struct WorkerKey;
    /// An attempt that waits or runs.
    pub(crate) struct AttemptKey;
    /// A lane in which something waits, or did a moment ago.
    pub(crate) struct LaneKey;
}

impl AttemptKey {
    /// As the number that travels.
    pub(crate) fn corr(self) -> u64 {
        self.data().as_ffi()
    }

    pub(crate) fn from_corr(corr: u64) -> AttemptKey {
        KeyData::from_ffi(corr).into()
    }
}

impl WorkerKey {
    /// As the number that logs show.
    pub(crate) fn number(self) -> u64 {
        self.data().as_ffi()
    }
}

/// What bounds an attempt's time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// The whole of it, waiting included, ends at this instant.
    Until(Instant),
    /// From the moment it runs, the function's timeout; it may wait as long as it takes.
    OnceRunning,
}

/// What decides when a call runs, besides its function.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The higher the sooner.
    pub(crate) priority: u8,
    /// For whom it is.
    pub(crate) limit_key: Option<Arc<str>>,
    /// The attempt that it is given up with; it runs on the level below that one's.
    pub(crate) parent: Option<AttemptKey>,
    /// Its level, if it has no parent.
    pub(crate) level: u8,
}

/// An attempt to be made.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) standing: Standing,
    /// What the call has seen so far.
    pub(crate) position: Position,
    pub(crate) attempt: u32,
    pub(crate) limit: Limit,
    /// It is on record: it waits for a worker even if none offers the function, and no bound refuses it.
    pub(crate) on_record: bool,
    /// Where its end is told.
    pub(crate) reply: Reply,
    /// Where it is told that it runs, and until when.
    pub(crate) started: Option<oneshot::Sender<Instant>>,
}

#[derive(Debug)]
struct Attempt {
    function: FunctionKey,
    level: u8,
    limit_key: Option<Arc<str>>,
    order: u64,
    /// `None` once it was given up.
    request: Option<Request>,
    /// Where it waits.
    lane: Option<LaneKey>,
    /// Where it runs.
    worker: Option<WorkerKey>,
    /// When it is given up, once it runs.
    until: Option<Instant>,
    /// When it was given up while it ran.
    given_up_at: Option<Instant>,
    /// What it takes of limits while it runs.
    buckets: Vec<BucketKey>,
    parent: Option<AttemptKey>,
    /// Those that are given up with it.
    children: BTreeSet<AttemptKey>,
}

#[derive(Debug)]
struct Function {
    name: Arc<str>,
    description: Arc<str>,
    max_attempts: u32,
    timeout: Duration,
    /// `None`: no worker has said so far.
    streams_input: Option<bool>,
    /// Those that offer it and take calls.
    workers: Vec<WorkerKey>,
    /// Pools that offer it, whether they have a process now or not.
    pools: Vec<PoolKey>,
    /// Where the search for a worker begins: it moves on, so that equal workers share the work.
    turn: usize,
    lanes: BTreeMap<LaneId, LaneKey>,
    levels: Vec<Level>,
    /// Lanes that are ready, on all levels.
    ready: usize,
    /// Limits on all of its calls together.
    gates: Vec<BucketKey>,
    /// Limits that ask for the key, by their numbers.
    keyed: Vec<usize>,
    /// How many calls of it are started in a row while others wait for the same places.
    weight: u32,
    /// How many of those are left.
    left: u32,
    /// When that was used up last.
    served: u64,
    queued: usize,
    running: usize,
    /// When the last worker that offered it went; `None`: some worker offers it, or none ever did.
    lost_at: Option<Instant>,
}

impl Function {
    fn level(&mut self, level: u8) -> &mut Level {
        let level = usize::from(level);
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Level::default);
        }
        &mut self.levels[level]
    }

    fn waits_on(&self, level: u8) -> bool {
        self.ready > 0 && self.levels.get(usize::from(level)).is_some_and(|level| !level.ready.is_empty())
    }
}

#[derive(Debug)]
struct Worker {
    name: Arc<str>,
    pid: u32,
    link: Link,
    /// Places on each level.
    concurrency: u32,
    /// Places taken, by level.
    taken: Vec<u32>,
    /// Places taken, on all levels.
    running: u32,
    draining: bool,
    /// Since when it has had no call.
    idle_since: Instant,
    /// Calls that it has been given in all.
    given: u64,
    /// Somebody looks after the calls of it that were given up.
    is_watched: bool,
    /// Of a process that this engine started.
    seat: Option<Seat>,
    /// Rising.
    functions: Vec<FunctionKey>,
}

impl Worker {
    /// Whether it can take no further call on this level now. There will be an answer from it then, which is when to look
    /// again.
    fn is_full(&self, level: u8) -> bool {
        let taken = self.taken.get(usize::from(level)).copied().unwrap_or(0);
        taken >= self.concurrency || (self.running > 0 && self.link.is_congested())
    }

    fn take_place(&mut self, level: u8) {
        let level = usize::from(level);
        if self.taken.len() <= level {
            self.taken.resize(level + 1, 0);
        }
        self.taken[level] += 1;
        self.running += 1;
    }

    fn leave_place(&mut self, level: u8) {
        self.taken[usize::from(level)] -= 1;
        self.running -= 1;
    }
}

/// Defaults of the function that an attempt is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) timeout: Duration,
    pub(crate) max_attempts: u32,
    /// Whether it takes its input piece by piece; `None`: no worker has said so far.
    pub(crate) streams_input: Option<bool>,
}

/// What is to be done once the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    /// Links that have frames to be written. Most often there is one: it costs no allocation.
    first: Option<(WorkerKey, Link)>,
    more: Vec<(WorkerKey, Link)>,
    /// Pools that have something to decide.
    woken: Vec<Arc<Notify>>,
    /// Workers that have to answer a call that was given up.
    pub(crate) watched: Vec<WorkerKey>,
    /// When [`Dispatch::tick`] is to be called next.
    pub(crate) timer: Option<Instant>,
}

impl Flushes {
    fn note(&mut self, worker: WorkerKey, link: &Link) {
        if self.first.iter().chain(&self.more).any(|(noted, _)| *noted == worker) {
            return;
        }
        let entry = (worker, link.clone());
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.more.push(entry);
        }
    }

    fn wake(&mut self, pool: &Arc<Notify>) {
        self.woken.push(Arc::clone(pool));
    }

    /// Has the frames written, except those of `awake`: whoever calls writes them. And has the pools decide.
    pub(crate) fn flush(self, awake: Option<WorkerKey>) {
        for pool in self.woken {
            pool.notify_one();
        }
        for (worker, link) in self.first.into_iter().chain(self.more) {
            if Some(worker) != awake {
                link.flush();
            }
        }
    }
}

/// The table of everything that waits or runs.
#[derive(Debug)]
pub(crate) struct Dispatch {
    config: Arc<FunctionsConfig>,
    functions: SlotMap<FunctionKey, Function>,
    by_name: BTreeMap<Arc<str>, FunctionKey>,
    workers: SlotMap<WorkerKey, Worker>,
    attempts: SlotMap<AttemptKey, Attempt>,
    lanes: SlotMap<LaneKey, Lane>,
    buckets: Buckets,
    /// Functions with a ready lane.
    hot: BTreeSet<FunctionKey>,
    /// Counts what happens; tells what came before what.
    order: u64,
    queued: usize,
    queued_bytes: usize,
    /// Attempts that hold a place of a worker and whose end somebody still waits for.
    running: usize,
    pools: SlotMap<PoolKey, pools::Pool>,
    closing: bool,
}

impl Dispatch {
    pub(crate) fn new(config: Arc<FunctionsConfig>) -> Dispatch {
        Dispatch {
            config,
            functions: SlotMap::with_key(),
            by_name: BTreeMap::new(),
            workers: SlotMap::with_key(),
            attempts: SlotMap::with_key(),
            lanes: SlotMap::with_key(),
            buckets: Buckets::default(),
            hot: BTreeSet::new(),
            order: 0,
            queued: 0,
            queued_bytes: 0,
            running: 0,
            pools: SlotMap::with_key(),
            closing: false,
        }
    }

    /// What holds for calls of `name`.
    pub(crate) fn terms(&self, name: &str) -> Terms {
        match self.by_name.get(name).and_then(|key| self.functions.get(*key)) {
            Some(function) => Terms {
                timeout: function.timeout,
                max_attempts: function.max_attempts,
                streams_input: function.streams_input,
            },
            None => {
                let (timeout, max_attempts) = (self.config.timeout, self.config.max_attempts);
                Terms { timeout, max_attempts, streams_input: None }
            }
        }
    }

    /// Whether an attempt runs on this worker, and somebody waits for its end.
    pub(crate) fn runs_on(&self, key: AttemptKey, worker: WorkerKey) -> bool {
        self.attempts.get(key).is_some_and(|attempt| attempt.worker == Some(worker) && attempt.request.is_some())
    }

    /// Where the end of an attempt of this worker is told; `Some(None)`: it was given up. `None`: there is no such attempt.
    pub(crate) fn reply_of(&self, key: AttemptKey, worker: WorkerKey) -> Option<Option<&Reply>> {
        let attempt = self.attempts.get(key).filter(|attempt| attempt.worker == Some(worker))?;
        Some(attempt.request.as_ref().map(|request| &request.reply))
    }

    fn learn(&mut self, name: &Arc<str>, now: Instant) -> FunctionKey {
        let key = self.functions.insert(Function {
            name: Arc::clone(name),
            description: "".into(),
            max_attempts: self.config.max_attempts,
            timeout: self.config.timeout,
            streams_input: None,
            workers: Vec::new(),
            pools: Vec::new(),
            turn: 0,
            lanes: BTreeMap::new(),
            levels: Vec::new(),
            ready: 0,
            gates: Vec::new(),
            keyed: Vec::new(),
            weight: 1,
            left: 1,
            served: 0,
            queued: 0,
            running: 0,
            lost_at: None,
        });
        self.by_name.insert(Arc::clone(name), key);
        self.bind_limits(key, now);
        key
    }
}
