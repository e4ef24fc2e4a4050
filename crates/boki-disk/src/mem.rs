//! A disk in memory that loses, tears and damages what a real one may, by the caller's choice and reproducibly.
//!
//! What is written is seen at once, and durable only after a sync. [`MemDisk::crash`] decides for every sector of 512 bytes
//! written since the last sync, on its own, whether it got through; for every file that changed its length, whether it
//! keeps it; and how many of the changes to directories, in their order, survive. Clones are the same disk. Files opened
//! before a crash are of no use after it.
//!
//! It can also do what a disk must not: turn bits, lose writes that it reported, put them elsewhere, fail to read. It knows
//! by itself what it has damaged ([`MemDisk::is_damaged`]) and can undo all of it ([`MemDisk::heal`]): what a sound disk
//! would have by now is kept beside what this one has.

mod content;
mod faults;
mod files;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use content::Inode;
pub use faults::Lie;
use faults::{Faults, no_power};
pub use files::MemFile;

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

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
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
    /// Reads that failed because they were to.
    pub failed_reads: u64,
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

    /// A file's bytes as a reader would see them.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        disk.inodes.get(disk.names.get(name)?).map(|inode| inode.bytes().to_vec())
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
        let fork = Disk {
            inodes: disk.inodes.clone(),
            next_inode: disk.next_inode,
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            unsynced_changes: disk.unsynced_changes.clone(),
            crashes: disk.crashes,
            wall_us: disk.wall_us,
            capacity_bytes: disk.capacity_bytes,
            faults: disk.faults.lasting(),
            counts: disk.counts,
        };
        MemDisk { disk: Arc::new(Mutex::new(fork)) }
    }

    /// The power is gone and comes back. `choose(n)` returns a number below `n`: for two ways, 0 means that what was not
    /// synced is lost. Ends the failures that were asked for and have not come.
    pub fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        let mut guard = self.disk.lock();
        let disk = &mut *guard;
        disk.crashes += 1;
        disk.faults = disk.faults.lasting();

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
            inode.crash(choose);
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
        named.map(|inode| inode.bytes().len() as u64).sum()
    }

    fn is_on(&self) -> io::Result<()> {
        if self.faults.is_off() { Err(no_power()) } else { Ok(()) }
    }

    /// Counts a change.
    fn change(&mut self) -> io::Result<Verdict> {
        self.is_on()?;
        Ok(if self.faults.is_power_cut() { Verdict::Begin } else { Verdict::Do })
    }

    fn change_names(&mut self, change: Change) -> io::Result<()> {
        let verdict = self.change()?;
        self.unsynced_changes.push(change.clone());
        change.apply(&mut self.names);
        verdict.end()
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or(io::ErrorKind::NotFound.into())
    }

    fn named(&mut self, name: &str) -> Option<&mut Inode> {
        self.inodes.get_mut(self.names.get(name)?)
    }

    /// Grows a file with zeros.
    fn grow(&mut self, inode: u64, len: usize) -> io::Result<()> {
        let used = self.used_bytes();
        let capacity = self.capacity_bytes;
        let Some(inode) = self.inodes.get_mut(&inode) else { return Err(io::ErrorKind::NotFound.into()) };
        let more = len.saturating_sub(inode.bytes().len());
        if more > 0 {
            if capacity.is_some_and(|capacity| used + more as u64 > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inode.grow(len);
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
