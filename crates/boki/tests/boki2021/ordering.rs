//! Appends and their order.

use boki_sdk::prelude::*;
use boki_sdk::{Json, Worker};

use crate::support::Running;

#[tokio::test]
async fn t02_sequential_appends_of_one_call_have_rising_seqs() {
    let running = Running::start().await;
    let worker = Worker::new().function("append_ten", async |cx: Cx, (): ()| {
        let mut seqs = Vec::new();
        for number in 0..10 {
            seqs.push(cx.book().append(Json(number)).tag("t").await?.0);
        }
        Result::Ok(seqs)
    });
    running.offer(worker, &["append_ten"]).await;
    let seqs: Vec<u64> = running.client.call("append_ten", Json(())).await.unwrap().json().unwrap();
    assert_eq!(seqs.len(), 10);
    assert!(seqs.is_sorted_by(|one, next| one < next), "{seqs:?}");
}

/// Two callers append to a tag and then read its first record. Whoever was first, both say so: this is how a
/// test-and-set is made from the log without conditions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t11_two_racing_callers_agree_who_was_first() {
    let running = Running::start().await;
    let book = running.book("races").await;
    let rival = running.another_client().await.book("races").await.unwrap();
    let (mut wins, mut losses) = (0, 0);
    for round in 0..200 {
        let tag = format!("race/{round}");
        let run = async |book: &Book, name: &str| {
            book.append(name).tag(&tag).await.unwrap();
            let first = book.read_next(Seq::FIRST).tag(&tag).first().await.unwrap().unwrap();
            String::from_utf8(first.data().to_vec()).unwrap()
        };
        let (one, other) = tokio::join!(run(&book, "one"), run(&rival, "other"));
        assert_eq!(one, other, "round {round}");
        if one == "one" { wins += 1 } else { losses += 1 }
    }
    assert_eq!(wins + losses, 200);
}
