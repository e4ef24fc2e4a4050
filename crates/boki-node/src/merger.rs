//! Merging of the index's tables in the background: a thread that lives while there is something to merge.
//!
//! It goes at a bounded rate, so that the disk stays free for the log. What it leaves out, no later checkpoint asks for: the
//! tables that it replaces are removed only when a checkpoint on disk no longer names them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use boki_log::index::Merge;

use crate::node::Shared;
use crate::tables::NotWritten;

/// So many bytes are written before a pause ...
const STEP_BYTES: u64 = 1 << 20;
/// ... that keeps the rate below 32 MiB/s, which indexes about 2 million records a second.
const PAUSE: Duration = Duration::from_millis(31);

/// Merges what is worth merging.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    thread: Option<JoinHandle<()>>,
    is_stopping: Arc<AtomicBool>,
}

impl Merger {
    /// Starts a thread if there is something to merge and none is at it.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>) {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let Some(merge) = plan(shared) else { return };
        let (shared, is_stopping) = (Arc::clone(shared), Arc::clone(&self.is_stopping));
        let spawned = std::thread::Builder::new().name("boki-merge".into()).spawn(move || {
            let mut next = Some(merge);
            while let Some(merge) = next {
                if let Err(error) = run(&shared, &merge, &is_stopping) {
                    if !matches!(error, NotWritten::Stopped) {
                        tracing::warn!(%error, "tables of the index could not be merged");
                    }
                    return;
                }
                next = plan(&shared);
            }
        });
        match spawned {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "tables of the index are not merged now: no thread"),
        }
    }

    /// Breaks off, and waits for the end.
    pub(crate) fn stop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the merging of tables has panicked");
        }
    }
}

fn plan(shared: &Shared) -> Option<Merge> {
    shared.state.lock().machine.index_mut()?.plan_merge()
}

fn run(shared: &Shared, merge: &Merge, is_stopping: &AtomicBool) -> Result<(), NotWritten> {
    let mut next_pause = STEP_BYTES;
    let written = shared.tables.write(merge.entries(), |bytes| {
        if bytes >= next_pause {
            next_pause = bytes + STEP_BYTES;
            std::thread::sleep(PAUSE);
        }
        !is_stopping.load(Ordering::Relaxed)
    })?;
    let mut state = shared.state.lock();
    if let Some(index) = state.machine.index_mut() {
        index.install_merged(merge, merge.info(written.number, written.bytes), written.table);
        shared.tables.adopt(written.number);
    }
    state.merges += 1;
    Ok(())
}
