//! Calls on record: those that have a result in the end, whatever crashes.
//!
//! The record lies in the caller's book, under reserved tags ([`entry`]). A call that was put there ([`accept`]) waits for
//! its turn in the log itself: in memory there is only where ([`backlog`], [`open`]). When its turn comes it is fetched
//! ([`turn`]) and run to its end on record ([`run`]), by one task of this engine; whoever asks for it ([`ask`]) only waits
//! for that ([`watch`]). Large inputs and outputs lie beside the log ([`payload`]). After a restart the calls without a result are found and wait again ([`recovery`]); what is over is
//! trimmed ([`retention`]).
//!
//! One engine runs the calls of a book. Should two, both run the call, and the first result in the log wins.

mod accept;
mod ask;
mod backlog;
mod entry;
mod open;
mod payload;
mod recovery;
mod retention;
mod run;
mod store;
mod sweep;
mod turn;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use boki_log::Seq;
use parking_lot::Mutex;

use accept::Appends;
use open::OpenCalls;
pub(crate) use turn::Turn;
use watch::Watched;

use crate::functions::Shared;

/// The calls on record that this engine works on.
pub(crate) struct Records {
    open: Mutex<OpenCalls>,
    watched: Watched,
    appends: Arc<Appends>,
    /// The last seq that somebody else may have given a call: what comes behind it was put on record by this engine.
    before: Seq,
}

impl Records {
    /// Of a log that ends at `before`.
    pub(crate) fn new(shared: Weak<Shared>, before: Seq) -> Records {
        Records { open: Mutex::default(), watched: Watched::default(), appends: Arc::new(Appends::new(shared)), before }
    }

    /// The engine stops: calls that wait for their turn do so until the next start.
    pub(crate) fn close(&self) {
        self.watched.close();
    }

    /// How many calls of each function wait for their turn.
    pub(crate) fn waiting_of(&self) -> HashMap<Arc<str>, usize> {
        let mut waiting = HashMap::new();
        for (function, count) in self.open.lock().waiting_of() {
            *waiting.entry(Arc::clone(function)).or_default() += count;
        }
        waiting
    }

    /// How many calls wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.open.lock().backlog().waiting()
    }
}
