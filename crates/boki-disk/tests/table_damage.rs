//! Tables and what disks do to them: nothing but what was written is ever handed out, and what is wrong is named.
#![allow(clippy::unwrap_used)]

use boki_disk::mem::MemDisk;
use boki_disk::vfs::{Vfs, VfsFile};
use boki_disk::{BlockCache, Table, TableConfig, TableError, TableStore};
use bytes::Bytes;

const DIRECTORY: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
const NAME: &str = "table/0000000000000001.tbl";

fn open(disk: &MemDisk) -> TableStore<MemDisk> {
    open_in(disk, DIRECTORY)
}

fn open_in(disk: &MemDisk, directory: u128) -> TableStore<MemDisk> {
    TableStore::open(disk.clone(), TableConfig::new(directory, BlockCache::new(0))).unwrap()
}

fn key(entry: u64) -> Vec<u8> {
    format!("tag/{entry:05}").into_bytes()
}

fn value(entry: u64) -> Bytes {
    vec![entry as u8; 30].into()
}

fn write(store: &TableStore<MemDisk>, number: u64, entries: u64) -> Result<(), TableError> {
    let mut writer = store.write(number)?;
    for entry in 0..entries {
        writer.add(&key(entry), &value(entry))?;
        writer.add_filter_key(&key(entry));
    }
    writer.finish().map(drop)
}

fn is_damage(error: &TableError) -> bool {
    let named = error.to_string().contains(NAME);
    named && matches!(error, TableError::Damaged { .. })
}

/// Asks for some entries; an answer is right or an error that says that the file is damaged. How many errors there were.
fn ask(table: &Table<MemDisk>, entries: u64) -> usize {
    let mut errors = 0;
    let mut check = |error: TableError| {
        assert!(is_damage(&error), "{error}");
        errors += 1;
    };
    for entry in (0..entries).step_by(37).chain([entries - 1]) {
        let expected = Some((Bytes::from(key(entry)), value(entry)));
        match table.at_or_after(&key(entry)) {
            Ok(found) => assert_eq!(found, expected),
            Err(error) => check(error),
        }
        match table.at_or_before(&key(entry)) {
            Ok(found) => assert_eq!(found, expected),
            Err(error) => check(error),
        }
        match table.may_contain(&key(entry)) {
            Ok(may) => assert!(may, "the filter forgot a key"),
            Err(error) => check(error),
        }
    }
    let mut scan = table.scan();
    for entry in 0..=entries {
        match scan.advance() {
            Ok(true) => assert_eq!((scan.key(), scan.value()), (key(entry).as_slice(), value(entry).as_ref())),
            Ok(false) => assert_eq!(entry, entries),
            Err(error) => {
                check(error);
                break;
            }
        }
    }
    errors
}

/// What is found to be wrong with the table when it is opened or checked.
fn damage(store: &TableStore<MemDisk>) -> Vec<TableError> {
    match store.read(1) {
        Err(error) => vec![error],
        Ok(table) => {
            let mut found = Vec::new();
            table.check(&mut |error| found.push(error));
            found
        }
    }
}

fn rewrite(disk: &MemDisk, name: &str, contents: &[u8]) {
    disk.create(name).unwrap().write_at(contents, 0).unwrap();
}

#[test]
fn every_flipped_bit_is_found_and_nothing_wrong_is_handed_out() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let entries = 400;
    write(&store, 1, entries).unwrap();
    assert!(damage(&store).is_empty());
    assert_eq!(ask(&store.read(1).unwrap(), entries), 0);
    let len = disk.contents(NAME).unwrap().len() as u64;
    assert!(len > 3 * 4096, "several blocks: {len} bytes");
    for offset in 0..len {
        for bit in 0..8 {
            // Of the inner bytes a bit each, which one differs from byte to byte.
            if offset > 100 && offset + 300 < len && bit != offset % 8 {
                continue;
            }
            assert!(disk.flip_bit(NAME, offset, bit as u8));
            let found = damage(&store);
            assert!(!found.is_empty() && found.iter().all(is_damage), "bit {bit} of byte {offset}: {found:?}");
            if bit == offset % 8
                && offset % 5 == 0
                && let Ok(table) = store.read(1)
            {
                assert!(ask(&table, entries) > 0 || table.filter_bytes() > 0, "bit {bit} of byte {offset}");
            }
            assert!(disk.flip_bit(NAME, offset, bit as u8));
        }
    }
    assert!(damage(&store).is_empty());
}

#[test]
fn a_damaged_block_is_named_by_its_offset_and_the_others_still_answer() {
    let disk = MemDisk::new();
    let store = open(&disk);
    write(&store, 1, 2000).unwrap();
    assert!(disk.flip_bit(NAME, 10_000, 3));
    let table = store.read(1).unwrap();
    let mut found = Vec::new();
    table.check(&mut |error| found.push(error));
    let [TableError::Damaged { name, offset, what }] = &found[..] else { panic!("{found:?}") };
    assert_eq!((name.as_str(), *what), (NAME, "a block does not match its checksum"));
    assert!((10_000 - 4200..=10_000).contains(offset), "{offset}");
    assert_eq!(table.at_or_after(&key(1999)).unwrap().unwrap().1, value(1999));
    assert_eq!(table.at_or_before(&key(0)).unwrap().unwrap().1, value(0));
    let refused = (0..2000).filter(|entry| table.at_or_after(&key(*entry)).is_err()).count();
    assert!((1..200).contains(&refused), "{refused} of 2000");
}

#[test]
fn a_file_cut_at_any_byte_does_not_open() {
    let disk = MemDisk::new();
    let store = open(&disk);
    write(&store, 1, 300).unwrap();
    let contents = disk.contents(NAME).unwrap();
    for len in (0..contents.len()).filter(|len| *len < 200 || len + 200 > contents.len() || len % 97 == 0) {
        rewrite(&disk, NAME, &contents[..len]);
        let found = store.read(1).map(drop);
        assert!(matches!(&found, Err(error) if is_damage(error)), "cut to {len}: {found:?}");
    }
    let longer = [contents.as_slice(), b"\0"].concat();
    rewrite(&disk, NAME, &longer);
    assert!(matches!(store.read(1), Err(error) if is_damage(&error)), "a byte too many");
}

#[test]
fn a_file_that_is_not_this_table_is_named() {
    let disk = MemDisk::new();
    let store = open(&disk);
    write(&store, 1, 300).unwrap();
    write(&store, 2, 300).unwrap();
    let (one, two) = (disk.contents(NAME).unwrap(), disk.contents("table/0000000000000002.tbl").unwrap());
    let named = |contents: &[u8], what: &str| {
        rewrite(&disk, NAME, contents);
        let error = store.read(1).map(drop).unwrap_err();
        assert!(is_damage(&error) && error.to_string().contains(what), "{error}");
    };
    named(&two, "it holds another table");
    named(&vec![b'x'; 5000], "it does not start as a table does");
    named(&vec![0; 5000], "it does not start as a table does");
    // The header of this table, and the rest of the other.
    named(&[&one[..24], &two[24..]].concat(), "its end does not match its checksum");
    named(&[&one[..one.len() - 64], &two[two.len() - 64..]].concat(), "its end does not match its checksum");
    let elsewhere = open_in(&disk, DIRECTORY + 1);
    rewrite(&disk, NAME, &one);
    let error = elsewhere.read(1).map(drop).unwrap_err();
    assert!(error.to_string().contains("another data directory"), "{error}");
    disk.remove(NAME).unwrap();
    assert!(matches!(store.read(1), Err(TableError::Missing { name }) if name == NAME));
}

#[test]
fn blocks_of_another_place_or_table_are_noticed() {
    let disk = MemDisk::new();
    let store = open(&disk);
    // Keys and values of one length: blocks of one length.
    for number in [1, 2] {
        let mut writer = store.write(number).unwrap();
        for entry in 0..400u64 {
            writer.add(&entry.to_be_bytes(), &[number as u8; 100]).unwrap();
        }
        writer.finish().unwrap();
    }
    let (one, two) = (disk.contents(NAME).unwrap(), disk.contents("table/0000000000000002.tbl").unwrap());
    assert_eq!(one.len(), two.len());
    rewrite(&disk, NAME, &[&one[..24], &two[24..9000], &one[9000..]].concat());
    assert!(damage(&store).len() >= 2 && damage(&store).iter().all(is_damage), "blocks of the other table");
    // The first two blocks change places.
    rewrite(&disk, NAME, &one);
    let block_at = |offset: usize| {
        assert!(disk.flip_bit(NAME, offset as u64, 0));
        let found = damage(&store);
        assert!(disk.flip_bit(NAME, offset as u64, 0));
        let [TableError::Damaged { offset, .. }] = &found[..] else { panic!("{found:?}") };
        *offset as usize
    };
    let (second, third) = (block_at(5000), block_at(9000));
    assert!(24 < second && second - 24 == third - second, "blocks of one length: {second}, {third}");
    rewrite(&disk, NAME, &[&one[..24], &one[second..third], &one[24..second], &one[third..]].concat());
    let found = damage(&store);
    // By the checksum, not only by the order of the keys: a seek sees one block alone.
    let mismatches = found.iter().filter(|error| error.to_string().contains("a block does not match its checksum"));
    assert!(mismatches.count() == 2 && found.len() == 2, "swapped blocks: {found:?}");
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_table_whole_or_not_at_all() {
    for operations in 0.. {
        for choice in [0, 1] {
            let disk = MemDisk::new();
            let store = open(&disk);
            write(&store, 9, 10).unwrap();
            disk.cut_power_after(operations);
            let is_done = write(&store, 1, 12_000).is_ok();
            disk.crash(&mut |_| choice);
            let store = open(&disk);
            assert!(disk.names().iter().all(|name| !name.ends_with(".tmp")), "{:?}", disk.names());
            assert_eq!(store.read(9).unwrap().entries(), 10);
            match store.read(1) {
                Err(TableError::Missing { .. }) => assert!(!is_done, "lost after {operations} operations"),
                found => {
                    let found = found.unwrap();
                    found.check(&mut |error| panic!("{error}"));
                    assert_eq!(found.entries(), 12_000);
                }
            }
            if is_done && choice == 1 {
                assert!(operations > 4, "it was cut at several moments: {operations}");
                return;
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_a_table_and_leaves_nothing_of_it() {
    let disk = MemDisk::new();
    let store = open(&disk);
    for capacity in [0, 10, 100_000, 300_000] {
        disk.set_capacity(Some(capacity));
        let refused = write(&store, 1, 10_000);
        assert!(matches!(refused, Err(TableError::Full { .. })), "{capacity} bytes: {refused:?}");
        assert_eq!(disk.names(), Vec::<String>::new());
    }
    disk.set_capacity(None);
    write(&store, 1, 10_000).unwrap();
    assert!(damage(&store).is_empty());
}

#[test]
fn what_the_disk_did_not_do_is_not_taken_for_done() {
    let mut failures = 0;
    for nth in 0.. {
        let disk = MemDisk::new();
        let store = open(&disk);
        disk.fail_write_after(nth);
        match write(&store, 1, 12_000) {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, TableError::Io { .. }), "{error}"),
        }
        assert_eq!(disk.names(), Vec::<String>::new());
        failures += 1;
    }
    assert!(failures > 1, "it takes several writes: {failures}");
    let disk = MemDisk::new();
    let store = open(&disk);
    disk.fail_sync_after(0);
    assert!(matches!(write(&store, 1, 10), Err(TableError::Io { .. })));
    assert_eq!(disk.names(), Vec::<String>::new());
    // What failed once is not tried as if nothing had been.
    let mut writer = store.write(1).unwrap();
    disk.fail_write_after(0);
    let large = vec![0; 300 << 10];
    assert!(writer.add(b"a", &large).and_then(|()| writer.add(b"b", &large)).is_err());
    writer.add(b"c", b"").unwrap();
    assert!(writer.finish().is_err());
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn a_table_is_synced_as_it_grows_and_takes_no_memory_for_its_blocks() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let before = disk.counts();
    let mut writer = store.write(1).unwrap();
    let value = [7; 4000];
    for entry in 0..(20u64 << 20) / 4000 {
        writer.add(&entry.to_be_bytes(), &value).unwrap();
        // All but what is being gathered for one write is with the disk.
        let written = disk.counts().written_bytes - before.written_bytes;
        assert!(written + (300 << 10) > writer.bytes());
    }
    assert_eq!(disk.counts().syncs - before.syncs, 2, "one per 8 MiB, but for what is left to the end");
    writer.finish().unwrap();
}

#[test]
fn without_sync_nothing_is_synced() {
    let disk = MemDisk::new();
    let config = TableConfig { sync: false, ..TableConfig::new(DIRECTORY, BlockCache::new(0)) };
    let store = TableStore::open(disk.clone(), config).unwrap();
    write(&store, 1, 1000).unwrap();
    assert_eq!(disk.counts().syncs, 0);
    assert!(damage(&store).is_empty());
}
