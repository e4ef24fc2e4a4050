//! What the tests of the journal share: a small journal on a disk in memory, and groups that are told apart.
#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::Vfs;
use boki_disk::{
    Compression, DataKey, DataKeys, Frame, GroupPlace, Journal, JournalConfig, Keyring, Location, OpenError, WriteError,
};
use bytes::Bytes;

/// Id of the data directory.
pub const DIRECTORY: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

/// A frame as it was read: its kind and body.
pub type Read = (u8, Bytes);

/// Segments with room for three groups of one block.
pub fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 16 << 10, first_segment_bytes: 16 << 10, ..JournalConfig::new(DIRECTORY) }
}

/// The same with frames that are compressed or sealed or both; in a directory that `accepts_plain` ones too.
pub fn coded(is_compressed: bool, is_sealed: bool, accepts_plain: bool) -> JournalConfig {
    let keys = DataKeys { current: DataKey::from_bytes([1; 32]), old: vec![] };
    let ring = is_sealed.then(|| Arc::new(Keyring::new(&keys, accepts_plain).unwrap()));
    let compression = if is_compressed { Compression::Lz4 } else { Compression::None };
    JournalConfig { compression, keyring: ring, ..config() }
}

/// Opens the journal and returns every frame in it.
pub fn open<V: Vfs>(vfs: &V) -> Result<(Journal<V>, Vec<Read>), OpenError> {
    open_with(vfs, config())
}

pub fn open_with<V: Vfs>(vfs: &V, config: JournalConfig) -> Result<(Journal<V>, Vec<Read>), OpenError> {
    open_behind(vfs, config, None)
}

/// Opens the journal and returns every frame behind the group `known`.
pub fn open_behind<V: Vfs>(
    vfs: &V,
    config: JournalConfig,
    known: Option<GroupPlace>,
) -> Result<(Journal<V>, Vec<Read>), OpenError> {
    let mut found = Vec::new();
    let mut places = Vec::new();
    let journal = Journal::open(vfs.clone(), config, known, &mut |frame| {
        places.push((frame.location, frame.body.clone()));
        found.push((frame.kind, frame.body));
    })?;
    let reader = journal.reader();
    for (place, body) in places {
        assert_eq!(reader.read(place.segment, place.offset, 0, body.len() as u32).unwrap(), body, "at {place:?}");
    }
    Ok((journal, found))
}

/// The one frame of the group with that number: `len` bytes that no other group has.
pub fn body(group: u64, len: usize) -> Bytes {
    (0..len).map(|at| (group as usize * 7 + at * 31 + 1) as u8).collect()
}

pub fn frame(kind: u8, body: &Bytes) -> Frame {
    Frame { kind, parts: vec![body.clone()] }
}

/// Writes groups of one small frame each, with these numbers; returns where their bodies are.
pub fn write_groups<V: Vfs>(journal: &mut Journal<V>, groups: std::ops::Range<u64>) -> Vec<Location> {
    let mut locations = Vec::new();
    for group in groups {
        journal.write(&[frame(1, &body(group, 100))], &mut locations).unwrap();
    }
    locations
}

/// What `write_groups` leaves to be read.
pub fn groups(groups: std::ops::Range<u64>) -> Vec<Read> {
    groups.map(|group| (1, body(group, 100))).collect()
}

pub fn segment(number: u64) -> String {
    format!("seg/{number:016}.log")
}

/// Overwrites bytes of a file, durably.
pub fn patch(disk: &MemDisk, name: &str, at: u64, bytes: &[u8]) {
    use boki_disk::vfs::VfsFile;
    let file = disk.open(name).unwrap();
    file.write_at(bytes, at).unwrap();
    file.sync_data().unwrap();
}

pub fn is_failed(result: Result<(), WriteError>) -> bool {
    matches!(result, Err(WriteError::Failed(_)))
}
