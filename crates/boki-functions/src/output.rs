//! The output of an attempt, from its beginning on, as a stream for whoever called.
//!
//! As long as somebody holds it the attempt goes on, whatever its deadline was; dropping it gives the attempt up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use boki_log::Position;
use boki_wire::worker::{CancelReason, InvokeDone, Outcome};
use bytes::Bytes;
use futures_util::Stream;

use crate::body::BodyError;
use crate::dispatch::AttemptKey;
use crate::error::CallError;
use crate::exchange::{Ended, Next, Waiter};
use crate::functions::Shared;
use crate::input::Pump;
use crate::link::Invocation;

/// See the module.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) held: Holding,
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) attempts: u32,
    pub(crate) waiter: Waiter,
    /// Of the call at its end, once that has come.
    pub(crate) position: Position,
    /// Passes on the input, which may come while the output goes.
    pub(crate) pump: Option<Pump>,
}

/// An attempt that goes on as long as this lives.
pub(crate) struct Holding {
    shared: Arc<Shared>,
    /// `None`: it has ended.
    key: Option<AttemptKey>,
}

impl Holding {
    pub(crate) fn new(shared: &Arc<Shared>, key: AttemptKey) -> Holding {
        shared.counters.stream_opened();
        Holding { shared: Arc::clone(shared), key: Some(key) }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shared.counters.stream_closed();
        if let Some(key) = self.key.take() {
            self.shared.give_up(key, CancelReason::Caller);
        }
    }
}

impl std::fmt::Debug for Holding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Holding({:?})", self.key)
    }
}

impl Output {
    fn failure(&self, ended: Ended) -> Option<CallError> {
        let function = Arc::clone(&self.invocation.function);
        let attempts = self.attempts;
        match ended {
            Ended::Done(InvokeDone { outcome: Outcome::Ok { .. }, .. }) | Ended::Began(_) => None,
            Ended::Done(InvokeDone { position, outcome: Outcome::Err { code, message, retryable } }) => {
                let (code, message) = (code.into(), message.into());
                Some(CallError::FunctionFailed { function, code, message, retryable, position, attempts })
            }
            Ended::WorkerLost(_) => Some(CallError::WorkerLost { function, attempts, reason: Arc::default() }),
            Ended::Refused(error) => Some(error),
            Ended::GivenUp => Some(CallError::Cancelled { id: self.invocation.id }),
        }
    }
}

impl Stream for Output {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match ready!(self.waiter.poll_piece(cx)) {
            Next::Piece(piece) => Poll::Ready(Some(Ok(piece))),
            Next::End(ended, position) => {
                self.held.key = None;
                self.pump = None;
                self.position = self.position.max(position);
                let error = ended.and_then(|ended| self.failure(ended));
                Poll::Ready(error.map(|error| Err(BodyError::Call(Box::new(error)))))
            }
        }
    }
}
