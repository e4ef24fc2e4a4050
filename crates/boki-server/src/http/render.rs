//! Records as JSON.
//!
//! A payload is bytes; JSON has none. The one rule: `data` if the payload is exactly one JSON value (its
//! text stands there byte for byte), else `text` if it is UTF-8, else `base64`. So it is always clear which
//! bytes the payload has, and a record as it is read can be appended as it is.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use boki_log::Record;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A record.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecordJson<'a> {
    /// Its place in the order.
    seq: u64,
    /// When it was ordered, in microseconds since 1970; the same for every reader.
    time_us: u64,
    /// Its tags, sorted.
    tags: Vec<&'a str>,
    /// Its payload, if that is a JSON value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// Its payload, if that is other UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// Its payload, if that is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Aux data of the record, where this node has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    aux_base64: Option<String>,
}

impl<'a> RecordJson<'a> {
    pub(crate) fn of(record: &'a Record) -> RecordJson<'a> {
        let payload = record.body.payload();
        let text = std::str::from_utf8(payload).ok();
        let data = text.and_then(json_of);
        RecordJson {
            seq: record.seq.0,
            time_us: record.time_us,
            tags: record.body.tags().collect(),
            data,
            text: if data.is_none() { text } else { None },
            base64: text.is_none().then(|| BASE64_STANDARD.encode(payload)),
            aux_base64: record.aux.as_ref().map(|aux| BASE64_STANDARD.encode(aux)),
        }
    }
}

/// `text` as a JSON value, if it is one and nothing else: not even space around it, which would get lost.
fn json_of(text: &str) -> Option<&RawValue> {
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| raw.get().len() == text.len())
}

#[cfg(test)]
mod tests {
    use boki_log::Seq;
    use boki_log::batch::{BatchBuilder, RecordBody};
    use boki_log::{BookId, Tag};

    use super::*;

    fn rendered(payload: &'static [u8]) -> String {
        let batch = BatchBuilder::new(BookId(1)).record(vec![Tag::new("t").unwrap()], payload).build().unwrap();
        let body: RecordBody = batch.records().next().unwrap();
        let record = Record { seq: Seq(7), time_us: 1, body, aux: None };
        serde_json::to_string(&RecordJson::of(&record)).unwrap()
    }

    #[test]
    fn the_payload_stands_there_byte_for_byte() {
        for (payload, expected) in [
            (&b"{\"a\": 1e400, \"a\":2}"[..], r#""data":{"a": 1e400, "a":2}"#),
            (b"null", r#""data":null"#),
            (b" 1", r#""text":" 1""#),
            (b"1 2", r#""text":"1 2""#),
            (b"hello", r#""text":"hello""#),
            (b"", r#""text":"""#),
            (b"\xff\x00", r#""base64":"/wA=""#),
        ] {
            let whole = format!(r#"{{"seq":7,"time_us":1,"tags":["t"],{expected}}}"#);
            assert_eq!(rendered(payload), whole);
        }
    }
}
