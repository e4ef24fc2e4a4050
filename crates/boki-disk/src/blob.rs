//! Blobs: small named files that are replaced as a whole. Either the old or the new one is there, never a mixture.
//!
//! Not for what is appended to, nor for what does not fit into memory.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `"BOKIBLOB"` |
//! | 8 | 4 | CRC-32C over everything behind this field |
//! | 12 | 2 | version: 1, or 2 if the body is sealed |
//! | 14 | 2 | in version 1, 1 if the body begins with the id of the data directory (16 bytes); else 0 |
//! | 16 | 8 | length of the body |
//! | 24 | – | body; in version 2 a sealed unit |
//!
//! Additional data of the unit: the directory's id (16 bytes), `"blob"`, the blob's name.

use std::io;

use bytes::{Buf, Bytes};

use crate::error::BlobError;
use crate::frame::crc32c;
use crate::seal::{Keyring, SealError};
use crate::vfs::{Vfs, VfsFile};

const MAGIC: [u8; 8] = *b"BOKIBLOB";
const PLAIN_VERSION: u16 = 1;
const SEALED_VERSION: u16 = 2;
const OWNED: u16 = 1;
const CRC_AT: usize = 8;
const COVERED_AT: usize = 12;
const OWNED_AT: usize = 14;
const LEN_AT: usize = 16;
const HEADER_BYTES: usize = 24;

const _: () = assert!(LEN_AT + size_of::<u64>() == HEADER_BYTES);

/// Whose a blob is, and how its body is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Nobody's in particular.
    Loose,
    /// The body begins with the id of a directory.
    Owned,
    /// The body is a sealed unit.
    Sealed,
}

/// Replaces the blob `name`, or makes it. Durable when this returns.
///
/// # Errors
/// [`BlobError::Io`]; the old blob is still there, or already the new one.
pub fn write_blob<V: Vfs>(vfs: &V, name: &str, body: &[u8]) -> Result<(), BlobError> {
    write(vfs, name, Form::Loose, body)
}

/// The same, for nobody but the data directory with that id.
pub(crate) fn write_owned<V: Vfs>(vfs: &V, name: &str, directory: u128, body: &[u8]) -> Result<(), BlobError> {
    write(vfs, name, Form::Owned, &[&directory.to_le_bytes(), body].concat())
}

/// The same, sealed.
pub(crate) fn write_sealed<V: Vfs>(
    vfs: &V,
    name: &str,
    directory: u128,
    ring: &Keyring,
    body: &[u8],
) -> Result<(), BlobError> {
    write(vfs, name, Form::Sealed, &ring.seal_copy(&aad(directory, name), body))
}

fn aad(directory: u128, name: &str) -> Vec<u8> {
    [&directory.to_le_bytes(), &b"blob"[..], name.as_bytes()].concat()
}

fn write<V: Vfs>(vfs: &V, name: &str, form: Form, body: &[u8]) -> Result<(), BlobError> {
    let (version, owned) = match form {
        Form::Loose => (PLAIN_VERSION, 0),
        Form::Owned => (PLAIN_VERSION, OWNED),
        Form::Sealed => (SEALED_VERSION, 0),
    };
    let failed = |what| move |source| BlobError::Io { what, name: name.to_owned(), source };
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&owned.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    let checksum = crc32c(&bytes[COVERED_AT..]);
    bytes[CRC_AT..COVERED_AT].copy_from_slice(&checksum.to_le_bytes());
    replace(vfs, name, &bytes).map_err(failed("write"))
}

/// Replaces a file as a whole, durably.
pub(crate) fn replace<V: Vfs>(vfs: &V, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{name}.tmp");
    let written = (|| {
        let file = vfs.create(&fresh)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        vfs.rename(&fresh, name)
    })();
    if let Err(error) = written {
        // What is left takes room where there may be none; that it is there does no other harm.
        let _ = vfs.remove(&fresh);
        return Err(error);
    }
    vfs.sync_dir(name.rsplit_once('/').map_or("", |(dir, _)| dir))
}

/// The blob `name`; `None` if there is none.
///
/// # Errors
/// [`BlobError::Damaged`] if it is not what was written, [`BlobError::Io`].
pub fn read_blob<V: Vfs>(vfs: &V, name: &str) -> Result<Option<Bytes>, BlobError> {
    match read_any(vfs, name)? {
        None => Ok(None),
        Some((Form::Loose, body)) => Ok(Some(body)),
        Some((Form::Owned, _)) => Err(damaged(name, "it belongs to a data directory")),
        Some((Form::Sealed, _)) => Err(damaged(name, "it is encrypted")),
    }
}

/// The blob `name` of the data directory with that id; `None` if there is none. One that says nothing of a directory is of an
/// earlier version.
pub(crate) fn read_owned<V: Vfs>(vfs: &V, name: &str, directory: u128) -> Result<Option<Bytes>, BlobError> {
    match read_any(vfs, name)? {
        None => Ok(None),
        Some((Form::Loose, body)) => Ok(Some(body)),
        Some((Form::Owned, mut body)) => {
            if body.len() < size_of::<u128>() {
                return Err(damaged(name, "it has another length than it should"));
            }
            let found = body.get_u128_le();
            if found != directory {
                return Err(BlobError::OtherDirectory { name: name.to_owned(), found });
            }
            Ok(Some(body))
        }
        Some((Form::Sealed, _)) => Err(damaged(name, "it is encrypted")),
    }
}

/// The same of an encrypted directory.
pub(crate) fn read_sealed<V: Vfs>(
    vfs: &V,
    name: &str,
    directory: u128,
    ring: &Keyring,
) -> Result<Option<Bytes>, BlobError> {
    let body = match read_any(vfs, name)? {
        None => return Ok(None),
        Some((Form::Sealed, body)) => body,
        Some(_) if ring.accepts_plain() => return read_owned(vfs, name, directory),
        Some(_) => return Err(damaged(name, "it is not encrypted")),
    };
    match ring.open_copy(&aad(directory, name), &body) {
        Ok(body) => Ok(Some(Bytes::from(body))),
        Err(SealError::NotAuthentic) => Err(damaged(name, "it is not what was encrypted")),
        Err(SealError::NoKey(_)) => Err(damaged(name, "it is encrypted with a key that was not given")),
    }
}

/// The unit of the blob `name`, if it is sealed.
pub(crate) fn sealed_unit<V: Vfs>(vfs: &V, name: &str) -> Result<Option<Bytes>, BlobError> {
    Ok(read_any(vfs, name)?.and_then(|(form, body)| (form == Form::Sealed).then_some(body)))
}

fn damaged(name: &str, what: &'static str) -> BlobError {
    BlobError::Damaged { name: name.to_owned(), what }
}

/// Form and body of the blob `name`, whoever's it is.
fn read_any<V: Vfs>(vfs: &V, name: &str) -> Result<Option<(Form, Bytes)>, BlobError> {
    let failed = |source| BlobError::Io { what: "read", name: name.to_owned(), source };
    let Some(bytes) = read_file(vfs, name).map_err(failed)? else { return Ok(None) };
    decode(bytes).map(Some).map_err(|what| damaged(name, what))
}

/// A file as a whole; `None` if there is none.
pub(crate) fn read_file<V: Vfs>(vfs: &V, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match vfs.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    file.read_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

fn decode(bytes: Vec<u8>) -> Result<(Form, Bytes), &'static str> {
    let mut bytes = Bytes::from(bytes);
    if bytes.len() < HEADER_BYTES {
        return Err("it is too short");
    }
    if bytes[..CRC_AT] != MAGIC {
        return Err("it does not start as it should");
    }
    let checksum = (&bytes[CRC_AT..]).get_u32_le();
    if crc32c(&bytes[COVERED_AT..]) != checksum {
        return Err("it does not match its checksum");
    }
    let form = match ((&bytes[COVERED_AT..]).get_u16_le(), (&bytes[OWNED_AT..]).get_u16_le()) {
        (PLAIN_VERSION, 0) => Form::Loose,
        (PLAIN_VERSION, OWNED) => Form::Owned,
        (SEALED_VERSION, 0) => Form::Sealed,
        _ => return Err("it is of another version"),
    };
    if (&bytes[LEN_AT..]).get_u64_le() != (bytes.len() - HEADER_BYTES) as u64 {
        return Err("it has another length than it should");
    }
    bytes.advance(HEADER_BYTES);
    Ok((form, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemDisk;

    #[test]
    fn a_blob_is_read_back_and_replaced() {
        let disk = MemDisk::new();
        assert_eq!(read_blob(&disk, "a").unwrap(), None);
        write_blob(&disk, "a", b"one").unwrap();
        write_blob(&disk, "b", b"").unwrap();
        assert_eq!(read_blob(&disk, "a").unwrap().unwrap(), "one");
        write_blob(&disk, "a", b"two").unwrap();
        assert_eq!(read_blob(&disk, "a").unwrap().unwrap(), "two");
        assert_eq!(read_blob(&disk, "b").unwrap().unwrap(), "");
    }

    #[test]
    fn a_blob_of_another_directory_is_refused_and_one_of_none_is_read() {
        let disk = MemDisk::new();
        write_owned(&disk, "a", 7, b"mine").unwrap();
        assert_eq!(read_owned(&disk, "a", 7).unwrap().unwrap(), "mine");
        assert!(matches!(read_owned(&disk, "a", 8), Err(BlobError::OtherDirectory { found: 7, .. })));
        assert!(matches!(read_blob(&disk, "a"), Err(BlobError::Damaged { .. })));
        write_blob(&disk, "a", b"nobody's").unwrap();
        assert_eq!(read_owned(&disk, "a", 8).unwrap().unwrap(), "nobody's");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_blob_is_noticed() {
        let disk = MemDisk::new();
        write_blob(&disk, "a", b"some bytes").unwrap();
        let bytes = disk.contents("a").unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(bytes).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode(bytes[..len].to_vec()).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_power_cut_leaves_the_old_blob_or_the_new() {
        for operations in 0.. {
            for choice in [0, 1] {
                let disk = MemDisk::new();
                write_blob(&disk, "a", b"old").unwrap();
                disk.cut_power_after(operations);
                let done = write_blob(&disk, "a", b"new").is_ok();
                disk.crash(&mut |_| choice);
                let found = read_blob(&disk, "a").unwrap().unwrap();
                if done {
                    assert_eq!(found, "new");
                    if choice == 1 {
                        return;
                    }
                } else {
                    assert!(found == "old" || found == "new", "after {operations} operations: {found:?}");
                }
            }
        }
    }
}
