//! The index's tables beside embedded stores: `cargo run --release -- STORE POSTINGS DIRECTORY`.
//!
//! The load is what leaves the index's memory: postings (a tag, a seq) in the order of their seqs, ten per tag on average,
//! the tags at random, in **runs** of a million that were sorted in memory. A run has one entry per tag: tag and first seq in
//! the key, the other seqs as differences in the value. Then lookups with a cache of 64 MiB: the tail of tags that there
//! are and of tags that there are not, and ten postings from a place in the middle. Every answer is checked.

mod load;
mod stores;

use std::path::Path;
use std::time::Instant;

use load::{Load, Posting};
use stores::Store;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of blocks or pages that a store may keep in memory.
pub const CACHE_BYTES: usize = 64 << 20;

/// Lookups of each kind.
const LOOKUPS: u64 = 200_000;

const USAGE: &str = "usage: index-stores tables|fjall|fjall-keys|redb POSTINGS DIRECTORY";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, postings, dir] = arguments.as_slice() else { return Err(USAGE.into()) };
    let load = Load::new(postings.parse()?);
    let dir = Path::new(dir);
    std::fs::create_dir_all(dir)?;
    let open = |dir: &Path| -> Result<Box<dyn Store>, Box<dyn std::error::Error>> {
        Ok(match store.as_str() {
            "tables" => Box::new(stores::Tables::open(dir)?),
            "fjall" => Box::new(stores::Fjall::open(dir, false)?),
            "fjall-keys" => Box::new(stores::Fjall::open(dir, true)?),
            "redb" => Box::new(stores::Redb::open(dir)?),
            _ => return Err(USAGE.into()),
        })
    };
    let begun = Instant::now();
    let mut opened = open(dir)?;
    let mut sorting = std::time::Duration::ZERO;
    for run in 0..load.runs() {
        let sorts = Instant::now();
        let postings = load.run(run);
        sorting += sorts.elapsed();
        opened.add_run(&postings)?;
    }
    opened.settle()?;
    let inserts = begun.elapsed() - sorting;
    let rate = load.postings as f64 / inserts.as_secs_f64();
    println!("{store}: {} postings of {} tags", load.postings, load.tags);
    println!(
        "  insert           {:>10.0} postings/s ({:.1} s, and {:.1} s of CPU)",
        rate,
        inserts.as_secs_f64(),
        cpu_seconds()
    );
    println!("  disk             {:>10.1} bytes/posting", bytes_under(dir)? as f64 / load.postings as f64);
    println!("  memory           {:>10.1} MiB, at most {:.1} MiB", memory_mib("VmRSS:"), memory_mib("VmHWM:"));

    drop(opened);
    let begun = Instant::now();
    let opened = open(dir)?;
    println!("  open             {:>10.2} ms", begun.elapsed().as_secs_f64() * 1e3);

    let tag = |lookup: u64| load::scatter(lookup ^ 0x5555) % load.tags * 2;
    let tails = load.tails((0..LOOKUPS).map(tag));
    for round in ["first", "again"] {
        time(&format!("tail, {round}"), || {
            for lookup in 0..LOOKUPS {
                let tag = tag(lookup);
                assert_eq!(opened.tail(tag)?, tails.get(&tag).copied(), "tail of {tag}");
            }
            Ok(())
        })?;
    }
    time("tail, absent", || {
        for lookup in 0..LOOKUPS {
            assert_eq!(opened.tail(tag(lookup) + 1)?, None);
        }
        Ok(())
    })?;
    time("ten from there", || {
        for lookup in 0..LOOKUPS {
            let from = load::scatter(lookup) % load.postings;
            let tag = load.tag_of(from);
            let found: Vec<Posting> = opened.next(tag, from, 10)?.into_iter().map(|seq| (tag, seq)).collect();
            assert_eq!(found.first(), Some(&(tag, from)));
            assert!(found.iter().all(|(tag, seq)| load.tag_of(*seq) == *tag));
        }
        Ok(())
    })?;
    println!("  memory then      {:>10.1} MiB", memory_mib("VmRSS:"));
    Ok(())
}

fn time(what: &str, lookups: impl FnOnce() -> stores::Result<()>) -> stores::Result<()> {
    let (begun, ran) = (Instant::now(), ran_nanoseconds());
    lookups()?;
    let each = |nanoseconds: f64| nanoseconds / 1e3 / LOOKUPS as f64;
    let (wall, cpu) = (each(begun.elapsed().as_nanos() as f64), each(ran_nanoseconds() - ran));
    println!("  {what:<16} {wall:>10.2} us, {cpu:.2} us of CPU");
    Ok(())
}

/// How long the first thread was on a CPU: on a machine that others use too, what a lookup costs.
fn ran_nanoseconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ran| ran.parse().ok()).unwrap_or(0.0)
}

fn bytes_under(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_under(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

fn memory_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
