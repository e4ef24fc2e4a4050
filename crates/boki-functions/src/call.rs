//! What a caller asks, and what it gets back.

use std::sync::Arc;
use std::time::Duration;

use boki_log::{BookId, Position};
use boki_wire::calls::MAX_PRIORITY;
use boki_wire::worker::{CallId, HttpHead, MAX_NAME_BYTES, OutputHead};
use bytes::Bytes;
use tokio::time::Instant;

use crate::body::Body;
use crate::dispatch::AttemptKey;
use crate::error::CallError;

/// Asks for one run of a function. Its argument is a `B`: a [`Body`], or [`Bytes`] if it is there as a whole.
#[derive(Clone, Debug)]
pub struct Call<B = Body> {
    /// Which function.
    pub function: Arc<str>,
    /// Its argument.
    pub input: B,
    /// Of the input; may be empty.
    pub content_type: Arc<str>,
    /// The HTTP request that it came by. A call on record runs without.
    pub http: Option<HttpHead>,
    /// The book that the function works in; the record of the call is kept there too, if there is one.
    pub book: BookId,
    /// What the caller has seen of that book.
    pub position: Position,
    /// Calls of a function with the same key, in the same book, are one call: it runs until it has a
    /// result, whatever crashes, and all get that result.
    pub idempotency_key: Option<Arc<str>>,
    /// How long the caller waits (and, with [`send`](crate::Functions::send), how long the call may take
    /// in all). `None`: the function's timeout; a call that was sent waits as long as it takes.
    pub deadline: Option<Duration>,
    /// The higher the sooner, 0 to [`MAX_PRIORITY`]; [`DEFAULT_PRIORITY`](boki_wire::calls::DEFAULT_PRIORITY) is the usual one.
    pub priority: u8,
    /// For whom it is: limits and fairness hold per such key.
    pub limit_key: Option<Arc<str>>,
    /// The attempt that calls, if a function does.
    pub parent: Option<Parent>,
}

/// An attempt that calls another function. Of no use once it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent(pub(crate) AttemptKey);

impl<B> Call<B> {
    /// The same call with another argument.
    pub(crate) fn with_input<C>(self, input: C) -> (Call<C>, B) {
        let Call {
            function,
            input: old,
            content_type,
            http,
            book,
            position,
            idempotency_key,
            deadline,
            priority,
            limit_key,
            parent,
        } = self;
        (
            Call {
                function,
                input,
                content_type,
                http,
                book,
                position,
                idempotency_key,
                deadline,
                priority,
                limit_key,
                parent,
            },
            old,
        )
    }

    /// That its names can travel.
    pub(crate) fn check(&self) -> Result<(), CallError> {
        let invalid = |reason| Err(CallError::InvalidCall { reason });
        if self.function.is_empty() {
            return invalid("the name of the function is empty");
        }
        if self.function.len() > MAX_NAME_BYTES {
            return invalid("the name of a function has at most 255 bytes");
        }
        if self.content_type.len() > MAX_NAME_BYTES {
            return invalid("a content type has at most 255 bytes");
        }
        match self.idempotency_key.as_deref() {
            Some("") => return invalid("an idempotency key is never empty"),
            Some(key) if key.len() > MAX_KEY_BYTES => return invalid("an idempotency key has at most 1024 bytes"),
            _ => {}
        }
        if self.priority > MAX_PRIORITY {
            return invalid("a priority is 0 to 9");
        }
        match self.limit_key.as_deref() {
            Some("") => return invalid("a limit key is never empty"),
            Some(key) if key.len() > MAX_NAME_BYTES => return invalid("a limit key has at most 255 bytes"),
            _ => {}
        }
        Ok(())
    }
}

/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// A call's result. Its output is a `B`: a [`Body`], or [`Bytes`] if it is there as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReply<B = Body> {
    /// The call.
    pub id: CallId,
    /// What the function returned.
    pub output: B,
    /// Of the output; may be empty.
    pub content_type: Arc<str>,
    /// The status and headers of an HTTP response, if the function made any. A call on record has none.
    pub head: Option<Box<OutputHead>>,
    /// What the caller has seen now: its own position or the function's, whichever is larger; of an output that is still to
    /// come, only its own.
    pub position: Position,
    /// How many attempts it took.
    pub attempts: u32,
}

impl<B> CallReply<B> {
    /// The same result with another output.
    pub(crate) fn with_output<C>(self, output: C) -> (CallReply<C>, B) {
        let CallReply { id, output: old, content_type, head, position, attempts } = self;
        (CallReply { id, output, content_type, head, position, attempts }, old)
    }
}

impl CallReply {
    /// The same with its whole output, of at most `limit` bytes.
    ///
    /// # Errors
    /// Whatever ended the output before it was complete.
    pub async fn whole(self, limit: usize) -> Result<CallReply<Bytes>, CallError> {
        let (reply, output) = self.with_output(Bytes::new());
        let output = output.gather(limit).await.map_err(|error| error.of("output"))?;
        Ok(CallReply { output, ..reply })
    }
}

/// A call that is on record: it will run, whatever crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// By which its result can be asked for.
    pub id: CallId,
    /// What the caller has seen now.
    pub position: Position,
}

/// What is known of a call that is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallStatus {
    /// The call.
    pub id: CallId,
    /// Which function.
    pub function: Arc<str>,
    /// Microseconds since 1970.
    pub accepted_us: u64,
    /// Whether it returned something, once it has ended.
    pub result: Option<Result<(), CallError>>,
}

/// A function as the engine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its name.
    pub name: Arc<str>,
    /// One line for humans; may be empty.
    pub description: Arc<str>,
    /// How many connected workers offer it.
    pub workers: usize,
    /// Attempts that run now.
    pub running: usize,
    /// Calls that wait, for a worker or, those on record, for their turn.
    pub queued: usize,
    /// How long a call may take unless the caller says otherwise.
    pub timeout: Duration,
    /// How often a call is tried at most.
    pub max_attempts: u32,
}

/// How much of a function is asked for, and how much of it there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its name.
    pub function: Arc<str>,
    /// Calls of it that wait for a place in a worker.
    pub waiting: usize,
    /// Calls of it that run.
    pub running: usize,
    /// How many calls the workers that offer it take at once; they may offer other functions too.
    pub places: usize,
}

/// A worker that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// How the engine names it.
    pub id: u64,
    /// What a human calls it.
    pub name: Arc<str>,
    /// Its process; 0: not told.
    pub pid: u32,
    /// How many calls it takes at once.
    pub concurrency: u32,
    /// How many it has.
    pub running: u32,
    /// It takes no more calls.
    pub draining: bool,
    /// Since when it has had no call; `None`: it has some.
    pub idle_since: Option<Instant>,
    /// What it offers.
    pub functions: Vec<Arc<str>>,
}
