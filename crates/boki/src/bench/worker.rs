//! The workers of a benchmark: what `boki bench call` calls, and many functions that wait to be called.

use std::path::Path;
use std::time::{Duration, Instant};

use boki_sdk::{Cx, Failure as Failed, Input, InputStream, Output, OutputStream, Worker};

use crate::cli::BenchWorker;
use crate::failure::{Exit, Failure};
use crate::remote::shell_word;

/// The function that does nothing: it returns its input.
pub(crate) const NOOP: &str = "noop";
/// The function that calls [`NOOP`] and returns how many nanoseconds that took.
pub(crate) const OUTER: &str = "outer";
/// The function that returns its input piece by piece, as it comes.
pub(crate) const ECHO: &str = "echo";
/// The function that takes as many milliseconds as its input says.
pub(crate) const WORK: &str = "work";
/// More than any number of clients that the benchmark has.
const CONCURRENCY: u32 = 16_384;

/// The same functions in Python.
const PYTHON: &str = r#"
import time

import boki


@boki.function
async def noop(input: bytes) -> bytes:
    return input


@boki.function
async def outer(cx: boki.Cx, input: bytes) -> bytes:
    begin = time.perf_counter_ns()
    await cx.call("noop", input)
    return str(time.perf_counter_ns() - begin).encode()
"#;

/// One of the many functions.
pub(crate) fn idle_name(number: u32) -> String {
    format!("idle-{number}")
}

/// The hidden command `bench-worker`: serves until the server goes away.
pub(crate) async fn worker(args: BenchWorker) -> Result<(), Failure> {
    let worker = Worker::new().name("bench").concurrency(args.places.unwrap_or(CONCURRENCY));
    let worker = match args.functions {
        0 => worker.raw(NOOP, noop).raw(OUTER, outer).raw(WORK, work).streams(ECHO, echo),
        many => (args.first..args.first + many).fold(worker, |worker, number| worker.raw(idle_name(number), noop)),
    };
    worker.serve().await.map_err(|error| {
        Failure::new(error.code(), Exit::Failed, error.to_string(), "this command is a part of `boki bench`")
    })
}

async fn noop(_: Cx, input: Input) -> Result<Output, Failed> {
    Ok(Output::bytes(input.into_bytes()))
}

async fn echo(_: Cx, input: InputStream) -> Result<OutputStream, Failed> {
    Ok(OutputStream::new(input))
}

async fn work(_: Cx, input: Input) -> Result<Output, Failed> {
    let input = input.into_bytes();
    let millis = std::str::from_utf8(&input).ok().and_then(|text| text.parse().ok());
    let millis = millis.ok_or_else(|| Failed::new("the input is a number of milliseconds"))?;
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Ok(Output::bytes(input))
}

async fn outer(cx: Cx, input: Input) -> Result<Output, Failed> {
    let begin = Instant::now();
    cx.call_raw(NOOP, input.into_bytes()).await?;
    Ok(Output::bytes(begin.elapsed().as_nanos().to_string().into()))
}

/// Writes the functions in Python down in `folder`; returns the command that serves them.
pub(crate) fn python_command(folder: &Path) -> std::io::Result<String> {
    let file = folder.join("bench.py");
    std::fs::write(&file, PYTHON)?;
    let file = shell_word(&file.to_string_lossy());
    // A worker has none of the server's environment.
    let path =
        std::env::var("PYTHONPATH").map_or_else(|_| String::new(), |path| format!("PYTHONPATH={} ", shell_word(&path)));
    Ok(format!("{path}exec python3 -m boki --name bench --concurrency {CONCURRENCY} {file}"))
}
