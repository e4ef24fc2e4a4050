//! Cuts: the entries of the metalog. A cut says how many further records of each shard are now ordered; the
//! seqs of those records follow by arithmetic, shard by shard in the order the cut lists them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::Reader;
use crate::error::LogError;
use crate::ids::{LocalId, NodeId, Seq, ShardId, Term};

/// One entry of the metalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The entry's place in the metalog, from 0, without gaps.
    pub index: u64,
    /// Seq of the first record it orders.
    pub start: Seq,
    /// When it was made: microseconds since 1970 by the sequencer's clock, never falling.
    pub time_us: u64,
    /// What it orders, in order of seq. Never empty, no count is 0, no shard appears twice.
    pub deltas: Vec<ShardDelta>,
}

/// A run of records of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardDelta {
    /// The shard.
    pub shard: ShardId,
    /// Its first record here: where the shard's previous delta ended.
    pub from: LocalId,
    /// How many records.
    pub count: u32,
}

impl ShardDelta {
    /// The local id after the run.
    #[must_use]
    pub fn end(&self) -> LocalId {
        LocalId(self.from.0 + u64::from(self.count))
    }
}

impl Cut {
    /// The seq after the last record it orders.
    #[must_use]
    pub fn end(&self) -> Seq {
        Seq(self.start.0 + self.deltas.iter().map(|d| u64::from(d.count)).sum::<u64>())
    }

    /// Appends the cut's encoding: index, start, time (u64 each), number of deltas (u32), then each delta as
    /// engine (u16), term (u32), from (u64), count (u32).
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.index);
        out.put_u64_le(self.start.0);
        out.put_u64_le(self.time_us);
        out.put_u32_le(u32::try_from(self.deltas.len()).unwrap_or(u32::MAX));
        for delta in &self.deltas {
            out.put_u16_le(delta.shard.engine.0);
            out.put_u32_le(delta.shard.term.0);
            out.put_u64_le(delta.from.0);
            out.put_u32_le(delta.count);
        }
    }

    /// Takes a cut apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if `bytes` is not exactly one cut.
    pub fn decode(bytes: &Bytes) -> Result<Cut, LogError> {
        let mut reader = Reader::new(bytes);
        let (index, start, time_us) = (reader.u64()?, Seq(reader.u64()?), reader.u64()?);
        let count = reader.u32()?;
        let mut deltas = Vec::with_capacity(count.min(1024) as usize);
        let mut end = start.0;
        for _ in 0..count {
            let shard = ShardId { engine: NodeId(reader.u16()?), term: Term(reader.u32()?) };
            let delta = ShardDelta { shard, from: LocalId(reader.u64()?), count: reader.u32()? };
            end = end.saturating_add(u64::from(delta.count));
            if delta.count == 0 || delta.from.0.checked_add(u64::from(delta.count)).is_none() || end > Seq::MAX.0 {
                return Err(LogError::Malformed { reason: "a cut that orders what cannot be" });
            }
            deltas.push(delta);
        }
        reader.finish()?;
        if deltas.is_empty() || index == u64::MAX {
            return Err(LogError::Malformed { reason: "a cut that orders nothing" });
        }
        Ok(Cut { index, start, time_us, deltas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_survives_its_encoding_and_no_prefix_of_it_does() {
        let shard = |engine| ShardId { engine: NodeId(engine), term: Term(3) };
        let cut = Cut {
            index: 7,
            start: Seq(100),
            time_us: 1_700_000_000_000_000,
            deltas: vec![
                ShardDelta { shard: shard(1), from: LocalId(5), count: 2 },
                ShardDelta { shard: shard(2), from: LocalId(0), count: 9 },
            ],
        };
        let mut out = BytesMut::new();
        cut.encode(&mut out);
        let bytes = out.freeze();
        assert_eq!(Cut::decode(&bytes), Ok(cut.clone()));
        assert_eq!(cut.end(), Seq(111));
        for len in 0..bytes.len() {
            assert!(Cut::decode(&bytes.slice(..len)).is_err());
        }
    }

    #[test]
    fn a_cut_that_cannot_be_is_refused() {
        let shard = ShardId { engine: NodeId(1), term: Term(3) };
        let delta = |from, count| ShardDelta { shard, from: LocalId(from), count };
        let decoded = |index, start, deltas| {
            let mut out = BytesMut::new();
            Cut { index, start: Seq(start), time_us: 0, deltas }.encode(&mut out);
            Cut::decode(&out.freeze())
        };
        assert!(decoded(0, 1, vec![delta(0, 1)]).is_ok());
        assert!(decoded(0, 1, vec![]).is_err());
        assert!(decoded(0, 1, vec![delta(0, 0)]).is_err());
        assert!(decoded(0, 1, vec![delta(u64::MAX, 1)]).is_err());
        assert!(decoded(0, Seq::MAX.0, vec![delta(0, 1)]).is_err());
        assert!(decoded(u64::MAX, 1, vec![delta(0, 1)]).is_err());
    }
}
