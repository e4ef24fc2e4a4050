//! What a running call sends and gets piece by piece, under credit.
//!
//! Both sides may send [`STREAM_WINDOW`] bytes of a stream before the first credit. Here credit is given when a function has taken
//! pieces, and used when the server has given it, so neither an input nor an output is ever in memory as a whole.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use boki_net::Outbox;
use boki_wire::Message;
use boki_wire::worker::{InputCredit, MAX_PIECE_BYTES, STREAM_WINDOW};
use bytes::Bytes;
use parking_lot::Mutex;

/// Credit is given in pieces of at least so many bytes.
const CREDIT_BYTES: u32 = 64 << 10;

/// The rest of a call's input, as it comes.
#[derive(Clone)]
pub(crate) struct InputQueue(Arc<Mutex<Queue>>);

struct Queue {
    outbox: Outbox,
    corr: u64,
    pieces: VecDeque<Bytes>,
    /// How many bytes were taken that the server got no credit for.
    owed: u32,
    state: QueueState,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum QueueState {
    Open,
    Complete,
    /// There is nobody any more to send the rest.
    Lost,
    /// The function takes no more.
    Unwanted,
}

/// What is left of an input that ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl InputQueue {
    pub(crate) fn new(outbox: Outbox, corr: u64) -> InputQueue {
        let (state, pieces) = (QueueState::Open, VecDeque::new());
        InputQueue(Arc::new(Mutex::new(Queue { outbox, corr, pieces, owed: 0, state, waker: None })))
    }

    /// A piece has come.
    pub(crate) fn push(&self, bytes: Bytes, last: bool) {
        self.update(|queue| {
            if queue.state != QueueState::Open {
                return;
            }
            if !bytes.is_empty() {
                queue.pieces.push_back(bytes);
            }
            if last {
                queue.state = QueueState::Complete;
            }
        });
    }

    /// The server is gone.
    pub(crate) fn lose(&self) {
        self.update(|queue| {
            if queue.state == QueueState::Open {
                queue.state = QueueState::Lost;
            }
        });
    }

    /// The function wants no more: the server may keep the rest.
    pub(crate) fn refuse(&self) {
        self.update(|queue| {
            queue.state = QueueState::Unwanted;
            queue.pieces.clear();
        });
    }

    fn update(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.0.lock();
        change(&mut queue);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next piece; its bytes are credited to the server.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        let mut queue = self.0.lock();
        let Some(piece) = queue.pieces.pop_front() else {
            return match queue.state {
                QueueState::Complete | QueueState::Unwanted => Poll::Ready(None),
                QueueState::Lost => {
                    queue.state = QueueState::Unwanted;
                    Poll::Ready(Some(Err(Lost)))
                }
                QueueState::Open => {
                    queue.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        };
        queue.owed += u32::try_from(piece.len()).unwrap_or(u32::MAX);
        if queue.owed >= CREDIT_BYTES && queue.state == QueueState::Open {
            let credit = InputCredit { bytes: std::mem::take(&mut queue.owed) };
            let (outbox, corr) = (queue.outbox.clone(), queue.corr);
            drop(queue);
            credit.push(&outbox, corr);
            outbox.flush();
        }
        Poll::Ready(Some(Ok(piece)))
    }
}

impl fmt::Debug for InputQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InputQueue").field(&self.0.lock().corr).finish()
    }
}

/// How much of its output a call may send.
#[derive(Clone)]
pub(crate) struct OutputCredits(Arc<Mutex<Credits>>);

struct Credits {
    bytes: usize,
    waker: Option<Waker>,
}

impl OutputCredits {
    pub(crate) fn new() -> OutputCredits {
        OutputCredits(Arc::new(Mutex::new(Credits { bytes: STREAM_WINDOW as usize, waker: None })))
    }

    /// The server takes so many bytes more.
    pub(crate) fn add(&self, bytes: u32) {
        let mut credits = self.0.lock();
        credits.bytes = credits.bytes.saturating_add(bytes as usize);
        let waker = credits.waker.take();
        drop(credits);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes credit for a piece of at most `wanted` bytes, once there is any.
    pub(crate) async fn take(&self, wanted: usize) -> usize {
        poll_fn(|cx| {
            let mut credits = self.0.lock();
            let bytes = wanted.min(credits.bytes).min(MAX_PIECE_BYTES);
            if bytes == 0 {
                credits.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            credits.bytes -= bytes;
            Poll::Ready(bytes)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(queue: &InputQueue) -> Option<Result<Bytes, Lost>> {
        poll_fn(|cx| queue.poll_next(cx)).await
    }

    #[tokio::test]
    async fn what_is_taken_is_credited_in_large_pieces() {
        let outbox = Outbox::new(1 << 20);
        let queue = InputQueue::new(outbox.clone(), 7);
        for _ in 0..3 {
            queue.push(Bytes::from(vec![1; 30_000]), false);
        }
        queue.push(Bytes::new(), false);
        for _ in 0..2 {
            assert!(matches!(next(&queue).await, Some(Ok(piece)) if piece.len() == 30_000));
        }
        assert_eq!(outbox.unwritten(), 0);
        next(&queue).await;
        assert!(outbox.unwritten() > 0);
        queue.push(Bytes::new(), true);
        assert_eq!(next(&queue).await, None);
    }

    #[tokio::test]
    async fn an_input_that_is_lost_is_not_complete() {
        let queue = InputQueue::new(Outbox::new(1 << 20), 7);
        queue.push(Bytes::from_static(b"x"), false);
        queue.lose();
        queue.push(Bytes::from_static(b"y"), true);
        assert_eq!(next(&queue).await, Some(Ok(Bytes::from_static(b"x"))));
        assert_eq!(next(&queue).await, Some(Err(Lost)));
        assert_eq!(next(&queue).await, None);
    }

    #[tokio::test]
    async fn no_more_is_sent_than_the_window_and_what_was_credited() {
        let credits = OutputCredits::new();
        let mut taken = 0;
        for _ in 0..4 {
            taken += credits.take(1 << 20).await;
        }
        assert_eq!(taken, STREAM_WINDOW as usize);
        let mut more = std::pin::pin!(credits.take(100));
        assert!(poll_fn(|cx| Poll::Ready(more.as_mut().poll(cx))).await.is_pending());
        credits.add(60);
        assert_eq!(more.await, 60);
    }
}
