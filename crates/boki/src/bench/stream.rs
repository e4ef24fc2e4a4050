//! `boki bench stream`: a large body through a function that returns it piece by piece, and how much memory the server takes
//! meanwhile.

use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{HttpConnection, request};
use super::latency::broken;
use super::process::{peak_bytes, resident_bytes};
use super::target::ServerUnderTest;
use super::worker::ECHO;
use crate::failure::Failure;

/// How much is given to the socket at once.
const PIECE_BYTES: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS: usize = 32;

/// A body that went through a function and came back.
#[derive(Clone, Debug)]
pub(crate) struct Streamed {
    pub(crate) bytes: u64,
    pub(crate) over: Duration,
    /// Processor time of the server and the worker.
    pub(crate) server_cpu: Option<Duration>,
    /// Memory of the server: before, and at most since its start.
    pub(crate) resident_bytes: Option<(u64, u64)>,
}

impl Streamed {
    /// Each way.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.over.as_secs_f64()
    }
}

/// Sends `bytes` bytes to the function and reads them back, both at once, over one connection.
pub(crate) async fn stream(server: &ServerUnderTest, bytes: u64) -> Result<Streamed, Failure> {
    let address = server.address();
    let path = format!("/call/{ECHO}");
    let octets = "content-type: application/octet-stream\r\n";
    // The first call waits until the worker has started.
    send_and_count(address, &path, octets, 1).await?;
    let before = server.pid().map(resident_bytes).transpose()?;
    let cpu = server.cpu()?;
    let used = || cpu.as_ref().map(super::process::CpuClock::used).transpose();
    let (began, used_before) = (Instant::now(), used()?);
    let counted = send_and_count(address, &path, octets, bytes).await?;
    let (over, used_after) = (began.elapsed(), used()?);
    if counted != bytes {
        return Err(broken(format!("{bytes} bytes were sent and {counted} came back")));
    }
    // It still answers.
    let health = request("GET", "/healthz", address, "", b"");
    HttpConnection::open(address).await?.exchange(&health).await?;
    let most = server.pid().map(peak_bytes).transpose()?;
    Ok(Streamed {
        bytes,
        over,
        server_cpu: used_after.zip(used_before).map(|(after, before)| after.saturating_sub(before)),
        resident_bytes: before.zip(most),
    })
}

/// How many bytes of a body came back.
async fn send_and_count(address: &str, path: &str, headers: &str, bytes: u64) -> Result<u64, Failure> {
    let failed = |error| Failure::io(format!("cannot exchange a stream with {address}"), &error);
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let (mut reading, mut writing) = stream.into_split();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\n{headers}content-length: {bytes}\r\n\r\n");
    let sending = async move {
        writing.write_all(head.as_bytes()).await.map_err(failed)?;
        let piece = Bytes::from(vec![b'x'; PIECE_BYTES]);
        let mut left = bytes;
        while left > 0 {
            let now = left.min(PIECE_BYTES as u64) as usize;
            writing.write_all(&piece[..now]).await.map_err(failed)?;
            left -= now as u64;
        }
        // Its end is dropped only with the answer's: closing it early would cut the exchange off.
        Ok::<_, Failure>(writing)
    };
    let counting = async {
        let mut buf = BytesMut::with_capacity(4 * PIECE_BYTES);
        let mut body = loop {
            match answer_body(&mut buf)? {
                Some(body) => break body,
                None if reading.read_buf(&mut buf).await.map_err(failed)? == 0 => return Err(cut_off()),
                None => {}
            }
        };
        while !body.count(&mut buf)? {
            if reading.read_buf(&mut buf).await.map_err(failed)? == 0 {
                return Err(cut_off());
            }
        }
        Ok(body.counted)
    };
    let (_writing, counted) = tokio::try_join!(sending, counting)?;
    Ok(counted)
}

fn cut_off() -> Failure {
    broken("the server closed the connection within an answer")
}

/// Counts an answer's body.
#[derive(Debug, Default)]
struct Body {
    counted: u64,
    /// What is still to come of this chunk, or of the whole body if it has a length.
    left: u64,
    is_chunked: bool,
    /// The line behind a chunk's bytes comes next.
    ends_chunk: bool,
}

impl Body {
    /// Takes what has arrived; whether that was all.
    fn count(&mut self, buf: &mut BytesMut) -> Result<bool, Failure> {
        loop {
            if self.left > 0 {
                let now = self.left.min(buf.len() as u64);
                buf.advance(now as usize);
                self.left -= now;
                self.counted += now;
                if self.left > 0 {
                    return Ok(false);
                }
                self.ends_chunk = true;
            }
            if !self.is_chunked {
                return Ok(true);
            }
            let Some(end) = buf.windows(2).position(|two| two == b"\r\n") else { return Ok(false) };
            let line = buf.split_to(end + 2);
            if std::mem::take(&mut self.ends_chunk) {
                continue;
            }
            let size = std::str::from_utf8(&line).ok().and_then(|line| u64::from_str_radix(line.trim_end(), 16).ok());
            match size {
                Some(0) => return Ok(true),
                Some(size) => self.left = size,
                None => return Err(broken("the server's answer has a chunk without a size")),
            }
        }
    }
}

/// The body of the answer that `buf` begins with, once its head is complete; takes that out.
fn answer_body(buf: &mut BytesMut) -> Result<Option<Body>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(buf).map_err(|error| broken(format!("the server's answer is not HTTP: {error}")))?;
    let httparse::Status::Complete(len) = parsed else { return Ok(None) };
    let status = answer.code.unwrap_or(0);
    let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    buf.advance(len);
    if status != 200 {
        return Err(broken(format!("the server answered {status}: {}", String::from_utf8_lossy(buf))));
    }
    Ok(Some(Body { left: length.unwrap_or(0), is_chunked: length.is_none(), ..Body::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_counted_however_they_arrive() {
        let answer =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n";
        for step in 1..answer.len() {
            let mut buf = BytesMut::new();
            let (mut body, mut is_whole) = (None::<Body>, false);
            for piece in answer.chunks(step) {
                buf.extend_from_slice(piece);
                if body.is_none() {
                    body = answer_body(&mut buf).unwrap();
                }
                if let Some(body) = &mut body {
                    is_whole = is_whole || body.count(&mut buf).unwrap();
                }
            }
            assert!(is_whole, "{step}");
            assert_eq!(body.unwrap().counted, 21, "{step}");
        }
    }

    #[test]
    fn a_body_with_a_length_is_counted() {
        let mut buf = BytesMut::from(&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"[..]);
        let mut body = answer_body(&mut buf).unwrap().unwrap();
        assert!(!body.count(&mut buf).unwrap());
        buf.extend_from_slice(b"lo");
        assert!(body.count(&mut buf).unwrap());
        assert_eq!(body.counted, 5);
        let mut refused = BytesMut::from(&b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..]);
        assert!(answer_body(&mut refused).is_err());
    }
}
