//! Says what is wrong with a data directory, what that means for who has data in it, and mends what can be mended.
//!
//! - [`examine`] reads every file, changes nothing, and goes on behind damage, so that all of it is known at once.
//! - [`repair`] mends what it found: out of what is there, and of a copy of the same directory. Everything it makes it checks
//!   first and then puts in place with one rename; what was there before is kept in the folder `damaged`.
//!
//! It knows frames, groups, cuts and batches. It does not know the index, nor what functions keep in records.

#![deny(missing_docs)]

mod examine;
mod finding;
mod journal;
mod lost;
mod repair;

pub use examine::{Pace, Scope, examine};
pub use finding::{DoctorError, Finding, Lost, Report, Severity, Subject, Totals};
pub use repair::{Mended, Repair, repair};
