//! What the table shows of itself.

use std::sync::Arc;

use super::{AttemptKey, Dispatch, Function, Worker, WorkerKey};
use crate::call::{Demand, FunctionInfo, WorkerInfo};

impl Dispatch {
    /// Every function that a worker offers, or did until a moment ago.
    pub(crate) fn functions(&self) -> Vec<FunctionInfo> {
        let known = self.by_name.values().filter_map(|key| self.functions.get(*key));
        let known =
            known.filter(|function| !function.workers.is_empty() || function.lost_at.is_some() || function.queued > 0);
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
            waiting: function.queued,
            running: function.running,
            places: places(function),
        };
        self.by_name.values().filter_map(|key| self.functions.get(*key)).map(demand).collect()
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
