//! Every call on record without a result, as this engine knows it: what takes its turn, and what may not be trimmed.
//!
//! A call has a **ticket** while it is being put on record and while this engine works on it; in between it waits in the
//! [`Backlog`]. Under one lock it goes from one to the other, so that the list of accepted calls is never trimmed above it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boki_log::{BookId, Seq};

use super::backlog::{Backlog, Fetch, LaneKey, LaneName};
use crate::error::CallError;

/// After so many finished calls the list of accepted ones is trimmed.
const TRIM_EVERY: u32 = 256;

/// The calls without a result, of all books.
#[derive(Debug, Default)]
pub(super) struct OpenCalls {
    backlog: Backlog,
    books: BTreeMap<BookId, Ledger>,
    /// How many there are, those that are being put on record included.
    count: usize,
    /// Every call that was open at the start is known. Before that, nothing is trimmed.
    recovered: bool,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Calls being put on record (with a seq that theirs will not be below), and those that are worked on.
    tickets: BTreeSet<(Seq, u64)>,
    /// Above every seq of an accepted call that is known.
    next: Seq,
    issued: u64,
    /// Finished since the list was last trimmed.
    finished: u32,
    /// When the oldest call that ended did so, microseconds since 1970.
    oldest_end_us: Option<u64>,
    sweeping: bool,
}

/// One call that is being put on record or worked on.
#[derive(Debug)]
pub(super) struct Ticket {
    book: BookId,
    entry: (Seq, u64),
}

impl OpenCalls {
    /// A call is about to be put on record, if fewer than `limit` are there.
    pub(super) fn begin(&mut self, book: BookId, limit: usize) -> Result<Ticket, CallError> {
        if self.count >= limit {
            return Err(CallError::Overloaded {
                what: "too many calls are on record without a result",
                limit: limit as u64,
            });
        }
        self.count += 1;
        let ledger = self.books.entry(book).or_default();
        let next = ledger.next;
        Ok(Ticket { book, entry: ledger.issue(next) })
    }

    /// It is on record, at `seq`; its input is in memory and has so many bytes, or has to be fetched. Its turn is now, or it
    /// waits for it and has no ticket any more.
    pub(super) fn accepted(
        &mut self,
        mut ticket: Ticket,
        name: &LaneName,
        seq: Seq,
        bytes: Option<usize>,
    ) -> Option<(LaneKey, Ticket)> {
        let lane = match bytes {
            Some(bytes) => self.backlog.arrive(name, seq, bytes),
            None => {
                self.backlog.wait(name, seq);
                None
            }
        };
        let ledger = self.books.entry(ticket.book).or_default();
        ledger.tickets.remove(&ticket.entry);
        ledger.next = ledger.next.max(seq.next());
        let lane = lane?;
        ticket.entry.0 = seq;
        ledger.tickets.insert(ticket.entry);
        Some((lane, ticket))
    }

    /// A call is found on record without a result, at the start.
    pub(super) fn found(&mut self, name: &LaneName, seq: Seq) {
        self.count += 1;
        self.backlog.wait(name, seq);
    }

    /// The next calls whose turn it is, with their tickets.
    pub(super) fn next_fetch(&mut self) -> Option<(Fetch, Vec<Ticket>)> {
        let fetch = self.backlog.next_fetch()?;
        let ledger = self.books.entry(fetch.book).or_default();
        let ticket = |seq: &Seq| Ticket { book: fetch.book, entry: ledger.issue(*seq) };
        let tickets = fetch.seqs.iter().map(ticket).collect();
        Some((fetch, tickets))
    }

    /// A fetch is over; the calls of these tickets, its last ones, are given back.
    pub(super) fn fetched(&mut self, lane: LaneKey, given_back: impl IntoIterator<Item = Ticket>) {
        let given_back: Vec<Ticket> = given_back.into_iter().collect();
        let seqs: Vec<Seq> = given_back.iter().map(|ticket| ticket.entry.0).collect();
        self.backlog.fetched(lane, &seqs);
        for ticket in given_back {
            if let Some(ledger) = self.books.get_mut(&ticket.book) {
                ledger.tickets.remove(&ticket.entry);
            }
        }
    }

    /// The turns of the calls.
    pub(super) fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// There is nothing to be done for a call any more: it was refused, or has ended. Returns below which seq the list of
    /// accepted calls may be trimmed, if that is worth it.
    pub(super) fn close(&mut self, ticket: &Ticket) -> Option<Seq> {
        self.count -= 1;
        let front = self.backlog.front(ticket.book);
        let ledger = self.books.get_mut(&ticket.book)?;
        ledger.tickets.remove(&ticket.entry);
        if front.is_none() && ledger.is_blank() {
            // The call was refused, most likely because there is no such book: that may not take memory.
            self.books.remove(&ticket.book);
            return None;
        }
        ledger.finished += 1;
        (self.recovered && ledger.finished >= TRIM_EVERY).then(|| ledger.trim(front))
    }

    /// No accepted call at or above `next` is known, and every open one below it is.
    pub(super) fn caught_up(&mut self, book: BookId, next: Seq) {
        let ledger = self.books.entry(book).or_default();
        ledger.next = ledger.next.max(next);
    }

    /// Every book has caught up.
    pub(super) fn recovered(&mut self) {
        self.recovered = true;
    }

    /// A call has ended at this time.
    pub(super) fn note_end(&mut self, book: BookId, time_us: u64) {
        self.books.entry(book).or_default().oldest_end_us.get_or_insert(time_us);
    }

    /// Whether to sweep the book now: its oldest end is not after `expired_us`, and nobody sweeps.
    pub(super) fn begin_sweep(&mut self, book: BookId, expired_us: u64) -> bool {
        let Some(ledger) = self.books.get_mut(&book) else { return false };
        let due = ledger.oldest_end_us.is_some_and(|oldest| oldest <= expired_us);
        due && !std::mem::replace(&mut ledger.sweeping, true)
    }

    /// A sweep is over; the oldest end that is left.
    pub(super) fn swept(&mut self, book: BookId, oldest_end_us: Option<u64>) {
        let ledger = self.books.entry(book).or_default();
        ledger.sweeping = false;
        ledger.oldest_end_us = oldest_end_us;
    }

    /// The book is gone.
    pub(super) fn forget(&mut self, book: BookId) {
        if self.books.get(&book).is_some_and(|ledger| ledger.tickets.is_empty() && !ledger.sweeping) {
            self.books.remove(&book);
        }
    }

    /// How many calls wait for their turn, by function; a function may come several times.
    pub(super) fn waiting_of(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.backlog.by_function()
    }
}

impl Ledger {
    fn issue(&mut self, seq: Seq) -> (Seq, u64) {
        self.issued += 1;
        let entry = (seq, self.issued);
        self.tickets.insert(entry);
        entry
    }

    /// Nothing is known of the book.
    fn is_blank(&self) -> bool {
        self.tickets.is_empty() && self.next == Seq::NONE && self.oldest_end_us.is_none() && !self.sweeping
    }

    /// Below what the list of accepted calls may be trimmed, `front` being the first call that waits.
    fn trim(&mut self, front: Option<Seq>) -> Seq {
        self.finished = 0;
        let ticket = self.tickets.first().map(|(seq, _)| *seq);
        [ticket, front].into_iter().flatten().min().unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::backlog::LANE_OUT;
    use super::*;

    const BOOK: BookId = BookId(1);

    fn name() -> LaneName {
        LaneName { book: BOOK, function: "f".into(), level: 0, priority: 5, limit_key: None }
    }

    fn accept(open: &mut OpenCalls, seq: u64) -> Option<(LaneKey, Ticket)> {
        let ticket = open.begin(BOOK, 1 << 20).unwrap();
        open.accepted(ticket, &name(), Seq(seq), Some(0))
    }

    fn end(open: &mut OpenCalls, (lane, ticket): (LaneKey, Ticket)) -> Option<Seq> {
        open.backlog().started(lane, 0);
        open.backlog().let_go(lane);
        open.close(&ticket)
    }

    fn trim(open: &mut OpenCalls) -> Seq {
        let front = open.backlog.front(BOOK);
        open.books.get_mut(&BOOK).unwrap().trim(front)
    }

    #[test]
    fn a_call_being_accepted_is_not_trimmed_away() {
        let mut open = OpenCalls::default();
        let first = accept(&mut open, 5).unwrap();
        // Its append is on its way: it will get a seq above 5, and the one after it may be known first.
        let slow = open.begin(BOOK, 10).unwrap();
        let fast = accept(&mut open, 9).unwrap();
        end(&mut open, first);
        end(&mut open, fast);
        assert_eq!(trim(&mut open), Seq(6));
        open.close(&slow);
        assert_eq!(trim(&mut open), Seq(10));
    }

    #[test]
    fn a_call_that_waits_is_not_trimmed_away_whoever_has_it() {
        let mut open = OpenCalls::default();
        let mut out: Vec<_> = (1..=LANE_OUT as u64).filter_map(|seq| accept(&mut open, seq)).collect();
        assert!(accept(&mut open, 100).is_none());
        assert!(accept(&mut open, 101).is_none());
        for call in out.drain(..) {
            end(&mut open, call);
        }
        assert_eq!(trim(&mut open), Seq(100), "in the backlog");
        let (fetch, tickets) = open.next_fetch().unwrap();
        assert_eq!(trim(&mut open), Seq(100), "being fetched");
        let mut tickets = tickets.into_iter();
        let first = tickets.next().unwrap();
        open.fetched(fetch.lane, tickets);
        end(&mut open, (fetch.lane, first));
        assert_eq!(trim(&mut open), Seq(101), "given back");
    }

    #[test]
    fn a_call_that_was_refused_leaves_nothing() {
        let mut open = OpenCalls::default();
        let ticket = open.begin(BOOK, 1).unwrap();
        assert_eq!(open.begin(BOOK, 1).unwrap_err().code(), "BK0405");
        assert_eq!(open.close(&ticket), None);
        assert!(open.books.is_empty() && open.count == 0);
    }

    #[test]
    fn the_list_is_trimmed_now_and_then() {
        let mut open = OpenCalls::default();
        open.recovered();
        let mut trims = Vec::new();
        for seq in 1..=600 {
            let call = accept(&mut open, seq).unwrap();
            trims.extend(end(&mut open, call));
        }
        assert_eq!(trims, [Seq(257), Seq(513)]);
    }
}
