//! What is written in the book. A record's payload is one [`Event`] as JSON; its tags say whom it concerns.

use boki::{Append, Book, Json, Record, Result};
use serde::{Deserialize, Serialize};

use crate::catalogue::Place;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A seat or room is taken for a trip.
    Held {
        /// The trip.
        trip: String,
        /// What it holds.
        place: Place,
    },
    /// The traveller has paid for a trip.
    Paid {
        /// The trip.
        trip: String,
        /// How much.
        amount: u32,
    },
    /// A trip is booked.
    Booked {
        /// The trip.
        trip: String,
        /// Whose it is.
        user: String,
        /// The seat, held before.
        seat: Place,
        /// The room, held before.
        room: Place,
        /// What was paid.
        price: u32,
    },
    /// A trip cannot be had, and whatever it held is free again.
    Refused {
        /// The trip.
        trip: String,
        /// Whose it would have been.
        user: String,
        /// Why, for the traveller.
        reason: String,
        /// What it held.
        freed: Vec<Place>,
    },
    /// A booked trip was given up: its places are free again, the price is paid back.
    Cancelled {
        /// The trip.
        trip: String,
        /// Whose it was.
        user: String,
        /// What it held.
        freed: Vec<Place>,
    },
}

impl Event {
    /// The tags of its record: every reader that it concerns finds it under one of them.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let mut tags = vec![trip_tag(self.trip())];
        match self {
            Event::Held { place, .. } => place_tags(&mut tags, place),
            Event::Paid { trip, .. } => tags.push(payment_tag(trip)),
            Event::Booked { user, .. } => tags.push(user_tag(user)),
            Event::Refused { user, freed, .. } | Event::Cancelled { user, freed, .. } => {
                tags.push(user_tag(user));
                for place in freed {
                    place_tags(&mut tags, place);
                }
            }
        }
        tags
    }

    /// The trip that it belongs to.
    #[must_use]
    pub fn trip(&self) -> &str {
        match self {
            Event::Held { trip, .. }
            | Event::Paid { trip, .. }
            | Event::Booked { trip, .. }
            | Event::Refused { trip, .. }
            | Event::Cancelled { trip, .. } => trip,
        }
    }

    /// Its record, ready to be appended to `book` once the conditions are added.
    pub fn append_to(&self, book: &Book) -> Append {
        book.append(Json(self)).tags(self.tags())
    }

    /// The event in a record.
    ///
    /// # Errors
    /// If the payload is none.
    pub fn of(record: &Record) -> Result<Event> {
        record.json()
    }
}

/// All records of a trip.
#[must_use]
pub fn trip_tag(trip: &str) -> String {
    format!("trip/{trip}")
}

/// The payment of a trip: there is one at most.
#[must_use]
pub fn payment_tag(trip: &str) -> String {
    format!("payment/{trip}")
}

/// What became of a traveller's trips.
#[must_use]
pub fn user_tag(user: &str) -> String {
    format!("user/{user}")
}

/// A place's own tag, and that of its flight or hotel.
fn place_tags(tags: &mut Vec<String>, place: &Place) {
    tags.push(place.tag().to_owned());
    tags.push(place.offer_tag().to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{find_flight, find_hotel};

    #[test]
    fn a_refusal_is_found_under_everything_that_it_frees() {
        let seat = find_flight("BA117").unwrap().place("3C").unwrap();
        let room = find_hotel("plaza").unwrap().place("204").unwrap();
        let freed = vec![seat, room];
        let event = Event::Refused { trip: "t1".into(), user: "ada".into(), reason: String::new(), freed };
        let expected =
            ["trip/t1", "user/ada", "flight/BA117/seat/3C", "flight/BA117", "hotel/plaza/room/204", "hotel/plaza"];
        assert_eq!(event.tags(), expected);
    }

    #[test]
    fn events_are_readable_json() {
        let event = Event::Paid { trip: "t1".into(), amount: 770 };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"paid","trip":"t1","amount":770}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
