//! Place files: found in them, or made again from the segment when they are missing, damaged, too short or another's.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::Vfs;
use boki_disk::{DataKey, DataKeys, Frame, Journal, JournalConfig, Keyring, PlaceEntry, PlaceError, PlaceFiles};
use bytes::Bytes;
use common::*;

const FILE: &str = "seg/0000000000000001.places";

/// In these tests every byte of a frame of kind 1 is a record.
fn records_in(kind: u8, frame: u32, body: &Bytes) -> Result<Vec<PlaceEntry>, String> {
    let entry = |(at, byte): (u32, &u8)| PlaceEntry { frame, at, len: 1, checksum: u32::from(*byte) };
    match kind {
        1 => Ok((0..).zip(body.iter()).map(entry).collect()),
        2 => Err("nobody knows this one".into()),
        _ => Ok(Vec::new()),
    }
}

/// A journal whose first segment has seven groups of 100 records each, and what is where.
fn seven_hundred(disk: &MemDisk) -> (Journal<MemDisk>, Vec<PlaceEntry>) {
    seven_hundred_of(disk, config())
}

fn seven_hundred_of(disk: &MemDisk, config: JournalConfig) -> (Journal<MemDisk>, Vec<PlaceEntry>) {
    let config = JournalConfig { segment_bytes: 32 << 10, first_segment_bytes: 32 << 10, ..config };
    let (mut journal, _) = open_with(disk, config).unwrap();
    let locations = write_groups(&mut journal, 1..8);
    journal.write(&[Frame { kind: 9, parts: vec![] }], &mut Vec::new()).unwrap();
    let entries = (1..8).zip(&locations).flat_map(|(group, at)| records_in(1, at.offset, &body(group, 100)).unwrap());
    (journal, entries.collect())
}

fn open_files(journal: &Journal<MemDisk>) -> PlaceFiles<MemDisk> {
    PlaceFiles::open(journal, records_in).unwrap()
}

fn check(files: &PlaceFiles<MemDisk>, entries: &[PlaceEntry]) {
    for (number, entry) in (0..).zip(entries) {
        assert_eq!(files.find(1, number).unwrap(), *entry, "{number}");
    }
    for count in [0, 1, 254, 255, 256, 700] {
        assert_eq!(files.read(1, count).unwrap(), entries[..count as usize]);
    }
}

#[test]
fn entries_are_found_in_a_file_and_in_a_longer_one_that_replaces_it() {
    let disk = MemDisk::new();
    let (journal, entries) = seven_hundred(&disk);
    let files = open_files(&journal);
    for count in [1, 255, 256, 700] {
        files.write(1, &entries[..count]).unwrap();
        let before = disk.contents(FILE);
        assert_eq!(files.find(1, count as u32 - 1).unwrap(), entries[count - 1]);
        assert_eq!(files.read(1, count as u32).unwrap(), entries[..count]);
        assert_eq!(disk.contents(FILE), before, "it was not made again");
    }
    check(&files, &entries);
    files.remove(1).unwrap();
    files.remove(1).unwrap();
    assert_eq!(disk.contents(FILE), None);
}

#[test]
fn a_file_that_is_missing_or_too_short_or_damaged_or_anothers_is_made_again() {
    type Spoil<'a> = (&'a str, &'a dyn Fn(&MemDisk));
    let spoil: [Spoil<'_>; 6] = [
        ("missing", &|disk| disk.remove(FILE).unwrap()),
        ("empty", &|disk| drop(disk.create(FILE).unwrap())),
        ("rotten", &|disk| patch(disk, FILE, 5000, &[0xff; 3])),
        ("rotten in front", &|disk| patch(disk, FILE, 0, &[0xff; 3])),
        ("garbage", &|disk| patch(disk, FILE, 0, &[0xff; 12_288])),
        ("another segment's", &|disk| {
            let other = MemDisk::new();
            let (journal, entries) = seven_hundred(&other);
            open_files(&journal).write(2, &entries).unwrap();
            patch(disk, FILE, 0, &other.contents("seg/0000000000000002.places").unwrap());
        }),
    ];
    for (what, spoil) in spoil {
        let disk = MemDisk::new();
        let (journal, entries) = seven_hundred(&disk);
        open_files(&journal).write(1, &entries).unwrap();
        let whole = disk.contents(FILE).unwrap();
        spoil(&disk);
        assert_ne!(disk.contents(FILE).as_deref(), Some(&whole[..]), "{what}");
        check(&open_files(&journal), &entries);
        assert_eq!(disk.contents(FILE).unwrap(), whole, "{what}: it is as it was");
    }
    let disk = MemDisk::new();
    let (journal, entries) = seven_hundred(&disk);
    open_files(&journal).write(1, &entries[..300]).unwrap();
    check(&open_files(&journal), &entries);
}

#[test]
fn every_flipped_byte_of_a_file_is_noticed() {
    let disk = MemDisk::new();
    let (journal, entries) = seven_hundred(&disk);
    open_files(&journal).write(1, &entries).unwrap();
    let whole = disk.contents(FILE).unwrap();
    for at in (0..whole.len()).step_by(7) {
        patch(&disk, FILE, at as u64, &[whole[at] ^ 0x10]);
        assert_eq!(open_files(&journal).read(1, 700).unwrap(), entries, "byte {at}");
        assert_eq!(disk.contents(FILE).unwrap(), whole);
    }
}

fn keyring(current: u8, old: &[u8]) -> JournalConfig {
    let key = |byte| DataKey::from_bytes([byte; 32]);
    let keys = DataKeys { current: key(current), old: old.iter().copied().map(key).collect() };
    JournalConfig { keyring: Some(Arc::new(Keyring::new(&keys, true).unwrap())), ..config() }
}

#[test]
fn in_an_encrypted_directory_files_are_sealed_and_made_again_if_they_do_not_open() {
    let disk = MemDisk::new();
    let (journal, entries) = seven_hundred_of(&disk, keyring(1, &[]));
    let files = open_files(&journal);
    for count in [251, 252, 253, 504, 505, 700] {
        files.write(1, &entries[..count]).unwrap();
        let before = disk.contents(FILE).unwrap();
        let plain: Vec<u8> = entries.iter().take(4).flat_map(|entry| entry.frame.to_le_bytes()).collect();
        assert!(!before.windows(4).any(|window| window == &plain[..4]), "an offset can be read");
        assert_eq!(files.read(1, count as u32).unwrap(), entries[..count]);
        assert_eq!(files.find(1, count as u32 - 1).unwrap(), entries[count - 1]);
        assert_eq!(disk.contents(FILE).unwrap(), before, "it was not made again");
    }
    let sealed = disk.contents(FILE).unwrap();
    drop((files, journal));

    // The key has changed; the old one is still there, and then is not: what cannot be opened is made again.
    let (journal, _) = open_with(&disk, keyring(2, &[1])).unwrap();
    check(&open_files(&journal), &entries);
    assert_eq!(disk.contents(FILE).unwrap(), sealed);
    let other = MemDisk::new();
    let (other_journal, _) = seven_hundred_of(&other, keyring(3, &[]));
    open_files(&other_journal).write(1, &entries).unwrap();
    patch(&disk, FILE, 0, &other.contents(FILE).unwrap());
    check(&open_files(&journal), &entries);
    let made = disk.contents(FILE).unwrap();
    assert_ne!(made, other.contents(FILE).unwrap());

    // One that is plain is none of an encrypted directory.
    let (plain_disk, plain_name) = (MemDisk::new(), FILE);
    let (plain_journal, plain_entries) = seven_hundred(&plain_disk);
    open_files(&plain_journal).write(1, &plain_entries).unwrap();
    patch(&disk, FILE, 0, &plain_disk.contents(plain_name).unwrap());
    check(&open_files(&journal), &entries);
}

#[test]
fn what_neither_the_file_nor_the_segment_tells_is_an_error_that_names_it() {
    let disk = MemDisk::new();
    let (mut journal, _) = seven_hundred(&disk);
    let files = open_files(&journal);
    assert!(matches!(files.find(1, 700), Err(PlaceError::Damaged { segment: 1, number: 700, .. })));
    assert!(matches!(files.find(5, 0), Err(PlaceError::Segment(_))));
    files.remove(1).unwrap();
    patch(&disk, &segment(1), 4096 + 2 * 4096 + 40, b"rotten");
    assert!(files.find(1, 199).is_ok());
    assert!(matches!(files.find(1, 200), Err(PlaceError::Damaged { segment: 1, number: 200, .. })));
    journal.write(&[frame(2, &body(1, 10))], &mut Vec::new()).unwrap();
    assert!(matches!(files.find(2, 0), Err(PlaceError::Unreadable { segment: 2, .. })));
}

#[test]
fn files_without_a_segment_and_those_half_written_are_removed() {
    let disk = MemDisk::new();
    let (journal, entries) = seven_hundred(&disk);
    let files = open_files(&journal);
    files.write(1, &entries).unwrap();
    files.write(4, &entries).unwrap();
    disk.create("seg/0000000000000001.places.tmp").unwrap();
    open_files(&journal);
    let names: Vec<_> = disk.names().into_iter().filter(|name| name.contains("places")).collect();
    assert_eq!(names, [FILE]);
}

#[test]
fn a_power_cut_leaves_the_old_file_or_the_new() {
    for operations in 0.. {
        let disk = MemDisk::new();
        let (journal, entries) = seven_hundred(&disk);
        let files = open_files(&journal);
        files.write(1, &entries[..300]).unwrap();
        let old = disk.contents(FILE);
        disk.cut_power_after(operations);
        let is_done = files.write(1, &entries).is_ok();
        drop((files, journal));
        disk.crash(&mut |_| 0);
        let found = disk.contents(FILE);
        if is_done {
            assert_ne!(found, old);
            assert_eq!(found.unwrap().len(), 3 * 4096);
            return;
        }
        assert!(found == old || found.map(|found| found.len()) == Some(3 * 4096), "after {operations} operations");
    }
}

#[test]
fn a_full_disk_does_not_keep_anybody_from_finding_a_record() {
    let disk = MemDisk::new();
    let (journal, entries) = seven_hundred(&disk);
    disk.set_capacity(Some(disk.used_bytes()));
    check(&open_files(&journal), &entries);
    assert_eq!(disk.contents(FILE), None);
}
