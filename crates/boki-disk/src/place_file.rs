//! Place files: beside a segment, where in it each of its records lies, so that memory need not hold it.
//!
//! Which records there are, in which order, is the caller's to know, who tells what a frame holds; here they have numbers from
//! 0 on. A place file never changes but by being replaced with one that has more entries, and holds nothing that is not in its
//! segment: one that is missing, damaged, too short or somebody else's is made again from it, by whoever finds it so.
//!
//! `seg/<segment>.places`, in blocks of 4096 bytes, little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C over directory id, number of the segment, number of the block, and everything behind this field |
//! | 4 | 2 | magic `"PL"` |
//! | 6 | 1 | version: 1, or 2 if the body is sealed |
//! | 7 | 1 | 0 |
//! | 8 | 4088 | body; in version 2 a sealed unit |
//!
//! | offset in the body | bytes | field |
//! |---|---|---|
//! | 0 | 4 | number of entries in the block: as many as there is room for, in all blocks but the last |
//! | 4 | 4 | 0 |
//! | 8 | 16 per entry | offset of the frame's body in the segment, offset of the record in that body, its length, its CRC-32C (u32 each) |
//!
//! In an encrypted directory every block is sealed, because lengths and checksums say something of what records hold. Additional data
//! of the unit: the directory's id (16 bytes), `"places"`, the number of the segment and of the block (8 bytes each).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use crc_fast::{CrcAlgorithm, Digest};
use parking_lot::{Mutex, RwLock};

use crate::blob;
use crate::error::{BlobError, PlaceError};
use crate::journal::Journal;
use crate::reader::JournalReader;
use crate::seal::{HEAD_BYTES, Keyring, SEAL_BYTES};
use crate::segment::{DIR, FileKind};
use crate::vfs::{Vfs, VfsFile, is_full};

const BLOCK: usize = 4096;
const ENTRY_BYTES: usize = 16;
const COVERED_AT: usize = 4;
const BODY_AT: usize = 8;
const PLAIN: [u8; 4] = [b'P', b'L', 1, 0];
const SEALED: [u8; 4] = [b'P', b'L', 2, 0];
/// In the body.
const ENTRIES_AT: usize = 8;

/// How many files are kept open.
const OPEN_FILES: usize = 128;

/// Where a record lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceEntry {
    /// Offset of the body of the frame that holds it, in bytes.
    pub frame: u32,
    /// Offset of the record in that body, in bytes.
    pub at: u32,
    /// Its length, in bytes.
    pub len: u32,
    /// CRC-32C of it.
    pub checksum: u32,
}

/// Tells where the records lie in the frame of that kind whose body, at that offset, that is; or why it cannot be.
pub type RecordsIn = fn(u8, u32, &Bytes) -> Result<Vec<PlaceEntry>, String>;

/// The place files of a journal; threads may use it at once.
#[derive(Debug)]
pub struct PlaceFiles<V: Vfs> {
    vfs: V,
    directory: u128,
    /// Seals what is written, and opens it: nothing is taken for good that is not sealed.
    keyring: Option<Arc<Keyring>>,
    reader: JournalReader<V>,
    records_in: RecordsIn,
    open: RwLock<BTreeMap<u64, Arc<V::File>>>,
    /// Held while a file is made again.
    making: Mutex<()>,
}

impl<V: Vfs> PlaceFiles<V> {
    /// Opens those of `journal`, and removes files whose segment it does not have.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(journal: &Journal<V>, records_in: RecordsIn) -> Result<PlaceFiles<V>, BlobError> {
        let (vfs, directory, keyring) = journal.home();
        let failed = |what| move |source| BlobError::Io { what, name: DIR.to_owned(), source };
        let segments: BTreeSet<u64> = journal.segments().iter().map(|segment| segment.number).collect();
        for name in vfs.list(DIR).map_err(failed("list"))? {
            let is_needed = match FileKind::of(&name) {
                FileKind::Places(segment) => segments.contains(&segment),
                FileKind::FreshPlaces => false,
                _ => true,
            };
            if !is_needed {
                vfs.remove(&format!("{DIR}/{name}")).map_err(failed("clean up"))?;
            }
        }
        let reader = journal.reader();
        Ok(PlaceFiles {
            vfs,
            directory,
            keyring,
            reader,
            records_in,
            open: RwLock::new(BTreeMap::new()),
            making: Mutex::new(()),
        })
    }

    /// Makes, or replaces, the place file of a segment. Durable when this returns.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`]: the old one is still there.
    pub fn write(&self, segment: u64, entries: &[PlaceEntry]) -> Result<(), BlobError> {
        let name = file_name(segment);
        let per_block = self.per_block() as usize;
        let mut bytes = Vec::with_capacity(entries.len().div_ceil(per_block) * BLOCK);
        for (number, block) in entries.chunks(per_block).enumerate() {
            bytes.extend_from_slice(&self.encode(segment, number as u64, block));
        }
        blob::replace(&self.vfs, &name, &bytes).map_err(|source| failure("write", segment, source))?;
        self.open.write().remove(&segment);
        Ok(())
    }

    /// The entry with that number.
    ///
    /// # Errors
    /// [`PlaceError`]: neither the file nor the segment tells it.
    pub fn find(&self, segment: u64, number: u32) -> Result<PlaceEntry, PlaceError> {
        if let Some(entry) = intact(self.find_in_file(segment, number))? {
            return Ok(entry);
        }
        let _making = self.making.lock();
        // Whoever had the lock before may have made it.
        if let Some(entry) = intact(self.find_in_file(segment, number))? {
            return Ok(entry);
        }
        let entries = self.make(segment, number)?;
        entries.get(number as usize).copied().ok_or(PlaceError::NoSuchRecord { segment, number })
    }

    /// The first `count` entries.
    ///
    /// # Errors
    /// [`PlaceError`]: neither the file nor the segment tells them.
    pub fn read(&self, segment: u64, count: u32) -> Result<Vec<PlaceEntry>, PlaceError> {
        let Some(last) = count.checked_sub(1) else { return Ok(Vec::new()) };
        let blocks = u64::from(count.div_ceil(self.per_block()));
        let found = intact(self.read_blocks(segment, 0, blocks))?.filter(|entries| entries.len() >= count as usize);
        let mut entries = match found {
            Some(entries) => entries,
            None => {
                let _making = self.making.lock();
                self.make(segment, last)?
            }
        };
        entries.truncate(count as usize);
        Ok(entries)
    }

    /// Makes the file of a segment again, of everything in the segment, which must reach to the record `least`.
    fn make(&self, segment: u64, least: u32) -> Result<Vec<PlaceEntry>, PlaceError> {
        let mut entries = Vec::new();
        let mut unknown = None;
        let end =
            self.reader.frames(segment, &mut |kind, offset, body| match (self.records_in)(kind, offset, body) {
                Ok(found) => entries.extend(found),
                Err(what) => unknown = unknown.take().or(Some(what)),
            })?;
        if let Some(what) = unknown {
            return Err(PlaceError::Unreadable { segment, what });
        }
        if entries.len() <= least as usize {
            return Err(PlaceError::Damaged { segment, number: least, what: end });
        }
        // If there is no room for it, it is made anew whenever it is needed: slow, and not wrong.
        let _ = self.write(segment, &entries);
        Ok(entries)
    }

    fn find_in_file(&self, segment: u64, number: u32) -> Result<Option<PlaceEntry>, BlobError> {
        let per_block = self.per_block();
        let found = self.read_blocks(segment, u64::from(number / per_block), 1)?;
        Ok(found.and_then(|entries| entries.get((number % per_block) as usize).copied()))
    }

    /// Removes the file of a segment, if there is one.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove(&self, segment: u64) -> Result<(), BlobError> {
        self.open.write().remove(&segment);
        match self.vfs.remove(&file_name(segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure("remove", segment, error)),
            // Not synced: a file that comes back after a power cut is removed when the directory is opened.
            _ => Ok(()),
        }
    }

    /// How many entries there are in a block.
    fn per_block(&self) -> u32 {
        let sealed = if self.keyring.is_some() { SEAL_BYTES } else { 0 };
        ((BLOCK - BODY_AT - sealed - ENTRIES_AT) / ENTRY_BYTES) as u32
    }

    fn encode(&self, segment: u64, number: u64, entries: &[PlaceEntry]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let (magic, head) = if self.keyring.is_some() { (SEALED, HEAD_BYTES) } else { (PLAIN, 0) };
        block[COVERED_AT..BODY_AT].copy_from_slice(&magic);
        let body = &mut block[BODY_AT + head..];
        body[..4].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        for (slot, entry) in body[ENTRIES_AT..].chunks_exact_mut(ENTRY_BYTES).zip(entries) {
            for (field, value) in slot.chunks_exact_mut(4).zip([entry.frame, entry.at, entry.len, entry.checksum]) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
        if let Some(keyring) = &self.keyring {
            keyring.seal(&self.aad(segment, number), &mut block[BODY_AT..]);
        }
        let checksum = self.checksum(segment, number, &block);
        block[..COVERED_AT].copy_from_slice(&checksum);
        block
    }

    /// Appends the entries of a block, which is opened in place; or says what is wrong with it.
    fn decode(
        &self,
        segment: u64,
        number: u64,
        block: &mut [u8],
        entries: &mut Vec<PlaceEntry>,
    ) -> Result<(), &'static str> {
        if block[..COVERED_AT] != self.checksum(segment, number, block) {
            return Err("a block does not match its checksum");
        }
        let magic = if self.keyring.is_some() { SEALED } else { PLAIN };
        if block[COVERED_AT..BODY_AT] != magic {
            return Err("it is of another version, or sealed where nothing is, or the other way round");
        }
        let body = &mut block[BODY_AT..];
        let mut body = match &self.keyring {
            None => &body[..],
            Some(keyring) => {
                let opened = keyring.open(&self.aad(segment, number), body);
                let len = opened.map_err(|_| "a block cannot be opened")?;
                &body[HEAD_BYTES..HEAD_BYTES + len]
            }
        };
        let count = body.get_u32_le();
        body.advance(4);
        for mut slot in body.chunks_exact(ENTRY_BYTES).take(count as usize) {
            let (frame, at) = (slot.get_u32_le(), slot.get_u32_le());
            entries.push(PlaceEntry { frame, at, len: slot.get_u32_le(), checksum: slot.get_u32_le() });
        }
        Ok(())
    }

    fn aad(&self, segment: u64, number: u64) -> [u8; 38] {
        let mut aad = [0; 38];
        aad[..16].copy_from_slice(&self.directory.to_le_bytes());
        aad[16..22].copy_from_slice(b"places");
        aad[22..30].copy_from_slice(&segment.to_le_bytes());
        aad[30..].copy_from_slice(&number.to_le_bytes());
        aad
    }

    fn checksum(&self, segment: u64, number: u64, block: &[u8]) -> [u8; COVERED_AT] {
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.directory.to_le_bytes());
        digest.update(&segment.to_le_bytes());
        digest.update(&number.to_le_bytes());
        digest.update(&block[COVERED_AT..]);
        (digest.finalize() as u32).to_le_bytes()
    }

    /// The entries of `count` blocks from `first` on; `None` if the file is not there or does not reach so far.
    fn read_blocks(&self, segment: u64, first: u64, count: u64) -> Result<Option<Vec<PlaceEntry>>, BlobError> {
        let Some(file) = self.file(segment)? else { return Ok(None) };
        let len = usize::try_from(count * BLOCK as u64).map_err(|_| too_large(segment))?;
        let mut bytes = vec![0; len];
        match file.read_at(&mut bytes, first * BLOCK as u64) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|source| failure("read", segment, source))?,
        }
        let mut entries = Vec::with_capacity(len / ENTRY_BYTES);
        for (number, block) in (first..).zip(bytes.chunks_exact_mut(BLOCK)) {
            self.decode(segment, number, block, &mut entries)
                .map_err(|what| BlobError::Damaged { name: file_name(segment), what })?;
        }
        Ok(Some(entries))
    }

    fn file(&self, segment: u64) -> Result<Option<Arc<V::File>>, BlobError> {
        if let Some(file) = self.open.read().get(&segment) {
            return Ok(Some(Arc::clone(file)));
        }
        // Under the lock: a file that is replaced meanwhile is not kept.
        let mut open = self.open.write();
        let file = match self.vfs.open(&file_name(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => Arc::new(other.map_err(|source| failure("open", segment, source))?),
        };
        if open.len() >= OPEN_FILES {
            open.clear();
        }
        open.insert(segment, Arc::clone(&file));
        Ok(Some(file))
    }
}

/// What was found, unless it is damaged: then nothing.
fn intact<T>(found: Result<Option<T>, BlobError>) -> Result<Option<T>, PlaceError> {
    match found {
        Err(BlobError::Damaged { .. }) => Ok(None),
        other => Ok(other?),
    }
}

fn file_name(segment: u64) -> String {
    format!("{DIR}/{segment:016}.places")
}

fn too_large(segment: u64) -> BlobError {
    failure("read", segment, io::ErrorKind::FileTooLarge.into())
}

fn failure(what: &'static str, segment: u64, source: io::Error) -> BlobError {
    let name = file_name(segment);
    if is_full(&source) { BlobError::Full { name } } else { BlobError::Io { what, name, source } }
}
