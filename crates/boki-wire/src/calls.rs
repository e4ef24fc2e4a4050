//! Calling functions. How a worker runs them is [`crate::worker`]'s.

use std::time::Duration;

use boki_log::codec::{Reader, Writer};
use boki_log::{BookId, LogError, Position};
use boki_net::BodyWriter;
use bytes::{BufMut, Bytes};

use crate::log::{malformed, millis, position};
use crate::worker::CallId;
use crate::{Message, empty_message, kinds};

const DETACHED: u8 = 1;

/// The highest priority of a call.
pub const MAX_PRIORITY: u8 = 9;
/// The priority of a call that has none.
pub const DEFAULT_PRIORITY: u8 = 5;

/// Calls a function; answered by [`CallResult`], or by [`CallAccepted`] if it is detached.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | book | u64 |
/// | 8 | position | u64 |
/// | 16 | deadline_ms | u32, 0 = the function's own |
/// | 20 | flags | u8: bit 0 detached |
/// | 21 | priority | u8: 0..=9, the higher the sooner; 5 is the usual one |
/// | 22 | parent | u64: `corr` of the attempt that calls, on the same connection; 0 = none |
/// | 30 | function | text |
/// | | key | text, empty = none |
/// | | limit key | text, empty = none |
/// | | content type | text, may be empty |
/// | | input | rest |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The book that the function works in.
    pub book: BookId,
    /// What the caller has seen of it.
    pub position: Position,
    /// How long the caller waits; `None`: the function's own timeout.
    pub deadline: Option<Duration>,
    /// Answer as soon as the call is on record.
    pub detached: bool,
    /// The higher the sooner, up to [`MAX_PRIORITY`]; [`DEFAULT_PRIORITY`] is the usual one.
    pub priority: u8,
    /// `corr` of the attempt that calls, if a worker does, on the connection that the attempt came by; 0: none. A child is
    /// given up with its parent, unless it is on record.
    pub parent: u64,
    /// Which function.
    pub function: String,
    /// Calls of a function with the same key, in the same book, are one call.
    pub idempotency_key: Option<String>,
    /// For whom it is: limits and fairness hold per such key.
    pub limit_key: Option<String>,
    /// Of the input; may be empty.
    pub content_type: String,
    /// The argument.
    pub input: Bytes,
}

impl Message for Call {
    const KIND: u8 = kinds::CALL;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u64_le(self.book.0);
        out.put_u64_le(self.position.0.0);
        out.put_u32_le(self.deadline.map_or(0, millis));
        out.put_u8(if self.detached { DETACHED } else { 0 });
        out.put_u8(self.priority);
        out.put_u64_le(self.parent);
        out.put_long_bytes(self.function.as_bytes());
        out.put_long_bytes(self.idempotency_key.as_deref().unwrap_or_default().as_bytes());
        out.put_long_bytes(self.limit_key.as_deref().unwrap_or_default().as_bytes());
        out.put_long_bytes(self.content_type.as_bytes());
        body.put_shared(&self.input);
    }

    fn decode(body: &Bytes) -> Result<Call, LogError> {
        let mut reader = Reader::new(body);
        let book = BookId(reader.u64()?);
        let position = position(&mut reader)?;
        let deadline_ms = reader.u32()?;
        let deadline = (deadline_ms != 0).then(|| Duration::from_millis(u64::from(deadline_ms)));
        let detached = match reader.u8()? {
            0 => false,
            DETACHED => true,
            _ => return malformed("unknown flags"),
        };
        let priority = reader.u8()?;
        if priority > MAX_PRIORITY {
            return malformed("a priority above 9");
        }
        let parent = reader.u64()?;
        let function = reader.long_str()?.to_owned();
        let idempotency_key = optional(reader.long_str()?);
        let limit_key = optional(reader.long_str()?);
        let content_type = reader.long_str()?.to_owned();
        let input = reader.rest();
        Ok(Call {
            book,
            position,
            deadline,
            detached,
            priority,
            parent,
            function,
            idempotency_key,
            limit_key,
            content_type,
            input,
        })
    }
}

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What a call returned.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | call id | 16 bytes |
/// | 16 | position | u64 |
/// | 24 | attempts | u32 |
/// | 28 | content type | text, may be empty |
/// | | output | rest |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallResult {
    /// The call.
    pub call: CallId,
    /// What the caller has seen now.
    pub position: Position,
    /// How many attempts it took.
    pub attempts: u32,
    /// Of the output; may be empty.
    pub content_type: String,
    /// What the function returned.
    pub output: Bytes,
}

impl Message for CallResult {
    const KIND: u8 = kinds::CALL_RESULT;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_slice(&self.call.0);
        out.put_u64_le(self.position.0.0);
        out.put_u32_le(self.attempts);
        out.put_long_bytes(self.content_type.as_bytes());
        body.put_shared(&self.output);
    }

    fn decode(body: &Bytes) -> Result<CallResult, LogError> {
        let mut reader = Reader::new(body);
        Ok(CallResult {
            call: CallId(reader.array()?),
            position: position(&mut reader)?,
            attempts: reader.u32()?,
            content_type: reader.long_str()?.to_owned(),
            output: reader.rest(),
        })
    }
}

/// A detached call is on record: it will run, whatever crashes.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | call id | 16 bytes |
/// | 16 | position | u64 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallAccepted {
    /// By which its result can be asked for.
    pub call: CallId,
    /// What the caller has seen now.
    pub position: Position,
}

impl Message for CallAccepted {
    const KIND: u8 = kinds::CALL_ACCEPTED;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_slice(&self.call.0);
        body.fields().put_u64_le(self.position.0.0);
    }

    fn decode(body: &Bytes) -> Result<CallAccepted, LogError> {
        let mut reader = Reader::new(body);
        let accepted = CallAccepted { call: CallId(reader.array()?), position: position(&mut reader)? };
        reader.finish()?;
        Ok(accepted)
    }
}

/// Asks for the result of a call on record; answered by [`CallResult`], the call's error, or [`CallPending`].
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | book | u64 |
/// | 8 | call id | 16 bytes |
/// | 24 | wait_ms | u32, 0 = not at all |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallWait {
    /// The book that the call is on record in.
    pub book: BookId,
    /// The call.
    pub call: CallId,
    /// If there is no result yet, wait this long for one.
    pub wait: Option<Duration>,
}

impl Message for CallWait {
    const KIND: u8 = kinds::CALL_WAIT;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u64_le(self.book.0);
        out.put_slice(&self.call.0);
        out.put_u32_le(self.wait.map_or(0, millis));
    }

    fn decode(body: &Bytes) -> Result<CallWait, LogError> {
        let mut reader = Reader::new(body);
        let (book, call, wait_ms) = (BookId(reader.u64()?), CallId(reader.array()?), reader.u32()?);
        reader.finish()?;
        let wait = (wait_ms != 0).then(|| Duration::from_millis(u64::from(wait_ms)));
        Ok(CallWait { book, call, wait })
    }
}

/// The call has no result yet. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallPending;

empty_message!(CallPending, kinds::CALL_PENDING);

/// Asks for all functions; answered by [`FunctionsAre`]. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionList;

empty_message!(FunctionList, kinds::FUNCTION_LIST);

/// A function that the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionIs {
    /// Its name.
    pub name: String,
    /// One line for humans; may be empty.
    pub description: String,
    /// How many connected workers offer it.
    pub workers: u32,
    /// Calls that run now.
    pub running: u32,
    /// Calls that wait for a worker.
    pub queued: u32,
    /// How often a call is tried at most.
    pub max_attempts: u32,
    /// How long a call may take unless the caller says otherwise.
    pub timeout_ms: u64,
}

/// All functions. Body: u32, how many; then each: name, description text, workers u32, running u32, queued u32,
/// attempts u32, timeout_ms u64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionsAre {
    /// By name.
    pub functions: Vec<FunctionIs>,
}

impl Message for FunctionsAre {
    const KIND: u8 = kinds::FUNCTIONS_ARE;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u32_le(self.functions.len() as u32);
        for function in &self.functions {
            out.put_short_str(&function.name);
            out.put_long_bytes(function.description.as_bytes());
            out.put_u32_le(function.workers);
            out.put_u32_le(function.running);
            out.put_u32_le(function.queued);
            out.put_u32_le(function.max_attempts);
            out.put_u64_le(function.timeout_ms);
        }
    }

    fn decode(body: &Bytes) -> Result<FunctionsAre, LogError> {
        let mut reader = Reader::new(body);
        let count = reader.u32()?;
        let mut functions = Vec::with_capacity((count as usize).min(reader.remaining() / 29));
        for _ in 0..count {
            functions.push(FunctionIs {
                name: reader.short_str()?.to_owned(),
                description: reader.long_str()?.to_owned(),
                workers: reader.u32()?,
                running: reader.u32()?,
                queued: reader.u32()?,
                max_attempts: reader.u32()?,
                timeout_ms: reader.u64()?,
            });
        }
        reader.finish()?;
        Ok(FunctionsAre { functions })
    }
}
