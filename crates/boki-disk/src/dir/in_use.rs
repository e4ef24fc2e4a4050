//! Which keys the files of a directory are sealed with: only asked when one was not given.

use std::collections::BTreeSet;
use std::io;

use crate::blob;
use crate::coding::Coding;
use crate::error::BlobError;
use crate::seal::{KeyId, key_of};
use crate::segment::{self, FileKind, SegmentHeader};
use crate::store;
use crate::table;
use crate::vfs::{Vfs, VfsFile};

/// The ids of the keys that segments, blobs, large blobs and tables of `directory` are sealed with; `None` if that cannot be said:
/// one of them cannot be read.
pub(super) fn keys_in_use<V: Vfs>(vfs: &V, directory: u128) -> Option<BTreeSet<KeyId>> {
    let mut found = BTreeSet::new();
    for (number, name) in segments(vfs).ok()? {
        let head = head_of(vfs, &name).ok()?;
        if let Coding::Sealed(key) = SegmentHeader::decode(&head, directory, number).ok()?.coding {
            found.insert(key);
        }
    }
    for name in vfs.list("").ok()? {
        // What else lies there is no blob, or not the log's.
        match blob::sealed_unit(vfs, &name) {
            Ok(Some(unit)) => drop(found.insert(key_of(&unit)?)),
            Ok(None) | Err(BlobError::Damaged { .. }) => {}
            Err(_) => return None,
        }
    }
    for name in files(vfs, store::DIR).ok()? {
        if let Some(unit) = store::sealed_unit(&head_of(vfs, &name).ok()?) {
            found.insert(key_of(unit)?);
        }
    }
    for name in files(vfs, table::DIR).ok()? {
        let head = head_of(vfs, &name).ok()?;
        // The first block lies behind the header. One that is not sealed begins with something else, which no key is named by.
        found.insert(key_of(head.get(table::HEADER_BYTES..)?)?);
    }
    Some(found)
}

fn segments<V: Vfs>(vfs: &V) -> io::Result<Vec<(u64, String)>> {
    let names = files(vfs, segment::DIR)?;
    let number = |name: &str| match FileKind::of(name.rsplit('/').next().unwrap_or_default()) {
        FileKind::Segment(number) => Some(number),
        _ => None,
    };
    Ok(names.into_iter().filter_map(|name| Some((number(&name)?, name))).collect())
}

/// The files of a folder; none if it is not there.
fn files<V: Vfs>(vfs: &V, dir: &str) -> io::Result<Vec<String>> {
    match vfs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => Ok(other?.into_iter().map(|name| format!("{dir}/{name}")).collect()),
    }
}

/// The beginning of a file, or all of it if it is short.
fn head_of<V: Vfs>(vfs: &V, name: &str) -> io::Result<Vec<u8>> {
    let file = vfs.open(name)?;
    let len = file.len()?.min(64);
    let mut head = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_at(&mut head, 0)?;
    Ok(head)
}
