//! Reads bodies of frames by their place, beside the thread that writes, without waiting for it.
//!
//! It trusts the place it is given, and checks frames that are stored as they are not at all: who knows what the bytes mean has
//! their checksum. Others have to be read and checked as a whole.

mod opened;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::coding::{Coding, FrameReader};
use crate::error::{Damage, ReadError};
use crate::frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader};
use crate::scan::SegmentScan;
use crate::segment::{self, SegmentHeader};
use crate::vfs::{Vfs, VfsFile};

use opened::Opened;

/// How many segment files are kept open; others are opened when they are read.
const OPEN_FILES: usize = 256;

/// Reads a journal. Clones share the open files.
#[derive(Debug)]
pub struct JournalReader<V: Vfs> {
    files: Arc<SegmentFiles<V>>,
}

impl<V: Vfs> Clone for JournalReader<V> {
    fn clone(&self) -> JournalReader<V> {
        JournalReader { files: Arc::clone(&self.files) }
    }
}

impl<V: Vfs> JournalReader<V> {
    pub(crate) fn new(files: Arc<SegmentFiles<V>>) -> JournalReader<V> {
        JournalReader { files }
    }

    /// `len` bytes from `at` on of the body of the frame that is at `frame` of a segment, as [`Location`](crate::Location)
    /// has it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, segment: u64, frame: u32, at: u32, len: u32) -> Result<Bytes, ReadError> {
        let offset = frame.saturating_add(at);
        let failed = |source| ReadError::Io { segment, offset, len, source };
        let (coding, file) = self.files.get(segment, failed)?;
        if coding != Coding::Plain
            && let Some(plain) = self.files.read_coded(segment, coding, &*file, frame, failed)?
        {
            let damaged = || ReadError::Damaged { segment, frame, what: "the frame is shorter than it should be" };
            let range = at as usize..(at as usize).saturating_add(len as usize);
            // A copy: a small part of the frame must not keep all of it in memory.
            return plain.get(range).map(Bytes::copy_from_slice).ok_or_else(damaged);
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?];
        file.read_at(&mut bytes, u64::from(offset)).map_err(failed)?;
        Ok(Bytes::from(bytes))
    }
}

impl<V: Vfs> JournalReader<V> {
    /// Gives kind, offset of the body, and body of every frame of a segment to `visit`, in their order, up to what is not a
    /// whole group. Returns why that is not one: behind the last group, it is missing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn frames(&self, segment: u64, visit: &mut dyn FnMut(u8, u32, &Bytes)) -> Result<Damage, ReadError> {
        let failed = |source| ReadError::Io { segment, offset: 0, len: 0, source };
        let (coding, file) = self.files.get(segment, failed)?;
        let mut block = vec![0; BLOCK_BYTES];
        file.read_at(&mut block, 0).map_err(failed)?;
        let header = match SegmentHeader::decode(&block, self.files.directory, segment) {
            Ok(header) => header,
            Err(damage) => return Ok(damage),
        };
        let mut scan = SegmentScan::new(&*file, segment, coding, &self.files.reader).map_err(failed)?;
        let mut group = header.first_group;
        loop {
            match scan.next_group(group).map_err(failed)? {
                Err(damage) => return Ok(damage),
                Ok(found) => {
                    for (kind, offset, body) in found.frames() {
                        visit(kind, u32::try_from(offset).unwrap_or(u32::MAX), &body);
                    }
                }
            }
            group += 1;
        }
    }
}

/// Which segments there are, with the files that are open.
#[derive(Debug)]
pub(crate) struct SegmentFiles<V: Vfs> {
    vfs: V,
    /// Id of the data directory.
    directory: u128,
    known: RwLock<Known<V::File>>,
    reader: FrameReader,
    opened: Opened,
}

#[derive(Debug)]
struct Known<F> {
    segments: BTreeMap<u64, Slot<F>>,
    /// Segments whose file is open, in the order in which they were opened.
    open: VecDeque<u64>,
}

#[derive(Debug)]
struct Slot<F> {
    coding: Coding,
    /// There if it is open.
    file: Option<Arc<F>>,
}

impl<V: Vfs> SegmentFiles<V> {
    pub(crate) fn new(
        vfs: V,
        directory: u128,
        segments: impl Iterator<Item = (u64, Coding)>,
        reader: FrameReader,
    ) -> SegmentFiles<V> {
        let segments = segments.map(|(number, coding)| (number, Slot { coding, file: None })).collect();
        let known = RwLock::new(Known { segments, open: VecDeque::new() });
        SegmentFiles { vfs, directory, known, reader, opened: Opened::default() }
    }

    /// A segment exists from now on.
    pub(crate) fn add(&self, number: u64, coding: Coding, file: Arc<V::File>) {
        let mut known = self.known.write();
        known.segments.insert(number, Slot { coding, file: None });
        known.keep(number, file);
    }

    /// A segment exists no more.
    pub(crate) fn forget(&self, number: u64) {
        let mut known = self.known.write();
        known.segments.remove(&number);
        known.open.retain(|open| *open != number);
    }

    fn get(&self, number: u64, failed: impl Fn(io::Error) -> ReadError) -> Result<(Coding, Arc<V::File>), ReadError> {
        let known = self.known.read();
        let coding = match known.segments.get(&number) {
            Some(Slot { coding, file: Some(file) }) => return Ok((*coding, Arc::clone(file))),
            Some(Slot { coding, file: None }) => *coding,
            None if known.segments.last_key_value().is_none_or(|(last, _)| *last < number) => {
                return Err(ReadError::NoSuchSegment { segment: number });
            }
            None => return Err(ReadError::Removed { segment: number }),
        };
        drop(known);
        let file = match self.vfs.open(&segment::file_name(number)) {
            Ok(file) => Arc::new(file),
            Err(_) if !self.known.read().segments.contains_key(&number) => {
                return Err(ReadError::Removed { segment: number });
            }
            Err(error) => return Err(failed(error)),
        };
        self.known.write().keep(number, Arc::clone(&file));
        Ok((coding, file))
    }

    /// The plain body of a frame in a segment where not all are stored as they are; `None` if this one is.
    fn read_coded(
        &self,
        segment: u64,
        coding: Coding,
        file: &V::File,
        frame: u32,
        failed: impl Fn(io::Error) -> ReadError,
    ) -> Result<Option<Bytes>, ReadError> {
        if let Some(plain) = self.opened.get((segment, frame)) {
            return Ok(Some(plain));
        }
        let damaged = |what| ReadError::Damaged { segment, frame, what };
        let no_frame = || damaged("there is no frame");
        let header_at = u64::from(frame).checked_sub(FRAME_HEADER_BYTES as u64).ok_or_else(no_frame)?;
        let mut head = [0; FRAME_HEADER_BYTES];
        file.read_at(&mut head, header_at).map_err(&failed)?;
        let header = FrameHeader::decode(&head).map_err(|_| no_frame())?;
        let end = u64::from(frame) + u64::from(header.len);
        if !header.is_known() || header.segment != segment || end > file.len().map_err(&failed)? {
            return Err(no_frame());
        }
        FrameReader::fits(&header, coding).map_err(damaged)?;
        if !header.is_coded() {
            return Ok(None);
        }
        let whole = FRAME_HEADER_BYTES as u64 + u64::from(header.len);
        let mut bytes = vec![0; usize::try_from(whole).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?];
        file.read_at(&mut bytes, header_at).map_err(&failed)?;
        if bytes[..FRAME_HEADER_BYTES] != head || !self.reader.is_intact(&bytes) {
            return Err(damaged("the frame does not match its checksum"));
        }
        bytes.drain(..FRAME_HEADER_BYTES);
        let plain = self.reader.open(&header, bytes, header_at).map_err(damaged)?;
        self.opened.keep((segment, frame), plain.clone());
        Ok(Some(plain))
    }
}

impl<F> Known<F> {
    /// Keeps an open file, unless its segment was removed meanwhile.
    fn keep(&mut self, number: u64, file: Arc<F>) {
        let Some(slot) = self.segments.get_mut(&number) else { return };
        if slot.file.replace(file).is_none() {
            self.open.push_back(number);
        }
        if self.open.len() > OPEN_FILES
            && let Some(oldest) = self.open.pop_front()
            && let Some(slot) = self.segments.get_mut(&oldest)
        {
            slot.file = None;
        }
    }
}
