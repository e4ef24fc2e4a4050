//! A running server: the log, the functions, and a port that speaks HTTP and the native protocol.
//!
//! Starting takes what could fail first, so that a start that fails has changed as little as possible: the
//! port, then the data directory, then the socket. Stopping goes the other way: no new requests, an end to
//! those that run, then the functions, then the log.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use boki_functions::{CallError, Functions, FunctionsConfig, PoolError};
use boki_log::LogError;
use boki_node::{Clock, Node, NodeConfig, OpenError};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, ConfigError};
use crate::door::Door;
use crate::http::{DEFAULT_BOOK, Gateway};
use crate::listen::Connections;
use crate::native::NativeShared;
use crate::versions::{Versions, VersionsError};
use crate::virtual_time::{self, Hold};
use crate::workers::{EnvFileError, pool_spec};

/// How long native connections have to write their last answers.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's word for it.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on the socket {}: {source}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
    /// The log does not open.
    #[error("cannot open the log in {}: {source}", .data.display())]
    Open {
        /// The data directory.
        data: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// The log cannot be used.
    #[error("the log cannot be used: {0}")]
    Log(#[from] LogError),
    /// The versions of deployed apps, or the token to deploy with, cannot be read.
    #[error("the versions in {} cannot be used: {source}", .data.display())]
    Versions {
        /// The data directory.
        data: PathBuf,
        /// The system's word for it.
        source: io::Error,
    },
    /// A worker pool cannot be started.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The variables of a worker cannot be read.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// Calls on record cannot be resumed.
    #[error("cannot resume the calls on record: {0}")]
    Recover(#[from] CallError),
    /// The runtime has a clock of its own.
    #[error("a server in virtual time needs the runtime of virtual_runtime()")]
    VirtualTime,
}

impl StartError {
    /// The stable code, as in `docs/errors/`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            StartError::Config(error) => error.code(),
            StartError::Listen { .. } => "BK0523",
            StartError::Socket { .. } => "BK0524",
            StartError::Open { source, .. } => source.code(),
            StartError::Log(error) => error.code(),
            StartError::Versions { .. } => "BK0525",
            StartError::Pool(error) => error.code(),
            StartError::EnvFile(error) => error.code(),
            StartError::Recover(error) => error.code(),
            StartError::VirtualTime => "BK0429",
        }
    }

    /// The next command to run.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            StartError::Config(error) => error.next().to_owned(),
            StartError::Listen { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                format!("boki server --listen {}:0, or stop what listens there", address.ip())
            }
            StartError::Listen { .. } => "boki server --listen 127.0.0.1:2654".to_owned(),
            StartError::Socket { .. } => {
                "set server.socket in boki.toml to another path, or to \"\" for none".to_owned()
            }
            StartError::Versions { data, .. } => format!("ls -la {}", data.display()),
            StartError::Open { .. }
            | StartError::Log(_)
            | StartError::Pool(_)
            | StartError::EnvFile(_)
            | StartError::Recover(_)
            | StartError::VirtualTime => {
                format!("boki explain {}", self.code())
            }
        }
    }
}

/// A running server. Dropping it ends everything at once; [`Server::shutdown`] does so in order.
pub struct Server {
    local_addr: SocketAddr,
    socket: Option<PathBuf>,
    node: Node,
    functions: Functions,
    versions: Versions,
    connections: Arc<Connections>,
    config: Config,
    /// In virtual time, keeps the clock where it is.
    hold: Option<Hold>,
}

impl Server {
    /// Starts a server. When this returns, it answers.
    ///
    /// # Errors
    /// [`StartError`]. Nothing runs then.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        Server::start_with(config, Clock::system()).await
    }

    /// Starts a server that has its time from `clock`. With a virtual one, this must run on a
    /// [`virtual_runtime`](crate::virtual_runtime), and time stands still until [`Server::advance`].
    ///
    /// # Errors
    /// [`StartError`]. Nothing runs then.
    pub async fn start_with(config: Config, clock: Clock) -> Result<Server, StartError> {
        let mut hold = None;
        if clock.is_virtual() {
            hold = Some(Hold::new().ok_or(StartError::VirtualTime)?);
        }
        config.check()?;
        let address = config.server.listen;
        let listen = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;

        let node = open_node(&config, clock).await?;
        let prepared = prepare(&config, &node).await;
        let (functions, socket) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                node.shutdown().await;
                return Err(error);
            }
        };

        let keeper = node.clone();
        // Ends when the node stops.
        tokio::spawn(async move { keeper.keep_retention().await });
        let door = Door::new(config.limits.connections as usize);
        let stopping = CancellationToken::new();
        // The workers are known before the first call can come: a call to one that is starting waits for it.
        let url = local_url(socket.as_ref().map(|(path, _)| path.as_path()), local_addr);
        let versions = match start_workers(&config, &node, &functions, &url, &stopping).await {
            Ok(versions) => versions,
            Err(error) => {
                functions.shutdown(Duration::ZERO).await;
                node.shutdown().await;
                return Err(error);
            }
        };
        let connections = Arc::new(Connections {
            gateway: Gateway::new(
                &config,
                node.clone(),
                functions.clone(),
                versions.clone(),
                Arc::clone(&door),
                stopping.clone(),
            ),
            native: Arc::new(NativeShared::new(node.clone(), functions.clone())),
            door,
            stopping,
            native_stopping: CancellationToken::new(),
            killed: CancellationToken::new(),
            http_tasks: TaskTracker::new(),
            native_tasks: TaskTracker::new(),
        });
        connections.http_tasks.spawn(Arc::clone(&connections).accept(listener));
        let socket = socket.map(|(path, listener)| {
            connections.http_tasks.spawn(Arc::clone(&connections).accept(listener));
            path
        });
        tracing::info!(%local_addr, data = %config.server.data.display(), "listening");
        Ok(Server { local_addr, socket, node, functions, versions, connections, config, hold })
    }

    /// Where it listens: the port that was taken, if the configuration left it open.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The Unix socket, if there is one.
    #[must_use]
    pub fn socket_path(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// What workers and clients on this machine connect to best: `unix:/path` or `address:port`.
    #[must_use]
    pub fn local_url(&self) -> String {
        local_url(self.socket.as_deref(), self.local_addr)
    }

    /// The log.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The functions.
    #[must_use]
    pub fn functions(&self) -> &Functions {
        &self.functions
    }

    /// The configuration it was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Lets so much time pass at once, up to 365 days; returns when everything that is due by then has begun. `false`: the
    /// time is real. Must be called on the runtime on which the server was started.
    pub async fn advance(&self, by: Duration) -> bool {
        virtual_time::advance(&self.node, by).await
    }

    /// Stops: no new connections and requests; those that are being answered have the configured grace to
    /// end; then the functions and the log are closed. Everything acknowledged is on disk.
    pub async fn shutdown(mut self) {
        if let Some(hold) = self.hold.take() {
            hold.let_go();
        }
        let grace = self.config.server.shutdown_grace.0;
        let deadline = Instant::now() + grace;
        let connections = &self.connections;
        tracing::info!(?grace, "shutting down");
        connections.stopping.cancel();
        connections.http_tasks.close();
        // Calls that run are among the requests that are being answered, so both end together.
        let requests = timeout_at(deadline, connections.http_tasks.wait());
        let (requests, ()) = tokio::join!(requests, self.functions.shutdown(grace));
        if requests.is_err() {
            tracing::warn!(connections = connections.door.open(), "closing connections that did not end in time");
        }
        // Their workers have ended, so nothing is left to wait for but what a deploy takes back.
        self.versions.shutdown().await;
        self.node.shutdown().await;
        connections.native_stopping.cancel();
        connections.native_tasks.close();
        // Even if the grace is used up, what the node has just answered still gets out.
        let _ = timeout(FLUSH_TIME, connections.native_tasks.wait()).await;
        connections.killed.cancel();
        connections.http_tasks.wait().await;
        connections.native_tasks.wait().await;
        tracing::info!("stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.connections.stopping.cancel();
        self.connections.killed.cancel();
        if let Some(path) = &self.socket {
            // Whoever starts next removes it as well, if this fails.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

async fn open_node(config: &Config, clock: Clock) -> Result<Node, StartError> {
    let data = config.server.data.clone();
    let node_config = NodeConfig {
        data: data.clone(),
        durability: config.server.durability.into(),
        limits: config.limits.log(),
        segment_bytes: config.log.segment.0,
        cache_bytes: config.log.cache.bytes(),
        compression: config.log.compression.into(),
        keys: config.data_keys.clone(),
        encrypt: config.log.encrypt,
        index_bytes: config.log.index.bytes(),
        clock,
        retention: config.retention_rules(),
    };
    match tokio::task::spawn_blocking(move || Node::open(node_config)).await {
        Ok(Ok(node)) => Ok(node),
        Ok(Err(source)) => Err(StartError::Open { data, source }),
        // The runtime is being shut down, or opening panicked.
        Err(_) => Err(StartError::Log(LogError::ShuttingDown)),
    }
}

/// What must be there before the first request: the default book, the calls on record, the socket.
async fn prepare(config: &Config, node: &Node) -> Result<(Functions, Option<(PathBuf, UnixListener)>), StartError> {
    match node.create_book(DEFAULT_BOOK).await {
        Ok(_) | Err(LogError::BookExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = bind_socket(config)?;
    let functions = Functions::new(node.clone(), functions_config(config, node.clock()));
    let resumed = functions.recover().await?;
    if resumed > 0 {
        tracing::info!(calls = resumed, "resuming calls on record");
    }
    Ok((functions, socket))
}

fn functions_config(config: &Config, clock: &Clock) -> FunctionsConfig {
    let defaults = FunctionsConfig::default();
    // A process that ends does so in real time: a pause in a time that stands still would have no end.
    let restart_pause = if clock.is_virtual() { Duration::ZERO } else { defaults.restart_pause };
    // Besides its input, the record of a call holds names and keys.
    let inline_bytes = config.calls.inline.bytes().min(config.limits.record.bytes().saturating_sub(4 << 10));
    FunctionsConfig {
        restart_pause,
        queue_calls: config.functions.queue as usize,
        backlog_calls: usize::try_from(config.calls.backlog).unwrap_or(usize::MAX),
        payload_bytes: config.limits.record.bytes(),
        inline_bytes,
        blob_bytes: config.calls.blob.0,
        timeout: config.functions.timeout.0,
        max_attempts: config.functions.attempts,
        retention: config.functions.retention.0,
        cancel_grace: config.calls.cancel_grace.0,
        launcher: config.launcher.clone(),
        // They were checked: none is left out.
        limits: config.limit.iter().filter_map(|limit| limit.rule().ok()).collect(),
        ..defaults
    }
}

/// Starts the workers that the configuration names, and those of the versions that are active.
async fn start_workers(
    config: &Config,
    node: &Node,
    functions: &Functions,
    url: &str,
    stopping: &CancellationToken,
) -> Result<Versions, StartError> {
    for worker in &config.worker {
        functions.start_pool(pool_spec(worker, url)?)?;
    }
    let data = config.server.data.clone();
    let opened = Versions::open(
        &data,
        config.versions.clone(),
        node.clone(),
        functions.clone(),
        url.to_owned(),
        stopping.clone(),
    );
    Box::pin(opened).await.map_err(|error| match error {
        VersionsError::Io(source) => StartError::Versions { data, source },
        VersionsError::Log(error) => StartError::Log(error),
    })
}

fn bind_socket(config: &Config) -> Result<Option<(PathBuf, UnixListener)>, StartError> {
    let Some(path) = config.server.socket_path() else { return Ok(None) };
    let failed = |source| StartError::Socket { path: path.clone(), source };
    let path = std::path::absolute(&path).map_err(failed)?;
    let failed = |source| StartError::Socket { path: path.clone(), source };
    remove_stale(&path).map_err(failed)?;
    match UnixListener::bind(&path) {
        Ok(listener) => {
            let only_owner = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, only_owner).map_err(failed)?;
            Ok(Some((path, listener)))
        }
        // A socket's path has about 100 bytes at most. Nobody asked for this one.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput && config.server.socket.is_none() => {
            tracing::warn!(path = %path.display(), %error, "no Unix socket: its path is too long");
            Ok(None)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Removes a socket that nobody listens on any more, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
            Err(_) => std::fs::remove_file(path),
        },
        Ok(_) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name, which is not a socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What workers and clients on this machine connect to best.
fn local_url(socket: Option<&Path>, address: SocketAddr) -> String {
    match socket {
        Some(path) => format!("unix:{}", path.display()),
        None => reachable(address).to_string(),
    }
}

/// An address at which programs on this machine reach a listener on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut reachable = address;
    if address.ip().is_unspecified() {
        reachable.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    reachable
}
