//! What is on the simulated disks, as the simulator itself saw it get there: which records each storage node has, and the
//! cuts. The order follows from it, and nothing may be told to anyone that is not in it.

use std::collections::BTreeMap;

use boki_log::batch::Batch;
use boki_log::cut::Cut;
use boki_log::machine::{FRAME_CUT, FRAME_RUN};
use boki_log::storage::Run;
use boki_log::{LogError, NodeId, Position, Seq, ShardId};
use bytes::Bytes;

use crate::violation::{Checked, Violation, ensure, violated};

/// A frame on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// Its kind.
    pub kind: u8,
    /// The segment it is in.
    pub segment: u64,
    /// Its body.
    pub body: Bytes,
}

/// A batch that a cut has just ordered.
#[derive(Debug)]
pub struct NewlyOrdered {
    /// The batch.
    pub batch: Batch,
    /// The cut's time.
    pub time_us: u64,
}

/// How far something is on a disk.
#[derive(Clone, Copy, Debug)]
struct Extent {
    upto: u64,
    /// The segment of the last of it; `None` once that was given back, its meaning being in a checkpoint.
    segment: Option<u64>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Ledger {
    storages: Vec<NodeId>,
    quorum: usize,
    contents: BTreeMap<ShardId, BTreeMap<u64, Batch>>,
    stored: BTreeMap<(NodeId, ShardId), Extent>,
    cuts: Vec<Cut>,
    /// How many cuts are on the disk of each sequencer.
    cuts_on: BTreeMap<NodeId, Extent>,
    ordered: BTreeMap<ShardId, u64>,
}

impl Ledger {
    /// An empty one, for these storage nodes.
    #[must_use]
    pub fn new(storages: Vec<NodeId>, quorum: usize) -> Ledger {
        Ledger {
            storages,
            quorum,
            contents: BTreeMap::new(),
            stored: BTreeMap::new(),
            cuts: Vec::new(),
            cuts_on: BTreeMap::new(),
            ordered: BTreeMap::new(),
        }
    }

    /// The position of one who has seen everything that is ordered.
    #[must_use]
    pub fn end(&self) -> Position {
        Position(self.cuts.last().map_or(Seq::FIRST, Cut::end))
    }

    /// How many cuts there are.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.cuts.len() as u64
    }

    /// Frames have got onto `node`'s disk. Returns what is ordered now.
    pub fn durable(&mut self, node: NodeId, frames: &[OnDisk]) -> Checked<Vec<NewlyOrdered>> {
        let mut ordered = Vec::new();
        for frame in frames {
            match frame.kind {
                FRAME_RUN => self.add_run(node, frame)?,
                FRAME_CUT => ordered.extend(self.add_cut(node, frame)?),
                other => return violated("format", format!("a frame of kind {other}")),
            }
        }
        Ok(ordered)
    }

    /// `node` has read these frames back at its start. Everything that was on its disk must be among them.
    pub fn recovered(&mut self, node: NodeId, frames: &[OnDisk]) -> Checked<Vec<NewlyOrdered>> {
        let mut found: BTreeMap<ShardId, u64> = BTreeMap::new();
        let mut cuts = 0;
        for frame in frames {
            match frame.kind {
                FRAME_RUN => {
                    let run = decoded(Run::decode(&frame.body))?;
                    let upto = found.entry(run.shard).or_default();
                    *upto = run.end().0.max(*upto);
                }
                _ => cuts = decoded(Cut::decode(&frame.body))?.index + 1,
            }
        }
        for ((_, shard), extent) in self.stored.iter().filter(|((of, _), _)| *of == node) {
            let back = found.get(shard).copied().unwrap_or(0);
            ensure(back >= extent.upto || extent.segment.is_none(), "lost-by-the-disk", || {
                format!("{node} had {shard} up to {} on disk and finds it up to {back}", extent.upto)
            })?;
        }
        if let Some(extent) = self.cuts_on.get(&node) {
            ensure(cuts >= extent.upto || extent.segment.is_none(), "lost-by-the-disk", || {
                format!("{node} had {} cuts on disk and finds {cuts}", extent.upto)
            })?;
        }
        self.durable(node, frames)
    }

    /// `node` gave back a segment.
    pub fn removed(&mut self, node: NodeId, segment: u64) {
        let stored = self.stored.iter_mut().filter(|((of, _), _)| *of == node).map(|(_, extent)| extent);
        for extent in stored.chain(self.cuts_on.get_mut(&node)).filter(|extent| extent.segment == Some(segment)) {
            extent.segment = None;
        }
    }

    fn add_run(&mut self, node: NodeId, frame: &OnDisk) -> Checked {
        let run = decoded(Run::decode(&frame.body))?;
        let contents = self.contents.entry(run.shard).or_default();
        let mut at = run.first.0;
        for batch in &run.batches {
            match contents.get(&at) {
                None => {
                    contents.insert(at, batch.clone());
                }
                Some(known) => ensure(known == batch, "replicas-differ", || {
                    format!("{node} has another batch at {} of {}", at, run.shard)
                })?,
            }
            at += u64::from(batch.record_count());
        }
        let extent = self.stored.entry((node, run.shard)).or_insert(Extent { upto: 0, segment: None });
        if at > extent.upto {
            *extent = Extent { upto: at, segment: Some(frame.segment) };
        }
        Ok(())
    }

    fn add_cut(&mut self, node: NodeId, frame: &OnDisk) -> Checked<Vec<NewlyOrdered>> {
        let cut = decoded(Cut::decode(&frame.body))?;
        let extent = self.cuts_on.entry(node).or_insert(Extent { upto: 0, segment: None });
        if cut.index + 1 > extent.upto {
            *extent = Extent { upto: cut.index + 1, segment: Some(frame.segment) };
        }
        if let Some(known) = self.cuts.get(cut.index as usize) {
            ensure(*known == cut, "order", || format!("cut {} was {known:?} and is {cut:?}", cut.index))?;
            return Ok(Vec::new());
        }
        ensure(cut.index == self.cuts(), "order", || format!("cut {} after {} cuts", cut.index, self.cuts()))?;
        ensure(Position(cut.start) == self.end(), "order", || format!("{cut:?} starts not at {}", self.end()))?;
        let before_us = self.cuts.last().map_or(0, |last| last.time_us);
        ensure(cut.time_us >= before_us, "time", || format!("{cut:?} after time {before_us}"))?;
        let mut newly = Vec::new();
        for delta in &cut.deltas {
            let shard = delta.shard;
            let from = self.ordered.get(&shard).copied().unwrap_or(0);
            ensure(delta.from.0 == from && delta.count > 0, "order", || {
                format!("{shard} is ordered up to {from}, and the next delta is {delta:?}")
            })?;
            let copies = self.copies(shard, delta.end().0);
            ensure(copies >= self.quorum, "ordered-before-stored", || {
                format!("cut {} orders {shard} up to {}, of which {copies} disks have it", cut.index, delta.end())
            })?;
            let mut at = from;
            while at < delta.end().0 {
                let Some(batch) = self.contents.get(&shard).and_then(|contents| contents.get(&at)) else {
                    return violated("order", format!("no batch begins at {at} of {shard}"));
                };
                at += u64::from(batch.record_count());
                newly.push(NewlyOrdered { batch: batch.clone(), time_us: cut.time_us });
            }
            ensure(at == delta.end().0, "order", || format!("{delta:?} splits a batch"))?;
            self.ordered.insert(shard, at);
        }
        self.cuts.push(cut);
        Ok(newly)
    }

    /// How many storage nodes have `shard` up to `upto` on disk.
    fn copies(&self, shard: ShardId, upto: u64) -> usize {
        let has = |node: &&NodeId| self.stored.get(&(**node, shard)).is_some_and(|extent| extent.upto >= upto);
        self.storages.iter().filter(has).count()
    }

    /// Whether a batch of which `is_it` is true is on a quorum of disks.
    pub fn is_durable(&self, is_it: impl Fn(&Batch) -> bool) -> bool {
        self.contents.iter().any(|(shard, contents)| {
            let at = contents.iter().filter(|(_, batch)| is_it(batch));
            let mut ends = at.map(|(first, batch)| first + u64::from(batch.record_count()));
            ends.any(|end| self.copies(*shard, end) >= self.quorum)
        })
    }

    /// A shard of which more is on a quorum of disks than is ordered.
    #[must_use]
    pub fn unordered(&self) -> Option<ShardId> {
        self.contents.iter().find_map(|(shard, contents)| {
            let ordered = self.ordered.get(shard).copied().unwrap_or(0);
            let batch = contents.get(&ordered)?;
            let end = ordered + u64::from(batch.record_count());
            (self.copies(*shard, end) >= self.quorum).then_some(*shard)
        })
    }
}

fn decoded<T>(result: Result<T, LogError>) -> Checked<T> {
    result.map_err(|error| Violation { check: "format", detail: format!("a frame does not parse: {error}") })
}
