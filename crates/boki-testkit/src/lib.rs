//! A whole Boki inside a test: a real server and a worker with your functions, in the test's own process, with virtual
//! time, and crashes where the test wants them.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use boki_sdk::Worker;
//! use boki_testkit::TestBoki;
//!
//! # async fn test(worker: Worker) {
//! let boki = TestBoki::start(worker).await;
//! boki.crash_after("append", 1);                          // the worker dies once it has appended
//! let sold: u64 = boki.call("sell", &"tea").await.unwrap();
//! assert_eq!(sold, 1);                                    // and yet only one was sold
//! boki.advance(Duration::from_secs(24 * 3600)).await;     // a day later
//! # }
//! ```
//!
//! - **Virtual time**: the clock stands still until [`TestBoki::advance`] moves it. Deadlines, pauses before another
//!   attempt, retention, rate limits and the times of records all follow it, and so do the tokio timers of your functions, which
//!   run beside the server.
//! - **Crashes**: [`TestBoki::crash_worker`], [`TestBoki::crash_after`] and [`TestBoki::crash_server_and_restart`]. A worker
//!   that crashes loses its connection and everything that its functions were about; what is in statics survives, since the
//!   process does.
//!
//! The server is the one that `boki server` runs. Its log lies in a temporary folder and is not synced to disk: nothing
//! here loses power. The clock is the whole server's, so functions must not block its thread: `std::thread::sleep` in a
//! function stops the server too (`tokio::task::spawn_blocking` is the way out).
//!
//! For what goes wrong in the kit itself (no folder for the log, no free port) it panics: there is nothing that a test could do.
#![deny(missing_docs)]

mod crash;
mod kit;
mod link;
mod running;

pub use kit::{Builder, TestBoki};

pub use boki_sdk as sdk;
