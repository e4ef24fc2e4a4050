//! Workers that come and go.

use std::sync::Arc;
use std::time::Duration;

use boki_wire::worker::FunctionSpec;
use tokio::time::Instant;

use super::{AttemptKey, Dispatch, Flushes, FunctionKey, Seat, Worker, WorkerKey};
use crate::error::CallError;
use crate::exchange::Ended;
use crate::link::Link;

/// A worker to be taken in.
#[derive(Debug)]
pub(crate) struct NewWorker {
    pub(crate) name: Arc<str>,
    pub(crate) pid: u32,
    pub(crate) link: Link,
    pub(crate) concurrency: u32,
    pub(crate) functions: Vec<FunctionSpec>,
    /// Of a process that this engine started.
    pub(crate) seat: Option<Seat>,
}

fn or_default(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

impl Dispatch {
    /// Takes a worker in.
    pub(crate) fn attach(
        &mut self,
        worker: NewWorker,
        now: Instant,
        flushes: &mut Flushes,
    ) -> Result<WorkerKey, CallError> {
        if self.closing {
            return Err(CallError::ShuttingDown);
        }
        if self.workers.len() >= self.config.workers {
            let limit = self.config.workers as u64;
            return Err(CallError::Overloaded { what: "too many workers are connected", limit });
        }
        let mut functions = Vec::with_capacity(worker.functions.len());
        for spec in worker.functions {
            let key = match self.by_name.get(spec.name.as_str()) {
                Some(key) => *key,
                None => self.learn(&spec.name.as_str().into(), now),
            };
            if let Some(function) = self.functions.get_mut(key) {
                // The latest worker describes the function: it is the latest version of the code.
                function.description = spec.description.into();
                function.max_attempts = or_default(spec.max_attempts, self.config.max_attempts);
                function.timeout = match spec.timeout_ms {
                    0 => self.config.timeout,
                    timeout_ms => Duration::from_millis(u64::from(timeout_ms)),
                };
                function.streams_input = Some(spec.streams_input);
            }
            functions.push(key);
        }
        functions.sort_unstable();
        let key = self.workers.insert(Worker {
            name: worker.name,
            pid: worker.pid,
            link: worker.link,
            concurrency: worker.concurrency.max(1),
            taken: Vec::new(),
            running: 0,
            draining: false,
            idle_since: now,
            given: 0,
            is_watched: false,
            seat: worker.seat,
            functions: functions.clone(),
        });
        if let Some(worker) = self.workers.get(key) {
            worker.link.registered(key.number());
            flushes.note(key, &worker.link);
        }
        if !self.is_held(worker.seat) {
            self.enlist(key, now, flushes);
        }
        if let Some(seat) = worker.seat {
            self.learn_offers(seat.pool, &functions, now, flushes);
        }
        Ok(key)
    }

    /// A worker takes calls of the functions that it offers.
    pub(super) fn enlist(&mut self, key: WorkerKey, now: Instant, flushes: &mut Flushes) {
        let Some(worker) = self.workers.get(key) else { return };
        for function in &worker.functions {
            if let Some(function) = self.functions.get_mut(*function) {
                function.workers.push(key);
                function.lost_at = None;
            }
        }
        let levels = self.hot.iter().filter_map(|key| self.functions.get(*key)).map(|function| function.levels.len());
        for level in 0..levels.max().unwrap_or(0) {
            self.fill(key, u8::try_from(level).unwrap_or(u8::MAX), now, flushes);
        }
    }

    /// A worker takes no more calls; what it has, it finishes. Returns whether any function is left without a worker.
    fn drain(&mut self, key: WorkerKey, now: Instant) -> bool {
        let Some(worker) = self.workers.get_mut(key) else { return false };
        if std::mem::replace(&mut worker.draining, true) {
            return false;
        }
        let functions = worker.functions.clone();
        self.withdraw(key, &functions, now)
    }

    /// No more calls for a worker, and it is told so: behind this, no call is on its way. Returns as [`Dispatch::drain`].
    pub(crate) fn send_drain(&mut self, key: WorkerKey, now: Instant, flushes: &mut Flushes) -> bool {
        if let Some(worker) = self.workers.get(key).filter(|worker| !worker.draining) {
            worker.link.drain();
            flushes.note(key, &worker.link);
        }
        self.drain(key, now)
    }

    /// A worker is gone: its attempts end. Returns whether any function is left without a worker.
    pub(crate) fn detach(&mut self, key: WorkerKey, now: Instant, flushes: &mut Flushes) -> bool {
        let Some(worker) = self.workers.remove(key) else { return false };
        let mut lost: Vec<(u64, AttemptKey)> = Vec::new();
        for (attempt_key, attempt) in &self.attempts {
            if attempt.worker == Some(key) {
                lost.push((attempt.order, attempt_key));
            }
        }
        lost.sort_unstable();
        let bereft = self.withdraw(key, &worker.functions, now);
        let mut reopened = Vec::new();
        for (_, attempt) in lost {
            reopened.extend(self.end(attempt, Ended::WorkerLost(worker.seat), now, flushes).reopened);
        }
        if !reopened.is_empty() {
            reopened.sort_unstable();
            reopened.dedup();
            self.reopen(&reopened, now, flushes);
        }
        bereft
    }

    fn withdraw(&mut self, key: WorkerKey, functions: &[FunctionKey], now: Instant) -> bool {
        let mut bereft = false;
        for function in functions {
            let Some(function) = self.functions.get_mut(*function) else { continue };
            let offered = !function.workers.is_empty();
            function.workers.retain(|worker| *worker != key);
            if offered && function.workers.is_empty() {
                function.lost_at = Some(now);
                bereft = true;
            }
        }
        bereft
    }
}
