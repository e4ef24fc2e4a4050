//! The operating system's files: buffered writes and `fdatasync` (`docs/disk-io.md` says why).

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Advice, FallocateFlags};

use super::{Vfs, VfsFile};
use crate::error::DirError;

/// A directory of the operating system's.
#[derive(Clone, Debug)]
pub struct RealVfs {
    root: Arc<PathBuf>,
    is_read_only: bool,
}

impl RealVfs {
    /// The directory `root`, which must exist.
    ///
    /// # Errors
    /// [`DirError::Io`] if it cannot be entered.
    pub fn new(root: impl AsRef<Path>) -> Result<RealVfs, DirError> {
        let root = root.as_ref();
        let failed = |source| DirError::Io { what: "open the data directory", path: root.to_owned(), source };
        fs::read_dir(root).map_err(failed)?;
        Ok(RealVfs { root: Arc::new(root.to_owned()), is_read_only: false })
    }

    /// The same, to look at only: files are opened for reading, and whatever would change something fails.
    ///
    /// # Errors
    /// [`DirError::Io`] if it cannot be entered.
    pub fn read_only(root: impl AsRef<Path>) -> Result<RealVfs, DirError> {
        RealVfs::new(root).map(|vfs| RealVfs { is_read_only: true, ..vfs })
    }

    /// An error for what would change something where nothing may be.
    fn check_writable(&self) -> io::Result<()> {
        if self.is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Vfs for RealVfs {
    type File = RealFile;

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.check_writable()?;
        match fs::create_dir(self.path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        self.check_writable()?;
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(name))?;
        Ok(RealFile { file })
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let file = fs::OpenOptions::new().read(true).write(!self.is_read_only).open(self.path(name))?;
        Ok(RealFile { file })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.check_writable()?;
        fs::rename(self.path(from), self.path(to))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.path(dir))?.sync_all()
    }

    fn wall_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// An open file of the operating system's.
#[derive(Debug)]
pub struct RealFile {
    file: fs::File,
}

impl VfsFile for RealFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // A file system without it: zeros take the space.
            Err(rustix::io::Errno::OPNOTSUPP) => crate::segment::zero(self, 0..len),
            other => other.map_err(io::Error::from),
        }
    }

    fn forget_cached(&self) -> io::Result<()> {
        rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed).map_err(io::Error::from)
    }
}
