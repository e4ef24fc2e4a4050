//! A Unix socket that wakes its task for what has arrived, and not for what has been read.
//!
//! The system tells the writer of a Unix socket that there is room again each time the peer has read something, even if there
//! was room all along. A stream that is registered for reading and writing, as tokio's is, so wakes its thread once for
//! every message that the peer takes, and the peer pays for the wake-up. This one asks to be told of room only while it
//! waits for it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::runtime::Handle;

/// A connected Unix stream socket.
#[derive(Debug)]
pub struct LocalStream {
    /// Registered for reading alone.
    stream: AsyncFd<StdStream>,
    /// The same socket registered for writing, while what is to be written finds no room.
    full: Option<AsyncFd<StdStream>>,
    /// A thread that is not the runtime's may be the one that finds no room.
    runtime: Handle,
}

impl LocalStream {
    /// Connects to the socket at `path`. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(path: &Path) -> io::Result<LocalStream> {
        UnixStream::connect(path).await.and_then(LocalStream::new)
    }

    /// Takes over a connected stream. Needs a tokio runtime.
    ///
    /// # Errors
    /// The system's, when the socket cannot be registered.
    pub fn new(stream: UnixStream) -> io::Result<LocalStream> {
        let stream = register(stream.into_std()?, Interest::READABLE)?;
        Ok(LocalStream { stream, full: None, runtime: Handle::current() })
    }

    fn poll_write_by(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&StdStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut room = match &self.full {
                Some(full) => Some(ready!(full.poll_write_ready(cx))?),
                None => None,
            };
            match write(self.stream.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(room) = &mut room {
                        room.clear_ready();
                    } else {
                        let _within = self.runtime.enter();
                        let again = self.stream.get_ref().try_clone()?;
                        self.full = Some(register(again, Interest::WRITABLE)?);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => {
                    self.full = None;
                    return Poll::Ready(written);
                }
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, for types that change their descriptor; a stream of std never does"
)]
fn register(stream: StdStream, interest: Interest) -> io::Result<AsyncFd<StdStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for LocalStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.stream.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            match ready.try_io(|stream| stream.get_ref().read(room)) {
                Ok(Ok(bytes)) => {
                    // It had no more: what comes from now on is told anew, and needs not be asked for.
                    if 0 < bytes && bytes < room.len() {
                        ready.clear_ready();
                    }
                    buf.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_nothing_there) => {}
            }
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |mut stream| stream.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_by(cx, |mut stream| stream.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (LocalStream, LocalStream) {
        let (one, other) = UnixStream::pair().unwrap();
        (LocalStream::new(one).unwrap(), LocalStream::new(other).unwrap())
    }

    /// Bytes of which no two stretches are alike.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    #[tokio::test]
    async fn more_than_the_socket_holds_arrives_whole_and_then_the_end() {
        let (mut one, mut other) = pair();
        let sent = bytes(4 << 20);
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            one.write_all(&sent).await.unwrap();
            // Nobody waits for room any more: nothing is registered for it.
            assert!(one.full.is_none());
            one.shutdown().await.unwrap();
            one
        });
        let mut received = Vec::new();
        other.read_to_end(&mut received).await.unwrap();
        assert!(received == expected);
        // The other direction is still open.
        let mut one = writing.await.unwrap();
        other.write_all(b"thanks").await.unwrap();
        drop(other);
        let mut received = Vec::new();
        one.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"thanks");
    }

    #[tokio::test]
    async fn messages_go_back_and_forth_and_none_is_overlooked() {
        let (mut one, mut other) = pair();
        let echo = tokio::spawn(async move {
            let mut buf = vec![0; 1000];
            loop {
                match other.read(&mut buf).await.unwrap() {
                    0 => return,
                    len => other.write_all(&buf[..len]).await.unwrap(),
                }
            }
        });
        for len in 1..3000 {
            let sent = bytes(len);
            one.write_all(&sent).await.unwrap();
            let mut received = vec![0; len];
            one.read_exact(&mut received).await.unwrap();
            assert!(received == sent, "{len}");
        }
        drop(one);
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_thread_that_is_not_the_runtimes_may_find_no_room() {
        let (one, mut other) = pair();
        let filling = std::thread::spawn(move || {
            let mut one = one;
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let block = [7; 1 << 16];
            let mut written = 0;
            while let Poll::Ready(bytes) = Pin::new(&mut one).poll_write(&mut cx, &block) {
                written += bytes.unwrap();
            }
            (one, written)
        });
        let (mut one, written) = filling.join().unwrap();
        let reading = tokio::spawn(async move {
            let mut received = Vec::new();
            other.read_to_end(&mut received).await.unwrap();
            received.len()
        });
        one.write_all(b"and the rest").await.unwrap();
        drop(one);
        assert_eq!(reading.await.unwrap(), written + 12);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_of_the_writer() {
        let (mut one, other) = pair();
        drop(other);
        assert_eq!(one.write_all(b"hello?").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(one.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
