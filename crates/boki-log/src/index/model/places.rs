//! The table of cuts as lookups need it: which record of which shard has a seq, and when it was ordered.

use std::collections::VecDeque;

use crate::cut::Cut;
use crate::ids::{LocalId, Seq, ShardId};

/// Neighbouring seqs that are neighbours in one shard too. With one shard, one run covers the whole log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: Seq,
    pub(super) shard: ShardId,
    pub(super) from: LocalId,
    pub(super) count: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Rising, without gaps between them.
    pub(super) runs: VecDeque<Run>,
    /// First seq and time of each cut, rising. Cuts of the same microsecond share an entry.
    pub(super) times: VecDeque<(Seq, u64)>,
}

impl Places {
    pub(super) fn add(&mut self, cut: &Cut) {
        if self.times.back().is_none_or(|(_, time)| *time < cut.time_us) {
            self.times.push_back((cut.start, cut.time_us));
        }
        let mut start = cut.start;
        for delta in &cut.deltas {
            match self.runs.back_mut() {
                Some(run) if run.shard == delta.shard && run.from.0 + run.count == delta.from.0 => {
                    run.count += u64::from(delta.count);
                }
                _ => self.runs.push_back(Run {
                    start,
                    shard: delta.shard,
                    from: delta.from,
                    count: u64::from(delta.count),
                }),
            }
            start = Seq(start.0 + u64::from(delta.count));
        }
    }

    pub(super) fn find(&self, seq: Seq) -> Option<(ShardId, LocalId, u64)> {
        let run = self.runs.get(self.runs.partition_point(|run| run.start <= seq).checked_sub(1)?)?;
        let offset = seq.0 - run.start.0;
        if offset >= run.count {
            return None;
        }
        let (_, time) = self.times.get(self.times.partition_point(|(start, _)| *start <= seq).checked_sub(1)?)?;
        Some((run.shard, LocalId(run.from.0 + offset), *time))
    }
}
