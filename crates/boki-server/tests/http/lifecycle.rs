//! Starting, listening, stopping.

use std::collections::BTreeMap;
use std::time::Duration;

use boki_server::config::{Size, Span, WorkerSection};
use boki_server::{Server, StartError};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::client::{Running, answer, config, connection, in_time, request, start, start_with};

const RECORDS: &str = "/v1/books/default/records";

#[tokio::test]
async fn what_was_appended_is_there_after_a_restart() {
    let Running { server, dir } = {
        let running = start().await;
        running.append(json!({"tags": ["t"], "data": "kept"})).await;
        running
    };
    in_time(server.shutdown()).await;
    let server = Server::start(config(&dir)).await.unwrap();
    let running = Running { server, dir };
    assert_eq!(running.get(&format!("{RECORDS}?tag=t")).await.ok().json()["records"][0]["data"], "kept");
    assert_eq!(running.get("/v1/books").await.ok().json()["books"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_socket_speaks_the_same() {
    let running = start().await;
    let path = running.dir.path().join("data/boki.sock");
    assert_eq!(running.server.socket_path(), Some(path.as_path()));
    assert_eq!(running.server.local_url(), format!("unix:{}", path.display()));
    let mut sender = connection(UnixStream::connect(&path).await.unwrap()).await;
    let response = sender.send_request(request("GET", "/healthz", &[], "")).await.unwrap();
    assert_eq!(answer(response).await.ok().text(), "ok\n");
    let Running { server, dir } = running;
    in_time(server.shutdown()).await;
    assert!(!path.exists());
    drop(dir);
}

#[tokio::test]
async fn a_socket_that_a_crash_left_behind_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    let path = dir.path().join("x.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    config.server.socket = Some(path.clone());
    let server = Server::start(config.clone()).await.unwrap();
    // One that is in use is not.
    let mut other = config.clone();
    other.server.data = dir.path().join("other");
    let error = Server::start(other).await.unwrap_err();
    assert_eq!(error.code(), "BK0524");
    assert!(matches!(error, StartError::Socket { .. }));
    in_time(server.shutdown()).await;
    // Nor is a file that is something else.
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(Server::start(config.clone()).await.unwrap_err().code(), "BK0524");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    config.server.socket = Some("".into());
    let server = Server::start(config).await.unwrap();
    assert_eq!(server.socket_path(), None);
    assert_eq!(server.local_url(), server.local_addr().to_string());
    in_time(server.shutdown()).await;
}

#[tokio::test]
async fn starts_that_cannot_be() {
    let running = start().await;
    // The data directory is in use.
    let error = Server::start(config(&running.dir)).await.unwrap_err();
    assert_eq!(error.code(), "BK0311");
    // The port is.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut taken = config(&dir);
    taken.server.listen = listener.local_addr().unwrap();
    let error = Server::start(taken).await.unwrap_err();
    assert_eq!(error.code(), "BK0523");
    assert!(!dir.path().join("data").exists(), "nothing was made");
    // Anybody could reach it.
    let mut open = config(&dir);
    open.server.listen = "0.0.0.0:0".parse().unwrap();
    assert_eq!(Server::start(open).await.unwrap_err().code(), "BK0522");
    // The data directory is a file.
    std::fs::write(dir.path().join("data"), "x").unwrap();
    assert_eq!(Server::start(config(&dir)).await.unwrap_err().code(), "BK0312");
}

#[tokio::test]
async fn requests_that_run_may_end_and_readers_that_wait_are_told() {
    let running = start().await;
    let mut reader = running.connect().await;
    let request = request("GET", &format!("{RECORDS}?tag=never&wait=1h"), &[], "");
    let waiting = tokio::spawn(async move { answer(reader.send_request(request).await.unwrap()).await });
    in_time(async {
        while running.server.node().status().waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Half a request: its sender is not finished when the server is told to stop.
    let mut half = TcpStream::connect(running.address()).await.unwrap();
    half.write_all(b"POST /v1/books/default/records HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab").await.unwrap();
    let mut other = running.connect().await;
    in_time(async { while running.get("/v1/status").await.json()["http"]["connections"].as_u64().unwrap() < 3 {} })
        .await;
    let address = running.address();
    let Running { server, dir } = running;
    let finish = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        half.write_all(b"cd").await.unwrap();
        let mut response = String::new();
        half.read_to_string(&mut response).await.unwrap();
        response
    };
    let ((), response) = in_time(async { tokio::join!(server.shutdown(), finish) }).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    in_time(waiting).await.unwrap().is_problem(503, "BK0305");
    // An idle connection was closed.
    assert!(in_time(async { other.ready().await }).await.is_err());
    drop(dir);
}

#[tokio::test]
async fn connections_that_do_not_end_are_closed_after_the_grace() {
    let running = start_with(|config| config.server.shutdown_grace = Span(Duration::from_millis(50))).await;
    let mut stuck = TcpStream::connect(running.address()).await.unwrap();
    stuck
        .write_all(b"POST /v1/books/default/records HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nab")
        .await
        .unwrap();
    in_time(async { while running.get("/v1/status").await.json()["http"]["connections"].as_u64().unwrap() < 2 {} })
        .await;
    let Running { server, dir } = running;
    in_time(server.shutdown()).await;
    let mut rest = Vec::new();
    let _ = in_time(stuck.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    drop(dir);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let running = start_with(|config| config.limits.connections = 2).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut sender = running.connect().await;
        let response = sender.send_request(request("GET", "/healthz", &[], "")).await.unwrap();
        answer(response).await.ok();
        kept.push(sender);
    }
    let refused = running.get("/healthz").await;
    assert_eq!(refused.is_problem(503, "BK0507")["limit"], 2);
    assert_eq!(refused.header("retry-after"), "1");
    drop(kept.pop());
    in_time(async { while running.get("/healthz").await.status != 200 {} }).await;
}

#[tokio::test]
async fn what_is_not_a_request_closes_its_connection_only() {
    let running = start().await;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"BOKI\xff\xff\xff\xff\xff\xff\xff\xff", b"GET\r\n\r\n"] {
        let mut stream = TcpStream::connect(running.address()).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time(stream.read_to_end(&mut answer)).await;
    }
    running.get("/healthz").await.ok();
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let running = start_with(|config| config.limits.http_body = Size(100)).await;
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = in_time(stream.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    running.get("/healthz").await.ok();
}

async fn with_worker(command: &'static str) -> Running {
    start_with(|config| {
        config.worker.push(WorkerSection {
            name: "w".to_owned(),
            command: command.to_owned(),
            env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
            ..WorkerSection::default()
        });
    })
    .await
}

/// The first line that the worker prints.
async fn first_line(running: &Running) -> String {
    in_time(async {
        loop {
            if let Some(line) = running.server.functions().worker_logs("w").first() {
                return line.line.to_string();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn configured_workers_are_started_and_know_where_the_server_is() {
    let running = with_worker("cd / && echo \"$GREETING from $PWD to $BOKI_URL\"").await;
    assert_eq!(first_line(&running).await, format!("hello from / to {}", running.server.local_url()));
    let Running { server, dir } = running;
    in_time(server.shutdown()).await;
    drop(dir);
}

#[tokio::test]
async fn workers_have_time_to_end() {
    let running = with_worker("cd / && sh -c 'trap \"echo bye; exit\" TERM; echo up; tail -f /dev/null & wait'").await;
    assert_eq!(first_line(&running).await, "up");
    let functions = running.server.functions().clone();
    let Running { server, dir } = running;
    in_time(server.shutdown()).await;
    assert_eq!(&*functions.worker_logs("w").last().unwrap().line, "bye");
    drop(dir);
}
