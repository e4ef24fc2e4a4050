//! Commands about a server on this machine and its configuration.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use boki_server::config::Durability;
use clap::{Args, Subcommand, ValueEnum};

/// The file that is read if it is there and no other is named.
pub(crate) const DEFAULT_FILE: &str = "boki.toml";

/// Where settings come from.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigFile {
    /// The configuration; `boki.toml` in this folder, if there is one.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Settings come from defaults, then boki.toml, then BOKI_SECTION__KEY variables, then these options.

Examples:
  boki server
  boki server --listen 127.0.0.1:0 --data /var/lib/boki     any free port; it is printed
  boki server --json                                        one line of JSON when it is ready
  BOKI_LOG__CACHE=256MiB boki server

SIGTERM or ctrl-c ends it in order: requests that run may end (server.shutdown_grace), then the log
is closed. A second one ends it at once; what was acknowledged is on disk in any case.")]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Address and port for HTTP and the native protocol; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The data directory; made if missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// What an acknowledged append survives.
    #[arg(long, value_enum)]
    pub(crate) durability: Option<DurabilityArg>,
    /// Listen on an address that other machines can reach, although nothing asks callers who they are.
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) time: Time,
}

/// What tells a server the time.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Time {
    /// For tests: the time stands still until POST /v1/time/advance, and begins at this moment (RFC 3339), or now.
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "now", value_parser = moment, hide = true)]
    pub(crate) virtual_time: Option<SystemTime>,
}

fn moment(text: &str) -> Result<SystemTime, humantime::TimestampError> {
    if text == "now" { Ok(SystemTime::now()) } else { humantime::parse_rfc3339_weak(text) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// A power cut: nothing is acknowledged before it is on disk.
    Fsync,
    /// The end of the process, not a power cut. For comparison only.
    Memory,
}

impl From<DurabilityArg> for Durability {
    fn from(argument: DurabilityArg) -> Durability {
        match argument {
            DurabilityArg::Fsync => Durability::Fsync,
            DurabilityArg::Memory => Durability::Memory,
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
What to run stands in boki.toml:

  [dev]
  build = \"cargo build\"             # optional: run first; while it fails, the old code stays
  command = \"target/debug/shop\"     # your worker
  watch = [\"src\"]                   # whose changes reload it; \".\" unless set

Data is kept in ./.boki. Without a [dev] command it is a server alone.")]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) time: Time,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  boki new shop && cd shop && boki dev\n  boki new shop --py")]
pub(crate) struct NewArgs {
    /// The folder to make; its last part is the name of the project.
    pub(crate) path: PathBuf,
    /// In Rust (the default).
    #[arg(long, conflicts_with = "py")]
    pub(crate) rust: bool,
    /// In Python.
    #[arg(long)]
    pub(crate) py: bool,
    /// Where the language's SDK is, such as `crates/boki-sdk` or `sdk/python` of a checkout; that which this binary was
    /// built from, unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) sdk_path: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without a command in [test] of boki.toml it is `cargo test` or `pytest`, whichever suits the folder.
The tests find this binary in BOKI_BIN.

Examples:
  boki test
  boki test -- -k greetings       further arguments go to the command")]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// Given on to the command.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the configuration can be used, and what is wrong with it.
    #[command(after_help = "Example:\n  boki config check --config /etc/boki.toml")]
    Check(ConfigFile),
    /// Print the JSON schema of boki.toml, for editors.
    #[command(after_help = "Example:\n  boki config schema > boki.schema.json")]
    Schema,
    /// Print every setting as it applies: defaults, file and environment together.
    #[command(after_help = "Example:\n  BOKI_LOG__CACHE=256MiB boki config show")]
    Show(ConfigFile),
}
