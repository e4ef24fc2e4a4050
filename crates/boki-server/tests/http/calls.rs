//! Calling functions, with a worker over the native protocol on the same port.

use std::sync::Arc;

use boki_sdk::prelude::*;
use boki_sdk::{Bytes, Failure, Output, Worker};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::client::{Running, in_time, start, start_with};

/// A worker in this process. It ends when it is dropped.
pub(crate) struct Workers {
    /// A call of `slow` returns for each permit.
    slow: Arc<Semaphore>,
    _stop: DropGuard,
}

pub(crate) async fn with_worker(running: &Running) -> Workers {
    let slow = Arc::new(Semaphore::new(0));
    let stop = CancellationToken::new();
    let permits = Arc::clone(&slow);
    let worker = Worker::new()
        .name("test")
        .server(running.address().to_string())
        .stop_when(stop.clone())
        .raw("echo", |_, input| async move {
            let content_type = input.content_type().to_owned();
            Ok::<_, Failure>(Output::bytes(input.into_bytes()).content_type(content_type))
        })
        .function("fail", |_, message: String| async move { Err::<(), _>(Failure::new(message).code("declined")) })
        .function("append", |cx: Cx, value: Value| async move {
            let payload = Bytes::from(value.to_string());
            let seq = cx.book().append(payload).tags(["from function"]).await?;
            cx.log(boki_sdk::Level::Info, "appended");
            Ok::<_, Failure>(seq.0)
        })
        .function("count", |cx: Cx, (): ()| async move {
            let records = cx.book().read_next(0).tag("from function").limit(100).await?;
            Ok::<_, Failure>(records.len())
        })
        .function("slow", move |_, value: Value| {
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await?.forget();
                Ok::<_, Failure>(value)
            }
        });
    tokio::spawn(worker.serve());
    in_time(async {
        while running.server.functions().list().iter().all(|function| function.workers == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    Workers { slow, _stop: stop.drop_guard() }
}

#[tokio::test]
async fn bytes_in_bytes_out() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let answer =
        running.send("POST", "/call/echo", &[("content-type", "image/x-any; q=1")], &b"\x00\xff"[..]).await.ok();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\x00\xff"[..]));
    assert_eq!(answer.header("content-type"), "image/x-any; q=1");
    assert_eq!(answer.header("boki-call").len(), 32);
    assert!(answer.headers.contains_key("boki-position"));
    // JSON, if the caller does not say or is curl.
    for headers in [&[][..], &[("content-type", "application/x-www-form-urlencoded")][..]] {
        let answer = running.send("POST", "/call/echo", headers, "{}").await.ok();
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let mut connection = running.connect().await;
    for n in 0..50 {
        let request = crate::client::request("POST", "/call/echo", &[], n.to_string());
        let answer = crate::client::answer(connection.send_request(request).await.unwrap()).await;
        assert_eq!(answer.ok().text(), n.to_string());
    }
}

#[tokio::test]
async fn a_function_that_fails_is_a_problem_with_its_words() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let problem = running.post("/call/fail", json!("card declined")).await.is_problem(500, "BK0402");
    assert_eq!(problem["message"], "card declined");
    assert_eq!(problem["function_code"], "declined");
    assert_eq!((&problem["function"], &problem["attempts"]), (&json!("fail"), &json!(1)));
}

#[tokio::test]
async fn a_function_that_nobody_offers() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    assert_eq!(running.post("/call/nope", json!(1)).await.is_problem(404, "BK0401")["function"], "nope");
    let answer = running.send("POST", "/call/echo", &[("boki-book", "nope")], "").await;
    answer.is_problem(404, "BK0110");
}

#[tokio::test]
async fn the_position_comes_back_with_the_result() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    running.post("/v1/books", json!({"name": "shop"})).await.ok();
    let headers = [("boki-book", "shop")];
    let answer = running.send("POST", "/call/append", &headers, r#"{"n":1}"#).await.ok();
    let seq = answer.json().as_u64().unwrap();
    assert!(answer.position() > seq);
    // The caller reads what the function wrote, and so does the next function.
    let records = running.get("/v1/books/shop/records").await.ok().json();
    assert_eq!(records["records"][0]["seq"], seq);
    let position = answer.position().to_string();
    let headers = [("boki-book", "shop"), ("boki-position", position.as_str())];
    assert_eq!(running.send("POST", "/call/count", &headers, "null").await.ok().json(), 1);
}

#[tokio::test]
async fn calls_with_the_same_key_are_one_call() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let call = |body: &'static str| running.send("POST", "/call/append", &[("idempotency-key", "order-1")], body);
    let first = call("1").await.ok();
    let again = call("1").await.ok();
    assert_eq!(first.body, again.body);
    assert_eq!(first.header("boki-call"), again.header("boki-call"));
    call("2").await.is_problem(422, "BK0407");
    let logs = running.get(&format!("/v1/calls/{}/logs", first.header("boki-call"))).await.ok().json();
    assert_eq!((&logs["lines"][0]["line"], &logs["lines"][0]["level"]), (&json!("appended"), &json!("info")));
    assert_eq!(logs["lines"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_sent_gives_its_result_later() {
    let running = start().await;
    let worker = with_worker(&running).await;
    running.post("/v1/books", json!({"name": "shop"})).await.ok();
    let sent = running.send("POST", "/send/slow", &[("boki-book", "shop")], r#"{"n":1}"#).await.ok();
    assert_eq!(sent.status, 202);
    let id = sent.json()["call"].as_str().unwrap().to_owned();
    assert_eq!(sent.header("location"), format!("/v1/calls/{id}?book=shop"));
    let status = running.get(sent.header("location")).await.ok().json();
    assert_eq!((&status["state"], &status["function"]), (&json!("pending"), &json!("slow")));
    let pending = running.get(&format!("/v1/calls/{id}/result?book=shop")).await;
    assert_eq!((pending.status, &pending.json()["state"]), (202, &json!("pending")));

    worker.slow.add_permits(1);
    let result = running.get(&format!("/v1/calls/{id}/result?book=shop&wait=30s")).await.ok();
    assert_eq!((result.status, result.json()), (200, json!({"n": 1})));
    assert_eq!(running.get(sent.header("location")).await.ok().json()["state"], "succeeded");
    // It is on record in its own book only.
    running.get(&format!("/v1/calls/{id}/result")).await.is_problem(404, "BK0409");
}

#[tokio::test]
async fn what_is_large_is_kept_beside_the_log() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let input: String = (0..100_000).map(|number| format!("{number} ")).collect();
    let sent = running.send("POST", "/send/echo", &[("content-type", "text/plain")], input.clone()).await;
    assert_eq!(sent.status, 202);
    let id = sent.json()["call"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        let answer = running.get(&format!("/v1/calls/{id}/result?wait=30s")).await.ok();
        assert_eq!((answer.header("content-type"), answer.body.len()), ("text/plain", input.len()));
        assert!(answer.body == input);
    }
    // With a key: the same result for everybody, and another input is another call.
    let keyed = [("content-type", "text/plain"), ("idempotency-key", "k")];
    for _ in 0..2 {
        let answer = running.send("POST", "/call/echo", &keyed, input.clone()).await.ok();
        assert!(answer.body == input);
    }
    running.send("POST", "/call/echo", &keyed, input.replace('7', "8")).await.is_problem(422, "BK0407");
}

#[tokio::test]
async fn a_call_can_be_cancelled() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let id = running.send("POST", "/send/slow", &[], "1").await.ok().json()["call"].as_str().unwrap().to_owned();
    let cancelled = running.send("POST", &format!("/v1/calls/{id}/cancel"), &[], "").await;
    assert_eq!(cancelled.status, 204);
    running.get(&format!("/v1/calls/{id}/result?wait=30s")).await.is_problem(409, "BK0406");
    let status = running.get(&format!("/v1/calls/{id}")).await.ok().json();
    assert_eq!((&status["state"], &status["problem"]["code"]), (&json!("failed"), &json!("BK0406")));
    // One that is over gives its result.
    let sent = running.send("POST", "/send/echo", &[], "2").await.ok().json();
    let id = sent["call"].as_str().unwrap();
    running.get(&format!("/v1/calls/{id}/result?wait=30s")).await.ok();
    assert_eq!(running.send("POST", &format!("/v1/calls/{id}/cancel"), &[], "").await.ok().text(), "2");
}

#[tokio::test]
async fn a_call_without_a_result_in_time() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let problem = running.send("POST", "/call/slow", &[("boki-timeout", "20ms")], "1").await.is_problem(504, "BK0404");
    assert_eq!(problem["function"], "slow");
    assert_eq!(problem["retry"], "with_same_id");
}

#[tokio::test]
async fn inputs_have_a_limit() {
    let running = start_with(|config| config.limits.record = boki_server::config::Size(100)).await;
    let _worker = with_worker(&running).await;
    running.send("POST", "/call/echo", &[], vec![b'x'; 101]).await.is_problem(413, "BK0408");
    running.send("POST", "/call/echo", &[("idempotency-key", "")], "1").await.is_problem(400, "BK0411");
}

#[tokio::test]
async fn functions_are_listed() {
    let running = start().await;
    let _worker = with_worker(&running).await;
    let body = running.get("/v1/functions").await.ok().json();
    let names: Vec<_> = body["functions"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["append", "count", "echo", "fail", "slow"]);
    assert_eq!((&body["functions"][0]["workers"], &body["functions"][0]["timeout_ms"]), (&json!(1), &json!(60_000)));
    assert!(running.get("/").await.ok().text().contains("<td>echo</td>"));
    let status = running.get("/v1/status").await.ok().json();
    assert_eq!(status["functions"]["workers"], 1);
}

#[tokio::test]
async fn a_call_nobody_knows() {
    let running = start().await;
    let id = "0123456789abcdef0123456789abcdef";
    assert_eq!(running.get(&format!("/v1/calls/{id}")).await.is_problem(404, "BK0409")["call"], id);
    running.get(&format!("/v1/calls/{id}/result?wait=1ms")).await.is_problem(404, "BK0409");
    running.send("POST", &format!("/v1/calls/{id}/cancel"), &[], "").await.is_problem(404, "BK0409");
    assert_eq!(running.get(&format!("/v1/calls/{id}/logs")).await.ok().json()["lines"], json!([]));
}

#[tokio::test]
async fn a_call_that_runs_may_end_while_the_server_stops() {
    let running = start().await;
    let worker = with_worker(&running).await;
    let address = running.address();
    let mut connection = running.connect().await;
    let request = crate::client::request("POST", "/call/slow", &[], "7");
    let answer =
        tokio::spawn(async move { crate::client::answer(connection.send_request(request).await.unwrap()).await });
    in_time(async {
        while running.server.functions().status().running == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Running { server, dir } = running;
    let release = async {
        // The server has begun to stop once it takes no more connections.
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        worker.slow.add_permits(1);
    };
    in_time(async { tokio::join!(server.shutdown(), release) }).await;
    assert_eq!(in_time(answer).await.unwrap().ok().text(), "7");
    drop(dir);
}
