//! The conformance suite: whether a worker, in whatever language, keeps to the worker protocol.
//!
//! The cases are data, in the folder `conformance/`; `docs/conformance.md` says which functions the worker under test
//! offers. There are two kinds of case:
//!
//! - [`link`]: the suite plays the server's side of the worker link by itself. Only so can it send garbage, cut the
//!   connection, starve a stream of credit, and see each frame that the worker sends.
//! - [`server`]: a real server, for what only the whole can show: the log and calls from inside a function, positions,
//!   deadlines, and what becomes of a call whose worker is killed.
//!
//! Every case has a process of its own. A case passes, fails with what was expected and what came instead, or is skipped
//! because the worker does not offer an optional function.
#![deny(missing_docs)]

mod cases;
mod expect;
pub mod link;
mod process;
pub mod server;
mod suite;

pub use cases::{Cases, CasesError, OPTIONAL_FUNCTIONS};
pub use suite::{CaseReport, Outcome, Settings, run};
