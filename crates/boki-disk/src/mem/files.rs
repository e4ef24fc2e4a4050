//! The disk in memory as the log sees it.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::content::{Fate, Inode};
use super::faults::Loss;
use super::{Change, Disk, MemDisk, dir_of};
use crate::vfs::{Vfs, VfsFile};

impl Vfs for MemDisk {
    type File = MemFile;

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, name: &str) -> io::Result<MemFile> {
        let mut disk = self.disk.lock();
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(inode, Inode::default());
        disk.change_names(Change::Link(name.to_owned(), inode))?;
        Ok(MemFile { disk: Arc::clone(&self.disk), inode, crashes: disk.crashes })
    }

    fn open(&self, name: &str) -> io::Result<MemFile> {
        let disk = self.disk.lock();
        disk.is_on()?;
        let inode = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemFile { disk: Arc::clone(&self.disk), inode, crashes: disk.crashes })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_names(Change::Unlink(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if !disk.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change_names(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        disk.is_on()?;
        let of_dir = disk.names.keys().filter(|name| dir_of(name) == dir);
        Ok(of_dir.map(|name| name.rsplit_once('/').map_or(name.as_str(), |(_, file)| file).to_owned()).collect())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut guard = self.disk.lock();
        let disk = &mut *guard;
        disk.change()?.end()?;
        if disk.faults.lies_of_directories() {
            return Ok(());
        }
        let (synced, left) = std::mem::take(&mut disk.unsynced_changes).into_iter().partition(|c| c.is_in(dir));
        disk.unsynced_changes = left;
        let synced: Vec<Change> = synced;
        for change in synced {
            change.apply(&mut disk.durable_names);
        }
        let named: Vec<u64> = disk.names.values().chain(disk.durable_names.values()).copied().collect();
        disk.inodes.retain(|number, _| named.contains(number));
        Ok(())
    }

    fn wall_us(&self) -> u64 {
        self.disk.lock().wall_us
    }
}

/// An open file of a [`MemDisk`].
#[derive(Debug)]
pub struct MemFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    crashes: u64,
}

impl MemFile {
    /// The disk, unless it has crashed since the file was opened.
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.crashes == self.crashes { Ok(disk) } else { Err(io::Error::other("opened before a crash")) }
    }
}

impl VfsFile for MemFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        let at = to_usize(offset)?;
        let verdict = disk.change()?;
        disk.counts.writes += 1;
        disk.counts.written_bytes += bytes.len() as u64;
        if disk.faults.is_write_to_fail() {
            let half = &bytes[..bytes.len() / 2];
            disk.grow(self.inode, at + half.len())?;
            disk.inode(self.inode)?.write(half, at, &Fate::Done);
            return Err(io::Error::other("a write failed, as was asked for"));
        }
        disk.grow(self.inode, at + bytes.len())?;
        let loss = disk.faults.loss();
        let fate = loss.as_ref().map_or(Fate::Done, Loss::fate);
        disk.inode(self.inode)?.write(bytes, at, &fate);
        if let Some(Loss::Elsewhere { name, offset }) = loss {
            let inode = disk.names.get(&name).copied().unwrap_or(self.inode);
            disk.inode(inode)?.hit(bytes, to_usize(offset)?);
        }
        verdict.end()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.is_on()?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = at.checked_add(bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        if disk.faults.is_read_to_fail() || disk.inode(self.inode)?.is_bad(at..end) {
            disk.counts.failed_reads += 1;
            return Err(io::Error::other("a read failed, as was asked for"));
        }
        bytes.copy_from_slice(disk.inode(self.inode)?.bytes().get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.change()?.end()?;
        disk.counts.syncs += 1;
        if disk.faults.is_sync_to_fail() {
            disk.inode(self.inode)?.fail_sync();
            if disk.faults.tries_syncs_again() {
                return Ok(());
            }
            return Err(io::Error::other("a sync failed, as was asked for"));
        }
        let name = disk.names.iter().find(|(_, inode)| **inode == self.inode).map_or("", |(name, _)| name);
        if disk.faults.lies_of_sync(name) {
            return Ok(());
        }
        disk.inode(self.inode)?.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk()?.inode(self.inode)?.bytes().len() as u64)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        let verdict = disk.change()?;
        disk.grow(self.inode, to_usize(len)?)?;
        verdict.end()
    }

    fn forget_cached(&self) -> io::Result<()> {
        self.disk()?.inode(self.inode)?.forget_cached();
        Ok(())
    }
}

fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
