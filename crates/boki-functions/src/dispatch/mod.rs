//! Which call runs where: functions, the workers that offer them, and the attempts that wait or run.
//!
//! This is plain data behind one lock: nothing here waits, reads a clock or logs. An **attempt** is one
//! try of a call. It waits in its function's queue (first in, first out) until a worker that offers the
//! function has a free slot, runs there, and ends exactly once: with the worker's answer, with the loss
//! of the worker, or by being given up. What follows from its end (another attempt, a result) is not
//! decided here.
//!
//! Invariants: a worker's `running` is the number of attempts that hold one of its slots; a slot is held
//! until the worker answers or is gone, even if the attempt was given up meanwhile, so a worker never has
//! more calls than it asked for. Keys are never reused, so a late or second answer finds nothing.

mod ending;
mod picture;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use boki_log::Position;
use boki_wire::worker::{CancelReason, InvokeDone};
use slotmap::{Key, KeyData, SlotMap, new_key_type};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::FunctionsConfig;
use crate::demand::Edges;
use crate::error::CallError;
use crate::exchange::{Ended, Reply};
use crate::link::{Invocation, Link};

pub(crate) use workers::NewWorker;

new_key_type! {
    /// A function that is known.
    pub(crate) struct FunctionKey;
    /// A worker that is connected.
    pub(crate) struct WorkerKey;
    /// An attempt that waits or runs.
    pub(crate) struct AttemptKey;
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

/// An attempt to be made.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) invocation: Arc<Invocation>,
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
    /// `None` once it was given up.
    request: Option<Request>,
    worker: Option<WorkerKey>,
    order: u64,
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
    /// Where the search for a worker begins: it moves on, so that equal workers share the work.
    turn: usize,
    /// Keys of attempts that were given up stay in here until they come to the front or the queue is swept.
    queue: VecDeque<(u64, AttemptKey)>,
    queued: usize,
    running: usize,
    /// When the last worker that offered it went; `None`: some worker offers it, or none ever did.
    lost_at: Option<Instant>,
}

#[derive(Debug)]
struct Worker {
    name: Arc<str>,
    pid: u32,
    link: Link,
    concurrency: u32,
    running: u32,
    draining: bool,
    /// Since when it has had no call.
    idle_since: Instant,
    functions: Vec<FunctionKey>,
}

impl Worker {
    /// Whether it can take no further call now. There will be an answer from it then, which is when to look again.
    fn is_full(&self) -> bool {
        self.running >= self.concurrency || (self.running > 0 && self.link.is_congested())
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

/// The links that have frames to be written: to be flushed once the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Flushes {
    /// Most often there is one: it costs no allocation.
    first: Option<(WorkerKey, Link)>,
    more: Vec<(WorkerKey, Link)>,
    pub(crate) edges: Edges,
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

    /// Has the frames written.
    pub(crate) fn flush(self) {
        for (_, link) in self.first.into_iter().chain(self.more) {
            link.flush();
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
    /// Counts attempts; orders them across functions.
    order: u64,
    queued: usize,
    queued_bytes: usize,
    /// Attempts that hold a slot of a worker and whose end somebody still waits for.
    running: usize,
    /// Supervised processes that have not registered yet: any of them may offer any function.
    starting: usize,
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
            order: 0,
            queued: 0,
            queued_bytes: 0,
            running: 0,
            starting: 0,
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

    /// Whether a worker offers `name`, or one that may is expected.
    fn is_expected(&self, name: &str, now: Instant) -> bool {
        let function = self.by_name.get(name).and_then(|key| self.functions.get(*key));
        self.starting > 0
            || function.is_some_and(|function| {
                let grace = self.config.reconnect_grace;
                let is_fresh = |lost_at| now.saturating_duration_since(lost_at) < grace;
                !function.workers.is_empty() || function.lost_at.is_some_and(is_fresh)
            })
    }

    /// Whether a new call of `name` with so much input may wait.
    pub(crate) fn admits(&self, name: &str, input_bytes: usize, now: Instant) -> Result<(), CallError> {
        if self.closing {
            return Err(CallError::ShuttingDown);
        }
        if !self.is_expected(name, now) {
            return Err(CallError::FunctionNotFound { function: name.into() });
        }
        let function = self.by_name.get(name).and_then(|key| self.functions.get(*key));
        if function.map_or(0, |function| function.queued) >= self.config.queue_calls {
            let limit = self.config.queue_calls as u64;
            return Err(CallError::Overloaded { what: "too many calls of the function wait for a worker", limit });
        }
        if self.queued_bytes + input_bytes > self.config.queue_bytes {
            let limit = self.config.queue_bytes as u64;
            return Err(CallError::Overloaded { what: "the input of waiting calls takes too many bytes", limit });
        }
        Ok(())
    }

    /// Starts an attempt, or queues it: the first of a call at the end, a further one at the front.
    pub(crate) fn submit(
        &mut self,
        request: Request,
        now: Instant,
        flushes: &mut Flushes,
    ) -> Result<AttemptKey, CallError> {
        if self.closing {
            return Err(CallError::ShuttingDown);
        }
        let name = Arc::clone(&request.invocation.function);
        let input_bytes = request.invocation.bytes();
        let is_retry = request.attempt > 1;
        let known = self.by_name.get(&name).copied();
        let worker = known.and_then(|function| self.free_worker(function));
        if worker.is_none() && !request.on_record {
            if is_retry && !self.is_expected(&name, now) {
                return Err(CallError::FunctionNotFound { function: name });
            }
            if !is_retry {
                self.admits(&name, input_bytes, now)?;
            }
        }
        let function_key = known.unwrap_or_else(|| self.learn(&name));
        self.order += 1;
        let attempt = Attempt { function: function_key, request: Some(request), worker: None, order: self.order };
        let attempt = self.attempts.insert(attempt);
        if let Some(worker) = worker {
            self.assign(attempt, worker, now, flushes);
        } else if let Some(function) = self.functions.get_mut(function_key) {
            flushes.edges.waiting = true;
            function.queued += 1;
            self.queued += 1;
            self.queued_bytes += input_bytes;
            if is_retry {
                function.queue.push_front((0, attempt));
            } else {
                function.queue.push_back((self.order, attempt));
            }
        }
        Ok(attempt)
    }

    /// The least loaded worker with a free slot.
    fn free_worker(&mut self, key: FunctionKey) -> Option<WorkerKey> {
        let function = self.functions.get_mut(key)?;
        let count = function.workers.len();
        let mut best: Option<(u64, WorkerKey)> = None;
        for step in 0..count {
            let candidate = function.workers[(function.turn + step) % count];
            let Some(worker) = self.workers.get(candidate) else { continue };
            if worker.is_full() {
                continue;
            }
            // Load as a share of what the worker takes, in millionths.
            let load = u64::from(worker.running) * 1_000_000 / u64::from(worker.concurrency);
            if best.is_none_or(|(least, _)| load < least) {
                best = Some((load, candidate));
            }
        }
        function.turn = function.turn.wrapping_add(1) % count.max(1);
        best.map(|(_, worker)| worker)
    }

    fn assign(&mut self, key: AttemptKey, worker_key: WorkerKey, now: Instant, flushes: &mut Flushes) {
        let (Some(attempt), Some(worker)) = (self.attempts.get_mut(key), self.workers.get_mut(worker_key)) else {
            return;
        };
        let (Some(request), Some(function)) = (&mut attempt.request, self.functions.get_mut(attempt.function)) else {
            return;
        };
        attempt.worker = Some(worker_key);
        worker.running += 1;
        function.running += 1;
        self.running += 1;
        let until = match request.limit {
            Limit::Until(until) => until,
            Limit::OnceRunning => now + function.timeout,
        };
        if let Some(started) = request.started.take() {
            // Whoever waited may have given up this instant: it will say so.
            let _ = started.send(until);
        }
        let time_left = until.saturating_duration_since(now);
        worker.link.invoke(key.corr(), &request.invocation, request.position, request.attempt, time_left);
        flushes.note(worker_key, &worker.link);
    }

    /// Gives a worker's free slots to what has waited longest among the functions that it offers.
    fn fill(&mut self, worker_key: WorkerKey, now: Instant, flushes: &mut Flushes) {
        while self.queued > 0 {
            let Some(worker) = self.workers.get(worker_key) else { return };
            if worker.draining || worker.is_full() {
                return;
            }
            let mut oldest: Option<(u64, FunctionKey)> = None;
            for index in 0..worker.functions.len() {
                let key = self.workers[worker_key].functions[index];
                if let Some(order) = self.front(key)
                    && oldest.is_none_or(|(least, _)| order < least)
                {
                    oldest = Some((order, key));
                }
            }
            let Some((_, function)) = oldest else { return };
            let Some(attempt) = self.dequeue(function) else { return };
            self.assign(attempt, worker_key, now, flushes);
        }
    }

    /// Order of the first attempt in a function's queue.
    fn front(&mut self, key: FunctionKey) -> Option<u64> {
        let function = self.functions.get_mut(key)?;
        while let Some((order, attempt)) = function.queue.front() {
            if self.attempts.contains_key(*attempt) {
                return Some(*order);
            }
            function.queue.pop_front();
        }
        None
    }

    fn dequeue(&mut self, key: FunctionKey) -> Option<AttemptKey> {
        self.front(key)?;
        let (_, attempt) = self.functions.get_mut(key)?.queue.pop_front()?;
        self.unqueue(attempt);
        Some(attempt)
    }

    /// Takes an attempt out of the counts of what waits.
    fn unqueue(&mut self, key: AttemptKey) {
        let Some(attempt) = self.attempts.get(key) else { return };
        let bytes = attempt.request.as_ref().map_or(0, |request| request.invocation.bytes());
        self.queued -= 1;
        self.queued_bytes -= bytes;
        if let Some(function) = self.functions.get_mut(attempt.function) {
            function.queued -= 1;
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

    /// A worker's answer to an attempt. `false`: nobody waits for it (late, given twice, or never asked).
    pub(crate) fn answer(
        &mut self,
        worker_key: WorkerKey,
        key: AttemptKey,
        done: InvokeDone,
        now: Instant,
        flushes: &mut Flushes,
    ) -> bool {
        if self.attempts.get(key).is_none_or(|attempt| attempt.worker != Some(worker_key)) {
            return false;
        }
        let waited_for = self.end(key, Ended::Done(done));
        if let Some(worker) = self.workers.get_mut(worker_key) {
            worker.running -= 1;
        }
        self.fill(worker_key, now, flushes);
        if let Some(worker) = self.workers.get_mut(worker_key).filter(|worker| worker.running == 0) {
            worker.idle_since = now;
            flushes.edges.idle = true;
        }
        waited_for
    }

    /// Forgets an attempt and tells its end to whoever waits for it.
    fn end(&mut self, key: AttemptKey, ended: Ended) -> bool {
        let Some(attempt) = self.attempts.remove(key) else { return false };
        let Some(request) = attempt.request else { return false };
        if attempt.worker.is_some() {
            self.running -= 1;
            if let Some(function) = self.functions.get_mut(attempt.function) {
                function.running -= 1;
            }
        }
        request.reply.send(ended);
        true
    }

    /// Gives an attempt up. One that runs keeps its slot until its worker answers.
    pub(crate) fn cancel(&mut self, key: AttemptKey, reason: CancelReason, flushes: &mut Flushes) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        if attempt.request.is_none() {
            return;
        }
        let function_key = attempt.function;
        let Some(worker_key) = attempt.worker else {
            self.unqueue(key);
            self.attempts.remove(key);
            self.sweep(function_key);
            self.forget_if_unknown(function_key);
            return;
        };
        attempt.request = None;
        self.running -= 1;
        if let Some(function) = self.functions.get_mut(function_key) {
            function.running -= 1;
        }
        if let Some(worker) = self.workers.get(worker_key) {
            worker.link.cancel(key.corr(), reason);
            flushes.note(worker_key, &worker.link);
        }
    }

    /// Keeps at least half of a queue alive.
    fn sweep(&mut self, key: FunctionKey) {
        if let Some(function) = self.functions.get_mut(key)
            && function.queue.len() > 2 * function.queued + 16
        {
            function.queue.retain(|(_, attempt)| self.attempts.contains_key(*attempt));
        }
    }

    fn learn(&mut self, name: &Arc<str>) -> FunctionKey {
        let key = self.functions.insert(Function {
            name: Arc::clone(name),
            description: "".into(),
            max_attempts: self.config.max_attempts,
            timeout: self.config.timeout,
            streams_input: None,
            workers: Vec::new(),
            turn: 0,
            queue: VecDeque::new(),
            queued: 0,
            running: 0,
            lost_at: None,
        });
        self.by_name.insert(Arc::clone(name), key);
        key
    }
}
