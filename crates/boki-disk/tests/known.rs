//! Opening a journal of which the caller knows everything up to some group: only what is behind it is read, and a journal in
//! which that group is not where it should be is damaged.
#![allow(clippy::unwrap_used)]

mod common;

use boki_disk::mem::MemDisk;
use boki_disk::vfs::Vfs;
use boki_disk::{Damage, GroupPlace, Journal, OpenError};
use common::*;

/// Seven groups in three segments, and where each is.
fn seven_groups() -> (MemDisk, Vec<GroupPlace>) {
    let disk = MemDisk::new();
    let (mut journal, _) = open(&disk).unwrap();
    assert_eq!(journal.last_group(), None);
    let mut places = Vec::new();
    for group in 1..8 {
        write_groups(&mut journal, group..group + 1);
        places.push(journal.last_group().unwrap());
    }
    (disk, places)
}

fn damage(opened: Result<(Journal<MemDisk>, Vec<Read>), OpenError>) -> (u64, Damage) {
    match opened.map(|_| ()) {
        Err(OpenError::Damaged { segment, what, .. }) => (segment, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_groups_behind_the_known_one_are_read() {
    let (disk, places) = seven_groups();
    for known in &places {
        let (journal, found) = open_behind(&disk, config(), Some(*known)).unwrap();
        assert_eq!(found, groups(known.group + 1..8));
        assert_eq!(journal.last_group(), places.last().copied());
        assert_eq!(journal.segments().iter().map(|s| s.number).collect::<Vec<_>>(), [1, 2, 3]);
    }
    let (mut journal, _) = open_behind(&disk, config(), places.last().copied()).unwrap();
    write_groups(&mut journal, 8..10);
    drop(journal);
    assert_eq!(open(&disk).unwrap().1, groups(1..10), "it goes on where it ended");
}

#[test]
fn damage_before_the_known_group_does_not_keep_the_journal_from_opening_and_behind_it_does() {
    let (disk, places) = seven_groups();
    patch(&disk, &segment(1), 4096 + 40, b"rotten");
    assert_eq!(damage(open(&disk)), (1, Damage::Frame { expected: 1 }));
    assert_eq!(open_behind(&disk, config(), Some(places[2])).unwrap().1, groups(4..8));
    assert_eq!(open_behind(&disk, config(), Some(places[3])).unwrap().1, groups(5..8));
    patch(&disk, &segment(2), 8192 + 40, b"rotten");
    assert_eq!(damage(open_behind(&disk, config(), Some(places[3]))), (2, Damage::Frame { expected: 5 }));
}

#[test]
fn a_known_group_that_is_not_there_is_damage_even_at_the_end() {
    let (disk, places) = seven_groups();
    let last = places[6];
    patch(&disk, &segment(3), u64::from(last.offset), &[0; 4096]);
    assert_eq!(damage(open_behind(&disk, config(), Some(last))), (3, Damage::MissingGroup { expected: 7 }));
    assert_eq!(open_behind(&disk, config(), Some(places[5])).unwrap().1, [], "torn, as far as is known");

    let (disk, _) = seven_groups();
    patch(&disk, &segment(3), u64::from(last.offset) + 40, b"rotten");
    assert_eq!(damage(open_behind(&disk, config(), Some(last))), (3, Damage::Frame { expected: 7 }));
    let before = disk.contents(&segment(3)).unwrap();
    assert!(open_behind(&disk, config(), Some(last)).is_err());
    assert_eq!(disk.contents(&segment(3)).unwrap(), before, "nothing was changed");
}

#[test]
fn a_known_group_of_another_journal_is_damage() {
    let (disk, places) = seven_groups();
    let other = |change: &dyn Fn(&mut GroupPlace)| {
        let mut known = places[4];
        change(&mut known);
        damage(open_behind(&disk, config(), Some(known)))
    };
    assert_eq!(other(&|known| known.segment = 9), (9, Damage::MissingSegment));
    assert_eq!(other(&|known| known.segment = 0), (0, Damage::MissingSegment));
    assert_eq!(other(&|known| known.group = 6), (2, Damage::UnexpectedGroup { expected: 6, found: 5 }));
    assert_eq!(other(&|known| known.group = 3), (2, Damage::UnexpectedGroup { expected: 3, found: 4 }));
    assert_eq!(other(&|known| known.group = 7), (2, Damage::MissingGroup { expected: 7 }));
    assert_eq!(other(&|known| known.offset = 4096), (2, Damage::UnexpectedGroup { expected: 5, found: 4 }));
    assert_eq!(other(&|known| known.offset = 7), (2, Damage::Frame { expected: 5 }));
    assert_eq!(other(&|known| known.offset = u32::MAX), (2, Damage::MissingGroup { expected: 5 }));
    assert_eq!(damage(open_behind(&MemDisk::new(), config(), Some(places[4]))), (2, Damage::MissingSegment));
}

#[test]
fn segments_before_the_known_group_may_be_removed_and_not_be_lost() {
    let (disk, places) = seven_groups();
    let (mut journal, _) = open_behind(&disk, config(), Some(places[6])).unwrap();
    journal.remove_segment(1).unwrap();
    drop(journal);
    assert_eq!(open_behind(&disk, config(), Some(places[3])).unwrap().1, groups(5..8));
    assert_eq!(damage(open_behind(&disk, config(), Some(places[1]))), (1, Damage::MissingSegment));
    disk.remove(&segment(2)).unwrap();
    assert_eq!(damage(open_behind(&disk, config(), Some(places[6]))), (2, Damage::MissingSegment));
}
