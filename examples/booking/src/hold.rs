//! Taking a seat or a room for a trip.

use boki::prelude::*;
use serde::{Deserialize, Serialize};

use crate::availability::{self, Availability};
use crate::catalogue::{self, Kind, Offer, Place};
use crate::event::{Event, trip_tag};
use crate::trip::Trip;

/// Asks for a place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hold {
    /// For which trip.
    pub trip: String,
    /// The tag of the flight or hotel: "flight/BA117".
    pub offer: String,
    /// The place that the traveller wants, and no other: "12A". `None`: any.
    pub wish: Option<String>,
}

/// Takes a free place for a trip, and returns it; `None` if there is none. A trip that holds a place of the kind already
/// keeps it: calling this twice takes one place.
#[boki::function]
pub async fn hold(cx: &Cx, input: Hold) -> Result<Option<Place>> {
    let offer = catalogue::find_tag(&input.offer).ok_or_else(|| Failure::new("there is no such flight or hotel"))?;
    let book = cx.book();
    loop {
        let trip = Trip::read(book, &input.trip).await?;
        let held = match offer.kind {
            Kind::Flight => trip.seat,
            Kind::Hotel => trip.room,
        };
        if held.is_some() || trip.outcome.is_some() {
            return Ok(held);
        }
        let availability = availability::catch_up(book, offer).await?;
        let Some(place) = choose(&availability, offer, &input) else { return Ok(None) };
        let event = Event::Held { trip: input.trip.clone(), place: place.clone() };
        let appended = event
            .append_to(book)
            // Nobody took the place since we looked ...
            .if_tail(place.tag(), availability.tail(&place))
            // ... and nobody moved the trip.
            .if_tail(trip_tag(&input.trip), trip.tail)
            .await;
        match appended {
            Ok(_) => return Ok(Some(place)),
            Err(error) if error.is_condition_failed() => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The place to take: the one wished for, else a free one. Each trip begins to look at another place, so that few want
/// the same one at the same time.
fn choose(availability: &Availability, offer: &Offer, input: &Hold) -> Option<Place> {
    if let Some(name) = &input.wish {
        return offer.place(name).filter(|place| availability.is_free(place));
    }
    let begin = input.trip.bytes().fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % offer.size());
    offer.places().cycle().skip(begin).take(offer.size()).find(|place| availability.is_free(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_granted_or_refused() {
        let flight = catalogue::find_flight("BA117").unwrap();
        let wish = |name: &str| Hold { trip: "t2".into(), offer: flight.tag(), wish: Some(name.into()) };
        let mut availability = Availability::default();
        let seat = flight.place("1A").unwrap();
        availability.apply(Seq(3), &Event::Held { trip: "t1".into(), place: seat }, flight);
        assert_eq!(choose(&availability, flight, &wish("1A")), None);
        assert_eq!(choose(&availability, flight, &wish("9F")), flight.place("9F"));
        assert_eq!(choose(&availability, flight, &wish("99Z")), None);
    }

    #[test]
    fn without_a_wish_every_place_is_taken_before_there_is_none() {
        let hotel = catalogue::find_hotel("hassler").unwrap();
        let mut availability = Availability::default();
        for number in 0..hotel.size() {
            let trip = format!("trip {number}");
            let hold = Hold { trip: trip.clone(), offer: hotel.tag(), wish: None };
            let place = choose(&availability, hotel, &hold).unwrap();
            assert!(availability.is_free(&place));
            availability.apply(Seq(number as u64 + 1), &Event::Held { trip, place }, hotel);
        }
        let hold = Hold { trip: "late".into(), offer: hotel.tag(), wish: None };
        assert_eq!(choose(&availability, hotel, &hold), None);
    }
}
