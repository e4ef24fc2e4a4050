//! Workers against a real server: functions, their contexts, and what becomes of calls when workers and servers go.
#![allow(clippy::unwrap_used)]

extern crate boki_sdk as boki;

use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use boki::http::{Request, Response};
use boki::prelude::*;
use boki::{CallId, Error, Sent};
use boki_server::config::WorkerSection;
use boki_server::{Config, Server};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes long: whatever waits longer than this waits for ever.
const LONG: Duration = Duration::from_secs(30);

fn config(data: &Path, listen: SocketAddr) -> Config {
    let mut config = Config::default();
    config.server.data = data.into();
    config.server.listen = listen;
    config
}

async fn server() -> (Server, TempDir, Client) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(config(data.path(), "127.0.0.1:0".parse().unwrap())).await.unwrap();
    let client = Client::connect(&server.local_url()).await.unwrap();
    (server, data, client)
}

/// A worker that serves until it is stopped, once the server knows it.
struct Serving {
    stop: CancellationToken,
    task: JoinHandle<boki::Result<()>>,
}

async fn serve(server: &Server, worker: Worker) -> Serving {
    let stop = CancellationToken::new();
    let workers = server.functions().workers().len();
    let worker = worker.server(server.local_addr().to_string()).stop_when(stop.clone());
    let task = tokio::spawn(worker.serve());
    until(|| server.functions().workers().len() > workers).await;
    Serving { stop, task }
}

async fn until(wanted: impl Fn() -> bool) {
    timeout(LONG, async {
        while !wanted() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it never came to be so");
}

fn remote(error: Error) -> (String, serde_json::Value) {
    match error {
        Error::Remote { code, details, .. } => (code, serde_json::from_str(&details).unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

#[derive(Serialize, Deserialize)]
struct Hold {
    seat: u32,
}

/// Holds a seat.
#[boki::function(timeout = "5s", retries = 1)]
async fn hold(cx: &Cx, input: Hold) -> Result<u64> {
    let tag = format!("seat/{}", input.seat);
    Ok(cx.book().append(b"held").tags([tag.as_str()]).if_tail(tag.as_str(), 0).await?.0)
}

#[boki::function(name = "shout")]
async fn louder(input: Bytes) -> Result<Bytes> {
    Ok(input.to_ascii_uppercase().into())
}

#[boki::function]
async fn fails(cx: &Cx) -> Result<()> {
    cx.book().append(b"before failing").await?;
    Err(Failure::new("sold out").code("sold_out"))
}

#[boki::function]
async fn panics() -> Result<()> {
    panic!("on purpose: {}", 1);
}

/// Counts the bytes of its input, piece by piece.
#[boki::function]
async fn measure(mut input: InputStream) -> Result<usize> {
    let mut len = 0;
    while let Some(piece) = input.next().await {
        len += piece?.len();
    }
    Ok(len)
}

/// Writes its output while it is sent.
#[boki::function]
async fn rows(count: usize) -> Result<OutputStream> {
    let rows = boki::stream(async move |out| {
        for row in 0..count {
            out.write(format!("{row}\n")).await;
            if row == 9_999 {
                return Err(Failure::new("no more rows").code("too_many"));
            }
        }
        Ok(())
    });
    Ok(rows.content_type("text/csv"))
}

#[boki::function(http)]
async fn page(cx: &Cx, request: Request) -> Result<Response> {
    cx.book().append(b"seen").tags(["page"]).await?;
    Ok(Response::text(format!("{} {}", request.method(), cx.http().is_some())).status(404))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_pages_can_be_called_like_any_function() {
    let (server, _data, client) = server().await;
    let _worker = serve(&server, Worker::new().with(measure).with(rows).with(page)).await;
    let len: usize = client.call("measure", vec![0_u8; 300_000]).await.unwrap().json().unwrap();
    assert_eq!(len, 300_000);
    // What comes in pieces is there as a whole for one who calls.
    let output = client.call("rows", Json(3)).await.unwrap();
    assert_eq!((output.content_type.as_str(), &output.data[..]), ("text/csv", &b"0\n1\n2\n"[..]));
    let (code, details) = remote(client.call("rows", Json(10_000)).await.unwrap_err());
    assert_eq!((code.as_str(), details["message"].as_str()), ("BK0402", Some("no more rows")));
    // A status is for those who come by HTTP; what the function did, its caller has seen.
    let book = client.book("default").await.unwrap();
    let output = client.call("page", Json(1)).book(&book).await.unwrap();
    assert_eq!(output.data, "POST false");
    assert_eq!(book.read_next(0).tag("page").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_take_json_and_bytes_and_are_listed() {
    let (server, _data, client) = server().await;
    let closure = |cx: Cx, number: u64| async move { Ok((cx.attempt(), number * 2)) };
    let raw = |cx: Cx, input: Input| async move {
        let content_type = input.content_type().to_owned();
        let text = format!("{} {content_type} {}", cx.function(), input.into_bytes().len());
        Ok(Output::bytes(text.into()).content_type("text/plain"))
    };
    let worker = Worker::new().with(hold).with(louder).function("double", closure).raw("raw", raw);
    let _worker = serve(&server, worker).await;

    let seq: u64 = client.call("hold", Json(Hold { seat: 4 })).await.unwrap().json().unwrap();
    assert!(seq > 0);
    let (code, _) = remote(client.call("hold", Json(Hold { seat: 4 })).await.unwrap_err());
    assert_eq!(code, "BK0402");
    assert_eq!(client.call("shout", b"quiet").await.unwrap().data, "QUIET");
    assert_eq!(client.call("double", Json(21)).await.unwrap().json::<(u32, u64)>().unwrap(), (1, 42));
    let output = client.call("raw", b"123").content_type("image/png").await.unwrap();
    assert_eq!((&output.data[..], &*output.content_type), (&b"raw image/png 3"[..], "text/plain"));
    let (code, details) = remote(client.call("hold", b"not json").await.unwrap_err());
    assert_eq!((&*code, &details["error"]), ("BK0402", &"invalid_input".into()));

    let functions = client.functions().await.unwrap();
    let names: Vec<_> = functions.iter().map(|function| &*function.name).collect();
    assert_eq!(names, ["double", "hold", "raw", "shout"]);
    let hold = &functions[1];
    assert_eq!((&*hold.description, hold.max_attempts, hold.timeout), ("Holds a seat.", 2, Duration::from_secs(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_sees_what_its_children_appended_and_they_what_it_did() {
    let (server, _data, client) = server().await;
    async fn seen(book: &Book, text: &[u8]) -> boki::Result<bool> {
        let records = book.read_next(1).limit(100).await?;
        Ok(records.iter().any(|record| record.data() == text))
    }
    let grandchild = |cx: Cx, (): ()| async move {
        let sees = (seen(cx.book(), b"parent").await?, seen(cx.book(), b"child").await?);
        cx.book().append(b"grandchild").await?;
        Ok(sees)
    };
    let child = |cx: Cx, (): ()| async move {
        let parent = seen(cx.book(), b"parent").await?;
        cx.book().append(b"child").await?;
        let sees: (bool, bool) = cx.call("grandchild", &()).await?;
        Ok((parent, sees, seen(cx.book(), b"grandchild").await?))
    };
    type ChildSees = (bool, (bool, bool), bool);
    let parent = |cx: Cx, (): ()| async move {
        let seq = cx.book().append(b"parent").await?;
        let before = cx.book().position();
        assert!(before.0 > seq);
        let sees: ChildSees = cx.call("child", &()).await?;
        // Two records came after its own, and the call has carried them back.
        assert!(cx.book().position().0.0 >= before.0.0 + 2);
        let own = seen(cx.book(), b"child").await? && seen(cx.book(), b"grandchild").await?;
        Ok((sees, own))
    };
    let worker = Worker::new().function("parent", parent).function("child", child).function("grandchild", grandchild);
    let _worker = serve(&server, worker).await;
    let book = client.create_book("trip").await.unwrap();
    let output = client.call("parent", Json(())).book(&book).await.unwrap();
    let all: (ChildSees, bool) = output.json().unwrap();
    assert_eq!(all, ((true, (true, true), true), true));
    // And so has the client.
    assert!(book.position() >= output.position);
    assert!(seen(&book, b"grandchild").await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_carries_its_code_and_what_was_seen() {
    let (server, _data, client) = server().await;
    let caught = |cx: Cx, (): ()| async move {
        let before = cx.book().position();
        let failure = cx.call::<()>("fails", &()).await.unwrap_err();
        Ok((remote(failure).0, cx.book().position() > before))
    };
    let _worker = serve(&server, Worker::new().with(fails).with(panics).function("caught", caught)).await;
    let (code, details) = remote(client.call("fails", b"").await.unwrap_err());
    assert_eq!(code, "BK0402");
    assert_eq!((&details["error"], &details["message"]), (&"sold_out".into(), &"sold out".into()));
    let caught: (String, bool) = client.call("caught", b"").await.unwrap().json().unwrap();
    assert_eq!(caught, ("BK0402".into(), true));
    let (_, details) = remote(client.call("panics", b"").await.unwrap_err());
    assert_eq!(details["error"], "panic");
    assert_eq!(details["message"], "the function panicked: on purpose: 1");
    assert_eq!(server.functions().workers()[0].running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_drops_its_function() {
    let (server, _data, client) = server().await;
    struct Dropped(mpsc::UnboundedSender<&'static str>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send("dropped");
        }
    }
    let (events, mut told) = mpsc::unbounded_channel();
    let hang = move |_: Cx, (): ()| {
        let events = events.clone();
        async move {
            let _ = events.send("runs");
            let _dropped = Dropped(events);
            pending::<Result<()>>().await
        }
    };
    let _worker = serve(&server, Worker::new().concurrency(1).function("hang", hang)).await;
    let call = client.call("hang", b"");
    let call = tokio::spawn(async move { call.await });
    assert_eq!(told.recv().await, Some("runs"));
    call.abort();
    assert_eq!(timeout(LONG, told.recv()).await.unwrap(), Some("dropped"));
    // The only slot is free again, and a deadline does the same.
    let late = client.call("hang", b"").deadline(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(late.code(), "BK0404");
    assert_eq!(timeout(LONG, told.recv()).await.unwrap(), Some("runs"));
    assert_eq!(timeout(LONG, told.recv()).await.unwrap(), Some("dropped"));
    until(|| server.functions().workers()[0].running == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_sent_outlives_its_caller_and_its_lines_are_found() {
    let (server, _data, client) = server().await;
    let (go, gone) = tokio::sync::watch::channel(false);
    let child = move |cx: Cx, word: String| {
        let mut gone = gone.clone();
        async move {
            boki::info!(cx, "waits for {word}");
            gone.wait_for(|go| *go).await?;
            boki::warn!(cx, "went on\nat last");
            Ok(format!("{word} done"))
        }
    };
    let parent = |cx: Cx, (): ()| async move {
        let Sent { id, .. } = cx.send("child", &"word").key(format!("{}/child", cx.call_id())).await?;
        Ok(id.to_string())
    };
    let _worker = serve(&server, Worker::new().function("parent", parent).function("child", child)).await;
    let id: String = client.call("parent", b"").await.unwrap().json().unwrap();
    let id: CallId = id.parse().unwrap();
    assert_eq!(client.default_call_result(id, None).await.unwrap(), None);
    go.send_replace(true);
    let output = client.default_call_result(id, Some(LONG)).await.unwrap().unwrap();
    assert_eq!(output.json::<String>().unwrap(), "word done");
    let lines: Vec<_> =
        server.functions().logs(id).iter().map(|line| (line.level.as_str(), line.line.to_string())).collect();
    let expected = [("info", "waits for word"), ("warn", "went on"), ("warn", "at last")];
    assert_eq!(lines, expected.map(|(level, line)| (level, line.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_finishes_its_calls_and_loses_none() {
    let (server, _data, client) = server().await;
    let (go, gone) = tokio::sync::watch::channel(false);
    let slow = move |_: Cx, (): ()| {
        let mut gone = gone.clone();
        async move {
            gone.wait_for(|go| *go).await?;
            Ok("finished")
        }
    };
    let old = serve(&server, Worker::new().function("slow", slow.clone())).await;
    let call = client.call("slow", b"");
    let first = tokio::spawn(async move { call.await });
    until(|| server.functions().status().running == 1).await;
    old.stop.cancel();
    until(|| server.functions().workers()[0].draining).await;
    let call = client.call("slow", b"");
    let second = tokio::spawn(async move { call.await });
    let new = serve(&server, Worker::new().function("slow", slow)).await;
    go.send_replace(true);
    timeout(LONG, old.task).await.unwrap().unwrap().unwrap();
    for call in [first, second] {
        let output = call.await.unwrap().unwrap();
        assert_eq!((output.json::<String>().unwrap().as_str(), output.attempts), ("finished", 1));
    }
    new.stop.cancel();
    timeout(LONG, new.task).await.unwrap().unwrap().unwrap();
    until(|| server.functions().workers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_comes_back_to_a_server_that_comes_back_and_so_does_the_call() {
    let (server, data, client) = server().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let (go, gone) = tokio::sync::watch::channel(false);
    let slow = move |cx: Cx, (): ()| {
        let (started, mut gone) = (started.clone(), gone.clone());
        async move {
            let _ = started.send(cx.call_id());
            gone.wait_for(|go| *go).await?;
            Ok("finished")
        }
    };
    let worker = serve(&server, Worker::new().function("slow", slow)).await;
    let id = client.call("slow", b"").key("k").detach().await.unwrap().id;
    assert_eq!(starts.recv().await, Some(id));
    let address = server.local_addr();
    let mut config = config(data.path(), address);
    config.server.shutdown_grace = boki_server::config::Span(Duration::ZERO);
    drop(client);
    // The grace of the first server is not what is tested: its calls are given up as it dies.
    server.functions().shutdown(Duration::ZERO).await;
    server.shutdown().await;
    let server = Server::start(config).await.unwrap();
    assert_eq!(timeout(LONG, starts.recv()).await.unwrap(), Some(id));
    go.send_replace(true);
    let client = Client::connect(&address.to_string()).await.unwrap();
    let output = client.default_call_result(id, Some(LONG)).await.unwrap().unwrap();
    assert_eq!(output.json::<String>().unwrap(), "finished");
    worker.stop.cancel();
    timeout(LONG, worker.task).await.unwrap().unwrap().unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_two_functions_of_one_name_or_none_does_not_start() {
    let (server, _data, _client) = server().await;
    let twice = Worker::new().with(fails).with(fails).serve().await.unwrap_err();
    assert_eq!(twice.code(), "BK0619");
    let none = Worker::new().server(server.local_addr().to_string()).serve().await.unwrap_err();
    assert_eq!(none.code(), "BK0412");
}

/// Not a test: the process that the next test has the server start.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a worker process, for the test below"]
async fn worker_process() {
    let crash = |cx: Cx, (): ()| async move {
        if cx.attempt() == 1 {
            std::process::abort();
        }
        Ok(std::process::id())
    };
    let pid = |_: Cx, (): ()| async move { Ok(std::process::id()) };
    let worker = Worker::new().function("crash", crash).function("pid", pid);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    tokio::spawn(async move {
        terminate.recv().await;
        stopped.cancel();
    });
    worker.stop_when(stop).serve().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_crashes_costs_its_call_an_attempt_and_is_replaced_on_request() {
    let data = tempfile::tempdir().unwrap();
    let mut config = config(data.path(), "127.0.0.1:0".parse().unwrap());
    let program = std::env::current_exe().unwrap();
    config.worker.push(WorkerSection {
        name: "crasher".into(),
        command: format!("'{}' --exact worker_process --ignored --nocapture", program.display()),
        ..WorkerSection::default()
    });
    let server = Arc::new(Server::start(config).await.unwrap());
    let client = Client::connect(&server.local_url()).await.unwrap();
    let first: u32 = client.call("pid", b"").await.unwrap().json().unwrap();
    let output = client.call("crash", b"").await.unwrap();
    let second: u32 = output.json().unwrap();
    assert_eq!(output.attempts, 2);
    assert_ne!(first, second);
    assert_eq!(server.functions().status().restarts, 1);
    let pool = server.functions().pools()[0].id;
    assert!(server.functions().restart_pool(pool));
    // The old one finishes and goes; no call is lost meanwhile.
    timeout(LONG, async {
        loop {
            let pid: u32 = client.call("pid", b"").await.unwrap().json().unwrap();
            if pid != second {
                break;
            }
        }
    })
    .await
    .unwrap();
    until(|| server.functions().workers().len() == 1).await;
    drop(client);
    let Ok(server) = Arc::try_unwrap(server) else { panic!("the server is shared") };
    server.shutdown().await;
}
