//! Cases with a real server: what the worker does shows in the log, in results, and in what becomes of its calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use boki_functions::Functions;
use boki_sdk::{CallId, CallOutput, Client, Error, Json};
use boki_server::{Config, Server};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::cases::Data;
use crate::expect::Names;
use crate::process::{Start, WorkerProcess};

/// How long anything that is expected may take. Nothing that passes waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// A case with a real server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCase {
    /// Names it; says what holds.
    pub name: String,
    steps: Vec<Step>,
}

impl ServerCase {
    /// The functions that the case calls.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Call(call) | Step::Begin(call) | Step::Send(call) => Some(call.function.as_str()),
            Step::AtOnce(calls) => Some(calls.function.as_str()),
            _ => None,
        })
    }
}

/// One thing that the suite does, or expects.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Step {
    /// Calls a function and waits for the result.
    Call(Box<Call>),
    /// Calls a function; `end` waits for the result.
    Begin(Box<Call>),
    /// Puts a call on record; `end` waits for the result.
    Send(Box<Call>),
    /// Waits for the result of a call that was begun or sent.
    End {
        of: String,
        #[serde(flatten)]
        expected: Expected,
    },
    /// Gives up a call that was begun.
    GiveUp { of: String },
    /// Calls a function several times at once; the results, sorted.
    AtOnce(AtOnce),
    /// Appends a record.
    Append {
        #[serde(default)]
        book: Option<String>,
        tags: Vec<String>,
        data: String,
    },
    /// Waits for a record with this tag.
    Await {
        #[serde(default)]
        book: Option<String>,
        tag: String,
    },
    /// The records with this tag.
    Read {
        #[serde(default)]
        book: Option<String>,
        tag: String,
        records: Value,
    },
    /// Makes a book.
    CreateBook { name: String },
    /// The lines that were logged in a call.
    Logs { of: String, lines: Vec<String> },
    /// Kills the worker without a word, and starts it anew.
    KillWorker {},
    /// Stops the server, and starts it anew at the same address.
    RestartServer {},
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(rename = "as", default)]
    label: String,
    function: String,
    #[serde(default)]
    input: Value,
    /// Instead of `input`: bytes as they are.
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    book: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    deadline_ms: Option<u64>,
    #[serde(flatten)]
    expected: Expected,
}

/// How a call ends. Nothing said: somehow.
#[derive(Debug, Default, Deserialize)]
struct Expected {
    /// With this output, which is JSON.
    #[serde(default)]
    returns: Option<Value>,
    /// With these bytes.
    #[serde(default)]
    output: Option<Data>,
    /// With an error: its `code` and its own fields.
    #[serde(default)]
    fails: Option<Value>,
    /// After so many attempts.
    #[serde(default)]
    attempts: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtOnce {
    function: String,
    input: Value,
    times: u32,
    sorted: Value,
}

/// Runs a case.
pub(crate) async fn run(case: &ServerCase, command: &[String]) -> Result<(), String> {
    let mut run = Run::start(command).await?;
    let mut result = run.has_worker().await;
    for (number, step) in case.steps.iter().enumerate() {
        if result.is_err() {
            break;
        }
        result = run.step(step).await.map_err(|why| format!("step {}: {why}", number + 1));
    }
    run.finish(result).await
}

type Answer = Result<CallOutput, Error>;

/// A case that runs.
struct Run {
    command: Vec<String>,
    folder: TempDir,
    /// `None` only while it is being restarted.
    server: Option<Server>,
    address: SocketAddr,
    client: Client,
    worker: WorkerProcess,
    names: Names,
    begun: BTreeMap<String, JoinHandle<Answer>>,
    sent: BTreeMap<String, (boki_sdk::Book, CallId)>,
    calls: BTreeMap<String, CallId>,
}

async fn start_server(folder: &TempDir, address: SocketAddr) -> Result<Server, String> {
    let mut config = Config::default();
    config.server.listen = address;
    config.server.data = folder.path().join("data");
    // The suite tests workers, not disks.
    config.server.durability = boki_server::config::Durability::Memory;
    Box::pin(Server::start(config)).await.map_err(|error| format!("the server does not start: {error}"))
}

impl Run {
    async fn start(command: &[String]) -> Result<Run, String> {
        let folder = TempDir::new().map_err(|error| error.to_string())?;
        let server = start_server(&folder, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = server.local_addr();
        let client = Client::connect(&address.to_string()).await.map_err(|error| error.to_string())?;
        let url = address.to_string();
        let worker = WorkerProcess::start(&Start { command, url: &url, as_started_by_server: None })?;
        Ok(Run {
            command: command.to_vec(),
            folder,
            server: Some(server),
            address,
            client,
            worker,
            names: Names::default(),
            begun: BTreeMap::new(),
            sent: BTreeMap::new(),
            calls: BTreeMap::new(),
        })
    }

    /// A failure says what the worker printed.
    async fn finish(mut self, result: Result<(), String>) -> Result<(), String> {
        self.begun.into_values().for_each(|task| task.abort());
        self.client.close();
        let lines = self.worker.last_lines().await;
        if let Some(server) = self.server.take() {
            Box::pin(server.shutdown()).await;
        }
        let lines: String = lines.iter().map(|line| format!("\n    | {line}")).collect();
        result.map_err(|why| format!("{why}{lines}"))
    }

    fn functions(&self) -> Result<&Functions, String> {
        self.server.as_ref().map(Server::functions).ok_or_else(|| "there is no server".to_owned())
    }

    /// Until the worker has registered.
    async fn has_worker(&self) -> Result<(), String> {
        let functions = self.functions()?;
        let mut changes = functions.worker_changes();
        let registered = async { while functions.workers().is_empty() && changes.changed().await.is_ok() {} };
        let registered = timeout(PATIENCE, registered).await;
        registered.map_err(|_| format!("the worker does not register within {PATIENCE:?}"))
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Call(call) => {
                let answer = self.call(call).await?;
                let answer = timeout(PATIENCE, answer).await.map_err(|_| "the call does not end".to_owned())?;
                self.check(&call.label, answer, &call.expected)
            }
            Step::Begin(call) => {
                let answer = self.call(call).await?;
                self.begun.insert(call.label.clone(), tokio::spawn(answer));
                Ok(())
            }
            Step::Send(call) => {
                let book = self.book(call.book.as_deref()).await?;
                let sent = self.prepare(call, &book)?.detach().await.map_err(|error| error.to_string())?;
                self.calls.insert(call.label.clone(), sent.id);
                self.sent.insert(call.label.clone(), (book, sent.id));
                Ok(())
            }
            Step::End { of, expected } => {
                let answer = self.end(of).await?;
                self.check(of, answer, expected)
            }
            Step::GiveUp { of } => {
                let task = self.begun.remove(of).ok_or_else(|| format!("the case has not begun {of:?}"))?;
                task.abort();
                Ok(())
            }
            Step::AtOnce(calls) => self.at_once(calls).await,
            Step::Append { book, tags, data } => {
                let book = self.book(book.as_deref()).await?;
                let append = book.append(Bytes::from(data.clone())).tags(tags);
                append.await.map(|_| ()).map_err(|error| error.to_string())
            }
            Step::Await { book, tag } => {
                let book = self.book(book.as_deref()).await?;
                let found = book.read_next(1).tag(tag.clone()).wait(PATIENCE).first().await;
                match found.map_err(|error| error.to_string())? {
                    Some(_) => Ok(()),
                    None => Err(format!("no record with the tag {tag:?} within {PATIENCE:?}")),
                }
            }
            Step::Read { book, tag, records } => {
                let book = self.book(book.as_deref()).await?;
                let found = book.read_next(1).tag(tag.clone()).linearizable().limit(100).await;
                let found = found.map_err(|error| error.to_string())?;
                let found: Vec<Value> = found
                    .iter()
                    .map(|record| {
                        let tags: Vec<&str> = record.tags().collect();
                        let data = String::from_utf8_lossy(record.data());
                        json!({ "seq": record.seq.0, "tags": tags, "data": data })
                    })
                    .collect();
                self.names.check(records, &Value::Array(found))
            }
            Step::CreateBook { name } => {
                self.client.create_book(name).await.map(|_| ()).map_err(|error| error.to_string())
            }
            Step::Logs { of, lines } => {
                let id = self.calls.get(of).ok_or_else(|| format!("the case has no call {of:?}"))?;
                let logged = self.functions()?.logs(*id);
                let logged: Vec<&str> = logged.iter().map(|line| &*line.line).collect();
                if logged == *lines { Ok(()) } else { Err(format!("expected the lines {lines:?}, got {logged:?}")) }
            }
            Step::KillWorker {} => {
                self.worker.kill().await;
                self.is_without_worker().await?;
                let url = self.address.to_string();
                let start = Start { command: &self.command, url: &url, as_started_by_server: None };
                self.worker = WorkerProcess::start(&start)?;
                self.has_worker().await
            }
            Step::RestartServer {} => {
                if let Some(server) = self.server.take() {
                    Box::pin(server.shutdown()).await;
                }
                self.server = Some(start_server(&self.folder, self.address).await?);
                self.has_worker().await
            }
        }
    }

    /// Until the server has noticed that the worker is gone.
    async fn is_without_worker(&self) -> Result<(), String> {
        let functions = self.functions()?;
        let mut changes = functions.worker_changes();
        let gone = async { while !functions.workers().is_empty() && changes.changed().await.is_ok() {} };
        timeout(PATIENCE, gone).await.map_err(|_| "the server does not notice that the worker is gone".to_owned())
    }

    async fn book(&self, name: Option<&str>) -> Result<boki_sdk::Book, String> {
        self.client.book(name.unwrap_or("default")).await.map_err(|error| error.to_string())
    }

    fn prepare(&self, call: &Call, book: &boki_sdk::Book) -> Result<boki_sdk::Call, String> {
        let mut prepared = match &call.data {
            Some(data) => self.client.call(&call.function, Bytes::from(data.bytes()?)),
            None => self.client.call(&call.function, Json(self.names.fill(&call.input)?)),
        };
        prepared = prepared.book(book);
        if let Some(key) = &call.key {
            prepared = prepared.key(key);
        }
        if let Some(deadline_ms) = call.deadline_ms {
            prepared = prepared.deadline(Duration::from_millis(deadline_ms));
        }
        Ok(prepared)
    }

    async fn call(&self, call: &Call) -> Result<impl Future<Output = Answer> + Send + 'static, String> {
        let book = self.book(call.book.as_deref()).await?;
        let prepared = self.prepare(call, &book)?;
        Ok(async move { prepared.await })
    }

    async fn end(&mut self, of: &str) -> Result<Answer, String> {
        if let Some(task) = self.begun.remove(of) {
            return match timeout(PATIENCE, task).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("the call {of:?} does not end")),
            };
        }
        let (book, id) = self.sent.remove(of).ok_or_else(|| format!("the case has no open call {of:?}"))?;
        match self.client.call_result(&book, id, Some(PATIENCE)).await {
            Ok(Some(output)) => Ok(Ok(output)),
            Ok(None) => Err(format!("the call {of:?} does not end")),
            Err(error) => Ok(Err(error)),
        }
    }

    fn check(&mut self, label: &str, answer: Answer, expected: &Expected) -> Result<(), String> {
        match answer {
            Ok(output) => {
                self.calls.insert(label.to_owned(), output.id);
                if let Some(fails) = &expected.fails {
                    return Err(format!("expected the error {fails}, got an output of {} bytes", output.data.len()));
                }
                if let Some(attempts) = expected.attempts.filter(|attempts| *attempts != output.attempts) {
                    return Err(format!("expected {attempts} attempts, got {}", output.attempts));
                }
                if let Some(data) = &expected.output {
                    let wanted = data.bytes()?;
                    if output.data != wanted {
                        return Err(format!("expected {} bytes, got {} others", wanted.len(), output.data.len()));
                    }
                }
                match &expected.returns {
                    None => Ok(()),
                    Some(pattern) => {
                        let value: Value = output.json().map_err(|error| error.to_string())?;
                        self.names.check(pattern, &value)
                    }
                }
            }
            Err(error) => match &expected.fails {
                None => Err(format!("expected a result, got {}: {error}", error.code())),
                Some(pattern) => self.names.check(pattern, &described(&error)),
            },
        }
    }

    async fn at_once(&mut self, calls: &AtOnce) -> Result<(), String> {
        let book = self.book(None).await?;
        let input = self.names.fill(&calls.input)?;
        let mut tasks = Vec::new();
        for _ in 0..calls.times {
            let call = self.client.call(&calls.function, Json(&input)).book(&book).deadline(PATIENCE);
            tasks.push(tokio::spawn(async move { call.await }));
        }
        let mut results = Vec::new();
        for task in tasks {
            let output = task.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            results.push(output.json::<Value>().map_err(|error| error.to_string())?);
        }
        results.sort_by(|a, b| match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.to_string().cmp(&b.to_string()),
        });
        self.names.check(&calls.sorted, &Value::Array(results))
    }
}

/// An error's code and its own fields.
fn described(error: &Error) -> Value {
    let mut value = match error {
        Error::Remote { details, .. } => serde_json::from_str(details).unwrap_or_else(|_| json!({})),
        _ => json!({}),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("code".to_owned(), error.code().into());
        fields.insert("text".to_owned(), error.to_string().into());
    }
    value
}
