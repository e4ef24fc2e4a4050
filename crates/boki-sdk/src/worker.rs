//! A worker: offers functions to a server and runs them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use boki_log::LogError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::cx::Cx;
use crate::error::{Error, Result};
use crate::failure::Failure;
use crate::function::{Function, HttpFunction, Input, JsonFunction, Output, RawFunction, StreamFunction};
use crate::http::{Request, Response};
use crate::options::ConnectOptions;
use crate::stream::InputStream;
use crate::worker_side::{Phase, Side};

/// Where the server is, unless [`Worker::server`] or the environment says.
const DEFAULT_SERVER: &str = "127.0.0.1:2654";
/// How many calls a worker takes at once, unless it says.
const DEFAULT_CONCURRENCY: u32 = 100;
/// A worker that the server started ends when it cannot reach the server for so long: there is a new one by then,
/// which starts its own.
const ORPHANED_AFTER: Duration = Duration::from_secs(10);

/// A worker in the making. Clones are workers of their own, with the same functions.
///
/// ```no_run
/// use boki_sdk::prelude::*;
///
/// fn main() -> boki_sdk::Result<()> {
///     Worker::new()
///         .function("double", |_cx: Cx, number: u64| async move { Ok(number * 2) })
///         .run()
/// }
/// ```
///
/// It connects to the server of `BOKI_URL`, and again when the connection is lost. A call whose worker is lost is tried
/// again: functions may run more than once.
#[derive(Clone)]
#[must_use = "a worker does nothing before it is run"]
pub struct Worker {
    name: Option<String>,
    server: Option<String>,
    concurrency: u32,
    functions: BTreeMap<String, Arc<dyn Function>>,
    twice: Option<String>,
    stop: CancellationToken,
}

impl Default for Worker {
    fn default() -> Worker {
        Worker::new()
    }
}

impl Worker {
    /// Offers nothing as yet.
    pub fn new() -> Worker {
        Worker {
            name: None,
            server: None,
            concurrency: DEFAULT_CONCURRENCY,
            functions: BTreeMap::new(),
            twice: None,
            stop: CancellationToken::new(),
        }
    }

    /// What a human calls it; otherwise the name of the program.
    pub fn name(mut self, name: impl Into<String>) -> Worker {
        self.name = Some(name.into());
        self
    }

    /// Where the server is; otherwise `BOKI_URL`, otherwise `127.0.0.1:2654`.
    pub fn server(mut self, address: impl Into<String>) -> Worker {
        self.server = Some(address.into());
        self
    }

    /// How many calls it takes at once (100).
    pub fn concurrency(mut self, calls: u32) -> Worker {
        self.concurrency = calls.max(1);
        self
    }

    /// Offers a function that [`function`](crate::function) made, by its name; or what a closure returns.
    pub fn with<F: Function>(mut self, function: impl FnOnce() -> F) -> Worker {
        let function = function();
        let name = function.spec().name;
        if self.functions.insert(name.clone(), Arc::new(function)).is_some() {
            self.twice = Some(name);
        }
        self
    }

    /// Offers a closure as a function: input and output are JSON.
    pub fn function<H, I, F, O>(self, name: impl Into<String>, handler: H) -> Worker
    where
        H: Fn(Cx, I) -> F + Send + Sync + 'static,
        I: DeserializeOwned + 'static,
        F: Future<Output = std::result::Result<O, Failure>> + Send + 'static,
        O: Serialize + 'static,
    {
        self.with(|| JsonFunction::new(name.into(), handler))
    }

    /// Offers a closure as a function: input and output are bytes.
    pub fn raw<H, F>(self, name: impl Into<String>, handler: H) -> Worker
    where
        H: Fn(Cx, Input) -> F + Send + Sync + 'static,
        F: Future<Output = std::result::Result<Output, Failure>> + Send + 'static,
    {
        self.with(|| RawFunction::new(name.into(), handler))
    }

    /// Offers a closure as a function that takes its input piece by piece; its output is bytes, or a stream of them.
    pub fn streams<H, F, O>(self, name: impl Into<String>, handler: H) -> Worker
    where
        H: Fn(Cx, InputStream) -> F + Send + Sync + 'static,
        F: Future<Output = std::result::Result<O, Failure>> + Send + 'static,
        O: Into<Output> + 'static,
    {
        self.with(|| StreamFunction::new(name.into(), handler))
    }

    /// Offers a closure as a function that answers HTTP requests.
    pub fn http<H, F>(self, name: impl Into<String>, handler: H) -> Worker
    where
        H: Fn(Cx, Request) -> F + Send + Sync + 'static,
        F: Future<Output = std::result::Result<Response, Failure>> + Send + 'static,
    {
        self.with(|| HttpFunction::new(name.into(), handler))
    }

    /// Ends the worker when `stop` is cancelled: it takes no more calls, finishes those it has, and returns.
    pub fn stop_when(mut self, stop: CancellationToken) -> Worker {
        self.stop = stop;
        self
    }

    /// Serves calls until the process is asked to end (SIGTERM, SIGINT), on a runtime of its own.
    ///
    /// # Errors
    /// As [`Worker::serve`].
    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Runtime { source: Arc::new(error) })?;
        runtime.block_on(async {
            let stop = self.stop.clone();
            tokio::spawn(async move {
                asked_to_end().await;
                stop.cancel();
            });
            self.serve().await
        })
    }

    /// Serves calls, until it is [told to stop](Worker::stop_when), or the server that started it goes away.
    ///
    /// # Errors
    /// If the server refuses the worker for good, or the first connection fails for a reason that does not pass.
    pub async fn serve(self) -> Result<()> {
        if let Some(function) = self.twice {
            return Err(Error::FunctionTwice { function });
        }
        let server = self.server.or_else(|| std::env::var("BOKI_URL").ok());
        let process = std::env::var("BOKI_WORKER").unwrap_or_default();
        let started_by_server = !process.is_empty();
        let name = self.name.unwrap_or_else(program);
        let side = Side::new(name.clone(), process, self.concurrency, self.functions);
        let options = ConnectOptions::new(server.as_deref().unwrap_or(DEFAULT_SERVER))?.name(name).wait_for_server();
        let client = tokio::select! {
            client = Client::connect_as_worker(options, Arc::new(Arc::clone(&side))) => client?,
            () = self.stop.cancelled() => return Ok(()),
        };
        side.start(client);
        let result = attend(&side, &self.stop, started_by_server).await;
        side.finish().await;
        side.close().await;
        result
    }
}

/// Until the worker is to end, and why.
async fn attend(side: &Side, stop: &CancellationToken, started_by_server: bool) -> Result<()> {
    let mut phases: watch::Receiver<Phase> = side.phases();
    loop {
        let phase = phases.borrow_and_update().clone();
        let may_be_orphaned = started_by_server && matches!(phase, Phase::Disconnected);
        match phase {
            // The server says so again to whoever connects next.
            Phase::Refused(Error::Log(LogError::ShuttingDown)) => {}
            Phase::Refused(ref error) if error.code() == "BK0410" => {}
            Phase::Refused(error) => return Err(error),
            // A worker that nobody would start again waits for the next server.
            Phase::Draining if started_by_server => return Ok(()),
            Phase::Draining | Phase::Connected | Phase::Disconnected => {}
        }
        tokio::select! {
            changed = phases.changed() => if changed.is_err() { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
            () = sleep(ORPHANED_AFTER), if may_be_orphaned => return Ok(()),
        }
    }
}

fn program() -> String {
    let program = std::env::args_os().next();
    let stem = program.as_ref().and_then(|program| std::path::Path::new(program).file_stem());
    stem.map_or_else(|| "worker".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process as they are.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({:?})", self.functions.keys())
    }
}

/// Runs a worker with these functions until the process is asked to end: the body of a `main`.
///
/// ```ignore
/// fn main() -> boki::Result<()> {
///     boki::serve![hold, book]
/// }
/// ```
#[macro_export]
macro_rules! serve {
    ($($function:expr),+ $(,)?) => { $crate::Worker::new()$(.with($function))+.run() };
}
