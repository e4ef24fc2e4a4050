//! Tells whoever starts and stops workers that it is time to look at the demand again.
//!
//! Nothing is told to one who did not ask: each interest is good for one edge and has to be renewed, so calls that
//! come and go cost nothing while nobody would act on them. To lose no edge, renew first and look afterwards.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// The edges that somebody waits for.
#[derive(Debug)]
pub(crate) struct DemandSignal {
    changes: watch::Sender<u64>,
    waiting_wanted: AtomicBool,
    idle_wanted: AtomicBool,
}

/// What has happened to the demand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edges {
    /// A call has begun to wait for a place in a worker.
    pub(crate) waiting: bool,
    /// A worker has finished the last call that it had.
    pub(crate) idle: bool,
}

impl DemandSignal {
    pub(crate) fn new() -> DemandSignal {
        let (changes, _) = watch::channel(0);
        DemandSignal { changes, waiting_wanted: AtomicBool::new(false), idle_wanted: AtomicBool::new(false) }
    }

    /// The next such edge is to be told.
    pub(crate) fn want(&self, wanted: Edges) {
        if wanted.waiting {
            self.waiting_wanted.store(true, Ordering::SeqCst);
        }
        if wanted.idle {
            self.idle_wanted.store(true, Ordering::SeqCst);
        }
    }

    /// Changes with each edge that was asked for.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// These have happened. To be called without the table's lock.
    pub(crate) fn note(&self, edges: Edges) {
        let take = |happened: bool, wanted: &AtomicBool| {
            happened && wanted.load(Ordering::SeqCst) && wanted.swap(false, Ordering::SeqCst)
        };
        let waiting = take(edges.waiting, &self.waiting_wanted);
        let idle = take(edges.idle, &self.idle_wanted);
        if waiting || idle {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
