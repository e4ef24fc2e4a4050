//! What passes from the worker that runs an attempt to whoever waits for it: how the attempt ends, and before that, if the
//! function makes it so, the beginning of an output and its pieces.
//!
//! Most attempts end with one answer: then this is one allocation, one lock each way, and nothing more. An **output** begins
//! with its head; from then on the worker may send so many bytes as it has credit for, and gets new credit as they are taken.
//! So what lies here is never more than [`STREAM_WINDOW`] and the last piece, however slow the reader is. The end is told
//! behind the last piece, and never taken for complete if it was not.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use boki_log::{LogError, Position};
use boki_wire::worker::{InvokeDone, MAX_PIECE_BYTES, Outcome, OutputHead, STREAM_WINDOW};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::dispatch::Seat;
use crate::error::CallError;
use crate::link::Link;

/// Credit is given in pieces of at least so many bytes.
const CREDIT_BYTES: u32 = 64 << 10;
/// Shorter pieces that wait are copied together: each by itself would hold on to the whole buffer that it was received in.
const COPIED_BYTES: usize = 16 << 10;

/// How an attempt ended, or that its output has begun.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The worker answered.
    Done(InvokeDone),
    /// The worker is gone; which process it was, if this engine had started it.
    WorkerLost(Option<Seat>),
    /// It never ran and will not, or is not to go on.
    Refused(CallError),
    /// It was given up, by one who needs not be told why.
    GivenUp,
    /// It has not ended: its output begins. The rest comes by [`Waiter::poll_piece`].
    Began(Box<OutputHead>),
}

/// Both ends of an attempt that is to be made.
pub(crate) fn exchange() -> (Reply, Waiter) {
    let exchange = Arc::new(Exchange(Mutex::new(State { phase: Phase::Waiting, waker: None })));
    (Reply(Some(Arc::clone(&exchange))), Waiter(exchange))
}

#[derive(Debug)]
struct Exchange(Mutex<State>);

#[derive(Debug)]
struct State {
    phase: Phase,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Phase {
    Waiting,
    Ended(Ended),
    Began {
        head: Option<Box<OutputHead>>,
        flow: Flow,
    },
    /// Its end has been taken.
    Over,
}

/// An output on its way.
#[derive(Debug)]
struct Flow {
    link: Link,
    corr: u64,
    pieces: VecDeque<Bytes>,
    /// Short pieces behind those.
    tail: BytesMut,
    buffered: usize,
    /// How many bytes the worker may still send.
    allowed: u32,
    /// How many were taken that it has got no credit for.
    owed: u32,
    /// Most bytes that the last piece, the one that comes with the answer, may have.
    last_limit: usize,
    ended: Option<Ended>,
    position: Position,
}

impl Exchange {
    fn update<T>(&self, change: impl FnOnce(&mut Phase) -> T) -> T {
        let mut state = self.0.lock();
        let result = change(&mut state.phase);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    fn end(&self, ended: Ended) {
        self.update(|phase| match phase {
            Phase::Waiting => *phase = Phase::Ended(ended),
            Phase::Began { flow, .. } => flow.end(ended),
            Phase::Ended(_) | Phase::Over => {}
        });
    }
}

impl Flow {
    fn take_in(&mut self, bytes: Bytes) {
        self.buffered += bytes.len();
        if bytes.len() < COPIED_BYTES {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
        self.pieces.push_back(bytes);
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = match self.pieces.pop_front() {
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
            Some(piece) => piece,
        };
        self.buffered -= piece.len();
        Some(piece)
    }

    fn end(&mut self, ended: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(match ended {
            Ended::Done(InvokeDone { position, outcome: Outcome::Ok { content_type, output } }) => {
                self.position = position;
                if output.len() > self.last_limit {
                    let (actual, limit) = (output.len() as u64, self.last_limit as u64);
                    Ended::Refused(CallError::PayloadTooLarge { what: "output", actual, limit })
                } else {
                    self.take_in(output);
                    Ended::Done(InvokeDone { position, outcome: Outcome::Ok { content_type, output: Bytes::new() } })
                }
            }
            broken => broken,
        });
    }
}

/// The end of whoever tells what becomes of an attempt. If it is dropped unused, the attempt was given up.
#[derive(Debug)]
pub(crate) struct Reply(Option<Arc<Exchange>>);

impl Reply {
    /// The attempt has ended.
    pub(crate) fn send(mut self, ended: Ended) {
        if let Some(exchange) = self.0.take() {
            exchange.end(ended);
        }
    }

    /// Whether its output has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.as_ref().is_some_and(|exchange| matches!(exchange.0.lock().phase, Phase::Began { .. }))
    }

    /// Its output begins.
    pub(crate) fn begin(
        &self,
        head: OutputHead,
        link: Link,
        corr: u64,
        last_limit: usize,
    ) -> Result<Incoming, LogError> {
        let Some(exchange) = &self.0 else { return Ok(Incoming(None)) };
        let flow = Flow {
            link,
            corr,
            pieces: VecDeque::new(),
            tail: BytesMut::new(),
            buffered: 0,
            allowed: STREAM_WINDOW,
            owed: 0,
            last_limit,
            ended: None,
            position: Position::START,
        };
        exchange.update(|phase| match phase {
            Phase::Waiting => {
                *phase = Phase::Began { head: Some(Box::new(head)), flow };
                Ok(Incoming(Some(Arc::clone(exchange))))
            }
            _ => Err(LogError::Malformed { reason: "an output has one beginning" }),
        })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.update(|phase| match phase {
                Phase::Waiting => *phase = Phase::Ended(Ended::GivenUp),
                Phase::Began { flow, .. } => {
                    flow.end(Ended::GivenUp);
                    flow.pieces.clear();
                    flow.tail.clear();
                    flow.buffered = 0;
                }
                Phase::Ended(_) | Phase::Over => {}
            });
        }
    }
}

/// The end of a worker that sends an output.
#[derive(Debug)]
pub(crate) struct Incoming(Option<Arc<Exchange>>);

impl Incoming {
    /// Of an attempt that was given up: what comes is dropped.
    pub(crate) fn unwanted() -> Incoming {
        Incoming(None)
    }

    /// The next piece; returns how many bytes lie here now.
    ///
    /// # Errors
    /// The worker may not send so many.
    pub(crate) fn data(&self, bytes: Bytes) -> Result<usize, LogError> {
        if bytes.len() > MAX_PIECE_BYTES {
            return Err(LogError::Malformed { reason: "a piece of an output has at most 65536 bytes" });
        }
        let Some(exchange) = &self.0 else { return Ok(0) };
        exchange.update(|phase| {
            let Phase::Began { flow, .. } = phase else { return Ok(0) };
            if flow.ended.is_some() {
                return Ok(0);
            }
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            flow.allowed = flow
                .allowed
                .checked_sub(len)
                .ok_or(LogError::Malformed { reason: "a worker sent more output than it had credit for" })?;
            flow.take_in(bytes);
            Ok(flow.buffered)
        })
    }
}

/// The end of whoever waits for an attempt: a future that is ready when it has ended, or its output begins.
#[derive(Debug)]
pub(crate) struct Waiter(Arc<Exchange>);

impl Future for Waiter {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut state = self.0.0.lock();
        match &mut state.phase {
            Phase::Began { head, .. } => {
                if let Some(head) = head.take() {
                    return Poll::Ready(Ended::Began(head));
                }
            }
            Phase::Waiting => {}
            Phase::Over => return Poll::Ready(Ended::GivenUp),
            Phase::Ended(_) => {
                if let Phase::Ended(ended) = std::mem::replace(&mut state.phase, Phase::Over) {
                    return Poll::Ready(ended);
                }
            }
        }
        remember(&mut state.waker, cx);
        Poll::Pending
    }
}

/// What comes next of an output.
#[derive(Debug)]
pub(crate) enum Next {
    Piece(Bytes),
    /// It is complete, or broken off; what has ended it, once. The position is that of its end.
    End(Option<Ended>, Position),
}

impl Waiter {
    /// The next piece of an output that has begun. Credit for what was taken is on its way when this returns.
    pub(crate) fn poll_piece(&self, cx: &Context<'_>) -> Poll<Next> {
        let mut state = self.0.0.lock();
        let State { phase, waker } = &mut *state;
        let Phase::Began { flow, .. } = phase else { return Poll::Ready(Next::End(None, Position::START)) };
        let Some(piece) = flow.next() else {
            if flow.ended.is_some() {
                let position = flow.position;
                let Phase::Began { flow, .. } = std::mem::replace(phase, Phase::Over) else {
                    return Poll::Ready(Next::End(None, position));
                };
                return Poll::Ready(Next::End(flow.ended, position));
            }
            remember(waker, cx);
            return Poll::Pending;
        };
        if flow.ended.is_none() {
            flow.owed += u32::try_from(piece.len()).unwrap_or(u32::MAX);
            if flow.owed >= CREDIT_BYTES {
                let owed = std::mem::take(&mut flow.owed);
                flow.allowed += owed;
                flow.link.output_credit(flow.corr, owed);
                let link = flow.link.clone();
                drop(state);
                link.flush();
            }
        }
        Poll::Ready(Next::Piece(piece))
    }
}

fn remember(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use boki_net::Outbox;

    use super::*;

    fn piece(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    fn done(output: &'static [u8]) -> Ended {
        let outcome = Outcome::Ok { content_type: String::new(), output: Bytes::from_static(output) };
        Ended::Done(InvokeDone { position: Position::START, outcome })
    }

    async fn begun() -> (Reply, Incoming, Waiter, Outbox) {
        let (reply, mut waiter) = exchange();
        let outbox = Outbox::new(1 << 20);
        let incoming = reply.begin(OutputHead::default(), Link::new(outbox.clone(), 1), 5, 10).unwrap();
        assert!(matches!((&mut waiter).await, Ended::Began(_)));
        (reply, incoming, waiter, outbox)
    }

    async fn next(waiter: &Waiter) -> Next {
        poll_fn(|cx| waiter.poll_piece(cx)).await
    }

    #[tokio::test]
    async fn an_attempt_without_output_of_its_own_ends_once() {
        let (reply, mut waiter) = exchange();
        reply.send(done(b"x"));
        assert!(matches!((&mut waiter).await, Ended::Done(_)));
        assert!(matches!(waiter.await, Ended::GivenUp));
        let (reply, waiter) = exchange();
        drop(reply);
        assert!(matches!(waiter.await, Ended::GivenUp));
    }

    #[tokio::test]
    async fn a_worker_may_send_the_window_and_what_was_taken_and_not_a_byte_more() {
        let (_reply, incoming, waiter, outbox) = begun().await;
        for sent in 1..=4 {
            assert_eq!(incoming.data(piece(MAX_PIECE_BYTES)).unwrap(), sent * MAX_PIECE_BYTES);
        }
        assert!(incoming.data(piece(1)).is_err());
        assert_eq!(outbox.unwritten(), 0);
        assert!(matches!(next(&waiter).await, Next::Piece(piece) if piece.len() == MAX_PIECE_BYTES));
        assert!(outbox.unwritten() > 0, "a taken piece is a piece of credit");
        assert_eq!(incoming.data(piece(MAX_PIECE_BYTES)).unwrap(), 4 * MAX_PIECE_BYTES);
        assert!(incoming.data(piece(1)).is_err());
        assert!(incoming.data(piece(MAX_PIECE_BYTES + 1)).is_err());
    }

    #[tokio::test]
    async fn small_pieces_are_credited_together() {
        let (_reply, incoming, waiter, outbox) = begun().await;
        for _ in 0..3 {
            incoming.data(piece(30_000)).unwrap();
        }
        for _ in 0..2 {
            next(&waiter).await;
        }
        assert_eq!(outbox.unwritten(), 0);
        next(&waiter).await;
        assert!(outbox.unwritten() > 0);
        // Short ones come together too, in their order.
        for bytes in [&b"a"[..], b"", b"b"] {
            incoming.data(Bytes::from_static(bytes)).unwrap();
        }
        incoming.data(piece(COPIED_BYTES)).unwrap();
        assert!(matches!(next(&waiter).await, Next::Piece(piece) if piece == "ab"));
        assert!(matches!(next(&waiter).await, Next::Piece(piece) if piece.len() == COPIED_BYTES));
    }

    #[tokio::test]
    async fn the_answer_brings_the_last_piece_and_the_end() {
        let (reply, incoming, waiter, _) = begun().await;
        incoming.data(piece(3)).unwrap();
        reply.send(done(b"last"));
        assert!(matches!(next(&waiter).await, Next::Piece(piece) if piece.len() == 3 + 4));
        assert!(matches!(next(&waiter).await, Next::End(Some(Ended::Done(_)), _)));
        assert!(matches!(next(&waiter).await, Next::End(None, _)));
        let (reply, _, waiter, _) = begun().await;
        reply.send(done(b"longer than ten"));
        assert!(matches!(next(&waiter).await, Next::End(Some(Ended::Refused(_)), _)));
    }

    #[tokio::test]
    async fn what_breaks_off_is_never_complete() {
        let (reply, incoming, waiter, _) = begun().await;
        incoming.data(piece(3)).unwrap();
        reply.send(Ended::WorkerLost(None));
        assert_eq!(incoming.data(piece(3)).unwrap(), 0);
        assert!(matches!(next(&waiter).await, Next::Piece(piece) if piece.len() == 3));
        assert!(matches!(next(&waiter).await, Next::End(Some(Ended::WorkerLost(None)), _)));
        let (reply, incoming, waiter, _) = begun().await;
        incoming.data(piece(3)).unwrap();
        drop(reply);
        assert!(matches!(next(&waiter).await, Next::End(Some(Ended::GivenUp), _)));
    }

    #[tokio::test]
    async fn an_output_begins_once() {
        let (reply, _incoming, _waiter, outbox) = begun().await;
        assert!(reply.begin(OutputHead::default(), Link::new(outbox, 1), 5, 10).is_err());
    }
}
