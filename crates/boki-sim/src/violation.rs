//! A promise that was broken.

use std::fmt;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the check, as in `docs/simulation.md`.
    pub check: &'static str,
    /// What it saw.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.detail)
    }
}

/// Nothing, or what was broken.
pub type Checked<T = ()> = Result<T, Violation>;

/// That `holds`, else `check` was violated.
pub fn ensure(holds: bool, check: &'static str, detail: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { check, detail: detail() }) }
}

/// `check` was violated.
pub fn violated<T>(check: &'static str, detail: impl Into<String>) -> Checked<T> {
    Err(Violation { check, detail: detail.into() })
}
