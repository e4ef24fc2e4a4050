//! Subscriptions: server-sent events.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::client::{Running, in_time, request, start};

/// Reads a stream event by event.
pub(crate) struct Events {
    body: Incoming,
    buf: String,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    id: Option<u64>,
    name: String,
    data: String,
}

impl Events {
    async fn open(running: &Running, query: &str, headers: &[(&str, &str)]) -> Events {
        Events::of(running, &format!("/v1/books/default/records{query}"), headers).await
    }

    pub(crate) async fn of(running: &Running, path: &str, headers: &[(&str, &str)]) -> Events {
        let mut headers = headers.to_vec();
        headers.push(("accept", "text/event-stream"));
        let request = request("GET", path, &headers, "");
        let response = running.connect().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), buf: String::new() }
    }

    /// The next event, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.buf.split_once("\n\n") {
                let mut event = Event::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => event.id = Some(id.parse().unwrap()),
                        Some(("event", name)) => event.name = name.to_owned(),
                        Some(("data", data)) => event.data.push_str(data),
                        _ => {}
                    }
                }
                self.buf = rest.to_owned();
                if !event.data.is_empty() {
                    return Some(event);
                }
            }
            let frame = in_time(self.body.frame()).await?.unwrap();
            self.buf.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    pub(crate) async fn record(&mut self) -> (u64, Value) {
        let event = self.next().await.unwrap();
        (event.id.unwrap(), serde_json::from_str(&event.data).unwrap())
    }
}

#[tokio::test]
async fn a_subscription_gets_what_is_there_and_what_comes() {
    let running = start().await;
    let first = running.append(json!({"tags": ["t"], "data": 1})).await;
    running.append(json!({"tags": ["other"], "data": 0})).await;
    let mut events = Events::open(&running, "?tag=t", &[]).await;
    let (id, record) = events.record().await;
    assert_eq!((id, &record["seq"], &record["data"]), (first + 1, &json!(first), &json!(1)));
    let second = running.append(json!({"tags": ["t"], "data": 2})).await;
    assert_eq!(events.record().await.1["seq"], second);
}

#[tokio::test]
async fn a_client_that_comes_back_misses_nothing_and_sees_nothing_twice() {
    let running = start().await;
    let mut seqs = Vec::new();
    for n in 0..3 {
        seqs.push(running.append(json!({"tags": ["t"], "data": n})).await);
    }
    let mut events = Events::open(&running, "?tag=t&limit=1", &[]).await;
    events.record().await;
    let (id, _) = events.record().await;
    drop(events);
    seqs.push(running.append(json!({"tags": ["t"], "data": 3})).await);
    let id = id.to_string();
    // The id wins over where the stream began.
    let mut events = Events::open(&running, "?tag=t&from=1", &[("last-event-id", &id)]).await;
    assert_eq!(events.record().await.1["seq"], seqs[2]);
    assert_eq!(events.record().await.1["seq"], seqs[3]);
}

#[tokio::test]
async fn json_with_line_breaks_is_still_one_event() {
    let running = start().await;
    let body = "{\"data\": {\"a\":\r\n 1,\n \"b\": \"x\\ny\"}}";
    running.send("POST", "/v1/books/default/records", &[("content-type", "application/json")], body).await.ok();
    let mut events = Events::open(&running, "", &[]).await;
    assert_eq!(events.record().await.1["data"], json!({"a": 1, "b": "x\ny"}));
}

#[tokio::test]
async fn subscriptions_end_with_the_server() {
    let running = start().await;
    let mut events = Events::open(&running, "?tag=none", &[]).await;
    in_time(async {
        while running.server.node().status().waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Running { server, dir } = running;
    let ((), last) = in_time(async { tokio::join!(server.shutdown(), events.next()) }).await;
    assert_eq!(last.unwrap().name, "end");
    assert_eq!(events.next().await, None);
    drop(dir);
}

#[tokio::test]
async fn a_subscription_to_a_removed_book_says_so() {
    let running = start().await;
    running.post("/v1/books", json!({"name": "gone"})).await.ok();
    running.send("DELETE", "/v1/books/gone", &[], "").await.ok();
    let answer = running.send("GET", "/v1/books/gone/records", &[("accept", "text/event-stream")], "").await;
    answer.is_problem(404, "BK0110");
}

#[tokio::test]
async fn requests_for_a_subscription_are_checked() {
    let running = start().await;
    let open = |path, headers: Vec<(&'static str, &'static str)>| {
        let mut headers = headers;
        headers.push(("accept", "text/event-stream"));
        let running = &running;
        async move { running.send("GET", path, &headers, "").await }
    };
    open("/v1/books/default/records?dir=prev", vec![]).await.is_problem(400, "BK0504");
    open("/v1/books/default/records", vec![("last-event-id", "x")]).await.is_problem(400, "BK0505");
}
