//! The gateway: one port and one Unix socket that speak HTTP and the native protocol, and the configuration
//! of a server.
//!
//! - [`Config`]: `boki.toml`, the environment, and what is wrong with them.
//! - [`Server`]: a running server, from start to orderly end.
//! - [`PAGES`]: what every error code means.
//!
//! A connection's first bytes tell which protocol it speaks; both end in the same operations on the node and
//! the functions. Nothing here knows how the log orders or stores anything. Only those who deploy apps are asked who they
//! are, which is why only loopback addresses are listened on unless the configuration insists.
#![deny(missing_docs)]

mod codes;
pub mod config;
mod door;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod listen;
mod native;
mod self_wakes;
mod server;
mod shelf;
mod sniff;
mod telemetry;
mod versions;
mod virtual_time;
mod workers;

pub use codes::{ErrorPage, PAGES, page};
pub use config::{Config, ConfigError};
pub use server::{Server, StartError};
pub use telemetry::{TelemetryError, start_telemetry};
pub use virtual_time::virtual_runtime;
pub use workers::{EnvFileError, pool_spec, shell_command};

pub use boki_node::{Clock, DataKey, InvalidDataKey};
pub use versions::{APP_FILE, TOKEN_FILE, check_app, check_app_name};
