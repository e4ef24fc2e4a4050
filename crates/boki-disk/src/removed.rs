//! Which segments were removed on purpose: without it, a file that is missing could not be told from one that was removed.
//!
//! Written and synced before a segment's file is unlinked. Also written, empty, when a journal is made: a journal that has
//! this record and no segment has lost them.
//!
//! Body of the blob `seg/removed`: the data directory's id (16 bytes), then per range of removed segments the first and the
//! last number and the number of the first group that was in them (8 bytes each), ranges ascending and never adjacent.

use bytes::Buf;

use crate::blob;
use crate::error::BlobError;
use crate::vfs::Vfs;

/// The record's file in the directory of segments.
pub(crate) const FILE: &str = "removed";
/// The blob that says which segments were removed on purpose.
pub const NAME: &str = "seg/removed";

const DIRECTORY_BYTES: usize = 16;
const RANGE_BYTES: usize = 24;

/// Segments that followed one another, all removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// The first group of segment `from`.
    pub(crate) first_group: u64,
}

/// The record of removed segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    directory: u128,
    ranges: Vec<Range>,
}

impl Removed {
    /// Nothing was removed.
    pub(crate) fn none(directory: u128) -> Removed {
        Removed { directory, ranges: Vec::new() }
    }

    /// Reads the record; `None` if there is none.
    pub(crate) fn load<V: Vfs>(vfs: &V, directory: u128) -> Result<Option<Removed>, BlobError> {
        let Some(body) = blob::read_blob(vfs, NAME)? else { return Ok(None) };
        let removed = decode(&body).map_err(|what| BlobError::Damaged { name: NAME.to_owned(), what })?;
        if removed.directory != directory {
            return Err(BlobError::OtherDirectory { name: NAME.to_owned(), found: removed.directory });
        }
        Ok(Some(removed))
    }

    /// Writes the record, durably.
    pub(crate) fn store<V: Vfs>(&self, vfs: &V) -> Result<(), BlobError> {
        let mut body = Vec::with_capacity(DIRECTORY_BYTES + self.ranges.len() * RANGE_BYTES);
        body.extend_from_slice(&self.directory.to_le_bytes());
        for range in &self.ranges {
            for field in [range.from, range.to, range.first_group] {
                body.extend_from_slice(&field.to_le_bytes());
            }
        }
        blob::write_blob(vfs, NAME, &body)
    }

    /// The record with one more segment in it.
    pub(crate) fn with(&self, number: u64, first_group: u64) -> Removed {
        let mut ranges: Vec<Range> = Vec::with_capacity(self.ranges.len() + 1);
        let at = self.ranges.partition_point(|range| range.from < number);
        let added = Range { from: number, to: number, first_group };
        for range in self.ranges[..at].iter().chain([&added]).chain(&self.ranges[at..]) {
            match ranges.last_mut() {
                Some(last) if last.to + 1 == range.from => last.to = range.to,
                _ => ranges.push(*range),
            }
        }
        Removed { directory: self.directory, ranges }
    }

    /// Segments that followed one another, ascending.
    pub(crate) fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Whether a segment was removed.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.iter().any(|range| (range.from..=range.to).contains(&number))
    }

    /// The range that starts with segment `number`.
    pub(crate) fn starting_at(&self, number: u64) -> Option<Range> {
        self.ranges.iter().find(|range| range.from == number).copied()
    }

    /// The last segment that was removed; 0 if none was.
    pub(crate) fn last(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.to)
    }
}

fn decode(mut body: &[u8]) -> Result<Removed, &'static str> {
    if body.len() < DIRECTORY_BYTES || !(body.len() - DIRECTORY_BYTES).is_multiple_of(RANGE_BYTES) {
        return Err("it has an impossible length");
    }
    let directory = body.get_u128_le();
    let mut ranges = Vec::with_capacity(body.len() / RANGE_BYTES);
    let mut behind = 0;
    while body.has_remaining() {
        let range = Range { from: body.get_u64_le(), to: body.get_u64_le(), first_group: body.get_u64_le() };
        if range.from <= behind || range.to < range.from || range.to == u64::MAX {
            return Err("its ranges are not in order");
        }
        behind = range.to + 1;
        ranges.push(range);
    }
    Ok(Removed { directory, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::MemDisk;

    #[test]
    fn neighbours_become_one_range_with_the_first_group_of_the_first() {
        let removed = Removed::none(7).with(3, 30).with(1, 10).with(5, 50);
        assert_eq!(removed.ranges.len(), 3);
        let removed = removed.with(2, 20);
        assert_eq!(removed.starting_at(1), Some(Range { from: 1, to: 3, first_group: 10 }));
        let removed = removed.with(4, 40);
        assert_eq!(removed.ranges, [Range { from: 1, to: 5, first_group: 10 }]);
        assert!(removed.contains(4) && !removed.contains(6) && removed.last() == 5);
    }

    #[test]
    fn the_record_survives_the_round_trip_in_its_own_directory_only() {
        let disk = MemDisk::new();
        assert_eq!(Removed::load(&disk, 7).unwrap(), None);
        let removed = Removed::none(7).with(3, 30).with(1, 10);
        removed.store(&disk).unwrap();
        assert_eq!(Removed::load(&disk, 7).unwrap(), Some(removed));
        assert!(matches!(Removed::load(&disk, 8), Err(BlobError::OtherDirectory { found: 7, .. })));
    }
}
