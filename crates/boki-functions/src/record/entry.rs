//! The two records of a call: that it was accepted, and how it ended.
//!
//! Both carry the tag `~call/<id>`. The first has `~calls` too and the condition that `~call/<id>` is empty;
//! the second has `~done` too and the condition that the first is the last under `~call/<id>`. So of two
//! that accept or finish the same call one loses, and knows it.
//!
//! Payloads (little-endian; `name` is a length (u8) and UTF-8, `text` the same with a u32 length):
//!
//! | | accepted | |
//! |---|---|---|
//! | 0 | version, kind | u8 = 2, u8 = 1 |
//! | 2 | position | u64: the caller's |
//! | 10 | deadline_ms | u64, from the record's time on; 0 = none |
//! | 18 | level, priority | u8, u8 |
//! | 20 | function, content type | names |
//! | | limit key | name; empty = none |
//! | | key | text; empty = none |
//! | | input is | u8: 0 here, 1 a blob |
//! | | input | rest, or of the blob: version u64, length u64, digest 16 bytes |
//!
//! | | ended | |
//! |---|---|---|
//! | 0 | version, kind | u8 = 2, u8 = 2 |
//! | 2 | how | u8: 0 returned, 1 failed, 2 failed and may be tried again, 3 worker lost, 4 too late, 5 cancelled, 6 output too large, 7 input too large, 8 input damaged, 9 returned a blob |
//! | 3 | attempts | u32 |
//! | 7 | position | u64: the call's at its end |
//! | 15 | blobs | u8, how many the call has left, and then each: part u8, version u64 |
//! | | content type (0, 9), the function's own code (1, 2), else empty | name |
//! | | output (0), message (1, 2, 8), actual and limit as u64 (6, 7), length of the blob as u64 (9), else empty | rest |

use std::sync::Arc;
use std::time::Duration;

use boki_log::codec::{Reader, Writer};
use boki_log::{BookId, LogError, Position, Seq, Tag};
use boki_wire::worker::CallId;
use bytes::{BufMut, Bytes, BytesMut};

use super::backlog::LaneName;
use super::payload::{BlobRef, Part, Payload};
use crate::call::{Call, CallReply};
use crate::error::CallError;

const VERSION: u8 = 2;
const ACCEPTED: u8 = 1;
const ENDED: u8 = 2;

const INLINE: u8 = 0;
const BLOB: u8 = 1;

const CALL_PREFIX: &str = "~call/";

/// The tag of a call's two records.
pub(super) fn call_tag(id: CallId) -> Result<Tag, LogError> {
    Tag::new(format!("{CALL_PREFIX}{id}"))
}

/// The tag of all calls that were accepted.
pub(super) fn accepted_tag() -> Result<Tag, LogError> {
    Tag::new("~calls")
}

/// The tag of all calls that ended.
pub(super) fn ended_tag() -> Result<Tag, LogError> {
    Tag::new("~done")
}

/// The call that a record with these tags belongs to.
pub(super) fn call_of<'a>(mut tags: impl Iterator<Item = &'a str>) -> Option<CallId> {
    tags.find_map(|tag| tag.strip_prefix(CALL_PREFIX)?.parse().ok())
}

/// A call was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) position: Position,
    /// 0: none.
    pub(super) deadline_ms: u64,
    /// How deep the call is nested in others.
    pub(super) level: u8,
    pub(super) priority: u8,
    pub(super) function: Arc<str>,
    pub(super) content_type: Arc<str>,
    pub(super) limit_key: Option<Arc<str>>,
    pub(super) key: Option<Arc<str>>,
    pub(super) input: Payload,
}

impl Accepted {
    pub(super) fn of(call: &Call<Payload>, level: u8) -> Accepted {
        Accepted {
            position: call.position,
            deadline_ms: call.deadline.map_or(0, |deadline| millis(deadline).max(1)),
            level,
            priority: call.priority,
            function: Arc::clone(&call.function),
            content_type: Arc::clone(&call.content_type),
            limit_key: call.limit_key.clone(),
            key: call.idempotency_key.clone(),
            input: call.input.clone(),
        }
    }

    /// Where the call, accepted in `book`, has its turn.
    pub(super) fn lane(&self, book: BookId) -> LaneName {
        LaneName {
            book,
            function: Arc::clone(&self.function),
            level: self.level,
            priority: self.priority,
            limit_key: self.limit_key.clone(),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(128 + self.function.len() + self.input.bytes());
        out.put_u8(VERSION);
        out.put_u8(ACCEPTED);
        out.put_u64_le(self.position.0.0);
        out.put_u64_le(self.deadline_ms);
        out.put_u8(self.level);
        out.put_u8(self.priority);
        out.put_short_str(&self.function);
        out.put_short_str(&self.content_type);
        out.put_short_str(self.limit_key.as_deref().unwrap_or_default());
        out.put_long_bytes(self.key.as_deref().unwrap_or_default().as_bytes());
        match &self.input {
            Payload::Inline(input) => {
                out.put_u8(INLINE);
                out.put_slice(input);
            }
            Payload::Blob(blob) => {
                out.put_u8(BLOB);
                out.put_u64_le(blob.version);
                out.put_u64_le(blob.len);
                out.put_slice(&blob.digest);
            }
        }
        out.freeze()
    }

    pub(super) fn decode(payload: &Bytes) -> Result<Accepted, LogError> {
        let mut reader = header(payload, ACCEPTED)?;
        Ok(Accepted {
            position: Position(Seq(reader.u64()?)),
            deadline_ms: reader.u64()?,
            level: reader.u8()?,
            priority: reader.u8()?,
            function: reader.short_str()?.into(),
            content_type: reader.short_str()?.into(),
            limit_key: Some(reader.short_str()?).filter(|key| !key.is_empty()).map(Arc::from),
            key: Some(reader.long_str()?).filter(|key| !key.is_empty()).map(Arc::from),
            input: match reader.u8()? {
                INLINE => Payload::Inline(reader.rest()),
                BLOB => {
                    let (version, len, digest) = (reader.u64()?, reader.u64()?, reader.array()?);
                    Payload::Blob(BlobRef { version, len, digest })
                }
                _ => {
                    return Err(LogError::Malformed { reason: "the record of a call has an input of an unknown kind" });
                }
            },
        })
    }
}

/// How a call on record ended.
pub(super) type CallEnd = Result<CallReply<Payload>, CallError>;

/// Encodes how a call ended whose input is in this blob; `None` if that is no result: the call is to be run again.
pub(super) fn encode_ended(end: &CallEnd, input: Option<&BlobRef>) -> Option<Bytes> {
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Bytes>();
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut output = None;
    let (how, attempts, position, name, rest) = match end {
        Ok(reply) => {
            output = reply.output.blob();
            let (how, rest) = match &reply.output {
                Payload::Inline(output) => (0, output.clone()),
                Payload::Blob(blob) => (9, numbers(&[blob.len])),
            };
            (how, reply.attempts, reply.position, &*reply.content_type, rest)
        }
        Err(CallError::FunctionFailed { code, message, retryable, position, attempts, .. }) => {
            (if *retryable { 2 } else { 1 }, *attempts, *position, &**code, text(message))
        }
        Err(CallError::WorkerLost { attempts, reason, .. }) => {
            (3, *attempts, Position::START, "", Bytes::copy_from_slice(reason.as_bytes()))
        }
        Err(CallError::DeadlineExceeded { .. }) => (4, 0, Position::START, "", Bytes::new()),
        Err(CallError::Cancelled { .. }) => (5, 0, Position::START, "", Bytes::new()),
        Err(CallError::PayloadTooLarge { what, actual, limit }) => {
            (if *what == "input" { 7 } else { 6 }, 0, Position::START, "", numbers(&[*actual, *limit]))
        }
        Err(CallError::PayloadDamaged { what: "input", reason }) => (8, 0, Position::START, "", text(reason)),
        Err(_) => return None,
    };
    let mut out = BytesMut::with_capacity(64 + name.len() + rest.len());
    out.put_u8(VERSION);
    out.put_u8(ENDED);
    out.put_u8(how);
    out.put_u32_le(attempts);
    out.put_u64_le(position.0.0);
    let blobs = [(Part::Input, input), (Part::Output, output)];
    out.put_u8(blobs.iter().filter(|(_, blob)| blob.is_some()).count() as u8);
    for (part, blob) in blobs {
        if let Some(blob) = blob {
            out.put_u8(part.number());
            out.put_u64_le(blob.version);
        }
    }
    out.put_short_str(name);
    out.put_slice(&rest);
    Some(out.freeze())
}

/// The blobs that a call has left, and the reader behind them.
fn blobs_of<'a>(reader: &mut Reader<'a>) -> Result<Vec<(Part, u64)>, LogError> {
    let mut blobs = Vec::new();
    for _ in 0..reader.u8()? {
        let part = Part::of(reader.u8()?);
        let part = part.ok_or(LogError::Malformed { reason: "the record of a call names an unknown part of it" })?;
        blobs.push((part, reader.u64()?));
    }
    Ok(blobs)
}

/// The blobs that a call which ended has left.
pub(super) fn blobs_of_ended(payload: &Bytes) -> Result<Vec<(Part, u64)>, LogError> {
    let mut reader = header(payload, ENDED)?;
    reader.u8()?;
    reader.u32()?;
    reader.u64()?;
    blobs_of(&mut reader)
}

/// How the call `id` of `function` ended. `seen`: the position of one who has read the record.
pub(super) fn decode_ended(
    payload: &Bytes,
    id: CallId,
    function: &Arc<str>,
    seen: Position,
) -> Result<CallEnd, LogError> {
    let mut reader = header(payload, ENDED)?;
    let how = reader.u8()?;
    let attempts = reader.u32()?;
    let position = Position(Seq(reader.u64()?)).max(seen);
    let blobs = blobs_of(&mut reader)?;
    let name: Arc<str> = reader.short_str()?.into();
    let function = Arc::clone(function);
    let returned =
        |output: Payload| CallReply { id, output, content_type: Arc::clone(&name), head: None, position, attempts };
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into();
    Ok(match how {
        0 => Ok(returned(Payload::Inline(reader.rest()))),
        9 => {
            let output = blobs.iter().find(|(part, _)| *part == Part::Output);
            let (_, version) = output.ok_or(LogError::Malformed { reason: "the record of a call lacks its output" })?;
            Ok(returned(Payload::Blob(BlobRef { version: *version, len: reader.u64()?, digest: [0; 16] })))
        }
        1 | 2 => {
            let message = text(reader.rest());
            let code = Arc::clone(&name);
            Err(CallError::FunctionFailed { function, code, message, retryable: how == 2, position, attempts })
        }
        3 => {
            let reason = String::from_utf8_lossy(&reader.rest()).into();
            Err(CallError::WorkerLost { function, attempts, reason })
        }
        4 => Err(CallError::DeadlineExceeded { function, id }),
        5 => Err(CallError::Cancelled { id }),
        6 => Err(CallError::PayloadTooLarge { what: "output", actual: reader.u64()?, limit: reader.u64()? }),
        7 => Err(CallError::PayloadTooLarge { what: "input", actual: reader.u64()?, limit: reader.u64()? }),
        8 => Err(CallError::PayloadDamaged { what: "input", reason: text(reader.rest()) }),
        _ => return Err(LogError::Malformed { reason: "the record of a call ends in an unknown way" }),
    })
}

/// Whether the payload is that of an accepted call; else it is that of one that ended.
pub(super) fn is_accepted(payload: &[u8]) -> bool {
    payload.get(1) == Some(&ACCEPTED)
}

fn header(payload: &Bytes, kind: u8) -> Result<Reader<'_>, LogError> {
    let mut reader = Reader::new(payload);
    if reader.u8()? != VERSION {
        return Err(LogError::Malformed { reason: "the record of a call has an unknown version" });
    }
    if reader.u8()? != kind {
        return Err(LogError::Malformed { reason: "the record of a call is of another kind than expected" });
    }
    Ok(reader)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted() -> Accepted {
        Accepted {
            position: Position(Seq(7)),
            deadline_ms: 1500,
            level: 2,
            priority: 9,
            function: "hold".into(),
            content_type: "application/json".into(),
            limit_key: Some("ada".into()),
            key: Some("order-1".into()),
            input: Payload::Inline(Bytes::from_static(b"{}")),
        }
    }

    fn blob() -> BlobRef {
        BlobRef { version: 5, len: 6, digest: [7; 16] }
    }

    #[test]
    fn accepted_has_these_bytes() {
        let bytes = accepted().encode();
        let mut expected = vec![2, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0xdc, 5, 0, 0, 0, 0, 0, 0, 2, 9, 4];
        expected.extend(b"hold\x10application/json\x03ada\x07\0\0\0order-1\0{}");
        assert_eq!(bytes, expected);
        assert_eq!(Accepted::decode(&bytes).unwrap(), accepted());
        let large = Accepted { input: Payload::Blob(blob()), ..accepted() };
        let bytes = large.encode();
        expected.truncate(expected.len() - 3);
        expected.extend([1, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([7; 16]);
        assert_eq!(bytes, expected);
        assert_eq!(Accepted::decode(&bytes).unwrap(), large);
    }

    #[test]
    fn every_result_is_read_back_as_it_was() {
        let function: Arc<str> = "hold".into();
        let id = CallId([3; 16]);
        let position = Position(Seq(9));
        let results = [
            Ok(CallReply {
                id,
                output: Payload::Inline(Bytes::from_static(b"x")),
                content_type: "text/plain".into(),
                head: None,
                position,
                attempts: 2,
            }),
            Err(CallError::FunctionFailed {
                function: Arc::clone(&function),
                code: "full".into(),
                message: "no seats".into(),
                retryable: true,
                position,
                attempts: 3,
            }),
            Err(CallError::WorkerLost {
                function: Arc::clone(&function),
                attempts: 3,
                reason: "exited with status 3".into(),
            }),
            Err(CallError::DeadlineExceeded { function: Arc::clone(&function), id }),
            Err(CallError::Cancelled { id }),
            Err(CallError::PayloadTooLarge { what: "output", actual: 10, limit: 5 }),
            Err(CallError::PayloadTooLarge { what: "input", actual: 10, limit: 5 }),
            Err(CallError::PayloadDamaged { what: "input", reason: "a bit".into() }),
            Ok(CallReply {
                id,
                output: Payload::Blob(BlobRef { digest: [0; 16], ..blob() }),
                content_type: "text/plain".into(),
                head: None,
                position,
                attempts: 2,
            }),
        ];
        for result in results {
            for input in [None, Some(&BlobRef { version: 9, ..blob() })] {
                let bytes = encode_ended(&result, input).unwrap();
                assert_eq!(decode_ended(&bytes, id, &function, Position::START).unwrap(), result);
                let output = result.as_ref().ok().and_then(|reply| reply.output.blob());
                let mut left: Vec<(Part, u64)> = input.map(|input| (Part::Input, input.version)).into_iter().collect();
                left.extend(output.map(|output| (Part::Output, output.version)));
                assert_eq!(blobs_of_ended(&bytes).unwrap(), left);
            }
        }
    }

    #[test]
    fn what_is_no_result_is_not_recorded() {
        assert_eq!(encode_ended(&Err(CallError::ShuttingDown), None), None);
        assert_eq!(encode_ended(&Err(CallError::Log(LogError::DiskFull)), None), None);
    }

    #[test]
    fn no_prefix_of_a_payload_panics() {
        let accepted = accepted().encode();
        let ended =
            encode_ended(&Err(CallError::PayloadTooLarge { what: "output", actual: 1, limit: 2 }), Some(&blob()))
                .unwrap();
        for len in 0..accepted.len() {
            let _ = Accepted::decode(&accepted.slice(..len));
        }
        for len in 0..ended.len() {
            assert!(decode_ended(&ended.slice(..len), CallId::default(), &"f".into(), Position::START).is_err());
        }
    }
}
