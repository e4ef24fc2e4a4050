//! Reads bodies of frames by their place, beside the thread that writes, without waiting for it.
//!
//! It trusts the place it is given and checks nothing: who knows what the bytes mean has their checksum.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use crate::error::ReadError;
use crate::segment;
use crate::vfs::{Vfs, VfsFile};

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
        let file = self.files.get(segment, failed)?;
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?];
        file.read_at(&mut bytes, u64::from(offset)).map_err(failed)?;
        Ok(Bytes::from(bytes))
    }
}

/// Which segments there are, with the files that are open.
#[derive(Debug)]
pub(crate) struct SegmentFiles<V: Vfs> {
    vfs: V,
    known: RwLock<Known<V::File>>,
}

#[derive(Debug)]
struct Known<F> {
    segments: BTreeMap<u64, Option<Arc<F>>>,
    /// Segments whose file is open, in the order in which they were opened.
    open: VecDeque<u64>,
}

impl<V: Vfs> SegmentFiles<V> {
    pub(crate) fn new(vfs: V, segments: impl Iterator<Item = u64>) -> SegmentFiles<V> {
        let segments = segments.map(|number| (number, None)).collect();
        SegmentFiles { vfs, known: RwLock::new(Known { segments, open: VecDeque::new() }) }
    }

    /// A segment exists from now on.
    pub(crate) fn add(&self, number: u64, file: Arc<V::File>) {
        let mut known = self.known.write();
        known.segments.insert(number, None);
        known.keep(number, file);
    }

    /// A segment exists no more.
    pub(crate) fn forget(&self, number: u64) {
        let mut known = self.known.write();
        known.segments.remove(&number);
        known.open.retain(|open| *open != number);
    }

    fn get(&self, number: u64, failed: impl Fn(io::Error) -> ReadError) -> Result<Arc<V::File>, ReadError> {
        let known = self.known.read();
        match known.segments.get(&number) {
            Some(Some(file)) => return Ok(Arc::clone(file)),
            Some(None) => {}
            None if known.segments.last_key_value().is_none_or(|(last, _)| *last < number) => {
                return Err(ReadError::NoSuchSegment { segment: number });
            }
            None => return Err(ReadError::Removed { segment: number }),
        }
        drop(known);
        let file = match self.vfs.open(&segment::file_name(number)) {
            Ok(file) => Arc::new(file),
            Err(_) if !self.known.read().segments.contains_key(&number) => {
                return Err(ReadError::Removed { segment: number });
            }
            Err(error) => return Err(failed(error)),
        };
        self.known.write().keep(number, Arc::clone(&file));
        Ok(file)
    }
}

impl<F> Known<F> {
    /// Keeps an open file, unless its segment was removed meanwhile.
    fn keep(&mut self, number: u64, file: Arc<F>) {
        let Some(slot) = self.segments.get_mut(&number) else { return };
        if slot.replace(file).is_none() {
            self.open.push_back(number);
        }
        if self.open.len() > OPEN_FILES
            && let Some(oldest) = self.open.pop_front()
            && let Some(slot) = self.segments.get_mut(&oldest)
        {
            *slot = None;
        }
    }
}
