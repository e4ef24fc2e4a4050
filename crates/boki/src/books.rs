//! `boki books`: list, make and remove; export to and import from JSON lines.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;

use boki_log::{LogError, Seq};
use boki_sdk::{Book, Client, Error};
use serde_json::json;

use crate::cli::{BooksCommand, BooksFile, Target};
use crate::failure::{BOOK_NOT_EMPTY, Exit, Failure};
use crate::lines::Lines;
use crate::output::{Output, aligned};
use crate::record_form::{self, RecordLine};
use crate::remote::{connect, of_server, shell_word};

/// Most records of one read or append, and most payload bytes of one append.
const RECORDS: u32 = 1000;
const BYTES: usize = 4 << 20;
/// Tags of Boki's own libraries begin with it.
const RESERVED: char = '~';

pub(crate) async fn run(command: BooksCommand, out: Output) -> Result<(), Failure> {
    match command {
        BooksCommand::Ls(target) => list(&target, out).await,
        BooksCommand::New { target, name } => create(&target, &name, out).await,
        BooksCommand::Rm { target, name, yes } => remove(&target, &name, yes, out).await,
        BooksCommand::Export(args) => export(args, out).await,
        BooksCommand::Import(args) => import(args, out).await,
    }
}

async fn list(target: &Target, mut out: Output) -> Result<(), Failure> {
    let books = connect(target).await?.books().await.map_err(|error| of_server(&error, None))?;
    if out.is_json() {
        for book in books {
            out.json(&json!({ "name": book.name, "id": book.id.0, "created_us": book.created_us }))?;
        }
    } else {
        let created =
            |us| humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_micros(us));
        let rows: Vec<_> =
            books.into_iter().map(|book| vec![created(book.created_us).to_string(), book.name]).collect();
        out.line(&aligned(&["CREATED", "NAME"], &rows))?;
    }
    out.finish()
}

async fn create(target: &Target, name: &str, mut out: Output) -> Result<(), Failure> {
    let book = connect(target).await?.create_book(name).await.map_err(|error| of_server(&error, Some(name)))?;
    out.either(&json!({ "name": book.name(), "id": book.id().0 }), || format!("made {}", book.name()))?;
    out.finish()
}

async fn remove(target: &Target, name: &str, yes: bool, mut out: Output) -> Result<(), Failure> {
    if !yes && !is_confirmed(name)? {
        let next = format!("boki books rm {} --yes", shell_word(name));
        return Err(Failure::input(format!("book {name:?} was not removed"), next));
    }
    connect(target).await?.remove_book(name).await.map_err(|error| of_server(&error, Some(name)))?;
    out.either(&json!({ "name": name, "removed": true }), || format!("removed {name}"))?;
    out.finish()
}

/// Asks, if there is somebody to ask.
fn is_confirmed(name: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    eprint!("Remove book {name:?} and all of its records? [y/N] ");
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(|error| Failure::io("cannot read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn export(args: BooksFile, mut out: Output) -> Result<(), Failure> {
    let failed = |error: &Error| of_server(error, Some(&args.name));
    let book = connect(&args.target).await?.book(&args.name).await.map_err(|error| failed(&error))?;
    let tail = book.tail().linearizable().await.map_err(|error| failed(&error))?;
    if is_standard(&args.file) {
        export_records(&book, tail, |line| out.json(line)).await?;
        return out.finish();
    }
    let unwritable = |error: &std::io::Error| Failure::io(format!("cannot write {}", args.file.display()), error);
    let file = File::create(&args.file).map_err(|error| unwritable(&error))?;
    let mut writer = BufWriter::with_capacity(256 << 10, file);
    let count = export_records(&book, tail, |line| {
        serde_json::to_writer(&mut writer, line).map_err(|error| unwritable(&error.into()))?;
        writer.write_all(b"\n").map_err(|error| unwritable(&error))
    })
    .await?;
    let file = writer.into_inner().map_err(|error| unwritable(error.error()))?;
    file.sync_all().map_err(|error| unwritable(&error))?;
    let value = json!({ "book": args.name, "records": count, "file": args.file.display().to_string() });
    out.either(&value, || format!("exported {count} records of {} to {}", args.name, args.file.display()))?;
    out.finish()
}

/// Hands over the records up to `tail`, and says how many there were.
async fn export_records(
    book: &Book,
    tail: Seq,
    mut write: impl FnMut(&RecordLine<'_>) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let (mut from, mut count) = (Seq::FIRST, 0);
    while from <= tail {
        let records =
            book.read_next(from).limit(RECORDS).await.map_err(|error| of_server(&error, Some(book.name())))?;
        let Some(last) = records.last() else { break };
        from = last.seq.next();
        for record in records.iter().take_while(|record| record.seq <= tail) {
            write(&RecordLine::of(record))?;
            count += 1;
        }
    }
    Ok(count)
}

async fn import(args: BooksFile, mut out: Output) -> Result<(), Failure> {
    let client = connect(&args.target).await?;
    let mut lines = if is_standard(&args.file) {
        Lines::stdin()?
    } else {
        let name = args.file.display().to_string();
        let file = File::open(&args.file).map_err(|error| Failure::io(format!("cannot read {name}"), &error))?;
        Lines::read(&name, BufReader::with_capacity(256 << 10, file))?
    };
    let book = empty_book(&client, &args.name).await?;
    let (mut number, mut count, mut left_out) = (0, 0, 0);
    loop {
        let gathered = lines.gather(RECORDS as usize).await?;
        if gathered.is_empty() {
            break;
        }
        let mut records = Vec::new();
        for line in gathered {
            number += 1;
            let line = std::str::from_utf8(&line).map_err(|_| {
                Failure::input(format!("line {number} is not UTF-8"), "give a file that `boki books export` wrote")
            })?;
            let record = record_form::parse(line, number)?;
            if record.tags.iter().any(|tag| tag.starts_with(RESERVED)) {
                left_out += 1;
            } else {
                records.push(record);
            }
        }
        count += append_in_order(&book, records).await?;
    }
    let value = json!({ "book": args.name, "records": count, "left_out": left_out });
    out.either(&value, || match left_out {
        0 => format!("imported {count} records into {}", args.name),
        _ => format!("imported {count} records into {}; left out {left_out} of Boki's own libraries", args.name),
    })?;
    out.finish()
}

async fn empty_book(client: &Client, name: &str) -> Result<Book, Failure> {
    let failed = |error: &Error| of_server(error, Some(name));
    let book = match client.create_book(name).await {
        Err(Error::Log(LogError::BookExists { .. })) => client.book(name).await,
        made => made,
    }
    .map_err(|error| failed(&error))?;
    if book.tail().linearizable().await.map_err(|error| failed(&error))? == Seq::NONE {
        return Ok(book);
    }
    let next = "import into a book of another name, or remove this one first: boki books rm";
    Err(Failure::new(BOOK_NOT_EMPTY, Exit::Failed, format!("book {name:?} has records already"), next))
}

/// Appends all, one batch after the other.
async fn append_in_order(book: &Book, records: Vec<record_form::NewRecord>) -> Result<u64, Failure> {
    let count = records.len() as u64;
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let (mut batch, mut bytes) = (book.batch(), 0);
        while let Some(record) = records.next_if(|record| bytes == 0 || bytes + record.payload.len() <= BYTES) {
            // An empty payload counts too, so that the first record of a batch is always taken and no other by mistake.
            bytes += record.payload.len().max(1);
            batch = batch.record(record.payload).tags(record.tags);
        }
        batch.await.map_err(|error| of_server(&error, Some(book.name())))?;
    }
    Ok(count)
}

fn is_standard(file: &Path) -> bool {
    file.as_os_str() == "-"
}
