//! The keeper: the thread that writes checkpoints and finds what may go.
//!
//! Recovery reads the journal from the group that the last checkpoint covers, so how much is written between two of them
//! bounds how long an opening takes; and a segment in which nothing is alive may only go when a checkpoint on disk covers it.
//! One is made
//! - when a segment has been filled, or has died, and about as much was written since the last one as that one is long:
//!   so checkpoints never cost more than the journal itself;
//! - when the node stops.
//!
//! It sleeps without a timer when there is nothing to do. The machine is locked only while what is to be written is taken.

use std::sync::Arc;
use std::thread::JoinHandle;

use boki_disk::DataDir;
use boki_log::storage::GroupPlace;
use parking_lot::{Condvar, MutexGuard};

use crate::config::OpenError;
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
    /// What the last checkpoint covers, and its size.
    covered: Option<GroupPlace>,
    checkpoint_bytes: u64,
}

impl Keeping {
    /// After an opening: from a checkpoint of `checkpoint_bytes` that covers `covered`, behind which there were
    /// `uncovered_bytes`.
    pub(crate) fn new(covered: Option<GroupPlace>, checkpoint_bytes: u64, uncovered_bytes: u64) -> Keeping {
        Keeping { covered, checkpoint_bytes, uncovered_bytes, ..Keeping::default() }
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
    let keeper = Keeper { shared, directory };
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
}

impl Keeper {
    fn run(&self) {
        let mut state = self.shared.state.lock();
        loop {
            if state.keeping.is_stopping {
                let is_worth_it =
                    state.keeping.uncovered_bytes > 0 && !matches!(state.writable, Writable::Failed { .. });
                if is_worth_it {
                    drop(self.checkpoint(state));
                }
                return;
            }
            if std::mem::take(&mut state.keeping.is_called) {
                if self.is_due(&state) {
                    state = self.checkpoint(state);
                }
                continue;
            }
            self.shared.keeper_wake.wait(&mut state);
        }
    }

    /// Whether a checkpoint is worth what it costs: it shortens the next opening by what was written since the last, and
    /// segments that have died may go.
    fn is_due(&self, state: &State) -> bool {
        let dead = state.machine.dead_segments().len() as u64 * self.shared.config.segment_bytes;
        let gain = state.keeping.uncovered_bytes.max(dead);
        gain >= state.keeping.checkpoint_bytes.max(self.shared.config.segment_bytes / 2)
    }

    /// Makes a checkpoint, after which the segments that were dead may go.
    fn checkpoint<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(checkpoint) = state.machine.checkpoint() else { return state };
        let dead = state.machine.dead_segments();
        let uncovered = state.keeping.uncovered_bytes;
        drop(state);
        let bytes = checkpoint.encode();
        let written = self.directory.write_blob(CHECKPOINT, &bytes);
        let mut state = self.shared.state.lock();
        match written {
            Ok(()) => {
                let keeping = &mut state.keeping;
                keeping.uncovered_bytes -= uncovered;
                keeping.covered = checkpoint.covered;
                keeping.checkpoint_bytes = bytes.len() as u64;
                state.superfluous = dead;
                if !state.superfluous.is_empty() && state.asleep.take().is_some() {
                    self.shared.wake.notify_one();
                }
            }
            Err(error) => tracing::warn!(%error, "no checkpoint can be written: disk space is not given back now"),
        }
        state
    }
}
