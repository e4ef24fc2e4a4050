//! What a connection still has to write, open to every thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::frame::Frame;
use crate::frame_buf::{BodyWriter, FrameBuf};
use crate::writer::{Stream, Writer};

/// How to close an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// At once: what is not written yet is dropped.
    Now,
    /// When what was pushed before has been written.
    AfterWriting,
}

/// Why an outbox takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// [`Outbox::close`] was called.
    Requested,
    /// The peer read too slowly: more than the limit was waiting.
    SlowReader,
    /// The connection has ended.
    Disconnected,
}

/// The outgoing frames of one connection. Clones share it.
///
/// Any thread may push. Pushing to a closed outbox drops the frame. When more than its limit waits to be
/// written, the outbox closes: its peer does not read.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    limit: usize,
    /// Pushed and not yet accepted by the socket, wherever it lies.
    unwritten: AtomicUsize,
    /// Locked before `state` where both are.
    writer: Mutex<Writer>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frames: FrameBuf,
    count: usize,
    closed: Option<Closed>,
    /// Closed once `frames` is empty.
    closing: bool,
    waker: Option<Waker>,
    /// The connection's task sleeps until there are frames, and nobody has woken it.
    awaits_frames: bool,
}

/// What the connection's task found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// So many frames, or none if only the preamble was there.
    Frames(usize),
    /// There will be no more.
    Closed(Closed),
}

impl Outbox {
    /// Closes itself when more than `limit` bytes wait to be written.
    #[must_use]
    pub fn new(limit: usize) -> Outbox {
        let limit = limit.min(u32::MAX as usize);
        let (writer, state) = (Mutex::default(), Mutex::default());
        Outbox(Arc::new(Shared { limit, unwritten: AtomicUsize::new(0), writer, state }))
    }

    /// Adds a frame whose body `write` puts down; it runs under the outbox's lock, so it must be short and may
    /// not touch the outbox. Wakes nobody: see [`Outbox::flush`].
    pub fn push(&self, kind: u8, corr: u64, write: impl FnOnce(&mut BodyWriter<'_>)) {
        self.add(|frames| frames.push(kind, 0, corr, write));
    }

    /// Adds a frame. Wakes nobody.
    pub fn push_frame(&self, frame: &Frame) {
        self.add(|frames| frames.push_frame(frame));
    }

    /// Adds the preamble. Wakes nobody.
    pub fn push_preamble(&self) {
        self.add(FrameBuf::push_preamble);
    }

    /// Has the connection's task write what was pushed, unless it is awake anyway.
    pub fn flush(&self) {
        let waker = {
            let mut state = self.0.state.lock();
            if !state.awaits_frames || state.frames.is_empty() {
                return;
            }
            state.awaits_frames = false;
            state.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// As [`Outbox::flush`], but if the connection's task sleeps, this thread writes as much as the socket takes at once:
    /// where little was pushed and nobody else is about to push, that is cheaper than waking a thread for it.
    pub fn write(&self) {
        // Whoever holds it is the task, or writes what was pushed before this.
        let Some(mut writer) = self.0.writer.try_lock() else { return self.flush() };
        let waker = {
            let mut state = self.0.state.lock();
            if !state.awaits_frames || state.frames.is_empty() {
                return;
            }
            let Some(waker) = state.waker.clone() else { return };
            state.frames.take(&mut writer.writing);
            state.count = 0;
            waker
        };
        match writer.poll_write(&mut Context::from_waker(&waker), |bytes| self.wrote(bytes)) {
            Poll::Ready(Ok(())) => {}
            // From now on the task waits for the socket, which wakes it.
            Poll::Pending => self.0.state.lock().awaits_frames = false,
            // For the task to find, too.
            Poll::Ready(Err(_)) => waker.wake(),
        }
    }

    /// Ends the connection from this side.
    pub fn close(&self, how: Close) {
        let mut state = self.0.state.lock();
        match how {
            Close::Now => state.close(Closed::Requested),
            Close::AfterWriting => state.closing = true,
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Why it takes no more frames, if so.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        self.0.state.lock().closed
    }

    /// Bytes pushed that the socket has not accepted yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.0.unwritten.load(Ordering::Relaxed)
    }

    fn add(&self, push: impl FnOnce(&mut FrameBuf) -> usize) {
        let mut state = self.0.state.lock();
        if state.closed.is_some() || state.closing {
            return;
        }
        let bytes = push(&mut state.frames);
        state.count += 1;
        let before = self.0.unwritten.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.0.limit {
            return;
        }
        state.close(Closed::SlowReader);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Gives it the stream to write to.
    pub(crate) fn attach(&self, stream: Stream) {
        self.0.writer.lock().stream = Some(stream);
    }

    /// What writes. The connection's task is the one that may wait for it.
    pub(crate) fn writer(&self) -> MutexGuard<'_, Writer> {
        self.0.writer.lock()
    }

    pub(crate) fn has_frames(&self) -> bool {
        !self.0.state.lock().frames.is_empty()
    }

    /// Moves all frames to `out`; if there are none, has the task woken by the next flush.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, out: &mut impl Extend<Bytes>) -> Poll<Taken> {
        let mut state = self.0.state.lock();
        if let Some(closed) = state.closed {
            return Poll::Ready(Taken::Closed(closed));
        }
        if state.frames.is_empty() {
            if state.closing {
                state.close(Closed::Requested);
                return Poll::Ready(Taken::Closed(Closed::Requested));
            }
            state.awaits_frames = true;
            state.remember(cx);
            return Poll::Pending;
        }
        state.awaits_frames = false;
        state.frames.take(out);
        Poll::Ready(Taken::Frames(std::mem::take(&mut state.count)))
    }

    /// The connection's task is awake and will look before it sleeps again: nobody needs to wake it.
    pub(crate) fn awake(&self) {
        self.0.state.lock().awaits_frames = false;
    }

    /// Whether it has been closed; if not, has the task woken when it is. Frames do not wake it.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> Poll<Closed> {
        let mut state = self.0.state.lock();
        if let Some(closed) = state.closed {
            return Poll::Ready(closed);
        }
        state.awaits_frames = false;
        state.remember(cx);
        Poll::Pending
    }

    /// The socket has accepted so many bytes.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.0.unwritten.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// There is no connection any more.
    pub(crate) fn disconnected(&self) {
        let mut state = self.0.state.lock();
        if state.closed.is_none() {
            state.close(Closed::Disconnected);
        }
        state.waker = None;
        drop(state);
        // Clones may live on, the stream must not.
        self.0.writer.lock().stream = None;
    }
}

impl State {
    fn close(&mut self, why: Closed) {
        if self.closed.is_none() {
            self.closed = Some(why);
        }
        self.frames = FrameBuf::new();
        self.awaits_frames = false;
    }

    fn remember(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox({} bytes, {:?})", self.unwritten(), self.closed())
    }
}
