//! Bodies that pass through piece by piece, between a client's socket and a function in a worker.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use boki_sdk::http::{Event, Request as HttpRequest, Response as HttpResponse, events};
use boki_sdk::prelude::*;
use boki_sdk::{Bytes, stream};
use boki_server::config::{Config, Size};
use boki_wire::worker::STREAM_WINDOW;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::client::{Running, answer, in_time, start_with};

const PIECE: usize = 64 << 10;

fn mounted(config: &mut Config) {
    for function in ["echo", "endless", "ticks", "swallow", "whole"] {
        let mount = format!("path = \"/{function}\"\nfunction = \"{function}\"");
        config.mount.push(toml::from_str(&mount).unwrap());
    }
}

/// The body of a request whose pieces a test gives one by one. Dropping the sender ends it; dropping the connection cuts it.
struct Upload(mpsc::Receiver<Bytes>);

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A connection that goes away at once when its task is aborted.
struct Client {
    sender: SendRequest<Upload>,
    task: JoinHandle<()>,
}

impl Client {
    async fn connect(running: &Running) -> Client {
        Client::over(TcpStream::connect(running.address()).await.unwrap()).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Client {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let task = tokio::spawn(async move {
            // Tests cut connections off.
            let _ = connection.await;
        });
        Client { sender, task }
    }

    /// Sends a request whose body comes from the channel.
    async fn send(
        &mut self,
        method: &str,
        path: &str,
    ) -> (mpsc::Sender<Bytes>, impl Future<Output = Response<Incoming>> + use<>) {
        let (pieces, receiver) = mpsc::channel(1);
        let request = Request::builder().method(method).uri(path).header("host", "boki.test");
        self.sender.ready().await.unwrap();
        let response = self.sender.send_request(request.body(Upload(receiver)).unwrap());
        (pieces, async move { in_time(response).await.unwrap() })
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        let (pieces, response) = self.send("GET", path).await;
        drop(pieces);
        response.await
    }
}

/// Tells when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

/// What a test sees of the functions.
#[derive(Clone)]
struct Seen {
    /// Bytes that `endless` has made.
    made: Arc<AtomicUsize>,
    /// One permit for each event of `ticks`.
    ticks: Arc<Semaphore>,
    /// Told when a call of `endless` or `swallow` begins; the receiver, when it is dropped.
    calls: mpsc::UnboundedSender<oneshot::Receiver<()>>,
}

impl Seen {
    fn call(&self) -> Dropped {
        let (sender, receiver) = oneshot::channel();
        self.calls.send(receiver).unwrap();
        Dropped(Some(sender))
    }
}

fn worker(running: &Running) -> (Worker, Seen, mpsc::UnboundedReceiver<oneshot::Receiver<()>>) {
    let (calls, begun) = mpsc::unbounded_channel();
    let seen = Seen { made: Arc::default(), ticks: Arc::new(Semaphore::new(0)), calls };
    let (of_endless, of_ticks, of_swallow) = (seen.clone(), seen.clone(), seen.clone());
    let worker = Worker::new()
        .name("streams")
        .server(running.address().to_string())
        .http("echo", async |_, request: HttpRequest| {
            let content_type = request.content_type().to_owned();
            let echo = OutputStream::new(request.into_body()).content_type(content_type);
            Ok(HttpResponse::stream(echo).status(203))
        })
        .http("endless", move |_, _| {
            let seen = of_endless.clone();
            async move {
                let call = seen.call();
                let output = stream(async move |out| {
                    let _call = call;
                    loop {
                        seen.made.fetch_add(PIECE, Ordering::SeqCst);
                        out.write(vec![7; PIECE]).await;
                    }
                });
                Ok(HttpResponse::stream(output))
            }
        })
        .http("ticks", move |_, _| {
            let ticks = Arc::clone(&of_ticks.ticks);
            async move {
                Ok(HttpResponse::sse(events(async move |out| {
                    for number in 1..=3 {
                        ticks.acquire().await?.forget();
                        out.send(Event::data(format!("tick {number}")).id(number)).await;
                    }
                    Ok(())
                })))
            }
        })
        .streams("swallow", move |_, mut input: InputStream| {
            let seen = of_swallow.clone();
            async move {
                let _call = seen.call();
                let mut len = 0;
                while let Some(piece) = input.next().await {
                    len += piece?.len();
                }
                Output::json(&len)
            }
        })
        .raw("whole", async |_, input: Input| Ok(Output::json(&input.into_bytes().len())?));
    (worker, seen, begun)
}

async fn known(running: &Running) {
    in_time(async {
        while running.server.functions().list().iter().all(|function| function.workers == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn streaming(
    change: impl FnOnce(&mut Config),
) -> (Running, Seen, mpsc::UnboundedReceiver<oneshot::Receiver<()>>) {
    let running = start_with(|config| {
        mounted(config);
        change(config);
    })
    .await;
    let (worker, seen, begun) = worker(&running);
    tokio::spawn(worker.serve());
    known(&running).await;
    (running, seen, begun)
}

/// The next piece of a body; `None`: it has ended. An error if it was cut off.
async fn piece(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    let frame = in_time(body.frame()).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_goes_through_both_ways_in_flat_memory() {
    const TOTAL: usize = 256 << 20;
    let (running, _, _) = streaming(|_| {}).await;
    let mut client = Client::connect(&running).await;
    let (pieces, response) = client.send("PUT", "/echo").await;
    let sending = tokio::spawn(async move {
        for number in 0..TOTAL / PIECE {
            pieces.send(Bytes::from(vec![number as u8; PIECE])).await.unwrap();
        }
    });
    let response = response.await;
    assert_eq!(response.status(), 203);
    let mut body = response.into_body();
    let mut at = 0;
    while let Some(bytes) = piece(&mut body).await {
        let bytes = bytes.unwrap();
        let (first, last) = ((at / PIECE) as u8, ((at + bytes.len() - 1) / PIECE) as u8);
        assert_eq!((bytes[0], bytes[bytes.len() - 1]), (first, last));
        at += bytes.len();
    }
    assert_eq!(at, TOTAL);
    sending.await.unwrap();
    let status = running.server.functions().status();
    let peak = status.stream_peak_bytes as usize;
    assert!((1..=STREAM_WINDOW as usize + PIECE).contains(&peak), "{peak}");
    assert_eq!((status.streams, status.running), (0, 0));
    // The connection is as good as before.
    assert_eq!(client.get("/v1/mounts").await.status(), 200);
}

#[tokio::test]
async fn a_slow_reader_slows_the_function() {
    let (running, seen, _begun) = streaming(|_| {}).await;
    // The system keeps much less of what goes through such a socket than of TCP.
    let socket = UnixStream::connect(running.server.socket_path().unwrap()).await.unwrap();
    let mut client = Client::over(socket).await;
    let mut body = client.get("/endless").await.into_body();
    let mut read = 0;
    while read < 64 << 20 {
        read += piece(&mut body).await.unwrap().unwrap().len();
        let made = seen.made.load(Ordering::SeqCst);
        // The window, and what the sockets and their buffers hold.
        assert!(made - read < 4 << 20, "{made} bytes made, {read} read");
    }
    let peak = running.server.functions().status().stream_peak_bytes as usize;
    assert!(peak <= STREAM_WINDOW as usize, "{peak}");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_function() {
    let (running, _, mut begun) = streaming(|_| {}).await;
    // While it downloads.
    let mut client = Client::connect(&running).await;
    let mut body = client.get("/endless").await.into_body();
    piece(&mut body).await.unwrap().unwrap();
    let dropped = in_time(begun.recv()).await.unwrap();
    client.task.abort();
    drop(body);
    in_time(dropped).await.unwrap();
    // While it uploads.
    let mut client = Client::connect(&running).await;
    let (pieces, _response) = client.send("POST", "/swallow").await;
    pieces.send(Bytes::from_static(b"some")).await.unwrap();
    let dropped = in_time(begun.recv()).await.unwrap();
    client.task.abort();
    in_time(dropped).await.unwrap();
    in_time(async {
        while running.server.functions().status().running > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_whose_worker_dies_is_cut_off() {
    let running = start_with(mounted).await;
    let (worker, _, mut begun) = worker(&running);
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    elsewhere.spawn(worker.serve());
    known(&running).await;
    let mut client = Client::connect(&running).await;
    let mut body = client.get("/endless").await.into_body();
    piece(&mut body).await.unwrap().unwrap();
    in_time(begun.recv()).await.unwrap();
    // Its sockets close as they would with the process.
    elsewhere.shutdown_background();
    let end = loop {
        match piece(&mut body).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_some_and(|end| end.is_err()), "a response that broke off looked complete");
}

#[tokio::test]
async fn an_upload_whose_worker_dies_is_told_so() {
    let running = start_with(mounted).await;
    let (worker, _, mut begun) = worker(&running);
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    elsewhere.spawn(worker.serve());
    known(&running).await;
    let mut client = Client::connect(&running).await;
    let (pieces, response) = client.send("POST", "/swallow").await;
    pieces.send(Bytes::from(vec![0; 4 * PIECE])).await.unwrap();
    in_time(begun.recv()).await.unwrap();
    // The worker has some of it: the first credit comes for what it has taken.
    for _ in 0..8 {
        pieces.send(Bytes::from(vec![0; PIECE])).await.unwrap();
    }
    elsewhere.shutdown_background();
    answer(response.await).await.is_problem(502, "BK0421");
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (running, seen, _) = streaming(|_| {}).await;
    let mut client = Client::connect(&running).await;
    let response = client.get("/ticks").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut body = response.into_body();
    for number in 1..=3 {
        // Made only now, after the one before was read.
        seen.ticks.add_permits(1);
        let event = piece(&mut body).await.unwrap().unwrap();
        assert_eq!(event, format!("data: tick {number}\nid: {number}\n\n"));
    }
    assert!(piece(&mut body).await.is_none());
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let (running, _, _begun) = streaming(|config| {
        config.limits.stream_body = Size::mib(2);
        config.limits.record = Size::mib(1);
        config.limits.http_body = Size(1000);
    })
    .await;
    let large = || vec![0; (2 << 20) + 1];
    // Known from the start, and known on the way.
    running.send("POST", "/swallow", &[], large()).await.is_problem(413, "BK0408");
    let mut client = Client::connect(&running).await;
    let (pieces, response) = client.send("POST", "/swallow").await;
    let sending = tokio::spawn(async move {
        for piece in large().chunks(PIECE) {
            // The server need not read to the end of what it refuses.
            if pieces.send(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
    });
    answer(response.await).await.is_problem(413, "BK0408");
    sending.await.unwrap();
    assert_eq!(running.send("POST", "/swallow", &[], vec![0; 2 << 20]).await.ok().text(), "2097152");
    // A function that takes no streams gets no more than a record holds.
    running.send("POST", "/whole", &[], vec![0; (1 << 20) + 1]).await.is_problem(413, "BK0408");
    assert_eq!(running.send("POST", "/call/whole", &[], vec![0; 1 << 20]).await.ok().text(), "1048576");
    let mut client = Client::connect(&running).await;
    let (pieces, response) = client.send("POST", "/call/whole").await;
    for _ in 0..3 {
        pieces.send(Bytes::from(vec![0; PIECE])).await.unwrap();
    }
    drop(pieces);
    assert_eq!(answer(response.await).await.ok().text(), (3 * PIECE).to_string());
}

#[tokio::test]
async fn a_stop_lets_streams_end_and_cuts_what_does_not() {
    let (running, seen, _begun) = streaming(|config| {
        config.server.shutdown_grace = boki_server::config::Span(std::time::Duration::from_millis(300));
    })
    .await;
    let mut client = Client::connect(&running).await;
    let mut ticks = client.get("/ticks").await.into_body();
    let mut other = Client::connect(&running).await;
    let mut endless = other.get("/endless").await.into_body();
    let stopping = tokio::spawn(running.server.shutdown());
    seen.ticks.add_permits(3);
    let mut text = String::new();
    while let Some(event) = piece(&mut ticks).await {
        text.push_str(std::str::from_utf8(&event.unwrap()).unwrap());
    }
    assert!(text.ends_with("id: 3\n\n"), "{text}");
    let end = loop {
        match piece(&mut endless).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_some_and(|end| end.is_err()));
    in_time(stopping).await.unwrap();
}
