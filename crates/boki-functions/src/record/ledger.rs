//! Which calls of a book are on record without a result, as this engine knows it: what may not be trimmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use boki_log::{BookId, Seq};
use parking_lot::Mutex;

/// After so many finished calls the list of accepted ones is trimmed.
const TRIM_EVERY: u32 = 256;

/// All books.
#[derive(Debug, Default)]
pub(crate) struct Ledgers {
    books: Mutex<BTreeMap<BookId, Ledger>>,
    /// Every call that was open at the start has its ticket. Before that, nothing is trimmed.
    recovered: AtomicBool,
}

#[derive(Debug, Default)]
struct Ledger {
    /// Calls being accepted (with a seq that theirs will not be below) and accepted.
    open: BTreeSet<(Seq, u64)>,
    /// Above every seq of an accepted call that is known.
    next: Seq,
    tickets: u64,
    /// Finished since the list was last trimmed.
    finished: u32,
    /// When the oldest call that ended did so, microseconds since 1970.
    oldest_end_us: Option<u64>,
    sweeping: bool,
}

/// One open call.
#[derive(Debug)]
pub(super) struct Ticket {
    book: BookId,
    entry: (Seq, u64),
}

impl Ledgers {
    /// A call is about to be accepted.
    pub(super) fn open(&self, book: BookId) -> Ticket {
        self.with(book, |ledger| {
            ledger.tickets += 1;
            let entry = (ledger.next, ledger.tickets);
            ledger.open.insert(entry);
            Ticket { book, entry }
        })
    }

    /// It was, at `seq`.
    pub(super) fn accepted(&self, ticket: &mut Ticket, seq: Seq) {
        self.with(ticket.book, |ledger| {
            ledger.open.remove(&ticket.entry);
            ticket.entry.0 = seq;
            ledger.open.insert(ticket.entry);
            ledger.next = ledger.next.max(seq.next());
        });
    }

    /// There is nothing to keep for it. Returns below which seq the list of accepted calls may be trimmed, if
    /// that is worth it.
    pub(super) fn close(&self, ticket: &Ticket) -> Option<Seq> {
        let recovered = self.recovered.load(Ordering::Acquire);
        let mut books = self.books.lock();
        let ledger = books.get_mut(&ticket.book)?;
        ledger.open.remove(&ticket.entry);
        if ledger.is_blank() {
            // The call was refused, most likely because there is no such book: that may not take memory.
            books.remove(&ticket.book);
            return None;
        }
        ledger.finished += 1;
        (recovered && ledger.finished >= TRIM_EVERY).then(|| ledger.trim())
    }

    /// No accepted call at or above `next` is known, and every open one below it has its ticket or will have it.
    pub(super) fn caught_up(&self, book: BookId, next: Seq) {
        self.with(book, |ledger| ledger.next = ledger.next.max(next));
    }

    /// Every book has caught up.
    pub(super) fn recovered(&self) {
        self.recovered.store(true, Ordering::Release);
    }

    /// A call has ended at this time.
    pub(super) fn note_end(&self, book: BookId, time_us: u64) {
        self.with(book, |ledger| {
            ledger.oldest_end_us.get_or_insert(time_us);
        });
    }

    /// Whether to sweep the book now: its oldest end is not after `expired_us`, and nobody sweeps.
    pub(super) fn begin_sweep(&self, book: BookId, expired_us: u64) -> bool {
        self.with(book, |ledger| {
            let due = ledger.oldest_end_us.is_some_and(|oldest| oldest <= expired_us);
            due && !std::mem::replace(&mut ledger.sweeping, true)
        })
    }

    /// A sweep is over; the oldest end that is left.
    pub(super) fn swept(&self, book: BookId, oldest_end_us: Option<u64>) {
        self.with(book, |ledger| {
            ledger.sweeping = false;
            ledger.oldest_end_us = oldest_end_us;
        });
    }

    /// The book is gone.
    pub(super) fn forget(&self, book: BookId) {
        let mut ledgers = self.books.lock();
        if ledgers.get(&book).is_some_and(|ledger| ledger.open.is_empty() && !ledger.sweeping) {
            ledgers.remove(&book);
        }
    }

    fn with<T>(&self, book: BookId, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(self.books.lock().entry(book).or_default())
    }
}

impl Ledger {
    /// Nothing is known of the book.
    fn is_blank(&self) -> bool {
        self.open.is_empty() && self.next == Seq::NONE && self.oldest_end_us.is_none() && !self.sweeping
    }

    fn trim(&mut self) -> Seq {
        self.finished = 0;
        self.open.first().map_or(self.next, |(seq, _)| *seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: BookId = BookId(1);

    #[test]
    fn a_call_being_accepted_is_not_trimmed_away() {
        let ledgers = Ledgers::default();
        let mut first = ledgers.open(BOOK);
        ledgers.accepted(&mut first, Seq(5));
        // Its append is on its way: it will get a seq above 5, and the one after it may be known first.
        let slow = ledgers.open(BOOK);
        let mut fast = ledgers.open(BOOK);
        ledgers.accepted(&mut fast, Seq(9));
        ledgers.close(&first);
        ledgers.close(&fast);
        assert_eq!(ledgers.with(BOOK, Ledger::trim), Seq(6));
        ledgers.close(&slow);
        assert_eq!(ledgers.with(BOOK, Ledger::trim), Seq(10));
    }

    #[test]
    fn a_call_that_was_refused_leaves_nothing() {
        let ledgers = Ledgers::default();
        let ticket = ledgers.open(BOOK);
        assert_eq!(ledgers.close(&ticket), None);
        assert!(ledgers.books.lock().is_empty());
    }

    #[test]
    fn the_list_is_trimmed_now_and_then() {
        let ledgers = Ledgers::default();
        ledgers.recovered();
        let mut trims = Vec::new();
        for seq in 1..=600 {
            let mut ticket = ledgers.open(BOOK);
            ledgers.accepted(&mut ticket, Seq(seq));
            trims.extend(ledgers.close(&ticket));
        }
        assert_eq!(trims, [Seq(257), Seq(513)]);
    }
}
