//! The ids that a book remembers, so that a repeated append adds nothing.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::{AppendId, Seq};

/// How many ids a book remembers at most.
pub(super) const MOST: usize = 1 << 18;
/// For how long, in microseconds of the order's time.
pub(super) const LONGEST_US: u64 = 60 * 60 * 1_000_000;

/// The last [`MOST`] ids, none older than [`LONGEST_US`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IdWindow {
    seqs: BTreeMap<AppendId, Seq>,
    /// Oldest first.
    pub(super) order: VecDeque<(u64, AppendId)>,
}

impl IdWindow {
    pub(super) fn get(&self, id: AppendId) -> Option<Seq> {
        self.seqs.get(&id).copied()
    }

    /// Remembers an id that is not in the window.
    pub(super) fn insert(&mut self, id: AppendId, seq: Seq, time_us: u64) {
        self.seqs.insert(id, seq);
        self.order.push_back((time_us, id));
        if self.order.len() > MOST {
            self.drop_oldest();
        }
    }

    /// Forgets what is too old at `time_us`.
    pub(super) fn expire(&mut self, time_us: u64) {
        while self.order.front().is_some_and(|(at, _)| time_us.saturating_sub(*at) > LONGEST_US) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.seqs.remove(&id);
        }
    }
}
