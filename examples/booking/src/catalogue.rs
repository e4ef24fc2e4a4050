//! The flights and hotels there are. They are fixed here, so that the example is about booking them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something with places that can be booked: a flight or a hotel.
#[derive(Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which of the two.
    pub kind: Kind,
    /// How travellers name it: "BA117", "ritz".
    pub code: &'static str,
    /// Where the flight goes, where the hotel is.
    pub city: &'static str,
    /// Of one seat, or of the stay.
    pub price: u32,
    /// Out of ten.
    pub rating: u8,
    /// Rows of seats, or floors.
    rows: u32,
    /// Seats in a row, or rooms on a floor.
    per_row: u32,
}

/// What an offer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has seats: "12A".
    Flight,
    /// It has rooms: "204".
    Hotel,
}

/// A seat or a room: "flight/BA117/seat/12A", "hotel/ritz/room/204". This is also its tag in the book.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(String);

const fn flight(code: &'static str, city: &'static str, price: u32, rating: u8, rows: u32) -> Offer {
    Offer { kind: Kind::Flight, code, city, price, rating, rows, per_row: 6 }
}

const fn hotel(code: &'static str, city: &'static str, price: u32, rating: u8, rows: u32) -> Offer {
    Offer { kind: Kind::Hotel, code, city, price, rating, rows, per_row: 10 }
}

/// Everything that can be booked.
pub const OFFERS: &[Offer] = &[
    flight("BA117", "New York", 420, 7, 45),
    flight("AF6", "New York", 380, 8, 40),
    flight("LH404", "New York", 450, 9, 40),
    flight("AZ201", "Rome", 90, 6, 30),
    flight("BA548", "Rome", 120, 7, 30),
    flight("AF1404", "Rome", 110, 8, 25),
    flight("SK1501", "Oslo", 130, 8, 25),
    flight("DY1303", "Oslo", 70, 6, 30),
    hotel("plaza", "New York", 350, 9, 18),
    hotel("pod51", "New York", 120, 6, 25),
    hotel("hassler", "Rome", 400, 10, 6),
    hotel("trevi", "Rome", 150, 8, 20),
    hotel("pensione", "Rome", 60, 5, 9),
    hotel("grand", "Oslo", 220, 9, 12),
    hotel("anker", "Oslo", 80, 6, 20),
];

/// The flight of that code.
#[must_use]
pub fn find_flight(code: &str) -> Option<&'static Offer> {
    OFFERS.iter().find(|offer| offer.kind == Kind::Flight && offer.code == code)
}

/// The hotel of that code.
#[must_use]
pub fn find_hotel(code: &str) -> Option<&'static Offer> {
    OFFERS.iter().find(|offer| offer.kind == Kind::Hotel && offer.code == code)
}

/// The offer that has this tag.
#[must_use]
pub fn find_tag(tag: &str) -> Option<&'static Offer> {
    OFFERS.iter().find(|offer| offer.tag() == tag)
}

impl Offer {
    /// Its tag in the book: "flight/BA117".
    #[must_use]
    pub fn tag(&self) -> String {
        match self.kind {
            Kind::Flight => format!("flight/{}", self.code),
            Kind::Hotel => format!("hotel/{}", self.code),
        }
    }

    /// Its place of that name, if it has one.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<Place> {
        self.places().find(|place| place.name() == name)
    }

    /// All its places, in order.
    pub fn places(&self) -> impl Iterator<Item = Place> + Clone + '_ {
        (1..=self.rows).flat_map(move |row| {
            (0..self.per_row).map(move |at| match self.kind {
                Kind::Flight => Place(format!("flight/{}/seat/{row}{}", self.code, char::from(b'A' + at as u8))),
                Kind::Hotel => Place(format!("hotel/{}/room/{row}{:02}", self.code, at + 1)),
            })
        })
    }

    /// How many places it has.
    #[must_use]
    pub fn size(&self) -> usize {
        (self.rows * self.per_row) as usize
    }
}

impl Place {
    /// Its tag in the book.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.0
    }

    /// The tag of the flight or hotel that it belongs to: "flight/BA117".
    #[must_use]
    pub fn offer_tag(&self) -> &str {
        self.0.match_indices('/').nth(1).map_or(&self.0, |(at, _)| &self.0[..at])
    }

    /// What stands on its door: "12A", "204".
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_place_has_its_own_tag_and_knows_its_offer() {
        let mut tags = BTreeSet::new();
        for offer in OFFERS {
            assert_eq!(offer.places().count(), offer.size());
            for place in offer.places() {
                assert_eq!(place.offer_tag(), offer.tag());
                assert_eq!(offer.place(place.name()), Some(place.clone()));
                assert!(tags.insert(place), "two places have one tag");
            }
        }
    }

    #[test]
    fn places_are_named_as_travellers_name_them() {
        let seats: Vec<Place> = find_flight("BA117").unwrap().places().take(7).collect();
        assert_eq!(seats[0].tag(), "flight/BA117/seat/1A");
        assert_eq!(seats[6].name(), "2A");
        assert_eq!(find_hotel("plaza").unwrap().places().last().unwrap().name(), "1810");
        assert_eq!(find_flight("plaza"), None);
    }
}
