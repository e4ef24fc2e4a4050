//! `boki deploy` and `boki versions`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Target;

/// Somebody who may deploy.
#[derive(Args, Clone, Debug)]
pub(crate) struct Deployer {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The server's token; without it, the one in the data directory of a server on this machine is read.
    #[arg(long, env = "BOKI_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// That server's data directory, if it is not the one of this folder's boki.toml.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The folder's boki.toml says what to run:

  [deploy]
  app = \"shop\"                        # the folder's name unless set
  build = \"cargo build --release\"     # optional: run by the server, in the version's folder
  command = \"target/release/shop\"     # or one [[worker]] for each
  include = [\"dist\"]                  # although .gitignore leaves it out

What .gitignore and .bokiignore leave out is not sent. The old version goes on until the new one serves; if that does not
come to serve, nothing changes and the exit code is 1.

Examples:
  boki deploy
  boki deploy ../shop --server 10.0.0.7:2654 --token \"$(cat token)\"
  boki deploy --dry-run                          what would be sent
  boki deploy --rollback                         back to the version before
  boki deploy --rollback 7")]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) deployer: Deployer,
    /// The app's folder.
    #[arg(default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The app's name, if it is not the one in boki.toml.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Go back to a version that is kept: this one, or the one that was active before.
    #[arg(long, value_name = "VERSION", num_args = 0..=1)]
    pub(crate) rollback: Option<Option<u32>>,
    /// List the files that would be sent, and send nothing.
    #[arg(long, conflicts_with = "rollback")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VersionsCommand {
    /// List the versions of all apps, or of one.
    #[command(after_help = "Example:\n  boki versions ls shop")]
    Ls {
        #[command(flatten)]
        target: Target,
        /// The app.
        app: Option<String>,
    },
    /// Show a version: what it offers, or why it failed.
    #[command(after_help = "Example:\n  boki versions get shop 7")]
    Get {
        #[command(flatten)]
        target: Target,
        /// The app.
        app: String,
        /// The version; the active one unless given.
        version: Option<u32>,
    },
    /// Make a version active that is kept.
    #[command(after_help = "Example:\n  boki versions activate shop 7")]
    Activate {
        #[command(flatten)]
        deployer: Deployer,
        /// The app.
        app: String,
        /// The version.
        version: u32,
    },
    /// Remove a version that does not run, or the whole app.
    #[command(after_help = "Examples:\n  boki versions rm shop 3\n  boki versions rm shop --all")]
    Rm {
        #[command(flatten)]
        deployer: Deployer,
        /// The app.
        app: String,
        /// The version.
        #[arg(required_unless_present = "all")]
        version: Option<u32>,
        /// End the app and remove all its versions.
        #[arg(long, conflicts_with = "version")]
        all: bool,
    },
}
