//! Opening a journal: which segments there must be, what is in them, and what of the end was never acknowledged.
//!
//! Groups are numbered without a gap, and a segment's header says which is its first. So it is known of every segment but
//! the last which groups it must hold, removed segments or not, and anything else is damage. Of the last it is not known
//! where it ends, only how far it reaches at the least (`reach`): behind that, a group that is not whole is the one that was
//! being written when the power went, provided that nothing written after it is there. It is dropped as a whole, and zeroed
//! on disk so that no piece of it ever comes back.
//!
//! Nothing is changed on disk before everything was read and found good.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;

use crate::coding::{FrameReader, Unreadable};
use crate::error::{Damage, OpenError};
use crate::frame::{BLOCK_BYTES, to_blocks};
use crate::journal::{GroupPlace, JournalConfig, Location, SegmentInfo};
use crate::reach::Reach;
use crate::removed::Removed;
use crate::scan::SegmentScan;
use crate::segment::{self, DIR, FileKind, SegmentHeader};
use crate::vfs::{Vfs, VfsFile};

/// A frame found when a journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameRef {
    /// As it was written.
    pub kind: u8,
    /// Number of the group it is in.
    pub group: u64,
    /// Where its body is.
    pub location: Location,
    /// As it was written. Shares memory with the other frames of its group.
    pub body: Bytes,
}

/// The remains of a write that was under way when the process or the machine stopped: nothing that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub segment: u64,
    /// Where in it the remains started.
    pub offset: u32,
    /// How far they reached.
    pub bytes: u64,
}

/// What opening found, with the end put in order.
pub(crate) struct Recovered<F> {
    pub(crate) segments: BTreeMap<u64, SegmentInfo>,
    pub(crate) removed: Removed,
    /// Whether `removed` is on disk.
    pub(crate) is_recorded: bool,
    pub(crate) next_group: u64,
    /// The last group that was read.
    pub(crate) last_group: Option<GroupPlace>,
    /// The last segment's file; none if the journal is new.
    pub(crate) last: Option<F>,
    pub(crate) torn: Option<TornTail>,
}

/// Reads the journal behind the group `known`, gives every frame there to `visit`, and puts the end in order.
pub(crate) fn recover<V: Vfs>(
    vfs: &V,
    config: &JournalConfig,
    known: Option<GroupPlace>,
    visit: &mut dyn FnMut(FrameRef),
) -> Result<Recovered<V::File>, OpenError> {
    vfs.create_dir(DIR).map_err(io_error("make", DIR))?;
    let files = list(vfs)?;
    let record = Removed::load(vfs, config.directory)?;
    let is_recorded = record.is_some();
    let removed = record.unwrap_or_else(|| Removed::none(config.directory));
    let reach = Reach::load(vfs, config.directory)?;
    // A directory that has been begun before has had a segment.
    let is_new = !is_recorded && reach.is_none() && files.segments.is_empty() && config.term <= 1;
    let least_segment = reach.map_or(1, |reach| reach.segment);
    let headers = if is_new { BTreeMap::new() } else { read_headers(vfs, config, &files, &removed, least_segment)? };
    let reader = FrameReader::new(config);
    for header in headers.values() {
        reader.can_read(header.coding).map_err(|why| match why {
            Unreadable::NoKey(key) => OpenError::NoKey { segment: header.number, key },
            Unreadable::NotSealed => damaged(header.number, 0, Damage::NotEncrypted, 0),
        })?;
    }
    if let Some(known) = known {
        check_known(known, &headers, &removed)?;
    }

    let mut segments = BTreeMap::new();
    let mut next_group = 1;
    let mut last_group = known;
    let mut torn = None;
    let mut last = None;
    let last_number = headers.keys().next_back().copied();
    for (number, header) in &headers {
        let name = segment::file_name(*number);
        if known.is_some_and(|known| *number < known.segment) {
            let bytes = vfs.open(&name).and_then(|file| file.len()).map_err(io_error("open", &name))?;
            // It is full, or almost: what it was filled up with is not told apart here.
            let info = SegmentInfo {
                number: *number,
                first_group: header.first_group,
                used_bytes: bytes,
                bytes,
                coding: header.coding,
            };
            segments.insert(*number, info);
            continue;
        }
        let file = vfs.open(&name).map_err(io_error("open", &name))?;
        let is_last = Some(*number) == last_number;
        if is_last {
            // What a process left behind that was killed while it wrote may be in memory only, and after a sync that failed
            // memory may even hold what the disk will never have. What is delivered must be on the disk.
            file.sync_data().map_err(io_error("sync", &name))?;
            file.forget_cached().map_err(io_error("read", &name))?;
        }
        let end = if is_last { None } else { end_of(*number, &headers, &removed) };
        let mut scan = SegmentScan::new(&file, *number, header.coding, &reader).map_err(io_error("read", &name))?;
        let start = match known.filter(|known| known.segment == *number) {
            Some(known) => {
                scan.skip_to(u64::from(known.offset));
                read_known(&mut scan, known)?;
                known.group + 1
            }
            None => header.first_group,
        };
        let least = reach.map_or(0, |reach| reach.next_group);
        next_group = read_groups(&mut scan, *number, start, end, least, &mut last_group, visit)?;
        if is_last {
            let rest = scan.rest(next_group).map_err(io_error("read", &name))?;
            torn = rest.dirty_to.map(|to| TornTail {
                segment: *number,
                offset: offset_of(scan.at()),
                bytes: to - scan.at(),
            });
        }
        let (used_bytes, bytes) = (scan.at(), scan.file_bytes());
        let SegmentHeader { first_group, coding, .. } = *header;
        segments.insert(*number, SegmentInfo { number: *number, first_group, used_bytes, bytes, coding });
        last = Some(file);
    }

    tidy(vfs, &files, &removed)?;
    if let (Some(torn), Some(file)) = (torn, &last) {
        let from = u64::from(torn.offset);
        segment::zero(file, from..to_blocks(from + torn.bytes))
            .map_err(io_error("cut back", &segment::file_name(torn.segment)))?;
    }
    Ok(Recovered { segments, removed, is_recorded, next_group, last_group, last, torn })
}

/// That the segment of the group `known` is there, and can hold it.
fn check_known(known: GroupPlace, headers: &BTreeMap<u64, SegmentHeader>, removed: &Removed) -> Result<(), OpenError> {
    let damaged = |what| Err(damaged(known.segment, u64::from(known.offset), what, 0));
    let Some(header) = headers.get(&known.segment) else { return damaged(Damage::MissingSegment) };
    if header.first_group > known.group {
        return damaged(Damage::UnexpectedGroup { expected: known.group, found: header.first_group });
    }
    match end_of(known.segment, headers, removed) {
        Some(end) if end <= known.group => damaged(Damage::MissingGroup { expected: known.group }),
        _ => Ok(()),
    }
}

/// Reads the group that the caller knows. It was acknowledged: that it is torn or not there is damage even at the end.
fn read_known<F: VfsFile>(scan: &mut SegmentScan<'_, F>, known: GroupPlace) -> Result<(), OpenError> {
    let name = segment::file_name(known.segment);
    match scan.next_group(known.group).map_err(io_error("read", &name))? {
        Ok(_) => Ok(()),
        Err(what) => {
            let groups_after = scan.rest(known.group).map_err(io_error("read", &name))?.groups;
            Err(damaged(known.segment, u64::from(known.offset), what, groups_after))
        }
    }
}

struct Files {
    segments: BTreeSet<u64>,
    fresh: BTreeSet<u64>,
    leftovers: Vec<String>,
}

fn list<V: Vfs>(vfs: &V) -> Result<Files, OpenError> {
    let mut files = Files { segments: BTreeSet::new(), fresh: BTreeSet::new(), leftovers: Vec::new() };
    for name in vfs.list(DIR).map_err(io_error("list", DIR))? {
        match FileKind::of(&name) {
            FileKind::Segment(number) => drop(files.segments.insert(number)),
            FileKind::Fresh(number) => drop(files.fresh.insert(number)),
            FileKind::Leftover => files.leftovers.push(format!("{DIR}/{name}")),
            FileKind::Places(_) | FileKind::FreshPlaces | FileKind::Other => {}
        }
    }
    Ok(files)
}

/// Headers of all segments that were not removed, after making sure that none is missing and each starts with the group
/// that follows the one before it.
fn read_headers<V: Vfs>(
    vfs: &V,
    config: &JournalConfig,
    files: &Files,
    removed: &Removed,
    least_segment: u64,
) -> Result<BTreeMap<u64, SegmentHeader>, OpenError> {
    let mut headers: BTreeMap<u64, SegmentHeader> = BTreeMap::new();
    // The segment being written is never removed: if anything was written, there is one behind all removed ones.
    let end = files.segments.last().copied().unwrap_or(1).max(removed.last() + 1).max(least_segment);
    let mut least = 1;
    let mut number = 1;
    while number <= end {
        let damaged = |what| damaged(number, 0, what, 0);
        let mut fits = |first_group: u64| {
            let expected = std::mem::replace(&mut least, first_group);
            let fits = if number == 1 { first_group == expected } else { first_group >= expected };
            if !fits {
                return Err(damaged(Damage::UnexpectedGroup { expected, found: first_group }));
            }
            Ok(())
        };
        if let Some(range) = removed.starting_at(number) {
            fits(range.first_group)?;
            number = range.to + 1;
            continue;
        }
        if !files.segments.contains(&number) {
            return Err(damaged(Damage::MissingSegment));
        }
        let name = segment::file_name(number);
        let file = vfs.open(&name).map_err(io_error("open", &name))?;
        let mut block = vec![0; BLOCK_BYTES];
        match file.read_at(&mut block, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged(Damage::SegmentHeader)),
            other => other.map_err(io_error("read", &name))?,
        }
        let header = SegmentHeader::decode(&block, config.directory, number).map_err(damaged)?;
        fits(header.first_group)?;
        headers.insert(number, header);
        number += 1;
    }
    Ok(headers)
}

/// The first group that is not in segment `number` any more: what follows it says so, be it there or removed.
fn end_of(number: u64, headers: &BTreeMap<u64, SegmentHeader>, removed: &Removed) -> Option<u64> {
    let next = number + 1;
    let header = headers.get(&next).map(|header| header.first_group);
    header.or_else(|| removed.starting_at(next).map(|range| range.first_group))
}

/// Gives the frames of segment `number` from the group `next` on to `visit`, up to the group `end`, or, if that is not known,
/// to where they stop, which is not before the group `least`. Returns the number of the next group; `last` becomes the one
/// before.
fn read_groups<F: VfsFile>(
    scan: &mut SegmentScan<'_, F>,
    number: u64,
    mut next: u64,
    end: Option<u64>,
    least: u64,
    last: &mut Option<GroupPlace>,
    visit: &mut dyn FnMut(FrameRef),
) -> Result<u64, OpenError> {
    let name = segment::file_name(number);
    while Some(next) != end {
        match scan.next_group(next).map_err(io_error("read", &name))? {
            Ok(group) => {
                for (kind, at, body) in group.frames() {
                    let location = Location { segment: number, offset: offset_of(at) };
                    visit(FrameRef { kind, group: next, location, body });
                }
                *last = Some(GroupPlace { segment: number, group: next, offset: offset_of(group.at) });
                next += 1;
            }
            Err(what) => {
                let groups_after = scan.rest(next).map_err(io_error("read", &name))?.groups;
                let reached = end.unwrap_or(least);
                let what = match what {
                    Damage::MissingGroup { expected } if groups_after == 0 && expected < reached => {
                        Damage::EndsEarly { expected, reached: reached - 1 }
                    }
                    what => what,
                };
                if end.is_some() || groups_after > 0 || next < least || !can_be_torn(&what) {
                    return Err(damaged(number, scan.at(), what, groups_after));
                }
                break;
            }
        }
    }
    Ok(next)
}

/// Whether a write that did not end can look like that. It cannot leave an intact frame that does not belong there.
fn can_be_torn(what: &Damage) -> bool {
    matches!(what, Damage::MissingGroup { .. } | Damage::Frame { .. })
}

/// Removes what did not end, and removed segments whose file is still there.
fn tidy<V: Vfs>(vfs: &V, files: &Files, removed: &Removed) -> Result<(), OpenError> {
    let dead = files.segments.iter().filter(|number| removed.contains(**number));
    let dead = dead.map(|number| segment::file_name(*number));
    // The next segment's is made anew when it is prepared: emptying it then keeps nobody waiting for it here.
    let next = files.segments.last().map_or(1, |last| last + 1);
    let unused = files.fresh.iter().filter(|number| **number != next);
    let unused = unused.map(|number| segment::fresh_file_name(*number));
    let names = dead.chain(unused).chain(files.leftovers.iter().cloned());
    for name in names {
        vfs.remove(&name).map_err(io_error("remove", &name))?;
    }
    Ok(())
}

/// Segment files are at most 4 GiB long (`journal` sees to it), so this only limits what a report can say of a longer one.
fn offset_of(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn damaged(segment: u64, at: u64, what: Damage, groups_after: u64) -> OpenError {
    OpenError::Damaged { segment, offset: offset_of(at), what, groups_after }
}

pub(crate) fn io_error(what: &'static str, name: &str) -> impl FnOnce(io::Error) -> OpenError {
    let name = name.to_owned();
    move |source| OpenError::Io { what, name, source }
}
