//! Aux data is a hint beside a record: it may vanish at any time and never changes a result.

use boki_sdk::prelude::*;
use boki_sdk::{Book, Json, Record};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::support::Running;

/// What a library keeps beside a record: its state as of that record.
#[derive(Serialize, Deserialize)]
struct Snapshot {
    as_of: u64,
    sum: u64,
}

/// The sum of all numbers under "n": the simplest library there is. It goes back to the last record with a usable
/// snapshot, then forward, and leaves snapshots behind. Returns the sum and how many records it read.
async fn sum(book: &Book) -> (u64, usize) {
    let mut later: Vec<Record> = Vec::new();
    let mut sum = 0;
    let mut from = Seq::MAX;
    while let Some(record) = book.read_prev(from).tag("n").first().await.unwrap() {
        let aux = record.aux.as_deref().and_then(|aux| serde_json::from_slice::<Snapshot>(aux).ok());
        if let Some(snapshot) = aux.filter(|snapshot| snapshot.as_of == record.seq.0) {
            sum = snapshot.sum;
            break;
        }
        from = Seq(record.seq.0 - 1);
        later.push(record);
    }
    let read = later.len();
    for record in later.into_iter().rev() {
        sum += record.json::<u64>().unwrap();
        book.set_aux(record.seq, Json(Snapshot { as_of: record.seq.0, sum })).await.unwrap();
    }
    (sum, read)
}

/// There is no library here yet that uses aux data, so the test brings one.
#[tokio::test]
async fn t22_a_librarys_results_do_not_depend_on_aux_data() {
    let mut running = Running::start().await;
    let mut book = running.book("sums").await;
    let mut rng = Rng::with_seed(22);
    let mut seqs = Vec::new();
    let mut expected = 0;
    for round in 0..60 {
        let number = rng.u64(0..1000);
        seqs.push(book.append(Json(number)).tag("n").await.unwrap());
        expected += number;
        let (found, read) = sum(&book).await;
        assert_eq!(found, expected, "round {round}");
        if round % 20 == 5 {
            // Undisturbed, aux data does what it is for.
            assert_eq!(sum(&book).await, (expected, 0));
            assert!(read >= 1);
        }
        for _ in 0..3 {
            let victim = seqs[rng.usize(0..seqs.len())];
            match rng.u32(0..3) {
                0 => book.set_aux(victim, b"").await.unwrap(),
                1 => book.set_aux(victim, b"\xff{garbage").await.unwrap(),
                _ => book.set_aux(victim, Json(Snapshot { as_of: victim.0 + 1, sum: 7 })).await.unwrap(),
            }
        }
        if round % 20 == 19 {
            // All of it is gone at once.
            running = running.restart().await;
            book = running.client.book("sums").await.unwrap();
        }
    }
    assert_eq!(sum(&book).await.0, expected);
    let records = book.read_next(Seq::FIRST).tag("n").await.unwrap();
    assert_eq!(
        records.iter().map(|record| record.json::<u64>().unwrap()).sum::<u64>(),
        expected,
        "the records are as they were"
    );
}
