//! A file as the body of a request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use crate::http::Sent;

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A body of the first `len` bytes of a file, read as they are sent.
pub(super) fn file_body(file: tokio::fs::File, len: u64) -> Sent {
    UnsyncBoxBody::new(FileBody { file, left: len, buf: BytesMut::new() })
}

struct FileBody {
    file: tokio::fs::File,
    left: u64,
    buf: BytesMut,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let most = CHUNK_BYTES.min(usize::try_from(this.left).unwrap_or(usize::MAX));
        this.buf.resize(most, 0);
        let mut chunk = ReadBuf::new(&mut this.buf);
        match Pin::new(&mut this.file).poll_read(cx, &mut chunk) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) => {}
        }
        let read = chunk.filled().len();
        if read == 0 {
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        this.left -= read as u64;
        Poll::Ready(Some(Ok(Frame::data(this.buf.split_to(read).freeze()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_file_is_sent_as_far_as_was_said() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let text = vec![b'x'; 3 * CHUNK_BYTES + 1];
        std::fs::write(path.path(), &text).unwrap();
        let open = || async { tokio::fs::File::open(path.path()).await.unwrap() };
        let body = file_body(open().await, text.len() as u64);
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes(), text);
        let error = file_body(open().await, text.len() as u64 + 1).collect().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
