//! What ends without a worker's doing: calls of functions that nobody offers any more, and everything.

use boki_wire::worker::CancelReason;
use tokio::time::Instant;

use super::{AttemptKey, Dispatch, Flushes, FunctionKey, WorkerKey};
use crate::error::CallError;
use crate::exchange::Ended;

impl Dispatch {
    /// Refuses what waits for a function that no worker offers any more, once nobody can be expected to.
    pub(crate) fn expire(&mut self, now: Instant, flushes: &mut Flushes) {
        let mut orphans = Vec::new();
        for (key, function) in &self.functions {
            if let Some(error) = self.unexpected(&function.name, now) {
                orphans.push((key, error));
            }
        }
        for (key, error) in orphans {
            let Some(function) = self.functions.get_mut(key) else { continue };
            function.lost_at = None;
            let lanes = function.lanes.values().filter_map(|lane| self.lanes.get(*lane));
            let waiting: Vec<AttemptKey> = lanes.flat_map(|lane| lane.queue.iter().copied()).collect();
            for attempt in waiting {
                let request = self.attempts.get(attempt).and_then(|attempt| attempt.request.as_ref());
                if request.is_some_and(|request| !request.on_record) {
                    self.end(attempt, Ended::Refused(error.clone()), now, flushes);
                }
            }
            self.forget_if_unknown(key, now);
        }
    }

    /// When the first of the functions that nobody offers now lost its last worker. What a pool offers is not lost.
    pub(crate) fn next_lost(&self) -> Option<Instant> {
        let lost = self.functions.values().filter(|function| function.pools.is_empty());
        lost.filter_map(|function| function.lost_at).min()
    }

    /// Forgets a function that no worker offers and nothing waits for.
    pub(super) fn forget_if_unknown(&mut self, key: FunctionKey, now: Instant) {
        let Some(function) = self.functions.get(key) else { return };
        let draining = function.running > 0;
        let is_offered = !function.workers.is_empty() || !function.pools.is_empty();
        if !is_offered && function.queued == 0 && function.lost_at.is_none() && !draining {
            self.unbind_limits(key, now);
            // A worker that drains may still list the key: finding nothing there is no harm.
            if let Some(function) = self.functions.remove(key) {
                self.by_name.remove(&function.name);
            }
        }
    }

    /// Takes nothing new, and refuses what waits. Every worker is told that no more calls come.
    pub(crate) fn close(&mut self, now: Instant, flushes: &mut Flushes) {
        self.closing = true;
        let waiting: Vec<AttemptKey> =
            self.attempts.iter().filter(|(_, attempt)| attempt.worker.is_none()).map(|(key, _)| key).collect();
        for key in waiting {
            self.end(key, Ended::Refused(CallError::ShuttingDown), now, flushes);
        }
        let workers: Vec<WorkerKey> = self.workers.keys().collect();
        for worker in workers {
            self.send_drain(worker, now, flushes);
        }
    }

    /// Gives up everything that still runs.
    pub(crate) fn abandon(&mut self, now: Instant, flushes: &mut Flushes) {
        let attempts: Vec<AttemptKey> = self.attempts.keys().collect();
        for key in attempts {
            self.fail(key, CallError::ShuttingDown, CancelReason::ShuttingDown, now, flushes);
        }
    }

    /// An attempt is not to go on, and whoever waits for it is told why. One that runs keeps its place until its worker
    /// answers.
    pub(crate) fn fail(
        &mut self,
        key: AttemptKey,
        error: CallError,
        reason: CancelReason,
        now: Instant,
        flushes: &mut Flushes,
    ) {
        if let Some(request) = self.give_up(key, reason, now, flushes) {
            request.reply.send(Ended::Refused(error));
        }
    }
}
