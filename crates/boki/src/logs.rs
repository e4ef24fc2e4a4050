//! `boki logs`: what functions log and what their workers print.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use hyper::Method;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::cli::LogsArgs;
use crate::failure::Failure;
use crate::http::{Event, Events, Http, nothing};
use crate::output::Output;

/// How many lines are printed before those that come, unless told otherwise.
const BEFORE_FOLLOWING: usize = 10;
/// First pause before a server that went away is asked again; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A line, as a server tells it and as it is printed with `--json`.
#[derive(Debug, Deserialize, Serialize)]
struct Line {
    number: u64,
    time_us: u64,
    worker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<String>,
    level: String,
    line: String,
}

#[derive(Deserialize)]
struct Page {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Missed {
    lines: u64,
}

/// How a stream ended that is to be followed on.
enum Ended {
    /// The connection broke, or the server stops; it may come back.
    Gone,
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Ended {
        Ended::Failed(failure)
    }
}

pub(crate) async fn run(args: LogsArgs, mut out: Output) -> Result<(), Failure> {
    if args.follow {
        return follow(&args, out).await;
    }
    let path = path(&args, args.lines);
    let page: Page = Http::connect(&args.target).await?.json(Method::GET, &path, &[], nothing()).await?;
    for line in &page.lines {
        print(line, &mut out)?;
    }
    out.finish()
}

/// Until somebody ends it: a server that goes away is waited for.
async fn follow(args: &LogsArgs, mut out: Output) -> Result<(), Failure> {
    let path = path(args, args.lines.or(Some(BEFORE_FOLLOWING)));
    // That there is no server at all is worth an error; that it goes away later is not.
    let mut next = Some(Http::connect(&args.target).await?);
    let mut resume = None;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(mut http) = next.take() {
            let before = resume.clone();
            match follow_once(&mut http, &path, &mut resume, &mut out).await {
                Err(Ended::Failed(failure)) => return Err(failure),
                Ok(()) | Err(Ended::Gone) => {}
            }
            if resume != before {
                pause = FIRST_PAUSE;
            }
            eprintln!("the server has gone; waiting for it");
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        next = Http::connect(&args.target).await.ok();
    }
}

/// Prints what one connection brings.
async fn follow_once(http: &mut Http, path: &str, resume: &mut Option<String>, out: &mut Output) -> Result<(), Ended> {
    let mut headers = vec![("accept", "text/event-stream")];
    if let Some(id) = resume.as_deref() {
        headers.push(("last-event-id", id));
    }
    let response = http
        .send(Method::GET, path, &headers, nothing())
        .await
        .map_err(|failure| if failure.is_unavailable() { Ended::Gone } else { Ended::Failed(failure) })?;
    let mut events = Events::of(response);
    while let Some(Event { id, name, data }) = events.next().await.map_err(|_| Ended::Gone)? {
        match name.as_str() {
            "end" => return Ok(()),
            "missed" => {
                if let Ok(Missed { lines }) = serde_json::from_str(&data) {
                    eprintln!("{lines} lines came faster than they could be taken, and are gone");
                }
            }
            _ => {
                if let Ok(line) = serde_json::from_str(&data) {
                    print(&line, out)?;
                    out.flush()?;
                }
            }
        }
        if id.is_some() {
            *resume = id;
        }
    }
    Ok(())
}

fn path(args: &LogsArgs, last: Option<usize>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::from("/v1/logs?"));
    for (name, value) in [
        ("function", &args.function),
        ("call", &args.call),
        ("worker", &args.worker),
        ("level", &args.level.map(|level| level.name().to_owned())),
        ("since", &args.since.map(|since| humantime::format_duration(since).to_string().replace(' ', ""))),
        ("last", &last.map(|last| last.to_string())),
    ] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn print(line: &Line, out: &mut Output) -> Result<(), Failure> {
    out.either(line, || text(line))
}

/// For people: when, how serious, whose, what.
fn text(line: &Line) -> String {
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_micros(line.time_us));
    let mut out = format!("{time} {:<5} ", line.level);
    // Writing to a string cannot fail.
    let _ = match (&line.call, &line.function) {
        (Some(call), Some(function)) => write!(out, "{function} {call}"),
        (Some(call), None) => write!(out, "{} {call}", line.worker),
        (None, _) => write!(out, "{}", line.worker),
    };
    if let Some(version) = &line.version {
        let _ = write!(out, " v{version}");
    }
    // A line of a worker must not steer the terminal.
    let shown = line.line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
    out.push_str("  ");
    out.extend(shown);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whose_it_is_and_cannot_steer_a_terminal() {
        let mut line = Line {
            number: 1,
            time_us: 1_500_000,
            worker: "shop-1".to_owned(),
            version: Some("3".to_owned()),
            call: Some("ab".to_owned()),
            function: Some("sell".to_owned()),
            level: "warn".to_owned(),
            line: "\x1b[31mred".to_owned(),
        };
        assert_eq!(text(&line), "1970-01-01T00:00:01.500Z warn  sell ab v3  \u{fffd}[31mred");
        (line.call, line.function, line.version) = (None, None, None);
        assert_eq!(text(&line), "1970-01-01T00:00:01.500Z warn  shop-1  \u{fffd}[31mred");
    }
}
