//! How to connect.

use std::time::Duration;

use crate::address::Address;
use crate::error::Error;

/// How to connect to a server.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub(crate) address: Address,
    pub(crate) name: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) reconnect_for: Duration,
    pub(crate) waits_for_server: bool,
}

impl ConnectOptions {
    /// The defaults, for the server at `address`.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`].
    pub fn new(address: &str) -> Result<ConnectOptions, Error> {
        Ok(ConnectOptions {
            address: address.parse()?,
            name: String::new(),
            connect_timeout: Duration::from_secs(5),
            reconnect_for: Duration::from_secs(30),
            waits_for_server: false,
        })
    }

    /// What the server calls this client in its logs.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> ConnectOptions {
        self.name = name.into();
        self
    }

    /// How long one attempt to connect may take (5 s).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> ConnectOptions {
        self.connect_timeout = timeout;
        self
    }

    /// How long an operation waits for a lost connection to come back before it fails (30 s). The client itself
    /// goes on trying.
    #[must_use]
    pub fn reconnect_for(mut self, time: Duration) -> ConnectOptions {
        self.reconnect_for = time;
        self
    }

    /// Connecting for the first time waits for the server to come up instead of failing.
    #[must_use]
    pub fn wait_for_server(mut self) -> ConnectOptions {
        self.waits_for_server = true;
        self
    }
}
