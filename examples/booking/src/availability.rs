//! Which places of a flight or hotel are taken: a fold over the records under its tag.
//!
//! The fold is kept in memory, and [`catch_up`] reads only what was appended since. What is kept may be behind
//! the log at any moment, and a restarted worker begins with nothing: neither does harm, because a hold is conditional
//! on the place's last record being the one seen here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use boki::{Book, BookId, Result, Seq};

use crate::catalogue::{Offer, Place};
use crate::event::Event;

/// The places of one flight or hotel that were ever taken.
#[derive(Clone, Debug, Default)]
pub struct Availability {
    /// Everything below this seq is counted in.
    next: Seq,
    places: BTreeMap<Place, PlaceState>,
}

/// The last that was heard of a place.
#[derive(Clone, Copy, Debug)]
struct PlaceState {
    /// Seq of its last record.
    seq: Seq,
    is_taken: bool,
}

impl Availability {
    /// Takes in the next record of the offer.
    pub fn apply(&mut self, seq: Seq, event: &Event, offer: &Offer) {
        self.next = seq.next();
        match event {
            Event::Held { place, .. } => self.set(place, PlaceState { seq, is_taken: true }),
            Event::Refused { freed, .. } | Event::Cancelled { freed, .. } => {
                for place in freed.iter().filter(|place| place.offer_tag() == offer.tag()) {
                    self.set(place, PlaceState { seq, is_taken: false });
                }
            }
            Event::Paid { .. } | Event::Booked { .. } => {}
        }
    }

    fn set(&mut self, place: &Place, state: PlaceState) {
        self.places.insert(place.clone(), state);
    }

    /// Whether a place can be held.
    #[must_use]
    pub fn is_free(&self, place: &Place) -> bool {
        self.places.get(place).is_none_or(|state| !state.is_taken)
    }

    /// Seq of the place's last record: what holding it is conditional on.
    #[must_use]
    pub fn tail(&self, place: &Place) -> Seq {
        self.places.get(place).map_or(Seq::NONE, |state| state.seq)
    }

    /// How many places of `offer` are free.
    #[must_use]
    pub fn count_free(&self, offer: &Offer) -> usize {
        offer.size() - self.places.values().filter(|state| state.is_taken).count()
    }

    /// How many places are taken.
    #[must_use]
    pub fn count_taken(&self) -> usize {
        self.places.values().filter(|state| state.is_taken).count()
    }
}

/// The book, by number and name, and the offer's tag.
type Key = (BookId, String, String);

/// What this worker has folded so far.
static KEPT: LazyLock<Mutex<HashMap<Key, Arc<Availability>>>> = LazyLock::new(Mutex::default);

/// Most folds that are kept.
const MOST_KEPT: usize = 1000;

/// The places of `offer` as of now: at least everything that this call's session has seen.
///
/// # Errors
/// What the log says.
pub async fn catch_up(book: &Book, offer: &Offer) -> Result<Arc<Availability>> {
    let key: Key = (book.id(), book.name().to_owned(), offer.tag());
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let mut availability = kept.unwrap_or_default();
    let before = availability.next;
    loop {
        let records = book.read_next(availability.next).tag(&key.2).limit(1000).await?;
        if records.is_empty() {
            break;
        }
        for record in &records {
            Arc::make_mut(&mut availability).apply(record.seq, &Event::of(record)?, offer);
        }
    }
    if availability.next > before {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        // Another call may have come further meanwhile.
        let newest = kept.entry(key).or_default();
        if newest.next < availability.next {
            *newest = Arc::clone(&availability);
        }
    }
    Ok(availability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{find_flight, find_hotel};

    #[test]
    fn a_place_is_taken_from_its_hold_until_it_is_freed() {
        let flight = find_flight("BA117").unwrap();
        let (seat, other) = (flight.place("1A").unwrap(), flight.place("1B").unwrap());
        let room = find_hotel("plaza").unwrap().place("101").unwrap();
        let trip = || "t1".to_owned();
        let mut availability = Availability::default();
        assert!(availability.is_free(&seat));
        assert_eq!(availability.tail(&seat), Seq::NONE);

        availability.apply(Seq(5), &Event::Held { trip: trip(), place: seat.clone() }, flight);
        assert!(!availability.is_free(&seat) && availability.is_free(&other));
        assert_eq!((availability.tail(&seat), availability.next), (Seq(5), Seq(6)));
        assert_eq!(availability.count_free(flight), flight.size() - 1);

        let freed = vec![seat.clone(), room.clone()];
        let refused = Event::Refused { trip: trip(), user: "ada".into(), reason: String::new(), freed };
        availability.apply(Seq(8), &refused, flight);
        assert!(availability.is_free(&seat));
        assert_eq!(availability.tail(&seat), Seq(8));
        assert_eq!(availability.tail(&room), Seq::NONE, "a room is not the flight's");
    }
}
