//! Fills the next segment's file with zeros, a piece at a time, while the current one is being written.
//!
//! A sync costs half as much again where the file system must write down that a block has data now, so small groups gain from
//! zeros; but the zeros have to be written too, and a disk that is busy with large groups gains nothing from writing
//! everything twice. So the filling keeps step with the groups, not with the bytes: by the time that small groups have filled a
//! segment, the next is all zeros; if large groups fill it, most of the next is only allocated. Nothing else depends on it.

use std::io;

use crate::segment;
use crate::vfs::{Vfs, VfsFile};

/// After how many groups a piece is filled.
const GROUPS_PER_PIECE: u32 = 16;
/// Length of a piece. A group of one small record takes a block of 4 KiB, so 16 of them take as much as one piece.
static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// The file of the segment that comes next.
#[derive(Debug)]
pub(crate) struct Preparation<F> {
    file: F,
    bytes: u64,
    /// How far it is filled.
    zeroed: u64,
    /// Groups written since the last piece.
    groups: u32,
}

impl<F: VfsFile> Preparation<F> {
    /// Makes a file of `bytes` for segment `number`, without filling it yet.
    pub(crate) fn begin<V: Vfs<File = F>>(vfs: &V, number: u64, bytes: u64) -> io::Result<Preparation<F>> {
        Ok(Preparation { file: segment::make(vfs, number, bytes)?, bytes, zeroed: 0, groups: 0 })
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A group has been written to the current segment.
    pub(crate) fn group_written(&mut self) -> io::Result<()> {
        self.groups += 1;
        if self.groups < GROUPS_PER_PIECE || self.zeroed == self.bytes {
            return Ok(());
        }
        self.groups = 0;
        let len = usize::try_from(self.bytes - self.zeroed).unwrap_or(PIECE.len()).min(PIECE.len());
        self.file.write_at(&PIECE[..len], self.zeroed)?;
        self.zeroed += len as u64;
        // At once: when the segment is begun, nobody shall wait for all of them.
        self.file.sync_data()
    }

    /// The file, filled as far as it has got.
    pub(crate) fn into_file(self) -> F {
        self.file
    }
}
