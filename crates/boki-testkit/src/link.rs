//! The worker's way to the server, with a place in it where the connection can be cut.
//!
//! The worker connects here, and every frame is passed on, both ways. Here it is seen which operation a function asks for,
//! and an answer can be kept from the worker after the server has done what it says.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use boki_net::{Close, Config, Connection, Frame, FrameSink, Outbox};
use boki_wire::worker;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::crash::Crashes;

/// More than a test lets wait to be written.
const OUTBOX_BYTES: usize = 512 << 20;

/// What the connections of one worker share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) crashes: Arc<Crashes>,
    /// Cuts the connection that there is.
    pub(crate) cut: Notify,
    /// The connection was cut where a test wanted it.
    pub(crate) crashed: Notify,
}

impl Link {
    pub(crate) fn new(crashes: Arc<Crashes>) -> Arc<Link> {
        Arc::new(Link { crashes, cut: Notify::new(), crashed: Notify::new() })
    }

    /// Passes connections on, one after the other, for ever.
    pub(crate) async fn serve(self: Arc<Link>, listener: TcpListener, server: SocketAddr) -> Infallible {
        loop {
            // A connection that fails is one that is lost: the worker opens another.
            if let Ok((stream, _)) = listener.accept().await {
                let _ = self.pass_on(stream, server).await;
            }
        }
    }

    async fn pass_on(&self, worker: TcpStream, server: SocketAddr) -> io::Result<()> {
        let server = TcpStream::connect(server).await?;
        for stream in [&worker, &server] {
            boki_net::tune_tcp(stream)?;
        }
        self.crashes.connected();
        let (to_worker, to_server) = (Outbox::new(OUTBOX_BYTES), Outbox::new(OUTBOX_BYTES));
        let mut worker = Connection::accepted(worker, to_worker.clone(), Config::accepting());
        let mut server = Connection::opened(server, to_server.clone(), Config::opening());
        // A cut that was wanted of an earlier connection is none of this one.
        let mut cut = pin!(self.cut.notified());
        cut.as_mut().enable();
        let doomed = parking_lot::Mutex::new(None);
        let mut from_worker = FromWorker { link: self, to: &to_server, doomed: &doomed };
        let mut from_server = FromServer { link: self, to: &to_worker, doomed: &doomed };
        let crashed = tokio::select! {
            ended = worker.run(&mut from_worker) => matches!(ended, Err(boki_net::Broken::Refused(Crash))),
            ended = server.run(&mut from_server) => matches!(ended, Err(boki_net::Broken::Refused(Crash))),
            () = cut => true,
        };
        if crashed {
            self.crashed.notify_one();
        } else {
            // What one side has said last still reaches the other.
            for outbox in [&to_worker, &to_server] {
                outbox.close(Close::AfterWriting);
            }
            let (mut worker_says, mut server_says) = (ignore, ignore);
            let _ = tokio::join!(worker.run(&mut worker_says), server.run(&mut server_says));
        }
        Ok(())
    }
}

fn ignore(_: Frame) -> Result<(), Crash> {
    Ok(())
}

/// The worker does not survive this.
struct Crash;

struct FromWorker<'a> {
    link: &'a Link,
    to: &'a Outbox,
    doomed: &'a parking_lot::Mutex<Option<u64>>,
}

impl FrameSink for FromWorker<'_> {
    type Error = Crash;

    fn frame(&mut self, frame: Frame) -> Result<(), Crash> {
        if frame.kind == worker::INVOKE_DONE && self.link.crashes.returns() {
            return Err(Crash);
        }
        if self.link.crashes.asks(&frame) {
            *self.doomed.lock() = Some(frame.corr);
        }
        self.to.push_frame(&frame);
        Ok(())
    }

    fn batch_end(&mut self) {
        self.to.flush();
    }
}

struct FromServer<'a> {
    link: &'a Link,
    to: &'a Outbox,
    doomed: &'a parking_lot::Mutex<Option<u64>>,
}

impl FrameSink for FromServer<'_> {
    type Error = Crash;

    fn frame(&mut self, frame: Frame) -> Result<(), Crash> {
        let is_of_link = worker::KINDS.contains(&frame.kind);
        if frame.kind == worker::INVOKE && self.link.crashes.begins() {
            return Err(Crash);
        }
        if !is_of_link && *self.doomed.lock() == Some(frame.corr) {
            return Err(Crash);
        }
        self.to.push_frame(&frame);
        Ok(())
    }

    fn batch_end(&mut self) {
        self.to.flush();
    }
}
