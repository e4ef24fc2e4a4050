//! `boki bench`.

use std::path::PathBuf;
use std::time::Duration;

use boki_server::config::Span;
use clap::{Args, Subcommand, ValueEnum};

use super::server::DurabilityArg;

#[derive(Args, Debug)]
#[command(after_help = "\
Starts a server of its own in a temporary folder and measures it from this process, together with the
machine in the same run: a round trip over loopback, a synced write. Figures of different machines, or
of different hours on a shared one, cannot be compared; the ratios printed at the end can.

Examples:
  boki bench all
  boki bench append --in-flight 1,64 --size 100 --seconds 10
  boki bench append --in-flight 1024,4096 --size 100
  boki bench connections --clients 64               a connection for each append in flight
  boki bench fan-out --subscribers 1000 --rate 1000 --size 100
  boki bench http --server 127.0.0.1:2654          a server that runs already; nothing else is started
  PYTHONPATH=sdk/python/src boki bench call --worker python --nested
  boki bench idle --functions 10000 --called 1000
  boki bench index --records 10000000 --size 64 --seconds 2
  boki bench url http://127.0.0.1:8080/ --clients 64     another HTTP server, under the same load
  boki bench --json all > bench.json")]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) workload: Workload,
    #[command(flatten)]
    pub(crate) options: BenchOptions,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchOptions {
    /// Measure this server instead of a new one.
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(crate) server: Option<String>,
    /// Where the new server's data and the files of the disk measurement go; the temporary folder unless given.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Of the new server.
    #[arg(long, global = true, value_enum, default_value_t = DurabilityArg::Fsync)]
    pub(crate) durability: DurabilityArg,
    /// How long each figure is measured, in seconds.
    #[arg(long, global = true, default_value_t = 5.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// How long before that the same load runs uncounted, in seconds.
    #[arg(long, global = true, default_value_t = 1.0, value_parser = seconds)]
    pub(crate) warm_up: f64,
    /// Payload of a record, in bytes.
    #[arg(long, global = true, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=8 << 20))]
    pub(crate) size: u32,
    /// Connections that native appends and reads share.
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) connections: u32,
    /// How the results are printed.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Results of other systems from the same machine and hour, to stand beside these (JSON lines: name, per_second, p50_us).
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) beside: Option<PathBuf>,
}

/// How results are printed. `--json` is short for JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// Markdown, for documents.
    Markdown,
    /// One JSON object.
    Json,
}

/// What functions are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    Python,
}

/// The hidden command that is the worker of a benchmark.
#[derive(Args, Debug)]
pub(crate) struct BenchWorker {
    /// Offer so many functions that are there to be many, instead of those that are measured.
    #[arg(long, default_value_t = 0)]
    pub(crate) functions: u32,
    /// How many calls it takes at once.
    #[arg(long)]
    pub(crate) places: Option<u32>,
    /// Number of the first of them.
    #[arg(long, default_value_t = 0)]
    pub(crate) first: u32,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Workload {
    /// Appends over the native protocol.
    Append {
        /// How many at once; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64,256,1024", value_parser = in_flight())]
        in_flight: Vec<u32>,
        /// Payload of a record, in bytes, where it differs from the others'.
        #[arg(skip)]
        of_size: Option<u32>,
    },
    /// Appends over the native protocol, by clients that have a connection and one append in flight each.
    Connections {
        /// How many clients; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1024))]
        clients: Vec<u32>,
    },
    /// One writer, and many subscribers of one tag: how long until every subscriber has a record, and that it gets each.
    FanOut {
        /// How many subscribers; they share the connections.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=8000))]
        subscribers: u32,
        /// Records per second.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rate: u32,
    },
    /// Reads of the last record of a tag, from memory, over the native protocol.
    Read {
        /// How many at once; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = in_flight())]
        in_flight: Vec<u32>,
    },
    /// Calls of a function that does nothing, over HTTP.
    Call {
        /// How many keep-alive connections, each with one call at a time; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = in_flight())]
        clients: Vec<u32>,
        /// What the function is written in. Python needs the SDK where `python3` finds it, for instance by PYTHONPATH.
        #[arg(long, value_enum, default_value_t = Language::Rust)]
        worker: Language,
        /// Then also call a function that calls the one that does nothing, and tell how long that took it.
        #[arg(long)]
        nested: bool,
    },
    /// Appends over HTTP.
    Http {
        /// How many keep-alive connections, each with one append at a time; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = in_flight())]
        clients: Vec<u32>,
    },
    /// A large body through a function that returns it piece by piece, over HTTP: megabytes per second, and the server's memory.
    Stream {
        /// How large, in millions of bytes.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        megabytes: u32,
    },
    /// What an append and a read cost while the log grows, in powers of ten; its memory, and how long it takes to open.
    Index {
        /// How many records the log has in the end, a tenth as many tags; with --size 16 a hundred million take about 15 GB.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000_000))]
        records: u64,
    },
    /// A server without load: memory, processor time, wake-ups, and how fast it starts.
    Idle {
        /// How long to watch it, in seconds.
        #[arg(long, default_value_t = 10.0, value_parser = seconds)]
        window: f64,
        /// How many functions its workers offer; 0 = no worker.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
        functions: u32,
        /// How many of those are called, once each, before it is watched.
        #[arg(long, default_value_t = 0, requires = "functions")]
        called: u32,
    },
    /// Calls for one limit key, alone and beside another key's backlog of calls on record; tells how much longer they take.
    Fairness {
        /// How many calls the other key sends before.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        backlog: u32,
    },
    /// Requests to any HTTP server, to put another one under the same load. No server is started.
    Url {
        /// Where to; it must answer with status 200 and a Content-Length.
        url: String,
        /// The requests' body (JSON), which makes them POST instead of GET.
        #[arg(long, value_name = "JSON")]
        body: Option<String>,
        /// What the result calls it.
        #[arg(long, default_value = "HTTP request")]
        name: String,
        /// Its process, to tell how much processor time a request costs it.
        #[arg(long)]
        pid: Option<u32>,
        /// How many keep-alive connections, each with one request at a time; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "64", value_parser = in_flight())]
        clients: Vec<u32>,
    },
    /// Publications to a NATS server with JetStream, for comparison. `bench/nats.sh` starts one.
    Nats {
        /// Where it listens, host:port. It gets a stream named BENCH.
        #[arg(value_name = "ADDRESS")]
        address: String,
        /// What the figure is called.
        #[arg(long, default_value = "NATS JetStream, publish and acknowledgement")]
        name: String,
        /// How many connections, each with one publication at a time; each number is a figure of its own.
        #[arg(long, value_delimiter = ',', default_value = "64", value_parser = in_flight())]
        clients: Vec<u32>,
    },
    /// All of these but index, fairness, url and nats.
    All,
}

fn in_flight() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=16_384)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && (0.01..=3600.0).contains(&seconds) => Ok(seconds),
        _ => match text.parse::<Span>() {
            Ok(Span(span)) if (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&span) => {
                Ok(span.as_secs_f64())
            }
            _ => Err("a number of seconds from 0.01 to 3600 is expected".to_owned()),
        },
    }
}
