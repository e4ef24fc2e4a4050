//! The journal: groups of frames, one after the other, in segment files. One thread writes; any may read.
//!
//! ```text
//! segment n:   header │ group g │ group g+1 │ ...            zeros to the end of the file
//! group:       frame frame ... frame, zeros to the next block
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::coding::{Coding, FrameReader, FrameWriter};
use crate::compress::Compression;
use crate::error::{BlobError, OpenError, RemoveError, WriteError};
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, VERSION, to_blocks};
use crate::reach::Reach;
use crate::reader::{JournalReader, SegmentFiles};
use crate::recovery::{FrameRef, TornTail, io_error, recover};
use crate::removed::Removed;
use crate::seal::Keyring;
use crate::segment::{self, DIR, FIRST_GROUP_AT, SegmentHeader};
use crate::vfs::{Vfs, VfsFile, is_full};
use crate::zeros::Zeros;

/// Longest segment file: offsets in it are 32 bits wide.
const MAX_SEGMENT_BYTES: u64 = 1 << 32;

/// Largest buffer kept from one group to the next.
const KEPT_BUFFER_BYTES: usize = 4 << 20;

/// How a journal is set up.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// Id of the data directory: what belongs to another is not read.
    pub directory: u128,
    /// How often the directory has been begun, this time included.
    pub term: u32,
    /// Length of a segment file, in bytes; longer if a single group needs it.
    pub segment_bytes: u64,
    /// Length of the first segment file of a new journal, in bytes, at most `segment_bytes`: filling a file with zeros takes
    /// time, and whoever starts for the first time waits for it.
    pub first_segment_bytes: u64,
    /// Whether a group is on disk when `write` returns. Without, a power cut may lose what was acknowledged, and leave a
    /// journal that does not open because a later group survived an earlier one.
    pub sync: bool,
    /// Whether frames are compressed. It helps frames that are large, from about 16 KiB on, and costs whoever reads a part of
    /// one the whole of it: the caller makes them so, and not much larger.
    pub compression: Compression,
    /// Seals frames, in an encrypted directory.
    pub keyring: Option<Arc<Keyring>>,
}

impl JournalConfig {
    /// The defaults, for the data directory with that id.
    #[must_use]
    pub fn new(directory: u128) -> JournalConfig {
        JournalConfig {
            directory,
            term: 0,
            segment_bytes: 64 << 20,
            first_segment_bytes: 4 << 20,
            sync: true,
            compression: Compression::None,
            keyring: None,
        }
    }
}

/// A frame to write: what is in it is the caller's.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Tells the caller's kinds of frames apart.
    pub kind: u8,
    /// The body, in pieces.
    pub parts: Vec<Bytes>,
}

/// Where the body of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the body in its file, in bytes.
    pub offset: u32,
}

/// Where a group is: what a caller that remembers what is in a journal up to some group says of that group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupPlace {
    /// Number of the segment.
    pub segment: u64,
    /// Number of the group.
    pub group: u64,
    /// Offset of its first frame's header in the segment's file, in bytes.
    pub offset: u32,
}

/// A segment, as far as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Number of the first group in it.
    pub first_group: u64,
    /// How far it is written, in bytes.
    pub used_bytes: u64,
    /// Length of its file, in bytes.
    pub bytes: u64,
    /// How its frames may be stored.
    pub coding: Coding,
}

/// The journal, for the one thread that writes it.
#[derive(Debug)]
pub struct Journal<V: Vfs> {
    vfs: V,
    config: JournalConfig,
    writer: FrameWriter,
    files: Arc<SegmentFiles<V>>,
    /// All segments but the one being written.
    sealed: BTreeMap<u64, SegmentInfo>,
    removed: Removed,
    current: SegmentInfo,
    file: Arc<V::File>,
    next_group: u64,
    last: Option<GroupPlace>,
    /// The group being written; kept for its memory.
    buf: Vec<u8>,
    zeros: Zeros,
    /// The next segment's file and its length: a disk that fills up cannot take its space away.
    next: Option<(V::File, u64)>,
    torn: Option<TornTail>,
    failure: Option<Failure>,
}

/// Why nothing can be written any more.
#[derive(Clone, Debug)]
struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl<V: Vfs> Journal<V> {
    /// Opens the journal, or makes it, and gives the frames of all groups behind `known` to `visit`, in the order in which
    /// they were written; without `known`, every frame. Frames may have been visited when it turns out that the journal is
    /// damaged.
    ///
    /// Of segments before that of `known` only the headers are read: damage behind them is found when it is read. The group
    /// `known` itself is read, to know that this is the journal that the caller knows.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        vfs: V,
        config: JournalConfig,
        known: Option<GroupPlace>,
        visit: &mut dyn FnMut(FrameRef),
    ) -> Result<Journal<V>, OpenError> {
        let recovered = recover(&vfs, &config, known, visit)?;
        let mut sealed = recovered.segments;
        let (current, file, zeros) = match (sealed.pop_last(), recovered.last) {
            (Some((_, current)), Some(file)) => (current, file, Zeros::up_to(current.used_bytes)),
            _ => {
                vfs.sync_dir("").map_err(io_error("sync", DIR))?;
                let (first, file) = make_first(&vfs, &config)?;
                (first, file, Zeros::up_to(first.bytes))
            }
        };
        if !recovered.is_recorded {
            // Whoever finds the record and no segment knows that they were lost.
            recovered.removed.store(&vfs)?;
        }
        let file = Arc::new(file);
        let segments = sealed.values().map(|segment| (segment.number, segment.coding));
        let files = Arc::new(SegmentFiles::new(vfs.clone(), config.directory, segments, FrameReader::new(&config)));
        files.add(current.number, current.coding, Arc::clone(&file));
        Ok(Journal {
            writer: FrameWriter::new(&config),
            vfs,
            config,
            files,
            sealed,
            removed: recovered.removed,
            current,
            file,
            next_group: recovered.next_group,
            last: recovered.last_group,
            buf: Vec::new(),
            zeros,
            next: None,
            torn: recovered.torn,
            failure: None,
        })
    }

    /// Its files, the id of its data directory, and the keys of that.
    pub(crate) fn home(&self) -> (V, u128, Option<Arc<Keyring>>) {
        (self.vfs.clone(), self.config.directory, self.config.keyring.clone())
    }

    /// Reads what was written, from any thread.
    #[must_use]
    pub fn reader(&self) -> JournalReader<V> {
        JournalReader::new(Arc::clone(&self.files))
    }

    /// The group written last; `None` if there is none in what was read or written.
    #[must_use]
    pub fn last_group(&self) -> Option<GroupPlace> {
        self.last
    }

    /// What was cut off when the journal was opened.
    #[must_use]
    pub fn torn_tail(&self) -> Option<TornTail> {
        self.torn
    }

    /// Writes `frames` as one group: after a crash all of them are there, or none. When this returns `Ok` they are on disk,
    /// and the place of each has been added to `locations`.
    ///
    /// # Errors
    /// [`WriteError`]. Only [`WriteError::Failed`] leaves it open whether the group is there; then nothing more can be
    /// written.
    pub fn write(&mut self, frames: &[Frame], locations: &mut Vec<Location>) -> Result<(), WriteError> {
        self.check()?;
        if frames.is_empty() {
            return Ok(());
        }
        let body_bytes: u64 = frames.iter().flat_map(|frame| &frame.parts).map(|part| part.len() as u64).sum();
        let plain_bytes = body_bytes + (frames.len() * FRAME_HEADER_BYTES) as u64;
        // So many at the most: compressed they are fewer.
        let bytes = to_blocks(plain_bytes + (frames.len() * self.writer.extra_bytes()) as u64);
        if FIRST_GROUP_AT + bytes > MAX_SEGMENT_BYTES {
            return Err(WriteError::TooLarge { bytes });
        }
        // What is in a segment is all stored as its header says.
        if self.current.used_bytes + bytes > self.current.bytes || self.current.coding != self.writer.coding() {
            self.next_segment(bytes)?;
        }
        let at = self.current.used_bytes;
        let first_location = locations.len();
        self.encode(frames, at, plain_bytes, locations);
        let bytes = to_blocks(self.buf.len() as u64);
        self.buf.resize(usize::try_from(bytes).unwrap_or(self.buf.len()), 0);
        let written = self.file.write_at(&self.buf, at);
        let written = if self.config.sync { written.and_then(|()| self.file.sync_data()) } else { written };
        self.buf.shrink_to(KEPT_BUFFER_BYTES);
        self.writer.shrink_to(KEPT_BUFFER_BYTES);
        if let Err(error) = written {
            locations.truncate(first_location);
            return Err(self.fail(&error));
        }
        self.last = Some(GroupPlace { segment: self.current.number, group: self.next_group, offset: offset_of(at) });
        self.current.used_bytes += bytes;
        self.next_group += 1;
        self.prepare();
        Ok(())
    }

    /// Records how far the journal reaches: from now on an end before here is damage, and not a write that was interrupted.
    /// When the caller begins to write, and when it has ended.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn mark(&mut self) -> Result<(), WriteError> {
        self.check()?;
        // What was not synced must not be claimed.
        if !self.config.sync
            && let Err(error) = self.file.sync_data()
        {
            return Err(self.fail(&error));
        }
        let reach = Reach {
            directory: self.config.directory,
            term: self.config.term,
            segment: self.current.number,
            next_group: self.next_group,
        };
        match reach.store(&self.vfs) {
            Ok(()) => Ok(()),
            // The one there is claims less, and holds.
            Err(BlobError::Io { source, .. }) if is_full(&source) => Ok(()),
            Err(BlobError::Io { source, .. }) => Err(self.fail(&source)),
            Err(other) => Err(self.fail(&io::Error::other(other))),
        }
    }

    /// Starts the next segment, if there is something in this one.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn roll(&mut self) -> Result<(), WriteError> {
        self.check()?;
        if self.current.used_bytes > FIRST_GROUP_AT { self.next_segment(0) } else { Ok(()) }
    }

    /// All segments, ascending; the last is the one being written.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        self.sealed.values().chain([&self.current]).copied().collect()
    }

    /// Removes a segment with all that is in it, for good: after a crash it is removed or still whole.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub fn remove_segment(&mut self, number: u64) -> Result<(), RemoveError> {
        if number == self.current.number {
            return Err(RemoveError::Current { segment: number });
        }
        if let Some(info) = self.sealed.get(&number) {
            let removed = self.removed.with(number, info.first_group);
            removed.store(&self.vfs)?;
            self.removed = removed;
            self.sealed.remove(&number);
            self.files.forget(number);
        } else if !self.removed.contains(number) {
            return Err(RemoveError::NoSuchSegment { segment: number });
        }
        match self.vfs.remove(&segment::file_name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RemoveError::Io { segment: number, source: error })
            }
            _ => Ok(()),
        }
    }

    /// Puts the frames into the buffer and their places into `locations`; the group will lie at `at`, and takes `plain_bytes` as
    /// it is.
    fn encode(&mut self, frames: &[Frame], at: u64, plain_bytes: u64, locations: &mut Vec<Location>) {
        self.buf.clear();
        for (index, frame) in frames.iter().enumerate() {
            let frame_at = at + self.buf.len() as u64;
            let header = FrameHeader {
                version: VERSION,
                kind: frame.kind,
                is_last: index + 1 == frames.len(),
                is_compressed: false,
                is_sealed: false,
                len: 0,
                segment: self.current.number,
                group: self.next_group,
            };
            self.writer.put(header, &frame.parts, frame_at, plain_bytes, &mut self.buf);
            let body_at = frame_at + FRAME_HEADER_BYTES as u64;
            locations.push(Location { segment: self.current.number, offset: offset_of(body_at) });
        }
    }

    /// Starts a segment that has room for a group of `bytes`.
    fn next_segment(&mut self, bytes: u64) -> Result<(), WriteError> {
        let number = self.current.number + 1;
        let file_bytes = segment::file_bytes(self.config.segment_bytes, bytes).min(MAX_SEGMENT_BYTES);
        // Everything before the last segment is taken for durable when the journal is opened.
        if !self.config.sync
            && let Err(error) = self.file.sync_data()
        {
            return Err(self.fail(&error));
        }
        let made = match self.next.take().filter(|(_, bytes)| *bytes >= file_bytes) {
            Some((file, bytes)) => Ok((bytes, file)),
            None => segment::make(&self.vfs, number, file_bytes).map(|file| (file_bytes, file)),
        };
        let header = SegmentHeader {
            directory: self.config.directory,
            number,
            first_group: self.next_group,
            created_us: self.vfs.wall_us(),
            coding: self.writer.coding(),
        };
        let named = made.and_then(|(file_bytes, file)| {
            segment::name(&self.vfs, &file, &header)?;
            Ok((file_bytes, file))
        });
        let (file_bytes, file) = match named {
            Ok(named) => named,
            Err(error) if is_full(&error) => {
                // Gives back what was taken for it; if that fails too, opening the journal again does it.
                let _ = self.vfs.remove(&segment::fresh_file_name(number));
                return Err(WriteError::Full);
            }
            Err(error) => return Err(self.fail(&error)),
        };
        if let Err(error) = self.vfs.sync_dir(DIR) {
            return Err(self.fail(&error));
        }
        self.sealed.insert(self.current.number, self.current);
        let (first_group, coding) = (self.next_group, header.coding);
        self.current = SegmentInfo { number, first_group, used_bytes: FIRST_GROUP_AT, bytes: file_bytes, coding };
        self.zeros = Zeros::up_to(FIRST_GROUP_AT);
        self.file = Arc::new(file);
        self.files.add(number, coding, Arc::clone(&self.file));
        self.mark()
    }

    /// After a group: takes the space of the next segment, and fills this one a little further.
    fn prepare(&mut self) {
        if self.next.is_none() {
            let bytes = segment::file_bytes(self.config.segment_bytes, 0);
            // If it cannot be made now, it is made when it is needed, and the error can be told to somebody then.
            self.next = segment::make(&self.vfs, self.current.number + 1, bytes).ok().map(|file| (file, bytes));
        }
        // Zeros only make syncs shorter.
        if self.config.sync
            && let Err(error) = self.zeros.group_written(&*self.file, self.current.used_bytes, self.current.bytes)
        {
            // The group is on disk; whatever comes after it may not be.
            self.fail(&error);
        }
    }

    fn check(&self) -> Result<(), WriteError> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(WriteError::Failed(io::Error::new(failure.kind, failure.text.clone()))),
        }
    }

    /// Nothing more is written: what a failed write or sync has done is not known, and trying again proves nothing.
    fn fail(&mut self, error: &io::Error) -> WriteError {
        let failure = Failure { kind: error.kind(), text: error.to_string() };
        let error = io::Error::new(failure.kind, failure.text.clone());
        self.failure = Some(failure);
        WriteError::Failed(error)
    }
}

/// Segment files are smaller than 4 GiB.
fn offset_of(at: u64) -> u32 {
    u32::try_from(at).expect("segment files are smaller than 4 GiB")
}

/// Makes the first segment of a journal.
fn make_first<V: Vfs>(vfs: &V, config: &JournalConfig) -> Result<(SegmentInfo, V::File), OpenError> {
    let bytes = segment::file_bytes(config.first_segment_bytes.min(config.segment_bytes), BLOCK_BYTES as u64);
    let (directory, coding) = (config.directory, FrameWriter::new(config).coding());
    let header = SegmentHeader { directory, number: 1, first_group: 1, created_us: vfs.wall_us(), coding };
    let made = (|| {
        let file = segment::make(vfs, 1, bytes)?;
        segment::zero(&file, 0..bytes)?;
        segment::name(vfs, &file, &header)?;
        vfs.sync_dir(DIR)?;
        Ok(file)
    })();
    let file = made.map_err(io_error("make", &segment::file_name(1)))?;
    Ok((SegmentInfo { number: 1, first_group: 1, used_bytes: FIRST_GROUP_AT, bytes, coding }, file))
}
