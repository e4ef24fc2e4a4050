//! Where the machine's words for things on disk and the journal's meet.

use boki_disk::Location;
use boki_log::storage::{FramePlace, GroupPlace, PlaceEntry};
use bytes::Bytes;

pub(crate) fn place_of(location: &Location) -> FramePlace {
    FramePlace { segment: location.segment, offset: location.offset }
}

pub(crate) fn group_place(boki_disk::GroupPlace { segment, group, offset }: boki_disk::GroupPlace) -> GroupPlace {
    GroupPlace { segment, group, offset }
}

pub(crate) fn known_group(GroupPlace { segment, group, offset }: GroupPlace) -> boki_disk::GroupPlace {
    boki_disk::GroupPlace { segment, group, offset }
}

pub(crate) fn entry_of(boki_disk::PlaceEntry { frame, at, len, checksum }: boki_disk::PlaceEntry) -> PlaceEntry {
    PlaceEntry { frame, at, len, checksum }
}

pub(crate) fn filed_entry(&PlaceEntry { frame, at, len, checksum }: &PlaceEntry) -> boki_disk::PlaceEntry {
    boki_disk::PlaceEntry { frame, at, len, checksum }
}

/// Where records lie in a frame, for place files.
pub(crate) fn records_in(kind: u8, frame: u32, body: &Bytes) -> Result<Vec<boki_disk::PlaceEntry>, String> {
    let entries = boki_log::machine::records_in(kind, frame, body).map_err(|error| error.to_string())?;
    Ok(entries.iter().map(filed_entry).collect())
}
