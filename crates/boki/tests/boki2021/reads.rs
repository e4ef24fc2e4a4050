//! Reading.

use std::time::{Duration, Instant};

use boki_sdk::prelude::*;

use crate::support::{LONG, Running};

fn seqs(records: &[boki_sdk::Record]) -> Vec<Seq> {
    records.iter().map(|record| record.seq).collect()
}

#[tokio::test]
async fn t05_reads_are_inclusive_and_take_any_seq_tag_and_book() {
    let running = Running::start().await;
    let empty = running.book("empty").await;
    let book = running.book("reads").await;
    for from in [0, 1, 7, Seq::MAX.0, u64::MAX] {
        assert!(empty.read_next(from).await.unwrap().is_empty());
        assert!(empty.read_prev(from).await.unwrap().is_empty());
    }
    let mut all = Vec::new();
    for number in 0..6 {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        all.push(book.append(number.to_string()).tag(tag).await.unwrap());
    }
    let last = all[5];
    assert_eq!(seqs(&book.read_next(all[2]).await.unwrap()), all[2..], "inclusive");
    assert_eq!(seqs(&book.read_prev(all[2]).await.unwrap()), [all[2], all[1], all[0]], "inclusive, backwards");
    assert_eq!(seqs(&book.read_next(all[1]).tag("even").await.unwrap()), [all[2], all[4]]);
    assert_eq!(seqs(&book.read_prev(all[1]).tag("even").await.unwrap()), [all[0]]);
    assert_eq!(seqs(&book.read_next(0).await.unwrap()), all);
    assert!(book.read_prev(0).await.unwrap().is_empty());
    assert!(book.read_next(Seq::MAX).await.unwrap().is_empty());
    assert_eq!(book.read_prev(Seq::MAX).first().await.unwrap().unwrap().seq, last);
    assert_eq!(book.read_prev(u64::MAX).first().await.unwrap().unwrap().seq, last);
    for from in [Seq::NONE, last, Seq::MAX] {
        assert!(book.read_next(from).tag("neither").await.unwrap().is_empty());
        assert!(book.read_prev(from).tag("neither").await.unwrap().is_empty());
    }
    assert_eq!(book.tail().tag("neither").await.unwrap(), Seq::NONE);
}

/// There, reading with tag 0 means every record. Here, reading without a tag does.
#[tokio::test]
async fn t06_a_read_without_a_tag_sees_untagged_records_and_never_another_books() {
    let running = Running::start().await;
    let (one, other) = (running.book("one").await, running.book("other").await);
    let mut mine = Vec::new();
    let mut tagged = Vec::new();
    for number in 0..20 {
        // Both books are in one log, so their records lie between each other.
        mine.push(one.append(format!("one {number}")).await.unwrap());
        other.append("other").tag("t").await.unwrap();
        other.append("other").await.unwrap();
        let seq = one.append(format!("one {number}")).tag("t").await.unwrap();
        mine.push(seq);
        tagged.push(seq);
    }
    let all = one.read_next(Seq::FIRST).await.unwrap();
    assert_eq!(seqs(&all), mine);
    assert!(all.iter().all(|record| record.data().starts_with(b"one")));
    assert_eq!(seqs(&one.read_next(Seq::FIRST).tag("t").await.unwrap()), tagged);
    let back = one.read_prev(Seq::MAX).await.unwrap();
    assert!(seqs(&back).iter().rev().eq(&mine));
    assert_eq!(one.tail().await.unwrap(), *mine.last().unwrap());
    assert_eq!(other.read_next(Seq::FIRST).tag("t").limit(100).await.unwrap().len(), 20);
}

/// The part about a change of view has no counterpart on one machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t21_a_blocking_read_wakes_for_its_tag_only_and_times_out_without_activity() {
    let running = Running::start().await;
    let book = running.book("waiting").await;

    // No activity in the log at all.
    let started = Instant::now();
    let none = book.read_next(Seq::FIRST).tag("mine").wait(Duration::from_millis(50)).await.unwrap();
    assert!(none.is_empty());
    assert!(started.elapsed() >= Duration::from_millis(50), "it waited {:?} only", started.elapsed());

    // Another session appends: first what nobody waits for, then the match.
    let writer = running.another_client().await.book("waiting").await.unwrap();
    let reading = tokio::spawn(book.read_next(Seq::FIRST).tag("mine").wait(LONG).into_future());
    for _ in 0..50 {
        writer.append("other").tag("other").await.unwrap();
        writer.append("untagged").await.unwrap();
    }
    assert!(!reading.is_finished(), "it woke for another tag");
    let seq = writer.append("mine").tags(["mine", "other"]).await.unwrap();
    let found = reading.await.unwrap().unwrap();
    assert_eq!(seqs(&found), [seq]);

    // Each of many waiters is woken.
    let from = seq.next();
    let waiters: Vec<_> =
        (0..50).map(|_| tokio::spawn(book.read_next(from).tag("mine").wait(LONG).into_future())).collect();
    let seq = writer.append("mine").tag("mine").await.unwrap();
    for waiter in waiters {
        assert_eq!(seqs(&waiter.await.unwrap().unwrap()), [seq]);
    }
}
