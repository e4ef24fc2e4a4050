//! The keys of an encrypted data directory: who is let in, how one key follows another, and that blobs are sealed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use boki_disk::vfs::Vfs;
use boki_disk::{BlobError, BlobName, BlobStore, DataDir, DataKey, DataKeys, DirError, PIECE_BYTES};

fn key(byte: u8) -> DataKey {
    DataKey::from_bytes([byte; 32])
}

fn keys(current: u8, old: &[u8]) -> DataKeys {
    DataKeys { current: key(current), old: old.iter().copied().map(key).collect() }
}

fn open(path: &Path, current: u8, old: &[u8]) -> Result<DataDir, DirError> {
    begun(DataDir::open_with(path, Some(&keys(current, old)), false))
}

fn open_plain(path: &Path) -> Result<DataDir, DirError> {
    begun(DataDir::open(path))
}

fn begun(opened: Result<DataDir, DirError>) -> Result<DataDir, DirError> {
    opened.inspect(|directory| {
        directory.vfs().create_dir("seg").unwrap();
        directory.begin().unwrap();
    })
}

fn needs(error: DirError, byte: u8) -> bool {
    matches!(error, DirError::NoKey { key: needed, .. } if needed.to_string() == key(byte).check().to_string())
}

#[test]
fn an_encrypted_directory_opens_with_its_key_only() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(root.path(), 1, &[]).unwrap();
    assert!(directory.keyring().is_some_and(|ring| !ring.accepts_plain()));
    drop(directory);
    assert!(needs(open_plain(root.path()).unwrap_err(), 1));
    assert!(needs(open(root.path(), 2, &[]).unwrap_err(), 1));
    assert_eq!(open(root.path(), 1, &[]).unwrap().meta().term, 2, "who was refused has changed nothing");
}

#[test]
fn a_key_for_a_directory_that_is_not_encrypted_is_refused_unless_it_is_to_be() {
    let root = tempfile::tempdir().unwrap();
    let directory = open_plain(root.path()).unwrap();
    assert!(directory.keyring().is_none());
    directory.write_blob("old", b"plain").unwrap();
    drop(directory);
    assert!(matches!(open(root.path(), 1, &[]).unwrap_err(), DirError::NotEncrypted { .. }));
    drop(open_plain(root.path()).unwrap());
    let directory = begun(DataDir::open_with(root.path(), Some(&keys(1, &[])), true)).unwrap();
    assert!(directory.keyring().is_some_and(|ring| ring.accepts_plain()));
    assert_eq!(directory.read_blob("old").unwrap().unwrap(), "plain");
    directory.write_blob("new", b"secret").unwrap();
    drop(directory);
    assert!(needs(open_plain(root.path()).unwrap_err(), 1));
    let directory = open(root.path(), 1, &[]).unwrap();
    assert_eq!(directory.read_blob("old").unwrap().unwrap(), "plain");
    assert_eq!(directory.read_blob("new").unwrap().unwrap(), "secret");
}

#[test]
fn a_new_key_follows_an_old_one_which_is_still_needed() {
    let root = tempfile::tempdir().unwrap();
    open(root.path(), 1, &[]).unwrap().write_blob("first", b"one").unwrap();
    open(root.path(), 2, &[1]).unwrap().write_blob("second", b"two").unwrap();
    assert!(needs(open(root.path(), 2, &[]).unwrap_err(), 1));
    assert!(needs(open(root.path(), 1, &[]).unwrap_err(), 2));
    // Back to the first: it is the order that has changed.
    let directory = open(root.path(), 1, &[7, 2]).unwrap();
    for (name, body) in [("first", "one"), ("second", "two")] {
        assert_eq!(directory.read_blob(name).unwrap().unwrap(), body);
    }
}

#[test]
fn a_key_that_no_file_needs_any_more_may_be_lost() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(root.path(), 1, &[]).unwrap();
    directory.write_blob("checkpoint", b"one").unwrap();
    let large = write(&directory, 1, b"large");
    drop(directory);
    let directory = open(root.path(), 2, &[1]).unwrap();
    directory.write_blob("checkpoint", b"two").unwrap();
    drop(directory);
    assert!(needs(open(root.path(), 2, &[]).unwrap_err(), 1), "the large blob");
    fs::remove_file(root.path().join(format!("blob/{large}"))).unwrap();
    assert!(needs(open(root.path(), 3, &[]).unwrap_err(), 2));
    drop(open(root.path(), 2, &[]).unwrap());
    // It is forgotten now, and so is none of this directory's any more.
    assert!(needs(open(root.path(), 1, &[]).unwrap_err(), 2));
    assert_eq!(open(root.path(), 3, &[2]).unwrap().read_blob("checkpoint").unwrap().unwrap(), "two");
}

#[test]
fn blobs_are_sealed_and_open_at_their_place_only() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(root.path(), 1, &[]).unwrap();
    let file = |name: &str| root.path().join(name);
    for name in ["a", "b"] {
        directory.write_blob(name, b"MARKER of a blob").unwrap();
    }
    let bytes = fs::read(file("a")).unwrap();
    assert!(!bytes.windows(6).any(|window| window == b"MARKER"));
    // The checksum does not know the name; the seal does.
    fs::write(file("b"), &bytes).unwrap();
    assert!(matches!(directory.read_blob("b"), Err(BlobError::Damaged { .. })));
    assert_eq!(directory.read_blob("a").unwrap().unwrap(), "MARKER of a blob");
    boki_disk::write_blob(&directory.vfs(), "a", b"put there by somebody").unwrap();
    assert!(matches!(directory.read_blob("a"), Err(BlobError::Damaged { what: "it is not encrypted", .. })));
}

fn store(directory: &DataDir) -> BlobStore<boki_disk::vfs::RealVfs> {
    let store = BlobStore::open(directory.vfs(), directory.meta().id, true).unwrap();
    store.sealed(directory.keyring().cloned())
}

fn write(directory: &DataDir, version: u64, bytes: &[u8]) -> BlobName {
    let name = BlobName { owner: 1, item: 2, part: 3, version };
    let mut writer = store(directory).write(name).unwrap();
    writer.write(bytes).unwrap();
    writer.finish().unwrap();
    name
}

fn read(directory: &DataDir, name: BlobName) -> Result<Vec<u8>, BlobError> {
    let mut reader = store(directory).read(name)?.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next_piece()? {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(reader.len(), bytes.len() as u64);
    Ok(bytes)
}

#[test]
fn large_blobs_are_sealed_piece_by_piece() {
    let root = tempfile::tempdir().unwrap();
    let directory = open(root.path(), 1, &[]).unwrap();
    for (version, len) in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES].into_iter().enumerate()
    {
        let bytes = b"MARKER ".repeat(len / 7 + 1)[..len].to_vec();
        let name = write(&directory, version as u64, &bytes);
        assert_eq!(read(&directory, name).unwrap(), bytes);
        let path = root.path().join(format!("blob/{name}"));
        let on_disk = fs::read(&path).unwrap();
        assert!(!on_disk.windows(6).any(|window| window == b"MARKER"));
        for at in [0, 9, 12, 20, 30, on_disk.len() - 1] {
            let mut damaged = on_disk.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(matches!(read(&directory, name), Err(BlobError::Damaged { .. })), "{len} bytes, at {at}");
        }
        fs::write(&path, on_disk).unwrap();
    }
    drop(directory);
    let later = open(root.path(), 2, &[1]).unwrap();
    let name = BlobName { owner: 1, item: 2, part: 3, version: 1 };
    assert_eq!(read(&later, name).unwrap(), b"M");
}
