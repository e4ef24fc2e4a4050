//! The questions without an answer, by the number they were sent under.
//!
//! A number is a slot and how often that slot was used before: it is never given twice, so an answer that comes
//! too late finds nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::error::Result;
use crate::question::Question;

/// A question without an answer.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) question: Question,
    /// Who asked.
    pub(crate) waiter: oneshot::Sender<Result<Answer>>,
    /// Where to note what the answer has seen.
    pub(crate) session: Option<Arc<AtomicU64>>,
    /// It went out on some connection: the server may have done it.
    pub(crate) was_sent: bool,
    /// Since when it has waited for a connection.
    pub(crate) stalled_since: Option<Instant>,
    /// Its place among the others.
    order: u64,
}

impl Open {
    pub(crate) fn new(
        question: Question,
        waiter: oneshot::Sender<Result<Answer>>,
        session: Option<Arc<AtomicU64>>,
    ) -> Open {
        Open { question, waiter, session, was_sent: false, stalled_since: None, order: 0 }
    }
}

#[derive(Debug)]
struct Slot {
    uses: u32,
    open: Option<Open>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    slots: Vec<Slot>,
    free: Vec<u32>,
    asked: u64,
}

impl Pending {
    /// Adds a question; returns the number to send it under, never 0.
    pub(crate) fn insert(&mut self, mut open: Open) -> u64 {
        self.asked += 1;
        open.order = self.asked;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, open: None });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        slot.uses = slot.uses.wrapping_add(1).max(1);
        slot.open = Some(open);
        number(slot.uses, index)
    }

    pub(crate) fn get_mut(&mut self, corr: u64) -> Option<&mut Open> {
        let slot = self.slots.get_mut(corr as u32 as usize)?;
        if slot.uses == (corr >> 32) as u32 { slot.open.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, corr: u64) -> Option<Open> {
        self.get_mut(corr)?;
        let index = corr as u32;
        self.free.push(index);
        self.slots[index as usize].open.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All of them, in the order in which they were asked.
    pub(crate) fn in_order(&mut self) -> Vec<(u64, &mut Open)> {
        let mut open: Vec<_> = (0_u32..)
            .zip(&mut self.slots)
            .filter_map(|(index, slot)| Some((number(slot.uses, index), slot.open.as_mut()?)))
            .collect();
        open.sort_unstable_by_key(|(_, open)| open.order);
        open
    }

    /// Takes out those that `select` picks, in the order in which they were asked.
    pub(crate) fn take(&mut self, mut select: impl FnMut(&Open) -> bool) -> Vec<Open> {
        let picked: Vec<u64> =
            self.in_order().into_iter().filter(|(_, open)| select(open)).map(|(corr, _)| corr).collect();
        picked.into_iter().filter_map(|corr| self.remove(corr)).collect()
    }
}

fn number(uses: u32, index: u32) -> u64 {
    u64::from(uses) << 32 | u64::from(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Open {
        Open::new(Question::BookList, oneshot::channel().0, None)
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut pending = Pending::default();
        let first = pending.insert(open());
        assert!(pending.remove(first).is_some());
        let second = pending.insert(open());
        assert_ne!(first, second);
        assert!(pending.remove(first).is_none());
        assert_eq!(pending.len(), 1);
        assert!(pending.remove(second).is_some());
        assert_eq!(pending.len(), 0);
        assert!(pending.remove(7).is_none());
    }

    #[test]
    fn questions_keep_their_order_whatever_slots_they_get() {
        let mut pending = Pending::default();
        let early = pending.insert(open());
        let middle = pending.insert(open());
        pending.remove(early);
        let late = pending.insert(open());
        let order: Vec<u64> = pending.in_order().into_iter().map(|(corr, _)| corr).collect();
        assert_eq!(order, [middle, late]);
        assert_eq!(pending.take(|_| true).len(), 2);
        assert_eq!(pending.len(), 0);
    }
}
