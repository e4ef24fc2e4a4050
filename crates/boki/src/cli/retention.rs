//! `boki retention`.

use clap::{ArgGroup, Args, Subcommand};

use super::Target;

#[derive(Debug, Subcommand)]
pub(crate) enum RetentionCommand {
    /// Show what is kept of a book, and what its rules count.
    #[command(after_help = "\
A book without rules keeps everything. SOURCE is `config` for rules of boki.toml, and `set` for those that were
set for the book.

Example:
  boki retention ls orders")]
    Ls {
        #[command(flatten)]
        target: Target,
        /// The book.
        book: String,
    },
    /// Add a rule to a book, or replace the one for the same records; it outlives a restart.
    Set(SetRetention),
    /// Remove a rule of a book, or all; without any of its own it goes by boki.toml again.
    #[command(after_help = "\
Examples:
  boki retention rm orders                    all rules that were set for it
  boki retention rm orders --tag 'sensor/*'   only that one")]
    Rm {
        #[command(flatten)]
        target: Target,
        /// The book.
        book: String,
        /// Only the rule for this tag.
        #[arg(long)]
        tag: Option<String>,
    },
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("bound").required(true).multiple(true).args(["max_age", "max_records", "max_bytes"]))]
#[command(after_help = "\
Whichever bound is reached first lets the oldest records go. What a rule keeps is never trimmed; what it does
not keep goes when about a 64th of the bound (64 records at least) can go at once. Records of Boki's own
libraries, such as calls that have no result yet, are never touched.

Examples:
  boki retention set orders --max-age 30d --max-bytes 10GiB
  boki retention set orders --tag debug --max-age 1h
  boki retention set orders --tag 'sensor/*' --max-records 1000      of each sensor by itself")]
pub(crate) struct SetRetention {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The book.
    pub(crate) book: String,
    /// Only records under this tag; 'sensor/*': those under each tag that begins so, each tag by itself.
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// Keep records younger than this: 12h, 30d.
    #[arg(long, value_name = "TIME")]
    pub(crate) max_age: Option<String>,
    /// Keep the newest so many.
    #[arg(long, value_name = "N")]
    pub(crate) max_records: Option<u64>,
    /// Keep the newest whose tags and payloads have so many bytes together: 500MiB, 10GiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_bytes: Option<String>,
}
