//! A traveller's trips, and giving one up.

use boki::prelude::*;
use serde::{Deserialize, Serialize};

use crate::event::{Event, trip_tag, user_tag};
use crate::trip::{Outcome, Trip};

/// Asks to give up a trip.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// Who asks.
    pub user: String,
    /// Which trip.
    pub trip: String,
}

/// Gives up a booked trip: seat and room are free again, the price is paid back. Doing it twice does it once. Returns
/// what is paid back.
#[boki::function]
pub async fn cancel(cx: &Cx, input: Cancel) -> Result<u32> {
    let book = cx.book();
    loop {
        let trip = Trip::read(book, &input.trip).await?;
        let Some(Outcome::Booked { price, .. }) = trip.outcome else {
            return Err(Failure::new("there is no such booked trip"));
        };
        if !trips_of(book, &input.user).await?.iter().any(|known| known.trip == input.trip) {
            return Err(Failure::new("there is no such booked trip"));
        }
        if trip.cancelled {
            return Ok(price);
        }
        let event = Event::Cancelled { trip: input.trip.clone(), user: input.user.clone(), freed: trip.held() };
        match event.append_to(book).if_tail(trip_tag(&input.trip), trip.tail).await {
            Ok(_) => return Ok(price),
            Err(error) if error.is_condition_failed() => continue,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A traveller.
#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    /// Who.
    pub user: String,
}

/// One line of a traveller's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TripLine {
    /// The trip.
    pub trip: String,
    /// "booked", "refused" or "cancelled".
    pub status: String,
    /// Seat and room, or why there are none.
    pub about: String,
}

/// Everything that became of a traveller's trips, oldest first.
#[boki::function]
pub async fn trips(cx: &Cx, input: User) -> Result<Vec<TripLine>> {
    Ok(trips_of(cx.book(), &input.user).await?)
}

async fn trips_of(book: &Book, user: &str) -> boki::Result<Vec<TripLine>> {
    let mut lines = Vec::new();
    let mut from = Seq::FIRST;
    loop {
        let records = book.read_next(from).tag(user_tag(user)).limit(1000).await?;
        let Some(last) = records.last() else { return Ok(lines) };
        from = last.seq.next();
        for record in &records {
            apply(&mut lines, Event::of(record)?);
        }
    }
}

/// Takes in the next record of the traveller.
fn apply(lines: &mut Vec<TripLine>, event: Event) {
    let line = |trip, status: &str, about| TripLine { trip, status: status.to_owned(), about };
    match event {
        Event::Booked { trip, seat, room, .. } => lines.push(line(trip, "booked", format!("{seat}, {room}"))),
        Event::Refused { trip, reason, .. } => lines.push(line(trip, "refused", reason)),
        Event::Cancelled { trip, .. } => {
            if let Some(line) = lines.iter_mut().find(|line| line.trip == trip) {
                "cancelled".clone_into(&mut line.status);
            }
        }
        Event::Held { .. } | Event::Paid { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::{find_flight, find_hotel};

    #[test]
    fn a_cancelled_trip_stays_in_the_history_as_cancelled() {
        let seat = find_flight("BA117").unwrap().place("1A").unwrap();
        let room = find_hotel("plaza").unwrap().place("101").unwrap();
        let user = || "ada".to_owned();
        let mut lines = Vec::new();
        let freed = vec![seat.clone(), room.clone()];
        apply(&mut lines, Event::Booked { trip: "t1".into(), user: user(), seat, room, price: 1 });
        apply(&mut lines, Event::Refused { trip: "t2".into(), user: user(), reason: "full".into(), freed: vec![] });
        apply(&mut lines, Event::Cancelled { trip: "t1".into(), user: user(), freed });
        let picture: Vec<_> = lines.iter().map(|line| (&*line.trip, &*line.status, &*line.about)).collect();
        assert_eq!(
            picture,
            [("t1", "cancelled", "flight/BA117/seat/1A, hotel/plaza/room/101"), ("t2", "refused", "full")]
        );
    }
}
