//! `boki server`: starts a server, says where it is, and ends it in order.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use boki_server::config::Durability;
use boki_server::{Clock, Config, Server, StartError, start_telemetry};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{ServerArgs, Time};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::settings::{self, Overrides};

/// Red, where colours are shown.
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

pub(crate) async fn run(args: ServerArgs, mut out: Output) -> Result<(), Failure> {
    let overrides = Overrides {
        listen: args.listen,
        data: args.data,
        durability: args.durability.map(Into::into),
        insecure: args.insecure,
    };
    let config = settings::load(&args.file, &overrides)?;
    // Before the server starts: a signal in the middle of that is not lost.
    let mut stop = StopSignals::new()?;
    let server = start(config, args.time).await?;
    say_ready(&server, &mut out)?;
    // Nothing more is printed.
    drop(out);
    stop.next().await;
    tokio::select! {
        () = Box::pin(server.shutdown()) => {}
        () = stop.next() => eprintln!("stopped at once; what was acknowledged is on disk"),
    }
    Ok(())
}

/// A running server whose log lines go to standard error.
pub(crate) async fn start(mut config: Config, time: Time) -> Result<Server, Failure> {
    config.launcher = launcher();
    start_telemetry(&config.telemetry)
        .map_err(|error| Failure::new(error.code(), Exit::Usage, error.to_string(), "boki config schema"))?;
    let clock = match time.virtual_time {
        None => Clock::system(),
        Some(start) => {
            let since = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Clock::virtual_from(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
        }
    };
    Box::pin(Server::start_with(config, clock)).await.map_err(|error| did_not_start(&error))
}

/// This program, even if its file has been replaced meanwhile.
fn launcher() -> Option<PathBuf> {
    let this = PathBuf::from("/proc/self/exe");
    if this.exists() { Some(this) } else { std::env::current_exe().ok() }
}

pub(crate) fn did_not_start(error: &StartError) -> Failure {
    match error {
        StartError::Config(error) => settings::of_config(error),
        _ => Failure::new(error.code(), Exit::Unavailable, error.to_string(), error.next()),
    }
}

/// The banner, or with `--json` one line that says the same.
pub(crate) fn say_ready(server: &Server, out: &mut Output) -> Result<(), Failure> {
    let section = &server.config().server;
    let address = server.local_addr();
    let durability = match section.durability {
        Durability::Fsync => "fsync",
        Durability::Memory => "memory",
    };
    let value = json!({
        "url": format!("http://{address}"),
        "address": address.to_string(),
        "socket": server.socket_path().map(|path| path.display().to_string()),
        "data": section.data.display().to_string(),
        "durability": durability,
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    out.either(&value, || {
        let mut text =
            format!("  boki {}  data {} (kept)  durability ", env!("CARGO_PKG_VERSION"), section.data.display());
        let _ = match section.durability {
            Durability::Fsync => write!(text, "{durability}"),
            Durability::Memory => {
                let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
                let (red, plain) = if is_terminal { (RED, PLAIN) } else { ("", "") };
                write!(text, "{red}{durability}: a power cut loses acknowledged records{plain}")
            }
        };
        let _ = write!(text, "\n  http://{address}   API, native protocol, health");
        text
    })?;
    out.flush()
}

/// The signals that ask a process to end.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(crate) fn new() -> Result<StopSignals, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("cannot listen for signals", &error));
        Ok(StopSignals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
