//! Fills the segment being written with zeros, a piece at a time, just ahead of the groups.
//!
//! A sync costs half as much again where the file system must write down that a block has data now, so small groups gain from
//! zeros; but the zeros have to be written too, and a disk that is busy with large groups gains nothing from writing
//! everything twice. So the filling keeps step with the groups, not with the bytes: small groups find zeros, large ones find
//! most of the segment only allocated. Nothing else depends on it.

use std::io;

use crate::vfs::VfsFile;

/// After how many groups a piece is filled.
const GROUPS_PER_PIECE: u32 = 16;
/// A piece. A group of one small record takes a block of 4 KiB, so 16 of them take as much as one piece.
static PIECE: [u8; 64 << 10] = [0; 64 << 10];

/// How far a segment is filled.
#[derive(Debug)]
pub(crate) struct Zeros {
    /// Everything below has been written, be it groups or zeros.
    to: u64,
    /// Groups written since the last piece.
    groups: u32,
}

impl Zeros {
    /// A segment that is filled up to `to`.
    pub(crate) fn up_to(to: u64) -> Zeros {
        Zeros { to, groups: 0 }
    }

    /// A group has been written to `file`, which has groups up to `used_bytes` and is `bytes` long. Now and then writes a piece
    /// behind them, durably; never a byte before.
    pub(crate) fn group_written(&mut self, file: &impl VfsFile, used_bytes: u64, bytes: u64) -> io::Result<()> {
        self.groups += 1;
        let from = self.to.max(used_bytes);
        if self.groups < GROUPS_PER_PIECE || from >= bytes {
            return Ok(());
        }
        self.groups = 0;
        let len = usize::try_from(bytes - from).unwrap_or(PIECE.len()).min(PIECE.len());
        file.write_at(&PIECE[..len], from)?;
        self.to = from + len as u64;
        file.sync_data()
    }
}
