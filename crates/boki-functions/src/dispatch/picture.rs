//! What the table shows of itself.

use std::cmp::Reverse;
use std::sync::Arc;

use tokio::time::Instant;

use super::{AttemptKey, Dispatch, Function, Worker, WorkerKey};
use crate::call::{Demand, FunctionInfo, WorkerInfo};
use crate::limits::{KeyState, LimitState};

/// So many keys of a limit are shown.
const BUSIEST: usize = 10;

impl Dispatch {
    /// Every function that a worker offers, or did until a moment ago.
    pub(crate) fn functions(&self) -> Vec<FunctionInfo> {
        let known = self.by_name.values().filter_map(|key| self.functions.get(*key));
        let known = known.filter(|function| {
            !function.workers.is_empty()
                || !function.pools.is_empty()
                || function.lost_at.is_some()
                || function.queued > 0
        });
        known
            .map(|function| FunctionInfo {
                name: Arc::clone(&function.name),
                description: Arc::clone(&function.description),
                workers: function.workers.len(),
                running: function.running,
                queued: function.queued,
                timeout: function.timeout,
                max_attempts: function.max_attempts,
            })
            .collect()
    }

    /// How much of each function is asked for, and how much of it there is.
    pub(crate) fn demand(&self) -> Vec<Demand> {
        let places = |function: &Function| {
            let workers = function.workers.iter().filter_map(|key| self.workers.get(*key));
            workers.map(|worker| worker.concurrency as usize).sum()
        };
        let demand = |function: &Function| Demand {
            function: Arc::clone(&function.name),
            waiting: self.waiting_for_places(function),
            running: function.running,
            places: places(function),
        };
        self.by_name.values().filter_map(|key| self.functions.get(*key)).map(demand).collect()
    }

    /// The limits in force, as they were set, and how much of each is used.
    pub(crate) fn limits(&self, now: Instant) -> Vec<LimitState> {
        let states = self.buckets.rules.iter().map(|rule| {
            let buckets = || rule.buckets.values().filter_map(|key| Some((*key, self.buckets.get(*key)?)));
            let mut busiest = Vec::new();
            if rule.limit.per_key {
                for (key, bucket) in buckets().filter(|(_, bucket)| bucket.waiting > 0 || bucket.running > 0) {
                    busiest.push((Reverse((bucket.waiting, bucket.running)), &bucket.key, key));
                    // Keeps the work and the memory small however many there are.
                    if busiest.len() >= 2 * BUSIEST {
                        busiest.sort_unstable();
                        busiest.truncate(BUSIEST);
                    }
                }
                busiest.sort_unstable();
                busiest.truncate(BUSIEST);
            }
            let keys = busiest.into_iter().map(|(Reverse((waiting, running)), name, key)| KeyState {
                key: name.clone(),
                running: u64::from(running),
                waiting: waiting as u64,
                tokens: self.buckets.tokens(key, now),
            });
            let whole = if rule.limit.per_key { None } else { rule.buckets.get(&None) };
            let unused = rule.limit.rate.filter(|_| !rule.limit.per_key).map(|rate| rate.burst());
            LimitState {
                limit: Arc::clone(&rule.limit),
                is_stored: rule.is_stored,
                running: buckets().map(|(_, bucket)| u64::from(bucket.running)).sum(),
                waiting: buckets().map(|(_, bucket)| bucket.waiting as u64).sum(),
                throttled: rule.throttled,
                tokens: whole.and_then(|key| self.buckets.tokens(*key, now)).or(unused),
                keys: keys.collect(),
            }
        });
        states.collect()
    }

    /// How many calls of a function need nothing but a place in a worker.
    pub(super) fn waiting_for_places(&self, function: &Function) -> usize {
        let room = function.gates.iter().map(|gate| self.buckets.room(*gate)).min().unwrap_or(usize::MAX);
        let lanes = function.levels.iter().flat_map(|level| &level.ready).filter_map(|due| self.lanes.get(due.lane));
        let waiting = lanes.map(|lane| {
            let room = lane.buckets.iter().map(|bucket| self.buckets.room(*bucket)).min().unwrap_or(usize::MAX);
            lane.waiting.min(room)
        });
        waiting.sum::<usize>().min(room)
    }

    /// Every worker that is connected.
    pub(crate) fn workers(&self) -> Vec<WorkerInfo> {
        let info = |(key, worker): (WorkerKey, &Worker)| WorkerInfo {
            id: key.number(),
            name: Arc::clone(&worker.name),
            pid: worker.pid,
            concurrency: worker.concurrency,
            running: worker.running,
            draining: worker.draining,
            idle_since: (worker.running == 0).then_some(worker.idle_since),
            functions: worker
                .functions
                .iter()
                .filter_map(|key| self.functions.get(*key))
                .map(|function| Arc::clone(&function.name))
                .collect(),
        };
        self.workers.iter().map(info).collect()
    }

    /// The function of an attempt that runs on this worker, also of one that was given up.
    pub(crate) fn function_of(&self, attempt: AttemptKey, worker: WorkerKey) -> Option<Arc<str>> {
        let attempt = self.attempts.get(attempt).filter(|attempt| attempt.worker == Some(worker))?;
        self.functions.get(attempt.function).map(|function| Arc::clone(&function.name))
    }

    pub(crate) fn worker_count(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn running(&self) -> usize {
        self.running
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }
}
