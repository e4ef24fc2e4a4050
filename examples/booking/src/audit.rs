//! Reads a whole book and checks that every promise was kept. It trusts nothing but the order of the records.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use boki::{Book, Result, Seq};

use crate::catalogue::Place;
use crate::event::Event;
use crate::trip::{Outcome, Trip};

/// What a book says.
#[derive(Debug, Default)]
pub struct Audit {
    /// Every trip, by its id.
    pub trips: BTreeMap<String, Trip>,
    /// Payments taken.
    pub payments: usize,
    /// Places that were taken and given back, by refusals and cancellations.
    pub freed: usize,
    /// Events in all.
    pub events: usize,
    /// Who has each place that is taken.
    holders: BTreeMap<Place, String>,
    paid: BTreeSet<String>,
    wrong: Vec<Discrepancy>,
}

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// A trip is decided once, and has what it was told.
    OneDecision,
    /// A booked trip is paid once, and no other is.
    OnePayment,
    /// A place belongs to one trip at a time, and is given back by it.
    OneHolder,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discrepancy {
    /// Which.
    pub promise: Promise,
    /// The record that shows it.
    pub seq: Seq,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seq {}: {}", self.seq, self.what)
    }
}

impl Audit {
    /// Reads all events of `book` and checks them.
    ///
    /// # Errors
    /// What the log says, and a record that is no event.
    pub async fn of(book: &Book) -> Result<Audit> {
        let mut audit = Audit::default();
        let mut from = Seq::FIRST;
        loop {
            let records = book.read_next(from).limit(1000).linearizable().await?;
            let Some(last) = records.last() else { return Ok(audit) };
            from = last.seq.next();
            for record in &records {
                // Boki keeps its own records of keyed calls in the same book.
                if !record.tags().any(|tag| tag.starts_with('~')) {
                    audit.apply(record.seq, Event::of(record)?);
                }
            }
        }
    }

    /// Takes in the next event of the book.
    pub fn apply(&mut self, seq: Seq, event: Event) {
        self.events += 1;
        let id = event.trip().to_owned();
        let before = self.trips.get(&id).cloned().unwrap_or_default();
        match &event {
            Event::Held { place, .. } => self.hold(seq, &id, &before, place),
            Event::Paid { amount, .. } => {
                self.payments += 1;
                let is_first = self.paid.insert(id.clone());
                self.check(Promise::OnePayment, seq, is_first, || format!("trip {id} pays {amount} a second time"));
                self.check_undecided(seq, &id, &before);
            }
            Event::Booked { seat, room, price, .. } => {
                self.check_undecided(seq, &id, &before);
                self.check(Promise::OnePayment, seq, before.paid == Some(*price), || {
                    format!("trip {id} is booked for {price}, but {:?} was paid", before.paid)
                });
                self.check(Promise::OneDecision, seq, before.held() == [seat.clone(), room.clone()], || {
                    format!("trip {id} is booked with {seat} and {room}, but holds {:?}", before.held())
                });
            }
            Event::Refused { freed, .. } => {
                self.check_undecided(seq, &id, &before);
                self.check(Promise::OnePayment, seq, before.paid.is_none(), || {
                    format!("trip {id} is refused, but was paid")
                });
                self.free(seq, &id, &before, freed);
            }
            Event::Cancelled { freed, .. } => {
                let is_booked = matches!(before.outcome, Some(Outcome::Booked { .. })) && !before.cancelled;
                self.check(Promise::OneDecision, seq, is_booked, || {
                    format!("trip {id} is cancelled, but is not booked")
                });
                self.free(seq, &id, &before, freed);
            }
        }
        self.trips.entry(id).or_default().apply(seq, event);
    }

    fn hold(&mut self, seq: Seq, id: &str, before: &Trip, place: &Place) {
        self.check_undecided(seq, id, before);
        let has_one = before.held().iter().any(|held| is_same_kind(held, place));
        self.check(Promise::OneHolder, seq, !has_one, || {
            format!("trip {id} takes {place}, but has such a place already")
        });
        let other = self.holders.insert(place.clone(), id.to_owned());
        self.check(Promise::OneHolder, seq, other.is_none(), || {
            format!("{place} is given to trip {id}, but trip {} has it", other.as_deref().unwrap_or_default())
        });
    }

    fn free(&mut self, seq: Seq, id: &str, before: &Trip, freed: &[Place]) {
        self.check(Promise::OneHolder, seq, before.held() == freed, || {
            format!("trip {id} gives back {freed:?}, but holds {:?}", before.held())
        });
        for place in freed {
            self.freed += 1;
            let had = self.holders.remove(place);
            self.check(Promise::OneHolder, seq, had.as_deref() == Some(id), || {
                format!("trip {id} gives back {place}, which {had:?} has")
            });
        }
    }

    /// Nothing happens to a trip any more once it is decided, but that it is cancelled.
    fn check_undecided(&mut self, seq: Seq, id: &str, before: &Trip) {
        self.check(Promise::OneDecision, seq, before.outcome.is_none(), || format!("trip {id} was decided before"));
    }

    /// Everything that is wrong, given that nothing is under way any more.
    #[must_use]
    pub fn discrepancies(&self) -> Vec<Discrepancy> {
        let mut wrong = self.wrong.clone();
        for (id, trip) in &self.trips {
            if trip.outcome.is_none() {
                let what = format!("trip {id} was never decided");
                wrong.push(Discrepancy { promise: Promise::OneDecision, seq: trip.tail, what });
            }
        }
        wrong
    }

    /// How many trips were booked, those that were cancelled later among them.
    #[must_use]
    pub fn booked(&self) -> usize {
        self.trips.values().filter(|trip| matches!(trip.outcome, Some(Outcome::Booked { .. }))).count()
    }

    /// How many trips were refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.trips.values().filter(|trip| matches!(trip.outcome, Some(Outcome::Refused { .. }))).count()
    }

    /// How many trips were cancelled.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        self.trips.values().filter(|trip| trip.cancelled).count()
    }

    fn check(&mut self, promise: Promise, seq: Seq, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(Discrepancy { promise, seq, what: what() });
        }
    }
}

/// Both seats, or both rooms.
fn is_same_kind(one: &Place, other: &Place) -> bool {
    one.tag().split('/').next() == other.tag().split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{find_flight, find_hotel};

    fn seat() -> Place {
        find_flight("BA117").unwrap().place("1A").unwrap()
    }

    fn room() -> Place {
        find_hotel("plaza").unwrap().place("101").unwrap()
    }

    fn held(trip: &str, place: Place) -> Event {
        Event::Held { trip: trip.into(), place }
    }

    fn paid(trip: &str) -> Event {
        Event::Paid { trip: trip.into(), amount: 770 }
    }

    fn booked(trip: &str) -> Event {
        Event::Booked { trip: trip.into(), user: "ada".into(), seat: seat(), room: room(), price: 770 }
    }

    fn cancelled(trip: &str) -> Event {
        Event::Cancelled { trip: trip.into(), user: "ada".into(), freed: vec![seat(), room()] }
    }

    fn refused(trip: &str, freed: Vec<Place>) -> Event {
        Event::Refused { trip: trip.into(), user: "ada".into(), reason: "full".into(), freed }
    }

    fn audit(events: impl IntoIterator<Item = Event>) -> Audit {
        let mut audit = Audit::default();
        for (at, event) in events.into_iter().enumerate() {
            audit.apply(Seq(at as u64 + 1), event);
        }
        audit
    }

    fn wrong(events: impl IntoIterator<Item = Event>) -> Vec<String> {
        audit(events).discrepancies().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_book_in_order_has_no_discrepancy() {
        let audit = audit([
            held("t1", seat()),
            held("t1", room()),
            paid("t1"),
            booked("t1"),
            refused("t2", vec![]),
            cancelled("t1"),
            held("t3", seat()),
            refused("t3", vec![seat()]),
        ]);
        assert_eq!(audit.discrepancies(), []);
        assert_eq!((audit.booked(), audit.refused(), audit.cancelled(), audit.payments), (1, 2, 1, 1));
        assert_eq!((audit.events, audit.freed), (8, 3));
    }

    #[test]
    fn each_broken_promise_is_found() {
        let complete = [held("t1", seat()), held("t1", room()), paid("t1"), booked("t1")];
        let and = |more: Vec<Event>| wrong(complete.iter().cloned().chain(more));
        for (found, expected) in [
            (and(vec![held("t2", seat()), refused("t2", vec![seat()])]), "but trip t1 has it"),
            (and(vec![booked("t1")]), "was decided before"),
            (and(vec![paid("t1")]), "a second time"),
            (and(vec![cancelled("t1"), cancelled("t1")]), "is cancelled, but is not booked"),
            (and(vec![refused("t1", vec![seat(), room()])]), "is refused, but was paid"),
            (wrong([held("t1", seat()), held("t1", room()), booked("t1")]), "but None was paid"),
            (wrong([paid("t1"), booked("t1")]), "but holds []"),
            (wrong([held("t1", seat())]), "was never decided"),
            (wrong([held("t1", seat()), refused("t1", vec![])]), "but holds"),
            (wrong([refused("t1", vec![seat()])]), "gives back"),
        ] {
            assert!(found.iter().any(|what| what.contains(expected)), "{found:?} lacks {expected:?}");
        }
    }
}
