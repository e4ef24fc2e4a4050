//! Accepting connections, and the life of each: which protocol it speaks, who serves it, how it ends.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::door::{Admission, Door, Pass};
use crate::http::Gateway;
use crate::native::{self, NativeShared};
use crate::self_wakes::SelfWakes;
use crate::sniff::{Peeked, Protocol, sniff};

/// How long accepting pauses when the system has no room for another connection; doubles up to the maximum.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Where connections come from.
pub(crate) trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // A connection that does not take the settings works all the same, or fails by itself.
        let _ = boki_net::tune_tcp(&stream);
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// What every connection needs.
pub(crate) struct Connections {
    pub(crate) gateway: Gateway,
    pub(crate) native: Arc<NativeShared>,
    pub(crate) door: Arc<Door>,
    /// No new connections and requests; what is being answered goes on.
    pub(crate) stopping: CancellationToken,
    /// Native connections end: after those of HTTP, since workers answer calls over them.
    pub(crate) native_stopping: CancellationToken,
    /// Everything ends now.
    pub(crate) killed: CancellationToken,
    /// The tasks of HTTP connections, and those of the listeners.
    pub(crate) http_tasks: TaskTracker,
    /// The tasks of native connections.
    pub(crate) native_tasks: TaskTracker,
}

impl Connections {
    /// Accepts until the server stops. A system that is out of file descriptors makes it slower, never ends it.
    pub(crate) async fn accept<L: Listener>(self: Arc<Connections>, listener: L) {
        let mut pause = PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return,
                accepted = listener.next() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    pause = PAUSE;
                    match self.door.admit() {
                        Admission::Served(pass) => self.spawn(stream, pass, true),
                        Admission::Told(pass) => self.spawn(stream, pass, false),
                        Admission::Closed => drop(stream),
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?pause, "cannot accept connections for the moment");
                    tokio::select! {
                        () = self.stopping.cancelled() => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                    }
                }
            }
        }
    }

    fn spawn<S>(self: &Arc<Connections>, stream: S, pass: Pass, is_served: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connections = Arc::clone(self);
        self.http_tasks.spawn(async move {
            let sniffed = tokio::select! {
                biased;
                () = connections.stopping.cancelled() => return,
                sniffed = sniff(stream) => sniffed,
            };
            match sniffed {
                Ok((Protocol::Http, stream)) => connections.http(stream, is_served).await,
                Ok((Protocol::Native, stream)) if is_served => {
                    // A task of its own, which is waited for at another time than HTTP's.
                    let serving = Arc::clone(&connections);
                    connections.native_tasks.spawn(async move {
                        serving.native(stream).await;
                        drop(pass);
                    });
                }
                // One too many, or nothing was said: there is nobody to tell.
                Ok((Protocol::Native, _)) | Err(_) => {}
            }
        });
    }

    async fn native<S>(&self, stream: Peeked<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let serving = native::serve(stream, Arc::clone(&self.native), self.native_stopping.clone());
        tokio::select! {
            () = serving => {}
            () = self.killed.cancelled() => {}
        }
    }

    async fn http<S>(&self, stream: Peeked<S>, is_served: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let answer = |request: Request<Incoming>| async move {
            Ok::<_, std::convert::Infallible>(if is_served {
                self.gateway.answer(request).await
            } else {
                self.gateway.refuse()
            })
        };
        let mut serving = pin!(
            // Head and body in one buffer: one write for a small answer. Not `pipeline_flush`, which has the same effect: it
            // takes pieces of a body without end while the client reads none.
            http1::Builder::new()
                .writev(false)
                .keep_alive(is_served)
                .serve_connection(TokioIo::new(stream), service_fn(answer))
        );
        let self_wakes = SelfWakes::new();
        let ended = tokio::select! {
            biased;
            ended = poll_fn(|cx| self_wakes.poll(cx, |cx| serving.as_mut().poll(cx))) => ended,
            () = self.stopping.cancelled() => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving.as_mut() => ended,
                    () = self.killed.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection ended early");
        }
    }
}

/// Whether an error of `accept` concerns only the connection that was to come.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
