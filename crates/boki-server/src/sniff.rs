//! Tells the protocols of one port apart by a connection's first bytes, without losing them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How a connection of the native protocol begins. No HTTP method does.
const NATIVE: [u8; 4] = *b"BOKI";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Native,
}

/// Waits for the first bytes of `stream` and looks at them. The stream that is returned still begins with them.
///
/// # Errors
/// The stream's; and `UnexpectedEof` if it ends before it says anything.
pub(crate) async fn sniff<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Protocol, Peeked<S>)> {
    let mut first = [0; NATIVE.len()];
    let mut len = 0;
    while let Some(rest) = first.get_mut(len..).filter(|rest| !rest.is_empty()) {
        let read = stream.read(rest).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        len += read;
        if first.get(..len) != NATIVE.get(..len) {
            return Ok((Protocol::Http, Peeked { first, read: 0, len, stream }));
        }
    }
    Ok((Protocol::Native, Peeked { first, read: 0, len, stream }))
}

/// A stream whose first bytes were looked at.
#[derive(Debug)]
pub(crate) struct Peeked<S> {
    first: [u8; NATIVE.len()],
    read: usize,
    len: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Peeked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(rest) = this.first.get(this.read..this.len).filter(|rest| !rest.is_empty()) {
            let taken = rest.len().min(buf.remaining());
            buf.put_slice(rest.get(..taken).unwrap_or_default());
            this.read += taken;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Peeked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> io::Result<(Protocol, Vec<u8>)> {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let write = async {
            for piece in pieces {
                ours.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(ours);
        };
        let read = async {
            let (protocol, mut stream) = sniff(theirs).await?;
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            Ok((protocol, all))
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn the_bytes_that_were_looked_at_are_still_there() {
        for (pieces, protocol) in [
            (&[&b"GET / HTTP/1.1\r\n"[..]][..], Protocol::Http),
            (&[b"B", b"O", b"OK / HTTP/1.1\r\n"], Protocol::Http),
            (&[b"X"], Protocol::Http),
            (&[b"BOKI\x01\0\0\0rest"], Protocol::Native),
            (&[b"BO", b"K", b"I\x01"], Protocol::Native),
        ] {
            assert_eq!(sniffed(pieces).await.unwrap(), (protocol, pieces.concat()));
        }
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_not_served() {
        for pieces in [&[][..], &[&b"BOK"[..]][..]] {
            assert_eq!(sniffed(pieces).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
