//! The travellers: clients that search, fight for seats, cancel, and remember every answer they got.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use booking::booking::Order;
use booking::catalogue::{Kind, OFFERS, Offer};
use booking::history::{Cancel, TripLine, User};
use booking::search::{By, Recommend, Search};
use booking::trip::Outcome;
use bytes::Bytes;
use fastrand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::http::{Call, HttpClient};

/// The book of the demo.
pub(crate) const BOOK: &str = "default";

/// Cities, for looking around.
const CITIES: [&str; 3] = ["New York", "Rome", "Oslo"];

/// What all clients share: how much is left to do, and how much is done.
#[derive(Debug)]
pub(crate) struct Work {
    left: AtomicUsize,
    done: watch::Sender<usize>,
}

impl Work {
    pub(crate) fn new(requests: usize) -> Arc<Work> {
        Arc::new(Work { left: AtomicUsize::new(requests), done: watch::Sender::new(0) })
    }

    /// Whether there is one more request to make; it is the caller's then.
    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Becomes ready when so many requests have been answered.
    pub(crate) async fn reached(&self, count: usize) {
        // `self` holds the sender, so waiting cannot fail.
        let _ = self.done.subscribe().wait_for(|done| *done >= count).await;
    }
}

/// One traveller.
#[derive(Debug)]
pub(crate) struct Traveller {
    user: String,
    rng: Rng,
    http: HttpClient,
    log: Answers,
}

/// Everything that a traveller was told.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) bookings: Vec<Booking>,
    /// Trips whose cancellation was confirmed.
    pub(crate) cancelled: Vec<String>,
    /// How long each request took, its retries included.
    pub(crate) times: Vec<Duration>,
    /// Answers that contradict what the traveller knew for sure.
    pub(crate) wrong: Vec<String>,
    /// Connections lost.
    pub(crate) lost: u64,
    /// Requests that the server asked to repeat.
    pub(crate) asked_again: u64,
}

/// A booking that was asked for, and the answer.
#[derive(Clone, Debug)]
pub(crate) struct Booking {
    pub(crate) key: String,
    pub(crate) order: Order,
    pub(crate) outcome: Outcome,
}

impl Traveller {
    pub(crate) fn new(number: usize, seed: u64, address: &str) -> Traveller {
        Traveller {
            user: format!("traveller-{number}"),
            rng: Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number as u64)),
            http: HttpClient::new(address),
            log: Answers::default(),
        }
    }

    /// Makes requests until there are none left to make.
    pub(crate) async fn travel(mut self, work: Arc<Work>) -> Result<Answers, String> {
        while work.take() {
            let started = Instant::now();
            match self.rng.u32(0..100) {
                0..40 => self.book().await?,
                40..46 => self.cancel().await?,
                46..78 => self.search().await?,
                78..90 => self.recommend().await?,
                _ => self.look_at_trips().await?,
            }
            self.log.times.push(started.elapsed());
            work.done.send_modify(|done| *done += 1);
        }
        self.log.lost = self.http.lost;
        self.log.asked_again = self.http.asked_again;
        Ok(self.log)
    }

    async fn book(&mut self) -> Result<(), String> {
        let order = self.choose();
        let key = format!("{}-{}", self.user, self.log.bookings.len());
        let outcome = call(&mut self.http, "book_trip", Some(&key), &order).await?;
        self.log.bookings.push(Booking { key, order, outcome });
        Ok(())
    }

    /// Half of all want the same two flights, and many of these a seat in front.
    fn choose(&mut self) -> Order {
        let flights: Vec<&Offer> = OFFERS.iter().filter(|offer| offer.kind == Kind::Flight).collect();
        let is_in_fashion = self.rng.bool();
        let flight =
            if is_in_fashion { flights[self.rng.usize(0..2)] } else { flights[self.rng.usize(0..flights.len())] };
        let hotels: Vec<&Offer> =
            OFFERS.iter().filter(|offer| offer.kind == Kind::Hotel && offer.city == flight.city).collect();
        let hotel = hotels[self.rng.usize(0..hotels.len())];
        let seat = (is_in_fashion && self.rng.u32(0..3) == 0)
            .then(|| format!("{}{}", self.rng.u32(1..=10), self.rng.char('A'..='F')));
        Order { user: self.user.clone(), flight: flight.code.to_owned(), seat, hotel: hotel.code.to_owned() }
    }

    async fn cancel(&mut self) -> Result<(), String> {
        let mut booked = self.log.bookings.iter().rev().filter_map(|booking| match &booking.outcome {
            Outcome::Booked { trip, price, .. } if !self.log.cancelled.contains(trip) => Some((trip.clone(), *price)),
            _ => None,
        });
        let Some((trip, price)) = booked.next() else { return self.look_at_trips().await };
        let key = format!("cancel-{trip}");
        let input = Cancel { user: self.user.clone(), trip: trip.clone() };
        let paid_back: u32 = call(&mut self.http, "cancel", Some(&key), &input).await?;
        if paid_back != price {
            self.log.wrong.push(format!("trip {trip} had cost {price}, and {paid_back} were paid back"));
        }
        self.log.cancelled.push(trip);
        Ok(())
    }

    async fn search(&mut self) -> Result<(), String> {
        let city = CITIES[self.rng.usize(0..CITIES.len())].to_owned();
        call::<booking::search::Found>(&mut self.http, "search", None, &Search { city }).await.map(drop)
    }

    async fn recommend(&mut self) -> Result<(), String> {
        let city = CITIES[self.rng.usize(0..CITIES.len())].to_owned();
        let by = match self.rng.u32(0..3) {
            0 => By::Price,
            1 => By::Rating,
            _ => By::Popularity,
        };
        call::<Vec<booking::search::Choice>>(&mut self.http, "recommend", None, &Recommend { city, by }).await.map(drop)
    }

    /// The traveller knows all of its own trips, whatever was killed in between.
    async fn look_at_trips(&mut self) -> Result<(), String> {
        let lines: Vec<TripLine> = call(&mut self.http, "trips", None, &User { user: self.user.clone() }).await?;
        let expected: Vec<(&str, &str)> = self.log.bookings.iter().map(|booking| self.log.expected(booking)).collect();
        let found: Vec<(&str, &str)> = lines.iter().map(|line| (&*line.trip, &*line.status)).collect();
        if found != expected {
            let wrong = format!("{} should have trips {expected:?}, but is told {found:?}", self.user);
            self.log.wrong.push(wrong);
        }
        Ok(())
    }
}

impl Answers {
    /// The line that the traveller's history must have for `booking`.
    fn expected<'a>(&self, booking: &'a Booking) -> (&'a str, &'static str) {
        match &booking.outcome {
            Outcome::Booked { trip, .. } if self.cancelled.contains(trip) => (trip, "cancelled"),
            Outcome::Booked { trip, .. } => (trip, "booked"),
            Outcome::Refused { trip, .. } => (trip, "refused"),
        }
    }
}

/// Calls a function with JSON in and out.
pub(crate) async fn call<T: DeserializeOwned>(
    http: &mut HttpClient,
    function: &str,
    key: Option<&str>,
    input: &(impl Serialize + Sync),
) -> Result<T, String> {
    let input: Bytes = serde_json::to_vec(input).map_err(|error| error.to_string())?.into();
    let answer =
        http.call(&Call { book: BOOK, function, key, input }).await.map_err(|why| format!("{function}: {why}"))?;
    serde_json::from_slice(&answer).map_err(|error| format!("{function} answered {answer:?}: {error}"))
}
