//! The sections of `boki.toml`, each a struct whose defaults are the defaults. Their documentation is also
//! the text of the published JSON schema.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::units::{Size, Span};

/// The port that Boki listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 2654;

/// What `boki dev` runs beside the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dev {
    /// The command that runs your code's worker, as for a shell: "cargo run", "python app.py".
    pub command: Option<String>,
    /// Run before `command` at the start and after each change; the old worker stays while it fails.
    pub build: Option<String>,
    /// Files and folders whose changes restart the worker.
    pub watch: Vec<PathBuf>,
}

/// What `boki test` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TestSection {
    /// The command that runs the project's tests, as for a shell; `cargo test` or `pytest` unless set.
    pub command: Option<String>,
}

/// Where the server listens and what it promises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSection {
    /// Address and port for HTTP and the native protocol alike; port 0 takes a free one.
    #[serde(deserialize_with = "socket_addr")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Listen on an address that other machines can reach, although nothing asks callers who they are.
    pub insecure: bool,
    /// The data directory; made if missing.
    pub data: PathBuf,
    /// What an acknowledged append survives.
    pub durability: Durability,
    /// A Unix socket for both protocols; `boki.sock` in the data directory unless set; "" for none.
    pub socket: Option<PathBuf>,
    /// How long requests that are being answered may go on once the server was told to stop.
    pub shutdown_grace: Span,
}

impl Default for ServerSection {
    fn default() -> ServerSection {
        ServerSection {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            insecure: false,
            data: PathBuf::from("./.boki"),
            durability: Durability::Fsync,
            socket: None,
            shutdown_grace: Span(Duration::from_secs(10)),
        }
    }
}

impl ServerSection {
    /// Where the Unix socket goes, if there is to be one.
    #[must_use]
    pub fn socket_path(&self) -> Option<PathBuf> {
        match &self.socket {
            None => Some(self.data.join("boki.sock")),
            Some(path) if path.as_os_str().is_empty() => None,
            Some(path) => Some(path.clone()),
        }
    }
}

/// What an acknowledged append survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut: nothing is acknowledged before it is on disk.
    #[default]
    Fsync,
    /// The end of the process, not a power cut. For comparison only.
    Memory,
}

impl From<Durability> for boki_node::Durability {
    fn from(durability: Durability) -> boki_node::Durability {
        match durability {
            Durability::Fsync => boki_node::Durability::Fsync,
            Durability::Memory => boki_node::Durability::Memory,
        }
    }
}

/// What is refused at the door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Largest payload of one record.
    pub record: Size,
    /// Largest batch: all records, tags and conditions together.
    pub batch: Size,
    /// Most records in one batch.
    pub batch_records: u32,
    /// Most tags on one record; at most 255.
    pub record_tags: u8,
    /// Most conditions on one batch.
    pub batch_conditions: u16,
    /// Most blocking reads and subscriptions that wait at one time.
    pub waiting_reads: u32,
    /// Most bytes of appends that wait for the disk before further ones are refused.
    pub pending: Size,
    /// Most records that one read returns.
    pub read_records: u32,
    /// Most payload bytes that one read returns; one record is returned whatever its size.
    pub read: Size,
    /// Largest aux data of one record.
    pub aux: Size,
    /// Most connections at one time, of both protocols, TCP and Unix socket together.
    pub connections: u32,
    /// Largest body of an HTTP request.
    pub http_body: Size,
    /// Largest body of an HTTP request that calls a function which takes its input piece by piece.
    pub stream_body: Size,
}

impl Default for LimitsSection {
    fn default() -> LimitsSection {
        let log = boki_log::Limits::default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        LimitsSection {
            record: Size(log.record_bytes as u64),
            batch: Size(log.batch_bytes as u64),
            batch_records: count(log.batch_records),
            record_tags: u8::try_from(log.record_tags).unwrap_or(u8::MAX),
            batch_conditions: u16::try_from(log.batch_conditions).unwrap_or(u16::MAX),
            waiting_reads: count(log.waiting_reads),
            pending: Size(log.pending_bytes as u64),
            read_records: count(log.read_records),
            read: Size(log.read_bytes as u64),
            aux: Size(log.aux_bytes as u64),
            connections: 10_000,
            http_body: Size::mib(32),
            stream_body: Size::mib(1024),
        }
    }
}

impl LimitsSection {
    /// Those that the log judges.
    #[must_use]
    pub fn log(&self) -> boki_log::Limits {
        boki_log::Limits {
            record_bytes: self.record.bytes(),
            batch_bytes: self.batch.bytes(),
            batch_records: self.batch_records as usize,
            record_tags: usize::from(self.record_tags),
            batch_conditions: usize::from(self.batch_conditions),
            waiting_reads: self.waiting_reads as usize,
            pending_bytes: self.pending.bytes(),
            read_records: self.read_records as usize,
            read_bytes: self.read.bytes(),
            aux_bytes: self.aux.bytes(),
        }
    }
}

/// The log's files and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Size of a segment file; it must hold the largest batch.
    pub segment: Size,
    /// Memory for recent records.
    pub cache: Size,
    /// Memory for the index; what is beyond is in files.
    pub index: Size,
    /// Whether records are compressed on disk. It counts for what is written from now on.
    pub compression: Compression,
    /// With a data key: encrypts a data directory that is not encrypted yet. What is in it stays as it is.
    pub encrypt: bool,
}

/// How records are compressed on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// With LZ4, where it saves something.
    Lz4,
}

impl From<Compression> for boki_node::Compression {
    fn from(compression: Compression) -> boki_node::Compression {
        match compression {
            Compression::None => boki_node::Compression::None,
            Compression::Lz4 => boki_node::Compression::Lz4,
        }
    }
}

impl Default for LogSection {
    fn default() -> LogSection {
        LogSection {
            segment: Size::mib(64),
            cache: Size::mib(64),
            index: Size::mib(512),
            compression: Compression::default(),
            encrypt: false,
        }
    }
}

/// How an app is deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeploySection {
    /// The app's name; the folder's unless set.
    pub app: Option<String>,
    /// The command of the app's only worker, as for a shell; without it, each `[[worker]]` is one.
    pub command: Option<String>,
    /// Run by the server in the version's folder before anything is started.
    pub build: Option<String>,
    /// How long `build` may take.
    pub build_timeout: Span,
    /// How long the workers may take to register.
    pub start_timeout: Span,
    /// Files and folders that belong to a version although `.gitignore` or `.bokiignore` leaves them out.
    pub include: Vec<PathBuf>,
}

impl Default for DeploySection {
    fn default() -> DeploySection {
        DeploySection {
            app: None,
            command: None,
            build: None,
            build_timeout: Span(Duration::from_secs(15 * 60)),
            start_timeout: Span(Duration::from_secs(30)),
            include: Vec::new(),
        }
    }
}

/// What the server does with apps that are deployed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VersionsSection {
    /// How many versions of an app are kept, the active one included.
    pub keep: u32,
    /// Largest package of a version, as it is sent.
    pub package: Size,
    /// Most bytes of all files of a version.
    pub unpacked: Size,
    /// Most files and folders of a version.
    pub files: u32,
}

impl Default for VersionsSection {
    fn default() -> VersionsSection {
        VersionsSection { keep: 10, package: Size::mib(256), unpacked: Size::mib(1024), files: 50_000 }
    }
}

/// How calls are queued, retried and remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionsSection {
    /// Most calls of one function that wait for a worker before further ones are refused.
    pub queue: u32,
    /// How long a call may take, unless its function or its caller says otherwise.
    pub timeout: Span,
    /// How often a call is tried if workers are lost under it, unless its function says otherwise.
    pub attempts: u32,
    /// How long the result of a finished keyed or detached call is kept.
    pub retention: Span,
}

impl Default for FunctionsSection {
    fn default() -> FunctionsSection {
        FunctionsSection {
            queue: 10_000,
            timeout: Span(Duration::from_secs(60)),
            attempts: 3,
            retention: Span(Duration::from_secs(24 * 60 * 60)),
        }
    }
}

/// Calls on record: how many, and how large. And calls that are given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CallsSection {
    /// Most calls that may be on record without a result, running ones included, before further ones are refused.
    pub backlog: u64,
    /// Inputs and outputs of calls on record that are larger lie in files beside the log.
    pub inline: Size,
    /// Largest of those.
    pub blob: Size,
    /// How long a worker may take to answer a call that was given up (on record or not) before it is ended or disconnected.
    pub cancel_grace: Span,
}

impl Default for CallsSection {
    fn default() -> CallsSection {
        CallsSection {
            backlog: 10_000_000,
            inline: Size(64 << 10),
            blob: Size::mib(1024),
            cancel_grace: Span(Duration::from_secs(10)),
        }
    }
}

/// What the server says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySection {
    /// Form of the log lines on standard error.
    pub format: LogFormat,
    /// Which of them: "error", "warn", "info", "debug", "trace", or a filter such as "info,boki_server=debug".
    pub level: String,
}

impl Default for TelemetrySection {
    fn default() -> TelemetrySection {
        TelemetrySection { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

fn socket_addr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "invalid address {text:?}, expected an IP address and a port, such as \"127.0.0.1:2654\" or \"[::1]:0\""
        ))
    })
}
