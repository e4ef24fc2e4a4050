//! A disk in memory that loses, tears and damages what a real one may, by the caller's choice and reproducibly.
//!
//! What is written is seen at once, and durable only after a sync. [`MemDisk::crash`] decides for every sector of 512 bytes
//! written since the last sync, on its own, whether it got through; for every file that changed its length, whether it
//! keeps it; and how many of the changes to directories, in their order, survive. Clones are the same disk. Files opened
//! before a crash are of no use after it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::vfs::{Vfs, VfsFile};

/// What a disk writes as a whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A disk in memory.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_changes: Vec<Change>,
    /// Counts crashes: files opened before the last are dead.
    crashes: u64,
    wall_us: u64,
    capacity_bytes: Option<u64>,
    faults: Faults,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable_len: usize,
    /// What the disk still has of the sectors written since the last sync.
    unsynced: BTreeMap<usize, [u8; SECTOR_BYTES]>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct Faults {
    operations_until_cut: Option<u64>,
    is_off: bool,
    writes_until_failure: Option<u64>,
    syncs_until_failure: Option<u64>,
    sync_lies: bool,
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes.
    pub writes: u64,
    /// Bytes of them.
    pub written_bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
}

impl MemDisk {
    /// An empty disk without bounds.
    #[must_use]
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// From now on, files together take at most `bytes`; `None` takes the bound away.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.lock().capacity_bytes = bytes;
    }

    /// Bytes that files take now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disk.lock().used_bytes()
    }

    /// After `operations` more changes (writes, syncs, changes to directories) the power is off: the one after them has begun
    /// and fails, and everything fails until [`MemDisk::crash`].
    pub fn cut_power_after(&self, operations: u64) {
        self.disk.lock().faults.operations_until_cut = Some(operations);
    }

    /// The write after `writes` more fails, halfway through.
    pub fn fail_write_after(&self, writes: u64) {
        self.disk.lock().faults.writes_until_failure = Some(writes);
    }

    /// The sync of a file after `syncs` more fails.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.disk.lock().faults.syncs_until_failure = Some(syncs);
    }

    /// Whether syncs of files do nothing and say that all is well. For checking that checkers notice.
    pub fn set_sync_lies(&self, sync_lies: bool) {
        self.disk.lock().faults.sync_lies = sync_lies;
    }

    /// Flips a bit of a file, on the disk. Whether there was such a byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let mut disk = self.disk.lock();
        let Some(inode) = disk.names.get(name).copied() else { return false };
        let bytes = disk.inodes.get_mut(&inode).map(|inode| &mut inode.bytes);
        let byte = bytes.and_then(|bytes| bytes.get_mut(usize::try_from(offset).ok()?));
        byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }

    /// A file's bytes as a reader would see them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.inodes.get(disk.names.get(name)?).map(|inode| inode.bytes.clone())
    }

    /// Names of all files, with their directories.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk.lock().names.keys().cloned().collect()
    }

    /// Sets the wall clock.
    pub fn set_wall_us(&self, wall_us: u64) {
        self.disk.lock().wall_us = wall_us;
    }

    /// How often what was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.disk.lock().counts
    }

    /// A disk that holds the same, and goes its own way from here.
    #[must_use]
    pub fn fork(&self) -> MemDisk {
        let disk = self.disk.lock();
        let inodes = disk.inodes.iter().map(|(number, inode)| {
            let Inode { bytes, durable_len, unsynced } = inode;
            (*number, Inode { bytes: bytes.clone(), durable_len: *durable_len, unsynced: unsynced.clone() })
        });
        let fork = Disk {
            inodes: inodes.collect(),
            next_inode: disk.next_inode,
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            unsynced_changes: disk.unsynced_changes.clone(),
            crashes: disk.crashes,
            wall_us: disk.wall_us,
            capacity_bytes: disk.capacity_bytes,
            faults: Faults::default(),
            counts: disk.counts,
        };
        MemDisk { disk: Arc::new(Mutex::new(fork)) }
    }

    /// The power is gone and comes back. `choose(n)` returns a number below `n`: for two ways, 0 means that what was not
    /// synced is lost. Ends the faults that were asked for, but for the lies.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        let mut guard = self.disk.lock();
        let disk = &mut *guard;
        disk.crashes += 1;
        disk.faults = Faults { sync_lies: disk.faults.sync_lies, ..Faults::default() };

        let changes = std::mem::take(&mut disk.unsynced_changes);
        if !changes.is_empty() {
            let kept = choose(changes.len() as u64 + 1);
            for change in changes.into_iter().take(usize::try_from(kept).unwrap_or(usize::MAX)) {
                change.apply(&mut disk.durable_names);
            }
        }
        disk.names = disk.durable_names.clone();
        let named: Vec<u64> = disk.names.values().copied().collect();
        disk.inodes.retain(|number, _| named.contains(number));

        for inode in disk.inodes.values_mut() {
            for (sector, durable) in std::mem::take(&mut inode.unsynced) {
                if choose(2) == 0 {
                    let at = sector * SECTOR_BYTES;
                    let end = inode.bytes.len().min(at + SECTOR_BYTES);
                    if let Some(bytes) = inode.bytes.get_mut(at..end) {
                        bytes.copy_from_slice(&durable[..bytes.len()]);
                    }
                }
            }
            if inode.bytes.len() != inode.durable_len && choose(2) == 0 {
                inode.bytes.resize(inode.durable_len, 0);
            }
            inode.durable_len = inode.bytes.len();
        }
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Link(name, inode) => drop(names.insert(name, inode)),
            Change::Unlink(name) => drop(names.remove(&name)),
            Change::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
        }
    }

    fn is_in(&self, dir: &str) -> bool {
        match self {
            Change::Link(name, _) | Change::Unlink(name) | Change::Rename(_, name) => dir_of(name) == dir,
        }
    }
}

fn dir_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// What to do of an operation that changes something.
enum Verdict {
    Do,
    /// It has begun when the power goes.
    Begin,
}

impl Disk {
    fn used_bytes(&self) -> u64 {
        let named = self.names.values().filter_map(|number| self.inodes.get(number));
        named.map(|inode| inode.bytes.len() as u64).sum()
    }

    fn is_on(&self) -> io::Result<()> {
        if self.faults.is_off { Err(no_power()) } else { Ok(()) }
    }

    /// Counts a change.
    fn change(&mut self) -> io::Result<Verdict> {
        self.is_on()?;
        if is_due(&mut self.faults.operations_until_cut) {
            self.faults.is_off = true;
            return Ok(Verdict::Begin);
        }
        Ok(Verdict::Do)
    }

    fn change_names(&mut self, change: Change) -> io::Result<()> {
        let verdict = self.change()?;
        self.unsynced_changes.push(change.clone());
        change.apply(&mut self.names);
        verdict.end()
    }

    /// Grows a file with zeros.
    fn grow(&mut self, inode: u64, len: usize) -> io::Result<()> {
        let used = self.used_bytes();
        let capacity = self.capacity_bytes;
        let Some(inode) = self.inodes.get_mut(&inode) else { return Err(io::ErrorKind::NotFound.into()) };
        let more = len.saturating_sub(inode.bytes.len());
        if more > 0 {
            if capacity.is_some_and(|capacity| used + more as u64 > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.bytes.resize(len, 0);
        }
        Ok(())
    }
}

impl Verdict {
    fn end(self) -> io::Result<()> {
        match self {
            Verdict::Do => Ok(()),
            Verdict::Begin => Err(no_power()),
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

/// Counts down to a failure; whether it is due.
fn is_due(until: &mut Option<u64>) -> bool {
    match until {
        None => false,
        Some(0) => {
            *until = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

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
    fn alive<'a>(&self, disk: &'a mut Disk) -> io::Result<&'a mut Disk> {
        if disk.crashes == self.crashes { Ok(disk) } else { Err(io::Error::other("opened before a crash")) }
    }

    fn write_sectors(&self, disk: &mut Disk, bytes: &[u8], at: usize) -> io::Result<()> {
        disk.grow(self.inode, at + bytes.len())?;
        let Some(inode) = disk.inodes.get_mut(&self.inode) else { return Err(io::ErrorKind::NotFound.into()) };
        let (first, last) = (at / SECTOR_BYTES, (at + bytes.len()).div_ceil(SECTOR_BYTES));
        for sector in first..last {
            inode.unsynced.entry(sector).or_insert_with(|| {
                let mut durable = [0; SECTOR_BYTES];
                let start = sector * SECTOR_BYTES;
                let end = inode.bytes.len().min(start + SECTOR_BYTES);
                durable[..end - start].copy_from_slice(&inode.bytes[start..end]);
                durable
            });
        }
        inode.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl VfsFile for MemFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut guard = self.disk.lock();
        let disk = self.alive(&mut guard)?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let verdict = disk.change()?;
        disk.counts.writes += 1;
        disk.counts.written_bytes += bytes.len() as u64;
        if is_due(&mut disk.faults.writes_until_failure) {
            self.write_sectors(disk, &bytes[..bytes.len() / 2], at)?;
            return Err(io::Error::other("a write failed, as was asked for"));
        }
        self.write_sectors(disk, bytes, at)?;
        verdict.end()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut guard = self.disk.lock();
        let disk = self.alive(&mut guard)?;
        disk.is_on()?;
        let inode = disk.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = at.checked_add(bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(inode.bytes.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut guard = self.disk.lock();
        let disk = self.alive(&mut guard)?;
        disk.change()?.end()?;
        disk.counts.syncs += 1;
        if is_due(&mut disk.faults.syncs_until_failure) {
            return Err(io::Error::other("a sync failed, as was asked for"));
        }
        if disk.faults.sync_lies {
            return Ok(());
        }
        let Some(inode) = disk.inodes.get_mut(&self.inode) else { return Err(io::ErrorKind::NotFound.into()) };
        inode.durable_len = inode.bytes.len();
        inode.unsynced.clear();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut guard = self.disk.lock();
        let disk = self.alive(&mut guard)?;
        disk.inodes.get(&self.inode).map(|inode| inode.bytes.len() as u64).ok_or(io::ErrorKind::NotFound.into())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut guard = self.disk.lock();
        let disk = self.alive(&mut guard)?;
        let verdict = disk.change()?;
        disk.grow(self.inode, usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
        verdict.end()
    }

    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
}
