//! Workers that do not answer: a call that was given up is to be answered soon, whatever the answer says.
//!
//! One timer per worker, and only while it has calls that were given up.

use std::time::Duration;

use tokio::time::Instant;

use super::{Dispatch, Flushes, Seat, WorkerKey};
use crate::link::Link;

/// How a worker does with the calls that were given up.
#[derive(Debug)]
pub(crate) enum Overdue {
    /// It has answered them all, or is gone.
    No,
    /// It has until then to answer the next.
    Until(Instant),
    /// It has not answered one in time, and takes no more calls now.
    Stuck {
        /// Of a process that this engine started.
        seat: Option<Seat>,
        link: Link,
        /// Functions have lost their last worker.
        bereft: bool,
    },
}

impl Dispatch {
    /// Looks after the calls of a worker that were given up.
    pub(crate) fn overdue(&mut self, key: WorkerKey, grace: Duration, now: Instant, flushes: &mut Flushes) -> Overdue {
        let Some(worker) = self.workers.get_mut(key) else { return Overdue::No };
        let attempts = self.attempts.values().filter(|attempt| attempt.worker == Some(key));
        let Some(oldest) = attempts.filter_map(|attempt| attempt.given_up_at).min() else {
            worker.is_watched = false;
            return Overdue::No;
        };
        if now < oldest + grace {
            return Overdue::Until(oldest + grace);
        }
        let (seat, link) = (worker.seat, worker.link.clone());
        let bereft = self.send_drain(key, now, flushes);
        Overdue::Stuck { seat, link, bereft }
    }
}
