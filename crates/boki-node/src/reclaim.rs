//! Gives back the disk space of segments in which nothing is alive.
//!
//! A segment's frames may be needed to judge what comes after them, so before it goes a checkpoint must hold what they
//! meant: first the checkpoint is on disk, then the segment is removed. Writing one costs time in proportion to the index,
//! so it waits until it frees at least as much as it writes.

use std::sync::Arc;

use boki_disk::DataDir;

use crate::node::Shared;

/// Name of the checkpoint's file.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// Starts reclaiming, on a thread of its own, if the segments below `current` in which nothing is alive are worth it.
pub(crate) fn start(shared: &Arc<Shared>, directory: &Arc<DataDir>, current: u64) {
    let mut state = shared.state.lock();
    if state.reclaiming || !state.superfluous.is_empty() {
        return;
    }
    let dead = state.machine.dead_segments(current).len() as u64;
    if dead == 0 || dead * shared.config.segment_bytes < state.checkpoint_bytes {
        return;
    }
    state.reclaiming = true;
    drop(state);
    let (thread_shared, directory) = (Arc::clone(shared), Arc::clone(directory));
    let spawned = std::thread::Builder::new().name("boki-reclaim".into()).spawn(move || {
        run(&thread_shared, &directory, current);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "disk space cannot be given back now: no thread");
        shared.state.lock().reclaiming = false;
    }
}

fn run(shared: &Shared, directory: &DataDir, current: u64) {
    let (dead, checkpoint) = {
        let mut state = shared.state.lock();
        (state.machine.dead_segments(current), state.machine.checkpoint())
    };
    let written = checkpoint.map(|bytes| directory.write_blob(CHECKPOINT, &bytes).map(|()| bytes.len() as u64));
    let mut state = shared.state.lock();
    state.reclaiming = false;
    match written {
        Some(Ok(bytes)) => {
            state.checkpoint_bytes = bytes;
            state.superfluous = dead;
            if state.asleep.take().is_some() {
                shared.wake.notify_one();
            }
        }
        Some(Err(error)) => tracing::warn!(%error, "disk space cannot be given back now: no checkpoint"),
        None => {}
    }
}
