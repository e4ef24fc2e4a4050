//! A node's disk: the production journal over a disk in memory, and what power cuts, failures and damage do to it.

use boki_disk::mem::{Lie, MemDisk};
use boki_disk::{
    BlobError, Frame, Journal, JournalConfig, JournalReader, OpenError, PlaceEntry, PlaceFiles, WriteError, read_blob,
    write_blob,
};
use boki_log::machine::{Checkpoint, WriteFrame};
use boki_log::storage::{Found, FramePlace, GroupPlace, Place};
use bytes::Bytes;

use crate::ledger::OnDisk;
use crate::rng::Rng;
use crate::violation::{Checked, violated};

const CHECKPOINT: &str = "checkpoint";

/// See the module's description.
#[derive(Debug)]
pub struct NodeDisk {
    mem: MemDisk,
    config: JournalConfig,
    journal: Option<Journal<MemDisk>>,
    reader: Option<JournalReader<MemDisk>>,
    places: Option<PlaceFiles<MemDisk>>,
    has_failed: bool,
}

/// How a node's memory is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKind {
    /// The process ends; what it has written, the system still has.
    Killed,
    /// The power is gone: what was not synced is lost, torn or kept.
    PowerCut,
}

/// What has become of a group when the node crashed while it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// Nothing had been done.
    NotBegun,
    /// Some of it had been done.
    Partly,
    /// All of it was done; nobody was told.
    Done,
}

/// How a group ended.
#[derive(Debug)]
pub enum Written {
    /// It is on disk: where.
    Done(Vec<FramePlace>),
    /// There was no room; nothing was written.
    Full,
    /// Nobody knows.
    Failed(String),
}

/// What opening a disk gave.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// The last checkpoint.
    pub checkpoint: Option<Bytes>,
    /// Every frame, and where it is.
    pub frames: Vec<(OnDisk, FramePlace)>,
    /// In which group each of them is.
    pub groups: Vec<u64>,
    /// The last group.
    pub last: Option<GroupPlace>,
}

/// Why a disk did not open.
#[derive(Debug)]
pub struct Refused {
    /// The file it is about.
    pub file: String,
    /// All that is said about it.
    pub text: String,
    /// The segment and the offset in it, if it is about a segment.
    pub at: Option<(u64, u32)>,
}

impl Refused {
    fn of_blob(error: &BlobError) -> Refused {
        let file = match error {
            BlobError::Full { name } | BlobError::Damaged { name, .. } | BlobError::Io { name, .. } => name.clone(),
            _ => String::new(),
        };
        Refused { file, text: error.to_string(), at: None }
    }

    fn of_journal(error: &OpenError) -> Refused {
        let (file, at) = match error {
            OpenError::Damaged { segment, offset, .. } => (segment_file(*segment), Some((*segment, *offset))),
            OpenError::Removed(error) => return Refused::of_blob(error),
            OpenError::Io { name, .. } => (name.clone(), None),
            _ => (String::new(), None),
        };
        Refused { file, text: error.to_string(), at }
    }
}

/// The name of a segment's file.
pub(crate) fn segment_file(segment: u64) -> String {
    format!("seg/{segment:016}.log")
}

impl NodeDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(directory: u128, segment_bytes: u64) -> NodeDisk {
        let config = JournalConfig {
            segment_bytes,
            first_segment_bytes: segment_bytes / 2,
            sync: true,
            ..JournalConfig::new(directory)
        };
        NodeDisk { mem: MemDisk::new(), config, journal: None, reader: None, places: None, has_failed: false }
    }

    /// Below the journal.
    pub(crate) fn mem(&self) -> &MemDisk {
        &self.mem
    }

    /// The same node's disk with other contents, not open.
    pub(crate) fn other(&self, mem: MemDisk) -> NodeDisk {
        NodeDisk { mem, config: self.config.clone(), journal: None, reader: None, places: None, has_failed: false }
    }

    /// The disk is as if it had never been damaged.
    pub fn heal(&mut self) {
        self.end_failures();
        self.mem.heal();
    }

    /// Opens the journal and reads the checkpoint, as a starting process does.
    ///
    /// # Errors
    /// [`Refused`]: what is there is not what was written, or cannot be read.
    pub fn open(&mut self) -> Result<Opened, Refused> {
        let checkpoint = read_blob(&self.mem, CHECKPOINT).map_err(|error| Refused::of_blob(&error))?;
        let (mut frames, mut groups) = (Vec::new(), Vec::new());
        let opened = Journal::open(self.mem.clone(), self.config.clone(), None, &mut |frame| {
            let place = FramePlace { segment: frame.location.segment, offset: frame.location.offset };
            groups.push(frame.group);
            frames.push((OnDisk { kind: frame.kind, segment: place.segment, body: frame.body }, place));
        });
        let journal = opened.map_err(|error| Refused::of_journal(&error))?;
        let last = journal.last_group().map(group_place);
        self.places = Some(PlaceFiles::open(&journal, records_in).map_err(|error| Refused::of_blob(&error))?);
        self.reader = Some(journal.reader());
        self.journal = Some(journal);
        Ok(Opened { checkpoint, frames, groups, last })
    }

    /// The power goes while the journal is opened, and is back.
    pub fn open_interrupted(&mut self, rng: &mut Rng) {
        self.mem.cut_power_after(rng.below(6));
        let opened = Journal::open(self.mem.clone(), self.config.clone(), None, &mut |_| {});
        drop(opened);
        self.crash(CrashKind::PowerCut, rng);
    }

    /// Writes a group.
    pub fn write(&mut self, frames: &[WriteFrame]) -> Written {
        let Some(journal) = &mut self.journal else { return Written::Failed("not open".into()) };
        let frames: Vec<Frame> =
            frames.iter().map(|frame| Frame { kind: frame.kind, parts: frame.parts.clone() }).collect();
        let mut locations = Vec::new();
        match journal.write(&frames, &mut locations) {
            Ok(()) => {
                let place = |at: &boki_disk::Location| FramePlace { segment: at.segment, offset: at.offset };
                Written::Done(locations.iter().map(place).collect())
            }
            Err(WriteError::Full) => Written::Full,
            Err(error) => {
                self.has_failed = true;
                Written::Failed(error.to_string())
            }
        }
    }

    /// Whether a write has failed, so that there will be no other before the journal is opened again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Writes a group, in the midst of which the node crashes.
    pub fn write_interrupted(&mut self, frames: &[WriteFrame], how: Interrupted, kind: CrashKind, rng: &mut Rng) {
        match (how, kind) {
            (Interrupted::NotBegun, _) => return,
            (Interrupted::Done, _) => {}
            // The write is done, or half of it, and the sync is not.
            (Interrupted::Partly, CrashKind::Killed) if rng.chance(500) => self.mem.fail_write_after(0),
            (Interrupted::Partly, CrashKind::Killed) => self.mem.cut_power_after(1),
            (Interrupted::Partly, CrashKind::PowerCut) => self.mem.cut_power_after(rng.below(5)),
        }
        self.write(frames);
    }

    /// The node crashes.
    pub fn crash(&mut self, kind: CrashKind, rng: &mut Rng) {
        self.journal = None;
        self.reader = None;
        self.places = None;
        self.has_failed = false;
        self.end_failures();
        self.mem.keep_power();
        if kind == CrashKind::PowerCut {
            let per_mille = *rng.pick(&[0, 500, 500, 950, 1000]).unwrap_or(&500);
            self.mem.crash(&mut |ways| if rng.chance(per_mille) { 1 + rng.below(ways - 1) } else { 0 });
        }
    }

    /// The next write, or its sync, fails.
    pub fn fail_next_write(&mut self, rng: &mut Rng) {
        if rng.chance(500) { self.mem.fail_write_after(0) } else { self.mem.fail_sync_after(0) }
    }

    fn end_failures(&self) {
        self.mem.fail_write_after(u64::MAX);
        self.mem.fail_sync_after(u64::MAX);
        self.mem.fail_read_after(u64::MAX);
        self.mem.lose_write_after(u64::MAX, true);
    }

    /// Whether there is room for a further segment.
    pub fn set_full(&mut self, full: bool) {
        let capacity = full.then(|| self.mem.used_bytes());
        self.mem.set_capacity(capacity);
    }

    /// The disk lies from now on.
    pub fn set_lie(&mut self, lie: Option<Lie>) {
        self.mem.set_lie(lie);
    }

    /// The bytes at `place`, or why they cannot be read.
    ///
    /// # Errors
    /// What a reader says.
    pub fn read(&self, place: Place) -> Result<Bytes, String> {
        let Some(reader) = &self.reader else { return Err("not open".into()) };
        reader.read(place.segment, place.frame, place.at, place.len).map_err(|error| error.to_string())
    }

    /// Where the record lies that is to be found there, or why nobody can tell.
    ///
    /// # Errors
    /// What a reader says.
    pub fn place(&self, found: Found) -> Result<Place, String> {
        match (found, &self.places) {
            (Found::At(place), _) => Ok(place),
            (Found::InFile { .. }, None) => Err("not open".into()),
            (Found::InFile { segment, ordinal }, Some(places)) => {
                let entry = places.find(segment, ordinal).map_err(|error| error.to_string())?;
                Ok(place_of(entry).in_segment(segment))
            }
        }
    }

    /// The segments that there are.
    #[must_use]
    pub fn segments(&self) -> Vec<u64> {
        let segments = self.journal.iter().flat_map(Journal::segments);
        segments.map(|segment| segment.number).collect()
    }

    /// Where the last group is.
    #[must_use]
    pub fn last_group(&self) -> Option<GroupPlace> {
        self.journal.as_ref().and_then(Journal::last_group).map(group_place)
    }

    /// Whether there is a checkpoint.
    #[must_use]
    pub fn has_checkpoint(&self) -> bool {
        self.mem.contents(CHECKPOINT).is_some()
    }

    /// Replaces the checkpoint, after what it needs in place files; `false` if there is no room.
    pub fn write_checkpoint(&mut self, checkpoint: &Checkpoint) -> bool {
        let Some(places) = &self.places else { return false };
        for unfiled in &checkpoint.unfiled {
            let Ok(mut entries) = places.read(unfiled.segment, unfiled.filed) else { return false };
            entries.extend(unfiled.entries.iter().map(entry_of));
            if places.write(unfiled.segment, &entries).is_err() {
                return false;
            }
        }
        write_blob(&self.mem, CHECKPOINT, &checkpoint.encode()).is_ok()
    }

    /// Replaces the checkpoint, in the midst of which the power goes.
    pub fn write_checkpoint_interrupted(&mut self, checkpoint: &Checkpoint, rng: &mut Rng) {
        self.mem.cut_power_after(rng.below(5 + 5 * checkpoint.unfiled.len() as u64));
        self.write_checkpoint(checkpoint);
    }

    /// Removes a segment; `false` if the disk did not let it.
    pub fn remove_segment(&mut self, segment: u64) -> bool {
        let is_removed = self.journal.as_mut().is_some_and(|journal| journal.remove_segment(segment).is_ok());
        // If its place file stays, it goes when they are opened.
        let _ = self.places.as_ref().map(|places| places.remove(segment));
        is_removed
    }

    /// Begins to remove a segment, in the midst of which the power goes.
    pub fn remove_segment_interrupted(&mut self, segment: u64, rng: &mut Rng) {
        self.mem.cut_power_after(rng.below(6));
        self.remove_segment(segment);
    }

    /// That the journal has these segments and no others, for the machine's sake.
    pub fn check_has(&self, segment: u64) -> Checked {
        let has = self.journal.as_ref().is_some_and(|journal| journal.segments().iter().any(|s| s.number == segment));
        if has { Ok(()) } else { violated("reclaim", format!("segment {segment} is to be removed and is not there")) }
    }
}

fn group_place(boki_disk::GroupPlace { segment, group, offset }: boki_disk::GroupPlace) -> GroupPlace {
    GroupPlace { segment, group, offset }
}

fn place_of(PlaceEntry { frame, at, len, checksum }: PlaceEntry) -> boki_log::storage::PlaceEntry {
    boki_log::storage::PlaceEntry { frame, at, len, checksum }
}

fn entry_of(entry: &boki_log::storage::PlaceEntry) -> PlaceEntry {
    PlaceEntry { frame: entry.frame, at: entry.at, len: entry.len, checksum: entry.checksum }
}

fn records_in(kind: u8, frame: u32, body: &Bytes) -> Result<Vec<PlaceEntry>, String> {
    let entries = boki_log::machine::records_in(kind, frame, body).map_err(|error| error.to_string())?;
    Ok(entries.iter().map(entry_of).collect())
}
