//! An engine's own appends between their arrival and their cut.

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::engine::OpId;
use crate::ids::LocalId;
use crate::op::Ack;
use crate::sequencer::quorum_largest;

/// An append that no cut has reached.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) batch: Batch,
    /// Whom to answer; `None` once answered.
    pub(super) op: Option<OpId>,
    pub(super) ack: Ack,
}

/// The own shard's appends in the order of their local ids.
#[derive(Debug)]
pub(super) struct PendingAppends {
    /// Local id of the front's first record.
    front: LocalId,
    /// Local id of the next append's first record.
    next: LocalId,
    appends: VecDeque<Pending>,
    bytes: usize,
    /// How far each storage node has told that it is.
    stored: Vec<LocalId>,
    /// How many of `appends` are known to be on a quorum.
    durable: usize,
    /// Local id after those.
    durable_upto: LocalId,
}

impl PendingAppends {
    pub(super) fn new(storages: usize) -> PendingAppends {
        PendingAppends {
            front: LocalId(0),
            next: LocalId(0),
            appends: VecDeque::new(),
            bytes: 0,
            stored: vec![LocalId(0); storages],
            durable: 0,
            durable_upto: LocalId(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.appends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an append and gives it its place in the shard.
    pub(super) fn push(&mut self, pending: Pending) -> LocalId {
        let first = self.next;
        self.next = LocalId(first.0 + u64::from(pending.batch.record_count()));
        self.bytes += pending.batch.bytes().len();
        self.appends.push_back(pending);
        first
    }

    /// Takes the first append, which a cut has reached.
    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.appends.pop_front()?;
        self.front = LocalId(self.front.0 + u64::from(pending.batch.record_count()));
        self.bytes -= pending.batch.bytes().len();
        self.durable = self.durable.saturating_sub(1);
        self.durable_upto = self.durable_upto.max(self.front);
        Some(pending)
    }

    /// Takes note that storage node `at` has everything below `upto`; gives the appends that may be answered for it.
    pub(super) fn stored(&mut self, at: usize, upto: LocalId, quorum: usize) -> Vec<(OpId, u32)> {
        self.stored[at] = self.stored[at].max(upto);
        let reached = quorum_largest(&self.stored, quorum).unwrap_or_default();
        let mut answered = Vec::new();
        while let Some(pending) = self.appends.get_mut(self.durable) {
            let end = LocalId(self.durable_upto.0 + u64::from(pending.batch.record_count()));
            if end > reached {
                break;
            }
            self.durable += 1;
            self.durable_upto = end;
            if pending.ack == Ack::Durable
                && let Some(op) = pending.op.take()
            {
                answered.push((op, pending.batch.record_count()));
            }
        }
        answered
    }

    /// The appends that storage node `at` has not told to be on disk, with their local ids.
    pub(super) fn not_stored_at(&self, at: usize) -> impl Iterator<Item = (LocalId, &Batch)> {
        let stored = self.stored[at];
        self.appends
            .iter()
            .scan(self.front, |next, pending| {
                let first = *next;
                *next = LocalId(first.0 + u64::from(pending.batch.record_count()));
                Some((first, &pending.batch))
            })
            .filter(move |(first, _)| *first >= stored)
    }

    /// Takes back every append from local id `from` on; the next one will have that id.
    pub(super) fn take_back(&mut self, from: LocalId) -> Vec<Pending> {
        let mut taken = Vec::new();
        while self.next > from {
            let Some(pending) = self.appends.pop_back() else { break };
            self.next = LocalId(self.next.0 - u64::from(pending.batch.record_count()));
            self.bytes -= pending.batch.bytes().len();
            taken.push(pending);
        }
        taken.reverse();
        taken
    }

    /// Whom to answer, over all appends; they are answered by the caller.
    pub(super) fn take_ops(&mut self) -> Vec<OpId> {
        self.appends.iter_mut().filter_map(|pending| pending.op.take()).collect()
    }
}
