//! A blob that is stored piece by piece.
#![no_main]

use boki_disk::mem::MemDisk;
use boki_disk::{BlobName, BlobStore};
use boki_fuzz::{DIRECTORY, add};
use crc_fast::{CrcAlgorithm, Digest};
use libfuzzer_sys::fuzz_target;

const HEADER_BYTES: usize = 16;
const PIECE_BYTES: usize = 8 + (64 << 10);

fuzz_target!(|data: &[u8]| {
    let disk = MemDisk::new();
    let name = BlobName { owner: 1, item: 2, part: 3, version: 4 };
    let mut seeded = Digest::new(CrcAlgorithm::Crc32Iscsi);
    seeded.update(&DIRECTORY.to_le_bytes());
    seeded.update(&name.owner.to_le_bytes());
    seeded.update(&name.item.to_le_bytes());
    seeded.update(&[name.part]);
    seeded.update(&name.version.to_le_bytes());
    let sum = |parts: &[&[u8]]| {
        let mut digest = seeded;
        parts.iter().for_each(|part| digest.update(part));
        (digest.finalize() as u32).to_le_bytes()
    };
    let mut bytes = data.to_vec();
    if bytes.len() >= HEADER_BYTES {
        let checksum = sum(&[&bytes[12..HEADER_BYTES]]);
        bytes[8..12].copy_from_slice(&checksum);
        for (number, piece) in bytes[HEADER_BYTES..].chunks_mut(PIECE_BYTES).enumerate() {
            if piece.len() >= 4 {
                let checksum = sum(&[&(number as u64).to_le_bytes(), &piece[4..]]);
                piece[..4].copy_from_slice(&checksum);
            }
        }
    }
    let store = BlobStore::open(disk.clone(), DIRECTORY, true).expect("a store in memory");
    add(&disk, &format!("blob/{name}"), &bytes);
    let Ok(Some(mut reader)) = store.read(name) else { return };
    let mut read = 0;
    while let Ok(Some(piece)) = reader.next_piece() {
        read += piece.len() as u64;
        assert!(read <= reader.len());
    }
});
