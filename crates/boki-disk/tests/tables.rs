//! Tables: what was written is found from both sides, by seeks and by scans.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use boki_disk::mem::MemDisk;
use boki_disk::{
    BlockCache, BlockCodec, BlockPlace, MAX_KEY_BYTES, MAX_VALUE_BYTES, Merge, Table, TableConfig, TableError,
    TableStore,
};
use bytes::Bytes;
use proptest::prelude::*;

const DIRECTORY: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn store(disk: &MemDisk, cache_bytes: u64) -> TableStore<MemDisk> {
    TableStore::open(disk.clone(), TableConfig::new(DIRECTORY, BlockCache::new(cache_bytes))).unwrap()
}

fn write(store: &TableStore<MemDisk>, number: u64, model: &Model) -> Table<MemDisk> {
    let mut writer = store.write(number).unwrap();
    for (key, value) in model {
        writer.add(key, value).unwrap();
        writer.add_filter_key(key);
    }
    let info = writer.finish().unwrap();
    assert_eq!((info.number, info.entries), (number, model.len() as u64));
    assert_eq!(info.first_key, model.keys().next().cloned().unwrap_or_default());
    assert_eq!(info.last_key, model.keys().next_back().cloned().unwrap_or_default());
    let table = store.read(number).unwrap();
    assert_eq!((table.number(), table.entries(), table.file_bytes()), (number, info.entries, info.bytes));
    table
}

fn owned(entry: Option<(&Vec<u8>, &Vec<u8>)>) -> Option<(Bytes, Bytes)> {
    entry.map(|(key, value)| (key.clone().into(), value.clone().into()))
}

fn check_seeks(table: &Table<MemDisk>, model: &Model, key: &[u8]) {
    let after = model.range::<[u8], _>((Bound::Included(key), Bound::Unbounded)).next();
    assert_eq!(table.at_or_after(key).unwrap(), owned(after), "at or after {key:?}");
    let before = model.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
    assert_eq!(table.at_or_before(key).unwrap(), owned(before), "at or before {key:?}");
    if model.contains_key(key) {
        assert!(table.may_contain(key).unwrap(), "{key:?}");
    }
}

/// Keys just below, at and just above `key`.
fn around(key: &[u8]) -> Vec<Vec<u8>> {
    let mut above = key.to_vec();
    above.push(0);
    let mut keys = vec![key.to_vec(), above];
    if let Some((last, rest)) = key.split_last() {
        keys.push(rest.to_vec());
        if *last > 0 {
            keys.push([rest, &[last - 1, 0xff, 0xff]].concat());
        }
    }
    keys
}

fn check_all(table: &Table<MemDisk>, model: &Model) {
    for key in model.keys().step_by(1 + model.len() / 2000) {
        around(key).iter().for_each(|key| check_seeks(table, model, key));
    }
    let mut found = Model::new();
    let mut scan = table.scan();
    while scan.advance().unwrap() {
        assert!(found.last_key_value().is_none_or(|(last, _)| last.as_slice() < scan.key()));
        found.insert(scan.key().to_vec(), scan.value().to_vec());
    }
    assert!(!scan.advance().unwrap());
    assert_eq!(found, *model);
    table.check(&mut |damage| panic!("{damage}"));
}

/// Many entries with keys as the index has them.
fn postings(entries: u64) -> Model {
    let key = |entry: u64| format!("\x01book{:02}tag/{:06}\0{:08}", entry % 3, entry / 7, entry).into_bytes();
    (0..entries).map(|entry| (key(entry), vec![entry as u8; entry as usize % 40])).collect()
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(97), Just(255)], 0..6),
        "tag/[a-c]{1,3}/[0-9]{0,4}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => proptest::collection::vec(any::<u8>(), 0..80),
        1 => (any::<u8>(), 3000..9000usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_answers_as_a_sorted_map_does(
        model in proptest::collection::btree_map(key(), value(), 0..400),
        others in proptest::collection::vec(key(), 0..40),
        cache_bytes in prop_oneof![Just(0u64), Just(20_000), Just(1 << 20)],
    ) {
        let store = store(&MemDisk::new(), cache_bytes);
        let table = write(&store, 1, &model);
        check_all(&table, &model);
        for key in &others {
            check_seeks(&table, &model, key);
            let mut scan = table.scan_from(key).unwrap();
            for (key, value) in model.range(key.clone()..).take(50) {
                prop_assert!(scan.advance().unwrap());
                prop_assert_eq!((scan.key(), scan.value()), (key.as_slice(), value.as_slice()));
            }
        }
    }

    #[test]
    fn a_merge_is_all_entries_in_order_and_of_equal_keys_the_earlier_tables_first(
        models in proptest::collection::vec(proptest::collection::btree_map(key(), value(), 0..100), 0..6),
    ) {
        let store = store(&MemDisk::new(), 0);
        let tables: Vec<_> = models.iter().zip(1..).map(|(model, number)| write(&store, number, model)).collect();
        let mut expected = BTreeMap::new();
        for (source, model) in models.iter().enumerate() {
            expected.extend(model.iter().map(|(key, value)| ((key.clone(), source), value.clone())));
        }
        let mut merge = Merge::new(&tables).unwrap();
        let mut found = Vec::new();
        while merge.advance().unwrap() {
            found.push(((merge.key().to_vec(), merge.source()), merge.value().to_vec()));
        }
        prop_assert!(!merge.advance().unwrap());
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_large_table_is_searched_through_a_small_cache() {
    let disk = MemDisk::new();
    let store = store(&disk, 64 << 10);
    let model = postings(40_000);
    let table = write(&store, 7, &model);
    check_all(&table, &model);
    let blocks = table.file_bytes() / 4096;
    assert!(blocks > 200, "it has many blocks: {blocks}");
    // The index takes a separator and 12 bytes for each, the filter 12 bits for each key, once it was asked.
    let memory = table.memory_bytes() as u64 - table.filter_bytes();
    assert!(memory < blocks * 64, "{memory} bytes for {blocks} blocks");
    assert!(table.filter_bytes() < 40_000 * 12 / 8 + 64);
    let fresh = store.read(7).unwrap();
    assert!((fresh.memory_bytes() as u64) < memory + 1000, "a filter that nobody asked is not in memory");
}

#[test]
fn the_filter_knows_most_keys_that_are_absent() {
    let store = store(&MemDisk::new(), 0);
    let mut writer = store.write(1).unwrap();
    for tag in 0..20_000u64 {
        writer.add_filter_key(&tag.to_be_bytes());
        writer.add_filter_key(&tag.to_be_bytes());
    }
    let info = writer.finish().unwrap();
    assert_eq!(info.filter_keys, 20_000, "given twice at once, it counts once");
    let table = store.read(1).unwrap();
    assert!((0..20_000u64).all(|tag| table.may_contain(&tag.to_be_bytes()).unwrap()));
    let wrong = (20_000..120_000u64).filter(|tag| table.may_contain(&tag.to_be_bytes()).unwrap()).count();
    assert!(wrong < 1000, "{wrong} of 100000");
    assert_eq!((table.at_or_after(b"").unwrap(), table.at_or_before(b"a").unwrap()), (None, None));
}

#[test]
fn blocks_are_read_once_while_the_cache_holds_them() {
    let cache = BlockCache::new(1 << 20);
    let store = TableStore::open(MemDisk::new(), TableConfig::new(DIRECTORY, cache.clone())).unwrap();
    let model = postings(5_000);
    let table = write(&store, 1, &model);
    for _ in 0..3 {
        model.keys().for_each(|key| check_seeks(&table, &model, key));
    }
    let (_, misses) = cache.hits_and_misses();
    assert!(misses <= table.file_bytes() / 3000, "{misses} reads for a file of {} bytes", table.file_bytes());
    assert!(cache.used_bytes() >= table.file_bytes() / 2 && cache.used_bytes() <= cache.capacity_bytes());
    // Opened again, it is another file: nothing of the first is taken for it.
    let again = store.read(1).unwrap();
    again.at_or_after(b"").unwrap();
    assert_eq!(cache.hits_and_misses().1, misses + 1);
}

#[test]
fn a_cache_holds_no_more_than_it_may() {
    for capacity in [0, 1 << 10, 16 << 10, 200 << 10] {
        let cache = BlockCache::new(capacity);
        let store = TableStore::open(MemDisk::new(), TableConfig::new(DIRECTORY, cache.clone())).unwrap();
        let model = postings(20_000);
        let table = write(&store, 1, &model);
        for key in model.keys().step_by(11) {
            table.at_or_after(key).unwrap();
            assert!(cache.used_bytes() <= capacity, "{} of {capacity}", cache.used_bytes());
        }
    }
}

#[test]
fn keys_out_of_order_and_entries_too_large_are_refused() {
    let store = store(&MemDisk::new(), 0);
    let mut writer = store.write(1).unwrap();
    writer.add(b"", b"empty").unwrap();
    for key in [b"".as_slice(), b"b"] {
        let _ = writer.add(key, b"");
    }
    for key in [b"".as_slice(), b"a", b"b"] {
        assert!(matches!(writer.add(key, b""), Err(TableError::Unordered { .. })), "{key:?}");
    }
    let long = vec![b'z'; MAX_KEY_BYTES + 1];
    assert!(matches!(writer.add(&long, b""), Err(TableError::TooLarge { .. })));
    let large = vec![0; MAX_VALUE_BYTES + 1];
    assert!(matches!(writer.add(b"c", &large), Err(TableError::TooLarge { .. })));
    writer.add(&long[1..], &large[1..]).unwrap();
    writer.finish().unwrap();
    let table = store.read(1).unwrap();
    assert_eq!(table.entries(), 3);
    assert_eq!(table.at_or_after(b"c").unwrap().unwrap().1.len(), MAX_VALUE_BYTES);
}

/// Not a cipher: it turns bits over, by the place.
#[derive(Debug)]
struct Turned;

impl BlockCodec for Turned {
    fn id(&self) -> u8 {
        7
    }

    fn seal(&self, place: &BlockPlace, block: &[u8], out: &mut Vec<u8>) {
        out.push(place.table as u8);
        out.extend(block.iter().map(|byte| byte ^ place.offset as u8 ^ 0xa5));
    }

    fn open(&self, place: &BlockPlace, sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (first, rest) = sealed.split_first()?;
        (*first == place.table as u8).then(|| rest.iter().map(|byte| byte ^ place.offset as u8 ^ 0xa5).collect())
    }
}

#[test]
fn a_codec_lies_around_everything_that_says_something() {
    let disk = MemDisk::new();
    let config = TableConfig { codec: Arc::new(Turned), ..TableConfig::new(DIRECTORY, BlockCache::new(1 << 20)) };
    let turned = TableStore::open(disk.clone(), config).unwrap();
    let model: Model = (0..3000u64).map(|n| (format!("secret{n:05}").into_bytes(), b"secret".to_vec())).collect();
    let table = write(&turned, 3, &model);
    check_all(&table, &model);
    let contents = disk.contents("table/0000000000000003.tbl").unwrap();
    assert!(!contents.windows(6).any(|window| window == b"secret"));
    let refused = store(&disk, 0).read(3).unwrap_err();
    assert!(refused.to_string().contains("sealed otherwise"), "{refused}");
}

#[test]
fn the_store_lists_and_removes_tables_and_leaves_other_files_alone() {
    use boki_disk::vfs::Vfs;
    let disk = MemDisk::new();
    for name in ["table/0000000000000009.tmp", "table/notes.tbl", "table/9.tbl", "table/0000000000000005.txt"] {
        disk.create(name).unwrap();
    }
    let store = store(&disk, 0);
    assert!(!disk.names().contains(&"table/0000000000000009.tmp".to_owned()));
    let table = write(&store, 12, &postings(500));
    write(&store, 4, &postings(5));
    assert_eq!(store.numbers().unwrap(), [4, 12]);
    store.remove(12).unwrap();
    store.remove(12).unwrap();
    assert_eq!(store.numbers().unwrap(), [4]);
    assert!(matches!(store.read(12), Err(TableError::Missing { .. })));
    drop(table);
    assert_eq!(disk.names().len(), 4);
}
