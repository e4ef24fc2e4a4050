//! Disks that are full or fail while a journal is being written.
#![allow(clippy::unwrap_used)]

mod common;

use boki_disk::mem::MemDisk;
use boki_disk::{JournalConfig, ReadError, WriteError};
use common::*;

#[test]
fn a_full_disk_refuses_and_takes_again_when_there_is_room() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    // Only so much that the second segment, prepared ahead, is the last there is room for.
    disk.set_capacity(Some(disk.used_bytes() + (16 << 10)));
    let mut locations = write_groups(&mut journal, 1..7);
    let groups_group = [frame(1, &body(7, 100))];
    for _ in 0..3 {
        assert!(matches!(journal.write(&groups_group, &mut locations), Err(WriteError::Full)));
        assert!(matches!(journal.roll(), Err(WriteError::Full)));
    }
    assert_eq!((locations.len(), journal.segments().len()), (6, 2));
    let names = disk.names();
    assert!(names.iter().all(|name| !name.ends_with(".new")), "nothing may be left lying: {names:?}");

    disk.set_capacity(None);
    write_groups(&mut journal, 7..9);
    drop(journal);
    assert_eq!(open(&disk).unwrap().1, groups(1..9));
}

#[test]
fn removing_a_segment_makes_room_on_a_full_disk() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    // One block is for the record of removed segments.
    disk.set_capacity(Some(disk.used_bytes() + (16 << 10) + 512));
    write_groups(&mut journal, 1..7);
    assert!(matches!(journal.write(&[frame(1, &body(7, 100))], &mut Vec::new()), Err(WriteError::Full)));
    journal.remove_segment(1).unwrap();
    write_groups(&mut journal, 7..8);
    drop(journal);
    assert_eq!(open(&disk).unwrap().1, groups(4..8));
}

#[test]
fn a_full_disk_does_not_stop_groups_for_which_there_is_room_in_the_segment() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    write_groups(&mut journal, 1..2);
    let large = [frame(1, &body(2, 9000))];
    assert!(matches!(journal.write(&large, &mut Vec::new()), Err(WriteError::Full)));
    write_groups(&mut journal, 2..4);
    assert!(matches!(journal.write(&large, &mut Vec::new()), Err(WriteError::Full)));
    drop(journal);
    assert_eq!(open(&disk).unwrap().1, groups(1..4));
}

#[test]
fn after_a_failed_sync_or_write_nothing_is_written_any_more() {
    let fail: [fn(&MemDisk); 2] = [|disk| disk.fail_sync_after(0), |disk| disk.fail_write_after(0)];
    for fail in fail {
        let disk = MemDisk::new();
        let (mut journal, _) = open(&disk).unwrap();
        let mut locations = write_groups(&mut journal, 1..3);
        let reader = journal.reader();
        fail(&disk);
        assert!(is_failed(journal.write(&[frame(1, &body(3, 100))], &mut locations)));
        assert_eq!(locations.len(), 2, "no place for what may not be there");
        let before = disk.counts();
        for _ in 0..2 {
            assert!(is_failed(journal.write(&[frame(1, &body(4, 100))], &mut locations)));
            assert!(is_failed(journal.roll()));
        }
        assert_eq!(disk.counts(), before, "not tried again");
        assert_eq!(reader.read(1, locations[1].offset, 0, 100).unwrap(), body(2, 100), "reading goes on");
        drop(journal);
        disk.crash(&mut |_| 0);
        assert_eq!(open(&disk).unwrap().1, groups(1..3));
    }
}

#[test]
fn what_a_killed_process_had_not_synced_is_durable_once_it_is_delivered() {
    let disk = MemDisk::new();
    let (mut journal, _) = open_with(&disk, JournalConfig { sync: false, ..config() }).unwrap();
    write_groups(&mut journal, 1..3);
    drop(journal);
    // Only the process is gone: the system still has what was written, and the disk does not.
    let (journal, found) = open(&disk).unwrap();
    assert_eq!(found, groups(1..3));
    drop(journal);
    disk.crash(&mut |_| 0);
    assert_eq!(open(&disk).unwrap().1, groups(1..3));
}

#[test]
fn what_a_failed_sync_left_in_memory_only_is_not_delivered() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, 1..2);
    disk.fail_sync_after(0);
    assert!(is_failed(journal.write(&[frame(1, &body(2, 100))], &mut Vec::new())));
    drop(journal);
    // The system believes by now that the disk has it.
    assert_eq!(open(&disk).unwrap().1, groups(1..2));
}

#[test]
fn a_failure_while_rolling_loses_nothing() {
    // The next file is ready, and only its header and the sync of it, its name and the directory can fail; or it has to
    // be made as well, and making and allocating it can fail, too. Then the mark: made, written, synced, named, and that synced.
    for (is_ready, operations) in [(true, 4 + 5), (false, 6 + 5)] {
        for operation in 0..=operations {
            let disk = MemDisk::new();
            let (mut journal, _) = open(&disk).unwrap();
            disk.set_capacity((!is_ready).then(|| disk.used_bytes()));
            write_groups(&mut journal, 1..2);
            disk.set_capacity(None);
            disk.cut_power_after(operation);
            assert_eq!(is_failed(journal.roll()), operation < operations);
            drop(journal);
            for lost in [0, 1] {
                let disk = disk.fork();
                disk.crash(&mut |_| lost);
                let (mut journal, found) = open(&disk).unwrap();
                assert_eq!(found, groups(1..2));
                write_groups(&mut journal, 2..9);
                drop(journal);
                assert_eq!(open(&disk).unwrap().1, groups(1..9));
            }
        }
    }
}

#[test]
fn each_group_costs_one_write_and_one_sync() {
    let disk = MemDisk::new();
    let config = JournalConfig { segment_bytes: 1 << 20, first_segment_bytes: 1 << 20, ..config() };
    let (mut journal, _) = open_with(&disk, config).unwrap();
    // With the first, the next segment's file is made, here at once.
    write_groups(&mut journal, 0..1);
    let before = disk.counts();
    let frames: Vec<_> = (0..50).map(|group| frame(1, &body(group, 100))).collect();
    journal.write(&frames, &mut Vec::new()).unwrap();
    let after = disk.counts();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
    assert_eq!(after.written_bytes - before.written_bytes, 8192);
}

#[test]
fn a_journal_without_sync_loses_only_what_was_not_sealed() {
    let disk = MemDisk::new();
    let config = JournalConfig { sync: false, ..config() };
    let (mut journal, _) = open_with(&disk, config).unwrap();
    write_groups(&mut journal, 1..6);
    drop(journal);
    disk.crash(&mut |_| 0);
    assert_eq!(open(&disk).unwrap().1, groups(1..4));
}

#[test]
fn reading_says_what_is_wrong() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    let locations = write_groups(&mut journal, 1..5);
    let reader = journal.reader();
    journal.remove_segment(1).unwrap();
    assert!(matches!(reader.read(1, locations[0].offset, 0, 100), Err(ReadError::Removed { segment: 1 })));
    assert!(matches!(reader.read(3, 4096, 0, 1), Err(ReadError::NoSuchSegment { segment: 3 })));
    assert!(matches!(reader.read(2, 4096, 12 << 10, 1), Err(ReadError::Io { segment: 2, .. })));
    assert_eq!(reader.read(2, locations[3].offset, 10, 20).unwrap(), body(4, 100).slice(10..30));
}
