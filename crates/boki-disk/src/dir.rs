//! The data directory: whose it is, that nobody else has it open, whether it is encrypted, and the caller's blobs in it.

mod in_use;
mod keys;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::blob;
use crate::error::{BlobError, DirError};
use crate::random;
use crate::reach::{self, Reach};
use crate::seal::{DataKeys, Keyring};
use crate::segment;
use crate::vfs::{RealVfs, Vfs};

use keys::{Door, Recorded};

/// The file that says of which format the directory is.
pub const FORMAT: &str = "FORMAT";
/// The format that is written.
pub const KNOWN_FORMAT: &str = "boki-data 2\n";
/// Formats that were written once and are still read.
pub const OLDER_FORMATS: [&str; 1] = ["boki-data 1\n"];
const LOCK: &str = "LOCK";
/// The blob in which the directory says what it knows of itself.
pub const META: &str = "meta";
/// Id of the directory (16 bytes), number of the node (2), term (4).
const META_BYTES: usize = 22;
/// Behind these there is a byte 1 if `seg/reach` must be there; no byte if it need not.
const HAS_REACH: u8 = 1;

/// The number of a node that nobody has given one.
const FIRST_NODE: u16 = 1;

/// What a data directory knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Told apart from all other data directories by this.
    pub id: u128,
    /// Number of the node it belongs to.
    pub node: u16,
    /// How often it has been begun, this time included.
    pub term: u32,
}

/// An open data directory. Nobody else can open it while this is.
#[derive(Debug)]
pub struct DataDir {
    vfs: RealVfs,
    meta: Meta,
    has_reach: bool,
    keyring: Option<Arc<Keyring>>,
    /// What [`DataDir::begin`] is still to write.
    keys: Option<Recorded>,
    is_older: bool,
    /// Holds the lock, which ends with the process at the latest.
    _lock: fs::File,
}

impl DataDir {
    /// Opens a data directory that is not encrypted, or makes it if it is missing or empty. Nothing is changed in one that exists before
    /// [`DataDir::begin`], so that looking at a damaged one leaves it as it is.
    ///
    /// # Errors
    /// [`DirError`].
    pub fn open(path: impl AsRef<Path>) -> Result<DataDir, DirError> {
        DataDir::open_with(path, None, false)
    }

    /// The same with the keys of an encrypted one; a directory that is made is encrypted if there are keys. With `encrypt`, so
    /// is one that has plain files already: they stay as they are, new ones are encrypted.
    ///
    /// # Errors
    /// [`DirError`].
    pub fn open_with(path: impl AsRef<Path>, keys: Option<&DataKeys>, encrypt: bool) -> Result<DataDir, DirError> {
        let path = path.as_ref();
        make_durably(path)?;
        let vfs = RealVfs::new(path)?;
        // Before the lock: a directory of somebody else's is not even given a lock file.
        let found = check_format(&vfs, path)?;
        let is_ours = found != Found::Nothing;
        let lock = lock(path)?;
        let term = |term: u32| {
            // 4 billion starts; then a new term could not be told from an old one.
            let exhausted = || BlobError::Damaged { name: META.to_owned(), what: "its term is the last there can be" };
            term.checked_add(1).ok_or_else(exhausted)
        };
        let blob_error = |source| DirError::Blob { path: path.to_owned(), source };
        let missing = |name| DirError::Missing { path: path.to_owned(), name };
        let mut must_have_reach = false;
        let meta = match read_meta(&vfs).map_err(blob_error)? {
            Some((meta, has_reach)) => {
                // A term is counted when the journal is there.
                if meta.term > 0 && !path.join(segment::DIR).is_dir() {
                    return Err(missing(segment::DIR));
                }
                must_have_reach = has_reach;
                Meta { term: term(meta.term).map_err(blob_error)?, ..meta }
            }
            None if is_ours => return Err(missing(META)),
            None => {
                let id = random::bytes().map(u128::from_le_bytes).map_err(io_error("make an id for", path))?;
                Meta { id, node: FIRST_NODE, term: 1 }
            }
        };
        // The term of the last start that began is in the journal: a term must never be used again.
        let reach = Reach::load(&vfs, meta.id).map_err(blob_error)?;
        if let Some(reached) = reach.map(|reach| reach.term).filter(|reached| *reached >= meta.term) {
            return Err(DirError::OldMeta { path: path.to_owned(), found: meta.term - 1, reached });
        }
        if must_have_reach && reach.is_none() {
            return Err(missing(reach::NAME));
        }
        let door = Door { vfs: &vfs, path, directory: meta.id, is_new: !is_ours };
        let (keyring, mut keys) = door.unlock(keys, encrypt)?;
        if !is_ours {
            if let Some(keys) = keys.take() {
                keys.store(&vfs, meta.id).map_err(blob_error)?;
            }
            write_meta(&vfs, &Meta { term: 0, ..meta }, false).map_err(blob_error)?;
            blob::replace(&vfs, FORMAT, KNOWN_FORMAT.as_bytes()).map_err(io_error("write", &path.join(FORMAT)))?;
        }
        let (has_reach, keyring) = (reach.is_some(), keyring.map(Arc::new));
        Ok(DataDir { vfs, meta, has_reach, keyring, keys, is_older: found == Found::Older, _lock: lock })
    }

    /// Counts up the term, durably: before anything is written in its name.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn begin(&self) -> Result<(), BlobError> {
        if self.is_older {
            let failed = |source| BlobError::Io { what: "write", name: FORMAT.to_owned(), source };
            blob::replace(&self.vfs, FORMAT, KNOWN_FORMAT.as_bytes()).map_err(failed)?;
        }
        if let Some(keys) = &self.keys {
            keys.store(&self.vfs, self.meta.id)?;
        }
        write_meta(&self.vfs, &self.meta, self.has_reach)
    }

    /// Seals what is written into it; `None` if it is not encrypted.
    #[must_use]
    pub fn keyring(&self) -> Option<&Arc<Keyring>> {
        self.keyring.as_ref()
    }

    /// What the directory knows of itself.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The directory's files.
    #[must_use]
    pub fn vfs(&self) -> RealVfs {
        self.vfs.clone()
    }

    /// The blob `name`; `None` if there is none.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn read_blob(&self, name: &str) -> Result<Option<Bytes>, BlobError> {
        match &self.keyring {
            None => blob::read_owned(&self.vfs, name, self.meta.id),
            Some(ring) => blob::read_sealed(&self.vfs, name, self.meta.id, ring),
        }
    }

    /// Replaces the blob `name`, durably.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn write_blob(&self, name: &str, body: &[u8]) -> Result<(), BlobError> {
        match &self.keyring {
            None => blob::write_owned(&self.vfs, name, self.meta.id, body),
            Some(ring) => blob::write_sealed(&self.vfs, name, self.meta.id, ring, body),
        }
    }
}

/// Makes a directory with its parents, so that it is still there after a power cut.
fn make_durably(path: &Path) -> Result<(), DirError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_durably(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("make", path)(error)),
        _ => {}
    }
    let parent = parent.unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(io_error("sync", parent))
}

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing yet.
    Nothing,
    /// A data directory of an older format, all of which this program reads: from now on it is of the current one.
    Older,
    Current,
}

/// Whether it is a data directory already; an error if it is something else.
fn check_format(vfs: &RealVfs, path: &Path) -> Result<Found, DirError> {
    let found = blob::read_file(vfs, FORMAT).map_err(io_error("read", &path.join(FORMAT)))?;
    if let Some(found) = found {
        if found == KNOWN_FORMAT.as_bytes() {
            return Ok(Found::Current);
        }
        if OLDER_FORMATS.iter().any(|older| found == older.as_bytes()) {
            return Ok(Found::Older);
        }
        let found = String::from_utf8_lossy(&found[..found.len().min(64)]).into_owned();
        return Err(DirError::Format { path: path.to_owned(), found, known: KNOWN_FORMAT });
    }
    // Nobody else has both of these.
    if path.join(META).is_file() && path.join(segment::DIR).is_dir() {
        return Err(DirError::Missing { path: path.to_owned(), name: FORMAT });
    }
    for entry in fs::read_dir(path).map_err(io_error("list", path))? {
        let name = entry.map_err(io_error("list", path))?.file_name().to_string_lossy().into_owned();
        // What a first start leaves that did not end, and what file systems and their viewers put there by themselves.
        let is_harmless =
            [LOCK, META, "meta.tmp", keys::FILE, "keys.tmp", "FORMAT.tmp", "lost+found"].contains(&name.as_str());
        if !is_harmless && !name.starts_with('.') {
            return Err(DirError::Foreign { path: path.to_owned(), found: name });
        }
    }
    Ok(Found::Nothing)
}

/// What opens the files of an encrypted directory, without a change to it.
pub(crate) fn look_at_keys<V: Vfs>(
    vfs: &V,
    path: &Path,
    directory: u128,
    keys: Option<&DataKeys>,
) -> Result<Option<Keyring>, DirError> {
    Door { vfs, path, directory, is_new: false }.unlock(keys, false).map(|(ring, _)| ring)
}

pub(crate) fn lock(path: &Path) -> Result<fs::File, DirError> {
    let name = path.join(LOCK);
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&name);
    let file = file.map_err(io_error("open", &name))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(DirError::Locked { path: path.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io_error("lock", &name)(error)),
    }
}

/// What the directory knows of itself, and whether `seg/reach` must be there.
pub(crate) fn read_meta<V: Vfs>(vfs: &V) -> Result<Option<(Meta, bool)>, BlobError> {
    let Some(mut body) = blob::read_blob(vfs, META)? else { return Ok(None) };
    let has_reach = body.get(META_BYTES) == Some(&HAS_REACH);
    if body.len() != META_BYTES + usize::from(has_reach) {
        return Err(BlobError::Damaged { name: META.to_owned(), what: "it has another length than it should" });
    }
    Ok(Some((Meta { id: body.get_u128_le(), node: body.get_u16_le(), term: body.get_u32_le() }, has_reach)))
}

pub(crate) fn write_meta<V: Vfs>(vfs: &V, meta: &Meta, has_reach: bool) -> Result<(), BlobError> {
    let mut body = Vec::with_capacity(META_BYTES + 1);
    body.extend_from_slice(&meta.id.to_le_bytes());
    body.extend_from_slice(&meta.node.to_le_bytes());
    body.extend_from_slice(&meta.term.to_le_bytes());
    if has_reach {
        body.push(HAS_REACH);
    }
    blob::write_blob(vfs, META, &body)
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirError {
    let path: PathBuf = path.to_owned();
    move |source| DirError::Io { what, path, source }
}
