//! What a test holds in its hands.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boki_node::Clock;
use boki_sdk::{Book, Client, Json, Result, Sent, Worker};
use boki_server::Config;
use boki_server::config::Durability;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::crash::{Crashes, Operation};
use crate::running::{self, Request, Setup};

/// A server and a worker that run in this process, for one test. Dropping it ends both at once.
pub struct TestBoki {
    requests: mpsc::Sender<Request>,
    clock: Clock,
    crashes: Arc<Crashes>,
    address: SocketAddr,
    client: Client,
}

/// A [`TestBoki`] in the making.
#[must_use = "nothing runs before it is started"]
pub struct Builder {
    worker: Worker,
    config: Config,
    start: SystemTime,
}

impl Builder {
    /// The time that the clock shows at first; otherwise the present.
    pub fn time(mut self, start: SystemTime) -> Builder {
        self.start = start;
        self
    }

    /// Changes a setting, as `boki.toml` could. Where data lies and what is listened on is the kit's to say.
    pub fn config(mut self, change: impl FnOnce(&mut Config)) -> Builder {
        change(&mut self.config);
        self
    }

    /// Starts it. When this returns, the worker's functions can be called.
    ///
    /// # Panics
    /// If the server or the worker does not start.
    pub async fn start(self) -> TestBoki {
        let Builder { worker, mut config, start } = self;
        let folder = TempDir::new().unwrap_or_else(|error| panic!("no temporary folder for the log: {error}"));
        config.server.data = folder.path().join("data");
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        // The process may crash, in a manner of speaking; the machine does not.
        config.server.durability = Durability::Memory;
        let since = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = Clock::virtual_from(u64::try_from(since.as_micros()).unwrap_or(u64::MAX));
        let crashes = Arc::new(Crashes::default());
        let setup = Setup { _folder: folder, config, clock: clock.clone(), worker, crashes: Arc::clone(&crashes) };
        let (requests, ready) = running::start(setup);
        let address = match ready.await {
            Ok(Ok(address)) => address,
            Ok(Err(why)) => panic!("{why}"),
            Err(_) => panic!("the thread of the server cannot be started"),
        };
        let client = Client::connect(&address.to_string()).await;
        let client = client.unwrap_or_else(|error| panic!("the server does not answer: {error}"));
        TestBoki { requests, clock, crashes, address, client }
    }
}

impl TestBoki {
    /// Starts a server, and this worker beside it.
    ///
    /// # Panics
    /// If one of them does not start.
    pub async fn start(worker: Worker) -> TestBoki {
        TestBoki::builder(worker).start().await
    }

    /// As [`TestBoki::start`], with settings.
    pub fn builder(worker: Worker) -> Builder {
        Builder { worker, config: Config::default(), start: SystemTime::now() }
    }

    /// Where its HTTP API is: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of the server, for everything that has no shorter way here: calls with keys, deadlines and books.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A book, which is made if there is none of that name.
    ///
    /// # Panics
    /// If no book can have that name, or the server does not answer.
    pub async fn book(&self, name: &str) -> Book {
        let book = match self.client.book(name).await {
            Err(error) if error.code() == "BK0110" => self.client.create_book(name).await,
            found => found,
        };
        book.unwrap_or_else(|error| panic!("the book {name:?}: {error}"))
    }

    /// Calls a function, input and output as JSON.
    ///
    /// # Errors
    /// The call's.
    pub async fn call<O: DeserializeOwned>(&self, function: &str, input: &impl Serialize) -> Result<O> {
        self.client.call(function, Json(input)).await?.json()
    }

    /// Puts a call on record, and does not wait for it.
    ///
    /// # Errors
    /// The call is not on record.
    pub async fn send(&self, function: &str, input: &impl Serialize) -> Result<Sent> {
        self.client.call(function, Json(input)).detach().await
    }

    /// The result of a call that was [sent](TestBoki::send). Waits for it as long as it takes.
    ///
    /// # Errors
    /// The call's.
    pub async fn result<O: DeserializeOwned>(&self, sent: &Sent) -> Result<O> {
        // The wait is told to the server, whose time stands still.
        let wait = Some(Duration::from_secs(3600));
        loop {
            if let Some(output) = self.client.default_call_result(sent.id, wait).await? {
                return output.json();
            }
        }
    }

    /// Lets so much time pass, at once, up to 365 days. What falls due on the way happens at the new time. Returns when all of
    /// it has begun; what follows from it is awaited like anything else.
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn advance(&self, by: Duration) {
        self.ask(|done| Request::Advance(by, done)).await;
    }

    /// What the server's clock shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(self.clock.wall_us())
    }

    /// Waits until at least so many calls pause, because their functions failed and said that trying again may help. They
    /// go on when the time [is advanced](TestBoki::advance).
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn pausing(&self, calls: usize) {
        self.ask(|done| Request::Pausing(calls, done)).await;
    }

    /// Lets the worker crash now. Returns when there is a new one.
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn crash_worker(&self) {
        self.ask(Request::CrashWorker).await;
    }

    /// Lets the worker crash, once, at the `nth` such operation of an attempt: right after the server has done it, and before
    /// the function hears of that. There is a new worker at once.
    ///
    /// The operations are `append`, `trim`, `read`, `tail`, `tags`, `set_aux`, `call` and `send`; besides, `start` (the
    /// attempt has not begun yet) and `return` (the function has returned, and nobody knows). While several calls run
    /// at once, their operations are counted together.
    ///
    /// # Panics
    /// If there is no such operation.
    pub fn crash_after(&self, operation: &str, nth: u32) {
        let operation = Operation::named(operation).unwrap_or_else(|why| panic!("{why}"));
        self.crashes.plan(operation, nth);
    }

    /// Lets the server crash, and starts it anew on what is left: everything that was acknowledged. What else was in its
    /// memory is lost; the worker connects again. Time stands still meanwhile.
    ///
    /// # Panics
    /// If the server does not start again.
    pub async fn crash_server_and_restart(&self) {
        self.ask(Request::CrashServer).await;
    }

    /// Ends worker and server in good order: what runs may finish. For a test of just that; otherwise dropping will do.
    ///
    /// # Panics
    /// If the server has ended.
    pub async fn shutdown(self) {
        self.client.close();
        self.ask(Request::Shutdown).await;
    }

    async fn ask(&self, request: impl FnOnce(oneshot::Sender<()>) -> Request) {
        let (done, is_done) = oneshot::channel();
        let sent = self.requests.send(request(done)).await;
        if sent.is_err() || is_done.await.is_err() {
            panic!("the server of this test has ended");
        }
    }
}

impl fmt::Debug for TestBoki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestBoki").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("worker", &self.worker).finish_non_exhaustive()
    }
}
