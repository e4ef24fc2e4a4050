//! Booking a trip.

use boki::prelude::*;
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, Offer, Place};
use crate::event::{Event, trip_tag};
use crate::hold::Hold;
use crate::pay::Pay;
use crate::trip::{Outcome, Trip};

/// What a traveller wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Who.
    pub user: String,
    /// The flight's code.
    pub flight: String,
    /// The seat, if only this one will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<String>,
    /// The hotel's code.
    pub hotel: String,
}

/// Books a seat, a room, and takes the payment: all of it or nothing.
///
/// The trip's id is the call's id. It stays the same when the call is tried again, and when the traveller sends it again
/// with the same `Idempotency-Key`: so that is the same trip, with the same answer.
///
/// Each turn of the loop reads how far the trip is and takes the one next step. It makes no difference
/// whether the step before was taken by this attempt or by one that died: there is no code for recovery.
#[boki::function]
pub async fn book_trip(cx: &Cx, order: Order) -> Result<Outcome> {
    let flight = catalogue::find_flight(&order.flight).ok_or_else(|| Failure::new("there is no such flight"))?;
    let hotel = catalogue::find_hotel(&order.hotel).ok_or_else(|| Failure::new("there is no such hotel"))?;
    let id = cx.call_id().to_string();
    loop {
        let trip = Trip::read(cx.book(), &id).await?;
        if let Some(outcome) = trip.outcome {
            return Ok(outcome);
        }
        match (&trip.seat, &trip.room, trip.paid) {
            (None, _, _) => {
                if take(cx, &id, flight, order.seat.clone()).await?.is_none() {
                    refuse(cx, &id, &order, &trip, format!("no seat on {}", flight.code)).await?;
                }
            }
            (Some(_), None, _) => {
                if take(cx, &id, hotel, None).await?.is_none() {
                    refuse(cx, &id, &order, &trip, format!("no room at {}", hotel.code)).await?;
                }
            }
            (Some(_), Some(_), None) => {
                let pay = Pay { trip: id.clone(), amount: flight.price + hotel.price };
                let _: u32 = cx.call("pay", &pay).await?;
            }
            (Some(seat), Some(room), Some(price)) => {
                let (seat, room, user) = (seat.clone(), room.clone(), order.user.clone());
                append(cx, &trip, &Event::Booked { trip: id.clone(), user, seat, room, price }).await?;
            }
        }
    }
}

/// Has the function `hold` take a place. What it appended is visible here when it returns.
async fn take(cx: &Cx, trip: &str, offer: &Offer, wish: Option<String>) -> Result<Option<Place>> {
    Ok(cx.call("hold", &Hold { trip: trip.to_owned(), offer: offer.tag(), wish }).await?)
}

/// Ends a trip that cannot be had. The one record carries the tags of all places that it gives back, so
/// they are free at the same moment.
async fn refuse(cx: &Cx, id: &str, order: &Order, trip: &Trip, reason: String) -> Result<()> {
    let event = Event::Refused { trip: id.to_owned(), user: order.user.clone(), reason, freed: trip.held() };
    append(cx, trip, &event).await
}

/// Appends the trip's next record. If the trip has moved since it was read, nothing is appended: the
/// caller reads it again anyway.
async fn append(cx: &Cx, trip: &Trip, event: &Event) -> Result<()> {
    match event.append_to(cx.book()).if_tail(trip_tag(event.trip()), trip.tail).await {
        Err(error) if !error.is_condition_failed() => Err(error.into()),
        _ => Ok(()),
    }
}
