//! Calls on record: those that have a result in the end, whatever crashes.
//!
//! The record lies in the caller's book, under reserved tags ([`entry`]). A call on record is **run**
//! ([`run`]) by one task of this engine at a time; whoever asks for it joins that task. After a restart the
//! calls without a result are found and run again ([`recovery`]); what is over is trimmed ([`retention`]).
//!
//! One engine runs the calls of a book. Should two, both run the call, and the first result in the log wins.

mod entry;
mod ledger;
mod recovery;
mod retention;
mod run;
mod store;

use std::collections::HashMap;
use std::sync::Arc;

use boki_log::BookId;
use boki_wire::worker::CallId;
use parking_lot::Mutex;

use ledger::Ledgers;
use run::Run;

/// The calls on record that this engine works on.
#[derive(Default)]
pub(crate) struct Records {
    runs: Mutex<HashMap<(BookId, CallId), Arc<Run>>>,
    ledgers: Ledgers,
}
