//! The sequencer: orders what storage has. It takes, per shard, the Q-th largest progress of its replicas, and writes
//! a cut whenever that advanced. Seqs exist only through its cuts.
//!
//! A cut is made when the metalog's disk is ready for it, so a cut covers whatever gathered during the previous
//! write; there is no timer. It is committed, and told to anyone, only when it is on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cut::{Cut, ShardDelta};
use crate::ids::{LocalId, NodeId, Seq, ShardId, Term};
use crate::message::{Message, Send, ShardProgress};

/// How a sequencer is set up.
#[derive(Clone, Debug)]
pub struct SequencerConfig {
    /// Which start of the process this is.
    pub term: Term,
    /// The storage nodes of every shard.
    pub storages: Vec<NodeId>,
    /// How many of them must have a record on disk before it is ordered.
    pub quorum: usize,
    /// The storage node whose journal the metalog shares, if it does: there, staged records count as durable.
    pub shares_journal_with: Option<NodeId>,
    /// Whom to tell about committed cuts.
    pub subscribers: Vec<NodeId>,
    /// How many committed cuts to keep for those who missed them.
    pub keep_cuts: usize,
    /// After how long to ask again, in microseconds; `None` where messages cannot be lost.
    pub resend_after_us: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct ShardState {
    /// Every record below is in a cut.
    ordered: LocalId,
    /// What each storage node said last, in the order of the configuration.
    progress: Vec<LocalId>,
}

/// See the module's description.
#[derive(Debug)]
pub struct Sequencer {
    config: SequencerConfig,
    shards: BTreeMap<ShardId, ShardState>,
    /// Shards whose progress may have advanced past their last cut.
    advanced: BTreeSet<ShardId>,
    next_index: u64,
    next_seq: Seq,
    time_us: u64,
    /// Made, not yet on disk.
    writing: Vec<Cut>,
    committed: VecDeque<Cut>,
    committed_end: Seq,
    /// Storage nodes that have not yet told their progress since the start.
    unheard: Vec<NodeId>,
    ask_again_us: Option<u64>,
}

impl Sequencer {
    /// A sequencer with an empty metalog.
    #[must_use]
    pub fn new(config: SequencerConfig) -> Sequencer {
        Sequencer {
            unheard: config.storages.clone(),
            config,
            shards: BTreeMap::new(),
            advanced: BTreeSet::new(),
            next_index: 0,
            next_seq: Seq::FIRST,
            time_us: 0,
            writing: Vec::new(),
            committed: VecDeque::new(),
            committed_end: Seq::FIRST,
            ask_again_us: None,
        }
    }

    /// Starts from a checkpoint instead of an empty metalog: the state after the cut before `next_index`.
    pub fn restore(&mut self, next_index: u64, next_seq: Seq, time_us: u64, ordered: &[(ShardId, LocalId)]) {
        self.next_index = next_index;
        self.next_seq = next_seq;
        self.committed_end = next_seq;
        self.time_us = time_us;
        for (shard, upto) in ordered {
            self.shard(*shard).ordered = *upto;
        }
    }

    /// Takes back a cut that was found on disk at the start. Cuts before the checkpoint are passed over; returns
    /// `false` if the cut does not follow the previous one.
    #[must_use]
    pub fn recover(&mut self, cut: Cut) -> bool {
        if cut.index < self.next_index {
            return true;
        }
        if cut.index != self.next_index || cut.start != self.next_seq {
            return false;
        }
        for delta in &cut.deltas {
            let shard = self.shard(delta.shard);
            if shard.ordered != delta.from {
                return false;
            }
            shard.ordered = delta.end();
        }
        self.next_index = cut.index + 1;
        self.next_seq = cut.end();
        self.time_us = cut.time_us;
        self.commit(cut);
        true
    }

    /// How far each shard is ordered, for a checkpoint.
    pub fn ordered(&self) -> impl Iterator<Item = (ShardId, LocalId)> {
        self.shards.iter().map(|(shard, state)| (*shard, state.ordered))
    }

    /// The cuts from `index` on that are made and still kept, committed or not.
    pub(crate) fn cuts_from(&self, index: u64) -> impl Iterator<Item = &Cut> {
        self.committed.iter().chain(&self.writing).filter(move |cut| cut.index >= index)
    }

    /// The seq after the last one that a committed cut gave.
    #[must_use]
    pub fn committed_end(&self) -> Seq {
        self.committed_end
    }

    /// Asks the storage nodes how far they are. Called once, after recovery.
    pub(crate) fn start(&mut self, now_us: u64, out: &mut Vec<Send>) {
        let message = Message::ProgressQuery { term: self.config.term };
        out.extend(self.unheard.iter().map(|to| Send { to: *to, message: message.clone() }));
        self.ask_again_us = self.config.resend_after_us.map(|after| now_us + after);
    }

    /// When [`Sequencer::tick`] wants to be called.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.ask_again_us
    }

    pub(crate) fn tick(&mut self, now_us: u64, out: &mut Vec<Send>) {
        if self.ask_again_us.is_none_or(|at| at > now_us) {
            return;
        }
        self.ask_again_us = None;
        if !self.unheard.is_empty() {
            self.start(now_us, out);
        }
    }

    /// Takes the answer to the question of this start. A report of what was just written is no answer: storage does not
    /// repeat what an earlier start has taken note of, so only asking brings it back.
    pub(crate) fn on_all_progress(&mut self, from: NodeId, term: Term, shards: &[ShardProgress], out: &mut Vec<Send>) {
        if term == self.config.term {
            self.unheard.retain(|node| *node != from);
        }
        self.on_progress(from, shards, out);
    }

    pub(crate) fn on_progress(&mut self, from: NodeId, shards: &[ShardProgress], out: &mut Vec<Send>) {
        let Some(at) = self.config.storages.iter().position(|node| *node == from) else { return };
        let shares_journal = self.config.shares_journal_with == Some(from);
        for progress in shards {
            let upto = if shares_journal { progress.staged.max(progress.durable) } else { progress.durable };
            let state = self.shard(progress.shard);
            if state.progress[at] < upto {
                state.progress[at] = upto;
                self.advanced.insert(progress.shard);
            }
        }
        if !shares_journal {
            let seen = shards.iter().map(|progress| (progress.shard, progress.durable)).collect();
            out.push(Send { to: from, message: Message::ProgressSeen(seen) });
        }
    }

    pub(crate) fn on_fetch_cuts(&mut self, from: NodeId, index: u64, out: &mut Vec<Send>) {
        let first = self.committed.front().map_or(0, |cut| cut.index);
        let skip = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        let cuts: Vec<Cut> = self.committed.iter().skip(skip).take(256).cloned().collect();
        if !cuts.is_empty() {
            out.push(Send { to: from, message: Message::Cuts(cuts) });
        }
    }

    pub(crate) fn on_tail_query(&mut self, from: NodeId, query: u64, out: &mut Vec<Send>) {
        out.push(Send { to: from, message: Message::TailIs { query, end: self.committed_end } });
    }

    /// Whether a cut could be made now.
    pub(crate) fn has_work(&self) -> bool {
        self.writing.is_empty() && self.advanced.iter().any(|shard| self.quorum_progress(*shard).is_some())
    }

    /// The cut to write now, if anything advanced. At most one is in the hands of the disk.
    pub(crate) fn take_write(&mut self, now_us: u64) -> Option<Cut> {
        if !self.writing.is_empty() {
            return None;
        }
        let mut deltas = Vec::new();
        for shard in std::mem::take(&mut self.advanced) {
            let Some(upto) = self.quorum_progress(shard) else { continue };
            let state = self.shard(shard);
            let count = u32::try_from(upto.0 - state.ordered.0).unwrap_or(u32::MAX);
            deltas.push(ShardDelta { shard, from: state.ordered, count });
            state.ordered = LocalId(state.ordered.0 + u64::from(count));
        }
        if deltas.is_empty() {
            return None;
        }
        self.time_us = self.time_us.max(now_us);
        let cut = Cut { index: self.next_index, start: self.next_seq, time_us: self.time_us, deltas };
        self.next_index += 1;
        self.next_seq = cut.end();
        self.writing.push(cut.clone());
        Some(cut)
    }

    /// The cut taken last is on disk.
    pub(crate) fn written(&mut self, out: &mut Vec<Send>) {
        let cuts = std::mem::take(&mut self.writing);
        if cuts.is_empty() {
            return;
        }
        for to in &self.config.subscribers {
            out.push(Send { to: *to, message: Message::Cuts(cuts.clone()) });
        }
        for cut in cuts {
            self.commit(cut);
        }
    }

    /// The cut taken last was not written: it never was. In a shared journal the staged records that it ordered were not
    /// written either. Elsewhere they are on their disks, and storage, which was told that they are known here, will
    /// not report them by itself: it is asked, when it is time to try again.
    pub(crate) fn refused(&mut self, now_us: u64) {
        while let Some(cut) = self.writing.pop() {
            self.next_index = cut.index;
            self.next_seq = cut.start;
            for delta in cut.deltas {
                let state = self.shard(delta.shard);
                state.ordered = delta.from;
                state.progress.fill(delta.from);
            }
        }
        if self.config.shares_journal_with.is_none() {
            self.unheard.clone_from(&self.config.storages);
            self.ask_again_us = self.config.resend_after_us.map(|after| now_us + after);
        }
    }

    fn commit(&mut self, cut: Cut) {
        self.committed_end = cut.end();
        self.committed.push_back(cut);
        while self.committed.len() > self.config.keep_cuts {
            self.committed.pop_front();
        }
    }

    fn shard(&mut self, shard: ShardId) -> &mut ShardState {
        let storages = self.config.storages.len();
        self.shards
            .entry(shard)
            .or_insert_with(|| ShardState { ordered: LocalId(0), progress: vec![LocalId(0); storages] })
    }

    /// The Q-th largest progress of the shard, if that is past what is ordered.
    fn quorum_progress(&self, shard: ShardId) -> Option<LocalId> {
        let state = self.shards.get(&shard)?;
        let upto = quorum_largest(&state.progress, self.config.quorum)?;
        (upto > state.ordered).then_some(upto)
    }
}

/// The `quorum`-th largest of `progress`: what so many nodes have.
pub(crate) fn quorum_largest(progress: &[LocalId], quorum: usize) -> Option<LocalId> {
    if let [only] = progress {
        return (quorum == 1).then_some(*only);
    }
    let mut sorted = progress.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.get(quorum.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;

    const SHARD: ShardId = ShardId { engine: NodeId(1), term: Term(1) };
    const OTHER: ShardId = ShardId { engine: NodeId(2), term: Term(1) };

    fn sequencer(storages: u16, quorum: usize, shared: bool) -> Sequencer {
        Sequencer::new(SequencerConfig {
            term: Term(1),
            storages: (0..storages).map(NodeId).collect(),
            quorum,
            shares_journal_with: shared.then_some(NodeId(0)),
            subscribers: vec![NodeId(9)],
            keep_cuts: 10,
            resend_after_us: None,
        })
    }

    fn progress(shard: ShardId, staged: u64, durable: u64) -> Vec<ShardProgress> {
        vec![ShardProgress { shard, staged: LocalId(staged), durable: LocalId(durable) }]
    }

    #[test]
    fn a_record_on_fewer_than_a_quorum_gets_no_seq_until_a_replica_returns() {
        let mut sequencer = sequencer(3, 2, false);
        let mut out = Vec::new();
        sequencer.on_progress(NodeId(0), &progress(SHARD, 5, 5), &mut out);
        assert_eq!(sequencer.take_write(1), None);
        sequencer.on_progress(NodeId(2), &progress(SHARD, 3, 3), &mut out);
        let cut = sequencer.take_write(2).unwrap();
        assert_eq!(cut.deltas, [ShardDelta { shard: SHARD, from: LocalId(0), count: 3 }]);
        assert_eq!((cut.start, cut.end()), (Seq(1), Seq(4)));
    }

    #[test]
    fn staged_records_count_only_in_the_shared_journal() {
        let mut out = Vec::new();
        let mut apart = sequencer(1, 1, false);
        apart.on_progress(NodeId(0), &progress(SHARD, 5, 0), &mut out);
        assert_eq!(apart.take_write(1), None);
        let mut shared = sequencer(1, 1, true);
        shared.on_progress(NodeId(0), &progress(SHARD, 5, 0), &mut out);
        assert_eq!(shared.take_write(1).unwrap().end(), Seq(6));
    }

    #[test]
    fn storage_is_asked_until_it_answers_this_start_with_everything() {
        let mut sequencer = sequencer(1, 1, false);
        sequencer.config.resend_after_us = Some(10);
        let asks = |sequencer: &mut Sequencer, now_us| {
            let mut out = Vec::new();
            sequencer.tick(now_us, &mut out);
            out == [Send { to: NodeId(0), message: Message::ProgressQuery { term: Term(1) } }]
        };
        sequencer.start(0, &mut Vec::new());
        sequencer.on_progress(NodeId(0), &progress(OTHER, 1, 1), &mut Vec::new());
        sequencer.on_all_progress(NodeId(0), Term(0), &progress(SHARD, 1, 1), &mut Vec::new());
        assert!(asks(&mut sequencer, 10), "only part of it, or of an earlier time, was told");
        sequencer.on_all_progress(NodeId(0), Term(1), &progress(SHARD, 2, 2), &mut Vec::new());
        assert!(!asks(&mut sequencer, 20));
        assert_eq!(sequencer.next_timer(), None);
    }

    #[test]
    fn nothing_is_told_before_the_cut_is_on_disk_and_old_progress_changes_nothing() {
        let mut sequencer = sequencer(1, 1, false);
        let mut out = Vec::new();
        sequencer.on_progress(NodeId(0), &progress(SHARD, 2, 2), &mut Vec::new());
        sequencer.on_progress(NodeId(0), &progress(OTHER, 1, 1), &mut Vec::new());
        let cut = sequencer.take_write(7).unwrap();
        assert_eq!(sequencer.committed_end(), Seq(1));
        sequencer.written(&mut out);
        assert_eq!(out, [Send { to: NodeId(9), message: Message::Cuts(vec![cut]) }]);
        assert_eq!(sequencer.committed_end(), Seq(4));
        sequencer.on_progress(NodeId(0), &progress(SHARD, 1, 1), &mut Vec::new());
        assert_eq!(sequencer.take_write(8), None);
    }

    #[test]
    fn time_never_falls() {
        let mut sequencer = sequencer(1, 1, false);
        sequencer.on_progress(NodeId(0), &progress(SHARD, 1, 1), &mut Vec::new());
        assert_eq!(sequencer.take_write(100).unwrap().time_us, 100);
        sequencer.written(&mut Vec::new());
        sequencer.on_progress(NodeId(0), &progress(SHARD, 2, 2), &mut Vec::new());
        assert_eq!(sequencer.take_write(50).unwrap().time_us, 100);
    }

    #[test]
    fn a_refused_cut_never_was() {
        let mut sequencer = sequencer(1, 1, true);
        sequencer.on_progress(NodeId(0), &progress(SHARD, 4, 0), &mut Vec::new());
        let refused = sequencer.take_write(1).unwrap();
        sequencer.refused(1);
        assert_eq!(sequencer.take_write(2), None, "the refused records are not staged any more");
        sequencer.on_progress(NodeId(0), &progress(SHARD, 2, 0), &mut Vec::new());
        let cut = sequencer.take_write(3).unwrap();
        assert_eq!((cut.index, cut.start, cut.end()), (refused.index, Seq(1), Seq(3)));
    }

    #[test]
    fn after_a_refused_cut_storage_elsewhere_is_asked_again_when_it_is_time() {
        let mut sequencer = sequencer(1, 1, false);
        sequencer.config.resend_after_us = Some(10);
        sequencer.start(0, &mut Vec::new());
        sequencer.on_all_progress(NodeId(0), Term(1), &progress(SHARD, 4, 4), &mut Vec::new());
        let refused = sequencer.take_write(1).unwrap();
        sequencer.refused(5);
        assert!(!sequencer.has_work(), "a full disk is not tried again at once");
        let mut out = Vec::new();
        sequencer.tick(15, &mut out);
        assert_eq!(out, [Send { to: NodeId(0), message: Message::ProgressQuery { term: Term(1) } }]);
        sequencer.on_all_progress(NodeId(0), Term(1), &progress(SHARD, 4, 4), &mut Vec::new());
        assert_eq!(sequencer.take_write(16).map(|cut| cut.deltas), Some(refused.deltas));
    }

    #[test]
    fn recovery_accepts_only_cuts_that_follow_each_other() {
        let cut = |index, start, from, count| Cut {
            index,
            start: Seq(start),
            time_us: 5,
            deltas: vec![ShardDelta { shard: SHARD, from: LocalId(from), count }],
        };
        let mut sequencer = sequencer(1, 1, true);
        assert!(sequencer.recover(cut(0, 1, 0, 2)));
        assert!(!sequencer.recover(cut(2, 3, 2, 2)), "a missing cut");
        assert!(!sequencer.recover(cut(1, 4, 2, 2)), "a gap in the seqs");
        assert!(!sequencer.recover(cut(1, 3, 3, 2)), "a gap in the shard");
        assert!(sequencer.recover(cut(1, 3, 2, 2)));
        assert_eq!(sequencer.committed_end(), Seq(5));
    }
}
