//! `boki versions`, and what `boki deploy` shares with it: the token, and going back.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use boki_sdk::Address;
use boki_server::TOKEN_FILE;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{ConfigFile, Deployer, Target, VersionsCommand};
use crate::deploy::{Deployed, post, printable};
use crate::failure::{Exit, Failure, NO_TOKEN};
use crate::http::{Http, nothing};
use crate::output::{Output, aligned};
use crate::settings::{self, Overrides};

/// An app, as a server tells it.
#[derive(Debug, Deserialize, Serialize)]
struct App {
    app: String,
    active: Option<u32>,
    previous: Option<u32>,
    changing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    versions: Vec<Version>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Version {
    version: u32,
    state: String,
    checksum: String,
    created_us: u64,
    activated_us: Option<u64>,
    bytes: u64,
    files: u32,
    running: usize,
    functions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<VersionFailure>,
}

#[derive(Debug, Deserialize, Serialize)]
struct VersionFailure {
    stage: String,
    reason: String,
    lines: Vec<String>,
}

#[derive(Deserialize)]
struct Apps {
    apps: Vec<App>,
}

/// The token, as a request's header has it.
pub(crate) struct Grant(String);

impl Grant {
    /// The token that was given, or that of a server on this machine: beside its socket, or in its data directory.
    pub(crate) fn find(deployer: &Deployer) -> Result<Grant, Failure> {
        if let Some(token) = &deployer.token {
            return Ok(Grant(format!("Bearer {}", token.trim())));
        }
        let path = data_of(deployer)?.join(TOKEN_FILE);
        match std::fs::read_to_string(&path) {
            Ok(token) => Ok(Grant(format!("Bearer {}", token.trim()))),
            Err(error) => {
                let what = format!("there is no token to deploy with: {}: {error}", path.display());
                let next =
                    "name the server's data directory with --data, or set BOKI_TOKEN to what its deploy-token holds";
                Err(Failure::new(NO_TOKEN, Exit::Usage, what, next))
            }
        }
    }

    pub(crate) fn header(&self) -> &str {
        &self.0
    }
}

/// The server's data directory, if it is on this machine.
fn data_of(deployer: &Deployer) -> Result<PathBuf, Failure> {
    if let Some(data) = &deployer.data {
        return Ok(data.clone());
    }
    if let Ok(Address::Unix(socket)) = deployer.target.server.parse() {
        return Ok(socket.parent().unwrap_or(Path::new(".")).to_owned());
    }
    Ok(settings::load(&ConfigFile { config: None }, &Overrides::default())?.server.data)
}

pub(crate) async fn run(command: VersionsCommand, mut out: Output) -> Result<(), Failure> {
    match command {
        VersionsCommand::Ls { target, app } => {
            let apps = match app {
                Some(app) => vec![get(&target, &app).await?],
                None => list(&target).await?,
            };
            print(&apps, &mut out)?;
        }
        VersionsCommand::Get { target, app, version } => {
            let app = get(&target, &app).await?;
            show(&app, version, &mut out)?;
        }
        VersionsCommand::Activate { deployer, app, version } => {
            let grant = Grant::find(&deployer)?;
            activate(&deployer.target, &grant, &app, version).await?.print(&mut out)?;
        }
        VersionsCommand::Rm { deployer, app, version, .. } => {
            let grant = Grant::find(&deployer)?;
            let (path, what) = match version {
                Some(version) => {
                    (format!("/v1/versions/{}/{version}", segment(&app)), format!("{app} version {version}"))
                }
                None => (format!("/v1/versions/{}", segment(&app)), app.clone()),
            };
            let mut http = Http::connect(&deployer.target).await?;
            http.send(Method::DELETE, &path, &[("authorization", grant.header())], nothing()).await?;
            out.either(&json!({ "app": app, "version": version }), || format!("removed {what}"))?;
        }
    }
    out.finish()
}

/// The version that was active before the one that is.
pub(crate) async fn previous(target: &Target, app: &str) -> Result<u32, Failure> {
    let found = get(target, app).await?;
    found.previous.ok_or_else(|| {
        let what = format!("there is no version of {app} to go back to");
        Failure::new("BK0438", Exit::NotFound, what, format!("boki versions ls {app}"))
    })
}

pub(crate) async fn activate(target: &Target, grant: &Grant, app: &str, version: u32) -> Result<Deployed, Failure> {
    let mut http = Http::connect(target).await?;
    post(&mut http, &format!("/v1/versions/{}/{version}/activate", segment(app)), grant).await
}

async fn list(target: &Target) -> Result<Vec<App>, Failure> {
    let mut http = Http::connect(target).await?;
    let apps: Apps = http.json(Method::GET, "/v1/versions", &[], nothing()).await?;
    Ok(apps.apps)
}

async fn get(target: &Target, app: &str) -> Result<App, Failure> {
    let mut http = Http::connect(target).await?;
    http.json(Method::GET, &format!("/v1/versions/{}", segment(app)), &[], nothing()).await
}

/// A name in a path. One that is no app's finds none.
fn segment(app: &str) -> String {
    form_urlencoded::byte_serialize(app.as_bytes()).collect()
}

fn print(apps: &[App], out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return apps.iter().try_for_each(|app| out.json(app));
    }
    let mut rows = Vec::new();
    for app in apps {
        for version in app.versions.iter().rev() {
            rows.push(vec![
                app.app.clone(),
                version.version.to_string(),
                state(app, version),
                time(version.created_us),
                version.activated_us.map(time).unwrap_or_default(),
                format!("{} KiB", version.bytes.div_ceil(1024)),
            ]);
        }
    }
    out.line(&aligned(&["APP", "VERSION", "STATE", "DEPLOYED", "ACTIVE SINCE", "SIZE"], &rows))
}

fn show(app: &App, version: Option<u32>, out: &mut Output) -> Result<(), Failure> {
    let wanted = version.or(app.active);
    let Some(version) = app.versions.iter().find(|version| Some(version.version) == wanted) else {
        let what = wanted.map_or_else(|| "active version".to_owned(), |version| format!("version {version}"));
        let what = format!("there is no {what} of {}", app.app);
        return Err(Failure::new("BK0438", Exit::NotFound, what, format!("boki versions ls {}", app.app)));
    };
    out.either(version, || {
        let mut lines = vec![
            format!("{} version {}: {}", app.app, version.version, state(app, version)),
            format!("  deployed  {}", time(version.created_us)),
            format!("  files     {}, {} KiB, BLAKE3 {}", version.files, version.bytes.div_ceil(1024), version.checksum),
        ];
        if !version.functions.is_empty() {
            lines.push(format!("  functions {}", version.functions.join(", ")));
        }
        if let Some(failure) = &version.failure {
            lines.push(format!("  failed    {}", failure.reason));
            lines.extend(failure.lines.iter().map(|line| format!("    {}", printable(line))));
        }
        lines.join("\n")
    })
}

/// For people: how a version is, and what there is to know about that.
fn state(app: &App, version: &Version) -> String {
    match (version.state.as_str(), &version.failure) {
        ("active", _) if app.trouble.is_some() => "active, but it does not run".to_owned(),
        ("draining", _) => format!("draining ({} calls left)", version.running),
        (_, Some(failure)) => format!("failed: {}", printable(&failure.reason)),
        (state, None) => state.to_owned(),
    }
}

fn time(us: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_micros(us)).to_string()
}
