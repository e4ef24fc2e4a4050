//! A data directory whose `FORMAT` and `meta` hold anything.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use boki_disk::DataDir;
use boki_fuzz::{pieces, seal};
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = if fs::exists("/dev/shm").unwrap_or_default() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    root.join(format!("boki-fuzz-{}", std::process::id()))
});

fuzz_target!(|data: &[u8]| {
    let _ = fs::remove_dir_all(&*FOLDER);
    fs::create_dir(&*FOLDER).expect("a folder for tests");
    let pieces = pieces(data);
    if let Some(format) = pieces.first() {
        fs::write(FOLDER.join("FORMAT"), format).expect("a file for tests");
    }
    if let Some(meta) = pieces.get(1) {
        let mut meta = meta.to_vec();
        seal(&mut meta, 8);
        fs::write(FOLDER.join("meta"), meta).expect("a file for tests");
    }
    let opened = DataDir::open(&*FOLDER).map(|directory| *directory.meta());
    if let Ok(meta) = opened {
        let again = *DataDir::open(&*FOLDER).expect("what opened once opens again").meta();
        assert_eq!((again.id, again.node), (meta.id, meta.node));
    }
    let _ = fs::remove_dir_all(&*FOLDER);
});
