//! The worker link: what an engine and a worker process tell each other about functions and calls.
//!
//! These are frame kinds 64..=95. They share a connection with the client operations of this crate: a
//! worker that reads the log or calls another function sends ordinary client frames. The page
//! `docs/worker-protocol.md` says the same for authors of SDKs in other languages, and
//! `tests/vectors/worker.json` pins the bytes.
//!
//! The frame's `corr` names one **attempt** of a call: the engine chooses it for an [`Invoke`] and never
//! uses it again on that connection; the worker's [`InvokeDone`] and the engine's [`InvokeCancel`] carry the same.
//!
//! All integers are little-endian. `name` is a length (u8) and that many bytes of UTF-8, `text` the same
//! with a u32 length; "rest" runs to the end of the body.

use std::fmt;
use std::str::FromStr;

use boki_log::codec::{Reader, Writer};
use boki_log::{BookId, LogError, Position};
use boki_net::BodyWriter;
use bytes::{BufMut, Bytes, BytesMut};

pub use crate::http_head::HttpHead;
use crate::log::{malformed, position};
use crate::{Message, empty_message};

/// Frame kind of [`Register`], worker to engine.
pub const REGISTER: u8 = 64;
/// Frame kind of [`Registered`], engine to worker.
pub const REGISTERED: u8 = 65;
/// Frame kind of [`Invoke`], engine to worker.
pub const INVOKE: u8 = 66;
/// Frame kind of [`InvokeDone`], worker to engine.
pub const INVOKE_DONE: u8 = 67;
/// Frame kind of [`InvokeCancel`], engine to worker.
pub const INVOKE_CANCEL: u8 = 68;
/// Frame kind of [`WorkerLog`], worker to engine.
pub const WORKER_LOG: u8 = 69;
/// Frame kind of [`Drain`], either way.
pub const DRAIN: u8 = 70;

/// Frame kind of [`InvokeInput`], engine to worker.
pub const INVOKE_INPUT: u8 = 71;
/// Frame kind of [`InputCredit`], worker to engine.
pub const INPUT_CREDIT: u8 = 72;
/// Frame kind of [`OutputHead`], worker to engine.
pub const OUTPUT_HEAD: u8 = 73;
/// Frame kind of [`OutputData`], worker to engine.
pub const OUTPUT_DATA: u8 = 74;
/// Frame kind of [`OutputCredit`], engine to worker.
pub const OUTPUT_CREDIT: u8 = 75;

/// First and last frame kind that belong to the worker link.
pub const KINDS: std::ops::RangeInclusive<u8> = 64..=95;

/// Longest name of a function or a worker, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// How many bytes of a stream ([`InvokeInput`], [`OutputData`]) may be sent before the first credit.
pub const STREAM_WINDOW: u32 = 256 << 10;
/// Most bytes in one piece of a stream.
pub const MAX_PIECE_BYTES: usize = 64 << 10;

/// Names a call: 128 bits, printed as 32 hexadecimal digits. A call's retries keep it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct CallId(pub [u8; 16]);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a call's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a call's id has 32 hexadecimal digits")]
pub struct InvalidCallId;

impl FromStr for CallId {
    type Err = InvalidCallId;

    fn from_str(text: &str) -> Result<CallId, InvalidCallId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidCallId);
        }
        u128::from_str_radix(text, 16).map(|id| CallId(id.to_be_bytes())).map_err(|_| InvalidCallId)
    }
}

/// A worker introduces itself: the first frame after the handshake, once per connection.
///
/// | field | |
/// |---|---|
/// | worker | name: what a human calls it |
/// | process | name: `BOKI_WORKER` of the environment, empty if the engine did not start it |
/// | version | name: of the code, `BOKI_VERSION` of the environment; may be empty |
/// | concurrency | u32: how many calls it takes at once on each level of nesting, at least 1 |
/// | pid | u32: its process, 0 = not told |
/// | functions | u16, how many; then each: name, description text, attempts u32, timeout_ms u32, flags u8 (bit 0: [`FunctionSpec::streams_input`]) |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// What a human calls it.
    pub worker: String,
    /// The token that the engine gave the process it started; empty: it connects by itself.
    pub process: String,
    /// Names the version of its code; may be empty.
    pub version: String,
    /// How many calls it takes at once on each level of nesting: a call's children have places of their own, so that
    /// calls which wait for them never take the places that they need.
    pub concurrency: u32,
    /// Its process id; 0: not told.
    pub pid: u32,
    /// What it offers.
    pub functions: Vec<FunctionSpec>,
}

/// One function that a worker offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSpec {
    /// By which it is called.
    pub name: String,
    /// One line for humans; may be empty.
    pub description: String,
    /// How often a call is tried at most; 0: the engine's default.
    pub max_attempts: u32,
    /// How long a call may take unless the caller says otherwise; 0: the engine's default.
    pub timeout_ms: u32,
    /// It takes its input piece by piece: the engine need not gather it.
    pub streams_input: bool,
}

const STREAMS_INPUT: u8 = 1;

impl Message for Register {
    const KIND: u8 = REGISTER;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_short_str(&self.worker);
        out.put_short_str(&self.process);
        out.put_short_str(&self.version);
        out.put_u32_le(self.concurrency);
        out.put_u32_le(self.pid);
        let count = u16::try_from(self.functions.len()).unwrap_or(u16::MAX);
        out.put_u16_le(count);
        for function in self.functions.iter().take(usize::from(count)) {
            out.put_short_str(&function.name);
            out.put_long_bytes(function.description.as_bytes());
            out.put_u32_le(function.max_attempts);
            out.put_u32_le(function.timeout_ms);
            out.put_u8(if function.streams_input { STREAMS_INPUT } else { 0 });
        }
    }

    fn decode(body: &Bytes) -> Result<Register, LogError> {
        let mut reader = Reader::new(body);
        let worker = reader.short_str()?.to_owned();
        let process = reader.short_str()?.to_owned();
        let version = reader.short_str()?.to_owned();
        let concurrency = reader.u32()?;
        let pid = reader.u32()?;
        let mut functions = Vec::new();
        for _ in 0..reader.u16()? {
            functions.push(FunctionSpec {
                name: reader.short_str()?.to_owned(),
                description: reader.long_str()?.to_owned(),
                max_attempts: reader.u32()?,
                timeout_ms: reader.u32()?,
                streams_input: match reader.u8()? {
                    0 => false,
                    STREAMS_INPUT => true,
                    _ => return malformed("unknown flags"),
                },
            });
        }
        reader.finish()?;
        Ok(Register { worker, process, version, concurrency, pid, functions })
    }
}

/// The engine has taken a worker in; calls may follow at once. Body: worker id u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// How the engine names the worker in its logs.
    pub worker_id: u64,
}

impl Message for Registered {
    const KIND: u8 = REGISTERED;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u64_le(self.worker_id);
    }

    fn decode(body: &Bytes) -> Result<Registered, LogError> {
        let mut reader = Reader::new(body);
        let worker_id = reader.u64()?;
        reader.finish()?;
        Ok(Registered { worker_id })
    }
}

const MORE_INPUT: u8 = 1;
const OVER_HTTP: u8 = 2;

fn write_headers(out: &mut BytesMut, headers: &[(String, String)]) {
    let count = u16::try_from(headers.len()).unwrap_or(u16::MAX);
    out.put_u16_le(count);
    for (name, value) in headers.iter().take(usize::from(count)) {
        out.put_short_str(name);
        out.put_long_bytes(value.as_bytes());
    }
}

fn read_headers(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, LogError> {
    let mut headers = Vec::new();
    for _ in 0..reader.u16()? {
        headers.push((reader.short_str()?.to_owned(), reader.long_str()?.to_owned()));
    }
    Ok(headers)
}

/// Run a function.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | call id | 16 bytes |
/// | 16 | attempt | u32, from 1 |
/// | 20 | deadline_ms | u32, from now on; 0 = none |
/// | 24 | book | u64 |
/// | 32 | position | u64 |
/// | 40 | flags | u8: bit 0 more input follows ([`InvokeInput`]), bit 1 there is an HTTP head |
/// | 41 | function | name |
/// | | book name | name |
/// | | content type | name, may be empty |
/// | | HTTP head | [`HttpHead`], if the flag says so |
/// | | input | rest |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoke<'a> {
    /// The call.
    pub call: CallId,
    /// Which attempt of it, from 1.
    pub attempt: u32,
    /// Milliseconds until the engine gives the attempt up; 0: it does not.
    pub deadline_ms: u32,
    /// The caller's book.
    pub book: BookId,
    /// The caller's position in it.
    pub position: Position,
    /// Which function.
    pub function: &'a str,
    /// The book's name.
    pub book_name: &'a str,
    /// Of the input; may be empty.
    pub content_type: &'a str,
    /// The HTTP request that it came by, if it did.
    pub http: Option<HttpHead>,
    /// The argument, or its beginning.
    pub input: Bytes,
    /// The rest of the input follows. Only for a function that says that it takes it so.
    pub more_input: bool,
}

impl Invoke<'_> {
    /// Puts down the frame's body.
    pub fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_slice(&self.call.0);
        out.put_u32_le(self.attempt);
        out.put_u32_le(self.deadline_ms);
        out.put_u64_le(self.book.0);
        out.put_u64_le(self.position.0.0);
        let more = if self.more_input { MORE_INPUT } else { 0 };
        out.put_u8(more | if self.http.is_some() { OVER_HTTP } else { 0 });
        out.put_short_str(self.function);
        out.put_short_str(self.book_name);
        out.put_short_str(self.content_type);
        if let Some(http) = &self.http {
            out.put_slice(http.as_bytes());
        }
        body.put_shared(&self.input);
    }

    /// Takes the body of a frame apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`].
    pub fn decode(body: &Bytes) -> Result<Invoke<'_>, LogError> {
        let mut reader = Reader::new(body);
        let call = CallId(reader.array()?);
        let attempt = reader.u32()?;
        let deadline_ms = reader.u32()?;
        let book = BookId(reader.u64()?);
        let position = position(&mut reader)?;
        let flags = reader.u8()?;
        if flags & !(MORE_INPUT | OVER_HTTP) != 0 {
            return malformed("unknown flags");
        }
        Ok(Invoke {
            call,
            attempt,
            deadline_ms,
            book,
            position,
            function: reader.short_str()?,
            book_name: reader.short_str()?,
            content_type: reader.short_str()?,
            http: if flags & OVER_HTTP != 0 { Some(HttpHead::read(&mut reader)?) } else { None },
            input: reader.rest(),
            more_input: flags & MORE_INPUT != 0,
        })
    }
}

const STATUS_OK: u8 = 0;
const STATUS_ERROR: u8 = 1;

/// The next piece of an attempt's input, with the `corr` of its [`Invoke`]. At most [`MAX_PIECE_BYTES`] at a time, and no
/// more bytes in all than [`STREAM_WINDOW`] and the credit that the worker gave; what the Invoke brought does not count.
/// Body: flags u8 (bit 0: the last piece), bytes rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokeInput {
    /// Nothing follows.
    pub last: bool,
    /// May be empty.
    pub bytes: Bytes,
}

impl Message for InvokeInput {
    const KIND: u8 = INVOKE_INPUT;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_u8(u8::from(self.last));
        body.put_shared(&self.bytes);
    }

    fn decode(body: &Bytes) -> Result<InvokeInput, LogError> {
        let mut reader = Reader::new(body);
        let last = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return malformed("unknown flags"),
        };
        Ok(InvokeInput { last, bytes: reader.rest() })
    }
}

/// The worker has taken so many bytes of an attempt's input and can be sent as many more. Body: bytes u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputCredit {
    /// How many.
    pub bytes: u32,
}

/// The engine has passed on so many bytes of an attempt's output and can be sent as many more. Body: bytes u32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputCredit {
    /// How many.
    pub bytes: u32,
}

macro_rules! credit {
    ($name:ident, $kind:expr) => {
        impl Message for $name {
            const KIND: u8 = $kind;

            fn write(&self, body: &mut BodyWriter<'_>) {
                body.fields().put_u32_le(self.bytes);
            }

            fn decode(body: &Bytes) -> Result<$name, LogError> {
                let mut reader = Reader::new(body);
                let bytes = reader.u32()?;
                reader.finish()?;
                Ok($name { bytes })
            }
        }
    };
}
credit!(InputCredit, INPUT_CREDIT);
credit!(OutputCredit, OUTPUT_CREDIT);

/// Begins an attempt's output ahead of its [`InvokeDone`], once at most: for an output that comes piece by piece
/// ([`OutputData`]), or that has a status and headers of HTTP. An attempt that has sent it is not tried again.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | status | u16: of HTTP, 100..=999; 0 = 200 |
/// | 2 | content type | name, may be empty |
/// | | headers | u16, how many; then each: name, value text |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputHead {
    /// Of HTTP; 0: 200.
    pub status: u16,
    /// Of the output; may be empty. The one in the InvokeDone does not count any more.
    pub content_type: String,
    /// Of an HTTP response.
    pub headers: Vec<(String, String)>,
}

impl Message for OutputHead {
    const KIND: u8 = OUTPUT_HEAD;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u16_le(self.status);
        out.put_short_str(&self.content_type);
        write_headers(out, &self.headers);
    }

    fn decode(body: &Bytes) -> Result<OutputHead, LogError> {
        let mut reader = Reader::new(body);
        let status = reader.u16()?;
        if status != 0 && !(100..=999).contains(&status) {
            return malformed("not a status of HTTP");
        }
        let content_type = reader.short_str()?.to_owned();
        let headers = read_headers(&mut reader)?;
        reader.finish()?;
        Ok(OutputHead { status, content_type, headers })
    }
}

/// The next piece of an attempt's output, behind its [`OutputHead`]: at most [`MAX_PIECE_BYTES`] at a time, and no more
/// bytes in all than [`STREAM_WINDOW`] and the credit that the engine gave. What comes with the [`InvokeDone`] is the last
/// piece. Body: bytes rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputData {
    /// May be empty.
    pub bytes: Bytes,
}

impl Message for OutputData {
    const KIND: u8 = OUTPUT_DATA;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.put_shared(&self.bytes);
    }

    fn decode(body: &Bytes) -> Result<OutputData, LogError> {
        Ok(OutputData { bytes: body.clone() })
    }
}

/// An attempt has ended. Sent once for each [`Invoke`], with its `corr`.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | status | u8: 0 ok, 1 error |
/// | 1 | flags | u8: bit 0 (only with an error): trying again may help |
/// | 2 | position | u64: the call's when it ended |
/// | 10 | content type of the output (ok), or the function's own code (error) | name, may be empty |
/// | | output (ok), or message (error, UTF-8) | rest |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvokeDone {
    /// What the call had seen when it ended: its own appends, and those of its children.
    pub position: Position,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The function returned.
    Ok {
        /// Of the output; may be empty.
        content_type: String,
        /// The result.
        output: Bytes,
    },
    /// The function failed.
    Err {
        /// The function's own code for it; may be empty.
        code: String,
        /// For humans.
        message: String,
        /// Whether trying again may help. Otherwise the error is the call's result.
        retryable: bool,
    },
}

impl Message for InvokeDone {
    const KIND: u8 = INVOKE_DONE;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        let (status, flags, name) = match &self.outcome {
            Outcome::Ok { content_type, .. } => (STATUS_OK, 0, content_type),
            Outcome::Err { code, retryable, .. } => (STATUS_ERROR, u8::from(*retryable), code),
        };
        out.put_u8(status);
        out.put_u8(flags);
        out.put_u64_le(self.position.0.0);
        out.put_short_str(name);
        match &self.outcome {
            Outcome::Ok { output, .. } => body.put_shared(output),
            Outcome::Err { message, .. } => out.put_slice(message.as_bytes()),
        }
    }

    fn decode(body: &Bytes) -> Result<InvokeDone, LogError> {
        let mut reader = Reader::new(body);
        let status = reader.u8()?;
        let flags = reader.u8()?;
        let position = position(&mut reader)?;
        let name = reader.short_str()?.to_owned();
        let rest = reader.rest();
        let outcome = match (status, flags) {
            (STATUS_OK, 0) => Outcome::Ok { content_type: name, output: rest },
            (STATUS_ERROR, 0 | 1) => {
                Outcome::Err { code: name, message: utf8(&rest)?.to_owned(), retryable: flags == 1 }
            }
            (STATUS_OK | STATUS_ERROR, _) => return malformed("unknown flags"),
            _ => return malformed("an unknown status"),
        };
        Ok(InvokeDone { position, outcome })
    }
}

/// Why the engine gives an attempt up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// Whoever called does not want the result any more.
    Caller,
    /// The call's time is up.
    Deadline,
    /// The engine stops.
    ShuttingDown,
}

/// The engine gives an attempt up. The worker stops it and still answers with an [`InvokeDone`], whatever it
/// says: that frees the slot.
/// Body: reason u8 (1 the caller, 2 the deadline, 3 the engine stops; treat others as 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvokeCancel {
    /// Why.
    pub reason: CancelReason,
}

impl Message for InvokeCancel {
    const KIND: u8 = INVOKE_CANCEL;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u8(match self.reason {
            CancelReason::Caller => 1,
            CancelReason::Deadline => 2,
            CancelReason::ShuttingDown => 3,
        });
    }

    fn decode(body: &Bytes) -> Result<InvokeCancel, LogError> {
        let mut reader = Reader::new(body);
        let reason = match reader.u8()? {
            2 => CancelReason::Deadline,
            3 => CancelReason::ShuttingDown,
            _ => CancelReason::Caller,
        };
        reader.finish()?;
        Ok(InvokeCancel { reason })
    }
}

/// No more calls: the engine will send none, or the worker wants none. Those that run are finished. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain;

empty_message!(Drain, DRAIN);

/// How serious a line of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Something happened.
    Info,
    /// For whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// In lower case: `error`, `warn`, `info`, `debug`, `trace`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// A line that a worker logs. Has no answer. Its corr is that of the [`Invoke`] in which it was logged, else 0.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | call id | 16 bytes, all zero = no call |
/// | 16 | level | u8: 1 error, 2 warn, 3 info, 4 debug, 5 trace |
/// | 17 | line | rest, UTF-8 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerLog {
    /// The call it belongs to, if any.
    pub call: Option<CallId>,
    /// How serious it is.
    pub level: Level,
    /// Without its line end.
    pub line: String,
}

impl Message for WorkerLog {
    const KIND: u8 = WORKER_LOG;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_slice(&self.call.unwrap_or_default().0);
        out.put_u8(match self.level {
            Level::Error => 1,
            Level::Warn => 2,
            Level::Info => 3,
            Level::Debug => 4,
            Level::Trace => 5,
        });
        out.put_slice(self.line.as_bytes());
    }

    fn decode(body: &Bytes) -> Result<WorkerLog, LogError> {
        let mut reader = Reader::new(body);
        let call = CallId(reader.array()?);
        let level = match reader.u8()? {
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            4 => Level::Debug,
            5 => Level::Trace,
            _ => return malformed("an unknown level"),
        };
        let rest = reader.rest();
        let line = utf8(&rest)?.to_owned();
        Ok(WorkerLog { call: (call != CallId::default()).then_some(call), level, line })
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, LogError> {
    std::str::from_utf8(bytes).or_else(|_| malformed("a text is not UTF-8"))
}
