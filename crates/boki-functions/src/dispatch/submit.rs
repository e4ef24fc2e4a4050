//! Attempts that come, and attempts that go.

use std::collections::BTreeSet;
use std::sync::Arc;

use boki_wire::worker::{CancelReason, InvokeDone};
use tokio::time::Instant;

use super::{
    Attempt, AttemptKey, BucketKey, Dispatch, Flushes, FunctionKey, LaneId, LaneKey, LaneState, Request, Standing,
    WorkerKey,
};
use crate::error::CallError;
use crate::exchange::Ended;

/// What the end of an attempt brings about.
#[derive(Debug, Default)]
pub(super) struct After {
    /// Somebody waited for it.
    pub(super) waited_for: bool,
    /// Limits that take calls again.
    pub(super) reopened: Vec<BucketKey>,
}

impl Dispatch {
    /// Whether there is anybody to run a new call of `name`.
    pub(crate) fn accepts(&self, name: &Arc<str>, now: Instant) -> Result<(), CallError> {
        if self.closing {
            return Err(CallError::ShuttingDown);
        }
        self.unexpected(name, now).map_or(Ok(()), Err)
    }

    /// Whether a new call of `name` with so much input may wait.
    pub(crate) fn admits(&self, name: &Arc<str>, input_bytes: usize, now: Instant) -> Result<(), CallError> {
        self.accepts(name, now)?;
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

    /// Starts an attempt, or has it wait: the first of a call at the end of its lane, a further one at the front.
    pub(crate) fn submit(
        &mut self,
        request: Request,
        now: Instant,
        flushes: &mut Flushes,
    ) -> Result<AttemptKey, CallError> {
        if self.closing {
            return Err(CallError::ShuttingDown);
        }
        self.catch_up(now, flushes);
        let level = self.level_of(&request)?;
        let name = Arc::clone(&request.invocation.function);
        let known = self.by_name.get(&name).copied();
        if let Some(function) = known
            && let Some((worker, buckets)) = self.room(function, level, &request.standing, now)
        {
            let attempt = self.insert(function, level, request);
            self.assign(attempt, buckets, worker, now, flushes);
            self.note_served(function);
            return Ok(attempt);
        }
        let is_retry = request.attempt > 1;
        if !request.on_record {
            if !is_retry {
                self.admits(&name, request.invocation.bytes(), now)?;
                self.admitted_by_limits(known, &request.standing.limit_key)?;
            } else if let Some(error) = self.unexpected(&name, now) {
                return Err(error);
            }
        }
        let function = known.unwrap_or_else(|| self.learn(&name, now));
        Ok(self.enqueue(function, level, request, is_retry, now, flushes))
    }

    /// A worker that an attempt can run in at once, and what it takes of limits; `None`: it has to wait.
    fn room(
        &mut self,
        key: FunctionKey,
        level: u8,
        standing: &Standing,
        now: Instant,
    ) -> Option<(WorkerKey, Vec<BucketKey>)> {
        let function = self.functions.get(key)?;
        // Whoever is ready waits for a place, so there is none.
        if function.waits_on(level) {
            return None;
        }
        if function.gates.is_empty() && function.keyed.is_empty() {
            return Some((self.free_worker(key, level)?, Vec::new()));
        }
        let id = LaneId { level, priority: standing.priority, key: standing.limit_key.clone() };
        let before = function.lanes.get(&id).and_then(|lane| self.lanes.get(*lane));
        if before.is_some_and(|lane| lane.waiting > 0) {
            return None;
        }
        let is_closed = |bucket| self.buckets.closed(bucket, now).is_some();
        if function.gates.iter().copied().any(is_closed) || self.found_buckets(function, &id.key).any(is_closed) {
            return None;
        }
        let worker = self.free_worker(key, level)?;
        let mut buckets = self.functions.get(key)?.gates.clone();
        buckets.extend(self.open_buckets(key, &id.key, now));
        Some((worker, buckets))
    }

    fn insert(&mut self, function: FunctionKey, level: u8, request: Request) -> AttemptKey {
        self.order += 1;
        let parent = request.standing.parent;
        let attempt = self.attempts.insert(Attempt {
            function,
            level,
            limit_key: request.standing.limit_key.clone(),
            order: self.order,
            request: Some(request),
            lane: None,
            worker: None,
            until: None,
            given_up_at: None,
            buckets: Vec::new(),
            parent,
            children: BTreeSet::new(),
        });
        if let Some(parent) = parent.and_then(|parent| self.attempts.get_mut(parent)) {
            parent.children.insert(attempt);
        }
        attempt
    }

    fn enqueue(
        &mut self,
        function_key: FunctionKey,
        level: u8,
        request: Request,
        first: bool,
        now: Instant,
        flushes: &mut Flushes,
    ) -> AttemptKey {
        let id = LaneId { level, priority: request.standing.priority, key: request.standing.limit_key.clone() };
        let input_bytes = request.invocation.bytes();
        let lane_key = self.lane(function_key, id, now);
        let key = self.insert(function_key, level, request);
        if let Some(attempt) = self.attempts.get_mut(key) {
            attempt.lane = Some(lane_key);
        }
        self.queued += 1;
        self.queued_bytes += input_bytes;
        self.count_throttled(function_key, lane_key, now);
        self.count_waiting(function_key, lane_key, 1);
        if let Some(function) = self.functions.get_mut(function_key) {
            function.queued += 1;
        }
        let Some(lane) = self.lanes.get_mut(lane_key) else { return key };
        if first {
            lane.queue.push_front(key);
        } else {
            lane.queue.push_back(key);
        }
        lane.waiting += 1;
        if lane.waiting == 1 {
            self.note_waiting(lane_key);
            self.settle_lane(lane_key, now);
        }
        let is_open = self.function_is_open(function_key, now);
        let is_ready = self.lanes.get(lane_key).is_some_and(|lane| lane.state == LaneState::Ready);
        if is_open && is_ready {
            self.note_demand(function_key, flushes);
        }
        flushes.timer = self.buckets.next_timer();
        key
    }

    /// An attempt waits in its lane no longer.
    pub(super) fn leave_lane(&mut self, lane_key: LaneKey, input_bytes: usize, now: Instant) {
        let Some(lane) = self.lanes.get_mut(lane_key) else { return };
        let function = lane.function;
        lane.waiting -= 1;
        let is_empty = lane.waiting == 0;
        if lane.queue.len() > 2 * lane.waiting + 16 {
            lane.queue.retain(|attempt| self.attempts.contains_key(*attempt));
        }
        self.queued -= 1;
        self.queued_bytes -= input_bytes;
        if let Some(function) = self.functions.get_mut(function) {
            function.queued -= 1;
        }
        self.count_waiting(function, lane_key, -1);
        if is_empty {
            self.empty_lane(lane_key, now);
        }
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
        let Some(attempt) = self.attempts.get(key).filter(|attempt| attempt.worker == Some(worker_key)) else {
            return false;
        };
        let level = attempt.level;
        self.catch_up(now, flushes);
        let after = self.end(key, Ended::Done(done), now, flushes);
        if let Some(worker) = self.workers.get_mut(worker_key) {
            worker.leave_place(level);
        }
        if after.reopened.is_empty() {
            self.fill(worker_key, level, now, flushes);
        } else {
            self.reopen(&after.reopened, now, flushes);
        }
        if let Some(worker) = self.workers.get_mut(worker_key).filter(|worker| worker.running == 0) {
            worker.idle_since = now;
            self.note_idle(worker_key, flushes);
        }
        after.waited_for
    }

    /// Forgets an attempt, tells its end to whoever waits for it, and gives up its children.
    pub(super) fn end(&mut self, key: AttemptKey, ended: Ended, now: Instant, flushes: &mut Flushes) -> After {
        let Some(attempt) = self.attempts.remove(key) else { return After::default() };
        self.leave_family(&attempt, key);
        self.give_up_all(attempt.children, now, flushes);
        let mut after = After::default();
        for bucket in attempt.buckets {
            if self.buckets.give_back(bucket, now) {
                after.reopened.push(bucket);
            }
        }
        let Some(request) = attempt.request else { return after };
        if attempt.worker.is_some() {
            self.running -= 1;
            if let Some(function) = self.functions.get_mut(attempt.function) {
                function.running -= 1;
            }
        }
        if let Some(lane) = attempt.lane {
            self.leave_lane(lane, request.invocation.bytes(), now);
        }
        request.reply.send(ended);
        after.waited_for = true;
        after
    }

    /// Gives an attempt up. One that runs keeps its place until its worker answers.
    pub(crate) fn cancel(&mut self, key: AttemptKey, reason: CancelReason, now: Instant, flushes: &mut Flushes) {
        self.give_up(key, reason, now, flushes);
    }

    /// The same; returns what was asked for, if somebody still waited for it.
    pub(super) fn give_up(
        &mut self,
        key: AttemptKey,
        reason: CancelReason,
        now: Instant,
        flushes: &mut Flushes,
    ) -> Option<Request> {
        let attempt = self.attempts.get_mut(key)?;
        let request = attempt.request.take()?;
        let children = std::mem::take(&mut attempt.children);
        attempt.given_up_at = attempt.worker.map(|_| now);
        let (function_key, worker_key) = (attempt.function, attempt.worker);
        self.give_up_all(children, now, flushes);
        let Some(worker_key) = worker_key else {
            if let Some(attempt) = self.attempts.remove(key) {
                self.leave_family(&attempt, key);
                if let Some(lane) = attempt.lane {
                    self.leave_lane(lane, request.invocation.bytes(), now);
                }
            }
            self.forget_if_unknown(function_key, now);
            return Some(request);
        };
        self.running -= 1;
        if let Some(function) = self.functions.get_mut(function_key) {
            function.running -= 1;
        }
        if let Some(worker) = self.workers.get_mut(worker_key) {
            worker.link.cancel(key.corr(), reason);
            flushes.note(worker_key, &worker.link);
            if !std::mem::replace(&mut worker.is_watched, true) {
                flushes.watched.push(worker_key);
            }
        }
        Some(request)
    }

    /// Lets those go on that waited for no more than time.
    fn catch_up(&mut self, now: Instant, flushes: &mut Flushes) {
        if self.buckets.next_timer().is_some_and(|at| at <= now) {
            self.tick(now, flushes);
        }
    }
}
