//! The storage role: keeps the records of shards on disk. It takes batches in any order, writes each shard's in the
//! order of their local ids, and reports how far without a gap it has got; nothing is reported before it is on
//! disk.
//!
//! It also knows where on disk each record lies, and which segment files hold nothing alive any more.

mod bits;
mod places;
mod run;
mod section;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::batch::Batch;
use crate::cut::Cut;
use crate::ids::{LocalId, NodeId, ShardId, Term};
use crate::index::Gone;
use crate::message::{Message, Send, ShardProgress};

use places::Places;
pub use places::{Found, Unfiled};
pub use run::{Moved, Run};
pub(crate) use section::StorageSnapshot;

/// How a storage role is set up.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The sequencer.
    pub sequencer: NodeId,
    /// Whether the metalog lies in this role's own journal: then records are reported when they are staged.
    pub shares_journal: bool,
    /// Bytes of batches that may wait because one before them is missing; more are dropped (and sent again).
    pub early_bytes: usize,
    /// Bytes of batches in one run, about; one that is larger is a run of its own. A disk that stores frames compressed or
    /// encrypted has to read one as a whole.
    pub run_bytes: usize,
    /// After how long to report again, in microseconds; `None` where messages cannot be lost.
    pub resend_after_us: Option<u64>,
}

/// Where a record lies: a record body in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment file.
    pub segment: u64,
    /// Offset of the body of the frame that holds it, in bytes.
    pub frame: u32,
    /// Offset of the record body in the frame's body, in bytes.
    pub at: u32,
    /// Its length, in bytes.
    pub len: u32,
    /// CRC-32C of it, taken when it was written or recovered: a record that is read by itself is checked by itself.
    pub checksum: u32,
}

/// Where in its segment a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceEntry {
    /// Offset of the body of the frame that holds it, in bytes.
    pub frame: u32,
    /// Offset of the record body in the frame's body, in bytes.
    pub at: u32,
    /// Its length, in bytes.
    pub len: u32,
    /// CRC-32C of it.
    pub checksum: u32,
}

impl PlaceEntry {
    /// The place, in that segment.
    #[must_use]
    pub fn in_segment(self, segment: u64) -> Place {
        let PlaceEntry { frame, at, len, checksum } = self;
        Place { segment, frame, at, len, checksum }
    }

    /// The record, out of the frame's body; `None` if that is another.
    #[must_use]
    pub fn slice_of(&self, body: &Bytes) -> Option<Bytes> {
        let (from, to) = (self.at as usize, self.at as usize + self.len as usize);
        (to <= body.len()).then(|| body.slice(from..to))
    }
}

/// Where the disk put a frame: the segment, and the offset of the frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// Number of the segment file.
    pub segment: u64,
    /// Offset of the body in it, in bytes.
    pub offset: u32,
}

/// A group of frames in the journal, and with it everything before: how far a checkpoint covers the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPlace {
    /// Number of the segment file.
    pub segment: u64,
    /// Number of the group.
    pub group: u64,
    /// Offset of the group in the file, in bytes.
    pub offset: u32,
}

#[derive(Debug, Default)]
struct ShardState {
    /// Every record below has been taken in.
    taken: LocalId,
    /// Every record below is in a group that is being written, or on disk.
    staged: LocalId,
    /// Every record below is on disk.
    durable: LocalId,
    /// The sequencer has taken note of everything below.
    seen: LocalId,
    /// Batches behind a gap.
    early: BTreeMap<LocalId, Batch>,
}

impl ShardState {
    fn progress(&self, shard: ShardId) -> ShardProgress {
        ShardProgress { shard, staged: self.staged, durable: self.durable }
    }
}

/// See the module's description.
#[derive(Debug)]
pub struct Storage {
    config: StorageConfig,
    shards: BTreeMap<ShardId, ShardState>,
    /// Taken in, to be written with the next group.
    gathered: VecDeque<(ShardId, LocalId, Batch)>,
    gathered_bytes: usize,
    early_bytes: usize,
    /// In the hands of the disk.
    writing: Vec<Run>,
    /// Batches per shard, for engines elsewhere that ask. Empty where the engine is in the same process, which needs
    /// no second copy.
    kept: BTreeMap<ShardId, VecDeque<(LocalId, Batch)>>,
    places: Places,
    report_again_us: Option<u64>,
}

impl Storage {
    /// A storage role without records.
    #[must_use]
    pub fn new(config: StorageConfig) -> Storage {
        Storage {
            config,
            shards: BTreeMap::new(),
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            early_bytes: 0,
            writing: Vec::new(),
            kept: BTreeMap::new(),
            places: Places::default(),
            report_again_us: None,
        }
    }

    /// Starts from a checkpoint: every record of these shards below these local ids was ordered by then, whether it is
    /// still on disk or not; `places` says of those that are where they lie.
    pub(crate) fn restore(&mut self, ordered: &[(ShardId, LocalId)], places: StorageSnapshot) {
        self.places = Places::restore(places);
        for (shard, upto) in ordered {
            let state = self.shards.entry(*shard).or_default();
            (state.taken, state.staged, state.durable, state.seen) = (*upto, *upto, *upto, *upto);
        }
    }

    /// Takes back a run that was found on disk at the start. Returns `false` if records are missing before it.
    #[must_use]
    pub fn recover(&mut self, run: &Run, place: FramePlace) -> bool {
        let state = self.shards.entry(run.shard).or_default();
        if run.first > state.durable {
            return false;
        }
        let end = run.end().max(state.durable);
        (state.taken, state.staged, state.durable) = (end, end, end);
        self.keep(run);
        self.places.add(run.shard, run.first, place.segment, &run.entries(place.offset));
        true
    }

    /// Takes back records that were moved.
    pub(crate) fn recover_moved(&mut self, moved: &Moved, place: FramePlace) {
        self.places.relocate(moved.shard, &moved.locals(), place.segment, &moved.entries(place.offset));
    }

    /// Of the records that are ordered only `live` are alive: what was trimmed before the checkpoint that recovery began from,
    /// if that does not say so itself.
    pub(crate) fn keep_only(&mut self, live: &BTreeSet<(ShardId, LocalId)>, ordered: &[(ShardId, LocalId)]) {
        for (shard, upto) in ordered {
            for local in (0..upto.0).map(LocalId).filter(|local| !live.contains(&(*shard, *local))) {
                self.places.release(*shard, local, 1);
            }
        }
    }

    /// Takes note of a segment, so that it can be given back when nothing in it is alive.
    pub fn note_segment(&mut self, segment: u64) {
        self.places.note_segment(segment);
    }

    /// `segments` are those that there are. Forgets the others; returns one of them that has something alive in it, if
    /// there is one.
    pub(crate) fn check_segments(&mut self, segments: &[u64]) -> Option<u64> {
        let is_missing = |number: &u64| !segments.contains(number);
        let missing: Vec<u64> = self.places.segments.keys().copied().filter(is_missing).collect();
        let lost = missing.iter().copied().find(|number| self.places.living(*number) > 0);
        missing.into_iter().for_each(|number| self.places.forget_segment(number));
        segments.iter().for_each(|number| self.places.note_segment(*number));
        lost
    }

    /// Reports everything, after recovery.
    pub(crate) fn start(&mut self, now_us: u64, out: &mut Vec<Send>) {
        out.push(Send { to: self.config.sequencer, message: Message::Progress(self.all_progress()) });
        self.report_again_later(now_us);
    }

    pub(crate) fn on_progress_query(&mut self, from: NodeId, term: Term, out: &mut Vec<Send>) {
        out.push(Send { to: from, message: Message::AllProgress { term, shards: self.all_progress() } });
    }

    fn all_progress(&self) -> Vec<ShardProgress> {
        self.shards.iter().map(|(shard, state)| state.progress(*shard)).collect()
    }

    fn report_again_later(&mut self, now_us: u64) {
        self.report_again_us = self.config.resend_after_us.map(|after| now_us + after);
    }

    pub(crate) fn on_replicate(&mut self, shard: ShardId, first: LocalId, batch: Batch, out: &mut Vec<Send>) {
        let state = self.shards.entry(shard).or_default();
        if first < state.taken {
            // It is here already: the sender, or the sequencer, may not know.
            if state.durable > first {
                out.push(Send { to: shard.engine, message: Message::Stored { shard, upto: state.durable } });
                if state.seen < state.durable {
                    let progress = vec![state.progress(shard)];
                    out.push(Send { to: self.config.sequencer, message: Message::Progress(progress) });
                }
            }
            return;
        }
        if first > state.taken {
            let len = batch.bytes().len();
            if self.early_bytes + len <= self.config.early_bytes && state.early.insert(first, batch).is_none() {
                self.early_bytes += len;
            }
            return;
        }
        self.take(shard, first, batch);
        let state = self.shards.entry(shard).or_default();
        let mut ready = Vec::new();
        let mut next = state.taken;
        while let Some(batch) = state.early.remove(&next) {
            let count = u64::from(batch.record_count());
            ready.push((next, batch));
            next = LocalId(next.0 + count);
        }
        for (first, batch) in ready {
            self.early_bytes -= batch.bytes().len();
            self.take(shard, first, batch);
        }
    }

    fn take(&mut self, shard: ShardId, first: LocalId, batch: Batch) {
        let state = self.shards.entry(shard).or_default();
        state.taken = LocalId(first.0 + u64::from(batch.record_count()));
        self.gathered_bytes += batch.bytes().len();
        self.gathered.push_back((shard, first, batch));
    }

    pub(crate) fn on_progress_seen(&mut self, shards: &[(ShardId, LocalId)]) {
        for (shard, upto) in shards {
            if let Some(state) = self.shards.get_mut(shard) {
                state.seen = state.seen.max(*upto);
            }
        }
    }

    pub(crate) fn on_cuts(&mut self, cuts: &[Cut]) {
        for delta in cuts.iter().flat_map(|cut| &cut.deltas) {
            if let Some(state) = self.shards.get_mut(&delta.shard) {
                state.seen = state.seen.max(delta.end());
            }
        }
    }

    pub(crate) fn on_fetch_batches(&mut self, from: NodeId, shard: ShardId, first: LocalId, out: &mut Vec<Send>) {
        let Some(kept) = self.kept.get(&shard) else { return };
        let start = kept.partition_point(|(at, _)| *at < first);
        let batches: Vec<_> = kept.range(start..).take(256).map(|(_, batch)| batch.clone()).collect();
        if let Some((at, _)) = kept.get(start) {
            out.push(Send { to: from, message: Message::Batches { shard, first: *at, batches } });
        }
    }

    /// Whether anything waits for the disk.
    pub(crate) fn has_work(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Bytes of batches that wait for the disk.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        self.gathered_bytes
    }

    /// Takes what to write now: everything gathered, up to about `max_bytes`. Nothing while a group is being written.
    pub(crate) fn take_writes(&mut self, max_bytes: usize, out: &mut Vec<Send>) -> &[Run] {
        if !self.writing.is_empty() {
            return &[];
        }
        let mut bytes = 0;
        let mut run_bytes = 0;
        while let Some((shard, first, batch)) = self.gathered.pop_front() {
            let len = batch.bytes().len();
            if bytes > 0 && bytes + len > max_bytes {
                self.gathered.push_front((shard, first, batch));
                break;
            }
            bytes += len;
            run_bytes += len;
            match self.writing.last_mut() {
                Some(run) if run.shard == shard && run_bytes <= self.config.run_bytes => run.batches.push(batch),
                _ => {
                    run_bytes = len;
                    self.writing.push(Run { shard, first, batches: vec![batch] });
                }
            }
        }
        self.gathered_bytes -= bytes;
        for run in &self.writing {
            self.shards.entry(run.shard).or_default().staged = run.end();
        }
        if self.config.shares_journal && !self.writing.is_empty() {
            self.report_writing(out);
        }
        &self.writing
    }

    /// The group taken last is on disk, each run where `places` says.
    pub(crate) fn written(&mut self, now_us: u64, places: &[FramePlace], out: &mut Vec<Send>) {
        let runs = std::mem::take(&mut self.writing);
        for (run, place) in runs.iter().zip(places) {
            let state = self.shards.entry(run.shard).or_default();
            state.durable = run.end();
            out.push(Send { to: run.shard.engine, message: Message::Stored { shard: run.shard, upto: state.durable } });
            self.places.add(run.shard, run.first, place.segment, &run.entries(place.offset));
        }
        if !self.config.shares_journal && !runs.is_empty() {
            runs.iter().for_each(|run| self.keep(run));
            self.writing = runs;
            self.report_writing(out);
            self.writing.clear();
            self.report_again_later(now_us);
        }
    }

    /// Keeps the batches of a run that is on disk, for engines elsewhere.
    fn keep(&mut self, run: &Run) {
        if self.config.shares_journal {
            return;
        }
        let kept = self.kept.entry(run.shard).or_default();
        let mut first = run.first;
        for batch in &run.batches {
            kept.push_back((first, batch.clone()));
            first = LocalId(first.0 + u64::from(batch.record_count()));
        }
    }

    /// The group taken last was not written, and nothing else that is gathered will be: the disk is full. Every record
    /// that is not on disk is forgotten; returns the shards concerned and where each continues.
    pub(crate) fn refused(&mut self) -> Vec<(ShardId, LocalId)> {
        let mut shards: Vec<ShardId> = self.writing.iter().map(|run| run.shard).collect();
        shards.extend(self.gathered.iter().map(|(shard, _, _)| *shard));
        shards.sort_unstable();
        shards.dedup();
        self.writing.clear();
        self.gathered.clear();
        self.gathered_bytes = 0;
        let mut back = Vec::new();
        for shard in shards {
            let state = self.shards.entry(shard).or_default();
            self.early_bytes -= state.early.values().map(|batch| batch.bytes().len()).sum::<usize>();
            state.early.clear();
            (state.taken, state.staged) = (state.durable, state.durable);
            back.push((shard, state.durable));
        }
        back
    }

    /// When [`Storage::tick`] wants to be called.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.report_again_us
    }

    pub(crate) fn tick(&mut self, now_us: u64, out: &mut Vec<Send>) {
        if self.report_again_us.is_none_or(|at| at > now_us) {
            return;
        }
        let unseen: Vec<_> = self
            .shards
            .iter()
            .filter(|(_, state)| state.seen < state.durable)
            .map(|(shard, state)| state.progress(*shard))
            .collect();
        self.report_again_us = None;
        if !unseen.is_empty() {
            out.push(Send { to: self.config.sequencer, message: Message::Progress(unseen) });
            self.report_again_later(now_us);
        }
    }

    /// Where to look for the record, if it is on disk and has not been given up.
    #[must_use]
    pub fn find(&self, shard: ShardId, local: LocalId) -> Option<Found> {
        self.places.find(shard, local)
    }

    /// These records are gone: their places may be reused.
    pub fn release(&mut self, gone: &[Gone]) {
        for gone in gone {
            self.places.release(gone.shard, gone.from, gone.count);
        }
    }

    /// Whether the last living record of some segment has gone since this was last asked, or most of them.
    pub fn take_waned(&mut self) -> bool {
        std::mem::take(&mut self.places.has_waned)
    }

    /// Segments below `end` in which nothing is alive.
    pub fn dead_segments(&self, end: u64) -> impl Iterator<Item = u64> {
        self.places.dead_segments(end)
    }

    /// Forgets a segment that has been given back, and where its records were.
    pub fn forget_segment(&mut self, segment: u64) {
        self.places.forget_segment(segment);
    }

    /// What a checkpoint says of where records lie, and what must be in place files before it is written.
    pub(crate) fn snapshot(&self) -> (StorageSnapshot, Vec<Unfiled>) {
        (self.places.snapshot(), self.places.unfiled())
    }

    /// These entries are in place files.
    pub(crate) fn filed(&mut self, filed: &[Unfiled]) {
        filed.iter().for_each(|filed| self.places.file(filed.segment, filed.end()));
    }

    /// Whether every record on disk lies below `ordered` of its shard.
    pub(crate) fn is_ordered(&self, ordered: &[(ShardId, LocalId)]) -> bool {
        let upto = |shard| ordered.iter().find(|(other, _)| other == shard).map_or(LocalId(0), |(_, upto)| *upto);
        self.shards.iter().all(|(shard, state)| state.durable <= upto(shard))
    }

    fn report_writing(&self, out: &mut Vec<Send>) {
        let mut shards: Vec<ShardProgress> = Vec::with_capacity(1);
        for run in &self.writing {
            if let Some(state) = self.shards.get(&run.shard)
                && shards.iter().all(|progress| progress.shard != run.shard)
            {
                shards.push(state.progress(run.shard));
            }
        }
        out.push(Send { to: self.config.sequencer, message: Message::Progress(shards) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use crate::ids::BookId;

    const SHARD: ShardId = ShardId { engine: NodeId(1), term: Term(1) };

    fn storage(shares_journal: bool) -> Storage {
        let sequencer = NodeId(7);
        Storage::new(StorageConfig {
            sequencer,
            shares_journal,
            early_bytes: 1000,
            run_bytes: 200,
            resend_after_us: Some(10),
        })
    }

    fn batch(records: u32) -> Batch {
        (0..records).fold(BatchBuilder::new(BookId(1)), |b, _| b.record(vec![], &b"x"[..])).build().unwrap()
    }

    fn progress(staged: u64, durable: u64) -> Send {
        let shards = vec![ShardProgress { shard: SHARD, staged: LocalId(staged), durable: LocalId(durable) }];
        Send { to: NodeId(7), message: Message::Progress(shards) }
    }

    fn stored(upto: u64) -> Send {
        Send { to: NodeId(1), message: Message::Stored { shard: SHARD, upto: LocalId(upto) } }
    }

    const AT: FramePlace = FramePlace { segment: 3, offset: 100 };

    #[test]
    fn batches_out_of_order_are_written_in_order_and_duplicates_once() {
        let mut storage = storage(false);
        let mut out = Vec::new();
        storage.on_replicate(SHARD, LocalId(2), batch(1), &mut out);
        storage.on_replicate(SHARD, LocalId(2), batch(1), &mut out);
        assert!(!storage.has_work());
        storage.on_replicate(SHARD, LocalId(0), batch(2), &mut out);
        storage.on_replicate(SHARD, LocalId(0), batch(2), &mut out);
        let runs = storage.take_writes(1 << 20, &mut out).to_vec();
        assert_eq!(runs, [Run { shard: SHARD, first: LocalId(0), batches: vec![batch(2), batch(1)] }]);
        assert_eq!(out, [], "nothing is reported before it is on disk");
        storage.written(0, &[AT], &mut out);
        assert_eq!(out, [stored(3), progress(3, 3)]);
    }

    #[test]
    fn runs_end_where_they_would_become_too_long() {
        let mut storage = storage(false);
        let (small, large) = (batch(1), batch(40));
        assert!(2 * small.bytes().len() <= 200 && 200 < large.bytes().len());
        let batches = [small.clone(), small.clone(), large, small.clone(), small.clone(), small.clone()];
        let mut first = 0;
        for batch in &batches {
            storage.on_replicate(SHARD, LocalId(first), batch.clone(), &mut Vec::new());
            first += u64::from(batch.record_count());
        }
        let runs = storage.take_writes(1 << 20, &mut Vec::new()).to_vec();
        let shape: Vec<(u64, usize)> = runs.iter().map(|run| (run.first.0, run.batches.len())).collect();
        let in_a_run = 200 / small.bytes().len();
        assert_eq!(shape[..3], [(0, 2), (2, 1), (42, in_a_run.min(3))]);
        assert_eq!(runs.iter().flat_map(|run| run.batches.clone()).collect::<Vec<_>>(), batches);
    }

    #[test]
    fn a_repeated_batch_that_is_on_disk_is_reported_again() {
        let mut storage = storage(false);
        storage.on_replicate(SHARD, LocalId(0), batch(1), &mut Vec::new());
        storage.take_writes(1 << 20, &mut Vec::new());
        storage.written(0, &[AT], &mut Vec::new());
        let mut out = Vec::new();
        storage.on_replicate(SHARD, LocalId(0), batch(1), &mut out);
        assert_eq!(out, [stored(1), progress(1, 1)]);
        storage.on_progress_seen(&[(SHARD, LocalId(1))]);
        out.clear();
        storage.on_replicate(SHARD, LocalId(0), batch(1), &mut out);
        assert_eq!(out, [stored(1)]);
    }

    #[test]
    fn after_a_restart_the_first_report_is_repeated_and_engines_get_what_was_recovered() {
        let mut storage = storage(false);
        let run = Run { shard: SHARD, first: LocalId(0), batches: vec![batch(1)] };
        assert!(storage.recover(&run, AT));
        let mut out = Vec::new();
        storage.start(0, &mut out);
        storage.tick(10, &mut out);
        assert_eq!(out, [progress(1, 1), progress(1, 1)]);
        out.clear();
        storage.on_fetch_batches(NodeId(5), SHARD, LocalId(0), &mut out);
        let message = Message::Batches { shard: SHARD, first: LocalId(0), batches: run.batches };
        assert_eq!(out, [Send { to: NodeId(5), message }]);
    }

    #[test]
    fn progress_is_repeated_until_the_sequencer_has_seen_it() {
        let mut storage = storage(false);
        storage.on_replicate(SHARD, LocalId(0), batch(1), &mut Vec::new());
        storage.take_writes(1 << 20, &mut Vec::new());
        storage.written(0, &[AT], &mut Vec::new());
        let mut out = Vec::new();
        storage.tick(9, &mut out);
        assert_eq!(out, []);
        storage.tick(10, &mut out);
        assert_eq!(out, [progress(1, 1)]);
        storage.on_progress_seen(&[(SHARD, LocalId(1))]);
        storage.tick(20, &mut out);
        assert_eq!((out.len(), storage.next_timer()), (1, None), "no timer without a reason");
    }

    #[test]
    fn in_a_shared_journal_a_group_is_staged_when_it_is_taken() {
        let mut storage = storage(true);
        let mut out = Vec::new();
        storage.on_replicate(SHARD, LocalId(0), batch(2), &mut out);
        storage.take_writes(1 << 20, &mut out);
        assert_eq!(out, [progress(2, 0)]);
        storage.on_replicate(SHARD, LocalId(2), batch(1), &mut out);
        assert_eq!(storage.take_writes(1 << 20, &mut out), [], "one group at a time");
        out.clear();
        storage.written(0, &[AT], &mut out);
        assert_eq!(out, [stored(2)]);
    }

    #[test]
    fn a_full_disk_takes_back_everything_that_is_not_written() {
        let mut storage = storage(true);
        let mut out = Vec::new();
        storage.on_replicate(SHARD, LocalId(0), batch(1), &mut out);
        storage.take_writes(1 << 20, &mut out);
        storage.written(0, &[AT], &mut out);
        storage.on_replicate(SHARD, LocalId(1), batch(1), &mut out);
        storage.take_writes(1 << 20, &mut out);
        storage.on_replicate(SHARD, LocalId(2), batch(1), &mut out);
        assert_eq!(storage.refused(), [(SHARD, LocalId(1))]);
        assert!(!storage.has_work());
        storage.on_replicate(SHARD, LocalId(1), batch(5), &mut out);
        assert_eq!(storage.take_writes(1 << 20, &mut out)[0].first, LocalId(1));
    }

    #[test]
    fn a_segment_is_dead_when_all_of_its_records_are_gone() {
        let mut storage = storage(true);
        let frame = |segment| FramePlace { segment, offset: 0 };
        for (segment, first) in [(1, 0), (2, 2), (3, 4)] {
            let run = Run { shard: SHARD, first: LocalId(first), batches: vec![batch(2)] };
            assert!(storage.recover(&run, frame(segment)));
        }
        storage.release(&[Gone { seq: crate::ids::Seq::NONE, shard: SHARD, from: LocalId(2), count: 1 }]);
        assert_eq!(storage.dead_segments(3).count(), 0);
        storage.release(&[Gone { seq: crate::ids::Seq::NONE, shard: SHARD, from: LocalId(3), count: 2 }]);
        assert_eq!(storage.dead_segments(3).collect::<Vec<_>>(), [2]);
        storage.forget_segment(2);
        assert_eq!(storage.find(SHARD, LocalId(2)), None);
        let segment_of = |local| match storage.find(SHARD, LocalId(local)) {
            Some(Found::At(place)) => place.segment,
            other => panic!("{other:?}"),
        };
        assert_eq!((segment_of(1), segment_of(5)), (1, 3));
    }
}
