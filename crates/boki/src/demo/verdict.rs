//! What is checked when the dust has settled: the book alone, the book against every answer given, and the order
//! of now against the order of before the kill.

use std::collections::BTreeMap;

use boki_sdk::{Book, Bytes, Seq};
use booking::audit::{Audit, Promise};
use booking::trip::Outcome;
use serde::Serialize;
use tokio::task::JoinSet;

use super::http::HttpClient;
use super::load::{Answers, Booking, call};

/// One thing that was checked.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    /// What holds, with its numbers.
    pub(crate) what: String,
    /// Where it does not hold.
    pub(crate) wrong: Vec<String>,
}

impl Check {
    fn new(what: String, wrong: impl IntoIterator<Item = String>) -> Check {
        Check { what, wrong: wrong.into_iter().collect() }
    }

    /// Whatever was done, the book has as many events as before.
    pub(crate) fn and_nothing_added(mut self, before: usize, now: usize) -> Check {
        if before != now {
            self.wrong.push(format!("there were {before} events before, now there are {now}"));
        }
        self
    }
}

/// Every record of the book that is not Boki's own, in order: seq, tags and payload.
pub(crate) type Order = Vec<(Seq, Vec<String>, Bytes)>;

/// Reads the whole book.
pub(crate) async fn read_order(book: &Book) -> boki_sdk::Result<Order> {
    let mut order = Vec::new();
    let mut from = Seq::FIRST;
    loop {
        let records = book.read_next(from).limit(1000).linearizable().await?;
        let Some(last) = records.last() else { return Ok(order) };
        from = last.seq.next();
        for record in records {
            let tags: Vec<String> = record.tags().map(str::to_owned).collect();
            if !tags.iter().any(|tag| tag.starts_with('~')) {
                order.push((record.seq, tags, record.bytes()));
            }
        }
    }
}

/// What was there before is there now, at the same place; what is new comes after it.
pub(crate) fn check_order(before: &Order, now: &Order) -> Check {
    let mut wrong = Vec::new();
    for (at, record) in before.iter().enumerate() {
        match now.get(at) {
            Some(same) if same == record => {}
            other => {
                let found = other.map_or("nothing".to_owned(), |(seq, tags, _)| format!("seq {seq} {tags:?}"));
                wrong.push(format!("record {at} was seq {} {:?}, and is now {found}", record.0, record.1));
                break;
            }
        }
    }
    Check::new(
        format!("the {} records from before the server was killed are where they were", number(before.len())),
        wrong,
    )
}

/// The book by itself.
pub(crate) fn check_book(audit: &Audit) -> Vec<Check> {
    let discrepancies = audit.discrepancies();
    let broken = |promise: Promise| {
        let of_this = discrepancies.iter().filter(move |discrepancy| discrepancy.promise == promise);
        of_this.map(ToString::to_string)
    };
    let decided = format!(
        "{} trips, each decided once: {} booked, {} refused; {} cancelled later",
        number(audit.trips.len()),
        number(audit.booked()),
        number(audit.refused()),
        number(audit.cancelled())
    );
    let paid = format!("{} payments, one for each booked trip and none for others", number(audit.payments));
    let held =
        format!("no seat and no room given to two; {} given back by refusals and cancellations", number(audit.freed));
    let unpaid = (audit.payments != audit.booked()).then(|| format!("{} trips are booked", audit.booked()));
    vec![
        Check::new(decided, broken(Promise::OneDecision)),
        Check::new(paid, broken(Promise::OnePayment).chain(unpaid)),
        Check::new(held, broken(Promise::OneHolder)),
    ]
}

/// The book against what the clients were told.
pub(crate) fn check_answers(audit: &Audit, answers: &[Answers]) -> Check {
    let mut wrong: Vec<String> = answers.iter().flat_map(|answers| answers.wrong.clone()).collect();
    let mut told: BTreeMap<&str, &str> = BTreeMap::new();
    for booking in answers.iter().flat_map(|answers| &answers.bookings) {
        let id = trip_of(&booking.outcome);
        if let Some(other) = told.insert(id, &booking.key) {
            wrong.push(format!("{} and {other} were both told trip {id}", booking.key));
        }
        match audit.trips.get(id) {
            Some(trip) if trip.outcome.as_ref() == Some(&booking.outcome) => {}
            Some(trip) => {
                wrong.push(format!("{} was told {:?}, the book says {:?}", booking.key, booking.outcome, trip.outcome))
            }
            None => wrong.push(format!("{} was told {:?}, which is not in the book", booking.key, booking.outcome)),
        }
    }
    for id in audit.trips.keys().filter(|id| !told.contains_key(id.as_str())) {
        wrong.push(format!("trip {id} is in the book, but nobody asked for it"));
    }
    let mut cancelled = 0;
    for id in answers.iter().flat_map(|answers| &answers.cancelled) {
        cancelled += 1;
        if !audit.trips.get(id).is_some_and(|trip| trip.cancelled) {
            wrong.push(format!("trip {id} was confirmed as cancelled, but the book does not say so"));
        }
    }
    if cancelled != audit.cancelled() {
        wrong.push(format!("{} trips are cancelled in the book", audit.cancelled()));
    }
    let what = format!(
        "{} bookings and {} cancellations: every client was told what the book says",
        number(told.len()),
        number(cancelled)
    );
    Check::new(what, wrong)
}

/// Asks for every booking once more, with its key; each client for its own.
pub(crate) async fn ask_again(address: &str, answers: &[Answers]) -> Check {
    let mut clients = JoinSet::new();
    for client in answers {
        clients.spawn(ask_for_all(HttpClient::new(address), client.bookings.clone()));
    }
    let asked: usize = answers.iter().map(|client| client.bookings.len()).sum();
    let what = format!(
        "all {} bookings asked for once more with their keys: the same answers, nothing done twice",
        number(asked)
    );
    Check::new(what, clients.join_all().await.into_iter().flatten())
}

/// Says which answers are not what they were.
async fn ask_for_all(mut http: HttpClient, bookings: Vec<Booking>) -> Vec<String> {
    let mut wrong = Vec::new();
    for booking in bookings {
        match call::<Outcome>(&mut http, "book_trip", Some(&booking.key), &booking.order).await {
            Ok(outcome) if outcome == booking.outcome => {}
            Ok(outcome) => wrong.push(format!("{} was told {:?}, and now {outcome:?}", booking.key, booking.outcome)),
            Err(why) => wrong.push(format!("{}: {why}", booking.key)),
        }
    }
    wrong
}

fn trip_of(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Booked { trip, .. } | Outcome::Refused { trip, .. } => trip,
    }
}

/// With thousands marked.
pub(crate) fn number(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seqs: &[u64]) -> Order {
        seqs.iter().map(|seq| (Seq(*seq), vec!["t".to_owned()], Bytes::from(seq.to_string()))).collect()
    }

    #[test]
    fn the_order_may_grow_and_do_nothing_else() {
        assert!(check_order(&order(&[1, 2, 5]), &order(&[1, 2, 5, 6])).wrong.is_empty());
        for now in [&[1, 2][..], &[1, 3, 5], &[1, 2, 3, 5], &[2, 5, 6]] {
            assert_eq!(check_order(&order(&[1, 2, 5]), &order(now)).wrong.len(), 1, "{now:?}");
        }
    }

    #[test]
    fn an_answer_that_the_book_does_not_know_is_found() {
        let audit = Audit::default();
        let order = ::booking::booking::Order { user: "u".into(), flight: "f".into(), seat: None, hotel: "h".into() };
        let outcome = Outcome::Refused { trip: "t1".into(), reason: "full".into() };
        let bookings = vec![Booking { key: "k".into(), order, outcome }];
        let answers = Answers { bookings, cancelled: vec!["t2".into()], ..Answers::default() };
        let check = check_answers(&audit, &[answers]);
        assert_eq!(check.wrong.len(), 3, "{:?}", check.wrong);
    }

    #[test]
    fn numbers_have_their_thousands_marked() {
        assert_eq!([number(7), number(1234), number(1_234_567)], ["7", "1,234", "1,234,567"]);
    }
}
