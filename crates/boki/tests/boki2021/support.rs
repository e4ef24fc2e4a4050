//! A server in this process, on a folder of its own.

use std::time::Duration;

use boki_sdk::{Book, Client, ConnectOptions, Worker};
use boki_server::Server;
use boki_server::config::Config;
use tempfile::TempDir;

/// Longer than any test takes: what waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    server: Server,
    pub(crate) client: Client,
    home: TempDir,
}

impl Running {
    pub(crate) async fn start() -> Running {
        Running::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(home: TempDir) -> Running {
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.data = home.path().join("data");
        let server = Server::start(config).await.unwrap();
        let client = Client::connect(&server.local_addr().to_string()).await.unwrap();
        Running { server, client, home }
    }

    /// Ends the server in order, and starts one on the same data.
    pub(crate) async fn restart(self) -> Running {
        self.server.shutdown().await;
        Running::start_in(self.home).await
    }

    pub(crate) async fn book(&self, name: &str) -> Book {
        self.client.create_book(name).await.unwrap()
    }

    /// Another client, with a session of its own: it has seen nothing.
    pub(crate) async fn another_client(&self) -> Client {
        let options = ConnectOptions::new(&self.server.local_addr().to_string()).unwrap();
        Client::connect_with(options).await.unwrap()
    }

    /// Runs a worker in this process; returns when it can be called.
    pub(crate) async fn offer(&self, worker: Worker, functions: &[&str]) {
        tokio::spawn(worker.server(self.server.local_addr().to_string()).serve());
        // Registering is not an event for clients; asking is a round trip, so this does not spin.
        loop {
            let offered = self.client.functions().await.unwrap();
            if functions.iter().all(|name| offered.iter().any(|function| function.name == *name)) {
                return;
            }
        }
    }
}
