//! `boki dev`: a server, and the code beside it, reloaded when it changes.
//!
//! The code is a worker that the server supervises, as it would in production. After a change it is built, and only
//! if that succeeds the worker is replaced: the old one goes on until the new one has registered.

mod changes;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use boki_functions::{Environment, Functions, PoolSpec};
use boki_server::StartError;
use boki_server::config::Dev;
use serde_json::json;

use self::changes::Changes;
use crate::cli::DevArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::serve::{StopSignals, did_not_start, say_ready, start};
use crate::settings::{self, Overrides};

/// What the worker is called, in logs and listings.
const WORKER: &str = "dev";
/// A command like `cargo run` compiles before the worker starts.
const START_TIMEOUT: Duration = Duration::from_secs(15 * 60);

pub(crate) async fn run(args: DevArgs, mut out: Output) -> Result<(), Failure> {
    let config = settings::load(&args.file, &Overrides { listen: args.listen, ..Overrides::default() })?;
    let dev = config.dev.clone();
    let mut stop = StopSignals::new()?;
    let watched = match &dev.command {
        Some(_) if dev.watch.is_empty() => vec![PathBuf::from(".")],
        Some(_) => dev.watch.clone(),
        None => Vec::new(),
    };
    let mut changes = Changes::watch(&watched, &config.server.data)?;
    let server = start(config, args.time).await?;
    say_ready(&server, &mut out)?;
    let url = server.local_url();
    let reload = reload_for_ever(&dev, &url, server.functions(), &mut changes, &mut out);
    let ended = tokio::select! {
        ended = Box::pin(reload) => ended,
        () = stop.next() => Ok(()),
    };
    tokio::select! {
        () = Box::pin(server.shutdown()) => {}
        () = stop.next() => {}
    }
    ended
}

/// Builds, starts or replaces the worker, says what was loaded, waits for a change, and so on.
///
/// # Cancel-safety
/// Safe: a build that runs is killed; the worker is the server's.
async fn reload_for_ever(
    dev: &Dev,
    url: &str,
    functions: &Functions,
    changes: &mut Changes,
    out: &mut Output,
) -> Result<(), Failure> {
    let Some(command) = &dev.command else {
        eprintln!("  no code to run: boki.toml has no `command` in [dev]");
        return std::future::pending().await;
    };
    let mut workers = functions.worker_changes();
    let mut loaded = Loaded::default();
    let mut pool = None;
    loop {
        if build(dev.build.as_deref()).await? {
            match pool {
                Some(pool) => {
                    functions.restart_pool(pool);
                }
                None => {
                    let started = functions.start_pool(worker(command, url));
                    pool = Some(started.map_err(|error| did_not_start(&StartError::from(error)))?);
                }
            }
        }
        loop {
            tokio::select! {
                () = changes.next() => break,
                changed = workers.changed() => match changed {
                    Ok(()) => loaded.say(functions, out)?,
                    // The functions are gone: the server stops.
                    Err(_) => return Ok(()),
                },
            }
        }
    }
}

/// One process, with everything that is in the developer's shell, and time to be compiled.
fn worker(command: &str, url: &str) -> PoolSpec {
    PoolSpec {
        env: Environment { inherit: true, ..Environment::default() },
        start_timeout: START_TIMEOUT,
        ..PoolSpec::new(WORKER, in_shell(command).to_vec(), url)
    }
}

/// The command as it is written, in the shell's place.
fn in_shell(command: &str) -> [String; 3] {
    ["/bin/sh".to_owned(), "-c".to_owned(), format!("exec {command}")]
}

/// Runs the build, if there is one. Returns whether there is something to run.
async fn build(command: Option<&str>) -> Result<bool, Failure> {
    let Some(command) = command else { return Ok(true) };
    eprintln!("  building: {command}");
    let cannot = |error| Failure::io(format!("cannot run {command:?} (dev.build in boki.toml)"), &error);
    let [shell, arguments @ ..] = ["/bin/sh", "-c", command];
    // Standard output is for what this command says itself.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map_err(cannot)?;
    let status = tokio::process::Command::new(shell)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stderr)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(cannot)?;
    if !status.success() {
        eprintln!("  the build failed ({status}); what ran before goes on; waiting for a change");
    }
    Ok(status.success())
}

/// What was said to be loaded.
#[derive(Debug, Default)]
struct Loaded {
    version: u32,
    worker: Option<u64>,
}

impl Loaded {
    /// Says what the newest worker offers, if that was not said yet.
    fn say(&mut self, functions: &Functions, out: &mut Output) -> Result<(), Failure> {
        let workers = functions.workers();
        let newest =
            workers.iter().filter(|worker| &*worker.name == WORKER && !worker.draining).max_by_key(|worker| worker.id);
        let Some(newest) = newest.filter(|newest| self.worker.is_none_or(|said| said < newest.id)) else {
            return Ok(());
        };
        self.worker = Some(newest.id);
        self.version += 1;
        let names: Vec<&str> = newest.functions.iter().map(|name| &**name).collect();
        let value = json!({ "loaded": self.version, "functions": names, "pid": newest.pid });
        out.either(&value, || format!("  loaded v{}: {}", self.version, names.join(", ")))?;
        out.flush()
    }
}
