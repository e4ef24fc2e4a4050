//! The worker of `boki bench call`: one function, which does nothing.

use boki_sdk::{Cx, Failure as Failed, Input, Output, Worker};

use crate::failure::{Exit, Failure};

/// The function's name.
pub(crate) const NOOP: &str = "noop";
/// More than any number of clients that the benchmark has.
const CONCURRENCY: u32 = 16_384;

/// The hidden command `bench-worker`: serves until the server goes away.
pub(crate) async fn worker() -> Result<(), Failure> {
    let worker = Worker::new().name("bench").concurrency(CONCURRENCY);
    let worker =
        worker.raw(NOOP, |_: Cx, input: Input| async move { Ok::<_, Failed>(Output::bytes(input.into_bytes())) });
    worker.serve().await.map_err(|error| {
        Failure::new(error.code(), Exit::Failed, error.to_string(), "this command is a part of `boki bench call`")
    })
}
