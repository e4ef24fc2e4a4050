//! Keeps a session connected: one task per client.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use boki_log::error::Retry;
use boki_net::{Broken, Config, Connection, Ended, Frame, FrameSink, Outbox, tune_tcp};
use boki_wire::worker;
use boki_wire::{Hello, HelloOk, Message, Ping, Pong, Role, VERSION, kinds};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::address::Address;
use crate::error::{Error, Result};
use crate::options::ConnectOptions;
use crate::random::fraction;
use crate::session::{Session, farewell, is_answer};

/// More than the session's bounds let wait to be written.
const OUTBOX_BYTES: usize = 512 << 20;
/// A server that owes an answer and says nothing for this long is asked whether it is there.
const QUIET: Duration = Duration::from_secs(10);
/// Delays between attempts to connect.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// How long a closing client tries to get its last frames out.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection to a server.
pub(crate) enum Link {
    Tcp(Connection<TcpStream>),
    Unix(Connection<UnixStream>),
}

impl Link {
    /// Connects and shakes hands.
    pub(crate) async fn open(options: &ConnectOptions, role: Role) -> Result<(Link, HelloOk)> {
        let failed =
            |source: io::Error| Error::Connect { address: options.address.to_string(), source: Arc::new(source) };
        let opened = timeout(options.connect_timeout, async {
            let outbox = Outbox::new(OUTBOX_BYTES);
            let mut link = match &options.address {
                Address::Tcp(host) => {
                    let stream = TcpStream::connect(host).await.map_err(failed)?;
                    tune_tcp(&stream).map_err(failed)?;
                    Link::Tcp(Connection::opened(stream, outbox, Config::opening()))
                }
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await.map_err(failed)?;
                    Link::Unix(Connection::opened(stream, outbox, Config::opening()))
                }
            };
            Hello { version: VERSION, role, name: options.name.clone() }.push(link.outbox(), 0);
            let hello = match link.run(&mut first_frame).await {
                Err(Broken::Refused(frame)) if frame.kind == kinds::HELLO_OK => {
                    HelloOk::decode(&frame.body).map_err(|error| Error::unexpected(error.to_string()))?
                }
                Err(Broken::Refused(frame)) if frame.kind == kinds::ERROR => return Err(farewell(&frame)),
                Err(Broken::Refused(frame)) => {
                    return Err(Error::unexpected(format!("a message of kind {} instead of a greeting", frame.kind)));
                }
                Err(Broken::Frame(error)) => return Err(Error::unexpected(error.to_string())),
                Err(Broken::Io(error)) => return Err(failed(error)),
                Ok(_) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            };
            if hello.version != VERSION {
                return Err(Error::unexpected(format!("version {} of the protocol", hello.version)));
            }
            Ok((link, hello))
        });
        match opened.await {
            Ok(result) => result,
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        match self {
            Link::Tcp(connection) => connection.outbox(),
            Link::Unix(connection) => connection.outbox(),
        }
    }

    async fn run<K: FrameSink>(&mut self, sink: &mut K) -> Result<Ended, Broken<K::Error>> {
        match self {
            Link::Tcp(connection) => connection.run(sink).await,
            Link::Unix(connection) => connection.run(sink).await,
        }
    }
}

/// Interrupts a connection at its first frame; it goes on after that one.
fn first_frame(frame: Frame) -> Result<(), Frame> {
    Err(frame)
}

/// Connects for the first time, again and again if the options say so.
pub(crate) async fn connect(options: &ConnectOptions, role: Role) -> Result<(Link, HelloOk)> {
    let mut delay = FIRST_DELAY;
    loop {
        match Link::open(options, role).await {
            // Nobody listens yet, or whoever does is about to stop.
            Err(error) if options.waits_for_server && error.retry() != Retry::Never => {}
            result => return result,
        }
        sleep(jittered(delay)).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// Serves the session over `link`, and over further connections when that one breaks, until the session closes.
pub(crate) async fn keep_connected(session: Arc<Session>, mut link: Link) {
    let closing = session.closing.clone();
    let mut delay = FIRST_DELAY;
    loop {
        session.connected(link.outbox());
        let since = Instant::now();
        tokio::select! {
            () = serve(&session, &mut link) => {}
            () = closing.cancelled() => {}
        }
        if closing.is_cancelled() {
            // The outbox is closing; this writes what is left in it.
            let _ = timeout(FAREWELL, link.run(&mut |_: Frame| Ok::<(), Error>(()))).await;
            session.disconnected();
            return;
        }
        drop(link);
        session.disconnected();
        if since.elapsed() > LONGEST_DELAY {
            delay = FIRST_DELAY;
        }
        let role = if session.worker.is_some() { Role::Worker } else { Role::Client };
        link = tokio::select! {
            link = reconnect(&session, role, &mut delay) => link,
            () = closing.cancelled() => return,
        };
    }
}

async fn reconnect(session: &Session, role: Role, delay: &mut Duration) -> Link {
    loop {
        // Before the first attempt too: a server may be one that accepts every connection and drops it.
        sleep(jittered(*delay)).await;
        *delay = (*delay * 2).min(LONGEST_DELAY);
        match Link::open(&session.options, role).await {
            Ok((link, _)) => return link,
            Err(error) => session.expire(&Arc::new(error)),
        }
    }
}

/// Clients that lost the same server do not all come back in the same moment.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(0.5 + fraction() / 2.0)
}

/// Runs one connection until it ends, or until the server is silent for too long while it owes an answer.
async fn serve(session: &Session, link: &mut Link) {
    let outbox = link.outbox().clone();
    let heard = AtomicBool::new(false);
    let mut sink = Sink { session, outbox: &outbox, heard: &heard };
    let mut run = pin!(link.run(&mut sink));
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut pinged = false;
    session.set_watched(false);
    poll_fn(|cx| {
        if run.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let due = match &mut timer {
                Some(timer) => timer.as_mut().poll(cx),
                None if pinged || session.has_open_questions() => {
                    heard.store(false, Ordering::Relaxed);
                    timer = Some(Box::pin(sleep(QUIET)));
                    session.set_watched(true);
                    continue;
                }
                None => Poll::Pending,
            };
            if due.is_pending() {
                return Poll::Pending;
            }
            timer = None;
            session.set_watched(false);
            if heard.load(Ordering::Relaxed) {
                pinged = false;
            } else if pinged {
                return Poll::Ready(());
            } else {
                pinged = true;
                Ping.push(&outbox, 0);
                outbox.flush();
            }
        }
    })
    .await;
}

/// Hands the frames of a connection to whom they are for.
struct Sink<'a> {
    session: &'a Session,
    outbox: &'a Outbox,
    heard: &'a AtomicBool,
}

impl FrameSink for Sink<'_> {
    type Error = Error;

    fn frame(&mut self, frame: Frame) -> Result<()> {
        self.heard.store(true, Ordering::Relaxed);
        match frame.kind {
            kinds::ERROR if frame.corr == 0 => return Err(farewell(&frame)),
            kinds::PING => Pong.push(self.outbox, frame.corr),
            kind if worker::KINDS.contains(&kind) => {
                if let Some(worker) = &self.session.worker {
                    worker.frame(frame);
                }
            }
            kind if is_answer(kind) => self.session.answered(&frame),
            _ => {}
        }
        Ok(())
    }

    fn batch_end(&mut self) {
        if let Some(worker) = &self.session.worker {
            worker.batch_end();
        }
    }
}
