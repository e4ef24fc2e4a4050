//! What is looked at again after a while: workers that have not answered, functions that have lost their workers.
//!
//! There is no timer while nothing was given up and nothing was lost.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep_until};

use crate::counters::count;
use crate::dispatch::{Flushes, Overdue, Seat, WorkerKey};
use crate::functions::Shared;
use crate::link::Link;

impl Shared {
    /// A call that ran on a worker was given up: the worker is to answer it soon. Ends when there is none left.
    pub(crate) fn watch_given_up(&self, worker: WorkerKey) {
        let grace = self.config.cancel_grace;
        let weak = Weak::clone(&self.itself);
        let closing = self.closing.clone();
        let mut look_at = Instant::now() + grace;
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = sleep_until(look_at) => {}
                    () = closing.cancelled() => return,
                }
                let Some(shared) = weak.upgrade() else { return };
                let mut flushes = Flushes::default();
                let overdue = shared.dispatch.lock().overdue(worker, grace, Instant::now(), &mut flushes);
                match overdue {
                    Overdue::No => return,
                    Overdue::Until(instant) => look_at = instant,
                    Overdue::Stuck { seat, link, bereft } => {
                        shared.perform(flushes, None);
                        return shared.end_stuck(worker, seat, &link, bereft);
                    }
                }
            }
        });
    }

    fn end_stuck(&self, worker: WorkerKey, seat: Option<Seat>, link: &Link, bereft: bool) {
        tracing::warn!(id = worker.number(), "worker does not answer a call that was given up; it gets no more calls");
        count(&self.counters.stuck);
        match seat {
            Some(seat) => self.pools.stuck(seat),
            None => link.cut(),
        }
        if bereft {
            self.expire_later();
        }
    }

    /// A function has lost its last worker: if none comes back in time, what waits for it is refused. There is one
    /// timer, however many workers come and go.
    pub(crate) fn expire_later(&self) {
        if self.is_expiring.swap(true, Ordering::SeqCst) {
            return;
        }
        let grace = self.config.reconnect_grace;
        let weak = Weak::clone(&self.itself);
        let closing = self.closing.clone();
        let mut look_at = Instant::now() + grace;
        self.runtime.spawn(async move {
            loop {
                tokio::select! {
                    () = sleep_until(look_at) => {}
                    () = closing.cancelled() => return,
                }
                let Some(shared) = weak.upgrade() else { return };
                // Before the look: a loss that it does not see begins anew.
                shared.is_expiring.store(false, Ordering::SeqCst);
                let mut flushes = Flushes::default();
                let next = {
                    let mut dispatch = shared.dispatch.lock();
                    dispatch.expire(Instant::now(), &mut flushes);
                    dispatch.next_lost()
                };
                shared.perform(flushes, None);
                match next {
                    Some(lost_at) if !shared.is_expiring.swap(true, Ordering::SeqCst) => look_at = lost_at + grace,
                    _ => return,
                }
            }
        });
    }
}
