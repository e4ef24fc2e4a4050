//! The HTTP side of a server, for commands that the native protocol does not carry: one connection, one request at a
//! time. An answer that is a problem becomes the command's [`Failure`], with its code.

use std::io;
use std::sync::Arc;

use boki_sdk::{Address, Error};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::cli::Target;
use crate::failure::Failure;
use crate::remote::{of_problem, of_server};

/// Most bytes of an answer that is read as a whole.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A body that is sent.
pub(crate) type Sent = UnsyncBoxBody<Bytes, io::Error>;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Http {
    address: Address,
    connection: SendRequest<Sent>,
}

impl Http {
    /// Connects.
    pub(crate) async fn connect(target: &Target) -> Result<Http, Failure> {
        let address: Address = target.server.parse().map_err(|error| of_server(&error, None))?;
        let unreachable = |source: io::Error| {
            let source = Arc::new(source);
            of_server(&Error::Connect { address: address.to_string(), source }, None)
        };
        let connection = match &address {
            Address::Tcp(host) => open(TcpStream::connect(host).await.map_err(unreachable)?).await,
            Address::Unix(path) => open(UnixStream::connect(path).await.map_err(unreachable)?).await,
        };
        let connection = connection.map_err(|error| unreachable(io::Error::other(error)))?;
        Ok(Http { address, connection })
    }

    /// Sends a request and waits for the head of its answer, which is one of success.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Sent,
    ) -> Result<Response<Incoming>, Failure> {
        let host = match &self.address {
            Address::Tcp(host) => host.as_str(),
            Address::Unix(_) => "localhost",
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|error| Failure::input(error.to_string(), "boki --help"))?;
        let ready = self.connection.ready().await;
        let response = match ready {
            Ok(()) => self.connection.send_request(request).await,
            Err(error) => Err(error),
        };
        let response = response.map_err(|error| self.lost(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.whole(response).await?;
        Err(of_problem(status.as_u16(), &body))
    }

    /// Sends a request and reads its answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Sent,
    ) -> Result<T, Failure> {
        let response = self.send(method, path, headers, body).await?;
        let body = self.whole(response).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let reason = format!("it is not the JSON that was expected: {error}");
            of_server(&Error::UnexpectedAnswer { reason }, None)
        })
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        Ok(body.map_err(|error| self.broken(error.to_string()))?.to_bytes())
    }

    /// The connection has ended in the middle of something.
    pub(crate) fn lost(&self, error: &hyper::Error) -> Failure {
        // Sending the body failed: its own error says more.
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        self.broken(cause.map_or_else(|| error.to_string(), io::Error::to_string))
    }

    pub(crate) fn broken(&self, reason: String) -> Failure {
        let source = Arc::new(io::Error::other(format!("the connection was lost: {reason}")));
        of_server(&Error::Connect { address: self.address.to_string(), source }, None)
    }
}

async fn open<S>(stream: S) -> hyper::Result<SendRequest<Sent>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the connection, and whoever sends a request is told why.
    tokio::spawn(connection);
    Ok(sender)
}

/// No body.
pub(crate) fn nothing() -> Sent {
    whole_body(Bytes::new())
}

/// A body that is in memory.
pub(crate) fn whole_body(bytes: Bytes) -> Sent {
    UnsyncBoxBody::new(Full::new(bytes).map_err(|never| match never {}))
}

/// The events of a stream of server-sent events, one by one.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    buf: BytesMut,
}

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Where to resume.
    pub(crate) id: Option<String>,
    /// What kind; empty unless said.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Events {
    pub(crate) fn of(response: Response<Incoming>) -> Events {
        Events { body: response.into_body(), buf: BytesMut::new() }
    }

    /// Waits for the next event; `None`: the stream has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, hyper::Error> {
        loop {
            while let Some(event) = take_event(&mut self.buf) {
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
            }
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(None) };
            if let Some(data) = frame.data_ref() {
                self.buf.extend_from_slice(data);
            }
        }
    }
}

/// The event that `buf` begins with, once it is complete.
fn take_event(buf: &mut BytesMut) -> Option<Event> {
    let end = buf.windows(2).position(|two| two == b"\n\n")?;
    let block = buf.split_to(end + 2);
    let mut event = Event::default();
    for line in String::from_utf8_lossy(&block).lines() {
        match line.split_once(": ") {
            Some(("id", id)) => event.id = Some(id.to_owned()),
            Some(("event", name)) => name.clone_into(&mut event.name),
            Some(("data", data)) => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(data);
            }
            _ => {}
        }
    }
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_taken_once_it_is_complete() {
        let mut buf = BytesMut::from(&b"retry: 1000\n\nid: 7\ndata: {\"a\":1}\n\nevent: end\ndata: x"[..]);
        assert_eq!(take_event(&mut buf), Some(Event::default()));
        let event = take_event(&mut buf).unwrap();
        assert_eq!((event.id.as_deref(), event.data.as_str()), (Some("7"), "{\"a\":1}"));
        assert_eq!(take_event(&mut buf), None);
        buf.extend_from_slice(b"\n\n");
        assert_eq!(take_event(&mut buf).unwrap().name, "end");
    }
}
