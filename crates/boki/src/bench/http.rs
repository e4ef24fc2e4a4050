//! An HTTP/1.1 client that costs next to nothing: one keep-alive connection, one request at a time.
//!
//! It understands answers with a length (no chunks) and refuses anything else.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::latency::broken;
use crate::failure::Failure;

/// Most headers of an answer.
const HEADERS: usize = 32;

/// A keep-alive connection.
#[derive(Debug)]
pub(crate) struct HttpConnection {
    stream: TcpStream,
    buf: BytesMut,
}

/// A whole request, encoded once and sent again and again.
pub(crate) fn request(method: &str, path: &str, host: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {}\r\n\r\n", body.len())
            .into_bytes();
    out.extend_from_slice(body);
    out
}

impl HttpConnection {
    pub(crate) async fn open(address: &str) -> Result<HttpConnection, Failure> {
        let failed = |error| Failure::io(format!("cannot reach {address}"), &error);
        let stream = TcpStream::connect(address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(HttpConnection { stream, buf: BytesMut::with_capacity(16 << 10) })
    }

    /// Sends `request` and reads its answer, which must have status 200.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.exchange_with(request, |_| ()).await
    }

    /// The same, with what `read` makes of the answer's body.
    pub(crate) async fn exchange_with<T>(
        &mut self,
        request: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, Failure> {
        self.stream.write_all(request).await.map_err(|error| Failure::io("cannot send a request", &error))?;
        loop {
            if let Some(head) = answer_head(&self.buf)? {
                if head.status != 200 {
                    let body = self.buf.get(head.len..).unwrap_or_default();
                    let body = String::from_utf8_lossy(body);
                    return Err(broken(format!("the server answered {}: {body}", head.status)));
                }
                let whole = head.len + head.body;
                if let Some(body) = self.buf.get(head.len..whole) {
                    let result = read(body);
                    self.buf.advance(whole);
                    return Ok(result);
                }
            }
            let arrived = self.stream.read_buf(&mut self.buf).await;
            if arrived.map_err(|error| Failure::io("cannot read an answer", &error))? == 0 {
                return Err(broken("the server closed the connection"));
            }
        }
    }
}

struct Head {
    status: u16,
    len: usize,
    body: usize,
}

/// The head of the answer that `buf` begins with, once it is complete.
fn answer_head(buf: &[u8]) -> Result<Option<Head>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(buf).map_err(|error| broken(format!("the server's answer is not HTTP: {error}")))?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    let body = answer
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .ok_or_else(|| broken("the server's answer has no length"))?;
    Ok(Some(Head { status: answer.code.unwrap_or(0), len, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_complete() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for len in 0..38 {
            assert!(answer_head(&answer[..len]).unwrap().is_none(), "{len}");
        }
        let head = answer_head(answer).unwrap().unwrap();
        assert_eq!((head.status, head.len, head.body), (200, 38, 5));
        assert!(answer_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(answer_head(b"\x00garbage\r\n\r\n").is_err());
    }
}
