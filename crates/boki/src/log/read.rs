//! Reading a book: pages of it, its tail, and what comes.

use std::pin::pin;

use boki_log::Seq;
use boki_sdk::{Read, Record};
use serde_json::json;

use super::{failed, page_size};
use crate::cli::{FollowArgs, Promise, ReadArgs, TailArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::record_form::{RecordLine, line_of};
use crate::remote;

/// Most records of one page.
const PAGE: u32 = 1000;

pub(super) async fn run(args: ReadArgs, mut out: Output) -> Result<(), Failure> {
    let book = remote::open(&args.book).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut from = args.from.unwrap_or(if args.prev { Seq::MAX } else { Seq::FIRST });
    let mut wait = args.wait;
    while left > 0 {
        let mut read = if args.prev { book.read_prev(from) } else { book.read_next(from) };
        read = promised(read.limit(page_size(left, PAGE)), args.promise);
        if let Some(tag) = &args.tag {
            read = read.tag(tag.as_str());
        }
        if let Some(wait) = wait.take() {
            read = read.wait(wait);
        }
        let records = read.await.map_err(|error| failed(&error, &book))?;
        let Some(last) = records.last().map(|record| record.seq) else { break };
        for record in &records {
            print(&mut out, record, args.raw)?;
        }
        left -= records.len() as u64;
        if args.prev {
            if last <= Seq::FIRST {
                break;
            }
            from = Seq(last.0 - 1);
        } else {
            from = last.next();
        }
    }
    out.finish()
}

fn promised(read: Read, promise: Promise) -> Read {
    match promise {
        Promise { linearizable: true, .. } => read.linearizable(),
        Promise { any: true, .. } => read.any(),
        _ => read,
    }
}

pub(super) async fn tail(args: TailArgs, mut out: Output) -> Result<(), Failure> {
    let book = remote::open(&args.book).await?;
    let mut tail = book.tail();
    if let Some(tag) = &args.tag {
        tail = tail.tag(tag.as_str());
    }
    if args.promise.linearizable {
        tail = tail.linearizable();
    } else if args.promise.any {
        tail = tail.any();
    }
    let seq = tail.await.map_err(|error| failed(&error, &book))?;
    out.either(&json!({ "seq": seq.0, "position": book.position().0.0 }), || seq.to_string())?;
    out.finish()
}

pub(super) async fn follow(args: FollowArgs, mut out: Output) -> Result<(), Failure> {
    let book = remote::open(&args.book).await?;
    let from = match args.from {
        Some(from) => from,
        None => book.tail().linearizable().await.map_err(|error| failed(&error, &book))?.next(),
    };
    let mut records = book.subscribe(from);
    if let Some(tag) = args.tag {
        records = records.tag(tag);
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let mut next = pin!(records.next());
        let record = tokio::select! {
            biased;
            record = &mut next => record,
            // There is none for now: what was printed is to be seen while this waits.
            () = std::future::ready(()) => {
                out.flush()?;
                next.await
            }
        };
        print(&mut out, &record.map_err(|error| failed(&error, &book))?, args.raw)?;
        left -= 1;
    }
    out.finish()
}

fn print(out: &mut Output, record: &Record, is_raw: bool) -> Result<(), Failure> {
    if is_raw {
        out.bytes(record.data())?;
        return out.bytes(b"\n");
    }
    if out.is_json() { out.json(&RecordLine::of(record)) } else { out.line(&line_of(record)) }
}
