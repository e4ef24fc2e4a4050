//! Errors on their way to a client, and what it makes of them.

use boki_log::codec::{Reader, Writer};
use boki_log::error::Retry;
use boki_log::{LogError, Seq, Tag};
use boki_net::{BodyWriter, FrameError};
use bytes::{BufMut, Bytes};
use serde_json::{Map, Value, json};

use crate::{Message, kinds};

/// What is wrong with a connection, rather than with one operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// What arrives is not Boki's protocol: the connection ends.
    #[error("protocol violation: {reason}")]
    Protocol {
        /// Which rule was broken.
        reason: String,
    },
    /// A question of a kind that the server does not know. The connection goes on.
    #[error("unknown kind of message: {kind}")]
    UnknownKind {
        /// The frame's kind.
        kind: u8,
    },
    /// The two sides have no version in common: the connection ends.
    #[error("protocol version {asked} is not supported (this side speaks {ours})")]
    Version {
        /// The peer's version.
        asked: u16,
        /// The version spoken here.
        ours: u16,
    },
}

impl WireError {
    /// Every code of this type, each with a page in `docs/errors/`.
    pub const CODES: &[&str] = &["BK0601", "BK0602", "BK0603"];

    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            WireError::Protocol { .. } => "BK0601",
            WireError::UnknownKind { .. } => "BK0602",
            WireError::Version { .. } => "BK0603",
        }
    }
}

impl From<FrameError> for WireError {
    fn from(error: FrameError) -> WireError {
        WireError::Protocol { reason: error.to_string() }
    }
}

/// The answer to a question that failed; with `corr` 0, the reason why the connection ends.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | retry | u8: 0 never, 1 later, 2 only with the same id |
/// | 1 | code | name: "BK0201" |
/// | | message | text: for humans |
/// | | details | bytes: a JSON object with the error's own fields, or nothing |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// Whether, and how, to try again.
    pub retry: Retry,
    /// The stable code.
    pub code: String,
    /// For humans.
    pub message: String,
    /// A JSON object with the error's own fields, or nothing.
    pub details: Bytes,
}

impl Message for ErrorReply {
    const KIND: u8 = kinds::ERROR;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u8(match self.retry {
            Retry::Never => 0,
            Retry::Later => 1,
            Retry::WithSameId => 2,
        });
        out.put_short_str(&self.code);
        out.put_long_bytes(self.message.as_bytes());
        out.put_long_bytes(&self.details);
    }

    fn decode(body: &Bytes) -> Result<ErrorReply, LogError> {
        let mut reader = Reader::new(body);
        // A kind of retry that is not known yet is none to act on.
        let retry = match reader.u8()? {
            1 => Retry::Later,
            2 => Retry::WithSameId,
            _ => Retry::Never,
        };
        let code = reader.short_str()?.to_owned();
        let message = reader.long_str()?.to_owned();
        let details = reader.long_bytes()?;
        reader.finish()?;
        Ok(ErrorReply { retry, code, message, details })
    }
}

impl From<&LogError> for ErrorReply {
    fn from(error: &LogError) -> ErrorReply {
        ErrorReply {
            retry: error.retry(),
            code: error.code().to_owned(),
            message: error.to_string(),
            details: encode_details(details_of(error)),
        }
    }
}

impl From<&WireError> for ErrorReply {
    fn from(error: &WireError) -> ErrorReply {
        let (code, message) = (error.code().to_owned(), error.to_string());
        ErrorReply { retry: Retry::Never, code, message, details: Bytes::new() }
    }
}

impl ErrorReply {
    /// An error with fields of its own.
    #[must_use]
    pub fn new(code: &str, message: String, retry: Retry, details: Map<String, Value>) -> ErrorReply {
        ErrorReply { retry, code: code.to_owned(), message, details: encode_details(details) }
    }

    /// The error's own fields; empty if there are none, or if they do not parse.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        serde_json::from_slice(&self.details).unwrap_or_default()
    }

    /// The log's error that this is, if a client may want to act on it by its fields.
    #[must_use]
    pub fn to_log_error(&self) -> Option<LogError> {
        let fields = self.fields();
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let seq = |name: &str| number(name).map(Seq);
        let tag = || Tag::new(text("tag")?).ok();
        let name = || text("name").map(str::to_owned);
        Some(match self.code.as_str() {
            "BK0103" => LogError::ReservedTag { tag: tag()? },
            "BK0110" => LogError::BookNotFound { name: name()? },
            "BK0111" => LogError::BookExists { name: name()? },
            "BK0113" => LogError::NoSuchRecord { seq: seq("seq")? },
            "BK0201" => LogError::ConditionFailed { tag: tag()?, expected: seq("expected")?, actual: seq("actual")? },
            "BK0202" => LogError::Fenced { tag: tag()?, epoch: number("epoch")?, fence: number("fence")? },
            "BK0203" => LogError::DurableWithConditions,
            "BK0301" => LogError::DiskFull,
            "BK0302" => LogError::WriteFailed { reason: text("reason")?.to_owned() },
            "BK0303" => LogError::ReadFailed { seq: seq("seq")?, reason: text("reason")?.to_owned() },
            "BK0304" => LogError::Overloaded { what: "the server has too much waiting" },
            "BK0305" => LogError::ShuttingDown,
            "BK0306" => LogError::IndexUnreadable { reason: text("reason")?.to_owned() },
            "BK0307" => LogError::IndexFailed { reason: text("reason")?.to_owned() },
            _ => return None,
        })
    }
}

/// The fields of `error`, by name, for whoever renders it: `tag`, `expected`, `actual`, ...
#[must_use]
pub fn details_of(error: &LogError) -> Map<String, Value> {
    // By name: their order is part of the bytes.
    let fields = match error {
        LogError::ReservedTag { tag } => json!({ "tag": tag.as_str() }),
        LogError::TooLarge { what, actual, limit } => json!({ "actual": actual, "limit": limit, "what": what }),
        LogError::InvalidArgument { argument, reason } => json!({ "argument": argument, "reason": reason }),
        LogError::BookNotFound { name } | LogError::BookExists { name } => json!({ "name": name }),
        LogError::InvalidBookName { name, reason } => json!({ "name": name, "reason": reason }),
        LogError::InvalidRetention { of, reason } => json!({ "of": of, "reason": reason }),
        LogError::NoSuchRecord { seq } => json!({ "seq": seq.0 }),
        LogError::ConditionFailed { tag, expected, actual } => {
            json!({ "actual": actual.0, "expected": expected.0, "tag": tag.as_str() })
        }
        LogError::Fenced { tag, epoch, fence } => json!({ "epoch": epoch, "fence": fence, "tag": tag.as_str() }),
        LogError::WriteFailed { reason } | LogError::IndexUnreadable { reason } | LogError::IndexFailed { reason } => {
            json!({ "reason": reason })
        }
        LogError::ReadFailed { seq, reason } => json!({ "reason": reason, "seq": seq.0 }),
        LogError::Overloaded { what } => json!({ "what": what }),
        _ => Value::Null,
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn encode_details(details: Map<String, Value>) -> Bytes {
    if details.is_empty() { Bytes::new() } else { Value::Object(details).to_string().into() }
}
