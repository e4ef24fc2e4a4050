//! What the clients were told: the promises that the server made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use boki_sdk::{AppendId, Seq};
use tokio::sync::watch;

/// A record as it must be found: sorted tags and the payload.
pub(crate) type Content = (Vec<String>, String);

/// Everything promised so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promised {
    /// Acknowledged records of the book that is kept.
    pub(crate) records: Vec<(Seq, Content)>,
    /// Payloads acknowledged as durable, before they had a seq.
    pub(crate) durable: BTreeSet<String>,
    /// Payloads whose append was refused by a condition or a fence.
    pub(crate) refused: BTreeSet<String>,
    /// Appends with an id that were acknowledged: they can be repeated.
    pub(crate) ids: Vec<(AppendId, Seq, Content)>,
    /// The books that are trimmed, by name.
    pub(crate) scratch: BTreeMap<String, Scratch>,
}

/// What was promised of a book that is trimmed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    /// Acknowledged records.
    pub(crate) records: Vec<(Seq, Content)>,
    /// Below this, it was asked to be trimmed.
    pub(crate) trim_asked: Seq,
    /// Below this, that was acknowledged.
    pub(crate) trimmed: Seq,
}

/// How many acknowledgements beyond its target a round has, so that the load goes on while the server is
/// killed and comes back, and yet the books stay small enough to be read whole.
const BEYOND: u64 = 120;

#[derive(Debug)]
pub(crate) struct Ledger {
    promised: Mutex<Promised>,
    count: watch::Sender<u64>,
    /// Clients pause when `count` has come so far.
    allowed: watch::Sender<u64>,
}

impl Ledger {
    pub(crate) fn new() -> Arc<Ledger> {
        Arc::new(Ledger { promised: Mutex::default(), count: watch::Sender::new(0), allowed: watch::Sender::new(0) })
    }

    /// Notes what a client was told; counts as one acknowledgement.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Promised)) {
        note(&mut self.promised.lock().unwrap());
        self.count.send_modify(|count| *count += 1);
    }

    /// Notes what a client is about to ask, which counts as nothing.
    pub(crate) fn note_intent(&self, note: impl FnOnce(&mut Promised)) {
        note(&mut self.promised.lock().unwrap());
    }

    pub(crate) fn promised(&self) -> Promised {
        self.promised.lock().unwrap().clone()
    }

    /// Lets the clients go on; becomes ready after `more` further acknowledgements.
    pub(crate) async fn acknowledged_more(&self, more: u64) {
        let mut count = self.count.subscribe();
        let target = *count.borrow() + more;
        self.allowed.send_replace(target + BEYOND);
        count.wait_for(|count| *count >= target).await.unwrap();
    }

    /// Becomes ready when a client may go on.
    pub(crate) async fn may_go_on(&self) {
        let count = *self.count.borrow();
        self.allowed.subscribe().wait_for(|allowed| count < *allowed).await.unwrap();
    }

    /// No client waits any more.
    pub(crate) fn let_all_end(&self) {
        self.allowed.send_replace(u64::MAX);
    }
}
