//! The input of a call as a stream, on its way to the worker that runs it.
//!
//! One task per such call takes the pieces and passes them on, as many bytes as the worker gave credit for: a slow function
//! slows whoever sends, down to the client's socket, and at most [`STREAM_WINDOW`] bytes and one piece are on their way.
//!
//! What was passed on is gone: an attempt that has got any of it is not tried again.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use boki_wire::worker::{CancelReason, MAX_PIECE_BYTES, STREAM_WINDOW};
use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::body::BodyStream;
use crate::dispatch::{AttemptKey, Flushes};
use crate::functions::Shared;
use crate::link::Link;

/// Where the pieces go, and how many.
pub(crate) struct StreamedInput {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The attempt that gets them.
    target: Option<Target>,
    /// Some of them have been passed on.
    begun: bool,
}

#[derive(Clone)]
struct Target {
    link: Link,
    corr: u64,
    /// How many bytes its worker takes now.
    credit: usize,
}

/// The inputs that are being passed on, by their attempts.
pub(crate) type Inputs = Mutex<HashMap<u64, Arc<StreamedInput>>>;

impl StreamedInput {
    pub(crate) fn new() -> Arc<StreamedInput> {
        Arc::new(StreamedInput { state: Mutex::default(), changed: Notify::new() })
    }

    /// An attempt has been given to a worker.
    pub(crate) fn begin(&self, link: &Link, corr: u64) {
        let target = Target { link: link.clone(), corr, credit: STREAM_WINDOW as usize };
        self.state.lock().target = Some(target);
        self.changed.notify_one();
    }

    /// Whether any of it is gone.
    pub(crate) fn has_begun(&self) -> bool {
        self.state.lock().begun
    }

    /// The attempt's worker takes so many bytes more.
    pub(crate) fn credit(&self, corr: u64, bytes: u32) {
        let mut state = self.state.lock();
        let Some(target) = state.target.as_mut().filter(|target| target.corr == corr) else { return };
        target.credit = target.credit.saturating_add(bytes as usize).min(STREAM_WINDOW as usize);
        drop(state);
        self.changed.notify_one();
    }

    /// Passes on to the attempt `corr` as much of `piece` as its worker takes, and says how much that was.
    fn pass(&self, corr: u64, piece: &Bytes) -> usize {
        let mut state = self.state.lock();
        let target = state.target.as_mut().filter(|target| target.corr == corr && target.credit > 0);
        let Some(target) = target else { return 0 };
        let len = piece.len().min(target.credit).min(MAX_PIECE_BYTES);
        target.credit -= len;
        target.link.input(target.corr, piece.slice(..len), false);
        let link = target.link.clone();
        state.begun = true;
        drop(state);
        link.flush();
        len
    }

    /// Tells the worker that there is no more.
    fn finish(&self) {
        let mut state = self.state.lock();
        let Some(target) = &state.target else { return };
        let link = target.link.clone();
        link.input(target.corr, Bytes::new(), true);
        state.begun = true;
        drop(state);
        link.flush();
    }

    /// The attempt that gets the pieces, once there is one.
    async fn target(&self) -> u64 {
        loop {
            if let Some(target) = &self.state.lock().target {
                return target.corr;
            }
            self.changed.notified().await;
        }
    }
}

impl fmt::Debug for StreamedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamedInput(begun: {})", self.has_begun())
    }
}

/// The task that passes an input on. Dropping this ends it, and drops the rest of the input.
#[derive(Debug)]
pub(crate) struct Pump(AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pump {
    /// Passes on `stream` to the attempts that `input` is told of.
    pub(crate) fn start(shared: &Arc<Shared>, input: Arc<StreamedInput>, stream: BodyStream) -> Pump {
        let pump = pump(Arc::clone(shared), input, stream);
        Pump(shared.runtime.spawn(pump).abort_handle())
    }
}

async fn pump(shared: Arc<Shared>, input: Arc<StreamedInput>, mut stream: BodyStream) {
    let mut entry = Entry { shared: &shared, corr: None };
    loop {
        // Nothing is taken before somebody runs it.
        entry.of(input.target().await, &input);
        let mut piece = match stream.next().await {
            None => return input.finish(),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                let corr = input.target().await;
                let mut flushes = Flushes::default();
                let key = AttemptKey::from_corr(corr);
                shared.dispatch.lock().fail(key, error.of("input"), CancelReason::Caller, Instant::now(), &mut flushes);
                shared.perform(flushes, None);
                shared.note_idle();
                return;
            }
        };
        while !piece.is_empty() {
            // It may be another attempt by now. Its credit must find the input before it can be given any.
            let corr = input.target().await;
            entry.of(corr, &input);
            match input.pass(corr, &piece) {
                0 => input.changed.notified().await,
                len => piece.advance(len),
            }
        }
    }
}

/// An input's place in the table, by which credit finds it.
struct Entry<'a> {
    shared: &'a Shared,
    corr: Option<u64>,
}

impl Entry<'_> {
    fn of(&mut self, corr: u64, input: &Arc<StreamedInput>) {
        if self.corr != Some(corr) {
            self.remove();
            self.shared.inputs.lock().insert(corr, Arc::clone(input));
            self.corr = Some(corr);
        }
    }

    fn remove(&mut self) {
        if let Some(corr) = self.corr.take() {
            self.shared.inputs.lock().remove(&corr);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use boki_net::Outbox;

    use super::*;

    #[test]
    fn no_more_is_passed_on_than_there_is_credit_for() {
        let input = StreamedInput::new();
        let piece = Bytes::from(vec![0; 100_000]);
        assert_eq!(input.pass(7, &piece), 0);
        input.begin(&Link::new(Outbox::new(1 << 20), 1), 7);
        let mut passed = 0;
        loop {
            match input.pass(7, &piece) {
                0 => break,
                len => passed += len,
            }
        }
        assert_eq!(passed, STREAM_WINDOW as usize);
        input.credit(8, 100);
        assert_eq!((input.pass(7, &piece), input.pass(8, &piece)), (0, 0));
        input.credit(7, 100);
        assert_eq!((input.pass(8, &piece), input.pass(7, &piece)), (0, 100));
        // A worker cannot have the window made larger, nor a piece.
        input.credit(7, u32::MAX);
        assert_eq!(input.pass(7, &piece), MAX_PIECE_BYTES);
        let passed: usize = std::iter::repeat_with(|| input.pass(7, &piece)).take(10).sum();
        assert_eq!(passed, STREAM_WINDOW as usize - MAX_PIECE_BYTES);
    }
}
