//! What goes wrong on a disk in memory, and when.

use std::io;
use std::ops::Range;

use super::MemDisk;
use super::content::Fate;

/// What the disk says is done and does not do, for ever. For checking that checkers notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncs of files whose name begins like this do nothing.
    Syncs(String),
    /// Syncs of directories do nothing.
    DirectorySyncs,
    /// A sync that failed is tried again, and what that says is believed.
    SyncsAgain,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    operations_until_cut: Option<u64>,
    is_off: bool,
    writes_until_failure: Option<u64>,
    writes_until_loss: Option<(u64, Loss)>,
    syncs_until_failure: Option<u64>,
    reads_until_failure: Option<u64>,
    /// Nothing can be written any more.
    is_worn_out: bool,
    lie: Option<Lie>,
}

#[derive(Clone, Debug)]
pub(super) enum Loss {
    /// It is not there at once, or once the power was gone.
    Nowhere { at_once: bool },
    /// It is elsewhere.
    Elsewhere { name: String, offset: u64 },
}

impl Faults {
    /// Without what was asked for and has not come.
    pub(super) fn lasting(&self) -> Faults {
        Faults { lie: self.lie.clone(), is_worn_out: self.is_worn_out, ..Faults::default() }
    }

    pub(super) fn is_off(&self) -> bool {
        self.is_off
    }

    /// Counts a change; whether the power goes in the midst of it.
    pub(super) fn is_power_cut(&mut self) -> bool {
        self.is_off = is_due(&mut self.operations_until_cut);
        self.is_off
    }

    pub(super) fn is_write_to_fail(&mut self) -> bool {
        is_due(&mut self.writes_until_failure) || self.is_worn_out
    }

    pub(super) fn is_sync_to_fail(&mut self) -> bool {
        is_due(&mut self.syncs_until_failure) || self.is_worn_out
    }

    pub(super) fn is_read_to_fail(&mut self) -> bool {
        is_due(&mut self.reads_until_failure)
    }

    /// What becomes of a write instead of what it should, if anything.
    pub(super) fn loss(&mut self) -> Option<Loss> {
        let mut until = self.writes_until_loss.as_ref().map(|(until, _)| *until);
        if is_due(&mut until) {
            return self.writes_until_loss.take().map(|(_, loss)| loss);
        }
        if let (Some((left, _)), Some(until)) = (&mut self.writes_until_loss, until) {
            *left = until;
        }
        None
    }

    pub(super) fn lies_of_sync(&self, name: &str) -> bool {
        matches!(&self.lie, Some(Lie::Syncs(prefix)) if name.starts_with(prefix))
    }

    pub(super) fn lies_of_directories(&self) -> bool {
        self.lie == Some(Lie::DirectorySyncs)
    }

    pub(super) fn tries_syncs_again(&self) -> bool {
        self.lie == Some(Lie::SyncsAgain)
    }
}

impl Loss {
    /// What is left of the write where it should be.
    pub(super) fn fate(&self) -> Fate {
        match self {
            Loss::Nowhere { at_once: false } => Fate::Forgotten,
            Loss::Nowhere { at_once: true } | Loss::Elsewhere { .. } => Fate::Lost,
        }
    }
}

/// Failures that are asked for, and damage.
impl MemDisk {
    /// After `operations` more changes (writes, syncs, changes to directories) the power is off: the one after them has begun
    /// and fails, and everything fails until [`MemDisk::crash`].
    pub fn cut_power_after(&self, operations: u64) {
        self.disk.lock().faults.operations_until_cut = Some(operations);
    }

    /// The power was not gone: only the process was stopped where it would have been.
    pub fn keep_power(&self) {
        let mut disk = self.disk.lock();
        (disk.faults.is_off, disk.faults.operations_until_cut) = (false, None);
    }

    /// The write after `writes` more fails, halfway through.
    pub fn fail_write_after(&self, writes: u64) {
        self.disk.lock().faults.writes_until_failure = Some(writes);
    }

    /// The sync of a file after `syncs` more fails. As with a real system, what was to be synced counts as written then, and
    /// a later sync says that all is well.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.disk.lock().faults.syncs_until_failure = Some(syncs);
    }

    /// The read after `reads` more fails.
    pub fn fail_read_after(&self, reads: u64) {
        self.disk.lock().faults.reads_until_failure = Some(reads);
    }

    /// From now on every write and sync fails, or no more.
    pub fn set_worn_out(&self, is_worn_out: bool) {
        self.disk.lock().faults.is_worn_out = is_worn_out;
    }

    /// Whether every write and sync fails.
    #[must_use]
    pub fn is_worn_out(&self) -> bool {
        self.disk.lock().faults.is_worn_out
    }

    /// The write after `writes` more is reported as done, and is not there: `at_once`, or it is seen until the power goes.
    pub fn lose_write_after(&self, writes: u64, at_once: bool) {
        self.disk.lock().faults.writes_until_loss = Some((writes, Loss::Nowhere { at_once }));
    }

    /// The write after `writes` more is reported as done, and is at `offset` of the file `name`, or of its own if there is no
    /// such file.
    pub fn misdirect_write_after(&self, writes: u64, name: &str, offset: u64) {
        let loss = Loss::Elsewhere { name: name.to_owned(), offset };
        self.disk.lock().faults.writes_until_loss = Some((writes, loss));
    }

    /// What the disk lies about from now on.
    pub fn set_lie(&self, lie: Option<Lie>) {
        self.disk.lock().faults.lie = lie;
    }

    /// Flips a bit of a file, on the disk. Whether there was such a byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        self.disk.lock().named(name).is_some_and(|inode| inode.flip_bit(offset, bit))
    }

    /// Loses the end of a file, from `len` bytes on.
    pub fn truncate(&self, name: &str, len: u64) {
        if let (Some(inode), Ok(len)) = (self.disk.lock().named(name), usize::try_from(len)) {
            inode.truncate(len);
        }
    }

    /// The sector at `offset` of a file cannot be read any more, until it is written as a whole or in part.
    pub fn spoil_sector(&self, name: &str, offset: u64) {
        if let (Some(inode), Ok(offset)) = (self.disk.lock().named(name), usize::try_from(offset)) {
            inode.spoil_sector(offset);
        }
    }

    /// Whether the bytes of `range` in a file are not what a sound disk would have by now, or cannot be read.
    #[must_use]
    pub fn is_damaged(&self, name: &str, range: Range<u64>) -> bool {
        let edge = |edge| usize::try_from(edge).unwrap_or(usize::MAX);
        self.disk.lock().named(name).is_some_and(|inode| inode.is_damaged(edge(range.start)..edge(range.end)))
    }

    /// The names of all files that are damaged.
    #[must_use]
    pub fn damaged(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| self.is_damaged(name, 0..u64::MAX)).collect()
    }

    /// The disk is as if it had never been damaged, and writes again if it was worn out.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        disk.faults.is_worn_out = false;
        disk.inodes.values_mut().for_each(super::content::Inode::heal);
    }
}

pub(super) fn no_power() -> io::Error {
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
