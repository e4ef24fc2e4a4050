//! Removing segments: for good, in any order, and whole or not at all when the power goes meanwhile.
#![allow(clippy::unwrap_used)]

mod common;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::Vfs;
use boki_disk::{Damage, OpenError, RemoveError};
use common::*;

/// Five segments of three groups each.
fn five_segments() -> MemDisk {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, 1..16);
    disk
}

fn without(removed: &[u64]) -> Vec<Read> {
    (1..16).filter(|group| !removed.contains(&((group - 1) / 3 + 1))).flat_map(|g| groups(g..g + 1)).collect()
}

#[test]
fn segments_are_removed_in_any_order_and_stay_removed() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3], [3, 1, 4, 2]] {
        let disk = five_segments();
        for count in 1..=4 {
            let (mut journal, _) = open(&disk).unwrap();
            journal.remove_segment(order[count - 1]).unwrap();
            journal.remove_segment(order[count - 1]).unwrap();
            drop(journal);
            let (journal, found) = open(&disk).unwrap();
            assert_eq!(found, without(&order[..count]), "{:?}", &order[..count]);
            assert_eq!(journal.segments().len(), 5 - count);
        }
        let (mut journal, _) = open(&disk).unwrap();
        write_groups(&mut journal, 16..18);
        drop(journal);
        assert_eq!(open(&disk).unwrap().1, groups(13..18));
    }
}

#[test]
fn the_current_and_unknown_segments_are_not_removed() {
    let (mut journal, _) = open(&five_segments()).unwrap();
    assert!(matches!(journal.remove_segment(5), Err(RemoveError::Current { segment: 5 })));
    for number in [0, 6, 7] {
        assert!(matches!(journal.remove_segment(number), Err(RemoveError::NoSuchSegment { .. })), "{number}");
    }
}

#[test]
fn a_power_cut_leaves_a_segment_whole_or_removed() {
    for operations in 0.. {
        for choice in [0, 1] {
            let disk = five_segments();
            let (mut journal, _) = open(&disk).unwrap();
            journal.remove_segment(1).unwrap();
            disk.cut_power_after(operations);
            let done = journal.remove_segment(2).is_ok();
            drop(journal);
            disk.crash(&mut |_| choice);
            let (journal, found) = open(&disk).unwrap();
            let is_removed = journal.segments().iter().all(|segment| segment.number != 2);
            assert_eq!(found, if is_removed { without(&[1, 2]) } else { without(&[1]) });
            assert_eq!(disk.contents(&segment(2)).is_none(), is_removed, "its file is there if and only if it is");
            if done {
                assert!(is_removed);
                if choice == 1 {
                    return;
                }
            }
        }
    }
}

#[test]
fn a_segment_missing_beside_removed_ones_is_reported() {
    for (removed, missing) in [(1, 2), (3, 2), (2, 1), (2, 3), (4, 5)] {
        let disk = five_segments();
        let (mut journal, _) = open(&disk).unwrap();
        journal.remove_segment(removed).unwrap();
        drop(journal);
        disk.remove(&segment(missing)).unwrap();
        match open(&disk).map(|_| ()) {
            Err(OpenError::Damaged { segment, what: Damage::MissingSegment, .. }) => assert_eq!(segment, missing),
            other => panic!("{removed} removed, {missing} missing: {other:?}"),
        }
    }
}

#[test]
fn a_segment_before_a_removed_one_must_still_be_whole() {
    let disk = five_segments();
    let (mut journal, _) = open(&disk).unwrap();
    journal.remove_segment(2).unwrap();
    drop(journal);
    patch(&disk, &segment(1), 12288, &[0; 4096]);
    match open(&disk).map(|_| ()) {
        Err(OpenError::Damaged { segment: 1, offset: 12288, what: Damage::EndsEarly { expected: 3, .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
}
