//! `boki limits`.

use clap::{Args, Subcommand};

use super::Target;

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// List the limits, and how much of each is used.
    #[command(after_help = "\
THROTTLED counts calls that found the limit used up when they came, since the server's start. SOURCE is
`config` for limits of boki.toml, and `set` for those that were set.

Example:
  boki limits ls --keys")]
    Ls {
        #[command(flatten)]
        target: Target,
        /// Also the busiest keys of limits that count each key by itself.
        #[arg(long)]
        keys: bool,
    },
    /// Set a limit; it is in force at once, and outlives a restart.
    Set(Box<SetLimit>),
    /// Remove a limit that was set; one of boki.toml that it stood in place of is in force again.
    #[command(after_help = "Example:\n  boki limits rm reports")]
    Rm {
        #[command(flatten)]
        target: Target,
        /// Its name.
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(after_help = "\
A call is held to all limits that match it. Calls say for whom they are with the header Boki-Limit-Key;
those that do not count together as one key.

Examples:
  boki limits set reports 'call:report-*' --concurrency 4
  boki limits set tenants 'call:*' --per-key --concurrency 20 --rate 100/s --queue 1000
  boki limits set acme    'call:*' --key acme --weight 3         three times the share of others
  boki limits set mail    call:send-mail --rate 5/m --burst 5")]
pub(crate) struct SetLimit {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Its name.
    pub(crate) name: String,
    /// Which calls: call:checkout, 'call:report-*', 'call:*'.
    #[arg(value_name = "MATCH")]
    pub(crate) matches: String,
    /// Only calls whose limit key is such: acme, 'acme/*'.
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Count each limit key by itself.
    #[arg(long)]
    pub(crate) per_key: bool,
    /// How many may run at once.
    #[arg(long, short, value_name = "N")]
    pub(crate) concurrency: Option<u32>,
    /// How many may begin in a time: 100/s, 5/m, 3/10s.
    #[arg(long)]
    pub(crate) rate: Option<String>,
    /// How many of these may begin at once after a pause; as many as come in a second unless given, at least 1.
    #[arg(long, value_name = "N", requires = "rate")]
    pub(crate) burst: Option<u32>,
    /// The share of each key it matches, or of each function if it asks for no key; 1 is the usual one.
    #[arg(long, value_name = "N")]
    pub(crate) weight: Option<u32>,
    /// How many may wait before further ones are refused.
    #[arg(long, value_name = "N")]
    pub(crate) queue: Option<u32>,
}
