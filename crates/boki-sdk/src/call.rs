//! Calling functions.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use boki_log::{BookId, Position, Seq};
use boki_wire::calls::{DEFAULT_PRIORITY, MAX_PRIORITY};
use boki_wire::worker::CallId;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::answer::Answer;
use crate::book::Book;
use crate::error::{Error, Result};
use crate::payload::Payload;
use crate::question::Question;
use crate::random::random;
use crate::session::Lease;

/// A call in the making: await it to make it and get its output.
#[must_use = "nothing is called before this is awaited"]
pub struct Call {
    lease: Arc<Lease>,
    function: String,
    input: Payload,
    content_type: Option<String>,
    book: BookId,
    position: Arc<AtomicU64>,
    key: Option<String>,
    limit_key: Option<String>,
    priority: u8,
    parent: u64,
    deadline: Option<Duration>,
}

impl Call {
    pub(crate) fn new(
        lease: Arc<Lease>,
        function: String,
        input: Payload,
        book: BookId,
        position: Arc<AtomicU64>,
    ) -> Call {
        Call {
            lease,
            function,
            input,
            content_type: None,
            book,
            position,
            key: None,
            limit_key: None,
            priority: DEFAULT_PRIORITY,
            parent: 0,
            deadline: None,
        }
    }

    /// Calls of a function with the same key, in the same book, are one call: it runs until it has a result,
    /// whatever crashes, and all get that result.
    pub fn key(mut self, key: impl Into<String>) -> Call {
        self.key = Some(key.into());
        self
    }

    /// The book that the function works in. It sees what this book's session has seen, and the other way round.
    pub fn book(mut self, book: &Book) -> Call {
        self.book = book.id();
        self.position = book.seen();
        self
    }

    /// How long to wait for the result; otherwise as long as the function may take.
    pub fn deadline(mut self, deadline: Duration) -> Call {
        self.deadline = Some(deadline);
        self
    }

    /// The higher the sooner: 0 to 9 (a larger one is taken as 9); 5 otherwise.
    pub fn priority(mut self, priority: u8) -> Call {
        self.priority = priority.min(MAX_PRIORITY);
        self
    }

    /// For whom it is: limits and fairness hold per such key, so that one with many calls does not hold up the others.
    pub fn limit_key(mut self, key: impl Into<String>) -> Call {
        self.limit_key = Some(key.into());
        self
    }

    /// It is a child of this attempt.
    pub(crate) fn parent(mut self, corr: u64) -> Call {
        self.parent = corr;
        self
    }

    /// What the input is, where that does not follow from its type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Call {
        self.content_type = Some(content_type.into());
        self
    }

    /// Do not wait for the result: only until the call is on record, which makes it run whatever crashes.
    pub fn detach(self) -> Detached {
        Detached(self)
    }

    /// # Cancel-safety
    /// Dropping the future gives the call up; one that is on record goes on.
    async fn answer(self, detached: bool) -> Result<Answer> {
        let idempotency_key = match self.key {
            // So that it can be repeated when the connection breaks.
            None if detached => Some(format!("{:016x}{:016x}", random(), random())),
            key => key,
        };
        let content_type = self.content_type.unwrap_or_else(|| self.input.content_type.to_owned());
        let question = Question::Call(boki_wire::Call {
            book: self.book,
            position: Position(Seq(self.position.load(Ordering::Relaxed))),
            deadline: self.deadline,
            detached,
            priority: self.priority,
            parent: self.parent,
            function: self.function,
            idempotency_key,
            limit_key: self.limit_key,
            content_type,
            input: self.input.bytes?,
        });
        self.lease.0.answer(question, Some(self.position)).await
    }
}

impl IntoFuture for Call {
    type Output = Result<CallOutput>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<CallOutput>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.answer(false).await? {
                Answer::CallResult(result) => Ok(result.into()),
                _ => Err(Error::unexpected("not one to a call")),
            }
        })
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({:?})", self.function)
    }
}

/// A call whose result nobody waits for. Await it to make it.
#[must_use = "nothing is called before this is awaited"]
#[derive(Debug)]
pub struct Detached(Call);

impl IntoFuture for Detached {
    type Output = Result<Sent>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Sent>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            match self.0.answer(true).await? {
                Answer::CallAccepted(accepted) => Ok(Sent { id: accepted.call, position: accepted.position }),
                _ => Err(Error::unexpected("not one to a detached call")),
            }
        })
    }
}

/// A call that is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// By which its result can be asked for.
    pub id: CallId,
    /// What the caller has seen now.
    pub position: Position,
}

/// What a call returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOutput {
    /// The call.
    pub id: CallId,
    /// What the function returned.
    pub data: Bytes,
    /// Of the data; may be empty.
    pub content_type: String,
    /// What the caller has seen now.
    pub position: Position,
    /// How many attempts it took.
    pub attempts: u32,
}

impl CallOutput {
    /// The output, taken as JSON.
    ///
    /// # Errors
    /// [`Error::Json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.data)?)
    }
}

impl From<boki_wire::CallResult> for CallOutput {
    fn from(result: boki_wire::CallResult) -> CallOutput {
        CallOutput {
            id: result.call,
            data: result.output,
            content_type: result.content_type,
            position: result.position,
            attempts: result.attempts,
        }
    }
}
