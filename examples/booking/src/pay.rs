//! Paying for a trip, once.

use boki::prelude::*;
use serde::{Deserialize, Serialize};

use crate::event::{Event, payment_tag, trip_tag};
use crate::trip::Trip;

/// Asks for a payment.
#[derive(Debug, Serialize, Deserialize)]
pub struct Pay {
    /// For which trip.
    pub trip: String,
    /// How much.
    pub amount: u32,
}

/// Takes the payment for a trip, unless it was taken already. Returns what was paid.
///
/// Here the payment is its record. A real one would first be asked of a provider, with the trip as the
/// provider's idempotency key.
#[boki::function]
pub async fn pay(cx: &Cx, input: Pay) -> Result<u32> {
    let book = cx.book();
    loop {
        let trip = Trip::read(book, &input.trip).await?;
        if let Some(amount) = trip.paid {
            return Ok(amount);
        }
        if trip.seat.is_none() || trip.room.is_none() {
            return Err(Failure::new("nothing is paid before seat and room are held"));
        }
        let event = Event::Paid { trip: input.trip.clone(), amount: input.amount };
        let appended = event
            .append_to(book)
            .if_tail(payment_tag(&input.trip), Seq::NONE)
            .if_tail(trip_tag(&input.trip), trip.tail)
            .await;
        match appended {
            Ok(_) => return Ok(input.amount),
            Err(error) if error.is_condition_failed() => continue,
            Err(error) => return Err(error.into()),
        }
    }
}
