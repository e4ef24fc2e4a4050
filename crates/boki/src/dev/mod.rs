//! `boki dev`: a server, and the code beside it, reloaded when it changes.
//!
//! The code is a pool of one worker that the server looks after, as it would in production. After a change the code is
//! built, and started as a new pool that gets no calls yet. Once its worker has registered it gets all new calls, and the
//! old one finishes what it has; if it does not come to that, the old one goes on.

mod changes;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use boki_functions::{Environment, Functions, PoolFailure, PoolId, PoolSpec};
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
    let mut changes = Changes::watch(&watched, Path::new("."), &config.server.data)?;
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

/// Builds and starts the code, switches to it, says what was loaded, waits for a change, and so on.
///
/// # Cancel-safety
/// Safe: a build that runs is killed; the workers are the server's.
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
    let mut loaded = Loaded::default();
    // When the change was made that is being loaded.
    let mut since = None;
    loop {
        if build(dev.build.as_deref()).await? {
            let starting = Starting::new(functions, worker(command, url, &loaded))?;
            tokio::select! {
                // What has changed already is not worth waiting for.
                biased;
                at = changes.next() => {
                    since = Some(at);
                    continue;
                }
                ready = functions.pool_ready(starting.pool) => match ready {
                    Ok(()) => loaded.switch(starting, since, out)?,
                    Err(failure) => say_failed(&failure, &loaded),
                },
            }
        }
        since = Some(changes.next().await);
    }
}

/// One process, with everything that is in the developer's shell, and time to be compiled. It is held back while there is
/// other code that takes the calls.
fn worker(command: &str, url: &str, loaded: &Loaded) -> PoolSpec {
    PoolSpec {
        version: (loaded.version + 1).to_string(),
        env: Environment { inherit: true, ..Environment::default() },
        start_timeout: START_TIMEOUT,
        held: loaded.pool.is_some(),
        ..PoolSpec::new(WORKER, in_shell(command).to_vec(), url)
    }
}

/// The command as it is written, in the shell's place.
fn in_shell(command: &str) -> [String; 3] {
    ["/bin/sh".to_owned(), "-c".to_owned(), format!("exec {command}")]
}

/// A pool that does not serve yet: it ends unless it is kept.
struct Starting<'a> {
    functions: &'a Functions,
    pool: PoolId,
    is_kept: bool,
}

impl Starting<'_> {
    fn new(functions: &Functions, spec: PoolSpec) -> Result<Starting<'_>, Failure> {
        let pool = functions.start_pool(spec).map_err(|error| did_not_start(&StartError::from(error)))?;
        Ok(Starting { functions, pool, is_kept: false })
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // It takes no calls from now on; nobody waits for its end.
            drop(self.functions.drain_pool(self.pool));
        }
    }
}

/// The code that gets the calls.
#[derive(Debug, Default)]
struct Loaded {
    version: u32,
    pool: Option<PoolId>,
}

impl Loaded {
    /// Calls go to the new code from now on, and only then it is said.
    fn switch(&mut self, mut starting: Starting<'_>, since: Option<Instant>, out: &mut Output) -> Result<(), Failure> {
        let functions = starting.functions;
        starting.is_kept = true;
        functions.release_pool(starting.pool);
        if let Some(old) = self.pool.replace(starting.pool) {
            drop(functions.drain_pool(old));
        }
        self.version += 1;
        let took = since.map(|since| since.elapsed());
        self.say(functions, took, out)
    }

    fn say(&self, functions: &Functions, took: Option<Duration>, out: &mut Output) -> Result<(), Failure> {
        let pools = functions.pools();
        let info = pools.iter().find(|info| Some(info.id) == self.pool);
        let names: Vec<&str> = info.iter().flat_map(|info| &info.functions).map(|name| &**name).collect();
        let pid = info.and_then(|info| info.processes.iter().find_map(|process| process.pid));
        let took_ms = took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let value = json!({ "loaded": self.version, "functions": names, "pid": pid, "reload_ms": took_ms });
        out.either(&value, || match took_ms {
            None => format!("  loaded v{}: {}", self.version, names.join(", ")),
            Some(took_ms) => format!("  reloaded v{} in {took_ms} ms: {}", self.version, names.join(", ")),
        })?;
        out.flush()
    }
}

fn say_failed(failure: &PoolFailure, loaded: &Loaded) {
    let rest = match loaded.version {
        0 => "waiting for a change".to_owned(),
        version => format!("v{version} goes on; waiting for a change"),
    };
    eprintln!("  the code does not start: its process {}; {rest}", failure.reason);
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
