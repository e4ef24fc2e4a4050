//! The disk in memory damages what it is told to, knows what that is, and can undo it.

#![allow(clippy::unwrap_used)]

use boki_disk::mem::{Lie, MemDisk};
use boki_disk::vfs::{Vfs, VfsFile};

/// A disk with a durable file `a` of 2,000 bytes `1` and an empty one, `b`.
fn disk() -> (MemDisk, <MemDisk as Vfs>::File) {
    let disk = MemDisk::new();
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 2000], 0).unwrap();
    file.sync_data().unwrap();
    disk.create("b").unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

fn bytes(disk: &MemDisk, name: &str) -> Vec<u8> {
    disk.contents(name).unwrap()
}

/// The power goes, and everything that may be lost is.
fn cut_power(disk: &MemDisk) {
    disk.crash(&mut |_| 0);
}

#[test]
fn a_flipped_bit_is_known_and_healed_and_what_was_written_meanwhile_stays() {
    let (disk, file) = disk();
    assert!(disk.flip_bit("a", 700, 3));
    assert!(!disk.flip_bit("a", 2000, 3), "there is no such byte");
    assert_eq!(bytes(&disk, "a")[700], 1 ^ 8);
    assert!(disk.is_damaged("a", 700..701) && !disk.is_damaged("a", 0..700) && !disk.is_damaged("a", 701..2000));
    assert_eq!(disk.damaged(), ["a"]);
    file.write_at(&[2; 10], 100).unwrap();
    disk.heal();
    assert_eq!((bytes(&disk, "a")[700], bytes(&disk, "a")[100]), (1, 2));
    assert_eq!(disk.damaged(), [""; 0]);
}

#[test]
fn a_lost_write_is_not_there_and_a_forgotten_one_until_the_power_goes() {
    let (disk, file) = disk();
    disk.lose_write_after(1, true);
    file.write_at(&[2; 10], 0).unwrap();
    file.write_at(&[3; 10], 600).unwrap();
    assert_eq!((bytes(&disk, "a")[0], bytes(&disk, "a")[600]), (2, 1));
    assert!(disk.is_damaged("a", 600..610) && !disk.is_damaged("a", 0..600));
    disk.lose_write_after(0, false);
    file.write_at(&[4; 10], 1200).unwrap();
    file.sync_data().unwrap();
    assert!(bytes(&disk, "a")[1200] == 4 && disk.is_damaged("a", 1200..1210) && !disk.is_damaged("a", 1600..1610));
    cut_power(&disk);
    assert_eq!(bytes(&disk, "a")[1200], 1);
    disk.heal();
    let healed = bytes(&disk, "a");
    assert_eq!((healed[0], healed[600], healed[1200]), (2, 3, 4));
}

#[test]
fn a_misdirected_write_is_damage_in_both_places() {
    let (disk, file) = disk();
    disk.misdirect_write_after(0, "b", 50);
    file.write_at(&[2; 10], 0).unwrap();
    assert_eq!((bytes(&disk, "a")[0], &bytes(&disk, "b")[50..]), (1, &[2; 10][..]));
    assert_eq!(disk.damaged(), ["a", "b"]);
    disk.heal();
    assert_eq!((bytes(&disk, "a")[0], bytes(&disk, "b").len()), (2, 0));
}

#[test]
fn a_spoiled_sector_fails_to_read_until_it_is_written() {
    let (disk, file) = disk();
    disk.spoil_sector("a", 600);
    let mut byte = [0];
    file.read_at(&mut byte, 511).unwrap();
    assert!(file.read_at(&mut byte, 512).is_err() && disk.is_damaged("a", 512..513));
    file.write_at(&[2], 700).unwrap();
    file.read_at(&mut byte, 512).unwrap();
    disk.fail_read_after(0);
    assert!(file.read_at(&mut byte, 0).is_err());
    file.read_at(&mut byte, 0).unwrap();
    assert_eq!(disk.counts().failed_reads, 2);
}

#[test]
fn a_file_that_lost_its_end_gets_it_back() {
    let (disk, _file) = disk();
    disk.truncate("a", 1000);
    assert_eq!(bytes(&disk, "a").len(), 1000);
    assert!(disk.is_damaged("a", 1500..1501) && !disk.is_damaged("a", 0..1000));
    disk.heal();
    assert_eq!(bytes(&disk, "a"), [1; 2000]);
}

#[test]
fn after_a_failed_sync_a_good_one_proves_nothing() {
    let (disk, file) = disk();
    file.write_at(&[2], 0).unwrap();
    disk.fail_sync_after(0);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(bytes(&disk, "a")[0], 2, "memory has it");
    let other = disk.fork();
    cut_power(&disk);
    assert_eq!(bytes(&disk, "a")[0], 1);
    other.open("a").unwrap().forget_cached().unwrap();
    assert_eq!(bytes(&other, "a")[0], 1);
    assert_eq!(disk.damaged(), [""; 0], "nobody said that it was there");
}

#[test]
fn written_anew_after_a_failed_sync_it_is_durable() {
    let (disk, file) = disk();
    file.write_at(&[2], 0).unwrap();
    disk.fail_sync_after(0);
    assert!(file.sync_data().is_err());
    file.write_at(&[2], 0).unwrap();
    file.sync_data().unwrap();
    cut_power(&disk);
    assert_eq!(bytes(&disk, "a")[0], 2);
}

#[test]
fn a_worn_out_disk_writes_nothing_until_it_is_healed() {
    let (disk, file) = disk();
    disk.set_worn_out(true);
    assert!(file.write_at(&[2; 10], 0).is_err() && file.sync_data().is_err());
    file.read_at(&mut [0; 10], 0).unwrap();
    disk.heal();
    file.write_at(&[3; 10], 0).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn lies_lose_what_they_are_told_over() {
    for (lie, name) in [(Lie::Syncs("b".into()), "b"), (Lie::DirectorySyncs, "c")] {
        let (disk, _file) = disk();
        disk.set_lie(Some(lie));
        let file = disk.create(name).unwrap();
        file.write_at(b"x", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        cut_power(&disk);
        assert_ne!(disk.contents(name).as_deref(), Some(&b"x"[..]), "{name}");
    }
}
