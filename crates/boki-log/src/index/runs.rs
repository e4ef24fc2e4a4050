//! Which record of which shard has a seq.

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

/// Rising, without gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runs(pub(super) VecDeque<Run>);

impl Runs {
    pub(super) fn add(&mut self, cut: &Cut) {
        let mut start = cut.start;
        for delta in &cut.deltas {
            match self.0.back_mut() {
                Some(run) if run.shard == delta.shard && run.from.0 + run.count == delta.from.0 => {
                    run.count += u64::from(delta.count);
                }
                _ => {
                    self.0.push_back(Run { start, shard: delta.shard, from: delta.from, count: u64::from(delta.count) })
                }
            }
            start = Seq(start.0 + u64::from(delta.count));
        }
    }

    pub(super) fn find(&self, seq: Seq) -> Option<(ShardId, LocalId)> {
        let run = self.0.get(self.0.partition_point(|run| run.start <= seq).checked_sub(1)?)?;
        let offset = seq.0 - run.start.0;
        (offset < run.count).then_some((run.shard, LocalId(run.from.0 + offset)))
    }

    /// Drops whole runs that only concern seqs below `below`.
    pub(super) fn forget_below(&mut self, below: Seq) {
        while self.0.front().is_some_and(|run| run.start.0 + run.count <= below.0) {
            self.0.pop_front();
        }
    }
}
