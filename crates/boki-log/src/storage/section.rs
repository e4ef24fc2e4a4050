//! What a checkpoint holds of where records lie. Little-endian; a list is its length (u64) and its items.
//!
//! Segments: number u64, records u32, then the set of those that are dead. Shards: engine u16, term u32, and its runs: first
//! local id u64, number of records u32, segment u64, ordinal u32. All entries are in place files by then.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};

use super::bits::Bits;
use super::places::{PlaceRun, Places, SegmentPlaces};
use crate::codec::Reader;
use crate::error::LogError;
use crate::ids::{NodeId, ShardId, Term};

/// A picture of where records lie, to be written while that goes on changing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StorageSnapshot {
    /// Number, how many records it has, which are dead.
    segments: Vec<(u64, u32, Bits)>,
    runs: Vec<(ShardId, Vec<(u64, PlaceRun)>)>,
}

impl Places {
    pub(super) fn snapshot(&self) -> StorageSnapshot {
        let segment = |(number, segment): (&u64, &SegmentPlaces)| (*number, segment.records(), segment.dead.clone());
        let shard = |(shard, runs): (&ShardId, &BTreeMap<u64, PlaceRun>)| {
            (*shard, runs.iter().map(|(first, run)| (*first, *run)).collect())
        };
        StorageSnapshot {
            segments: self.segments.iter().map(segment).collect(),
            runs: self.runs.iter().map(shard).collect(),
        }
    }

    pub(super) fn restore(snapshot: StorageSnapshot) -> Places {
        let segment = |(number, records, dead): (u64, u32, Bits)| {
            let living = records - dead.count().min(records);
            (number, SegmentPlaces { filed: records, dead, living, ..SegmentPlaces::default() })
        };
        Places {
            segments: snapshot.segments.into_iter().map(segment).collect(),
            runs: snapshot.runs.into_iter().map(|(shard, runs)| (shard, runs.into_iter().collect())).collect(),
            // What has waned may still be there.
            has_waned: true,
        }
    }
}

impl StorageSnapshot {
    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.segments.len() as u64);
        for (number, records, dead) in &self.segments {
            out.put_u64_le(*number);
            out.put_u32_le(*records);
            dead.put(out);
        }
        out.put_u64_le(self.runs.len() as u64);
        for (shard, runs) in &self.runs {
            out.put_u16_le(shard.engine.0);
            out.put_u32_le(shard.term.0);
            out.put_u64_le(runs.len() as u64);
            for (first, run) in runs {
                out.put_u64_le(*first);
                out.put_u32_le(run.count);
                out.put_u64_le(run.segment);
                out.put_u32_le(run.ordinal);
            }
        }
    }

    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<StorageSnapshot, LogError> {
        let malformed = |reason| LogError::Malformed { reason };
        let mut snapshot = StorageSnapshot::default();
        let mut records_of = BTreeMap::new();
        for _ in 0..reader.u64()? {
            let (number, records) = (reader.u64()?, reader.u32()?);
            if records_of.insert(number, records).is_some() {
                return Err(malformed("a segment is named twice"));
            }
            snapshot.segments.push((number, records, Bits::take(reader, records)?));
        }
        for _ in 0..reader.u64()? {
            let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
            let mut runs = Vec::new();
            let mut end = 0;
            for _ in 0..reader.u64()? {
                let first = reader.u64()?;
                let run = PlaceRun { count: reader.u32()?, segment: reader.u64()?, ordinal: reader.u32()? };
                let records = records_of.get(&run.segment).copied().unwrap_or_default();
                if first < end || run.ordinal.checked_add(run.count).is_none_or(|end| end > records) {
                    return Err(malformed("a run of records lies where none can"));
                }
                end = first.saturating_add(u64::from(run.count));
                runs.push((first, run));
            }
            snapshot.runs.push((shard, runs));
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::PlaceEntry;
    use super::*;
    use crate::ids::LocalId;

    #[test]
    fn places_survive_a_checkpoint_and_no_prefix_of_it_does() {
        let shard = |term| ShardId { engine: NodeId(1), term: Term(term) };
        let entries = |count| vec![PlaceEntry { frame: 1, at: 2, len: 3, checksum: 4 }; count];
        let mut places = Places::default();
        places.add(shard(1), LocalId(0), 1, &entries(5));
        places.add(shard(2), LocalId(0), 1, &entries(3));
        places.add(shard(2), LocalId(3), 2, &entries(4));
        places.release(shard(1), LocalId(1), 2);
        places.relocate(shard(1), &[LocalId(3)], 2, &entries(1));
        places.note_segment(3);
        for unfiled in places.unfiled() {
            places.file(unfiled.segment, unfiled.end());
        }
        let mut out = BytesMut::new();
        places.snapshot().put(&mut out);
        let bytes = out.freeze();
        let take = |bytes: &Bytes| StorageSnapshot::take(&mut Reader::new(bytes));
        assert_eq!(Places::restore(take(&bytes).unwrap()), places);
        for len in 0..bytes.len() {
            assert!(take(&bytes.slice(..len)).is_err(), "{len} bytes");
        }
    }
}
