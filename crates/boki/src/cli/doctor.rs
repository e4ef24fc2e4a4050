//! `boki doctor`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;

use super::{ConfigFile, Target};

#[derive(Args, Debug)]
#[command(after_help = "\
Without --online no server may run on the directory. Every file is read, nothing is changed, and everything that is
wrong is told: where, what it means for which books and seqs, and what can be done.

Examples:
  boki doctor                                     ./.boki, or what boki.toml says
  boki doctor --data /var/lib/boki --json
  boki doctor --read-only --data /mnt/snapshot    takes no lock: for a copy, or a read-only file system
  boki doctor --online                            a running server reads its files, at a bounded rate
  boki doctor --repair --from /backup/boki        mends what can be mended, with what is intact in a copy

What is put in place was checked before; what was there is kept in the folder `damaged` of the directory.

Exit codes:
  0  nothing is damaged (any more)    3  it cannot be examined: in use, not there, or not a data directory
  1  something is damaged")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFile,
    /// The data directory; server.data of the configuration, unless given.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Take no lock and open nothing for writing.
    #[arg(long, conflicts_with = "repair")]
    pub(crate) read_only: bool,
    /// Mend what can be mended.
    #[arg(long)]
    pub(crate) repair: bool,
    /// A copy of the same directory, to take intact files from; may be given more than once.
    #[arg(long, value_name = "DIR", requires = "repair")]
    pub(crate) from: Vec<PathBuf>,
    /// Give up what cannot be mended: damaged blobs, and in the last segment everything behind the damage. Look at what is
    /// concerned first: it is lost for good.
    #[arg(long, requires = "repair")]
    pub(crate) discard: bool,
    /// Ask a running server to read its files.
    #[arg(long, conflicts_with_all = ["data", "repair", "read_only", "config"])]
    pub(crate) online: bool,
    /// How much the running server reads a second.
    #[arg(long, value_name = "SIZE", requires = "online", default_value = "64MiB")]
    pub(crate) rate: ByteSize,
    #[command(flatten)]
    pub(crate) target: Target,
}
