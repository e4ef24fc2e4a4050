//! What making a write durable costs on the disk of a directory: buffered writes with `fdatasync` against direct writes that
//! are durable on return, into a file that is filled with zeros and into one that is only allocated; what a first segment
//! costs; and what the journal itself gets.
//!
//! ```text
//! cargo run --release -p boki-disk --example sync_cost [directory]
//! ```
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use boki_disk::{BLOCK_BYTES, DataDir, Frame, Journal, JournalConfig};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::{ReadWriteFlags, pwritev2};

const FILE_BYTES: u64 = 64 << 20;
const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 256 << 10];
const ROUNDS: usize = 5;
const WRITES_PER_ROUND: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Buffered,
    BufferedUnfilled,
    Direct,
}

fn main() {
    let root = std::env::args().nth(1).unwrap_or_else(|| "target".to_owned());
    let directory = tempfile::tempdir_in(root).unwrap();
    println!("{:>8}  {:<34} {:>8} {:>8}", "bytes", "", "p50 us", "p99 us");
    for size in SIZES {
        // Round by round, so that whatever else the machine does meets all ways alike.
        let mut times = [(Way::Buffered, vec![]), (Way::BufferedUnfilled, vec![]), (Way::Direct, vec![])];
        for _ in 0..ROUNDS {
            for (way, times) in &mut times {
                measure(directory.path(), *way, size, times);
            }
        }
        for (way, times) in &mut times {
            let what = match way {
                Way::Buffered => "buffered, fdatasync, zero-filled",
                Way::BufferedUnfilled => "buffered, fdatasync, only allocated",
                Way::Direct => "O_DIRECT, DSYNC, zero-filled",
            };
            if !times.is_empty() {
                report(size, what, times);
            }
        }
    }
    first_open(directory.path());
    for size in [1 << 10, 64 << 10, 256 << 10] {
        journal(directory.path(), size);
    }
}

fn report(size: usize, what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |per_cent: usize| times[(times.len() - 1) * per_cent / 100].as_micros();
    println!("{size:>8}  {what:<34} {:>8} {:>8}", at(50), at(99));
}

fn measure(directory: &Path, way: Way, size: usize, times: &mut Vec<Duration>) {
    let path = directory.join("file");
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES).unwrap();
    if way != Way::BufferedUnfilled {
        let zeros = vec![0; 1 << 20];
        for at in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at).unwrap();
        }
    }
    file.sync_all().unwrap();
    let direct = OpenOptions::new().write(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(&path);
    let mut memory = vec![7; size + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let bytes = &mut memory[start..start + size];
    // A group starts on a block, whatever its size.
    let step = size.next_multiple_of(BLOCK_BYTES) as u64;
    for index in 0..(WRITES_PER_ROUND as u64).min(FILE_BYTES / step) {
        bytes.fill(index as u8);
        let began = Instant::now();
        match (way, &direct) {
            (Way::Direct, Ok(direct)) => {
                if write_direct(direct, bytes, index * step).is_err() {
                    return;
                }
            }
            (Way::Direct, Err(_)) => return,
            _ => {
                file.write_all_at(bytes, index * step).unwrap();
                file.sync_data().unwrap();
            }
        }
        times.push(began.elapsed());
    }
}

fn write_direct(file: &File, bytes: &[u8], at: u64) -> rustix::io::Result<()> {
    let written = pwritev2(file, &[IoSlice::new(bytes)], at, ReadWriteFlags::DSYNC)?;
    assert_eq!(written, bytes.len());
    Ok(())
}

/// How long a new data directory takes to open.
fn first_open(directory: &Path) {
    for (first_segment_bytes, what) in [(4 << 20, "first segment of 4 MiB"), (64 << 20, "first segment of 64 MiB")] {
        let mut times = Vec::new();
        for round in 0..5 {
            let path = directory.join(format!("{first_segment_bytes}-{round}"));
            let began = Instant::now();
            let data = DataDir::open(&path).unwrap();
            let config = JournalConfig { first_segment_bytes, ..JournalConfig::new(data.meta().id) };
            let journal = Journal::open(data.vfs(), config, None, &mut |_| {}).unwrap();
            times.push(began.elapsed());
            drop(journal);
            std::fs::remove_dir_all(&path).unwrap();
        }
        times.sort();
        println!("opening a new directory, {what}: {} ms in the middle of 5", times[2].as_millis());
    }
}

/// What `Journal::write` takes, the making of segments included, and what opening it again takes.
fn journal(directory: &Path, size: usize) {
    let path = directory.join(format!("journal-{size}"));
    let data = DataDir::open(&path).unwrap();
    let config = JournalConfig::new(data.meta().id);
    let mut journal = Journal::open(data.vfs(), config.clone(), None, &mut |_| {}).unwrap();
    let frames = [Frame { kind: 1, parts: vec![Bytes::from(vec![7; size])] }];
    let mut locations = Vec::new();
    let mut times = Vec::new();
    let began = Instant::now();
    for _ in 0..(200_usize << 20) / size.max(64 << 10) {
        let began = Instant::now();
        journal.write(&frames, &mut locations).unwrap();
        times.push(began.elapsed());
    }
    let per_second = (times.len() * size) as f64 / began.elapsed().as_secs_f64() / f64::from(1 << 20);
    report(size, "Journal::write", &mut times);
    let max = times.last().unwrap().as_micros();
    let bytes: u64 = journal.segments().iter().map(|segment| segment.used_bytes).sum();
    drop(journal);
    let began = Instant::now();
    let mut frames = 0_u64;
    drop(Journal::open(data.vfs(), config, None, &mut |_| frames += 1).unwrap());
    let open_ms = began.elapsed().as_millis();
    println!("{:>10}max {max} us, {per_second:.0} MiB/s; {bytes} bytes opened again in {open_ms} ms", "");
    std::fs::remove_dir_all(&path).unwrap();
}
