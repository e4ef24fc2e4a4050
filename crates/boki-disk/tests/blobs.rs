//! Blobs that are stored piece by piece: whole or not at all, whatever the disk does, and never anything but what was written.
#![allow(clippy::unwrap_used)]

use boki_disk::mem::MemDisk;
use boki_disk::{BlobError, BlobName, BlobStore, PIECE_BYTES};
use bytes::Bytes;

const DIRECTORY: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
const NAME: BlobName = BlobName { owner: 1, item: 2, part: 3, version: 4 };

fn open(disk: &MemDisk) -> BlobStore<MemDisk> {
    BlobStore::open(disk.clone(), DIRECTORY, true).unwrap()
}

/// Bytes that differ from piece to piece.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at / PIECE_BYTES).wrapping_mul(7)) as u8).collect()
}

fn put(store: &BlobStore<MemDisk>, name: BlobName, bytes: &[u8]) -> Result<(), BlobError> {
    let mut writer = store.write(name)?;
    for part in bytes.chunks(10_007) {
        writer.write(part)?;
    }
    assert_eq!(writer.len(), bytes.len() as u64);
    writer.finish()
}

fn get(store: &BlobStore<MemDisk>, name: BlobName) -> Result<Option<Vec<u8>>, BlobError> {
    let Some(mut reader) = store.read(name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next_piece()? {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(reader.len(), bytes.len() as u64);
    Ok(Some(bytes))
}

#[test]
fn a_blob_of_any_length_is_read_back() {
    let store = open(&MemDisk::new());
    assert_eq!(get(&store, NAME).unwrap(), None);
    for (version, len) in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES].into_iter().enumerate()
    {
        let name = BlobName { version: version as u64, ..NAME };
        let bytes = payload(len);
        put(&store, name, &bytes).unwrap();
        assert_eq!(get(&store, name).unwrap().unwrap(), bytes, "{len} bytes");
    }
    assert_eq!(store.names().unwrap().len(), 6);
    let first = BlobName { version: 0, ..NAME };
    store.remove(first).unwrap();
    store.remove(first).unwrap();
    assert_eq!(get(&store, first).unwrap(), None);
    assert_eq!(store.names().unwrap().len(), 5);
}

#[test]
fn a_blob_that_is_given_up_leaves_nothing() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let mut writer = store.write(NAME).unwrap();
    writer.write(&payload(2 * PIECE_BYTES)).unwrap();
    assert_eq!((disk.names().len(), store.names().unwrap().len()), (1, 0));
    drop(writer);
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_blob_whole_or_not_at_all() {
    let bytes = payload(2 * PIECE_BYTES + 100);
    for operations in 0.. {
        for choice in [0, 1] {
            let disk = MemDisk::new();
            let store = open(&disk);
            put(&store, BlobName { item: 9, ..NAME }, b"older").unwrap();
            disk.cut_power_after(operations);
            let done = put(&store, NAME, &bytes).is_ok();
            disk.crash(&mut |_| choice);
            let store = open(&disk);
            assert!(disk.names().iter().all(|name| !name.ends_with(".tmp")), "{:?}", disk.names());
            assert_eq!(get(&store, BlobName { item: 9, ..NAME }).unwrap().unwrap(), b"older");
            match get(&store, NAME) {
                Ok(None) => assert!(!done, "lost after {operations} operations"),
                found => assert_eq!(found.unwrap().unwrap(), bytes, "after {operations} operations"),
            }
            if done && choice == 1 {
                return;
            }
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let bytes = payload(PIECE_BYTES + 20);
    put(&store, NAME, &bytes).unwrap();
    let file = format!("blob/{NAME}");
    let contents = disk.contents(&file).unwrap();
    // Headers and the short piece bit by bit; of the long piece's body every 1000th byte.
    let offsets = (0..32).chain((32..PIECE_BYTES).step_by(1000)).chain(PIECE_BYTES..contents.len());
    for offset in offsets {
        for bit in 0..8 {
            assert!(disk.flip_bit(&file, offset as u64, bit));
            let found = get(&store, NAME);
            assert!(matches!(found, Err(BlobError::Damaged { .. })), "bit {bit} of byte {offset}: {found:?}");
            assert!(disk.flip_bit(&file, offset as u64, bit));
        }
    }
    assert_eq!(get(&store, NAME).unwrap().unwrap(), bytes);
    for len in (0..64).chain(PIECE_BYTES - 8..contents.len()) {
        rewrite(&disk, &file, &contents[..len]);
        let found = get(&store, NAME);
        assert!(matches!(found, Err(BlobError::Damaged { .. })), "cut to {len}: {found:?}");
    }
}

fn rewrite(disk: &MemDisk, file: &str, contents: &[u8]) {
    use boki_disk::vfs::{Vfs, VfsFile};
    disk.create(file).unwrap().write_at(contents, 0).unwrap();
}

#[test]
fn pieces_of_another_blob_or_place_are_noticed() {
    let disk = MemDisk::new();
    let store = open(&disk);
    put(&store, NAME, &payload(3 * PIECE_BYTES)).unwrap();
    let file = format!("blob/{NAME}");
    let contents = disk.contents(&file).unwrap();
    let other = BlobName { version: 5, ..NAME };
    rewrite(&disk, &format!("blob/{other}"), &contents);
    assert!(matches!(get(&store, other), Err(BlobError::Damaged { .. })), "another name");
    let elsewhere = BlobStore::open(disk.clone(), DIRECTORY + 1, true).unwrap();
    assert!(matches!(get(&elsewhere, NAME), Err(BlobError::Damaged { .. })), "another directory");
    let piece = PIECE_BYTES + 8;
    let mut swapped = contents.clone();
    swapped[16..16 + piece].copy_from_slice(&contents[16 + piece..16 + 2 * piece]);
    swapped[16 + piece..16 + 2 * piece].copy_from_slice(&contents[16..16 + piece]);
    rewrite(&disk, &file, &swapped);
    assert!(matches!(get(&store, NAME), Err(BlobError::Damaged { .. })), "swapped pieces");
    rewrite(&disk, &file, &contents[..16 + 2 * piece]);
    assert!(matches!(get(&store, NAME), Err(BlobError::Damaged { .. })), "without the last piece");
}

#[test]
fn a_full_disk_refuses_a_blob_and_leaves_nothing_of_it() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let bytes = payload(4 * PIECE_BYTES);
    for capacity in [0, 10, 1000, PIECE_BYTES as u64, 3 * PIECE_BYTES as u64, 4 * PIECE_BYTES as u64] {
        disk.set_capacity(Some(capacity));
        let refused = put(&store, NAME, &bytes);
        assert!(matches!(refused, Err(BlobError::Full { .. })), "{capacity} bytes: {refused:?}");
        assert_eq!(disk.names(), Vec::<String>::new());
    }
    disk.set_capacity(None);
    put(&store, NAME, &bytes).unwrap();
    assert_eq!(get(&store, NAME).unwrap().unwrap(), bytes);
}

#[test]
fn what_the_disk_did_not_do_is_not_taken_for_done() {
    let bytes = payload(3 * PIECE_BYTES);
    for nth in 0.. {
        let disk = MemDisk::new();
        let store = open(&disk);
        disk.fail_write_after(nth);
        if put(&store, NAME, &bytes).is_ok() {
            break;
        }
        assert_eq!(disk.names(), Vec::<String>::new());
    }
    let disk = MemDisk::new();
    let store = open(&disk);
    let mut writer = store.write(NAME).unwrap();
    writer.write(&bytes).unwrap();
    disk.fail_sync_after(0);
    assert!(matches!(writer.finish(), Err(BlobError::Io { .. })));
    assert_eq!(disk.names(), Vec::<String>::new());
    // What failed once is not tried as if nothing had been: the disk may have dropped what it could not write.
    let mut writer = store.write(NAME).unwrap();
    disk.fail_write_after(0);
    assert!(writer.write(&bytes).is_err());
    assert!(writer.write(&bytes).is_err());
    assert!(writer.finish().is_err());
    assert_eq!(disk.names(), Vec::<String>::new());
}

#[test]
fn a_large_blob_is_synced_as_it_grows_and_takes_no_memory() {
    let disk = MemDisk::new();
    let store = open(&disk);
    let piece = Bytes::from(payload(PIECE_BYTES));
    let before = disk.counts();
    let mut writer = store.write(NAME).unwrap();
    for _ in 0..(32 << 20) / PIECE_BYTES {
        writer.write(&piece).unwrap();
        // All but the piece that is being filled is with the disk.
        let written = disk.counts().written_bytes - before.written_bytes;
        assert!(written + 2 * PIECE_BYTES as u64 > writer.len());
    }
    let growing = disk.counts().syncs - before.syncs;
    assert_eq!(growing, 3, "one per 8 MiB, but for what is left to the end");
    writer.finish().unwrap();
}

#[test]
fn files_that_are_none_of_ours_are_left_alone() {
    let disk = MemDisk::new();
    rewrite(&disk, "blob/notes.txt", b"mine");
    rewrite(&disk, &format!("blob/{NAME}.tmp"), b"torn");
    let store = open(&disk);
    assert_eq!(store.names().unwrap(), []);
    assert_eq!(disk.names(), ["blob/notes.txt"]);
}
