//! What a caller asks, and what it gets back.

use std::sync::Arc;
use std::time::Duration;

use boki_log::{BookId, Position};
use boki_wire::worker::{CallId, MAX_NAME_BYTES};
use bytes::Bytes;

use crate::error::CallError;

/// Asks for one run of a function.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which function.
    pub function: Arc<str>,
    /// Its argument.
    pub input: Bytes,
    /// Of the input; may be empty.
    pub content_type: Arc<str>,
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
}

impl Call {
    /// That its names can travel.
    pub(crate) fn check(&self, payload_bytes: usize) -> Result<(), CallError> {
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
        if self.input.len() > payload_bytes {
            return Err(CallError::PayloadTooLarge {
                what: "input",
                actual: self.input.len() as u64,
                limit: payload_bytes as u64,
            });
        }
        Ok(())
    }
}

/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// A call's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReply {
    /// The call.
    pub id: CallId,
    /// What the function returned.
    pub output: Bytes,
    /// Of the output; may be empty.
    pub content_type: Arc<str>,
    /// What the caller has seen now: its own position or the function's, whichever is larger.
    pub position: Position,
    /// How many attempts it took.
    pub attempts: u32,
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
    /// Its result, once there is one.
    pub result: Option<Result<CallReply, CallError>>,
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
    /// Calls that wait for a worker.
    pub queued: usize,
    /// How long a call may take unless the caller says otherwise.
    pub timeout: Duration,
    /// How often a call is tried at most.
    pub max_attempts: u32,
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
    /// What it offers.
    pub functions: Vec<Arc<str>>,
}
