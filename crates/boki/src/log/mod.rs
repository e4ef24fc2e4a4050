//! `boki log`: append, read, tail, tags, trim, follow.

mod append;
mod read;

use boki_sdk::{Book, Error};
use serde_json::json;

use crate::cli::{LogCommand, TagsArgs, TrimArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::record_form::push_escaped;
use crate::remote;

/// Most tags of one page.
const TAGS_PAGE: u32 = 1000;

pub(crate) async fn run(command: LogCommand, out: Output) -> Result<(), Failure> {
    match command {
        LogCommand::Append(args) => append::run(args, out).await,
        LogCommand::Read(args) => read::run(args, out).await,
        LogCommand::Follow(args) => read::follow(args, out).await,
        LogCommand::Tail(args) => read::tail(args, out).await,
        LogCommand::Tags(args) => tags(args, out).await,
        LogCommand::Trim(args) => trim(args, out).await,
    }
}

async fn tags(args: TagsArgs, mut out: Output) -> Result<(), Failure> {
    let book = remote::open(&args.book).await?;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut after: Option<String> = None;
    while left > 0 {
        let mut page = book.tags(args.prefix.as_str()).limit(page_size(left, TAGS_PAGE));
        if let Some(after) = after.take() {
            page = page.after(after);
        }
        let page = page.await.map_err(|error| failed(&error, &book))?;
        for (tag, last) in &page.tags {
            out.either(&json!({ "tag": tag, "last": last.0 }), || {
                let mut line = format!("{last}\t");
                push_escaped(&mut line, tag);
                line
            })?;
        }
        left -= page.tags.len() as u64;
        after = page.tags.into_iter().next_back().map(|(tag, _)| tag);
        if !page.more || after.is_none() {
            break;
        }
    }
    out.finish()
}

async fn trim(args: TrimArgs, mut out: Output) -> Result<(), Failure> {
    let book = remote::open(&args.book).await?;
    let mut trim = book.trim();
    if let Some(tag) = &args.tag {
        trim = trim.tag(tag.as_str());
    }
    trim.below(args.below).await.map_err(|error| failed(&error, &book))?;
    let value = json!({ "book": book.name(), "tag": args.tag, "below": args.below.0, "position": book.position().0.0 });
    out.either(&value, || format!("trimmed below {}", args.below))?;
    out.finish()
}

fn failed(error: &Error, book: &Book) -> Failure {
    remote::of_server(error, Some(book.name()))
}

/// How many to ask for at once if `left` are wanted.
fn page_size(left: u64, most: u32) -> u32 {
    u32::try_from(left).map_or(most, |left| left.min(most))
}
