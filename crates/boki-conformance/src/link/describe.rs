//! A worker's questions as JSON, for the patterns of a case.

use boki_log::batch::{Batch, Condition, Kind};
use boki_log::op::{Ack, Append, Consistency, Direction, Read, SetAux, Tags, Tail};
use boki_net::Frame;
use boki_wire::{Call, CallWait, Cancel, Message, kinds};
use serde_json::{Value, json};

/// What a frame asks: its kind, and its fields.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) kind: &'static str,
    pub(super) fields: Value,
}

/// Takes a question apart. `None`: the frame is none that a worker's function would ask.
///
/// `parents` gives the label of the attempt with a corr.
pub(super) fn asked(frame: &Frame, parents: impl Fn(u64) -> Option<String>) -> Result<Option<Asked>, String> {
    let wrong = |error: boki_log::LogError| format!("a frame of kind {} that does not read: {error}", frame.kind);
    let (kind, fields) = match frame.kind {
        kinds::APPEND => {
            let Append { batch, ack, .. } = Append::decode(&frame.body).map_err(wrong)?;
            ("append", append(&batch, ack))
        }
        kinds::READ => {
            let read = Read::decode(&frame.body).map_err(wrong)?;
            let direction = if read.direction == Direction::Next { "next" } else { "prev" };
            let fields = json!({
                "book": read.book.0,
                "tag": read.tag.as_ref().map(ToString::to_string),
                "from": read.from.0,
                "direction": direction,
                "limit": read.limit,
                "wait_ms": read.wait.map(|wait| wait.as_millis()),
                "consistency": consistency(read.consistency),
                "position": position(read.consistency),
            });
            ("read", fields)
        }
        kinds::TAIL => {
            let tail = Tail::decode(&frame.body).map_err(wrong)?;
            let tag = tail.tag.as_ref().map(ToString::to_string);
            let (consistency, position) = (consistency(tail.consistency), position(tail.consistency));
            let fields = json!({ "book": tail.book.0, "tag": tag, "consistency": consistency, "position": position });
            ("tail", fields)
        }
        kinds::TAGS => {
            let tags = Tags::decode(&frame.body).map_err(wrong)?;
            ("tags", json!({ "book": tags.book.0, "prefix": tags.prefix, "position": position(tags.consistency) }))
        }
        kinds::SET_AUX => {
            let aux = SetAux::decode(&frame.body).map_err(wrong)?;
            let text = String::from_utf8_lossy(&aux.aux).into_owned();
            ("set_aux", json!({ "book": aux.book.0, "seq": aux.seq.0, "aux": text }))
        }
        kinds::CALL => {
            let call = Call::decode(&frame.body).map_err(wrong)?;
            let fields = json!({
                "book": call.book.0,
                "position": call.position.0.0,
                "deadline_ms": call.deadline.map_or(0, |deadline| deadline.as_millis()),
                "detached": call.detached,
                "priority": call.priority,
                "parent": parents(call.parent),
                "function": call.function,
                "key": call.idempotency_key,
                "limit_key": call.limit_key,
                "input": serde_json::from_slice::<Value>(&call.input).unwrap_or_default(),
            });
            ("call", fields)
        }
        kinds::CALL_WAIT => {
            let wait = CallWait::decode(&frame.body).map_err(wrong)?;
            ("result", json!({ "book": wait.book.0, "call": wait.call.to_string() }))
        }
        kinds::CANCEL => {
            Cancel::decode(&frame.body).map_err(wrong)?;
            ("cancel", json!({}))
        }
        _ => return Ok(None),
    };
    Ok(Some(Asked { kind, fields }))
}

fn append(batch: &Batch, ack: Ack) -> Value {
    let records: Vec<Value> = batch
        .records()
        .map(|record| {
            let tags: Vec<&str> = record.tags().collect();
            json!({ "tags": tags, "data": String::from_utf8_lossy(record.payload()) })
        })
        .collect();
    let conditions: Vec<Value> = batch
        .conditions()
        .map(|condition| match condition {
            Condition::Tail { tag, seq } => json!({ "tag": tag.as_str(), "tail": seq.0 }),
            Condition::Fence { tag, epoch } => json!({ "tag": tag.as_str(), "fence": epoch }),
        })
        .collect();
    let trim = match batch.kind() {
        Kind::Records => Value::Null,
        Kind::Trim { tag, below } => json!({ "tag": tag.map(|tag| tag.to_string()), "below": below.0 }),
    };
    json!({
        "book": batch.book().0,
        "ack": if ack == Ack::Ordered { "ordered" } else { "durable" },
        "has_id": batch.id().is_some(),
        "records": records,
        "conditions": conditions,
        "trim": trim,
    })
}

fn consistency(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Any => "any",
        Consistency::Session(_) => "session",
        Consistency::Linearizable => "linearizable",
    }
}

fn position(consistency: Consistency) -> Option<u64> {
    match consistency {
        Consistency::Session(position) => Some(position.0.0),
        Consistency::Any | Consistency::Linearizable => None,
    }
}
