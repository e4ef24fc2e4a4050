//! What a case of the link consists of.

use serde::Deserialize;
use serde_json::Value;

use crate::cases::Data;

/// A case in which the suite plays the server.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkCase {
    /// Names it; says what holds.
    pub name: String,
    /// `BOKI_WORKER` and `BOKI_VERSION` are set, as for a worker that the server started.
    #[serde(default)]
    pub(super) started_by_server: bool,
    pub(super) steps: Vec<Step>,
}

impl LinkCase {
    /// The functions that the case calls.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match step {
            Step::Invoke(invoke) if invoke.is_offered => Some(invoke.function.as_str()),
            _ => None,
        })
    }
}

/// One thing that the suite does, or expects. `of` and `to` name what an `as` before has named.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// Takes the next connection: handshake and registration.
    Connect(Connect),
    /// Sends an Invoke.
    Invoke(Box<Invoke>),
    /// Sends so many bytes of input, as the credit allows, the last piece marked as such.
    StreamInput { of: String, fill: u8, bytes: usize },
    /// Sends one piece of input.
    Input { of: String, data: Data, last: bool },
    /// Sends an InvokeCancel.
    Cancel { of: String, reason: u8 },
    /// Sends an OutputCredit.
    Credit { of: String, bytes: u32 },
    /// Sends a Drain.
    Drain {},
    /// Sends a Ping.
    Ping { corr: u64 },
    /// Sends a frame of any kind.
    Frame { kind: u8, corr: u64, body: Data },
    /// Sends bytes that are no frame.
    Raw(Data),
    /// Everything that is sent until `apart` goes byte by byte.
    ByteByByte {},
    /// Everything that is sent until `apart` goes in one write.
    Together {},
    /// Ends `together` and `byte_by_byte`.
    Apart {},
    /// Answers a question.
    Answer { to: String, with: Answer },
    /// Ends the connection without a word.
    Cut {},
    /// Sends the process SIGTERM.
    Terminate {},

    /// The call's InvokeDone.
    Done(Done),
    /// A question of a function.
    Asks {
        #[serde(rename = "as")]
        label: String,
        kind: String,
        #[serde(default)]
        with: Option<Value>,
    },
    /// A Pong with this corr.
    Pong { corr: u64 },
    /// A Drain from the worker.
    Drained {},
    /// The call's OutputHead.
    Head {
        of: String,
        #[serde(default)]
        status: Option<u16>,
        #[serde(default)]
        content_type: Option<String>,
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// So many bytes of OutputData, and nothing beyond.
    Output { of: String, bytes: usize },
    /// A line in the log.
    Log { of: String, line: String },
    /// Nothing but what was expected has come.
    Quiet {},
    /// The worker ends the connection.
    Closed {},
    /// The process ends.
    Exits {},
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Connect {
    /// Instead of the greeting.
    pub(super) refuse: Option<Refusal>,
    /// Instead of taking the registration.
    pub(super) refuse_registration: Option<Refusal>,
    /// The greeting goes byte by byte.
    pub(super) byte_by_byte: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refusal {
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
    /// Trying again later may help.
    #[serde(default)]
    pub(super) later: bool,
    /// The error's own fields.
    #[serde(default)]
    pub(super) details: serde_json::Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invoke {
    #[serde(rename = "as")]
    pub(super) label: String,
    pub(super) function: String,
    #[serde(default)]
    pub(super) input: Option<Data>,
    #[serde(default)]
    pub(super) content_type: String,
    #[serde(default = "one")]
    pub(super) attempt: u32,
    #[serde(default)]
    pub(super) deadline_ms: u32,
    #[serde(default = "book")]
    pub(super) book: u64,
    #[serde(default = "book_name")]
    pub(super) book_name: String,
    #[serde(default)]
    pub(super) position: u64,
    #[serde(default)]
    pub(super) more_input: bool,
    #[serde(default)]
    pub(super) http: Option<Http>,
    /// `false`: the worker is not expected to know the function.
    #[serde(default = "yes")]
    pub(super) is_offered: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    Appended { seq: u64, position: u64 },
    Records { position: u64, records: Vec<Record> },
    Tail { seq: u64, position: u64 },
    Result { position: u64, output: Value },
    Error(Refusal),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) seq: u64,
    pub(super) tags: Vec<String>,
    pub(super) data: String,
}

/// How a call ends. Nothing but `of`: somehow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    pub(super) of: String,
    #[serde(default)]
    pub(super) output: Option<Data>,
    #[serde(default)]
    pub(super) json: Option<Value>,
    /// Of the output.
    #[serde(default)]
    pub(super) content_type: Option<String>,
    /// Its code, message and retryable.
    #[serde(default)]
    pub(super) failure: Option<Value>,
    #[serde(default)]
    pub(super) position: Option<u64>,
}

fn one() -> u32 {
    1
}

fn book() -> u64 {
    12
}

fn book_name() -> String {
    "orders".to_owned()
}

fn yes() -> bool {
    true
}
