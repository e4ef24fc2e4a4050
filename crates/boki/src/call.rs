//! `boki call` and `boki functions`.

use std::io::Read as _;

use boki_sdk::CallOutput;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use crate::cli::{CallArgs, FunctionsCommand, Target};
use crate::failure::Failure;
use crate::output::{Output, aligned};
use crate::record_form::PayloadFields;
use crate::remote::{connect, of_server};

const JSON_TYPE: &str = "application/json";
const BYTES_TYPE: &str = "application/octet-stream";

/// What a call returned, as one JSON object.
#[derive(Serialize)]
struct CallLine<'a> {
    call: String,
    attempts: u32,
    position: u64,
    content_type: &'a str,
    #[serde(flatten)]
    output: PayloadFields<'a>,
}

pub(crate) async fn call(args: CallArgs, mut out: Output) -> Result<(), Failure> {
    let input = input_of(&args)?;
    let failed = |error: &boki_sdk::Error| of_server(error, Some(&args.book));
    let client = connect(&args.target).await?;
    let book = client.book(&args.book).await.map_err(|error| failed(&error))?;
    let content_type = if args.raw { BYTES_TYPE } else { JSON_TYPE };
    let mut call = client.call(args.function.as_str(), input).book(&book).content_type(content_type);
    if let Some(key) = &args.key {
        call = call.key(key.as_str());
    }
    if let Some(timeout) = args.timeout {
        call = call.deadline(timeout);
    }
    if args.detach {
        let sent = call.detach().await.map_err(|error| failed(&error))?;
        let value = json!({ "call": sent.id.to_string(), "position": sent.position.0.0 });
        out.either(&value, || sent.id.to_string())?;
    } else {
        let output = call.await.map_err(|error| failed(&error))?;
        print(&output, &args, &mut out)?;
    }
    out.finish()
}

fn print(output: &CallOutput, args: &CallArgs, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(&CallLine {
            call: output.id.to_string(),
            attempts: output.attempts,
            position: output.position.0.0,
            content_type: &output.content_type,
            output: PayloadFields::of(&output.data),
        });
    }
    out.bytes(&output.data)?;
    if !args.raw && !output.data.ends_with(b"\n") {
        out.bytes(b"\n")?;
    }
    Ok(())
}

fn input_of(args: &CallArgs) -> Result<Bytes, Failure> {
    let input = match args.input.as_deref() {
        None if args.raw => Bytes::new(),
        None => Bytes::from_static(b"null"),
        Some("-") => {
            let mut input = Vec::new();
            std::io::stdin()
                .read_to_end(&mut input)
                .map_err(|error| Failure::io("cannot read standard input", &error))?;
            input.into()
        }
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
    };
    if !args.raw
        && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&input)
    {
        let next = "quote JSON for the shell: boki call hello '\"world\"' '{\"a\":1}'; or send bytes with --raw";
        return Err(Failure::input(format!("the input is not JSON: {error}"), next));
    }
    Ok(input)
}

pub(crate) async fn functions(command: FunctionsCommand, mut out: Output) -> Result<(), Failure> {
    let FunctionsCommand::Ls(target) = command;
    let functions = list(&target).await?;
    if out.is_json() {
        for function in functions {
            out.json(&json!({
                "name": function.name,
                "description": function.description,
                "workers": function.workers,
                "running": function.running,
                "queued": function.queued,
                "timeout_ms": u64::try_from(function.timeout.as_millis()).unwrap_or(u64::MAX),
                "attempts": function.max_attempts,
            }))?;
        }
        return out.finish();
    }
    let rows: Vec<_> = functions
        .into_iter()
        .map(|function| {
            let numbers = [function.workers, function.running, function.queued].map(|number| number.to_string());
            let timeout = humantime::format_duration(function.timeout).to_string();
            [function.name].into_iter().chain(numbers).chain([timeout, function.description]).collect()
        })
        .collect();
    out.line(&aligned(&["NAME", "WORKERS", "RUNNING", "QUEUED", "TIMEOUT", "DESCRIPTION"], &rows))?;
    out.finish()
}

async fn list(target: &Target) -> Result<Vec<boki_sdk::FunctionInfo>, Failure> {
    connect(target).await?.functions().await.map_err(|error| of_server(&error, None))
}
