//! Random groups, power cuts at random moments, random sectors lost: what was acknowledged is there, and what is there is a
//! prefix of what was written.
#![allow(clippy::unwrap_used)]

mod common;

use boki_disk::mem::{Lie, MemDisk};
use boki_disk::{Journal, WriteError};
use bytes::Bytes;
use common::*;
use proptest::prelude::*;

/// What happens between one opening of the journal and the next.
#[derive(Clone, Debug)]
struct Life {
    /// Lengths of the bodies of each group's frames.
    groups: Vec<Vec<usize>>,
    /// After which of the groups to roll.
    rolls: Vec<bool>,
    /// After how many changes to the disk the power goes.
    cut_after: u64,
    /// Decides what of the unsynced survives.
    seed: u64,
    /// Whether frames are compressed, and whether they are sealed.
    coding: (bool, bool),
}

fn life() -> impl Strategy<Value = Life> {
    let frame = prop_oneof![0..200_usize, 0..3000_usize, 0..20_000_usize];
    let groups = prop::collection::vec(prop::collection::vec(frame, 1..5), 0..12);
    (groups, prop::collection::vec(prop::bool::weighted(0.1), 12), 0..60_u64, any::<u64>(), any::<(bool, bool)>())
        .prop_map(|(groups, rolls, cut_after, seed, coding)| Life { groups, rolls, cut_after, seed, coding })
}

/// A few random bits, reproducibly (splitmix64).
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes until the power goes. Adds what was attempted to `written`, and returns how much of it was acknowledged.
fn live(journal: &mut Journal<MemDisk>, life: &Life, written: &mut Vec<Vec<Read>>) -> usize {
    for (group, lens) in life.groups.iter().enumerate() {
        let number = written.len() as u64;
        let bodies: Vec<Bytes> = lens.iter().enumerate().map(|(at, len)| body(number * 5 + at as u64, *len)).collect();
        let frames: Vec<_> = bodies.iter().map(|body| frame(number as u8, body)).collect();
        written.push(bodies.into_iter().map(|body| (number as u8, body)).collect());
        match journal.write(&frames, &mut Vec::new()) {
            Ok(()) => {}
            Err(WriteError::Failed(_)) => return written.len() - 1,
            Err(error) => panic!("{error}"),
        }
        if life.rolls[group] && journal.roll().is_err() {
            break;
        }
    }
    written.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_crash_keeps_a_prefix_with_everything_acknowledged(lives in prop::collection::vec(life(), 1..5)) {
        let disk = MemDisk::new();
        let mut written: Vec<Vec<Read>> = Vec::new();
        let mut acknowledged = 0;
        for life in &lives {
            disk.cut_power_after(life.cut_after);
            // The power may go while the journal is being opened, which must not lose anything either.
            let config = coded(life.coding.0, life.coding.1, true);
            if let Ok((mut journal, _)) = open_with(&disk, config.clone()) {
                acknowledged = live(&mut journal, life, &mut written);
            }
            let mut seed = life.seed;
            disk.crash(&mut |ways| next(&mut seed) % ways);

            // The key is there whether it is used or not: earlier lives may have used it.
            let (_, found) = open_with(&disk, coded(false, true, true)).unwrap_or_else(|error| panic!("{error}"));
            let mut prefix = Vec::new();
            let mut groups = 0;
            while prefix.len() < found.len() {
                prefix.extend(written[groups].iter().cloned());
                groups += 1;
            }
            prop_assert_eq!(&found, &prefix, "not a prefix of groups");
            prop_assert!(groups >= acknowledged, "{} groups of {} acknowledged", groups, acknowledged);
            written.truncate(groups);
            acknowledged = groups;
        }
    }

    #[test]
    fn a_killed_process_loses_nothing_acknowledged(lives in prop::collection::vec(life(), 1..4)) {
        let disk = MemDisk::new();
        let mut written: Vec<Vec<Read>> = Vec::new();
        for life in &lives {
            let (mut journal, found) = open(&disk).unwrap_or_else(|error| panic!("{error}"));
            prop_assert_eq!(found, written.concat());
            if life.seed % 2 == 0 { disk.fail_write_after(life.cut_after) } else { disk.fail_sync_after(life.cut_after) }
            let acknowledged = live(&mut journal, life, &mut written);
            drop(journal);
            // Ends the failure that was asked for; what was written so far, the system still has.
            disk.crash(&mut |ways| ways - 1);
            let (_, found) = open(&disk).unwrap_or_else(|error| panic!("{error}"));
            prop_assert!(found == written.concat() || found == written[..acknowledged].concat());
            if found != written.concat() {
                written.truncate(acknowledged);
            }
        }
    }

    #[test]
    fn lies_of_the_disk_are_noticed_or_lose_groups_but_never_change_them(life in life(), seed in any::<u64>()) {
        let disk = MemDisk::new();
        let mut written: Vec<Vec<Read>> = Vec::new();
        let (mut journal, _) = open(&disk).unwrap();
        disk.set_lie(Some(Lie::Syncs(String::new())));
        live(&mut journal, &life, &mut written);
        drop(journal);
        let mut seed = seed;
        disk.crash(&mut |ways| next(&mut seed) % ways);
        if let Ok((_, found)) = open(&disk) {
            prop_assert!(written.concat().starts_with(&found));
        }
    }
}
