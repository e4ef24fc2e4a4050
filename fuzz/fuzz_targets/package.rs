//! A package of a version, as `boki deploy` sends it: a tar from somebody who is not trusted.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use boki_server::fuzzing::unpack;
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = if fs::exists("/dev/shm").unwrap_or_default() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    root.join(format!("boki-fuzz-{}", std::process::id()))
});

const BLOCK: usize = 512;

fuzz_target!(|data: &[u8]| {
    let _ = fs::remove_dir_all(&*FOLDER);
    let inside = FOLDER.join("inside");
    fs::create_dir_all(&inside).expect("a folder for tests");
    let mut package = data.to_vec();
    // The checksum of what may be headers made right: the sum of the block's bytes, with its own field as spaces.
    for block in package.chunks_exact_mut(BLOCK).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let _ = unpack(&package, &inside, 1 << 20, 100);
    let around: Vec<_> = fs::read_dir(&*FOLDER).expect("the folder").map(|entry| entry.map(|e| e.file_name())).collect();
    assert_eq!(around.len(), 1, "nothing is made outside: {around:?}");
    let _ = fs::remove_dir_all(&*FOLDER);
});
