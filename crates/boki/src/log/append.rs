//! `boki log append`: one record, or a stream of them.
//!
//! A stream is appended as batches: what has gathered while one was on its way is the next. So the order of lines is
//! the order of records whatever fails, a single line goes out at once, and many go out together.

use std::io::Read as _;

use boki_sdk::{Append, Appended, Book};
use bytes::Bytes;
use serde_json::json;

use super::failed;
use crate::cli::{AppendArgs, Input};
use crate::failure::Failure;
use crate::lines::Lines;
use crate::output::Output;
use crate::record_form::{self, NewRecord};
use crate::remote;

/// Most records and payload bytes of one append of a stream: well below what servers accept unless told otherwise.
const STREAM_RECORDS: usize = 1024;
const STREAM_BYTES: usize = 4 << 20;

pub(super) async fn run(args: AppendArgs, mut out: Output) -> Result<(), Failure> {
    let data = args.data.as_deref().filter(|data| *data != "-");
    let is_stream = data.is_none() && !args.batch && args.input != Input::Raw;
    if is_stream && args.is_single_only() {
        return Err(Failure::input(
            "--if-tail, --fence, --raise and --id are for one append, and standard input may become several",
            "give the record as an argument, or add --batch to make all of standard input one append",
        ));
    }
    let book = remote::open(&args.book).await?;
    if is_stream {
        append_stream(&args, &book, &mut out).await?;
    } else {
        let records = match data {
            Some(data) if args.input == Input::Records => vec![record_form::parse(data, 1)?],
            Some(data) => vec![NewRecord { tags: Vec::new(), payload: Bytes::copy_from_slice(data.as_bytes()) }],
            None if args.input == Input::Raw => vec![NewRecord { tags: Vec::new(), payload: all_of_stdin()? }],
            None => all_records(args.input).await?,
        };
        if records.is_empty() {
            return Err(Failure::input(
                "standard input is empty: there is nothing to append",
                "boki log append --help",
            ));
        }
        append(&args, &book, records, &mut out).await?;
    }
    out.finish()
}

async fn append_stream(args: &AppendArgs, book: &Book, out: &mut Output) -> Result<(), Failure> {
    let mut lines = Lines::stdin()?;
    let mut number = 0;
    loop {
        let gathered = lines.gather(STREAM_RECORDS).await?;
        if gathered.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        let mut bytes = 0;
        for line in gathered {
            number += 1;
            let record = record_of(line, args.input, number)?;
            if bytes + record.payload.len() > STREAM_BYTES && !records.is_empty() {
                append(args, book, std::mem::take(&mut records), out).await?;
                bytes = 0;
            }
            bytes += record.payload.len();
            records.push(record);
        }
        append(args, book, records, out).await?;
        out.flush()?;
    }
}

async fn append(args: &AppendArgs, book: &Book, records: Vec<NewRecord>, out: &mut Output) -> Result<(), Failure> {
    let mut append = book.batch();
    for record in records {
        append = append.record(record.payload).tags(record.tags).tags(&args.tags);
    }
    let appended = on_conditions(append, args).outcome().await.map_err(|error| failed(&error, book))?;
    print(&appended, out)
}

fn on_conditions(mut append: Append, args: &AppendArgs) -> Append {
    for (tag, seq) in &args.if_tail {
        append = append.if_tail(tag, *seq);
    }
    for (tag, epoch) in &args.fence {
        append = append.fence(tag, *epoch);
    }
    for (tag, epoch) in &args.raise {
        append = append.raise(tag, *epoch);
    }
    match args.id {
        Some(id) => append.id(id),
        None => append,
    }
}

/// One line a record.
fn print(appended: &Appended, out: &mut Output) -> Result<(), Failure> {
    let Some(first) = appended.seq else { return Ok(()) };
    for offset in 0..u64::from(appended.count) {
        let seq = first.0 + offset;
        let value = json!({ "seq": seq, "position": appended.position.0.0, "repeated": appended.repeated });
        out.either(&value, || seq.to_string())?;
    }
    Ok(())
}

fn record_of(line: Bytes, input: Input, number: u64) -> Result<NewRecord, Failure> {
    if input != Input::Records {
        return Ok(NewRecord { tags: Vec::new(), payload: line });
    }
    let text = std::str::from_utf8(&line)
        .map_err(|_| Failure::input(format!("line {number} is not UTF-8"), "use --input lines for lines of bytes"))?;
    record_form::parse(text, number)
}

async fn all_records(input: Input) -> Result<Vec<NewRecord>, Failure> {
    let mut lines = Lines::stdin()?;
    let mut records = Vec::new();
    loop {
        let gathered = lines.gather(STREAM_RECORDS).await?;
        if gathered.is_empty() {
            return Ok(records);
        }
        for line in gathered {
            records.push(record_of(line, input, records.len() as u64 + 1)?);
        }
    }
}

fn all_of_stdin() -> Result<Bytes, Failure> {
    let mut payload = Vec::new();
    std::io::stdin().read_to_end(&mut payload).map_err(|error| Failure::io("cannot read standard input", &error))?;
    Ok(payload.into())
}
