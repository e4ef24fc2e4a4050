//! What the fuzz targets share: making checksums right, so that noise gets past them to the parser behind.

use boki_disk::mem::MemDisk;
use boki_disk::vfs::{Vfs, VfsFile};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// Id of the data directory whose files are made up.
pub const DIRECTORY: u128 = 7;

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of the data directory's id, then `bytes`: the checksum of its frames.
fn seeded(bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&DIRECTORY.to_le_bytes());
    digest.update(bytes);
    digest.finalize() as u32
}

fn put(bytes: &mut [u8], at: usize, checksum: u32) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Makes the checksum at `at` right for everything behind it.
pub fn seal(bytes: &mut [u8], at: usize) {
    let checksum = crc32c(bytes.get(at + 4..).unwrap_or_default());
    put(bytes, at, checksum);
}

/// Makes the header of a segment file, and every frame as far as they follow one another, match their checksums.
pub fn seal_segment(bytes: &mut [u8]) {
    let header = bytes.get(12..64).map(crc32c);
    if let Some(checksum) = header {
        put(bytes, 8, checksum);
    }
    let mut at = 4096;
    while let Some(header) = bytes.get(at..at + 32) {
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = word(8) as usize;
        let is_last = header[12] & 1 != 0;
        let end = at + 32 + len;
        let Some(frame) = bytes.get(at..end) else { return };
        if frame.iter().all(|byte| *byte == 0) {
            return;
        }
        let checksum = seeded(&frame[4..]);
        put(bytes, at, checksum);
        at = if is_last { end.next_multiple_of(4096) } else { end };
    }
}

/// A file of that name and contents.
pub fn add(disk: &MemDisk, name: &str, bytes: &[u8]) {
    let file = disk.create(name).expect("a disk in memory takes every file");
    file.write_at(bytes, 0).expect("a disk in memory takes every byte");
    file.sync_data().expect("a disk in memory syncs");
}

/// Cuts `data` into pieces, each with its length (u16) before it; the last takes what is left.
pub fn pieces(data: &[u8]) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut rest = data;
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let (piece, behind) = behind.split_at(behind.len().min(usize::from(u16::from_le_bytes(*len))));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = behind;
    }
    pieces
}
