//! `boki deploy`: packs a folder, sends it to a server, and shows the steps until its version is active or not.

mod file_body;
mod pack;

use std::path::Path;

use boki_server::config::Config;
use boki_server::{APP_FILE, check_app};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::DeployArgs;
use crate::failure::{Exit, Failure, NOT_PACKED};
use crate::http::{Event, Events, Http, nothing};
use crate::output::Output;
use crate::remote::of_problem;
use crate::versions::{self, Grant};

/// A version became active, as a server tells it and as it is printed with `--json`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Deployed {
    app: String,
    version: u32,
    replaced: Option<u32>,
    functions: Vec<String>,
    missing: Vec<String>,
}

impl Deployed {
    pub(crate) fn print(&self, out: &mut Output) -> Result<(), Failure> {
        if !self.missing.is_empty() {
            eprintln!(
                "warning: version {} no longer has {}; calls on record for them wait",
                self.version,
                self.missing.join(", ")
            );
        }
        out.either(self, || {
            let before = self.replaced.map_or_else(String::new, |replaced| format!(", before it {replaced}"));
            let functions = self.functions.join(", ");
            format!("{} version {} is active{before}: {functions}", self.app, self.version)
        })
    }
}

/// A step of a deploy.
#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Step {
    Unpacked { version: u32, files: u32, bytes: u64 },
    Building { command: String },
    Output { line: String },
    Starting { version: u32, workers: usize },
}

pub(crate) async fn run(args: DeployArgs, mut out: Output) -> Result<(), Failure> {
    let (config, text) = app_config(&args.folder)?;
    let app = app_name(&args, &config)?;
    if let Some(version) = args.rollback {
        let grant = Grant::find(&args.deployer)?;
        let version = match version {
            Some(version) => version,
            None => versions::previous(&args.deployer.target, &app).await?,
        };
        eprintln!("  going back to version {version} of {app}");
        versions::activate(&args.deployer.target, &grant, &app, version).await?.print(&mut out)?;
        return out.finish();
    }
    check_app(&app, &text).map_err(|reason| not_packed(&args.folder, &reason))?;
    let data = args.folder.join(&config.server.data);
    let selected = pack::select(&args.folder, &config.deploy.include, Some(&data))?;
    if args.dry_run {
        let names: Vec<_> = selected.iter().map(|path| path.display().to_string()).collect();
        out.either(&json!({ "app": app, "files": names }), || names.join("\n"))?;
        return out.finish();
    }
    let grant = Grant::find(&args.deployer)?;
    let package = pack::pack(&args.folder, &selected)?;
    eprintln!("  sending {} files, {} KiB", package.files, package.bytes.div_ceil(1024));
    let mut http = Http::connect(&args.deployer.target).await?;
    let headers = [
        ("accept", "text/event-stream"),
        ("authorization", grant.header()),
        ("boki-checksum", package.checksum.as_str()),
        ("content-type", "application/x-tar"),
    ];
    let body = file_body::file_body(tokio::fs::File::from_std(package.file), package.bytes);
    let response = http.send(Method::POST, &format!("/v1/versions?app={app}"), &headers, body).await?;
    watch(Events::of(response), &http).await?.print(&mut out)?;
    out.finish()
}

/// Shows the steps until the deploy has ended.
async fn watch(mut events: Events, http: &Http) -> Result<Deployed, Failure> {
    while let Some(Event { name, data, .. }) = events.next().await.map_err(|error| http.lost(&error))? {
        match name.as_str() {
            "done" => return serde_json::from_str(&data).map_err(|error| http.broken(error.to_string())),
            "failed" => {
                for line in lines_of(&data) {
                    eprintln!("    {line}");
                }
                return Err(of_problem(200, data.as_bytes()));
            }
            _ => match serde_json::from_str(&data) {
                Ok(Step::Unpacked { version, files, bytes }) => {
                    eprintln!("  version {version}: {files} files, {} KiB", bytes.div_ceil(1024));
                }
                Ok(Step::Building { command }) => eprintln!("  building: {command}"),
                Ok(Step::Output { line }) => eprintln!("    {}", printable(&line)),
                Ok(Step::Starting { version, workers }) => {
                    eprintln!("  starting version {version}: {workers} of [[worker]]");
                }
                // A step that only a later server knows.
                Err(_) => {}
            },
        }
    }
    Err(http.broken("the server ended in the middle of the deploy; boki versions ls shows what came of it".to_owned()))
}

/// The last lines that a failed version printed. Those of a build were shown as they came.
fn lines_of(problem: &str) -> Vec<String> {
    let problem: Value = serde_json::from_str(problem).unwrap_or_default();
    if problem["stage"] == "build" {
        return Vec::new();
    }
    let lines = problem["lines"].as_array().into_iter().flatten();
    lines.filter_map(|line| Some(printable(line.as_str()?))).collect()
}

/// What a build or a worker prints must not steer the terminal.
pub(crate) fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The app's own `boki.toml`.
fn app_config(folder: &Path) -> Result<(Config, String), Failure> {
    let path = folder.join(APP_FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    let config = Config::from_text(&path.display().to_string(), &text, [])
        .map_err(|error| crate::settings::of_config(&error))?;
    Ok((config, text))
}

fn app_name(args: &DeployArgs, config: &Config) -> Result<String, Failure> {
    let named = args.app.clone().or_else(|| config.deploy.app.clone());
    let folder = || {
        let path = std::fs::canonicalize(&args.folder).ok()?;
        Some(path.file_name()?.to_str()?.to_owned())
    };
    let app = named.or_else(folder).unwrap_or_default();
    boki_server::check_app_name(&app).map_err(|reason| not_packed(&args.folder, &reason))?;
    Ok(app)
}

fn not_packed(folder: &Path, reason: &str) -> Failure {
    let what = format!("{} cannot be deployed: {reason}", folder.display());
    Failure::new(NOT_PACKED, Exit::Usage, what, "boki deploy --help shows a [deploy] section")
}

/// Without a body.
pub(crate) async fn post<T: serde::de::DeserializeOwned>(
    http: &mut Http,
    path: &str,
    grant: &Grant,
) -> Result<T, Failure> {
    http.json(Method::POST, path, &[("authorization", grant.header())], nothing()).await
}
