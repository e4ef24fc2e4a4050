//! `boki demo`.

use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "\
Starts a server in a temporary folder, with the booking example as its worker. Clients search for flights
and hotels and fight for seats over HTTP. After 40 % of the requests the worker is killed (kill -9), after
70 % the server, which is then started again on its data. At the end every answer that a client got is
compared with the book. Exits with 0 if all of it holds, else with 1 and the discrepancies.

Examples:
  boki demo
  boki demo --requests 100000 --clients 200 --seed 7
  boki demo --stay                     keep the server up afterwards, and say what to try")]
pub(crate) struct DemoArgs {
    /// How many requests to make.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) requests: u32,
    /// How many clients make them at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) clients: u32,
    /// Which requests: another seed gives others.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keep the server running at the end, and say what to try.
    #[arg(long)]
    pub(crate) stay: bool,
}
