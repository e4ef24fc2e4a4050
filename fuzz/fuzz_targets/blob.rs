//! A small file that is replaced as a whole: `meta`, `checkpoint`, `seg/removed`.
#![no_main]

use boki_disk::mem::MemDisk;
use boki_fuzz::{add, seal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    if bytes.first().is_none_or(|first| *first != 0) {
        seal(&mut bytes, 8);
    }
    let disk = MemDisk::new();
    add(&disk, "a", &bytes);
    if let Ok(body) = boki_disk::read_blob(&disk, "a") {
        let body = body.expect("the file is there");
        // What is accepted is what would be written.
        boki_disk::write_blob(&disk, "b", &body).expect("a disk in memory takes every file");
        assert_eq!(disk.contents("b"), Some(bytes));
    }
});
