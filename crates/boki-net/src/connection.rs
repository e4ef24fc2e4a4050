//! One connection, as one task that both reads and writes.
//!
//! ```text
//!            +-> read what is there -> all its frames -> sink --+
//!   socket --|                                                  +-> outbox <- other threads
//!            +-- write all of the outbox <----------------------+
//! ```
//!
//! Whatever the sink pushes while it handles frames leaves in the same turn, without a wake-up. While more than
//! [`Config::high_water`] bytes wait for the peer to read them, nothing more is read from it. Of two peers only
//! one may do that (the accepting side), or both could wait for each other for ever.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf};
use tokio_util::io::poll_read_buf;

use crate::decoder::Decoder;
use crate::frame::{DEFAULT_MAX_BODY, Frame, FrameError};
use crate::outbox::{Closed, Outbox, Taken};

/// Receives a connection's frames, on its task: it must not block.
pub trait FrameSink {
    /// What makes it give up the connection.
    type Error;
    /// The next frame.
    ///
    /// # Errors
    /// Ends the connection.
    fn frame(&mut self, frame: Frame) -> Result<(), Self::Error>;
    /// All frames that one read brought have been handed over: the moment for what is done once per batch.
    fn batch_end(&mut self) {}
}

impl<E, F: FnMut(Frame) -> Result<(), E>> FrameSink for F {
    type Error = E;
    fn frame(&mut self, frame: Frame) -> Result<(), E> {
        self(frame)
    }
}

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest body accepted.
    pub max_body: usize,
    /// Nothing is read while more than this many bytes wait to be written.
    pub high_water: usize,
}

impl Config {
    /// For the accepting side.
    #[must_use]
    pub fn accepting() -> Config {
        Config { max_body: DEFAULT_MAX_BODY, high_water: 4 << 20 }
    }

    /// For the opening side, which always reads: it must bound what it has in flight.
    #[must_use]
    pub fn opening() -> Config {
        Config { max_body: DEFAULT_MAX_BODY, high_water: usize::MAX }
    }
}

/// How a connection ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it, between two frames.
    ByPeer,
    /// The outbox was closed.
    Closed(Closed),
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Broken<E> {
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// What arrives is not frames.
    #[error(transparent)]
    Frame(FrameError),
    /// The sink gave it up.
    #[error("the connection was given up")]
    Refused(E),
}

/// A byte stream with its buffers. The outbox has the half of it that is written to.
#[derive(Debug)]
pub struct Connection<S> {
    stream: ReadHalf<S>,
    decoder: Decoder,
    outbox: Outbox,
    config: Config,
    /// The decoder has no whole frame left.
    starved: bool,
    /// The last turn brought or took several frames.
    busy: bool,
    slept: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<S> {
    /// The side that accepted `stream`: expects the preamble.
    pub fn accepted(stream: S, outbox: Outbox, config: Config) -> Connection<S> {
        let decoder = Decoder::after_preamble(config.max_body);
        Connection::new(stream, decoder, outbox, config)
    }

    /// The side that opened `stream`: sends the preamble before anything that is pushed after this call.
    pub fn opened(stream: S, outbox: Outbox, config: Config) -> Connection<S> {
        outbox.push_preamble();
        let decoder = Decoder::new(config.max_body);
        Connection::new(stream, decoder, outbox, config)
    }

    fn new(stream: S, decoder: Decoder, outbox: Outbox, config: Config) -> Connection<S> {
        let (stream, writing_half) = tokio::io::split(stream);
        outbox.attach(Box::new(writing_half));
        Connection { stream, decoder, outbox, config, starved: true, busy: false, slept: false }
    }

    /// Where to push what it shall write.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Reads and writes until the connection ends.
    ///
    /// # Cancel-safety
    /// Safe: dropping the future between two turns loses nothing, and calling `run` again goes on from there.
    ///
    /// # Errors
    /// [`Broken`]. What the outbox holds is still there for [`Connection::last_words`].
    pub async fn run<K: FrameSink>(&mut self, sink: &mut K) -> Result<Ended, Broken<K::Error>> {
        loop {
            self.deliver(sink)?;
            match poll_fn(|cx| self.poll_io(cx)).await {
                Ok(None) => {}
                Ok(Some(ended)) => return Ok(ended),
                Err(error) => return Err(error.into_broken()),
            }
        }
    }

    /// Writes, without reading, until `is_done` holds and everything pushed has been written. `is_done` is asked
    /// each time the task is woken: flush the outbox (or wake the task) when it may have changed.
    ///
    /// # Cancel-safety
    /// Safe, as [`Connection::run`].
    ///
    /// # Errors
    /// The socket's.
    pub async fn drain(&mut self, mut is_done: impl FnMut() -> bool) -> io::Result<()> {
        poll_fn(|cx| {
            // Asked before looking at the outbox: what was pushed before it became true is then seen there.
            let done = is_done();
            match self.poll_write(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Pending if done && self.outbox.writer().writing.is_empty() => Poll::Ready(Ok(())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Writes as much of the outbox as the socket takes without waiting: for a farewell to a peer that may not listen.
    pub async fn last_words(&mut self) {
        poll_fn(|cx| {
            let _ = self.poll_write(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Ends the writing half, so that the peer sees an orderly end.
    ///
    /// # Cancel-safety
    /// Safe.
    ///
    /// # Errors
    /// The socket's.
    pub async fn shut(&mut self) -> io::Result<()> {
        poll_fn(|cx| match &mut self.outbox.writer().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Hands over the frames that have arrived, while the peer keeps reading.
    fn deliver<K: FrameSink>(&mut self, sink: &mut K) -> Result<(), Broken<K::Error>> {
        let mut frames = 0;
        self.starved = false;
        while self.outbox.unwritten() <= self.config.high_water {
            match self.decoder.next_frame().map_err(Broken::Frame)? {
                Some(frame) => sink.frame(frame).map_err(Broken::Refused)?,
                None => {
                    self.starved = true;
                    break;
                }
            }
            frames += 1;
        }
        if frames > 0 {
            self.busy = frames > 1;
            sink.batch_end();
        }
        Ok(())
    }

    /// Writes all it can, then reads once. Ready with nothing: there may be frames to deliver.
    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Ended>, IoFault>> {
        let woken = std::mem::take(&mut self.slept);
        // On a busy connection the tasks that are ready run first, so that a burst of single pushes by many tasks leaves in
        // one write. Only if it was woken to write: what has arrived is never kept waiting.
        if woken && self.busy && self.outbox.has_frames() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.poll_write(cx) {
            Poll::Ready(Ok(closed)) => return Poll::Ready(Ok(Some(Ended::Closed(closed)))),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(IoFault::Io(error))),
            Poll::Pending => {}
        }
        if self.outbox.unwritten() > self.config.high_water {
            return Poll::Pending;
        }
        if !self.starved {
            return Poll::Ready(Ok(None));
        }
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, self.decoder.room());
        self.slept = read.is_pending();
        match ready!(read) {
            Ok(0) if self.decoder.is_between_frames() => Poll::Ready(Ok(Some(Ended::ByPeer))),
            Ok(0) => Poll::Ready(Err(IoFault::Truncated)),
            Ok(bytes) => {
                // Or the answers to what was read would wake the task that is about to write them.
                self.outbox.awake();
                self.decoder.was_read(bytes);
                Poll::Ready(Ok(None))
            }
            Err(error) => Poll::Ready(Err(IoFault::Io(error))),
        }
    }

    /// Writes everything pushed. Pending: there is nothing left (a flush wakes the task), or the socket takes no
    /// more now (it wakes the task). Ready only when the outbox has closed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Closed>> {
        // Held until the task is known to sleep: whoever wants to write itself meanwhile wakes the task instead.
        let mut writer = self.outbox.writer();
        loop {
            match writer.poll_write(cx, |bytes| self.outbox.wrote(bytes)) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.outbox.poll_closed(cx).map(Ok),
            }
            match ready!(self.outbox.poll_take(cx, &mut writer.writing)) {
                Taken::Closed(closed) => return Poll::Ready(Ok(closed)),
                Taken::Frames(frames) => self.busy |= frames > 1,
            }
        }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.outbox.disconnected();
    }
}

/// [`Broken`] without the sink's part.
enum IoFault {
    Io(io::Error),
    Truncated,
}

impl IoFault {
    fn into_broken<E>(self) -> Broken<E> {
        match self {
            IoFault::Io(error) => Broken::Io(error),
            IoFault::Truncated => Broken::Frame(FrameError::Truncated),
        }
    }
}
