//! Where on disk each record lies, and what is alive in which segment file.
//!
//! Every record of a segment has an **ordinal**: records count up in the order in which its frames name them. What is kept in
//! memory of a record is a bit, whether it is dead, and its share of a run: records that follow each other in their shard and
//! in their segment. Where exactly a record lies is an entry of 16 bytes, in memory until it is in the segment's **place
//! file**, which is a list of entries by ordinal and so a pure function of the segment: it can be made again from it, and one
//! that is longer than needed is as good.
//!
//! A record is dead when it is gone, or when it lies elsewhere by now.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bits::Bits;
use super::{Place, PlaceEntry};
use crate::ids::{LocalId, ShardId};

/// Where to look for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It lies here.
    At(Place),
    /// The place file of `segment` says where, under `ordinal`.
    InFile {
        /// Number of the segment file.
        segment: u64,
        /// Which of its records.
        ordinal: u32,
    },
}

/// Entries that are in no place file yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfiled {
    /// The segment.
    pub segment: u64,
    /// How many entries its place file has: the ordinal of the first of `entries`.
    pub filed: u32,
    /// Those that follow.
    pub entries: Arc<Vec<PlaceEntry>>,
}

impl Unfiled {
    /// How many entries the place file has once these are in it.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.filed + self.entries.len() as u32
    }
}

/// What is known of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentPlaces {
    /// How many entries its place file has.
    pub(super) filed: u32,
    /// The entries behind those.
    pub(super) unfiled: Arc<Vec<PlaceEntry>>,
    /// Which of its records are dead, by ordinal.
    pub(super) dead: Bits,
    /// How many are not.
    pub(super) living: u32,
}

impl SegmentPlaces {
    /// How many records it has, dead or alive.
    pub(super) fn records(&self) -> u32 {
        self.filed + self.unfiled.len() as u32
    }

    fn kill(&mut self, ordinal: u32) -> bool {
        let killed = self.dead.set(ordinal);
        self.living -= u32::from(killed);
        killed
    }
}

/// Records that follow each other in their shard and in their segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceRun {
    pub(super) count: u32,
    pub(super) segment: u64,
    pub(super) ordinal: u32,
}

/// See the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) segments: BTreeMap<u64, SegmentPlaces>,
    /// By shard and local id of the first record.
    pub(super) runs: BTreeMap<ShardId, BTreeMap<u64, PlaceRun>>,
    /// A segment has lost its last living record, or most of them, since this was last asked.
    pub(super) has_waned: bool,
}

impl Places {
    /// Takes note of a segment, so that it can be given back when nothing in it is alive.
    pub(super) fn note_segment(&mut self, segment: u64) {
        self.segments.entry(segment).or_default();
    }

    /// Records of `shard` from `first` on are in `segment`, alive.
    pub(super) fn add(&mut self, shard: ShardId, first: LocalId, segment: u64, entries: &[PlaceEntry]) {
        let count = entries.len() as u32;
        let ordinal = self.push(segment, entries, count);
        self.insert(shard, first.0, PlaceRun { count, segment, ordinal });
    }

    /// Copies of the records of `shard` with these local ids, rising, are in `segment`. Those that are alive are alive there
    /// from now on and nowhere else.
    pub(super) fn relocate(&mut self, shard: ShardId, locals: &[LocalId], segment: u64, entries: &[PlaceEntry]) {
        let first_ordinal = self.push(segment, entries, 0);
        for (local, ordinal) in locals.iter().zip(first_ordinal..) {
            let was_alive = self.locate(shard, *local).is_some_and(|(segment, ordinal)| {
                self.segments.get_mut(&segment).is_some_and(|from| from.kill(ordinal))
            });
            let Some(to) = self.segments.get_mut(&segment) else { continue };
            if was_alive {
                to.living += 1;
                self.insert(shard, local.0, PlaceRun { count: 1, segment, ordinal });
            } else {
                to.dead.set(ordinal);
            }
        }
        self.has_waned = true;
    }

    /// These records, of `shard` from `from` on, are gone.
    pub(super) fn release(&mut self, shard: ShardId, from: LocalId, count: u32) {
        let Some(runs) = self.runs.get(&shard) else { return };
        let end = from.0 + u64::from(count);
        let start = runs.range(..=from.0).next_back().map_or(from.0, |(first, _)| *first);
        for (first, run) in runs.range(start..end) {
            let Some(segment) = self.segments.get_mut(&run.segment) else { continue };
            let before = segment.living;
            for local in from.0.max(*first)..end.min(first + u64::from(run.count)) {
                segment.kill(run.ordinal + (local - first) as u32);
            }
            let most = segment.records() / 2;
            let has_waned = before > most && segment.living <= most || before > 0 && segment.living == 0;
            self.has_waned |= has_waned;
        }
    }

    /// Where to look for a record.
    pub(super) fn find(&self, shard: ShardId, local: LocalId) -> Option<Found> {
        let (number, ordinal) = self.locate(shard, local)?;
        let segment = self.segments.get(&number)?;
        let Some(at) = ordinal.checked_sub(segment.filed) else {
            return Some(Found::InFile { segment: number, ordinal });
        };
        segment.unfiled.get(at as usize).map(|entry| Found::At(entry.in_segment(number)))
    }

    /// How many records of a segment are alive.
    pub(super) fn living(&self, number: u64) -> u32 {
        self.segments.get(&number).map_or(0, |segment| segment.living)
    }

    /// Segments below `end` in which nothing is alive.
    pub(super) fn dead_segments(&self, end: u64) -> impl Iterator<Item = u64> {
        self.segments.range(..end).filter(|(_, segment)| segment.living == 0).map(|(number, _)| *number)
    }

    /// Forgets a segment, and where its records were.
    pub(super) fn forget_segment(&mut self, number: u64) {
        if self.segments.remove(&number).is_some() {
            for runs in self.runs.values_mut() {
                runs.retain(|_, run| run.segment != number);
            }
            self.runs.retain(|_, runs| !runs.is_empty());
        }
    }

    /// The entries that are in no place file yet.
    pub(super) fn unfiled(&self) -> Vec<Unfiled> {
        let unfiled = self.segments.iter().filter(|(_, segment)| !segment.unfiled.is_empty());
        unfiled
            .map(|(number, segment)| Unfiled {
                segment: *number,
                filed: segment.filed,
                entries: Arc::clone(&segment.unfiled),
            })
            .collect()
    }

    /// The place file of `number` has the first `filed` entries.
    pub(super) fn file(&mut self, number: u64, filed: u32) {
        let Some(segment) = self.segments.get_mut(&number) else { return };
        let more = filed.saturating_sub(segment.filed) as usize;
        if more > 0 && more <= segment.unfiled.len() {
            segment.unfiled = Arc::new(segment.unfiled.get(more..).unwrap_or_default().to_vec());
            segment.filed = filed;
        }
    }

    /// Adds entries to a segment, of which `living` are alive, and returns the ordinal of the first.
    fn push(&mut self, segment: u64, entries: &[PlaceEntry], living: u32) -> u32 {
        let segment = self.segments.entry(segment).or_default();
        let ordinal = segment.records();
        Arc::make_mut(&mut segment.unfiled).extend_from_slice(entries);
        segment.living += living;
        ordinal
    }

    /// Segment and ordinal of a record.
    fn locate(&self, shard: ShardId, local: LocalId) -> Option<(u64, u32)> {
        let (first, run) = self.runs.get(&shard)?.range(..=local.0).next_back()?;
        let offset = u32::try_from(local.0 - first).ok().filter(|offset| *offset < run.count)?;
        Some((run.segment, run.ordinal + offset))
    }

    /// Puts a run in the place of what is there.
    fn insert(&mut self, shard: ShardId, first: u64, run: PlaceRun) {
        let runs = self.runs.entry(shard).or_default();
        let end = first + u64::from(run.count);
        let start = runs.range(..first).next_back().map_or(first, |(before, _)| *before);
        let overlapped: Vec<(u64, PlaceRun)> = runs
            .range(start..end)
            .filter(|(at, other)| **at + u64::from(other.count) > first)
            .map(|(at, other)| (*at, *other))
            .collect();
        for (at, other) in overlapped {
            runs.remove(&at);
            if at < first {
                runs.insert(at, PlaceRun { count: (first - at) as u32, ..other });
            }
            let left = (at + u64::from(other.count)).saturating_sub(end) as u32;
            if left > 0 {
                runs.insert(end, PlaceRun { count: left, ordinal: other.ordinal + other.count - left, ..other });
            }
        }
        if let Some((at, before)) = runs.range_mut(..first).next_back()
            && at + u64::from(before.count) == first
            && before.segment == run.segment
            && before.ordinal + before.count == run.ordinal
        {
            before.count += run.count;
        } else {
            runs.insert(first, run);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{NodeId, Term};

    const SHARD: ShardId = ShardId { engine: NodeId(1), term: Term(1) };

    fn entry(frame: u32) -> PlaceEntry {
        PlaceEntry { frame, at: 0, len: 1, checksum: 0 }
    }

    /// What is done to the places, and to a map that says the same of every record.
    #[derive(Clone, Debug)]
    enum Step {
        Add { count: u8, rolls: bool },
        Release { from: u8, count: u8 },
        Move { from: u8, every: u8, count: u8 },
        File,
        Forget,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..9_u8, any::<bool>()).prop_map(|(count, rolls)| Step::Add { count, rolls }),
            (any::<u8>(), 1..20_u8).prop_map(|(from, count)| Step::Release { from, count }),
            (any::<u8>(), 1..5_u8, 1..9_u8).prop_map(|(from, every, count)| Step::Move { from, every, count }),
            Just(Step::File),
            Just(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn every_record_is_found_where_a_map_has_it(steps in proptest::collection::vec(step(), 1..60)) {
            let mut places = Places::default();
            // Of each local id: segment, frame (told apart by number), whether it is alive.
            let mut model: BTreeMap<u64, (u64, u32, bool)> = BTreeMap::new();
            let mut files: BTreeMap<u64, Vec<PlaceEntry>> = BTreeMap::new();
            let (mut segment, mut next, mut frame) = (1, 0_u64, 0_u32);
            for step in steps {
                match step {
                    Step::Add { count, rolls } => {
                        segment += u64::from(rolls);
                        let entries: Vec<_> = (0..u32::from(count)).map(|at| entry(frame + at)).collect();
                        places.add(SHARD, LocalId(next), segment, &entries);
                        for entry in entries {
                            model.insert(next, (segment, entry.frame, true));
                            next += 1;
                        }
                        frame += u32::from(count);
                    }
                    Step::Release { from, count } => {
                        places.release(SHARD, LocalId(u64::from(from)), u32::from(count));
                        for (_, (_, _, alive)) in model.range_mut(u64::from(from)..u64::from(from) + u64::from(count)) {
                            *alive = false;
                        }
                    }
                    Step::Move { from, every, count } => {
                        let locals: Vec<_> = (0..u64::from(count))
                            .map(|at| u64::from(from) + at * u64::from(every))
                            .filter(|local| model.contains_key(local))
                            .map(LocalId)
                            .collect();
                        let entries: Vec<_> = (0..locals.len() as u32).map(|at| entry(frame + at)).collect();
                        places.relocate(SHARD, &locals, segment, &entries);
                        for (local, entry) in locals.iter().zip(&entries) {
                            if let Some(known) = model.get_mut(&local.0).filter(|known| known.2) {
                                (known.0, known.1) = (segment, entry.frame);
                            }
                        }
                        frame += locals.len() as u32;
                    }
                    Step::File => {
                        for unfiled in places.unfiled() {
                            let file = files.entry(unfiled.segment).or_default();
                            prop_assert_eq!(file.len(), unfiled.filed as usize);
                            file.extend_from_slice(&unfiled.entries);
                            places.file(unfiled.segment, unfiled.end());
                        }
                    }
                    Step::Forget => {
                        let dead: Vec<u64> = places.dead_segments(segment).collect();
                        for dead in dead {
                            places.forget_segment(dead);
                            files.remove(&dead);
                            prop_assert!(model.values().all(|known| known.0 != dead || !known.2));
                            model.retain(|_, known| known.0 != dead);
                        }
                    }
                }
                for (local, (segment, frame, alive)) in &model {
                    let found = match places.find(SHARD, LocalId(*local)) {
                        Some(Found::At(place)) => Some((place.segment, place.frame)),
                        Some(Found::InFile { segment, ordinal }) => {
                            Some((segment, files[&segment][ordinal as usize].frame))
                        }
                        None => None,
                    };
                    if *alive {
                        prop_assert_eq!(found, Some((*segment, *frame)), "local id {}", local);
                    }
                }
                for (number, segment) in &places.segments {
                    let living = model.values().filter(|known| known.0 == *number && known.2).count();
                    prop_assert_eq!(segment.living as usize, living, "segment {}", number);
                }
            }
        }
    }
}
