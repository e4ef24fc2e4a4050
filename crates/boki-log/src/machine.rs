//! The roles that one process plays, as one state machine with a disk and a network.
//!
//! Whoever drives it, the real node or the simulator, hands it operations, messages, the completion of disk writes and
//! the time (`now_us`: microseconds of a clock that never goes back, from any origin), and then takes from it what it wants done: messages to send, outcomes of operations, bytes to write.
//! Messages between two roles of the same process never leave it.
//!
//! Disk writes are pulled: when the disk is free the driver calls [`Machine::take_writes`], which gives everything that
//! gathered meanwhile, and a cut behind it. That is group commit, without a timer. If there was nothing,
//! [`Machine::wants_disk`] turns true as soon as there is.

mod checkpoint;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::cut::Cut;
use crate::engine::{self, Engine, EngineConfig, OpId, Outcome};
use crate::error::LogError;
use crate::ids::{LocalId, NodeId, ShardId, Term};
use crate::index::TableError;
use crate::message::{Message, Send};
use crate::op::Op;
use crate::retention::Retention;
use crate::sequencer::{Sequencer, SequencerConfig};
use crate::storage::{Found, FramePlace, GroupPlace, Moved, PlaceEntry, Run, Storage, StorageConfig};

pub use checkpoint::Checkpoint;

/// Kind of a frame that holds a [`Run`].
pub const FRAME_RUN: u8 = 1;
/// Kind of a frame that holds a [`Cut`].
pub const FRAME_CUT: u8 = 2;
/// Kind of a frame that holds records that were [`Moved`].
pub const FRAME_MOVED: u8 = 3;

/// Where records lie in the frame of kind `kind` whose body, at the offset `frame` of a segment, is `body`: in the order of
/// their ordinals.
///
/// # Errors
/// [`LogError::Malformed`].
pub fn records_in(kind: u8, frame: u32, body: &Bytes) -> Result<Vec<PlaceEntry>, LogError> {
    match kind {
        FRAME_RUN => Run::decode(body).map(|run| run.entries(frame)),
        FRAME_MOVED => Moved::decode(body).map(|moved| moved.entries(frame)),
        _ => Ok(Vec::new()),
    }
}

/// Which roles a process plays, and how each is set up.
#[derive(Clone, Debug, Default)]
pub struct MachineConfig {
    /// The process.
    pub node: NodeId,
    /// It runs an engine.
    pub engine: Option<EngineConfig>,
    /// It stores records.
    pub storage: Option<StorageConfig>,
    /// It orders the log.
    pub sequencer: Option<SequencerConfig>,
}

impl MachineConfig {
    /// One process that plays all roles, with one disk.
    #[must_use]
    pub fn alone(node: NodeId, term: Term, limits: crate::Limits, cache_bytes: usize) -> MachineConfig {
        MachineConfig {
            node,
            engine: Some(EngineConfig {
                shard: ShardId { engine: node, term },
                storages: vec![node],
                quorum: 1,
                sequencer: node,
                limits,
                cache_bytes,
                aux_bytes: cache_bytes / 2,
                resend_after_us: None,
            }),
            storage: Some(StorageConfig {
                sequencer: node,
                shares_journal: true,
                early_bytes: 0,
                run_bytes: usize::MAX,
                resend_after_us: None,
            }),
            sequencer: Some(SequencerConfig {
                term,
                storages: vec![node],
                quorum: 1,
                shares_journal_with: Some(node),
                subscribers: vec![node],
                keep_cuts: 16,
                resend_after_us: None,
            }),
        }
    }
}

/// A frame to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFrame {
    /// [`FRAME_RUN`] or [`FRAME_CUT`].
    pub kind: u8,
    /// Its body, in parts.
    pub parts: Vec<Bytes>,
}

/// What a machine found wrong with its own disk at the start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A frame or the checkpoint does not parse although its checksum holds.
    #[error("a {what} on disk does not parse: {source}")]
    Unreadable {
        /// What it should be.
        what: &'static str,
        /// What is wrong with it.
        source: LogError,
    },
    /// Records are missing before this run.
    #[error("records of shard {shard} are missing before {first}")]
    MissingRecords {
        /// The shard.
        shard: ShardId,
        /// The first record that is there again.
        first: LocalId,
    },
    /// A cut does not follow the one before.
    #[error("cut {index} does not follow the cut before it")]
    MissingCut {
        /// Its index.
        index: u64,
    },
    /// A segment that the checkpoint knows is not there.
    #[error("segment {segment} holds records that exist by the checkpoint, and is not there")]
    LostSegment {
        /// Its number.
        segment: u64,
    },
    /// Records or cuts of a start that has not begun: the number of starts has gone back.
    #[error("records of shard {shard} are on disk already, and this start would write them")]
    NotBegun {
        /// The shard.
        shard: ShardId,
    },
    /// A table of the index cannot be read.
    #[error("{0}")]
    Index(TableError),
    /// A cut orders records that are not on disk.
    #[error("cut {index} orders records that are not on disk")]
    CutWithoutRecords {
        /// Its index.
        index: u64,
    },
}

/// See the module's description.
#[derive(Debug)]
pub struct Machine {
    node: NodeId,
    engine: Option<Engine>,
    storage: Option<Storage>,
    sequencer: Option<Sequencer>,
    /// Messages between roles of this process.
    inbox: VecDeque<Message>,
    /// Messages to other processes.
    sends: Vec<(NodeId, Message)>,
    outcomes: Vec<(OpId, Outcome)>,
    scratch: Vec<Send>,
    effects: engine::Effects,
    /// The last group on disk, all of whose records are ordered, as are those of all groups before it.
    covered: Option<GroupPlace>,
    /// Whether that is everything on disk.
    covers_all: bool,
    /// See [`Machine::count_alive`].
    counts_alive: bool,
    /// Runs in the group that is being written.
    writing_runs: usize,
    disk_busy: bool,
}

impl Machine {
    /// The roles of `config`, with nothing on disk.
    #[must_use]
    pub fn new(config: MachineConfig) -> Machine {
        Machine {
            node: config.node,
            engine: config.engine.map(Engine::new),
            storage: config.storage.map(Storage::new),
            sequencer: config.sequencer.map(Sequencer::new),
            inbox: VecDeque::new(),
            sends: Vec::new(),
            outcomes: Vec::new(),
            scratch: Vec::new(),
            effects: engine::Effects::default(),
            covered: None,
            covers_all: false,
            counts_alive: false,
            writing_runs: 0,
            disk_busy: false,
        }
    }

    /// The engine, if this process runs one.
    #[must_use]
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// The storage role, if this process plays it.
    #[must_use]
    pub fn storage(&self) -> Option<&Storage> {
        self.storage.as_ref()
    }

    /// The sequencer, if this process is one.
    #[must_use]
    pub fn sequencer(&self) -> Option<&Sequencer> {
        self.sequencer.as_ref()
    }

    /// What the rules of books add up to, to set rules and to ask which trims are due; if this process runs an engine.
    pub fn retention_mut(&mut self) -> Option<&mut Retention> {
        self.engine.as_mut().map(Engine::retention_mut)
    }

    // ---- Recovery: the checkpoint if there is one, every frame in order, then `start`.

    /// Takes back a frame that was found on disk.
    ///
    /// # Errors
    /// [`Damage`], if it cannot have been written by the history before it.
    pub fn recover_frame(&mut self, kind: u8, place: FramePlace, body: &Bytes) -> Result<(), Damage> {
        if let Some(storage) = &mut self.storage {
            storage.note_segment(place.segment);
        }
        match kind {
            FRAME_RUN => self.recover_run(place, body),
            FRAME_CUT => self.recover_cut(body),
            FRAME_MOVED => {
                let moved = Moved::decode(body);
                let moved = moved.map_err(|source| Damage::Unreadable { what: "moved records", source })?;
                if let Some(storage) = &mut self.storage {
                    storage.recover_moved(&moved, place);
                }
                Ok(())
            }
            // A later version's frame that is not ours to understand.
            _ => Ok(()),
        }
    }

    fn recover_run(&mut self, place: FramePlace, body: &Bytes) -> Result<(), Damage> {
        let run = Run::decode(body).map_err(|source| Damage::Unreadable { what: "run of records", source })?;
        self.check_begun(run.shard)?;
        let missing = Damage::MissingRecords { shard: run.shard, first: run.first };
        let Some(storage) = &mut self.storage else { return Ok(()) };
        if !storage.recover(&run, place) {
            return Err(missing);
        }
        let ordered = self
            .sequencer
            .as_ref()
            .and_then(|sequencer| sequencer.ordered().find(|(shard, _)| *shard == run.shard).map(|(_, upto)| upto));
        if let Some(engine) = &mut self.engine
            && ordered.is_none_or(|upto| run.end() > upto)
        {
            engine.feed(run.shard, run.first, run.batches);
        }
        Ok(())
    }

    fn recover_cut(&mut self, body: &Bytes) -> Result<(), Damage> {
        let cut = Cut::decode(body).map_err(|source| Damage::Unreadable { what: "cut", source })?;
        let (index, end) = (cut.index, cut.end());
        for delta in &cut.deltas {
            self.check_begun(delta.shard)?;
        }
        let Some(sequencer) = &mut self.sequencer else { return Ok(()) };
        if !sequencer.recover(cut.clone()) {
            return Err(Damage::MissingCut { index });
        }
        if let Some(engine) = &mut self.engine {
            engine.on_cuts(0, vec![cut], &mut self.effects);
            self.effects.outcomes.clear();
            if let Some(storage) = &mut self.storage {
                storage.release(&self.effects.gone);
            }
            self.effects.gone.clear();
            self.effects.sends.clear();
            if let Some(error) = engine.stuck() {
                return Err(Damage::Index(error.clone()));
            }
            // A cut that ends inside a batch has been applied too far.
            let applied = engine.index();
            if applied.next_cut() <= index || (applied.next_cut() == index + 1 && applied.position().0 != end) {
                return Err(Damage::CutWithoutRecords { index });
            }
        }
        Ok(())
    }

    /// That a shard on disk is not the one that this start's engine is about to write.
    fn check_begun(&self, shard: ShardId) -> Result<(), Damage> {
        match &self.engine {
            Some(engine) if engine.shard() == shard => Err(Damage::NotBegun { shard }),
            _ => Ok(()),
        }
    }

    /// Begins to run, after recovery. `last` is the last group on disk, `segments` are those that there are.
    ///
    /// # Errors
    /// [`Damage::LostSegment`], if records that exist were in another.
    pub fn start(&mut self, now_us: u64, last: Option<GroupPlace>, segments: &[u64]) -> Result<(), Damage> {
        self.cover(last);
        self.count_alive();
        if let Some(storage) = &mut self.storage
            && let Some(segment) = storage.check_segments(segments)
        {
            return Err(Damage::LostSegment { segment });
        }
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.start(now_us, &mut self.scratch);
        }
        if let Some(storage) = &mut self.storage {
            storage.start(now_us, &mut self.scratch);
        }
        self.settle(now_us);
        Ok(())
    }

    // ---- Inputs.

    /// Starts an operation at the engine; its outcome comes from [`Machine::take_outcomes`].
    pub fn submit(&mut self, now_us: u64, id: OpId, op: Op) {
        if let Some(engine) = &mut self.engine {
            engine.submit(now_us, id, op, &mut self.effects);
        }
        self.settle(now_us);
    }

    /// Gives up a read that waits.
    pub fn cancel(&mut self, id: OpId) {
        if let Some(engine) = &mut self.engine {
            engine.cancel(id);
        }
    }

    /// Takes a message from another process.
    pub fn receive(&mut self, now_us: u64, from: NodeId, message: Message) {
        self.handle(now_us, from, message);
        self.settle(now_us);
    }

    /// Lets pass what the time `now_us` brings. Needed at [`Machine::next_timer`], harmless at any other time.
    pub fn tick(&mut self, now_us: u64) {
        if let Some(engine) = &mut self.engine {
            engine.tick(now_us, &mut self.effects);
        }
        if let Some(storage) = &mut self.storage {
            storage.tick(now_us, &mut self.scratch);
        }
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.tick(now_us, &mut self.scratch);
        }
        self.settle(now_us);
    }

    /// When [`Machine::tick`] is needed next, if ever.
    #[must_use]
    pub fn next_timer(&self) -> Option<u64> {
        let engine = self.engine.as_ref().and_then(Engine::next_timer);
        let storage = self.storage.as_ref().and_then(Storage::next_timer);
        let sequencer = self.sequencer.as_ref().and_then(Sequencer::next_timer);
        [engine, storage, sequencer].into_iter().flatten().min()
    }

    // ---- The disk: one group of frames at a time.

    /// Whether [`Machine::take_writes`] would give something.
    #[must_use]
    pub fn wants_disk(&self) -> bool {
        !self.disk_busy
            && (self.storage.as_ref().is_some_and(Storage::has_work)
                || self.sequencer.as_ref().is_some_and(Sequencer::has_work))
    }

    /// The next group to write, of about `max_bytes` at most: records, and the cut that orders them if the metalog shares
    /// their journal. Empty if there is nothing. Ends with exactly one of `written`, `write_refused`, `write_failed`.
    /// `clock_us` is the wall clock, microseconds since 1970: a cut's time, unless the last one's is later.
    pub fn take_writes(&mut self, now_us: u64, clock_us: u64, max_bytes: usize) -> Vec<WriteFrame> {
        if self.disk_busy {
            return Vec::new();
        }
        let mut frames = Vec::new();
        if let Some(storage) = &mut self.storage {
            let runs = storage.take_writes(max_bytes, &mut self.scratch);
            frames.extend(runs.iter().map(|run| WriteFrame { kind: FRAME_RUN, parts: run.encode() }));
        }
        self.writing_runs = frames.len();
        self.settle(now_us);
        if let Some(cut) = self.sequencer.as_mut().and_then(|sequencer| sequencer.take_write(clock_us)) {
            let mut body = BytesMut::new();
            cut.encode(&mut body);
            frames.push(WriteFrame { kind: FRAME_CUT, parts: vec![body.freeze()] });
        }
        self.disk_busy = !frames.is_empty();
        frames
    }

    /// The group is on disk, each of its frames where `places` says; it is the `last` one there.
    pub fn written(&mut self, now_us: u64, last: Option<GroupPlace>, places: &[FramePlace]) {
        self.disk_busy = false;
        if let Some(storage) = &mut self.storage {
            for place in places {
                storage.note_segment(place.segment);
            }
            let runs = places.get(..self.writing_runs).unwrap_or_default();
            storage.written(now_us, runs, &mut self.scratch);
        }
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.written(&mut self.scratch);
        }
        self.settle(now_us);
        self.cover(last);
    }

    /// The group was not written for want of room. In a process that plays all roles, every append that is not on disk is
    /// answered with [`LogError::DiskFull`].
    pub fn write_refused(&mut self, now_us: u64) {
        self.disk_busy = false;
        if let Some(sequencer) = &mut self.sequencer {
            sequencer.refused(now_us);
        }
        if let Some(storage) = &mut self.storage {
            for (_, from) in storage.refused() {
                if let Some(engine) = &mut self.engine {
                    engine.refused(from, &mut self.effects);
                }
            }
        }
        self.settle(now_us);
    }

    /// Writing the group failed in a way that leaves its outcome unknown: nothing is written any more.
    pub fn write_failed(&mut self, now_us: u64, reason: &str) {
        // The disk stays busy for ever.
        self.disk_busy = true;
        if let Some(engine) = &mut self.engine {
            engine.fail(&LogError::WriteFailed { reason: reason.to_owned() }, &mut self.effects);
        }
        self.settle(now_us);
    }

    /// Refuses appends from now on, and answers every read that waits, because the process stops. Appends that wait are
    /// still written and answered.
    pub fn shut_down(&mut self, now_us: u64) {
        if let Some(engine) = &mut self.engine {
            engine.stop(&mut self.effects);
        }
        self.settle(now_us);
    }

    // ---- Outputs.

    /// The operations that have ended, in order.
    pub fn take_outcomes(&mut self) -> std::vec::Drain<'_, (OpId, Outcome)> {
        self.outcomes.drain(..)
    }

    /// The messages to send to other processes, in order.
    pub fn take_sends(&mut self) -> Vec<(NodeId, Message)> {
        std::mem::take(&mut self.sends)
    }

    /// Where to look for the record on this process's disk.
    #[must_use]
    pub fn find(&self, shard: ShardId, local: LocalId) -> Option<Found> {
        self.storage.as_ref()?.find(shard, local)
    }

    /// Whether the last living record of some segment has gone since this was last asked, or most of them.
    pub fn take_waned(&mut self) -> bool {
        self.storage.as_mut().is_some_and(Storage::take_waned)
    }

    /// Segments before that of the last covered group in which nothing is alive. They may be given back once a checkpoint
    /// made after this call is on disk.
    #[must_use]
    pub fn dead_segments(&self) -> Vec<u64> {
        let (Some(storage), Some(covered)) = (&self.storage, self.covered) else { return Vec::new() };
        storage.dead_segments(covered.segment).collect()
    }

    /// Forgets segments that were given back.
    pub fn forget_segments(&mut self, segments: &[u64]) {
        if let Some(storage) = &mut self.storage {
            for segment in segments {
                storage.forget_segment(*segment);
            }
        }
    }

    // ---- Inside.

    /// Delivers what the roles of this process tell each other until they have nothing more to say.
    fn settle(&mut self, now_us: u64) {
        loop {
            let effects = &mut self.effects;
            self.outcomes.append(&mut effects.outcomes);
            if let Some(storage) = &mut self.storage {
                storage.release(&effects.gone);
            }
            effects.gone.clear();
            for send in effects.sends.drain(..).chain(self.scratch.drain(..)) {
                if send.to == self.node {
                    self.inbox.push_back(send.message);
                } else {
                    self.sends.push((send.to, send.message));
                }
            }
            let Some(message) = self.inbox.pop_front() else { break };
            self.handle(now_us, self.node, message);
        }
    }

    fn handle(&mut self, now_us: u64, from: NodeId, message: Message) {
        let out = &mut self.scratch;
        match message {
            Message::Replicate { shard, first, batch } => {
                if let Some(storage) = &mut self.storage {
                    storage.on_replicate(shard, first, batch, out);
                }
            }
            Message::FetchBatches { shard, from: first } => {
                if let Some(storage) = &mut self.storage {
                    storage.on_fetch_batches(from, shard, first, out);
                }
            }
            Message::ProgressSeen(shards) => {
                if let Some(storage) = &mut self.storage {
                    storage.on_progress_seen(&shards);
                }
            }
            Message::ProgressQuery { term } => {
                if let Some(storage) = &mut self.storage {
                    storage.on_progress_query(from, term, out);
                }
            }
            Message::AllProgress { term, shards } => {
                if let Some(sequencer) = &mut self.sequencer {
                    sequencer.on_all_progress(from, term, &shards, out);
                }
            }
            Message::Progress(shards) => {
                if let Some(sequencer) = &mut self.sequencer {
                    sequencer.on_progress(from, &shards, out);
                }
            }
            Message::FetchCuts { from: index } => {
                if let Some(sequencer) = &mut self.sequencer {
                    sequencer.on_fetch_cuts(from, index, out);
                }
            }
            Message::TailQuery { query } => {
                if let Some(sequencer) = &mut self.sequencer {
                    sequencer.on_tail_query(from, query, out);
                }
            }
            Message::Stored { shard, upto } => {
                if let Some(engine) = &mut self.engine {
                    engine.on_stored(from, shard, upto, &mut self.effects);
                }
            }
            Message::Batches { shard, first, batches } => {
                if let Some(engine) = &mut self.engine {
                    engine.on_batches(now_us, shard, first, batches, &mut self.effects);
                }
            }
            Message::TailIs { query, end } => {
                if let Some(engine) = &mut self.engine {
                    engine.on_tail_is(now_us, query, end, &mut self.effects);
                }
            }
            Message::Cuts(cuts) => {
                if let Some(storage) = &mut self.storage {
                    storage.on_cuts(&cuts);
                }
                if let Some(engine) = &mut self.engine {
                    engine.on_cuts(now_us, cuts, &mut self.effects);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
