//! How a command ends when it did not do what was asked: a stable code, what happened, and what to do next.
//!
//! A [`Failure`] is the only error of this crate. It is printed once, by `main`, to standard error.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

/// Input or arguments make no sense.
pub(crate) const INVALID_INPUT: &str = "BK0701";
/// A file, pipe or process of this machine refuses.
pub(crate) const LOCAL_IO: &str = "BK0702";
/// A benchmark's server or worker answered what it must not.
pub(crate) const BENCH_BROKEN: &str = "BK0703";
/// A book that should be imported into has records.
pub(crate) const BOOK_NOT_EMPTY: &str = "BK0704";

/// A promise does not hold in `boki demo`, or the demo could not be run.
pub(crate) const DEMO_BROKEN: &str = "BK0705";

/// No token for deploying was found.
pub(crate) const NO_TOKEN: &str = "BK0706";
/// A folder cannot be packed.
pub(crate) const NOT_PACKED: &str = "BK0707";

/// The codes that come from the command line itself, each with a page in `docs/errors/`.
#[cfg(test)]
const CODES: &[&str] = &[INVALID_INPUT, LOCAL_IO, BENCH_BROKEN, BOOK_NOT_EMPTY, DEMO_BROKEN, NO_TOKEN, NOT_PACKED];

/// How the process ends, for scripts. Part of the interface: see `docs/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The operation failed.
    Failed = 1,
    /// Wrong usage, input or configuration. (clap uses the same number.)
    Usage = 2,
    /// The server cannot be reached, or did not start.
    Unavailable = 3,
    /// A condition did not hold, or a fence was met: nothing was appended.
    Condition = 4,
    /// There is no such book, record, function or call.
    NotFound = 5,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: String,
    what: String,
    next: String,
    exit: Exit,
    fields: Map<String, Value>,
    /// Whoever read the output has gone: nothing is to be said, as is the custom of pipes.
    silent: bool,
}

impl Failure {
    pub(crate) fn new(
        code: impl Into<String>,
        exit: Exit,
        what: impl Into<String>,
        next: impl Into<String>,
    ) -> Failure {
        let (code, what, next) = (code.into(), what.into(), next.into());
        Failure(Box::new(Parts { code, what, next, exit, fields: Map::new(), silent: false }))
    }

    /// Wrong usage or input.
    pub(crate) fn input(what: impl Into<String>, next: impl Into<String>) -> Failure {
        Failure::new(INVALID_INPUT, Exit::Usage, what, next)
    }

    /// This machine refuses `what`.
    pub(crate) fn io(what: impl Display, error: &io::Error) -> Failure {
        let next = match error.kind() {
            io::ErrorKind::NotFound => "look at the path",
            io::ErrorKind::PermissionDenied => "look at the permissions of the path",
            io::ErrorKind::StorageFull => "df -h, make room, then repeat the command",
            _ => "put it right, then repeat the command",
        };
        Failure::new(LOCAL_IO, Exit::Failed, format!("{what}: {error}"), next)
    }

    /// Writing to standard output failed.
    pub(crate) fn output(error: &io::Error) -> Failure {
        let mut failure = Failure::io("cannot write to standard output", error);
        failure.0.silent = error.kind() == io::ErrorKind::BrokenPipe;
        failure
    }

    /// Whether no server could be reached.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.0.exit == Exit::Unavailable
    }

    /// Adds fields that a program can read.
    pub(crate) fn with_fields(mut self, fields: Map<String, Value>) -> Failure {
        self.0.fields = fields;
        self
    }

    /// Says the failure to standard error, as lines for people or as JSON, and gives the exit code.
    pub(crate) fn report(&self, as_json: bool) -> ExitCode {
        let parts = &*self.0;
        if !parts.silent {
            if as_json {
                let mut error = parts.fields.clone();
                error.insert("code".to_owned(), parts.code.as_str().into());
                error.insert("message".to_owned(), parts.what.as_str().into());
                error.insert("next".to_owned(), parts.next.as_str().into());
                eprintln!("{}", json!({ "error": error }));
            } else {
                eprintln!("error {}: {}", parts.code, parts.what);
                eprintln!("  next: {}", parts.next);
            }
        }
        ExitCode::from(parts.exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page() {
        for code in CODES {
            assert!(boki_server::page(code).is_some(), "{code} has no page in docs/errors");
        }
    }
}
