//! `boki doctor`: what is wrong with a data directory, in plain words.

use std::ops::ControlFlow;
use std::path::Path;

use boki_disk::check;
use boki_doctor::{DoctorError, Repair, Scope};
use bytesize::ByteSize;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{DoctorArgs, Target};
use crate::failure::{Exit, Failure};
use crate::http::{Http, nothing};
use crate::output::Output;
use crate::settings::{self, Overrides};

/// The parts of a report that are shown. The server's comes as JSON, and so does our own.
#[derive(Deserialize)]
struct Shown {
    path: String,
    id: String,
    checked: ShownTotals,
    findings: Vec<ShownFinding>,
    unknown: Vec<String>,
}

#[derive(Deserialize)]
struct ShownTotals {
    segments: u64,
    groups: u64,
    blobs: u64,
    tables: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct ShownFinding {
    code: String,
    severity: String,
    file: String,
    offset: Option<u64>,
    what: String,
    means: String,
    remedy: String,
}

pub(crate) async fn run(args: DoctorArgs, mut out: Output) -> Result<(), Failure> {
    if args.online {
        let report = online(&args.target, args.rate).await?;
        return tell(&report, &[], &mut out);
    }
    let overrides = Overrides { data: args.data.clone(), ..Overrides::default() };
    let config = settings::load(&args.file, &overrides)?;
    let (path, keys) = (config.server.data, config.data_keys);
    if !path.is_dir() {
        let what = format!("there is no directory {}", path.display());
        return Err(Failure::new("BK0312", Exit::Unavailable, what, "boki doctor --data DIR"));
    }
    let _held = match args.read_only {
        true => None,
        false => Some(check::lock(&path).map_err(|error| of_doctor(&error.into(), &path))?),
    };
    let (done, report) = if args.repair {
        let mended = boki_doctor::repair(&path, &Repair { from: args.from, discard: args.discard, keys });
        let mended = mended.map_err(|error| of_doctor(&error, &path))?;
        (mended.done, Some(mended.report))
    } else {
        let report = boki_doctor::examine(&path, keys.as_ref(), Scope::All, &mut |_| ControlFlow::Continue(()));
        (Vec::new(), report.map_err(|error| of_doctor(&error, &path))?)
    };
    let mut report = serde_json::to_value(report).unwrap_or_default();
    if args.read_only
        && let Some(unknown) = report.get_mut("unknown").and_then(Value::as_array_mut)
    {
        unknown.push(
            "No lock was taken: if a server runs on the directory, what it was writing looks like damage.".into(),
        );
    }
    tell(&report, &done, &mut out)
}

/// Lets a server examine its files, and waits for what it finds.
async fn online(target: &Target, rate: ByteSize) -> Result<Value, Failure> {
    #[derive(Deserialize)]
    struct Examination {
        state: String,
        error: Option<String>,
        #[serde(default)]
        report: Value,
    }
    let mut http = Http::connect(target).await?;
    let start = format!("/v1/doctor?rate={}", rate.as_u64());
    let mut now: Examination = http.json(Method::POST, &start, &[], nothing()).await?;
    while now.state == "running" {
        now = http.json(Method::GET, "/v1/doctor?wait=1m", &[], nothing()).await?;
    }
    match now.error {
        Some(error) => Err(Failure::new("BK0314", Exit::Failed, error, "boki explain BK0314")),
        None => Ok(now.report),
    }
}

fn tell(report: &Value, done: &[String], out: &mut Output) -> Result<(), Failure> {
    let shown: Shown = serde_json::from_value(report.clone())
        .map_err(|error| Failure::input(format!("the report cannot be read: {error}"), "boki doctor --json"))?;
    if out.is_json() {
        out.json(&json!({ "done": done, "report": report }))?;
    } else {
        for line in done {
            out.line(&format!("done: {line}"))?;
        }
        out.line(&format!("{}, id {}", shown.path, shown.id))?;
        let ShownTotals { segments, groups, blobs, tables, bytes } = shown.checked;
        let bytes = ByteSize(bytes);
        out.line(&format!("read {bytes}: {segments} segments with {groups} groups, {blobs} blobs, {tables} tables"))?;
        for finding in &shown.findings {
            let at = finding.offset.map_or(String::new(), |offset| format!(", byte {offset}"));
            out.line(&format!("\n{} {}: {}{at}", finding.severity, finding.code, finding.file))?;
            out.line(&format!("  what   {}", finding.what))?;
            out.line(&format!("  means  {}", finding.means))?;
            out.line(&format!("  do     {}", finding.remedy))?;
        }
        for unknown in &shown.unknown {
            out.line(&format!("\nnot known: {unknown}"))?;
        }
    }
    let damaged: Vec<&ShownFinding> = shown.findings.iter().filter(|finding| finding.severity == "damage").collect();
    out.flush()?;
    match damaged.first() {
        None if out.is_json() => Ok(()),
        None => {
            out.line("\nnothing is damaged")?;
            out.flush()
        }
        Some(first) => {
            let what = format!("{} damaged, the first is {}: {}", damaged.len(), first.file, first.what);
            Err(Failure::new(first.code.as_str(), Exit::Failed, what, format!("boki explain {}", first.code)))
        }
    }
}

fn of_doctor(error: &DoctorError, path: &Path) -> Failure {
    use boki_disk::DirError;
    let (code, next) = match error {
        DoctorError::Directory(DirError::Locked { .. }) => ("BK0311", "boki doctor --online, or stop the server first"),
        DoctorError::Directory(DirError::Foreign { .. }) | DoctorError::Nameless(_) => {
            ("BK0319", "boki doctor --data DIR")
        }
        DoctorError::Directory(DirError::NoKey { .. }) => ("BK0331", "set BOKI_DATA_KEY to the directory's key"),
        DoctorError::Directory(DirError::NotEncrypted { .. }) => ("BK0332", "unset BOKI_DATA_KEY"),
        DoctorError::Directory(_) => ("BK0312", "look at the path and its permissions"),
        _ => ("BK0314", "put it right, then repeat the command"),
    };
    Failure::new(code, Exit::Unavailable, format!("cannot examine {}: {error}", path.display()), next)
}
