//! The worker under test of the conformance suite, with the Rust SDK: the functions of `docs/conformance.md`.
//!
//! `boki-conformance -- target/debug/examples/conformance`

use std::collections::BTreeMap;
use std::time::Duration;

use boki_sdk::http::{Request, Response};
use boki_sdk::prelude::*;
use boki_sdk::{Bytes, Level};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
struct Fail {
    code: String,
    message: String,
    retryable: bool,
}

async fn fail(_: Cx, input: Fail) -> Result<()> {
    let failure = Failure::new(input.message).code(input.code);
    Err(if input.retryable { failure.retryable() } else { failure })
}

#[derive(Serialize)]
struct About {
    call: String,
    attempt: u32,
    function: String,
    book: String,
}

async fn about(cx: Cx, _: Value) -> Result<About> {
    let (call, function) = (cx.call_id().to_string(), cx.function().to_owned());
    Ok(About { call, attempt: cx.attempt(), function, book: cx.book().name().to_owned() })
}

#[derive(Deserialize)]
struct Append {
    data: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    if_tail: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Appended {
    seq: u64,
}

async fn append(cx: Cx, input: Append) -> Result<Appended> {
    let mut append = cx.book().append(Bytes::from(input.data)).tags(&input.tags);
    for (tag, seq) in &input.if_tail {
        append = append.if_tail(tag, *seq);
    }
    Ok(Appended { seq: append.await?.0 })
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    tag: String,
    #[serde(default = "first")]
    from: u64,
    #[serde(default)]
    dir: String,
    #[serde(default = "one")]
    limit: u32,
}

fn first() -> u64 {
    1
}

fn one() -> u32 {
    1
}

#[derive(Serialize)]
struct Found {
    seq: u64,
    tags: Vec<String>,
    data: String,
    aux: Option<String>,
}

async fn read(cx: Cx, input: Read) -> Result<Vec<Found>> {
    let book = cx.book();
    let read = if input.dir == "prev" { book.read_prev(input.from) } else { book.read_next(input.from) };
    let read = if input.tag.is_empty() { read } else { read.tag(input.tag) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found = read.limit(input.limit).await?;
    Ok(found
        .iter()
        .map(|record| Found {
            seq: record.seq.0,
            tags: record.tags().map(str::to_owned).collect(),
            data: text(record.data()),
            aux: record.aux.as_ref().map(|aux| text(aux)),
        })
        .collect())
}

#[derive(Deserialize)]
struct Tail {
    #[serde(default)]
    tag: String,
}

async fn tail(cx: Cx, input: Tail) -> Result<u64> {
    let tail = cx.book().tail();
    let tail = if input.tag.is_empty() { tail } else { tail.tag(input.tag) };
    Ok(tail.await?.0)
}

#[derive(Deserialize)]
struct Tags {
    prefix: String,
}

async fn tags(cx: Cx, input: Tags) -> Result<BTreeMap<String, u64>> {
    let page = cx.book().tags(input.prefix).await?;
    Ok(page.tags.into_iter().map(|(tag, seq)| (tag.as_str().to_owned(), seq.0)).collect())
}

#[derive(Deserialize)]
struct Trim {
    #[serde(default)]
    tag: String,
    below: u64,
}

async fn trim(cx: Cx, input: Trim) -> Result<()> {
    let trim = cx.book().trim();
    let trim = if input.tag.is_empty() { trim } else { trim.tag(input.tag) };
    Ok(trim.below(input.below).await?)
}

#[derive(Deserialize)]
struct Aux {
    seq: u64,
    aux: String,
}

async fn set_aux(cx: Cx, input: Aux) -> Result<()> {
    Ok(cx.book().set_aux(input.seq, Bytes::from(input.aux)).await?)
}

#[derive(Deserialize)]
struct Subscribe {
    tag: String,
    from: u64,
    count: usize,
}

async fn subscribe(cx: Cx, input: Subscribe) -> Result<Vec<String>> {
    let mut records = cx.book().subscribe(input.from).tag(input.tag);
    let mut found = Vec::new();
    while found.len() < input.count {
        found.push(String::from_utf8_lossy(records.next().await?.data()).into_owned());
    }
    Ok(found)
}

async fn count(cx: Cx, name: String) -> Result<u64> {
    let (book, tag) = (cx.book(), format!("count/{name}"));
    loop {
        let last = book.read_prev(Seq::MAX).tag(&tag).first().await?;
        let (seen, number) = match &last {
            Some(record) => (record.seq, record.json::<u64>()? + 1),
            None => (Seq::NONE, 1),
        };
        match book.append(Json(number)).tag(&tag).if_tail(&tag, seen).await {
            Ok(_) => return Ok(number),
            // Somebody was faster.
            Err(error) if error.is_condition_failed() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[derive(Deserialize)]
struct Nested {
    function: String,
    #[serde(default)]
    input: Value,
    key: Option<String>,
    #[serde(default)]
    detached: bool,
    deadline_ms: Option<u64>,
}

async fn nested(cx: Cx, input: Nested) -> Result<Value> {
    if input.detached {
        let sent = cx.send(input.function, &input.input).await?;
        return Ok(sent.id.to_string().into());
    }
    let mut call = cx.call::<Value>(input.function, &input.input);
    if let Some(key) = input.key {
        call = call.key(key);
    }
    if let Some(deadline_ms) = input.deadline_ms {
        call = call.deadline(Duration::from_millis(deadline_ms));
    }
    Ok(call.await?)
}

async fn log_lines(cx: Cx, lines: Vec<String>) -> Result<()> {
    for line in lines {
        cx.log(Level::Info, line);
    }
    Ok(())
}

async fn sleep_until_cancelled(_: Cx, _: Value) -> Result<()> {
    std::future::pending().await
}

async fn echo(_: Cx, input: Input) -> Result<Output> {
    let content_type = input.content_type().to_owned();
    Ok(Output::bytes(input.into_bytes()).content_type(content_type))
}

#[derive(Serialize)]
struct Taken {
    bytes: usize,
    sum: u64,
}

async fn stream_in(_: Cx, mut input: InputStream) -> Result<Output> {
    let mut taken = Taken { bytes: 0, sum: 0 };
    while let Some(piece) = input.next().await {
        let piece = piece?;
        taken.bytes += piece.len();
        taken.sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    Output::json(&taken)
}

#[derive(Deserialize)]
struct StreamOut {
    pieces: usize,
    bytes: usize,
    fail: Option<String>,
}

async fn stream_out(_: Cx, input: Input) -> Result<Output> {
    let StreamOut { pieces, bytes, fail } = input.json()?;
    let pieces = boki_sdk::stream(async move |out| {
        for number in 0..pieces {
            // Of the byte n, modulo 256.
            out.write(vec![number.to_le_bytes()[0]; bytes]).await;
        }
        fail.map_or(Ok(()), |code| Err(Failure::new("as asked").code(code)))
    });
    Ok(pieces.content_type("application/octet-stream").into())
}

#[derive(Serialize)]
struct Echoed {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn http_echo(_: Cx, mut request: Request) -> Result<Response> {
    let body = request.text().await?;
    let text = str::to_owned;
    let headers = request.headers().map(|(name, value)| (text(name), text(value))).collect();
    let (method, path, query) = (text(request.method()), text(request.path()), text(request.query()));
    let response = Response::json(&Echoed { method: method.clone(), path, query, headers, body })?;
    Ok(response.status(201).header("x-method", method))
}

fn main() -> boki_sdk::Result<()> {
    Worker::new()
        .concurrency(4)
        .raw("echo", echo)
        .function("fail", fail)
        .function("about", about)
        .function("append", append)
        .function("read", read)
        .function("tail", tail)
        .function("tags", tags)
        .function("trim", trim)
        .function("set_aux", set_aux)
        .function("subscribe", subscribe)
        .function("count", count)
        .function("nested", nested)
        .function("log_lines", log_lines)
        .function("sleep_until_cancelled", sleep_until_cancelled)
        .streams("stream_in", stream_in)
        .raw("stream_out", stream_out)
        .http("http_echo", http_echo)
        .run()
}
