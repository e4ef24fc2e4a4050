//! The whole: a server and a worker in this process, trips booked through them.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use boki::{Book, Client, Json, Seq};
use boki_server::Server;
use boki_server::config::Config;
use booking::audit::Audit;
use booking::booking::Order;
use booking::catalogue::find_hotel;
use booking::history::{Cancel, TripLine, User};
use booking::search::{By, Choice, Found, Recommend, Search};
use booking::trip::Outcome;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::task::JoinSet;

struct Agency {
    client: Client,
    book: Book,
    _server: Server,
    _home: TempDir,
}

impl Agency {
    /// Each test has a server and a book of its own.
    async fn open(name: &str) -> Agency {
        let home = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.data = home.path().join("data");
        let server = Server::start(config).await.unwrap();
        let address = server.local_addr().to_string();
        tokio::spawn(booking::worker().server(address.clone()).serve());
        let client = Client::connect(&address).await.unwrap();
        while !client.functions().await.unwrap().iter().any(|function| function.name == "book_trip") {}
        let book = client.create_book(name).await.unwrap();
        Agency { client, book, _server: server, _home: home }
    }

    async fn call<T: DeserializeOwned>(&self, function: &str, input: impl Serialize) -> boki::Result<T> {
        self.client.call(function, Json(input)).book(&self.book).await?.json()
    }

    async fn book_trip(&self, key: &str, order: Order) -> Outcome {
        let call = self.client.call("book_trip", Json(order)).book(&self.book).key(key);
        call.deadline(Duration::from_secs(60)).await.unwrap().json().unwrap()
    }

    /// The book, which must be in order.
    async fn audit(&self) -> Audit {
        let audit = Audit::of(&self.book).await.unwrap();
        assert_eq!(audit.discrepancies(), []);
        audit
    }
}

fn order(user: &str, flight: &str, seat: Option<&str>, hotel: &str) -> Order {
    Order { user: user.into(), flight: flight.into(), seat: seat.map(str::to_owned), hotel: hotel.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trip_is_booked_paid_listed_and_cancelled_once() {
    let agency = Agency::open("one-trip").await;
    let wish = order("ada", "BA117", Some("3C"), "plaza");
    let outcome = agency.book_trip("k1", wish.clone()).await;
    let Outcome::Booked { trip, seat, room, price } = outcome.clone() else { panic!("{outcome:?}") };
    assert_eq!((seat.tag(), room.offer_tag(), price), ("flight/BA117/seat/3C", "hotel/plaza", 770));

    assert_eq!(agency.book_trip("k1", wish).await, outcome, "the same key is the same trip");
    let audit = agency.audit().await;
    assert_eq!((audit.booked(), audit.payments, audit.events), (1, 1, 4));

    let found: Found = agency.call("search", Search { city: "New York".into() }).await.unwrap();
    let plaza = found.hotels.iter().find(|choice| choice.code == "plaza").unwrap();
    assert_eq!((plaza.free, plaza.taken), (find_hotel("plaza").unwrap().size() - 1, 1));
    let advice: Vec<Choice> =
        agency.call("recommend", Recommend { city: "New York".into(), by: By::Popularity }).await.unwrap();
    assert_eq!(advice[0].code, "plaza");

    let stranger = Cancel { user: "bob".into(), trip: trip.clone() };
    assert!(agency.call::<u32>("cancel", stranger).await.unwrap_err().to_string().contains("no such booked trip"));
    for _ in 0..2 {
        let cancel = Cancel { user: "ada".into(), trip: trip.clone() };
        assert_eq!(agency.call::<u32>("cancel", cancel).await.unwrap(), 770);
    }
    let lines: Vec<TripLine> = agency.call("trips", User { user: "ada".into() }).await.unwrap();
    assert_eq!(lines.iter().map(|line| (&*line.trip, &*line.status)).collect::<Vec<_>>(), [(&*trip, "cancelled")]);
    let audit = agency.audit().await;
    assert_eq!((audit.cancelled(), audit.freed, audit.events), (1, 2, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_who_want_one_seat_one_gets_it() {
    let agency = Agency::open("one-seat").await;
    let mut wishes = JoinSet::new();
    for number in 0..20 {
        let wish = order(&format!("user-{number}"), "BA117", Some("1A"), "pod51");
        let call = agency.client.call("book_trip", Json(wish)).book(&agency.book).key(format!("k{number}"));
        wishes.spawn(async move { call.await.unwrap().json::<Outcome>().unwrap() });
    }
    let outcomes = wishes.join_all().await;
    let booked = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Booked { .. })).count();
    assert_eq!(booked, 1, "{outcomes:?}");
    let audit = agency.audit().await;
    assert_eq!((audit.booked(), audit.refused(), audit.payments), (1, 19, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trip_without_a_room_gives_its_seat_back() {
    let agency = Agency::open("full-hotel").await;
    let rooms = find_hotel("hassler").unwrap().size();
    let mut trips = JoinSet::new();
    for number in 0..rooms + 10 {
        let wish = order(&format!("user-{number}"), "AZ201", None, "hassler");
        let call = agency.client.call("book_trip", Json(wish)).book(&agency.book).key(format!("k{number}"));
        trips.spawn(async move { call.await.unwrap().json::<Outcome>().unwrap() });
    }
    let outcomes = trips.join_all().await;
    let refused: Vec<&Outcome> = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Refused { .. })).collect();
    assert_eq!(refused.len(), 10);
    assert!(
        refused
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Refused { reason, .. } if reason == "no room at hassler"))
    );
    let audit = agency.audit().await;
    assert_eq!((audit.booked(), audit.payments, audit.freed), (rooms, rooms, 10), "10 seats were given back");
    let taken = agency.book.tags("flight/AZ201/seat/").await.unwrap().tags.len();
    assert!(taken >= rooms, "{taken}");
    let found: Found = agency.call("search", Search { city: "Rome".into() }).await.unwrap();
    assert!(found.hotels.iter().all(|choice| choice.code != "hassler"), "a full hotel is not offered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_exist_cannot_be_booked() {
    let agency = Agency::open("nonsense").await;
    for wish in [order("ada", "XX1", None, "plaza"), order("ada", "BA117", None, "motel")] {
        let error = agency.call::<Outcome>("book_trip", wish).await.unwrap_err();
        assert!(error.to_string().contains("there is no such"), "{error}");
    }
    let wish = order("ada", "BA117", Some("99Z"), "plaza");
    let outcome: Outcome = agency.call("book_trip", wish).await.unwrap();
    assert!(matches!(outcome, Outcome::Refused { reason, .. } if reason == "no seat on BA117"));
    assert_eq!(agency.book.tail().tag("flight/BA117").await.unwrap(), Seq::NONE);
}
