//! The few things the log asks of a file system, so that tests and the simulator can give it a disk that fails.
//!
//! Names are relative to one root, with `/` between directory and file. Nothing is durable before the call that says so:
//! bytes and length of a file by [`VfsFile::sync_data`], its name by [`Vfs::sync_dir`].

mod real;

use std::fmt;
use std::io;

pub use real::{RealFile, RealVfs};

/// A file system, rooted at one directory.
pub trait Vfs: Clone + fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: VfsFile;

    /// Makes a directory if it is missing.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes an empty file, or empties the one there is, and opens it.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens a file that exists, to read and write.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Renames a file, over another if there is one. At no moment neither is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Names of the files in a directory (`""` is the root), without the directory, in any order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Makes durable which files a directory has.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Wall clock, microseconds since 1970: only ever recorded, never compared.
    fn wall_us(&self) -> u64;
}

/// An open file. Offsets are from its start; threads may use it at once.
pub trait VfsFile: fmt::Debug + Send + Sync + 'static {
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Fills all of `bytes`; an error of kind `UnexpectedEof` if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes durable what was written. After an error nobody knows what of it is.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Makes the file `len` bytes long and takes the space for them now, so that writing them cannot run out of it.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Forgets what memory holds of the file and the disk has too, so that reading shows what is on the disk.
    fn forget_cached(&self) -> io::Result<()>;
}

/// Whether an error says that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
