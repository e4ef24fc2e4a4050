//! How far the journal must reach: what a torn write at its end cannot excuse.
//!
//! Of the last segment nothing else says where it ends, so an end that has rotted, or a last segment that was deleted or put
//! back from an old copy, would look like a write that the power interrupted. So whenever a segment begins, and when the node
//! starts and stops in order, the blob `seg/reach` is replaced. It is written after what it speaks of is on disk. An old one
//! that was put back does no harm by itself: it claims less.
//!
//! Body: the data directory's id (16 bytes), the term (4), 0 (4), number of the last segment (8), number of the group after
//! the last (8).

use bytes::Buf;

use crate::blob;
use crate::error::BlobError;
use crate::vfs::Vfs;

/// The record's file in the directory of segments.
pub(crate) const FILE: &str = "reach";
/// The blob that says how far the journal reaches.
pub const NAME: &str = "seg/reach";

const BYTES: usize = 40;

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Id of the data directory.
    pub directory: u128,
    /// How often the directory had been opened.
    pub term: u32,
    /// The last segment: there is it, or a later one.
    pub segment: u64,
    /// All groups below are on disk, but for those in segments that were removed.
    pub next_group: u64,
}

impl Reach {
    /// Reads the record; `None` if there is none.
    pub(crate) fn load<V: Vfs>(vfs: &V, directory: u128) -> Result<Option<Reach>, BlobError> {
        let Some(body) = blob::read_blob(vfs, NAME)? else { return Ok(None) };
        let reach = decode(&body).map_err(|what| BlobError::Damaged { name: NAME.to_owned(), what })?;
        if reach.directory != directory {
            return Err(BlobError::OtherDirectory { name: NAME.to_owned(), found: reach.directory });
        }
        Ok(Some(reach))
    }

    /// Writes the record, durably.
    pub(crate) fn store<V: Vfs>(&self, vfs: &V) -> Result<(), BlobError> {
        let mut body = Vec::with_capacity(BYTES);
        body.extend_from_slice(&self.directory.to_le_bytes());
        body.extend_from_slice(&self.term.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        body.extend_from_slice(&self.segment.to_le_bytes());
        body.extend_from_slice(&self.next_group.to_le_bytes());
        blob::write_blob(vfs, NAME, &body)
    }
}

fn decode(mut body: &[u8]) -> Result<Reach, &'static str> {
    if body.len() != BYTES {
        return Err("it has another length than it should");
    }
    let (directory, term) = (body.get_u128_le(), body.get_u32_le());
    if body.get_u32_le() != 0 {
        return Err("a reserved field is set");
    }
    Ok(Reach { directory, term, segment: body.get_u64_le(), next_group: body.get_u64_le() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemDisk;

    #[test]
    fn the_record_survives_the_round_trip_in_its_own_directory_only() {
        let disk = MemDisk::new();
        assert_eq!(Reach::load(&disk, 7).unwrap(), None);
        let reach = Reach { directory: 7, term: 3, segment: 9, next_group: 100 };
        reach.store(&disk).unwrap();
        assert_eq!(Reach::load(&disk, 7).unwrap(), Some(reach));
        assert!(matches!(Reach::load(&disk, 8), Err(BlobError::OtherDirectory { found: 7, .. })));
        blob::write_blob(&disk, NAME, &[0; BYTES - 1]).unwrap();
        assert!(matches!(Reach::load(&disk, 0), Err(BlobError::Damaged { .. })));
    }
}
