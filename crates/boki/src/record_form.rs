//! Records as lines: for people, and as JSON for programs.
//!
//! JSON has no bytes. As over HTTP, a payload is `data` if it is exactly one JSON value (its text stands there byte
//! for byte), else `text` if it is UTF-8, else `base64`. So a record as it is printed can be appended as it is.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use boki_sdk::Record;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;

/// A record as one JSON object.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordLine<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time_us: Option<u64>,
    #[serde(borrow, default)]
    tags: Vec<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "even_null", skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aux_base64: Option<String>,
}

/// A record to append.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewRecord {
    pub(crate) tags: Vec<String>,
    pub(crate) payload: Bytes,
}

impl<'a> RecordLine<'a> {
    pub(crate) fn of(record: &'a Record) -> RecordLine<'a> {
        let payload = PayloadFields::of(record.data());
        RecordLine {
            seq: Some(record.seq.0),
            time_us: Some(record.time_us),
            tags: record.tags().map(Cow::Borrowed).collect(),
            data: payload.data,
            text: payload.text.map(Cow::Borrowed),
            base64: payload.base64,
            aux_base64: record.aux.as_ref().map(|aux| BASE64_STANDARD.encode(aux)),
        }
    }
}

/// Takes a line apart; `number` is its number in the input, from 1.
pub(crate) fn parse(line: &str, number: u64) -> Result<NewRecord, Failure> {
    let wrong = |reason: String| {
        let next = "a record is {\"tags\":[...], and one of \"data\", \"text\", \"base64\"}, as `boki --json log read` prints it";
        Failure::input(format!("line {number} is not a record: {reason}"), next)
    };
    let record: RecordLine<'_> = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
    let payload = match (record.data, record.text, record.base64) {
        (Some(data), None, None) => Bytes::copy_from_slice(data.get().as_bytes()),
        (None, Some(text), None) => Bytes::copy_from_slice(text.as_bytes()),
        (None, None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| wrong(format!("base64: {error}")))?.into()
        }
        _ => return Err(wrong("it has not exactly one of data, text and base64".to_owned())),
    };
    Ok(NewRecord { tags: record.tags.into_iter().map(Cow::into_owned).collect(), payload })
}

/// A payload in JSON: one of three fields.
#[derive(Debug, Serialize)]
pub(crate) struct PayloadFields<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<'a> PayloadFields<'a> {
    pub(crate) fn of(payload: &'a [u8]) -> PayloadFields<'a> {
        let text = std::str::from_utf8(payload).ok();
        let data = text.and_then(json_of);
        PayloadFields {
            data,
            text: if data.is_none() { text } else { None },
            base64: text.is_none().then(|| BASE64_STANDARD.encode(payload)),
        }
    }
}

/// `text` as a JSON value that one line can hold, if it is one and nothing else: not even space around it,
/// which would get lost.
fn json_of(text: &str) -> Option<&RawValue> {
    if text.contains(['\n', '\r']) {
        return None;
    }
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| raw.get().len() == text.len())
}

/// A field that is there with the value `null` is a payload, not a missing field.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A record as a line for people: seq, time, tags and payload, with tabs between them.
pub(crate) fn line_of(record: &Record) -> String {
    let tags: Vec<&str> = record.tags().collect();
    let mut line = format!("{}\t{}\t", record.seq, humantime::format_rfc3339_micros(record.time()));
    push_escaped(&mut line, &tags.join(" "));
    line.push('\t');
    match std::str::from_utf8(record.data()) {
        Ok(text) => push_escaped(&mut line, text),
        Err(_) => line.extend(["base64:", &BASE64_STANDARD.encode(record.data())]),
    }
    line
}

/// Control characters would break the line, or the terminal.
pub(crate) fn push_escaped(line: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_back_byte_for_byte() {
        for payload in
            [&b"{\"a\": 1e400, \"a\":2}"[..], b"null", b" 1", b"1 2", b"hello", b"", b"\xff\x00", b"[1,\n2]", b"\t\x1b"]
        {
            let fields = PayloadFields::of(payload);
            let text = serde_json::to_string(&fields).unwrap();
            assert!(!text.contains('\n'), "{text}");
            let line = text.replacen('{', "{\"seq\":7,\"tags\":[\"t\"],", 1);
            let expected = NewRecord { tags: vec!["t".to_owned()], payload: Bytes::copy_from_slice(payload) };
            assert_eq!(parse(&line, 1).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_one_record_is_refused() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"data":1,"text":"x"}"#,
            r#"{"data":1,"what":2}"#,
            r#"{"base64":"?"}"#,
            r#"{"tags":[1],"data":1}"#,
        ] {
            assert!(parse(line, 3).is_err(), "{line}");
        }
    }

    #[test]
    fn a_line_stays_one_line() {
        let mut line = String::new();
        push_escaped(&mut line, "a\tb\nc\u{1b}[31m ä");
        assert_eq!(line, r"a\tb\nc\u{1b}[31m ä");
    }
}
