//! What the frames of records hold: runs as they were appended, and records that were moved out of a segment that is mostly
//! dead.

use bytes::{BufMut, Bytes, BytesMut};

use super::PlaceEntry;
use crate::batch::Batch;
use crate::codec::{Reader, crc32c};
use crate::error::LogError;
use crate::ids::{LocalId, NodeId, ShardId, Term};

/// Batches of one shard, one after the other: what one frame on disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The shard.
    pub shard: ShardId,
    /// Local id of the first record.
    pub first: LocalId,
    /// The batches.
    pub batches: Vec<Batch>,
}

/// Bytes of a run's encoding before its batches: engine u16, term u32, first local id u64.
const RUN_HEADER_BYTES: u32 = 14;

impl Run {
    /// The run as the body of a frame, in parts: a header, then the batches as they are.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let mut header = BytesMut::with_capacity(RUN_HEADER_BYTES as usize);
        header.put_u16_le(self.shard.engine.0);
        header.put_u32_le(self.shard.term.0);
        header.put_u64_le(self.first.0);
        std::iter::once(header.freeze()).chain(self.batches.iter().map(|batch| batch.bytes().clone())).collect()
    }

    /// Takes a frame's body apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is not a whole run.
    pub fn decode(body: &Bytes) -> Result<Run, LogError> {
        let mut reader = Reader::new(body);
        let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
        let first = LocalId(reader.u64()?);
        let mut batches = Vec::new();
        let mut records = 0_u64;
        while reader.remaining() > 0 {
            let len = Reader::at(body, reader.offset()).u32()? as usize;
            let batch = Batch::decode(reader.bytes(len)?)?;
            records = records.saturating_add(u64::from(batch.record_count()));
            batches.push(batch);
        }
        if first.0.checked_add(records).is_none() {
            return Err(LogError::Malformed { reason: "local ids that cannot be" });
        }
        Ok(Run { shard, first, batches })
    }

    /// Local id after its last record.
    #[must_use]
    pub fn end(&self) -> LocalId {
        LocalId(self.first.0 + self.batches.iter().map(|batch| u64::from(batch.record_count())).sum::<u64>())
    }

    /// Where its records lie, if it is the body of the frame at `frame`.
    pub(crate) fn entries(&self, frame: u32) -> Vec<PlaceEntry> {
        let mut entries = Vec::new();
        let mut at = RUN_HEADER_BYTES;
        for batch in &self.batches {
            for (offset, len) in batch.record_spans() {
                let body = batch.bytes().get(offset as usize..(offset + len) as usize).unwrap_or_default();
                entries.push(PlaceEntry { frame, at: at + offset, len, checksum: crc32c(body) });
            }
            at += batch.bytes().len() as u32;
        }
        entries
    }
}

/// Records of one shard that were copied to the end of the journal, so that the segment they were in can go. They keep
/// their places in the order: nothing is judged again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The shard.
    pub shard: ShardId,
    /// Local id and body of each, rising.
    pub records: Vec<(LocalId, Bytes)>,
}

/// Bytes of the encoding before the table: engine u16, term u32, number of records u32.
const MOVED_HEADER_BYTES: usize = 10;
/// Bytes of the table per record: local id u64, length u32. The bodies follow the table.
const MOVED_ENTRY_BYTES: usize = 12;

impl Moved {
    /// The records as the body of a frame, in parts: a header with a table, then the bodies as they are.
    #[must_use]
    pub fn encode(&self) -> Vec<Bytes> {
        let mut header = BytesMut::with_capacity(MOVED_HEADER_BYTES + self.records.len() * MOVED_ENTRY_BYTES);
        header.put_u16_le(self.shard.engine.0);
        header.put_u32_le(self.shard.term.0);
        header.put_u32_le(self.records.len() as u32);
        for (local, body) in &self.records {
            header.put_u64_le(local.0);
            header.put_u32_le(body.len() as u32);
        }
        std::iter::once(header.freeze()).chain(self.records.iter().map(|(_, body)| body.clone())).collect()
    }

    /// Takes a frame's body apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if it is not whole.
    pub fn decode(body: &Bytes) -> Result<Moved, LogError> {
        let mut reader = Reader::new(body);
        let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
        let count = reader.u32()? as usize;
        let mut table = Vec::with_capacity(count.min(reader.remaining() / MOVED_ENTRY_BYTES));
        for _ in 0..count {
            table.push((LocalId(reader.u64()?), reader.u32()? as usize));
        }
        if table.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a >= b)) {
            return Err(LogError::Malformed { reason: "moved records are not in order" });
        }
        let mut records = Vec::with_capacity(table.len());
        for (local, len) in table {
            records.push((local, reader.bytes(len)?));
        }
        reader.finish()?;
        Ok(Moved { shard, records })
    }

    /// The local ids.
    pub(super) fn locals(&self) -> Vec<LocalId> {
        self.records.iter().map(|(local, _)| *local).collect()
    }

    /// Where its records lie, if it is the body of the frame at `frame`.
    pub(crate) fn entries(&self, frame: u32) -> Vec<PlaceEntry> {
        let mut at = (MOVED_HEADER_BYTES + self.records.len() * MOVED_ENTRY_BYTES) as u32;
        let entry = |(_, body): &(LocalId, Bytes)| {
            let len = body.len() as u32;
            at += len;
            PlaceEntry { frame, at: at - len, len, checksum: crc32c(body) }
        };
        self.records.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use crate::ids::BookId;

    const SHARD: ShardId = ShardId { engine: NodeId(1), term: Term(1) };

    #[test]
    fn a_run_survives_its_encoding_and_says_where_records_lie() {
        let batch = |records| {
            (0..records).fold(BatchBuilder::new(BookId(1)), |b, _| b.record(vec![], &b"x"[..])).build().unwrap()
        };
        let run = Run { shard: SHARD, first: LocalId(9), batches: vec![batch(2), batch(1)] };
        let body = Bytes::from(run.encode().concat());
        assert_eq!(Run::decode(&body), Ok(run.clone()));
        let entries = run.entries(7);
        assert_eq!((entries.len(), entries[2].frame), (3, 7));
        let record = run.batches[1].records().next().unwrap();
        assert_eq!(entries[2].slice_of(&body).unwrap(), record.bytes());
    }

    #[test]
    fn moved_records_survive_their_encoding_and_no_prefix_of_it_does() {
        let record = |local, body: &'static str| (LocalId(local), Bytes::from_static(body.as_bytes()));
        let moved = Moved { shard: SHARD, records: vec![record(4, "four"), record(9, ""), record(11, "eleven")] };
        let body = Bytes::from(moved.encode().concat());
        assert_eq!(Moved::decode(&body), Ok(moved.clone()));
        for ((_, record), entry) in moved.records.iter().zip(moved.entries(1)) {
            assert_eq!(entry.slice_of(&body).unwrap(), record);
        }
        for len in 0..body.len() {
            assert!(Moved::decode(&body.slice(..len)).is_err());
        }
        let falling = Moved { shard: SHARD, records: vec![record(4, "a"), record(4, "b")] };
        assert!(Moved::decode(&Bytes::from(falling.encode().concat())).is_err());
    }
}
