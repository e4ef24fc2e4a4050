//! What functions log: pages of it, and a stream.

use serde_json::{Value, json};

use crate::calls::with_worker;
use crate::client::{Running, start};
use crate::subscriptions::Events;

/// Calls `append`, which logs one line, and gives the call's id.
async fn log_one(running: &Running) -> String {
    running.send("POST", "/call/append", &[], "1").await.ok().header("boki-call").to_owned()
}

async fn events(running: &Running, query: &str, headers: &[(&str, &str)]) -> Events {
    Events::of(running, &format!("/v1/logs{query}"), headers).await
}

#[tokio::test]
async fn a_line_is_found_by_what_it_belongs_to() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let call = log_one(&running).await;
    log_one(&running).await;
    let all = running.get("/v1/logs").await.ok().json();
    assert_eq!(all["lines"].as_array().unwrap().len(), 2);
    let line = &all["lines"][0];
    assert_eq!(
        (&line["line"], &line["level"], &line["function"], &line["worker"], &line["call"]),
        (&json!("appended"), &json!("info"), &json!("append"), &json!("test"), &json!(call)),
    );
    let count = async |query: &str| {
        let page = running.get(&format!("/v1/logs?{query}")).await.ok().json();
        page["lines"].as_array().unwrap().len()
    };
    for (query, expected) in [
        (format!("call={call}"), 1),
        (format!("call={call}&function=append&worker=test&level=info&since=1h"), 1),
        ("function=count".to_owned(), 0),
        ("worker=other".to_owned(), 0),
        ("level=warn".to_owned(), 0),
        ("level=trace".to_owned(), 2),
        ("last=1".to_owned(), 1),
    ] {
        assert_eq!(count(&query).await, expected, "{query}");
    }
    let first = running.get("/v1/logs?last=1&from=0").await.ok().json();
    assert_eq!(first["lines"], json!([all["lines"][0]]));
    let rest = running.get(&format!("/v1/logs?from={}", first["next"])).await.ok().json();
    assert_eq!((&rest["lines"], &rest["next"]), (&json!([all["lines"][1]]), &all["next"]));
    let of_call = running.get(&format!("/v1/calls/{call}/logs")).await.ok().json();
    assert_eq!(of_call["lines"], json!([all["lines"][0]]));
}

#[tokio::test]
async fn a_stream_brings_what_comes_and_resumes() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let before = log_one(&running).await;
    let mut stream = events(&running, "?function=append", &[]).await;
    let of = |data: &Value| data["call"].as_str().unwrap().to_owned();
    let (_, line) = stream.record().await;
    assert_eq!(of(&line), before);
    let call = log_one(&running).await;
    let (id, line) = stream.record().await;
    assert_eq!(of(&line), call);
    drop(stream);

    let missed = log_one(&running).await;
    let mut stream = events(&running, "?function=append", &[("last-event-id", &id.to_string())]).await;
    assert_eq!(of(&stream.record().await.1), missed);
    // One that wants nothing of the past.
    let mut stream = events(&running, "?last=0", &[]).await;
    let call = log_one(&running).await;
    assert_eq!(of(&stream.record().await.1), call);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let running = start().await;
    for query in ["level=loud", "call=7", "since=10", "last=10001", "last=x", "from=-1", "wroker=w"] {
        running.get(&format!("/v1/logs?{query}")).await.is_problem(400, "BK0504");
    }
    let headers = [("accept", "text/event-stream"), ("last-event-id", "x")];
    running.send("GET", "/v1/logs", &headers, "").await.is_problem(400, "BK0505");
}
