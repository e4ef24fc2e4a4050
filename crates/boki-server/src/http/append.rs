//! Appending and trimming.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use boki_log::batch::{Condition, ReservedTags};
use boki_log::op::{Ack, Append, Appended};
use boki_log::{AppendId, BatchBuilder, BookId, LogError, Seq, Tag};
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::Problem;
use super::request::{PathOf, Query, from_json, media_type, read_body, text_header};
use super::schema::RawBytes;
use super::session::{position_of, set_position};
use super::{App, json_response};

/// What to append: one record (`tags`, payload) or many (`records`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AppendRequest<'a> {
    /// The record's tags.
    tags: Option<Vec<String>>,
    /// The record's payload: the text of this JSON value, byte for byte.
    #[serde(borrow, default, deserialize_with = "even_null")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// The record's payload, as text.
    text: Option<String>,
    /// The record's payload, as base64.
    base64: Option<String>,
    /// Many records instead: all of them are appended, contiguous, or none.
    #[serde(borrow)]
    records: Option<Vec<RecordRequest<'a>>>,
    /// What must hold at the batch's place in the order.
    #[serde(rename = "if")]
    conditions: Option<ConditionsRequest>,
    /// Fences to raise: tag and epoch.
    raise: Option<BTreeMap<String, u64>>,
    /// Names the append, so that repeating it adds nothing: 32 hexadecimal digits or a UUID.
    id: Option<String>,
    /// When to answer.
    #[serde(default)]
    ack: AckRequest,
}

/// One record of many.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordRequest<'a> {
    /// Its tags.
    #[serde(default)]
    tags: Vec<String>,
    /// Its payload: the text of this JSON value, byte for byte.
    #[serde(borrow, default, deserialize_with = "even_null")]
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<&'a RawValue>,
    /// Its payload, as text.
    text: Option<String>,
    /// Its payload, as base64.
    base64: Option<String>,
}

/// What must hold at a batch's place in the order, else nothing is appended.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConditionsRequest {
    /// Per tag, the seq of its last record; 0: it has none.
    tail: BTreeMap<String, u64>,
    /// Per tag, the writer's epoch, which its fence must not exceed.
    fence: BTreeMap<String, u64>,
}

/// When an append is answered.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AckRequest {
    /// When its seq is known and later reads see it.
    #[default]
    Ordered,
    /// Earlier: when it is on disk and will be ordered whatever fails. Not with conditions.
    Durable,
}

/// An append that was done.
#[derive(Serialize, ToSchema)]
pub(crate) struct AppendedJson {
    /// Seq of the first record; the others follow one by one. Null: on disk, not yet ordered.
    seq: Option<u64>,
    /// How many records.
    count: u32,
    /// Position of one who has seen them.
    position: u64,
    /// The id was used before: nothing was added, and `seq` is the first append's.
    repeated: bool,
}

/// What to trim.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrimRequest {
    /// Only the records of this tag; the whole book without it.
    tag: Option<String>,
    /// The first seq that stays.
    below: u64,
}

/// Append
///
/// With `Content-Type: application/json` (or curl's default) the body is the request described here. With any
/// other, or none, the body is the payload of one record as it is; tags and conditions then come in headers.
#[utoipa::path(
    post, path = "/v1/books/{book}/records", tag = "log",
    params(
        ("book" = String, Path, description = "Name of the book"),
        ("tag" = Option<Vec<String>>, Query, description = "Tags of a raw record"),
        ("Boki-Tags" = Option<String>, Header, description = "Tags of a raw record: comma-separated, percent-encoded"),
        ("Boki-If-Tail" = Option<String>, Header, description = "Conditions on a raw record: tag=seq, comma-separated"),
        ("Boki-If-Fence" = Option<String>, Header, description = "Conditions on a raw record: tag=epoch, comma-separated"),
        ("Boki-Raise" = Option<String>, Header, description = "Fences that a raw record raises: tag=epoch, comma-separated"),
        ("Boki-Append-Id" = Option<String>, Header, description = "Id of a raw append: 32 hexadecimal digits or a UUID"),
        ("Boki-Ack" = Option<String>, Header, description = "ordered or durable, for a raw append"),
        ("Boki-Position" = Option<u64>, Header, description = "Position of the session"),
    ),
    request_body(content(
        (AppendRequest = "application/json"),
        (RawBytes = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "It is in the order", body = AppendedJson),
        (status = 202, description = "It is on disk and will be ordered (ack: durable)", body = AppendedJson),
        (status = 409, description = "A condition did not hold; nothing was appended (BK0201, BK0202)"),
        (status = 413, description = "It is larger than a limit allows (BK0104, BK0506)"),
    )
)]
pub(crate) async fn append(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let before = position_of(&parts.headers)?;
    let id = app.book(&book)?.id;
    let body = read_body(body, app.body_limit).await?;
    let is_request = matches!(&*media_type(&parts.headers), "application/json" | "application/x-www-form-urlencoded");
    let append = if is_request { requested(id, &book, &parts, &body)? } else { raw(id, &book, &parts, body)? };
    let appended = app.node.append(append).await.map_err(|error| Problem::of_log(&error, &book))?;
    let mut response = appended_response(&appended);
    set_position(&mut response, before, appended.position);
    Ok(response)
}

fn appended_response(appended: &Appended) -> Response {
    let status = if appended.seq.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    json_response(
        status,
        &AppendedJson {
            seq: appended.seq.map(|seq| seq.0),
            count: appended.count,
            position: appended.position.0.0,
            repeated: appended.repeated,
        },
    )
}

/// An append as a JSON body asks for it.
fn requested(id: BookId, book: &str, parts: &Parts, body: &Bytes) -> Result<Append, Problem> {
    let of_log = |error: LogError| Problem::of_log(&error, book);
    Query::parse(parts.uri.query(), &[])?;
    for header in RAW_HEADERS {
        if parts.headers.contains_key(*header) {
            return Err(Problem::invalid_header(header, "sent with a raw payload only; JSON has a field for it"));
        }
    }
    let request: AppendRequest<'_> = from_json(body)?;
    let mut builder = BatchBuilder::new(id);
    let is_single =
        request.tags.is_some() || request.data.is_some() || request.text.is_some() || request.base64.is_some();
    match request.records {
        Some(_) if is_single => {
            return Err(Problem::invalid_body("the body has `records` and also one record beside them".to_owned()));
        }
        Some(records) => {
            for record in records {
                let payload = payload(body, record.data, record.text, record.base64)?;
                builder = builder.record(tags(record.tags).map_err(of_log)?, payload);
            }
        }
        None => {
            let payload = payload(body, request.data, request.text, request.base64)?;
            builder = builder.record(tags(request.tags.unwrap_or_default()).map_err(of_log)?, payload);
        }
    }
    let conditions = request.conditions.unwrap_or_default();
    for (tag, seq) in conditions.tail {
        builder = builder.condition(Condition::Tail { tag: Tag::new(tag).map_err(of_log)?, seq: Seq(seq) });
    }
    for (tag, epoch) in conditions.fence {
        builder = builder.condition(Condition::Fence { tag: Tag::new(tag).map_err(of_log)?, epoch });
    }
    for (tag, epoch) in request.raise.unwrap_or_default() {
        builder = builder.raise(Tag::new(tag).map_err(of_log)?, epoch);
    }
    if let Some(text) = &request.id {
        let id = append_id(text).ok_or_else(|| Problem::invalid_body(format!("id: {text:?} is not {AN_ID}")))?;
        builder = builder.id(id);
    }
    let ack = match request.ack {
        AckRequest::Ordered => Ack::Ordered,
        AckRequest::Durable => Ack::Durable,
    };
    Ok(Append { batch: builder.build().map_err(of_log)?, ack, reserved: ReservedTags::Refused })
}

/// Headers that describe a raw record.
const RAW_HEADERS: &[&str] =
    &["boki-tags", "boki-if-tail", "boki-if-fence", "boki-raise", "boki-append-id", "boki-ack"];
const AN_ID: &str = "32 hexadecimal digits or a UUID, not all zero";

/// An append whose body is the payload.
fn raw(id: BookId, book: &str, parts: &Parts, payload: Bytes) -> Result<Append, Problem> {
    let of_log = |error: LogError| Problem::of_log(&error, book);
    let query = Query::parse(parts.uri.query(), &["tag"])?;
    let headers = &parts.headers;
    let mut names: Vec<String> = query.all("tag").map(str::to_owned).collect();
    for item in items(headers, "boki-tags")? {
        names.push(decoded("Boki-Tags", item)?);
    }
    let mut builder = BatchBuilder::new(id).record(tags(names).map_err(of_log)?, payload);
    for (tag, seq) in pairs(headers, "boki-if-tail", book)? {
        builder = builder.condition(Condition::Tail { tag, seq: Seq(seq) });
    }
    for (tag, epoch) in pairs(headers, "boki-if-fence", book)? {
        builder = builder.condition(Condition::Fence { tag, epoch });
    }
    for (tag, epoch) in pairs(headers, "boki-raise", book)? {
        builder = builder.raise(tag, epoch);
    }
    if let Some(text) = text_header(headers, "boki-append-id")? {
        builder = builder.id(append_id(text).ok_or_else(|| Problem::invalid_header("Boki-Append-Id", AN_ID))?);
    }
    let ack = match text_header(headers, "boki-ack")? {
        None | Some("ordered") => Ack::Ordered,
        Some("durable") => Ack::Durable,
        Some(_) => return Err(Problem::invalid_header("Boki-Ack", "`ordered` or `durable`")),
    };
    Ok(Append { batch: builder.build().map_err(of_log)?, ack, reserved: ReservedTags::Refused })
}

/// The items of a comma-separated header, which may be there several times.
fn items<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Vec<&'a str>, Problem> {
    let mut items = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| Problem::invalid_header(name, "ASCII; percent-encode what is not"))?;
        items.extend(text.split(',').map(str::trim).filter(|item| !item.is_empty()));
    }
    Ok(items)
}

fn decoded(name: &str, item: &str) -> Result<String, Problem> {
    let text = percent_decode_str(item).decode_utf8();
    text.map(String::from).map_err(|_| Problem::invalid_header(name, "percent-encoded UTF-8"))
}

/// The items `tag=number` of a header.
fn pairs(headers: &HeaderMap, name: &'static str, book: &str) -> Result<Vec<(Tag, u64)>, Problem> {
    let mut pairs = Vec::new();
    for item in items(headers, name)? {
        let invalid = || Problem::invalid_header(name, "tag=number, comma-separated, the tags percent-encoded");
        let (tag, number) = item.rsplit_once('=').ok_or_else(invalid)?;
        let tag = Tag::new(decoded(name, tag)?).map_err(|error| Problem::of_log(&error, book))?;
        pairs.push((tag, u64::from_str(number.trim()).map_err(|_| invalid())?));
    }
    Ok(pairs)
}

fn tags(names: Vec<String>) -> Result<Vec<Tag>, LogError> {
    names.into_iter().map(Tag::new).collect()
}

/// A record's payload, of whichever form was sent; nothing sent is an empty payload.
fn payload(
    body: &Bytes,
    data: Option<&RawValue>,
    text: Option<String>,
    base64: Option<String>,
) -> Result<Bytes, Problem> {
    match (data, text, base64) {
        (None, None, None) => Ok(Bytes::new()),
        (Some(data), None, None) => Ok(body.slice_ref(data.get().as_bytes())),
        (None, Some(text), None) => Ok(Bytes::from(text)),
        (None, None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .map(Bytes::from)
            .map_err(|error| Problem::invalid_body(format!("base64: {error}"))),
        _ => Err(Problem::invalid_body("a record has one of `data`, `text` and `base64`, not several".to_owned())),
    }
}

/// The id that `text` writes, if it writes one.
fn append_id(text: &str) -> Option<AppendId> {
    let mut digits = 0;
    let mut id: u128 = 0;
    for c in text.chars().filter(|c| *c != '-') {
        digits += 1;
        if digits > 32 {
            return None;
        }
        id = (id << 4) | u128::from(c.to_digit(16)?);
    }
    (digits == 32 && id != 0).then(|| AppendId(id.to_be_bytes()))
}

/// `null` is a payload too, not the lack of one.
fn even_null<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// Trim
///
/// Removes the records below a seq, of one tag or of the whole book. The trim is itself in the order, so every
/// reader agrees on what is gone.
#[utoipa::path(
    post, path = "/v1/books/{book}/trim", tag = "log",
    params(("book" = String, Path, description = "Name of the book")),
    request_body = TrimRequest,
    responses((status = 200, description = "They are gone", body = AppendedJson))
)]
pub(crate) async fn trim(
    State(app): State<Arc<App>>,
    PathOf(book): PathOf<String>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let of_log = |error: LogError| Problem::of_log(&error, &book);
    let before = position_of(&parts.headers)?;
    let id = app.book(&book)?.id;
    let body = read_body(body, app.body_limit).await?;
    let request: TrimRequest = from_json(&body)?;
    let tag = request.tag.map(Tag::new).transpose().map_err(of_log)?;
    let batch = BatchBuilder::trim(id, tag, Seq(request.below)).map_err(of_log)?;
    let append = Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused };
    let appended = app.node.append(append).await.map_err(of_log)?;
    let mut response = appended_response(&appended);
    set_position(&mut response, before, appended.position);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_hexadecimal_or_a_uuid() {
        let id = AppendId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes());
        assert_eq!(append_id("0123456789abcdef0123456789ABCDEF"), Some(id));
        assert_eq!(append_id("01234567-89ab-cdef-0123-456789abcdef"), Some(id));
        for wrong in
            ["", "12", "0123456789abcdef0123456789abcdef0", "x123456789abcdef0123456789abcdef", &"0".repeat(32)]
        {
            assert_eq!(append_id(wrong), None, "{wrong}");
        }
    }
}
