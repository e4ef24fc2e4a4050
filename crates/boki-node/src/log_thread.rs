//! The log thread: owns the journal, writes what gathered as one group after the other, and lets time pass for reads that
//! wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use boki_disk::vfs::RealVfs;
use boki_disk::{BlobStore, DataDir, Frame, Journal, JournalConfig, Location, PlaceFiles, WriteError};
use boki_log::machine::{Checkpoint, Machine, MachineConfig, WriteFrame};
use boki_log::storage::FramePlace;
use boki_log::{NodeId, Term};
use parking_lot::MutexGuard;

use crate::blobs::Blobs;
use crate::config::{Durability, NodeConfig, OpenError};
use crate::journal_view::{group_place, known_group, place_of, records_in};
use crate::keeper::{self, CACHE_SHARE, CHECKPOINT, Keeping};
use crate::node::{Shared, Sleep, State};
use crate::status::Writable;
use crate::tables::Tables;

/// How many bytes of records one group holds, about. Larger groups gain nothing: the disk is at its best from about
/// 256 KiB on, and whoever waits for the first record of a group waits for its last.
const GROUP_BYTES: usize = 1 << 20;

/// What opening a data directory gives.
pub(crate) struct Opened {
    pub(crate) machine: Machine,
    pub(crate) journal: Journal<RealVfs>,
    pub(crate) places: PlaceFiles<RealVfs>,
    pub(crate) directory: DataDir,
    pub(crate) keeping: Keeping,
    pub(crate) blobs: Blobs,
    pub(crate) tables: Tables,
}

/// Opens the data directory and reads back what is in it.
pub(crate) fn open(config: &NodeConfig) -> Result<Opened, OpenError> {
    let directory = DataDir::open_with(&config.data, config.keys.as_ref(), config.encrypt)?;
    let node = NodeId(directory.meta().node);
    let term = Term(directory.meta().term);
    let mut machine_config = MachineConfig::alone(node, term, config.limits.clone(), config.cache_bytes);
    if let Some(storage) = &mut machine_config.storage {
        storage.run_bytes = config.run_bytes();
    }
    let mut machine = Machine::new(machine_config);
    let sync = config.durability == Durability::Fsync;
    let cache_bytes = (config.index_bytes / CACHE_SHARE) as u64;
    let tables =
        Tables::open(directory.vfs(), directory.meta().id, term.0, sync, cache_bytes, directory.keyring().cloned())?;
    let mut named = BTreeSet::new();
    let mut checkpoint_bytes = 0;
    let mut covered = None;
    if let Some(bytes) = directory.read_blob(CHECKPOINT)? {
        checkpoint_bytes = bytes.len() as u64;
        let checkpoint = Checkpoint::decode(&bytes).map_err(OpenError::Checkpoint)?;
        covered = checkpoint.covered;
        machine
            .recover_checkpoint_and_tables(checkpoint, |info| {
                named.insert(info.number);
                tables.read(info)
            })
            .map_err(OpenError::Checkpoint)?;
    }
    let defaults = JournalConfig::new(directory.meta().id);
    let journal_config = JournalConfig {
        segment_bytes: config.segment_bytes,
        first_segment_bytes: defaults.first_segment_bytes.min(config.segment_bytes),
        term: directory.meta().term,
        sync,
        compression: config.compression,
        keyring: directory.keyring().cloned(),
        ..defaults
    };
    let mut damaged = None;
    let mut uncovered_bytes = 0;
    let mut journal = Journal::open(directory.vfs(), journal_config, covered.map(known_group), &mut |frame| {
        uncovered_bytes += frame.body.len() as u64;
        let place = FramePlace { segment: frame.location.segment, offset: frame.location.offset };
        if damaged.is_none()
            && let Err(damage) = machine.recover_frame(frame.kind, place, &frame.body)
        {
            damaged = Some(OpenError::Damaged { segment: place.segment, offset: place.offset, damage });
        }
    })?;
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    if let Some(torn) = journal.torn_tail() {
        tracing::info!(?torn, "the remains of an interrupted write were cut off; nothing acknowledged was in it");
    }
    let segments: Vec<u64> = journal.segments().iter().map(|segment| segment.number).collect();
    let last = journal.last_group().map(group_place);
    machine.start(config.clock.now_us(), last, &segments).map_err(OpenError::Checkpoint)?;
    // Everything was found good: from here on things are changed.
    directory.begin()?;
    journal.mark().map_err(OpenError::Mark)?;
    let places = PlaceFiles::open(&journal, records_in)?;
    let store = BlobStore::open(directory.vfs(), directory.meta().id, sync)?;
    let store = store.sealed(directory.keyring().cloned());
    let blobs = Blobs::new(store, directory.meta().term);
    // What was written for a checkpoint that there is not.
    tables.remove_all_but(&named);
    let keeping = Keeping::new(checkpoint_bytes, uncovered_bytes);
    Ok(Opened { machine, journal, places, directory, keeping, blobs, tables })
}

/// Starts the log thread.
pub(crate) fn spawn(
    shared: Arc<Shared>,
    journal: Journal<RealVfs>,
    directory: DataDir,
) -> Result<JoinHandle<()>, OpenError> {
    let directory = Arc::new(directory);
    let keeper = keeper::spawn(Arc::clone(&shared), Arc::clone(&directory))?;
    std::thread::Builder::new()
        .name("boki-log".into())
        .spawn(move || {
            LogThread { current: 0, locations: Vec::new(), shared: Arc::clone(&shared), journal }.run();
            keeper::stop(&shared, keeper);
            // It was locked up to here.
            drop(directory);
        })
        .map_err(OpenError::Thread)
}

struct LogThread {
    shared: Arc<Shared>,
    journal: Journal<RealVfs>,
    /// The segment written last.
    current: u64,
    locations: Vec<Location>,
}

impl LogThread {
    fn run(mut self) {
        self.note_segments();
        while let Some(frames) = self.next_group() {
            self.write(frames);
        }
        // What is lost of the end from now on is noticed. After a write that failed nobody knows where the end is.
        if let Err(error) = self.journal.mark() {
            tracing::warn!(%error, "the end of the log was not recorded");
        }
    }

    /// Waits for something to write; `None` when the node stops and everything is written.
    fn next_group(&mut self) -> Option<Vec<WriteFrame>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state.lock();
        loop {
            if !state.superfluous.is_empty() {
                let segments = std::mem::take(&mut state.superfluous);
                drop(state);
                self.remove(&segments);
                state = shared.state.lock();
            }
            let now_us = shared.config.clock.now_us();
            if state.machine.next_timer().is_some_and(|at| at <= now_us) {
                state.machine.tick(now_us);
                shared.settle(state, Vec::new());
                state = shared.state.lock();
            }
            let frames = state.machine.take_writes(now_us, shared.config.clock.wall_us(), GROUP_BYTES);
            if !frames.is_empty() {
                return Some(frames);
            }
            if state.stopping {
                return None;
            }
            sleep(&shared, &mut state);
        }
    }

    fn write(&mut self, frames: Vec<WriteFrame>) {
        let bytes: usize = frames.iter().flat_map(|frame| &frame.parts).map(bytes::Bytes::len).sum();
        let frames: Vec<Frame> = frames.into_iter().map(|WriteFrame { kind, parts }| Frame { kind, parts }).collect();
        self.locations.clear();
        let result = self.journal.write(&frames, &mut self.locations);
        let shared = Arc::clone(&self.shared);
        let now_us = shared.config.clock.now_us();
        let mut state = shared.state.lock();
        match result {
            Ok(()) => {
                let last = self.journal.last_group().map(group_place);
                let places: Vec<FramePlace> = self.locations.iter().map(place_of).collect();
                state.writable = Writable::Yes;
                state.machine.written(now_us, last, &places);
                state.keeping.written(bytes as u64);
                shared.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                shared.groups.fetch_add(1, Ordering::Relaxed);
            }
            Err(WriteError::Full) => {
                if state.writable != Writable::DiskFull {
                    tracing::error!("the disk is full: appends are refused until there is room");
                }
                state.writable = Writable::DiskFull;
                state.machine.write_refused(now_us);
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(%reason, "the log cannot be written any more: appends are refused until a restart");
                state.machine.write_failed(now_us, &reason);
                state.writable = Writable::Failed { reason };
            }
        }
        let rolled = self.locations.last().is_some_and(|last| last.segment != self.current);
        if state.machine.take_waned() || rolled || keeper::is_index_full(&shared, &state) {
            state.keeping.call(&shared.keeper_wake);
        }
        shared.settle(state, Vec::new());
        if let Some(last) = self.locations.last() {
            self.current = last.segment;
        }
        if rolled {
            self.note_segments();
        }
    }

    fn remove(&mut self, segments: &[u64]) {
        let mut removed = Vec::with_capacity(segments.len());
        for segment in segments {
            match self.journal.remove_segment(*segment) {
                Ok(()) => {
                    removed.push(*segment);
                    if let Err(error) = self.shared.places.remove(*segment) {
                        tracing::warn!(segment, %error, "a place file could not be removed: the next start does it");
                    }
                }
                Err(error) => tracing::warn!(segment, %error, "a segment could not be removed"),
            }
        }
        self.shared.state.lock().machine.forget_segments(&removed);
        self.note_segments();
    }

    fn note_segments(&self) {
        let segments = self.journal.segments();
        let mut state = self.shared.state.lock();
        state.segments = segments.len() as u64;
        state.disk_bytes = segments.iter().map(|segment| segment.bytes).sum();
    }
}

/// Sleeps until there may be something to do.
fn sleep(shared: &Shared, state: &mut MutexGuard<'_, State>) {
    let until_us = state.machine.next_timer();
    state.asleep = Some(Sleep { until_us });
    // Whoever moves a virtual clock wakes the thread.
    match until_us.and_then(|at_us| shared.config.clock.instant(at_us)) {
        None => shared.wake.wait(state),
        Some(until) => {
            shared.wake.wait_until(state, until);
        }
    }
    state.asleep = None;
}
