//! Pools, as the calls see them: which functions a pool offers although no process of it may run now, what
//! its processes have to do, and whom to wake when calls wait for them.
//!
//! A function that a pool offers is known as long as the pool is: a call of it waits for a process, which the
//! pool starts. Of a pool whose first process has not registered yet, nobody knows what it offers: calls of
//! functions that nobody else offers wait for it. A pool that fails to start processes offers nothing until one registers.

use std::sync::Arc;

use slotmap::new_key_type;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Dispatch, Flushes, FunctionKey, WorkerKey};
use crate::error::CallError;
use crate::pool::{Load, MemberNumber, PoolFailure, WorkerLoad};

new_key_type! {
    /// A pool of worker processes.
    pub(crate) struct PoolKey;
}

/// Which process of which pool a worker is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    pub(crate) pool: PoolKey,
    pub(crate) member: MemberNumber,
    /// The pool is told when the worker has been given so many calls.
    pub(crate) max_calls: Option<u64>,
}

/// What a pool wants to be told next; each is told once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// A call begins to wait for a function that the pool offers.
    pub(crate) waiting: bool,
    /// A process of it has finished the last call that it had.
    pub(crate) idle: bool,
}

/// Since when, and why, a pool cannot be expected to serve.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) why: Arc<PoolFailure>,
    /// From then on a call makes it try again.
    pub(crate) until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Pool {
    wake: Arc<Notify>,
    wanted: Wanted,
    /// `None`: not known yet.
    offers: Option<Vec<FunctionKey>>,
    failing: Option<Failing>,
    /// Its processes take no calls yet.
    is_held: bool,
    /// It starts no processes any more.
    is_closed: bool,
}

impl Pool {
    fn failure(&self, now: Instant) -> Option<&Arc<PoolFailure>> {
        let failing = self.failing.as_ref()?;
        failing.until.is_none_or(|until| now < until).then_some(&failing.why)
    }
}

impl Dispatch {
    /// A pool is about to start its processes; `wake` is notified of what it wants to know.
    pub(crate) fn add_pool(&mut self, wake: Arc<Notify>, is_held: bool) -> PoolKey {
        self.pools.insert(Pool {
            wake,
            wanted: Wanted::default(),
            offers: None,
            failing: None,
            is_held,
            is_closed: false,
        })
    }

    /// A pool starts no processes any more: no call waits for it. Those that it has go on as they are.
    pub(crate) fn close_pool(&mut self, key: PoolKey, now: Instant, flushes: &mut Flushes) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.is_closed = true;
        let offers = pool.offers.replace(Vec::new()).unwrap_or_default();
        for function_key in offers {
            if let Some(function) = self.functions.get_mut(function_key) {
                function.pools.retain(|pool| *pool != key);
            }
            self.forget_if_unknown(function_key, now);
        }
        self.expire(now, flushes);
    }

    /// The last process of a pool has ended.
    pub(crate) fn remove_pool(&mut self, key: PoolKey, now: Instant, flushes: &mut Flushes) {
        self.close_pool(key, now, flushes);
        self.pools.remove(key);
    }

    /// The processes of a pool take calls from now on.
    pub(crate) fn release_pool(&mut self, key: PoolKey, now: Instant, flushes: &mut Flushes) {
        let Some(pool) = self.pools.get_mut(key).filter(|pool| pool.is_held) else { return };
        pool.is_held = false;
        let is_ours = |seat: Option<Seat>| seat.is_some_and(|seat| seat.pool == key);
        let workers = self.workers.iter().filter(|(_, worker)| is_ours(worker.seat) && !worker.draining);
        let workers: Vec<WorkerKey> = workers.map(|(worker, _)| worker).collect();
        for worker in workers {
            self.enlist(worker, now, flushes);
        }
    }

    /// Whether the workers of this pool are to take no calls yet.
    pub(super) fn is_held(&self, seat: Option<Seat>) -> bool {
        seat.and_then(|seat| self.pools.get(seat.pool)).is_some_and(|pool| pool.is_held)
    }

    /// A process of a pool has registered: the pool offers what that one offers.
    pub(super) fn learn_offers(
        &mut self,
        key: PoolKey,
        functions: &[FunctionKey],
        now: Instant,
        flushes: &mut Flushes,
    ) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.failing = None;
        if pool.is_closed || pool.offers.as_deref() == Some(functions) {
            return;
        }
        let old = pool.offers.replace(functions.to_vec()).unwrap_or_default();
        for function in &old {
            if let Some(function) = self.functions.get_mut(*function) {
                function.pools.retain(|pool| *pool != key);
            }
        }
        for function in functions {
            if let Some(function) = self.functions.get_mut(*function) {
                function.pools.push(key);
            }
        }
        for function in old {
            self.forget_if_unknown(function, now);
        }
        self.expire(now, flushes);
    }

    /// A pool fails to start its processes, or (`None`) may be expected to serve. What waits for nothing else than a pool
    /// that fails is refused.
    pub(crate) fn set_failing(&mut self, key: PoolKey, failing: Option<Failing>, now: Instant, flushes: &mut Flushes) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        let is_worse = failing.is_some();
        pool.failing = failing;
        if is_worse {
            self.expire(now, flushes);
        }
    }

    /// What a pool wants to be told next.
    pub(crate) fn set_wanted(&mut self, key: PoolKey, wanted: Wanted) {
        if let Some(pool) = self.pools.get_mut(key) {
            pool.wanted = wanted;
        }
    }

    /// What a pool offers, as far as that is known.
    pub(crate) fn pool_functions(&self, key: PoolKey) -> Vec<Arc<str>> {
        let offers = self.pools.get(key).and_then(|pool| pool.offers.as_ref());
        let functions = offers.into_iter().flatten().filter_map(|key| self.functions.get(*key));
        functions.map(|function| Arc::clone(&function.name)).collect()
    }

    /// What the calls ask of a pool.
    pub(crate) fn pool_load(&self, key: PoolKey) -> Load {
        let mut load = Load::default();
        for worker in self.workers.values() {
            let Some(seat) = worker.seat.filter(|seat| seat.pool == key) else { continue };
            load.workers.push(WorkerLoad {
                member: seat.member,
                idle_since: (worker.running == 0).then_some(worker.idle_since),
                running: worker.running as usize,
                places: worker.concurrency as usize,
                given: worker.given,
            });
        }
        let Some(pool) = self.pools.get(key) else { return load };
        load.waiting = match &pool.offers {
            _ if pool.is_held => 0,
            Some(offers) => offers
                .iter()
                .filter_map(|key| self.functions.get(*key))
                .map(|function| self.waiting_for_places(function))
                .sum(),
            None => {
                let functions = self.functions.values();
                let orphans = functions.filter(|function| function.workers.is_empty() && function.pools.is_empty());
                orphans.map(|function| self.waiting_for_places(function)).sum()
            }
        };
        load
    }

    /// Whether a pool of which nobody knows yet what it offers starts a process.
    pub(crate) fn expects_workers(&self) -> bool {
        self.pools.values().any(|pool| pool.offers.is_none())
    }

    /// A call begins to wait for a place in a worker that offers a function.
    pub(super) fn note_demand(&mut self, key: FunctionKey, flushes: &mut Flushes) {
        let Some(function) = self.functions.get(key) else { return };
        for pool in &function.pools {
            if let Some(pool) = self.pools.get_mut(*pool)
                && std::mem::take(&mut pool.wanted.waiting)
            {
                flushes.wake(&pool.wake);
            }
        }
        if function.workers.is_empty() && function.pools.is_empty() {
            for pool in self.pools.values_mut().filter(|pool| pool.offers.is_none()) {
                if std::mem::take(&mut pool.wanted.waiting) {
                    flushes.wake(&pool.wake);
                }
            }
        }
    }

    /// Calls may begin to wait for nothing else than a place.
    pub(super) fn note_all_demand(&mut self, flushes: &mut Flushes) {
        if self.pools.values().any(|pool| pool.wanted.waiting) {
            for function in self.hot.clone() {
                self.note_demand(function, flushes);
            }
        }
    }

    /// A worker has finished the last call that it had.
    pub(super) fn note_idle(&mut self, key: WorkerKey, flushes: &mut Flushes) {
        let Some(worker) = self.workers.get(key) else { return };
        let Some(pool) = worker.seat.and_then(|seat| self.pools.get_mut(seat.pool)) else { return };
        if worker.draining || std::mem::take(&mut pool.wanted.idle) {
            flushes.wake(&pool.wake);
        }
    }

    /// A worker has been given one more call.
    pub(super) fn note_given(&mut self, key: WorkerKey, flushes: &mut Flushes) {
        let Some(worker) = self.workers.get_mut(key) else { return };
        worker.given += 1;
        let Some(seat) = worker.seat.filter(|seat| seat.max_calls == Some(worker.given)) else { return };
        if let Some(pool) = self.pools.get(seat.pool) {
            flushes.wake(&pool.wake);
        }
    }

    /// Why no worker that offers `name` can be expected. `None`: there is one, or one can.
    pub(super) fn unexpected(&self, name: &Arc<str>, now: Instant) -> Option<CallError> {
        let mut failure = None;
        let mut is_pool_expected = |pool: &Pool| match pool.failure(now) {
            _ if pool.is_held => false,
            Some(why) => {
                failure = Some(Arc::clone(why));
                false
            }
            None => true,
        };
        if let Some(function) = self.by_name.get(name).and_then(|key| self.functions.get(*key)) {
            let grace = self.config.reconnect_grace;
            let is_fresh = |lost_at| now.saturating_duration_since(lost_at) < grace;
            if !function.workers.is_empty() || function.lost_at.is_some_and(is_fresh) {
                return None;
            }
            if function.pools.iter().filter_map(|key| self.pools.get(*key)).any(&mut is_pool_expected) {
                return None;
            }
        }
        if self.pools.values().filter(|pool| pool.offers.is_none()).any(is_pool_expected) {
            return None;
        }
        let function = Arc::clone(name);
        Some(match failure {
            Some(why) => CallError::PoolFailing { function, why },
            None => CallError::FunctionNotFound { function },
        })
    }
}
