//! What a table costs: writing an entry, a filter that says no, and a seek with and without the block in the cache:
//! `cargo bench -p boki-disk`.
#![allow(missing_docs, clippy::unwrap_used)]

use boki_disk::vfs::RealVfs;
use boki_disk::{BlockCache, Merge, Table, TableConfig, TableStore};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES: u64 = 1_000_000;

/// As the index has them: kind, book, tag, 0, seq.
fn key(out: &mut Vec<u8>, tag: u64, seq: u64) {
    out.clear();
    out.push(1);
    out.extend_from_slice(&7u64.to_be_bytes());
    out.extend_from_slice(format!("user/{tag:08}").as_bytes());
    out.push(0);
    out.extend_from_slice(&seq.to_be_bytes());
}

fn write(store: &TableStore<RealVfs>, number: u64, entries: u64) -> Table<RealVfs> {
    let mut writer = store.write(number).unwrap();
    let mut bytes = Vec::new();
    for tag in 0..entries {
        key(&mut bytes, tag, tag);
        writer.add(&bytes, &[7; 12]).unwrap();
        writer.add_filter_key(&bytes[1..bytes.len() - 8]);
    }
    writer.finish().unwrap();
    store.read(number).unwrap()
}

/// Numbers that jump about.
fn scattered(turn: &mut u64) -> u64 {
    *turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*turn >> 20) % ENTRIES
}

fn bench(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let config = TableConfig { sync: false, ..TableConfig::new(1, BlockCache::new(256 << 20)) };
    let store = TableStore::open(RealVfs::new(dir.path()).unwrap(), config).unwrap();
    let none = TableConfig { sync: false, ..TableConfig::new(1, BlockCache::new(0)) };
    let uncached = TableStore::open(RealVfs::new(dir.path()).unwrap(), none).unwrap();

    let mut group = criterion.benchmark_group("table");
    group.sample_size(10).throughput(Throughput::Elements(ENTRIES / 10));
    group.bench_function("write an entry", |bencher| bencher.iter(|| write(&store, 2, ENTRIES / 10)));
    let table = write(&store, 1, ENTRIES);
    let small: Vec<_> = (3..7).map(|number| write(&store, number, ENTRIES / 40)).collect();
    group.bench_function("merge an entry of four tables", |bencher| {
        bencher.iter(|| {
            let mut merge = Merge::new(&small).unwrap();
            let mut bytes = 0;
            while merge.advance().unwrap() {
                bytes += merge.key().len() + merge.value().len();
            }
            bytes
        });
    });
    group.sample_size(50).throughput(Throughput::Elements(1));
    let (mut turn, mut bytes) = (1, Vec::new());
    group.bench_function("filter says no", |bencher| {
        bencher.iter(|| {
            key(&mut bytes, ENTRIES + scattered(&mut turn), 0);
            table.may_contain(&bytes[1..bytes.len() - 8]).unwrap()
        });
    });
    let without = uncached.read(1).unwrap();
    for (name, table) in [("cached", &table), ("page cache", &without)] {
        group.bench_function(format!("last at or before a key, {name}"), |bencher| {
            bencher.iter(|| {
                key(&mut bytes, scattered(&mut turn), u64::MAX);
                table.at_or_before(&bytes).unwrap().unwrap()
            });
        });
        group.bench_function(format!("first at or after a key, {name}"), |bencher| {
            bencher.iter(|| {
                key(&mut bytes, scattered(&mut turn), 0);
                table.at_or_after(&bytes).unwrap().unwrap()
            });
        });
    }
    group.sample_size(10);
    group.bench_function("open", |bencher| bencher.iter(|| store.read(1).unwrap()));
    group.finish();
    println!(
        "{ENTRIES} entries: file {} bytes, index {} bytes of memory, filter {} bytes",
        table.file_bytes(),
        table.memory_bytes() as u64 - table.filter_bytes(),
        table.filter_bytes()
    );
}

criterion_group!(benches, bench);
criterion_main!(benches);
