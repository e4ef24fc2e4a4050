//! What a call has seen, its children see; what they have seen, it sees when they return.

use std::sync::Arc;

use boki_sdk::prelude::*;
use boki_sdk::{Json, Worker};
use tokio::sync::Notify;

use crate::support::{LONG, Running};

async fn last(cx: &Cx, tag: &str) -> Result<String> {
    let record = cx.book().read_prev(Seq::MAX).tag(tag).first().await?;
    Ok(record.map_or_else(|| "nothing".to_owned(), |record| String::from_utf8_lossy(record.data()).into_owned()))
}

/// There, a child's appends may be invisible to its parent (its position is not handed back). Here they are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t09_what_a_parent_appended_its_child_reads_and_what_the_child_appended_the_parent_reads() {
    let running = Running::start().await;
    let worker = Worker::new()
        .function("parent", async |cx: Cx, (): ()| {
            cx.book().append("parent").tag("down").await?;
            let seen: Vec<String> = cx.call("child", &()).await?;
            Result::Ok((seen, last(&cx, "up/child").await?, last(&cx, "up/grandchild").await?))
        })
        .function("child", async |cx: Cx, (): ()| {
            let above = last(&cx, "down").await?;
            cx.book().append("child").tag("down").await?;
            let below: String = cx.call("grandchild", &()).await?;
            let back = last(&cx, "up/grandchild").await?;
            cx.book().append("from the child").tag("up/child").await?;
            Result::Ok(vec![above, below, back])
        })
        .function("grandchild", async |cx: Cx, (): ()| {
            let above = last(&cx, "down").await?;
            cx.book().append("from the grandchild").tag("up/grandchild").await?;
            Result::Ok(above)
        });
    running.offer(worker, &["parent", "child", "grandchild"]).await;
    for round in 0..20 {
        let book = running.book(&format!("family-{round}")).await;
        let call = running.client.call("parent", Json(())).book(&book).await.unwrap();
        let (seen, child, grandchild): (Vec<String>, String, String) = call.json().unwrap();
        assert_eq!(seen, ["parent", "child", "from the grandchild"]);
        assert_eq!((&*child, &*grandchild), ("from the child", "from the grandchild"));
        // And back to the client.
        let seen = book.read_prev(Seq::MAX).tag("up/child").first().await.unwrap().unwrap();
        assert!(book.position().0 > seen.seq);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_a_sent_child_outlives_its_parent_and_keeps_its_own_position() {
    let running = Running::start().await;
    let parent_returned = Arc::new(Notify::new());
    let gate = Arc::clone(&parent_returned);
    let worker = Worker::new()
        .function("parent", async |cx: Cx, (): ()| {
            cx.book().append("for the child").tag("down").await?;
            let sent = cx.send("child", &()).await?;
            Result::Ok(sent.id.to_string())
        })
        .function("child", move |cx: Cx, (): ()| {
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                let above = last(&cx, "down").await?;
                cx.book().append("by the child").tag("up").await?;
                // Its own append, too, is below its own position now.
                Result::Ok((above, last(&cx, "up").await?))
            }
        });
    running.offer(worker, &["parent", "child"]).await;
    let book = running.book("family").await;
    let output = running.client.call("parent", Json(())).book(&book).await.unwrap();
    let child: boki_sdk::CallId = output.json::<String>().unwrap().parse().unwrap();
    let before = book.position();
    assert_eq!(book.tail().tag("up").await.unwrap(), Seq::NONE, "the child has done nothing yet");

    parent_returned.notify_one();
    let output = running.client.call_result(&book, child, Some(LONG)).await.unwrap().unwrap();
    let seen: (String, String) = output.json().unwrap();
    assert_eq!(seen, ("for the child".to_owned(), "by the child".to_owned()));
    assert!(book.position() > before, "whoever asks for its result has seen what it has seen");
    assert!(book.tail().tag("up").await.unwrap() > Seq::NONE);
}
