//! `boki key`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a new random key, for BOKI_DATA_KEY.
    #[command(after_help = "\
Keep a copy of the key where the data directory is not: without it nobody can read the directory.

Example:
  boki key new > /run/secrets/boki
  BOKI_DATA_KEY_FILE=/run/secrets/boki boki server")]
    New,
    /// Print the id of the key on standard input: how messages name it.
    #[command(after_help = "Example:\n  boki key id < /run/secrets/boki")]
    Id,
}
