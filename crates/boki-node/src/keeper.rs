//! The keeper: the thread that writes checkpoints and finds what may go.
//!
//! Recovery reads the journal from the group that the last checkpoint covers, so how much is written between two of them
//! bounds how long an opening takes; and a segment in which nothing is alive may only go when a checkpoint on disk covers it.
//! One is made
//! - when a segment has been filled, or has died, and about as much was written since the last one as that one is long:
//!   so checkpoints never cost more than the journal itself;
//! - when what is recent of the index takes more memory than it may;
//! - when the node stops.
//!
//! What the index has gathered since the last one is written as a table before, so that memory holds only the latest of it.
//!
//! It sleeps without a timer when there is nothing to do. The machine is locked only while what is to be written is taken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::JoinHandle;

use boki_disk::{DataDir, PlaceError};
use boki_log::machine::Checkpoint;
use parking_lot::Condvar;

use crate::config::OpenError;
use crate::journal_view::filed_entry;
use crate::merger::Merger;
use crate::node::{Shared, State};
use crate::status::Writable;

/// Name of the checkpoint's file.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// What others tell the keeper, and what it knows of its own work.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Something has happened after which a checkpoint may be due.
    is_called: bool,
    is_stopping: bool,
    /// Bytes of frames that the last checkpoint does not cover.
    uncovered_bytes: u64,
    /// Size of the last checkpoint.
    checkpoint_bytes: u64,
}

/// What is recent of the index may take one part in so many of its memory, and as much again while it is written out; one
/// part in [`CACHE_SHARE`] are blocks of tables; the rest is for filters, the tables' own indexes, and claims.
const RECENT_SHARE: usize = 8;
/// See [`RECENT_SHARE`].
pub(crate) const CACHE_SHARE: usize = 4;

impl Keeping {
    /// After an opening: from a checkpoint of `checkpoint_bytes`, behind which there were `uncovered_bytes`.
    pub(crate) fn new(checkpoint_bytes: u64, uncovered_bytes: u64) -> Keeping {
        Keeping { checkpoint_bytes, uncovered_bytes, ..Keeping::default() }
    }

    /// A group was written.
    pub(crate) fn written(&mut self, bytes: u64) {
        self.uncovered_bytes += bytes;
    }

    /// A segment was filled, or has died.
    pub(crate) fn call(&mut self, wake: &Condvar) {
        self.is_called = true;
        wake.notify_one();
    }
}

/// Starts the keeper.
pub(crate) fn spawn(shared: Arc<Shared>, directory: Arc<DataDir>) -> Result<JoinHandle<()>, OpenError> {
    let keeper = Keeper { shared, directory, merger: Merger::default() };
    std::thread::Builder::new().name("boki-keeper".into()).spawn(move || keeper.run()).map_err(OpenError::Thread)
}

/// Lets the keeper write the last checkpoint, and waits for its end.
pub(crate) fn stop(shared: &Shared, thread: JoinHandle<()>) {
    shared.state.lock().keeping.is_stopping = true;
    shared.keeper_wake.notify_one();
    if thread.join().is_err() {
        tracing::error!("the keeper has panicked");
    }
}

struct Keeper {
    shared: Arc<Shared>,
    directory: Arc<DataDir>,
    merger: Merger,
}

/// Whether what is recent of the index takes more memory than it may.
pub(crate) fn is_index_full(shared: &Shared, state: &State) -> bool {
    let most = shared.config.index_bytes / RECENT_SHARE;
    state.machine.engine().is_some_and(|engine| engine.index().recent_bytes() > most)
}

impl Keeper {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        loop {
            if state.keeping.is_stopping {
                let is_worth_it =
                    state.keeping.uncovered_bytes > 0 && !matches!(state.writable, Writable::Failed { .. });
                drop(state);
                self.merger.stop();
                if is_worth_it {
                    self.checkpoint();
                }
                return;
            }
            if std::mem::take(&mut state.keeping.is_called) {
                if self.is_due(&state) {
                    drop(state);
                    self.checkpoint();
                    self.merger.start(&shared);
                    state = shared.state.lock();
                }
                continue;
            }
            shared.keeper_wake.wait(&mut state);
        }
    }

    /// Whether a checkpoint is worth what it costs: it shortens the next opening by what was written since the last, and
    /// segments that have died may go.
    fn is_due(&self, state: &State) -> bool {
        let dead = state.machine.dead_segments().len() as u64 * self.shared.config.segment_bytes;
        let gain = state.keeping.uncovered_bytes.max(dead);
        is_index_full(&self.shared, state)
            || gain >= state.keeping.checkpoint_bytes.max(self.shared.config.segment_bytes / 2)
    }

    /// Makes a checkpoint, after which the segments that were dead may go.
    fn checkpoint(&self) {
        let mut state = self.shared.state.lock();
        let Some((checkpoint, freeze)) = state.machine.freeze() else { return };
        let dead = state.machine.dead_segments();
        let uncovered = state.keeping.uncovered_bytes;
        drop(state);
        let table = match freeze.entries().map(|entries| self.shared.tables.write(entries, |_| true)).transpose() {
            Ok(table) => table,
            Err(error) => {
                tracing::warn!(%error, "the index cannot be written: neither memory nor disk space is given back now");
                return;
            }
        };
        let info = table.as_ref().map(|table| freeze.info(table.number, table.bytes));
        let named = freeze.tables(info);
        let checkpoint = checkpoint.with_index(freeze.section(&named));
        let written = self.write(&checkpoint);
        let is_written = written.is_ok();
        let mut needed: BTreeSet<u64> = named.iter().map(|info| info.number).collect();
        let mut state = self.shared.state.lock();
        if let Some(index) = state.machine.index_mut() {
            if let (Some(info), Some(table)) = (info, table) {
                index.install(info, table.table);
                self.shared.tables.adopt(info.number);
            }
            needed.extend(index.tables().map(|info| info.number));
        }
        match written {
            Ok(bytes) => {
                state.machine.filed(&checkpoint.unfiled);
                let keeping = &mut state.keeping;
                keeping.uncovered_bytes -= uncovered;
                keeping.checkpoint_bytes = bytes;
                state.superfluous = dead;
                if !state.superfluous.is_empty() && state.asleep.take().is_some() {
                    self.shared.wake.notify_one();
                }
            }
            Err(error) => tracing::warn!(%error, "no checkpoint can be written: disk space is not given back now"),
        }
        drop(state);
        if is_written {
            self.shared.tables.remove_all_but(&needed);
        }
    }

    /// Writes a checkpoint, after everything it needs in other files; returns its size in bytes. If this ends anywhere before
    /// its end, the last checkpoint is still good: what is written for this one fits that one too.
    fn write(&self, checkpoint: &Checkpoint) -> Result<u64, PlaceError> {
        for unfiled in &checkpoint.unfiled {
            let mut entries = self.shared.places.read(unfiled.segment, unfiled.filed)?;
            entries.extend(unfiled.entries.iter().map(filed_entry));
            self.shared.places.write(unfiled.segment, &entries)?;
        }
        let bytes = checkpoint.encode();
        self.directory.write_blob(CHECKPOINT, &bytes)?;
        Ok(bytes.len() as u64)
    }
}
