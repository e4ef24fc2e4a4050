//! Hotel and flight booking on Boki: an example to be read from top to bottom.
//!
//! A traveller books a trip: a seat on a flight, a room in a hotel, and one payment for both. Two people must
//! never get the same seat, nobody may pay twice, and a trip that cannot have its room must give its seat back,
//! although any process may die at any moment. There is no database beside the log and no lock anywhere.
//!
//! Read the modules in this order:
//!
//! 1. [`catalogue`]: the flights and hotels there are, and their places (seats and rooms).
//! 2. [`event`]: what is written in the book, and under which tags. All state is these records.
//! 3. [`trip`]: how far one trip is, read from its records.
//! 4. [`availability`]: which places of a flight or hotel are taken, read from its records.
//! 5. [`booking`], [`hold`], [`pay`]: booking a trip, step by step.
//! 6. [`search`], [`history`]: the other functions.
//! 7. [`audit`]: reads a whole book and checks that every promise was kept.
//!
//! The rule behind all of it: **read, decide, append on the condition that nothing changed since the reading.** If
//! something did change, the append does nothing and says so, and the function reads again.

pub mod audit;
pub mod availability;
pub mod booking;
pub mod catalogue;
pub mod event;
pub mod history;
pub mod hold;
pub mod pay;
pub mod search;
pub mod trip;

/// The worker that offers all functions of this example.
pub fn worker() -> boki::Worker {
    boki::Worker::new()
        .name("booking")
        // `book_trip` keeps its place while it waits for `hold` and `pay`, which need places too.
        .concurrency(4096)
        .with(search::search)
        .with(search::recommend)
        .with(booking::book_trip)
        .with(hold::hold)
        .with(pay::pay)
        .with(history::cancel)
        .with(history::trips)
}
