//! The formats, byte by byte: what this version writes, and that it reads what it once wrote. The files are of the first
//! version of the formats and never change; a new version gets new ones.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::{Vfs, VfsFile};
use boki_disk::{
    BlockCache, Compression, DataKey, DataKeys, Frame, JournalConfig, Keyring, TableConfig, TableStore, read_blob,
    write_blob,
};
use common::*;

/// Files on the disk, and what their copies are called.
const FILES: [(&str, &str); 4] = [
    ("seg/0000000000000002.log", "segment.bin"),
    ("seg/removed", "removed.bin"),
    ("checkpoint", "blob.bin"),
    ("table/0000000000000003.tbl", "table.bin"),
];

fn golden(name: &str) -> Vec<u8> {
    golden_of("v1", name)
}

fn golden_of(version: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn tables(disk: &MemDisk) -> TableStore<MemDisk> {
    TableStore::open(disk.clone(), TableConfig::new(DIRECTORY, BlockCache::new(0))).unwrap()
}

/// Key, value and filter key of an entry of the table.
fn entry(number: u8) -> (Vec<u8>, Vec<u8>, [u8; 2]) {
    (format!("tag/{:02}\0{number:03}", number / 4).into_bytes(), vec![number; usize::from(number)], [7, number / 4])
}

const ENTRIES: u8 = 120;

/// Segments of version 2: compressed, and compressed and sealed. With `GOLDEN` set, they are written there instead.
#[test]
fn coded_segments_are_as_they_were_and_are_read() {
    let keys = DataKeys { current: DataKey::from_bytes([1; 32]), old: vec![] };
    // A salt of its own, or the bytes would be others each time.
    let ring = || Some(Arc::new(Keyring::with_salt(&keys, false, [9; 16])));
    for (copy, keyring) in [("compressed.bin", None), ("sealed.bin", ring())] {
        let config = || JournalConfig { compression: Compression::Lz4, keyring: keyring.clone(), ..config() };
        let disk = MemDisk::new();
        disk.set_wall_us(1_790_000_000_000_000);
        let (mut journal, _) = open_with(&disk, config()).unwrap();
        let bodies = [body(1, 5000), body(2, 40)];
        journal.write(&bodies.each_ref().map(|body| frame(1, body)), &mut Vec::new()).unwrap();
        let mut bytes = disk.contents(&segment(1)).unwrap();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        if let Some(folder) = std::env::var_os("GOLDEN") {
            fs::write(PathBuf::from(folder).join(copy), &bytes).unwrap();
            continue;
        }
        let mut golden = golden_of("v2", copy);
        assert_eq!(bytes, golden, "{copy}");
        let disk = MemDisk::new();
        golden.resize(16 << 10, 0);
        disk.create_dir("seg").unwrap();
        disk.create(&segment(1)).unwrap().write_at(&golden, 0).unwrap();
        assert_eq!(open_with(&disk, config()).unwrap().1, bodies.map(|body| (1, body)));
    }
}

/// A journal with a removed segment and one with two groups, a blob, and a table of two blocks.
fn written() -> MemDisk {
    let disk = MemDisk::new();
    disk.set_wall_us(1_790_000_000_000_000);
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, 1..4);
    let frames = [
        Frame { kind: 1, parts: vec!["hello ".into(), "world".into()] },
        Frame { kind: 2, parts: vec![] },
        Frame { kind: 255, parts: vec![body(4, 40)] },
    ];
    journal.write(&frames, &mut Vec::new()).unwrap();
    journal.write(&[frame(1, &body(5, 10))], &mut Vec::new()).unwrap();
    journal.remove_segment(1).unwrap();
    write_blob(&disk, "checkpoint", b"a checkpoint").unwrap();
    let mut table = tables(&disk).write(3).unwrap();
    for (key, value, filter_key) in (0..ENTRIES).map(entry) {
        table.add(&key, &value).unwrap();
        table.add_filter_key(&filter_key);
    }
    table.finish().unwrap();
    disk
}

fn written_frames() -> Vec<Read> {
    vec![(1, "hello world".into()), (2, "".into()), (255, body(4, 40)), (1, body(5, 10))]
}

#[test]
fn what_is_written_is_as_it_was() {
    let disk = written();
    for (name, copy) in FILES {
        let (found, golden) = (disk.contents(name).unwrap(), golden(copy));
        let (same, zeros) = found.split_at(golden.len());
        assert_eq!(same, golden, "{name}");
        // Of a segment, the zeros at its end are not worth keeping.
        assert!(zeros.iter().all(|byte| *byte == 0) && (zeros.is_empty() || name.ends_with(".log")), "{name}");
    }
}

#[test]
fn what_was_written_is_read() {
    let disk = MemDisk::new();
    for (name, copy) in FILES {
        let file = disk.create(name).unwrap();
        let mut bytes = golden(copy);
        if name.ends_with(".log") {
            bytes.resize(16 << 10, 0);
        }
        file.write_at(&bytes, 0).unwrap();
    }
    let (journal, found) = open(&disk).unwrap();
    assert_eq!(found, written_frames());
    assert_eq!((journal.segments()[0].first_group, journal.torn_tail()), (4, None));
    assert_eq!(read_blob(&disk, "checkpoint").unwrap().unwrap(), "a checkpoint");
    let table = tables(&disk).read(3).unwrap();
    table.check(&mut |error| panic!("{error}"));
    for (key, value, filter_key) in (0..ENTRIES).map(entry) {
        assert_eq!(table.at_or_after(&key).unwrap().unwrap(), (key.into(), value.into()));
        assert!(table.may_contain(&filter_key).unwrap());
    }
    let absent = (0..=255u8).filter(|other| table.may_contain(&[8, *other]).unwrap()).count();
    assert!(absent < 20, "{absent} of 256");
}
