//! How a function fails.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use boki_log::error::Retry;

use crate::error::Error;

/// Longest code of a failure, in bytes.
const MAX_CODE_BYTES: usize = 255;
/// Most causes of an error that are told.
const CAUSES: usize = 16;

/// A function's error: what its caller gets instead of an output.
///
/// Every error becomes one with `?`. It is not an [`std::error::Error`] itself (so that this works), but it prints like
/// one. Unless it is [retryable](Failure::retryable) it is the call's result, and the call is not tried again.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
}

impl Failure {
    /// A failure, in words for humans.
    pub fn new(message: impl fmt::Display) -> Failure {
        Failure { code: String::new(), message: message.to_string(), retryable: false }
    }

    /// Gives it a code for programs, at most 255 bytes; a longer one is cut.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Failure {
        self.code = code.into();
        self.code.truncate(self.code.floor_char_boundary(MAX_CODE_BYTES));
        self
    }

    /// Says that trying again may help: the call is, as often as its function allows.
    #[must_use]
    pub fn retryable(mut self) -> Failure {
        self.retryable = true;
        self
    }

    /// Its words.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut message = error.to_string();
        let mut cause = error.source();
        for _ in 0..CAUSES {
            let Some(error) = cause else { break };
            let text = error.to_string();
            // Many errors repeat their cause's words in their own.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = error.source();
        }
        let failure = Failure::new(message);
        match (&error as &dyn Any).downcast_ref::<Error>() {
            None => failure,
            Some(error) => {
                let failure = failure.code(error.code());
                // What was done or not may come out differently in a new attempt: that is what attempts are for.
                if error.retry() == Retry::Never { failure } else { failure.retryable() }
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.code, self.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boki_log::LogError;

    #[test]
    fn errors_become_failures_with_their_causes_codes_and_retries() {
        let parse = "x".parse::<u64>().unwrap_err();
        assert_eq!(Failure::from(parse), Failure::new("invalid digit found in string"));
        let full = Failure::from(Error::Log(LogError::DiskFull));
        assert_eq!((full.code.as_str(), full.retryable), ("BK0301", true));
        let condition = Failure::from(Error::Log(LogError::DurableWithConditions));
        assert_eq!((condition.code.as_str(), condition.retryable), ("BK0203", false));
        let io = std::io::Error::other("no such planet");
        assert_eq!(Failure::from(io).message(), "no such planet");
    }

    #[test]
    fn a_long_code_is_cut_between_characters() {
        let failure = Failure::new("").code("\u{fc}".repeat(200));
        assert_eq!(failure.code.len(), 254);
    }
}
