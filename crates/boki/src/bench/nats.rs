//! Publishes to a NATS JetStream, with just enough of its protocol to be a light load: one connection per client, one message in
//! flight on each, the server's acknowledgement awaited.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::latency::{Load, broken};
use crate::failure::Failure;

const SUBJECT: &str = "bench.records";
const STREAM: &str = "BENCH";
const INBOX: &str = "_INBOX.bench";

/// One client and what it publishes.
pub(crate) struct Publish {
    stream: TcpStream,
    buf: BytesMut,
    /// The publication, encoded once.
    message: Vec<u8>,
}

impl Publish {
    /// Connects client `number`, which will publish `payload`.
    pub(crate) async fn open(address: &str, number: u32, payload: &[u8]) -> Result<Publish, Failure> {
        let failed = |error| Failure::io(format!("cannot reach {address}"), &error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let inbox = format!("{INBOX}.{number}");
        let mut message = format!("PUB {SUBJECT} {inbox} {}\r\n", payload.len()).into_bytes();
        message.extend_from_slice(payload);
        message.extend_from_slice(b"\r\n");
        let mut client = Publish { stream, buf: BytesMut::with_capacity(16 << 10), message };
        let greeting = format!("CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\nSUB {inbox} 1\r\n");
        client.send(greeting.as_bytes()).await?;
        Ok(client)
    }

    /// Makes the stream that takes the messages: in files, one replica.
    pub(crate) async fn create_stream(address: &str) -> Result<(), Failure> {
        let mut client = Publish::open(address, u32::MAX, b"").await?;
        let config = format!(r#"{{"name":"{STREAM}","subjects":["{SUBJECT}"],"storage":"file","num_replicas":1}}"#);
        let request =
            format!("PUB $JS.API.STREAM.CREATE.{STREAM} {INBOX}.{} {}\r\n{config}\r\n", u32::MAX, config.len());
        client.send(request.as_bytes()).await?;
        client.acknowledged().await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.write_all(bytes).await.map_err(|error| Failure::io("cannot send to NATS", &error))
    }

    /// The next message to the inbox; it must not be an error.
    async fn acknowledged(&mut self) -> Result<(), Failure> {
        loop {
            let Some(end) = self.buf.windows(2).position(|end| end == b"\r\n") else {
                self.more().await?;
                continue;
            };
            let line = String::from_utf8_lossy(&self.buf[..end]).into_owned();
            self.buf.advance(end + 2);
            match line.split(' ').next() {
                Some("MSG") => {
                    let len = line.rsplit(' ').next().and_then(|len| len.parse::<usize>().ok());
                    let len = len.ok_or_else(|| broken(format!("NATS sent {line:?}")))?;
                    while self.buf.len() < len + 2 {
                        self.more().await?;
                    }
                    let body = self.buf.split_to(len + 2);
                    if body.windows(7).any(|part| part == b"\"error\"") {
                        return Err(broken(format!("NATS refused: {}", String::from_utf8_lossy(&body))));
                    }
                    return Ok(());
                }
                Some("INFO" | "PONG") => {}
                Some("PING") => self.send(b"PONG\r\n").await?,
                _ => return Err(broken(format!("NATS sent {line:?}"))),
            }
        }
    }

    async fn more(&mut self) -> Result<(), Failure> {
        match self.stream.read_buf(&mut self.buf).await {
            Ok(0) => Err(broken("NATS closed a connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::io("cannot read from NATS", &error)),
        }
    }
}

impl Load for Publish {
    async fn once(&mut self) -> Result<Option<Duration>, Failure> {
        let Publish { stream, message, .. } = self;
        stream.write_all(message).await.map_err(|error| Failure::io("cannot send to NATS", &error))?;
        self.acknowledged().await.map(|()| None)
    }
}
