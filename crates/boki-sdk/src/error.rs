//! How an operation of the client can fail.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use boki_log::error::Retry;
use boki_log::{LogError, Position, Seq};
use boki_wire::ErrorReply;

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not done, or is not known to be done. Each has a code with a page in `docs/errors/`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log's own, with its fields.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Another error of the server, in its words.
    #[error("{message}")]
    Remote {
        /// The stable code.
        code: String,
        /// The server's words.
        message: String,
        /// Whether, and how, to try again.
        retry: Retry,
        /// The error's own fields, as JSON; may be empty.
        details: String,
    },
    /// Not an address.
    #[error("invalid address {address:?}: {reason}")]
    InvalidAddress {
        /// What was given.
        address: String,
        /// Why not.
        reason: &'static str,
    },
    /// The first connection failed.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// The system's word.
        source: Arc<io::Error>,
    },
    /// The connection was lost, and no server could be reached since.
    #[error("no connection to {address} for {tried:?}: {last}")]
    Disconnected {
        /// Where to.
        address: String,
        /// How long it was tried.
        tried: Duration,
        /// What the last attempt met with.
        #[source]
        last: Arc<Error>,
    },
    /// The connection was lost after the request had been sent, and it cannot be repeated safely.
    #[error("the connection was lost while {what} was under way: it may have been done")]
    OutcomeUnknown {
        /// What was asked.
        what: &'static str,
    },
    /// The caller's own deadline passed. The operation may still be done.
    #[error("not done within {0:?}")]
    Deadline(Duration),
    /// The server's answer is not one to the question.
    #[error("the server's answer does not fit the question: {reason}")]
    UnexpectedAnswer {
        /// What is wrong with it.
        reason: String,
    },
    /// A value could not be turned into JSON, or the other way.
    #[error("JSON: {0}")]
    Json(#[source] Arc<serde_json::Error>),
    /// The client has been closed.
    #[error("the client is closed")]
    Closed,
    /// A worker offers two functions of the same name.
    #[error("the worker has two functions {function:?}")]
    FunctionTwice {
        /// The name.
        function: String,
    },
    /// The system gives a worker no threads to run on.
    #[error("the worker's runtime cannot be started: {source}")]
    Runtime {
        /// The system's word.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Every code of this type's own, each with a page in `docs/errors/`.
    pub const CODES: &[&str] =
        &["BK0611", "BK0612", "BK0613", "BK0614", "BK0615", "BK0616", "BK0617", "BK0618", "BK0619", "BK0620"];

    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Error::Log(error) => error.code(),
            Error::Remote { code, .. } => code,
            Error::InvalidAddress { .. } => "BK0611",
            Error::Connect { .. } => "BK0612",
            Error::Disconnected { .. } => "BK0613",
            Error::OutcomeUnknown { .. } => "BK0614",
            Error::Deadline(_) => "BK0615",
            Error::UnexpectedAnswer { .. } => "BK0616",
            Error::Json(_) => "BK0617",
            Error::Closed => "BK0618",
            Error::FunctionTwice { .. } => "BK0619",
            Error::Runtime { .. } => "BK0620",
        }
    }

    /// Whether a caller may try again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Error::Log(error) => error.retry(),
            Error::Remote { retry, .. } => *retry,
            Error::Connect { .. } => Retry::Later,
            Error::Disconnected { .. } | Error::OutcomeUnknown { .. } | Error::Deadline(_) => Retry::WithSameId,
            _ => Retry::Never,
        }
    }

    /// Whether an append did nothing because a condition did not hold: what it was made for has changed since. Read
    /// again, and decide again.
    #[must_use]
    pub fn is_condition_failed(&self) -> bool {
        matches!(self, Error::Log(LogError::ConditionFailed { .. }))
    }

    pub(crate) fn unexpected(reason: impl Into<String>) -> Error {
        Error::UnexpectedAnswer { reason: reason.into() }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::Json(Arc::new(error))
    }
}

impl From<&ErrorReply> for Error {
    fn from(reply: &ErrorReply) -> Error {
        if let Some(error) = reply.to_log_error() {
            return Error::Log(error);
        }
        Error::Remote {
            code: reply.code.clone(),
            message: reply.message.clone(),
            retry: reply.retry,
            details: String::from_utf8_lossy(&reply.details).into_owned(),
        }
    }
}

/// What the caller has seen, where a failed operation tells it anything new.
pub(crate) fn position_of(reply: &ErrorReply) -> Option<Position> {
    // Of all errors only those of calls carry one: the others need not be taken apart.
    if !reply.code.starts_with("BK04") {
        return None;
    }
    let position = reply.fields().get("position")?.as_u64()?;
    Some(Position(Seq(position).min(Seq::MAX)))
}
