//! The journal as it lies there: which segments there must be, and what is in them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use boki_disk::check::{self, Expected, FrameFound, Hole, RemovedRange, SegmentFound};
use boki_disk::vfs::RealVfs;
use boki_disk::{Damage, Keyring, Reach};

use crate::examine::{Stopped, io_error};
use crate::finding::DoctorError;

/// A segment that must be there.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) expected: Expected,
    /// Its first group may be a later one than `expected` says: it has no header, and segments before it were removed.
    pub(crate) may_start_later: bool,
    /// What is wrong with it as a whole: it is missing, or is something else.
    pub(crate) whole: Option<Damage>,
    /// What is in it.
    pub(crate) found: SegmentFound,
}

impl Segment {
    /// Where groups are not as they were written; of a segment that is wrong as a whole, all of it.
    pub(crate) fn holes(&self) -> Vec<Hole> {
        match &self.whole {
            None => self.found.holes.clone(),
            Some(what) => {
                let end = self.expected.end.unwrap_or(self.expected.least.max(self.expected.first_group));
                let groups = self.expected.first_group..end;
                vec![Hole { at: 0..self.found.bytes, groups, what: what.clone() }]
            }
        }
    }

    /// Whether it has all that it should have.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.is_none() && self.found.holes.is_empty()
    }
}

/// All segments that must be there, by number.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) segments: BTreeMap<u64, Segment>,
}

/// What is known of a journal before its segments are read.
pub(crate) struct Frame<'a> {
    pub(crate) directory: u128,
    pub(crate) ring: Option<&'a Arc<Keyring>>,
    pub(crate) removed: &'a [RemovedRange],
    pub(crate) reach: Option<Reach>,
    /// Leave out the segment that is being written.
    pub(crate) sealed_only: bool,
}

/// Reads the journal. `visit` is told every frame, with its segment, and may stop the reading.
pub(crate) fn read(
    vfs: &RealVfs,
    frame: &Frame<'_>,
    visit: &mut dyn FnMut(u64, FrameFound) -> Result<(), Stopped>,
) -> Result<Result<Journal, Stopped>, DoctorError> {
    let list = || check::segments(vfs).map_err(io_error("list", check::SEGMENTS));
    let there = match list() {
        Ok(there) => there,
        // It is one of the findings that nothing is there.
        Err(DoctorError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let is_removed = |number: u64| frame.removed.iter().any(|range| (range.from..=range.to).contains(&number));
    let removed_to = frame.removed.last().map_or(0, |range| range.to);
    let last = there.last().copied().unwrap_or(1).max(removed_to + 1).max(frame.reach.map_or(1, |reach| reach.segment));
    let mut headers = BTreeMap::new();
    for number in there.iter().copied().filter(|number| !is_removed(*number)) {
        match check::first_group(vfs, frame.directory, number) {
            Ok(header) => drop(headers.insert(number, header)),
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("read", &check::segment_file(number))(error)),
        }
    }
    let starts_at = |number: u64| {
        let header = headers.get(&number).and_then(|header: &Result<u64, Damage>| header.as_ref().ok().copied());
        header.or_else(|| frame.removed.iter().find(|range| range.from == number).map(|range| range.first_group))
    };
    let mut journal = Journal::default();
    let mut next_group = 1;
    for number in (1..=last).filter(|number| !is_removed(*number)) {
        if frame.sealed_only && number == last {
            break;
        }
        let end = starts_at(number + 1);
        let is_last = number == last;
        let least = if is_last { frame.reach.map_or(0, |reach| reach.next_group) } else { 0 };
        let first_group = starts_at(number).unwrap_or(next_group);
        let expected = Expected { directory: frame.directory, number, first_group, end, least };
        let whole = match headers.get(&number) {
            None => Some(Damage::MissingSegment),
            Some(Err(damage)) => Some(damage.clone()),
            Some(Ok(found)) if *found < next_group => {
                Some(Damage::UnexpectedGroup { expected: next_group, found: *found })
            }
            Some(Ok(_)) => None,
        };
        let may_start_later = starts_at(number).is_none() && is_removed(number - 1);
        let mut segment = Segment { expected, may_start_later, whole, found: SegmentFound::default() };
        // Without a header nobody knows how its frames are stored.
        if matches!(segment.whole, None | Some(Damage::UnexpectedGroup { .. })) {
            let mut stopped = None;
            let name = check::segment_file(number);
            let found = check::segment(vfs, &name, &expected, frame.ring, &mut |frame| {
                if stopped.is_none() {
                    stopped = visit(number, frame).err();
                }
            });
            segment.found = found.map_err(io_error("read", &name))?;
            if let Some(stopped) = stopped {
                return Ok(Err(stopped));
            }
        }
        next_group = end.unwrap_or(segment.found.next_group.max(first_group));
        journal.segments.insert(number, segment);
    }
    Ok(Ok(journal))
}

impl Journal {
    /// The last segment.
    pub(crate) fn last(&self) -> Option<&Segment> {
        self.segments.values().next_back()
    }

    /// Whether a group is there as it was written.
    pub(crate) fn has(&self, segment: u64, group: u64) -> bool {
        self.segments.get(&segment).is_some_and(|segment| {
            let groups = &segment.found.groups;
            groups.binary_search_by_key(&group, |found| found.group).is_ok()
        })
    }

    /// The groups that are damaged or missing.
    pub(crate) fn damaged_groups(&self) -> Vec<Range<u64>> {
        self.segments.values().flat_map(Segment::holes).map(|hole| hole.groups).collect()
    }
}
