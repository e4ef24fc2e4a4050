//! A table of the index: what opens can be asked anything, and says the same each time.
#![no_main]

use boki_disk::mem::MemDisk;
use boki_disk::{BlockCache, TableConfig, TableStore};
use boki_fuzz::{DIRECTORY, add, pieces};
use libfuzzer_sys::fuzz_target;

// A table of the pieces of the input, with some of its bytes changed: noise alone never gets past its checksums, and every
// answer of what has passed must be one of what was written.
fuzz_target!(|data: &[u8]| {
    let pieces = pieces(data);
    let Some((changes, entries)) = pieces.split_first() else { return };
    let disk = MemDisk::new();
    let store = || TableStore::open(disk.clone(), TableConfig::new(DIRECTORY, BlockCache::new(1 << 16))).expect("a store");
    let mut written = store().write(1).expect("a disk in memory takes every file");
    let mut keys: Vec<_> = entries.to_vec();
    keys.sort();
    keys.dedup();
    let mut kept = Vec::new();
    for key in keys {
        if written.add(&key, &key).is_ok() {
            written.add_filter_key(&key);
            kept.push(key);
        }
    }
    written.finish().expect("a disk in memory takes every byte");
    let name = disk.names().into_iter().find(|name| name.starts_with("table/")).expect("the table's file");
    let mut bytes = disk.contents(&name).expect("the table's file");
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
    add(&disk, &name, &bytes);
    let Ok(table) = store().read(1) else { return };
    for key in &kept {
        let Ok(true) = table.may_contain(key) else { continue };
        if let Ok(found) = table.at_or_after(key) {
            assert_eq!(found.map(|(key, _)| key).as_ref(), Some(key));
        }
        if let Ok(found) = table.at_or_before(key) {
            assert_eq!(found.map(|(key, _)| key).as_ref(), Some(key));
        }
    }
    let mut scan = table.scan();
    let mut next = kept.iter();
    while let Ok(true) = scan.advance() {
        assert_eq!(Some(scan.key()), next.next().map(|key| &key[..]));
    }
    table.check(&mut |_| {});
});
