//! Opening a journal after every kind of damage: what is cut back, what is refused, and that refusing changes nothing.
#![allow(clippy::unwrap_used)]

mod common;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::{Vfs, VfsFile};
use boki_disk::{BlobError, Damage, JournalConfig, OpenError};
use common::*;

/// A journal of eight groups: 1-3 and 4-6 in two full segments, 7 and 8 in the last.
fn eight_groups() -> MemDisk {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, 1..9);
    let used: Vec<_> = journal.segments().iter().map(|s| (s.number, s.first_group, s.used_bytes)).collect();
    assert_eq!(used, [(1, 1, 16384), (2, 4, 16384), (3, 7, 12288)]);
    disk
}

#[test]
fn an_intact_frame_that_does_not_belong_there_is_no_torn_write() {
    let disk = eight_groups();
    let seventh = disk.contents(&segment(3)).unwrap()[4096..8192].to_vec();
    patch(&disk, &segment(3), 12288, &seventh);
    assert_damaged(&disk, 3, 12288, &Damage::UnexpectedGroup { expected: 9, found: 7 }, 0);
    let first = disk.contents(&segment(1)).unwrap()[4096..8192].to_vec();
    patch(&disk, &segment(3), 12288, &first);
    assert_damaged(&disk, 3, 12288, &Damage::OtherSegment { found: 1 }, 0);
}

fn all_files(disk: &MemDisk) -> Vec<(String, Vec<u8>)> {
    disk.names().into_iter().map(|name| (name.clone(), disk.contents(&name).unwrap())).collect()
}

/// Opening says that the journal is damaged, and where, and changes nothing.
#[track_caller]
fn assert_damaged(disk: &MemDisk, segment: u64, offset: u32, what: &Damage, groups_after: u64) {
    let before = all_files(disk);
    match open(disk) {
        Err(OpenError::Damaged { segment: s, offset: o, what: w, groups_after: g }) => {
            assert_eq!((s, o, &w, g), (segment, offset, what, groups_after));
        }
        Err(error) => panic!("{error}"),
        Ok((_, found)) => panic!("opened with {} frames", found.len()),
    }
    assert_eq!(all_files(disk), before, "nothing may be changed");
}

/// Opening finds the groups, and after it the journal goes on with the next.
#[track_caller]
fn assert_opens(disk: &MemDisk, last: u64, is_torn: bool) {
    let (mut journal, found) = open(disk).unwrap();
    assert_eq!(found, groups(1..last + 1));
    assert_eq!(journal.torn_tail().is_some(), is_torn);
    write_groups(&mut journal, last + 1..last + 6);
    drop(journal);
    let (journal, found) = open(disk).unwrap();
    assert_eq!(found, groups(1..last + 6));
    assert_eq!(journal.torn_tail(), None);
}

#[test]
fn an_empty_journal_opens_empty_twice() {
    let disk = MemDisk::new();
    assert_opens(&disk, 0, false);
}

#[test]
fn everything_written_is_read_in_order() {
    assert_opens(&eight_groups(), 8, false);
}

#[test]
fn frames_keep_their_kinds_their_pieces_and_their_group() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    let frames = [
        boki_disk::Frame { kind: 0, parts: vec![] },
        boki_disk::Frame { kind: 255, parts: vec!["one".into(), "".into(), "two".into()] },
        boki_disk::Frame { kind: 3, parts: vec![body(1, 5000)] },
    ];
    let mut locations = Vec::new();
    journal.write(&frames, &mut locations).unwrap();
    let offsets: Vec<u32> = locations.iter().map(|location| location.offset).collect();
    assert_eq!(offsets, [4096 + 32, 4096 + 64, 4096 + 64 + 6 + 32]);
    drop(journal);
    let (_, found) = open(&disk).unwrap();
    assert_eq!(found, [(0, "".into()), (255, "onetwo".into()), (3, body(1, 5000))]);
}

#[test]
fn a_group_larger_than_a_segment_gets_one_of_its_own() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, 1..2);
    let large = body(2, 3 << 20);
    journal.write(&[frame(1, &large)], &mut Vec::new()).unwrap();
    write_groups(&mut journal, 3..5);
    drop(journal);
    let (journal, found) = open(&disk).unwrap();
    assert_eq!(found, [(1, body(1, 100)), (1, large), (1, body(3, 100)), (1, body(4, 100))]);
    assert_eq!(journal.segments().len(), 3);
}

#[test]
fn a_torn_last_group_is_dropped_as_a_whole_and_zeroed() {
    // Every way to lose some of the four sectors of group 9, but not all of it and not none.
    for lost in 1..15 {
        let disk = eight_groups();
        let (mut journal, _) = open(&disk).unwrap();
        journal.write(&[frame(1, &body(9, 900)), frame(1, &body(10, 1000))], &mut Vec::new()).unwrap();
        for sector in (0..4).filter(|sector| lost & (1 << sector) != 0) {
            patch(&disk, &segment(3), 12288 + sector * 512, &[0; 512]);
        }
        drop(journal);
        let (journal, found) = open(&disk).unwrap();
        assert_eq!(found, groups(1..9), "sectors lost: {lost:04b}");
        let torn = journal.torn_tail().unwrap();
        assert_eq!((torn.segment, torn.offset), (3, 12288));
        assert!(disk.contents(&segment(3)).unwrap()[12288..].iter().all(|byte| *byte == 0));
        drop(journal);
        assert_opens(&disk, 8, false);
    }
}

#[test]
fn garbage_behind_the_last_group_is_cut_off() {
    let disk = eight_groups();
    patch(&disk, &segment(3), 16000, b"garbage");
    assert_opens(&disk, 8, true);
}

#[test]
fn a_damaged_group_with_another_behind_it_is_reported() {
    for (group, segment_number, offset, groups_after) in
        [(1, 1, 4096, 2), (2, 1, 8192, 1), (3, 1, 12288, 0), (4, 2, 4096, 2), (6, 2, 12288, 0), (7, 3, 4096, 1)]
    {
        for (at, what) in [(0, Damage::Frame { expected: group }), (80, Damage::Frame { expected: group })] {
            let disk = eight_groups();
            assert!(disk.flip_bit(&segment(segment_number), offset + at, 3));
            assert_damaged(&disk, segment_number, offset as u32, &what, groups_after);
        }
        let disk = eight_groups();
        patch(&disk, &segment(segment_number), offset, &[0; 4096]);
        let what = match groups_after {
            0 => Damage::EndsEarly { expected: group, reached: group },
            _ => Damage::MissingGroup { expected: group },
        };
        assert_damaged(&disk, segment_number, offset as u32, &what, groups_after);
    }
}

#[test]
fn a_sealed_segment_must_hold_its_groups_even_if_the_last_is_empty() {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, 1..3);
    journal.roll().unwrap();
    journal.roll().unwrap();
    assert_eq!(journal.segments().len(), 2, "an empty segment is not left behind");
    drop(journal);
    let whole = disk.fork();
    patch(&disk, &segment(1), 8192, &[0; 4096]);
    assert_damaged(&disk, 1, 8192, &Damage::EndsEarly { expected: 2, reached: 2 }, 0);
    assert_opens(&whole, 2, false);
}

#[test]
fn a_missing_segment_is_reported() {
    for number in 1..3 {
        let disk = eight_groups();
        disk.remove(&segment(number)).unwrap();
        assert_damaged(&disk, number, 0, &Damage::MissingSegment, 0);
    }
    let disk = eight_groups();
    for number in 1..4 {
        disk.remove(&segment(number)).unwrap();
    }
    assert_damaged(&disk, 1, 0, &Damage::MissingSegment, 0);
}

#[test]
fn an_end_that_was_marked_must_be_reached() {
    let marked = eight_groups();
    open(&marked).unwrap().0.mark().unwrap();
    assert_opens(&marked.fork(), 8, false);

    let disk = marked.fork();
    disk.flip_bit(&segment(3), 8192 + 80, 0);
    assert_damaged(&disk, 3, 8192, &Damage::Frame { expected: 8 }, 0);
    // The last group as it was before it was written.
    let disk = marked.fork();
    patch(&disk, &segment(3), 8192, &[0; 4096]);
    assert_damaged(&disk, 3, 8192, &Damage::EndsEarly { expected: 8, reached: 8 }, 0);
    // The last segment as it was when it was made.
    let disk = marked.fork();
    patch(&disk, &segment(3), 4096, &[0; 8192]);
    assert_damaged(&disk, 3, 4096, &Damage::EndsEarly { expected: 7, reached: 8 }, 0);
    let disk = marked.fork();
    disk.remove(&segment(3)).unwrap();
    assert_damaged(&disk, 3, 0, &Damage::MissingSegment, 0);
}

#[test]
fn a_write_behind_the_mark_may_be_torn() {
    let disk = eight_groups();
    let (mut journal, _) = open(&disk).unwrap();
    journal.mark().unwrap();
    write_groups(&mut journal, 9..10);
    drop(journal);
    let (_, offset) = (3, 12288);
    disk.flip_bit(&segment(3), offset + 80, 0);
    assert_opens(&disk, 8, true);
}

#[test]
fn the_last_segment_is_missed_even_if_nobody_marked_its_end() {
    let disk = eight_groups();
    disk.remove(&segment(3)).unwrap();
    assert_damaged(&disk, 3, 0, &Damage::MissingSegment, 0);
}

#[test]
fn a_damaged_mark_is_reported() {
    let disk = eight_groups();
    disk.flip_bit("seg/reach", 30, 0);
    assert!(matches!(open(&disk).map(|_| ()), Err(OpenError::Removed(BlobError::Damaged { .. }))));
}

#[test]
fn a_segment_of_another_number_or_directory_or_with_a_damaged_header_is_refused() {
    let disk = eight_groups();
    disk.rename(&segment(3), &segment(2)).unwrap();
    assert_damaged(&disk, 2, 0, &Damage::OtherSegment { found: 3 }, 0);

    let disk = eight_groups();
    let other = JournalConfig { directory: 5, ..config() };
    match open_with(&disk, other).map(|_| ()) {
        Err(OpenError::Removed(BlobError::OtherDirectory { found: DIRECTORY, .. })) => {}
        other => panic!("{other:?}"),
    }
    disk.remove("seg/removed").unwrap();
    match open_with(&disk, JournalConfig { directory: 5, ..config() }).map(|_| ()) {
        Err(OpenError::Removed(BlobError::OtherDirectory { name, .. })) => assert_eq!(name, "seg/reach"),
        other => panic!("{other:?}"),
    }
    disk.remove("seg/reach").unwrap();
    match open_with(&disk, JournalConfig { directory: 5, ..config() }).map(|_| ()) {
        Err(OpenError::Damaged { segment: 1, what: Damage::OtherDirectory { found: DIRECTORY }, .. }) => {}
        other => panic!("{other:?}"),
    }

    for number in 1..4 {
        let disk = eight_groups();
        disk.flip_bit(&segment(number), 33, 0);
        assert_damaged(&disk, number, 0, &Damage::SegmentHeader, 0);
        let disk = eight_groups();
        disk.create(&segment(number)).unwrap();
        assert_damaged(&disk, number, 0, &Damage::SegmentHeader, 0);
    }
}

#[test]
fn a_damaged_record_of_removed_segments_is_reported() {
    let disk = eight_groups();
    disk.flip_bit("seg/removed", 30, 0);
    assert!(matches!(open(&disk).map(|_| ()), Err(OpenError::Removed(_))));
}

#[test]
fn a_record_of_removed_segments_that_was_not_yet_written_is_made_good() {
    let disk = eight_groups();
    disk.remove("seg/removed").unwrap();
    assert_opens(&disk, 8, false);
    assert!(disk.contents("seg/removed").is_some());
}

#[test]
fn leftovers_go_and_strange_files_stay() {
    let disk = eight_groups();
    let names = ["seg/0000000000000003.new", "seg/removed.tmp", "seg/.DS_Store", "seg/7.log", "seg/notes.txt"];
    for name in names {
        disk.create(name).unwrap().write_at(b"x", 0).unwrap();
    }
    let (_journal, found) = open(&disk).unwrap();
    assert_eq!(found, groups(1..9));
    let left: Vec<_> = names.into_iter().filter(|name| disk.contents(name).is_some()).collect();
    assert_eq!(left, names[2..]);
}

#[test]
fn what_is_left_of_a_prepared_segment_is_not_used() {
    let disk = eight_groups();
    disk.create("seg/0000000000000004.new").unwrap().write_at(&[7; 9000], 0).unwrap();
    assert_opens(&disk, 8, false);
}

#[test]
fn a_frame_in_a_body_is_no_frame() {
    // What a body can hold at worst: the copy of a real group, of the same segment or of another, at the start of a block.
    for at in [4096, 8192] {
        let disk = MemDisk::new();
        let config = JournalConfig { segment_bytes: 32 << 10, ..config() };
        let (mut journal, _) = open_with(&disk, config.clone()).unwrap();
        write_groups(&mut journal, 1..5);
        let last = journal.segments().len() as u64;
        let source = if at == 4096 { segment(last - 1) } else { segment(last) };
        let mut trap = vec![0; 4096 - 32];
        trap.extend_from_slice(&disk.contents(&source).unwrap()[4096..8192]);
        let mut locations = Vec::new();
        journal.write(&[frame(1, &trap.into())], &mut locations).unwrap();
        let Some(place) = locations.pop() else { panic!("no place") };
        // The write is torn: its first sector is lost.
        patch(&disk, &segment(place.segment), u64::from(place.offset) - 32, &[0; 512]);
        drop(journal);
        let (_, found) = open_with(&disk, config).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found, groups(1..5));
    }
}

#[test]
fn flipping_any_one_bit_never_gives_wrong_data() {
    let whole = eight_groups();
    let written = groups(1..9);
    for (name, bytes) in all_files(&whole) {
        for at in 0..bytes.len() as u64 {
            // Every byte that means something, and samples of the zeros between.
            let is_sampled = bytes[at as usize] != 0 || at % 97 == 0;
            if !is_sampled {
                continue;
            }
            let disk = whole.fork();
            disk.flip_bit(&name, at, (at % 8) as u8);
            match open(&disk) {
                Err(OpenError::Damaged { .. } | OpenError::Removed(_)) => {}
                Err(error) => panic!("{name}, {at}: {error}"),
                Ok((journal, found)) if found.len() < written.len() => {
                    // The last group cannot be told from one that was never acknowledged.
                    assert_eq!(found, written[..7], "{name}, {at}");
                    assert_eq!((journal.segments().len(), name.as_str()), (3, segment(3).as_str()));
                }
                Ok((_, found)) => assert_eq!(found, written, "{name}, {at}"),
            }
        }
    }
}
