//! `boki retention`: what is kept of books, and setting it.

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::{RetentionCommand, SetRetention, Target};
use crate::failure::Failure;
use crate::http::{Http, nothing, whole_body};
use crate::output::{Output, aligned};

/// What is needed of what the server says. The rest is for programs, and is printed as it came.
#[derive(Deserialize)]
struct Shown {
    rules: Vec<Map<String, Value>>,
    source: String,
    in_force: bool,
    records: Option<u64>,
    bytes: Option<u64>,
    tags: u64,
    uncounted: u64,
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

pub(crate) async fn run(command: RetentionCommand, out: Output) -> Result<(), Failure> {
    match command {
        RetentionCommand::Ls { target, book } => list(&target, &book, out).await,
        RetentionCommand::Set(args) => set(args, out).await,
        RetentionCommand::Rm { target, book, tag } => remove(&target, &book, tag.as_deref(), out).await,
    }
}

async fn list(target: &Target, book: &str, mut out: Output) -> Result<(), Failure> {
    let path = path_of(book)?;
    let answer: Value = Http::connect(target).await?.json(Method::GET, &path, &[], nothing()).await?;
    if out.is_json() {
        out.json(&answer)?;
        return out.finish();
    }
    let Ok(shown) = serde_json::from_value::<Shown>(answer) else { return out.finish() };
    if shown.rules.is_empty() {
        out.line(&format!("{book} keeps everything"))?;
        return out.finish();
    }
    let rows: Vec<Vec<String>> = shown
        .rules
        .iter()
        .map(|rule| {
            let field = |name| match rule.get(name) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
            };
            let mut row: Vec<String> = ["tag", "max_age", "max_records", "max_bytes"].map(field).to_vec();
            row.push(shown.source.clone());
            row
        })
        .collect();
    out.line(&aligned(&["TAG", "MAX AGE", "MAX RECORDS", "MAX BYTES", "SOURCE"], &rows))?;
    if !shown.in_force {
        out.line("not in force yet: the book's records are being counted")?;
    }
    if let (Some(records), Some(bytes)) = (shown.records, shown.bytes) {
        out.line(&format!("the book has {records} records, {bytes} bytes"))?;
    }
    if shown.tags > 0 {
        out.line(&format!("{} tags are counted by themselves", shown.tags))?;
    }
    if shown.uncounted > 0 {
        out.line(&format!("{} records are under tags that are too many to be counted", shown.uncounted))?;
    }
    out.finish()
}

async fn set(args: SetRetention, mut out: Output) -> Result<(), Failure> {
    let SetRetention { target, book, tag, max_age, max_records, max_bytes } = args;
    let path = path_of(&book)?;
    let mut rule = Map::new();
    let fields: [(&str, Option<Value>); 4] = [
        ("tag", tag.clone().map(Value::from)),
        ("max_age", max_age.map(Value::from)),
        ("max_records", max_records.map(Value::from)),
        ("max_bytes", max_bytes.map(Value::from)),
    ];
    rule.extend(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let shown: Shown = Http::connect(&target).await?.json(Method::GET, &path, &[], nothing()).await?;
    let mut rules = shown.rules;
    rules.retain(|other| !is_for(other, tag.as_deref()));
    rules.push(rule);
    let answer = put(&target, &path, &rules).await?;
    out.either(&answer, || format!("{book} is kept by {} rules", rules.len()))?;
    out.finish()
}

async fn put(target: &Target, path: &str, rules: &[Map<String, Value>]) -> Result<Value, Failure> {
    let body = whole_body(json!({ "rules": rules }).to_string().into());
    Http::connect(target).await?.json(Method::PUT, path, &JSON, body).await
}

async fn remove(target: &Target, book: &str, tag: Option<&str>, mut out: Output) -> Result<(), Failure> {
    let path = path_of(book)?;
    let removed = json!({ "book": book, "tag": tag, "removed": true });
    if let Some(tag) = tag {
        let shown: Shown = Http::connect(target).await?.json(Method::GET, &path, &[], nothing()).await?;
        let mut rules = shown.rules;
        let before = rules.len();
        rules.retain(|rule| !is_for(rule, Some(tag)));
        if rules.len() == before {
            return Err(Failure::input(format!("{book} has no rule for {tag:?}"), format!("boki retention ls {book}")));
        }
        put(target, &path, &rules).await?;
        out.either(&removed, || format!("removed the rule for {tag} of {book}"))?;
    } else {
        Http::connect(target).await?.send(Method::DELETE, &path, &[], nothing()).await?;
        out.either(&removed, || format!("removed the rules that were set for {book}"))?;
    }
    out.finish()
}

fn is_for(rule: &Map<String, Value>, tag: Option<&str>) -> bool {
    rule.get("tag").and_then(Value::as_str) == tag
}

fn path_of(book: &str) -> Result<String, Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if book.is_empty() || !book.chars().all(is_plain) {
        let what = format!("{book:?} is not the name of a book, which has letters, digits, '_', '-' and '.'");
        return Err(Failure::input(what, "boki books ls"));
    }
    Ok(format!("/v1/books/{book}/retention"))
}
