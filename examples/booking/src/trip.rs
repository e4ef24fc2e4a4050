//! How far a trip is: a fold over the records under its tag.
//!
//! Every record of a trip is appended on the condition that the trip's tag still ends where the writer read it. So
//! a trip moves one step at a time, even if two attempts of the same call work on it at once (the first was
//! believed dead and was not): one of them appends, the other is told to read again.

use boki::{Book, Result, Seq};
use serde::{Deserialize, Serialize};

use crate::catalogue::Place;
use crate::event::{Event, trip_tag};

/// How far a trip is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trip {
    /// Seq of its last record: what the next one is conditional on.
    pub tail: Seq,
    /// The seat that it holds.
    pub seat: Option<Place>,
    /// The room that it holds.
    pub room: Option<Place>,
    /// What was paid.
    pub paid: Option<u32>,
    /// What became of it, once that is decided.
    pub outcome: Option<Outcome>,
    /// It was booked, and then given up.
    pub cancelled: bool,
}

/// What became of a trip: the answer to the traveller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Outcome {
    /// It is booked.
    Booked {
        /// The trip.
        trip: String,
        /// The seat.
        seat: Place,
        /// The room.
        room: Place,
        /// What was paid.
        price: u32,
    },
    /// It cannot be had; nothing is held and nothing was paid.
    Refused {
        /// The trip.
        trip: String,
        /// Why.
        reason: String,
    },
}

impl Trip {
    /// Reads how far the trip is. A trip has few records, so they fit in one page.
    ///
    /// # Errors
    /// What the log says.
    pub async fn read(book: &Book, id: &str) -> Result<Trip> {
        let mut trip = Trip::default();
        for record in book.read_next(Seq::FIRST).tag(trip_tag(id)).limit(100).await? {
            trip.apply(record.seq, Event::of(&record)?);
        }
        Ok(trip)
    }

    /// Takes in the next record of the trip.
    pub fn apply(&mut self, seq: Seq, event: Event) {
        self.tail = seq;
        match event {
            Event::Held { place, .. } if place.tag().starts_with("flight/") => self.seat = Some(place),
            Event::Held { place, .. } => self.room = Some(place),
            Event::Paid { amount, .. } => self.paid = Some(amount),
            Event::Booked { trip, seat, room, price, .. } => {
                self.outcome = Some(Outcome::Booked { trip, seat, room, price });
            }
            Event::Refused { trip, reason, .. } => {
                (self.seat, self.room) = (None, None);
                self.outcome = Some(Outcome::Refused { trip, reason });
            }
            Event::Cancelled { .. } => {
                (self.seat, self.room) = (None, None);
                self.cancelled = true;
            }
        }
    }

    /// The places that it holds.
    #[must_use]
    pub fn held(&self) -> Vec<Place> {
        self.seat.iter().chain(&self.room).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{find_flight, find_hotel};

    #[test]
    fn a_trip_is_the_sum_of_its_records() {
        let seat = find_flight("BA117").unwrap().place("3C").unwrap();
        let room = find_hotel("plaza").unwrap().place("204").unwrap();
        let id = || "t1".to_owned();
        let user = || "ada".to_owned();
        let mut trip = Trip::default();
        trip.apply(Seq(4), Event::Held { trip: id(), place: seat.clone() });
        trip.apply(Seq(6), Event::Held { trip: id(), place: room.clone() });
        assert_eq!(trip.held(), [seat.clone(), room.clone()]);
        trip.apply(Seq(9), Event::Paid { trip: id(), amount: 770 });
        assert_eq!((trip.tail, trip.paid, &trip.outcome), (Seq(9), Some(770), &None));

        let price = 770;
        trip.apply(Seq(11), Event::Booked { trip: id(), user: user(), seat: seat.clone(), room: room.clone(), price });
        let booked = Outcome::Booked { trip: id(), seat, room, price };
        assert_eq!(trip.outcome, Some(booked.clone()));

        let freed = trip.held();
        trip.apply(Seq(20), Event::Cancelled { trip: id(), user: user(), freed });
        assert!(trip.cancelled && trip.held().is_empty());
        assert_eq!(trip.outcome, Some(booked), "the answer to the booking stays what it was");
    }
}
