//! Blobs that are too large for memory: each is written once, piece by piece, read the same way, and never changed.
//!
//! Whoever wrote one may refer to it from elsewhere once [`BlobWriter::finish`] has returned: it is durable then. A blob is
//! there whole or not at all; one that is being written lies under another name, and what is left of those is removed when
//! the store is opened. Every piece has a checksum, which is checked whenever it is read: what is handed out is what was
//! written. Which blobs are still needed is the caller's to know.
//!
//! ```text
//! <data>/blob/<owner>-<item>-<part>-<version>        hexadecimal, of fixed width
//! <data>/blob/<owner>-<item>-<part>-<version>.tmp    being written
//! ```

mod name;
mod pieces;

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use name::{BlobName, InvalidBlobName};
pub use pieces::PIECE_BYTES;
use pieces::{Codec, HEADER_BYTES};

use crate::error::BlobError;
use crate::seal::Keyring;
use crate::vfs::{Vfs, VfsFile, is_full};

pub(crate) const DIR: &str = "blob";
const FRESH: &str = ".tmp";

/// After so many bytes of a blob a sync: at the end there would be so much to sync at once that the log's own, small syncs
/// would wait for it.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

/// The blobs of a data directory.
#[derive(Clone, Debug)]
pub struct BlobStore<V> {
    vfs: V,
    directory: u128,
    sync: bool,
    ring: Option<Arc<Keyring>>,
}

impl<V: Vfs> BlobStore<V> {
    /// Opens the store of the data directory with that id, and removes what is left of blobs that were being written.
    /// Without `sync`, a blob survives the end of the process, but not a power cut.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(vfs: V, directory: u128, sync: bool) -> Result<BlobStore<V>, BlobError> {
        let failed = |what| move |source| BlobError::Io { what, name: DIR.to_owned(), source };
        vfs.create_dir(DIR).map_err(failed("make"))?;
        vfs.sync_dir("").map_err(failed("make"))?;
        for file in vfs.list(DIR).map_err(failed("list"))? {
            if file.ends_with(FRESH) {
                vfs.remove(&format!("{DIR}/{file}")).map_err(failed("clean up"))?;
            }
        }
        Ok(BlobStore { vfs, directory, sync, ring: None })
    }

    /// The store of an encrypted directory: what is written is sealed.
    #[must_use]
    pub fn sealed(self, ring: Option<Arc<Keyring>>) -> BlobStore<V> {
        BlobStore { ring, ..self }
    }

    /// The store as it is, to look at only: nothing is cleaned up.
    pub fn look(vfs: V, directory: u128) -> BlobStore<V> {
        BlobStore { vfs, directory, sync: false, ring: None }
    }

    /// Begins a blob. No other may have had that name.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`].
    pub fn write(&self, name: BlobName) -> Result<BlobWriter<V>, BlobError> {
        let path = path(name);
        let fresh = format!("{path}{FRESH}");
        let failed = |source| failure("write", &path, source);
        let file = self.vfs.create(&fresh).map_err(failed)?;
        let codec = Codec::new(self.directory, name, self.ring.clone());
        let header = codec.header();
        let mut writer = BlobWriter {
            vfs: self.vfs.clone(),
            sync: self.sync,
            file,
            fresh: Some(fresh),
            path,
            piece: empty_piece(&codec),
            codec,
            pieces: 0,
            len: 0,
            end: 0,
            synced: 0,
            has_failed: false,
        };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Opens a blob; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], [`BlobError::Io`].
    pub fn read(&self, name: BlobName) -> Result<Option<BlobReader<V::File>>, BlobError> {
        let path = path(name);
        let failed = |source| failure("read", &path, source);
        let damaged = |what| BlobError::Damaged { name: path.clone(), what };
        let file = match self.vfs.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut codec = Codec::new(self.directory, name, self.ring.clone());
        let mut header = [0; HEADER_BYTES];
        file.read_at(&mut header, 0).map_err(failed)?;
        codec.check_header(&header).map_err(damaged)?;
        let (pieces, len) = codec.layout(file.len().map_err(failed)?).ok_or_else(|| damaged("it is too short"))?;
        Ok(Some(BlobReader { file, codec, path, pieces, len, next: 0 }))
    }

    /// Removes a blob, if there is one of that name. Whoever has it open can still read it.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove(&self, name: BlobName) -> Result<(), BlobError> {
        let path = path(name);
        match self.vfs.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failure("remove", &path, error)),
            // Not synced: a blob that comes back after a power cut is one that nobody refers to, as any other.
            _ => Ok(()),
        }
    }

    /// The names of all blobs, in order.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn names(&self) -> Result<Vec<BlobName>, BlobError> {
        let files = self.vfs.list(DIR).map_err(|source| failure("list", DIR, source))?;
        let mut names: Vec<BlobName> = files.iter().filter_map(|file| file.parse().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }
}

/// The beginning of the first piece's unit, if the file with that beginning has sealed pieces.
pub(crate) fn sealed_unit(head: &[u8]) -> Option<&[u8]> {
    pieces::first_unit(head)
}

fn path(name: BlobName) -> String {
    format!("{DIR}/{name}")
}

fn failure(what: &'static str, name: &str, source: io::Error) -> BlobError {
    match source.kind() {
        _ if is_full(&source) => BlobError::Full { name: name.to_owned() },
        io::ErrorKind::UnexpectedEof => BlobError::Damaged { name: name.to_owned(), what: "it is too short" },
        _ => BlobError::Io { what, name: name.to_owned(), source },
    }
}

fn empty_piece(codec: &Codec) -> BytesMut {
    let mut piece = BytesMut::with_capacity(codec.extra_bytes() + PIECE_BYTES);
    piece.resize(codec.front_bytes(), 0);
    piece
}

/// A blob that is being written. Dropped before it is finished, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter<V: Vfs> {
    vfs: V,
    sync: bool,
    file: V::File,
    codec: Codec,
    /// The name that the file has; `None` once it has its own.
    fresh: Option<String>,
    path: String,
    /// A header and what is there of the piece.
    piece: BytesMut,
    pieces: u64,
    len: u64,
    /// Bytes of the file.
    end: u64,
    synced: u64,
    has_failed: bool,
}

impl<V: Vfs> BlobWriter<V> {
    /// Adds bytes at the end.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`]: the blob cannot be finished any more.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            // A whole piece is only written when there is more: the last one is marked.
            let whole = self.codec.front_bytes() + PIECE_BYTES;
            if self.piece.len() == whole {
                self.end_piece(false)?;
            }
            let room = whole - self.piece.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            self.len += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives the blob its name. It is durable when this returns.
    ///
    /// # Errors
    /// [`BlobError::Full`], [`BlobError::Io`]: there is no such blob.
    pub fn finish(mut self) -> Result<(), BlobError> {
        self.end_piece(true)?;
        let failed = |source| failure("write", &self.path, source);
        if self.sync {
            self.file.sync_data().map_err(failed)?;
        }
        if let Some(fresh) = &self.fresh {
            self.vfs.rename(fresh, &self.path).map_err(failed)?;
        }
        self.fresh = None;
        if self.sync
            && let Err(error) = self.vfs.sync_dir(DIR)
        {
            // Nobody will refer to it: what is left takes room, and goes when the caller looks for such.
            let _ = self.vfs.remove(&self.path);
            return Err(failure("write", &self.path, error));
        }
        Ok(())
    }

    fn end_piece(&mut self, is_last: bool) -> Result<(), BlobError> {
        let front = self.codec.front_bytes();
        self.piece.resize(self.piece.len() + self.codec.extra_bytes() - front, 0);
        self.codec.finish_piece(self.pieces, is_last, &mut self.piece);
        let piece = std::mem::take(&mut self.piece);
        let put = self.put(&piece);
        self.piece = piece;
        put?;
        self.piece.truncate(front);
        self.pieces += 1;
        if self.sync && self.end - self.synced >= SYNC_EVERY_BYTES {
            self.attempt(|file| file.sync_data())?;
            self.synced = self.end;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let at = self.end;
        self.attempt(|file| file.write_at(bytes, at))?;
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// After a failure nobody knows what the disk has: nothing is done any more.
    fn attempt(&mut self, work: impl FnOnce(&V::File) -> io::Result<()>) -> Result<(), BlobError> {
        let result = if self.has_failed { Err(io::Error::other("it failed before")) } else { work(&self.file) };
        self.has_failed = result.is_err();
        result.map_err(|source| failure("write", &self.path, source))
    }
}

impl<V: Vfs> Drop for BlobWriter<V> {
    fn drop(&mut self) {
        if let Some(fresh) = &self.fresh {
            // What is left is removed when the store is opened.
            let _ = self.vfs.remove(fresh);
        }
    }
}

/// A blob that is being read.
#[derive(Debug)]
pub struct BlobReader<F> {
    file: F,
    codec: Codec,
    path: String,
    pieces: u64,
    len: u64,
    next: u64,
}

impl<F: VfsFile> BlobReader<F> {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next piece, of [`PIECE_BYTES`] unless it is the last; `None` at the end.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], [`BlobError::Io`].
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, BlobError> {
        if self.next == self.pieces {
            return Ok(None);
        }
        let is_last = self.next + 1 == self.pieces;
        let before = self.next * PIECE_BYTES as u64;
        let body = if is_last { (self.len - before) as usize } else { PIECE_BYTES };
        let extra = self.codec.extra_bytes();
        let at = HEADER_BYTES as u64 + self.next * (extra + PIECE_BYTES) as u64;
        let mut piece = vec![0; extra + body];
        self.file.read_at(&mut piece, at).map_err(|source| failure("read", &self.path, source))?;
        let opened = self.codec.open_piece(self.next, is_last, &mut piece);
        let payload = opened.map_err(|what| BlobError::Damaged { name: self.path.clone(), what })?;
        self.next += 1;
        Ok(Some(Bytes::from(piece).slice(payload)))
    }
}
