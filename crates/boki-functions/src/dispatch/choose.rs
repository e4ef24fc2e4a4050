//! What runs next, and where.
//!
//! There are two occasions to look: a worker has a place again, and a limit takes calls again. Both end with the same
//! question, asked until nothing more can run: of the functions that have a ready lane on the level and whose own limits
//! take a call, which one? The one with the highest priority; of these, the one that was not served for longest.
//!
//! Invariant: when an input has been dealt with, no ready call waits while a worker that offers its function has a
//! place for it and all limits on it take one more.

use std::cmp::Reverse;

use tokio::time::Instant;

use super::{AttemptKey, BucketKey, Dispatch, Flushes, FunctionKey, LaneKey, LaneState, Limit, WorkerKey};

/// One that could run now. Less is better: higher priorities first, then deeper levels (somebody with a place waits for
/// them), then who was not served for longest.
type Rank = (Reverse<u8>, Reverse<u8>, u64);

impl Dispatch {
    /// The least loaded worker with a free place on a level.
    pub(super) fn free_worker(&mut self, key: FunctionKey, level: u8) -> Option<WorkerKey> {
        let function = self.functions.get_mut(key)?;
        let count = function.workers.len();
        let mut best: Option<(u64, WorkerKey)> = None;
        for step in 0..count {
            let candidate = function.workers[(function.turn + step) % count];
            let Some(worker) = self.workers.get(candidate) else { continue };
            if worker.is_full(level) {
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

    /// Whether the limits on a function as a whole take one more call.
    pub(super) fn function_is_open(&mut self, key: FunctionKey, now: Instant) -> bool {
        let Some(function) = self.functions.get(key) else { return false };
        let buckets = &mut self.buckets;
        !function.gates.iter().any(|gate| buckets.closed_until_looked_at(*gate, now))
    }

    /// The first lane of a function that can run on a level. Lanes that turn out to be closed are parked.
    fn first_ready(&mut self, key: FunctionKey, level: u8, now: Instant) -> Option<(u8, LaneKey)> {
        if !self.function_is_open(key, now) {
            return None;
        }
        loop {
            let due = *self.functions.get(key)?.levels.get(usize::from(level))?.ready.first()?;
            let buckets = &mut self.buckets;
            let closed =
                self.lanes.get(due.lane)?.buckets.iter().find(|bucket| buckets.closed_until_looked_at(**bucket, now));
            match closed {
                None => return Some((due.priority.0, due.lane)),
                Some(bucket) => {
                    let bucket = *bucket;
                    self.park(due.lane, bucket);
                }
            }
        }
    }

    /// Gives a worker's free places on a level to what is due.
    pub(super) fn fill(&mut self, worker_key: WorkerKey, level: u8, now: Instant, flushes: &mut Flushes) {
        while !self.hot.is_empty() {
            let Some(worker) = self.workers.get(worker_key) else { return };
            if worker.draining || worker.is_full(level) {
                return;
            }
            let mut best: Option<(Rank, LaneKey)> = None;
            for key in self.candidates() {
                let Some(worker) = self.workers.get(worker_key) else { return };
                let is_offered = worker.functions.binary_search(&key).is_ok();
                if !is_offered {
                    continue;
                }
                let Some((priority, lane)) = self.first_ready(key, level, now) else { continue };
                let turn = self.functions.get(key).map_or(0, |function| function.served);
                let rank = (Reverse(priority), Reverse(level), turn);
                if best.is_none_or(|(least, _)| rank < least) {
                    best = Some((rank, lane));
                }
            }
            let Some((_, lane)) = best else { return };
            self.start_first(lane, worker_key, now, flushes);
        }
    }

    /// Starts whatever can run, anywhere.
    pub(super) fn start_ready(&mut self, now: Instant, flushes: &mut Flushes) {
        loop {
            let mut best: Option<(Rank, LaneKey, WorkerKey)> = None;
            for key in self.candidates() {
                let Some(function) = self.functions.get(key) else { continue };
                let served = function.served;
                for level in (0..function.levels.len()).map(|level| u8::try_from(level).unwrap_or(u8::MAX)) {
                    let waits = self.functions.get(key).and_then(|function| function.levels.get(usize::from(level)));
                    if waits.is_none_or(|level| level.ready.is_empty()) {
                        continue;
                    }
                    let Some(worker) = self.free_worker(key, level) else { continue };
                    let Some((priority, lane)) = self.first_ready(key, level, now) else { continue };
                    let rank = (Reverse(priority), Reverse(level), served);
                    if best.is_none_or(|(least, ..)| rank < least) {
                        best = Some((rank, lane, worker));
                    }
                }
            }
            let Some((_, lane, worker)) = best else { return };
            self.start_first(lane, worker, now, flushes);
        }
    }

    /// The functions that have a ready lane.
    fn candidates(&self) -> Vec<FunctionKey> {
        self.hot.iter().copied().collect()
    }

    /// Buckets may take calls again: the lanes that wait for them go on, one by one, as many as they take.
    pub(super) fn reopen(&mut self, buckets: &[BucketKey], now: Instant, flushes: &mut Flushes) {
        loop {
            let mut is_done = true;
            for bucket in buckets {
                let is_awaited = self.buckets.get(*bucket).is_some_and(|bucket| !bucket.parked.is_empty());
                if !is_awaited || self.buckets.closed_until_looked_at(*bucket, now) {
                    continue;
                }
                let Some((_, _, key)) = self.buckets.get_mut(*bucket).and_then(|bucket| bucket.parked.pop_first())
                else {
                    continue;
                };
                if let Some(lane) = self.lanes.get_mut(key) {
                    lane.state = LaneState::Empty;
                }
                self.settle_lane(key, now);
                is_done = false;
            }
            // Lanes of functions that are limited as a whole are not parked: they are ready, and were only passed over.
            self.start_ready(now, flushes);
            if is_done {
                break;
            }
        }
        self.note_all_demand(flushes);
        flushes.timer = self.buckets.next_timer();
    }

    /// Time has gone by.
    pub(crate) fn tick(&mut self, now: Instant, flushes: &mut Flushes) {
        let due: Vec<BucketKey> = std::iter::from_fn(|| self.buckets.pop_timer(now)).collect();
        self.reopen(&due, now, flushes);
    }

    /// When [`Dispatch::tick`] has something to do; `None`: only if something else happens before.
    #[cfg(test)]
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.buckets.next_timer()
    }

    /// Starts the first call of a lane.
    fn start_first(&mut self, lane_key: LaneKey, worker: WorkerKey, now: Instant, flushes: &mut Flushes) {
        let Some(lane) = self.lanes.get_mut(lane_key) else { return };
        // Those that were given up are gone from the table; at least one is not, or the lane would be empty.
        while lane.queue.front().is_some_and(|attempt| !self.attempts.contains_key(*attempt)) {
            lane.queue.pop_front();
        }
        let Some(attempt) = lane.queue.pop_front() else { return };
        let function = lane.function;
        let request = self.attempts.get(attempt).and_then(|attempt| attempt.request.as_ref());
        let input_bytes = request.map_or(0, |request| request.invocation.bytes());
        let gates = self.functions.get(function).map_or(&[][..], |function| &function.gates);
        let buckets = gates.iter().chain(&lane.buckets).copied().collect();
        self.serve_lane(lane_key, now);
        self.assign(attempt, buckets, worker, now, flushes);
        self.leave_lane(lane_key, input_bytes, now);
        let lane = self.lanes.get(lane_key).filter(|lane| lane.state == LaneState::Ready);
        let closed = lane.and_then(|lane| {
            let table = &mut self.buckets;
            lane.buckets.iter().copied().find(|bucket| table.closed_until_looked_at(*bucket, now))
        });
        if let Some(bucket) = closed {
            self.park(lane_key, bucket);
        }
        self.note_served(function);
    }

    /// A call of a function has been started: others are due before its next.
    pub(super) fn note_served(&mut self, key: FunctionKey) {
        self.order += 1;
        let Some(function) = self.functions.get_mut(key) else { return };
        if function.left > 1 {
            function.left -= 1;
        } else {
            function.left = function.weight;
            function.served = self.order;
        }
    }

    /// Has an attempt run in a worker.
    pub(super) fn assign(
        &mut self,
        key: AttemptKey,
        buckets: Vec<BucketKey>,
        worker_key: WorkerKey,
        now: Instant,
        flushes: &mut Flushes,
    ) {
        let (Some(attempt), Some(worker)) = (self.attempts.get_mut(key), self.workers.get_mut(worker_key)) else {
            return;
        };
        let (Some(request), Some(function)) = (&mut attempt.request, self.functions.get_mut(attempt.function)) else {
            return;
        };
        for bucket in &buckets {
            self.buckets.take(*bucket, now);
        }
        attempt.buckets = buckets;
        attempt.lane = None;
        attempt.worker = Some(worker_key);
        worker.take_place(attempt.level);
        function.running += 1;
        self.running += 1;
        let until = match request.limit {
            Limit::Until(until) => until,
            Limit::OnceRunning => now + function.timeout,
        };
        attempt.until = Some(until);
        if let Some(started) = request.started.take() {
            // Whoever waited may have given up this instant: it will say so.
            let _ = started.send(until);
        }
        let time_left = until.saturating_duration_since(now);
        worker.link.invoke(key.corr(), &request.invocation, request.position, request.attempt, time_left);
        flushes.note(worker_key, &worker.link);
        self.note_given(worker_key, flushes);
    }
}
