//! How a call can fail. Every failure has a stable code with a page in `docs/errors/`.

use std::sync::Arc;

use boki_log::error::Retry;
use boki_log::{LogError, Position};
use boki_wire::ErrorReply;
use boki_wire::error::details_of;
use boki_wire::worker::CallId;
use serde_json::{Map, Value, json};

use crate::pool::PoolFailure;

/// Why a call has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No worker offers the function, and none that might is starting.
    #[error("no worker offers function {function:?}")]
    FunctionNotFound {
        /// The name that was called.
        function: Arc<str>,
    },
    /// No worker offers the function, and the pool that does, or may, cannot start one.
    #[error("function {function:?} has no worker: {why}")]
    PoolFailing {
        /// The name that was called.
        function: Arc<str>,
        /// What is wrong with the pool.
        why: Arc<PoolFailure>,
    },
    /// The function returned an error: that is the call's result.
    #[error("function {function:?} failed: {message}")]
    FunctionFailed {
        /// Which function.
        function: Arc<str>,
        /// The function's own code for it; may be empty.
        code: Arc<str>,
        /// The function's own words.
        message: Arc<str>,
        /// The function said that trying again may help (it was, as often as allowed).
        retryable: bool,
        /// What the caller has seen now, the function's own appends included.
        position: Position,
        /// How many attempts it took.
        attempts: u32,
    },
    /// Every attempt ended with the loss of its worker.
    #[error("function {function:?} was tried {attempts} times, and each time its worker was lost{}", became(reason))]
    WorkerLost {
        /// Which function.
        function: Arc<str>,
        /// How many attempts.
        attempts: u32,
        /// What became of the last one's process: "exited with status 3"; empty, if that is not known.
        reason: Arc<str>,
    },
    /// There was no result in time.
    #[error("function {function:?} gave no result in time (call {id})")]
    DeadlineExceeded {
        /// Which function.
        function: Arc<str>,
        /// The call. One that is on record goes on, and its result can be asked for.
        id: CallId,
    },
    /// Too many calls wait already.
    #[error("overloaded: {what} (the limit is {limit}); try again later")]
    Overloaded {
        /// Of what there is too much.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// As many calls wait under a limit as it lets wait.
    #[error("limit {limit:?} lets at most {queue} calls wait, and so many do; try again later")]
    LimitReached {
        /// The limit.
        limit: Arc<str>,
        /// How many it lets wait.
        queue: u32,
    },
    /// Functions call functions, deeper than they may.
    #[error("function {function:?} would be called more than {limit} levels deep: {chain}")]
    NestedTooDeep {
        /// The function that was called.
        function: Arc<str>,
        /// How deep calls may be nested.
        limit: u8,
        /// The functions that led to it, from the outermost.
        chain: Arc<str>,
    },
    /// The call could never run: it would wait for the end of a call that waits for it.
    #[error("function {function:?} would wait for itself: {what}")]
    WaitsForItself {
        /// The function that was called.
        function: Arc<str>,
        /// How.
        what: Arc<str>,
    },
    /// The call was given up.
    #[error("call {id} was cancelled")]
    Cancelled {
        /// The call.
        id: CallId,
    },
    /// The key belongs to a call with another input.
    #[error("idempotency key {key:?} was used for a call of {function:?} with another input")]
    KeyReused {
        /// The function.
        function: Arc<str>,
        /// The key.
        key: Arc<str>,
    },
    /// An input or output is larger than allowed.
    #[error("the {what} has {actual} bytes, the limit is {limit}")]
    PayloadTooLarge {
        /// What: "input" or "output".
        what: &'static str,
        /// How large it is.
        actual: u64,
        /// How large it may be.
        limit: u64,
    },
    /// An input or output ended before it was complete.
    #[error("the {what} ended before it was complete")]
    BodyCutShort {
        /// What: "input" or "output".
        what: &'static str,
    },
    /// The worker was lost when it had got some of an input that comes once.
    #[error("the worker of function {function:?} was lost, and some of the call's input with it")]
    InputGone {
        /// Which function.
        function: Arc<str>,
    },
    /// The input did not arrive in the call's time.
    #[error("the input for function {function:?} did not arrive in time")]
    InputTooSlow {
        /// Which function.
        function: Arc<str>,
    },
    /// A large payload that was stored beside the log is not what it was.
    #[error("the {what} of the call is damaged on disk: {reason}")]
    PayloadDamaged {
        /// What: "input" or "output".
        what: &'static str,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A large payload cannot be written to the disk or read from it.
    #[error("the {what} of the call cannot be stored or read: {reason}")]
    PayloadUnavailable {
        /// What: "input" or "output".
        what: &'static str,
        /// The system's words.
        reason: Arc<str>,
    },
    /// There is no record of such a call (any more) in the book.
    #[error("there is no call {id} on record in this book")]
    CallNotFound {
        /// The call.
        id: CallId,
    },
    /// The engine stops.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The call makes no sense.
    #[error("invalid call: {reason}")]
    InvalidCall {
        /// Why.
        reason: &'static str,
    },
    /// A worker that the engine does not take in.
    #[error("the worker cannot be registered: {reason}")]
    InvalidWorker {
        /// Why.
        reason: &'static str,
    },
    /// The record of the call could not be written or read.
    #[error("the record of the call: {0}")]
    Log(#[from] LogError),
}

fn became(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!("; the last one's process {reason}") }
}

impl CallError {
    /// Every code of this type, each with a page in `docs/errors/`.
    pub const CODES: &[&str] = &[
        "BK0401", "BK0402", "BK0403", "BK0404", "BK0405", "BK0406", "BK0407", "BK0408", "BK0409", "BK0410", "BK0411",
        "BK0412", "BK0413", "BK0414", "BK0415", "BK0417", "BK0418", "BK0420", "BK0421", "BK0422", "BK0430",
    ];

    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            CallError::FunctionNotFound { .. } => "BK0401",
            CallError::FunctionFailed { .. } => "BK0402",
            CallError::WorkerLost { .. } => "BK0403",
            CallError::DeadlineExceeded { .. } => "BK0404",
            CallError::Overloaded { .. } => "BK0405",
            CallError::Cancelled { .. } => "BK0406",
            CallError::KeyReused { .. } => "BK0407",
            CallError::PayloadTooLarge { .. } => "BK0408",
            CallError::CallNotFound { .. } => "BK0409",
            CallError::ShuttingDown => "BK0410",
            CallError::InvalidCall { .. } => "BK0411",
            CallError::InvalidWorker { .. } => "BK0412",
            CallError::PayloadDamaged { .. } => "BK0417",
            CallError::PayloadUnavailable { .. } => "BK0418",
            CallError::LimitReached { .. } => "BK0413",
            CallError::NestedTooDeep { .. } => "BK0414",
            CallError::WaitsForItself { .. } => "BK0415",
            CallError::BodyCutShort { .. } => "BK0420",
            CallError::InputGone { .. } => "BK0421",
            CallError::InputTooSlow { .. } => "BK0422",
            CallError::PoolFailing { .. } => "BK0430",
            CallError::Log(error) => error.code(),
        }
    }

    /// Whether a caller may try again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            CallError::FunctionNotFound { .. }
            | CallError::PoolFailing { .. }
            | CallError::Overloaded { .. }
            | CallError::ShuttingDown => Retry::Later,
            CallError::FunctionFailed { retryable: true, .. } | CallError::LimitReached { .. } => Retry::Later,
            CallError::PayloadUnavailable { .. } => Retry::Later,
            CallError::WorkerLost { .. }
            | CallError::DeadlineExceeded { .. }
            | CallError::BodyCutShort { .. }
            | CallError::InputGone { .. } => Retry::WithSameId,
            CallError::InputTooSlow { .. } => Retry::Later,
            CallError::Log(error) => error.retry(),
            _ => Retry::Never,
        }
    }

    /// What the caller has seen now, where a failed call tells it anything new.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            CallError::FunctionFailed { position, .. } => Some(*position),
            _ => None,
        }
    }

    /// The error's own fields, by name, for whoever renders it: `function`, `message`, `position`, ...
    #[must_use]
    pub fn details(&self) -> Map<String, Value> {
        let fields = match self {
            CallError::FunctionNotFound { function }
            | CallError::InputGone { function }
            | CallError::InputTooSlow { function } => json!({ "function": &**function }),
            CallError::PoolFailing { function, why } => json!({
                "function": &**function,
                "lines": why.lines.iter().map(|line| &**line).collect::<Vec<&str>>(),
                "pool": &*why.pool,
                "reason": &*why.reason,
            }),
            CallError::FunctionFailed { function, code, message, retryable, position, attempts } => json!({
                "attempts": attempts,
                "error": &**code,
                "function": &**function,
                "message": &**message,
                "position": position.0.0,
                "retryable": retryable,
            }),
            CallError::WorkerLost { function, attempts, reason } => {
                json!({ "attempts": attempts, "function": &**function, "reason": &**reason })
            }
            CallError::DeadlineExceeded { function, id } => json!({ "call": id.to_string(), "function": &**function }),
            CallError::Overloaded { what, limit } => json!({ "limit": limit, "what": what }),
            CallError::LimitReached { limit, queue } => json!({ "limit": &**limit, "queue": queue }),
            CallError::NestedTooDeep { function, limit, chain } => {
                json!({ "chain": &**chain, "function": &**function, "limit": limit })
            }
            CallError::WaitsForItself { function, what } => json!({ "function": &**function, "what": &**what }),
            CallError::Cancelled { id } | CallError::CallNotFound { id } => json!({ "call": id.to_string() }),
            CallError::KeyReused { function, key } => json!({ "function": &**function, "key": &**key }),
            CallError::PayloadTooLarge { what, actual, limit } => {
                json!({ "actual": actual, "limit": limit, "what": what })
            }
            CallError::BodyCutShort { what } => json!({ "what": what }),
            CallError::PayloadDamaged { what, reason } | CallError::PayloadUnavailable { what, reason } => {
                json!({ "reason": &**reason, "what": what })
            }
            CallError::InvalidCall { reason } | CallError::InvalidWorker { reason } => json!({ "reason": reason }),
            CallError::ShuttingDown => json!({}),
            CallError::Log(error) => return details_of(error),
        };
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

impl From<&CallError> for ErrorReply {
    fn from(error: &CallError) -> ErrorReply {
        match error {
            CallError::Log(error) => ErrorReply::from(error),
            error => ErrorReply::new(error.code(), error.to_string(), error.retry(), error.details()),
        }
    }
}
