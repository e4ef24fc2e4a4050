//! A whole server, and a connection to it that sends anything: HTTP and the native protocol. It goes on answering others.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use boki_server::{Config, Server};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

struct Running {
    runtime: Runtime,
    server: Server,
    _folder: tempfile::TempDir,
}

static RUNNING: LazyLock<Running> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder for tests");
    let text = format!("[server]\ndata = {:?}\nlisten = \"127.0.0.1:0\"\nsocket = \"\"\n", folder.path());
    let config = Config::from_text("boki.toml", &text, []).expect("a configuration");
    let server = runtime.block_on(Server::start(config)).expect("a server");
    Running { runtime, server, _folder: folder }
});

/// What is sent whole, then everything that comes back until the server closes or falls silent.
async fn exchange(bytes: &[u8], silence: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(RUNNING.server.local_addr()).await.expect("the server listens");
    let mut answer = Vec::new();
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = tokio::time::timeout(silence, stream.read_to_end(&mut answer)).await;
    answer
}

fuzz_target!(|data: &[u8]| {
    RUNNING.runtime.block_on(async {
        exchange(data, Duration::from_millis(20)).await;
        let healthy = exchange(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Duration::from_secs(10)).await;
        assert!(healthy.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&healthy));
    });
});
