//! Frames on their way out: small ones side by side in one buffer, large payloads by reference.

use bytes::{Bytes, BytesMut};

use crate::frame::{ABSENT, Frame, HEADER_BYTES, Header, PREAMBLE, checksum, checksum_of};

/// Longer pieces are kept by reference and written with a vectored write; copying shorter ones is cheaper.
const COPIED_BYTES: usize = 4 << 10;
/// A buffer of small frames is closed at this size, so that growing it never copies much.
const CHUNK_BYTES: usize = 256 << 10;

/// Encoded frames, in order.
#[derive(Debug, Default)]
pub struct FrameBuf {
    chunks: Vec<Bytes>,
    tail: BytesMut,
}

impl FrameBuf {
    /// Empty.
    #[must_use]
    pub fn new() -> FrameBuf {
        FrameBuf::default()
    }

    /// Adds a frame whose body `write` puts down, and says how many bytes that took.
    ///
    /// The length field holds 32 bits: bodies are bounded far below by every caller.
    pub fn push(&mut self, kind: u8, flags: u8, corr: u64, write: impl FnOnce(&mut BodyWriter<'_>)) -> usize {
        if self.tail.len() >= CHUNK_BYTES {
            self.chunks.push(self.tail.split().freeze());
        }
        let start = self.tail.len();
        self.tail.extend_from_slice(&[0; HEADER_BYTES]);
        let mut body = BodyWriter { tail: &mut self.tail, head: None, pieces: Vec::new(), checks_itself: false };
        write(&mut body);
        let BodyWriter { head, pieces, checks_itself, .. } = body;
        let header = |len: usize, checksum| {
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            Header { len, kind, flags, corr, checksum }.encode()
        };
        let body_start = start + HEADER_BYTES;
        match head {
            None => {
                let body = &self.tail[body_start..];
                let len = body.len();
                let checksum = if checks_itself { ABSENT } else { checksum(body) };
                self.tail[start..body_start].copy_from_slice(&header(len, checksum));
                HEADER_BYTES + len
            }
            Some(mut head) => {
                let parts = || {
                    let first = std::iter::once(&head[body_start..]);
                    first.chain(pieces.iter().map(|piece| &**piece)).chain(std::iter::once(&*self.tail))
                };
                let len = parts().map(<[u8]>::len).sum();
                let checksum = if checks_itself { ABSENT } else { checksum_of(parts()) };
                head[start..body_start].copy_from_slice(&header(len, checksum));
                self.chunks.push(head.freeze());
                self.chunks.extend(pieces);
                HEADER_BYTES + len
            }
        }
    }

    /// Adds a frame, and says how many bytes that took.
    pub fn push_frame(&mut self, frame: &Frame) -> usize {
        self.push(frame.kind, frame.flags, frame.corr, |body| body.put_shared(&frame.body))
    }

    /// Adds the preamble, and says how many bytes that took.
    pub fn push_preamble(&mut self) -> usize {
        self.tail.extend_from_slice(&PREAMBLE);
        PREAMBLE.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Moves everything to the end of `out`.
    pub fn take(&mut self, out: &mut impl Extend<Bytes>) {
        out.extend(self.chunks.drain(..));
        if !self.tail.is_empty() {
            out.extend([self.tail.split().freeze()]);
        }
    }

    /// Everything, in one piece.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        let mut chunks = Vec::new();
        self.take(&mut chunks);
        match <[Bytes; 1]>::try_from(chunks) {
            Ok([only]) => only,
            Err(chunks) => chunks.concat().into(),
        }
    }
}

/// Puts down the body of one frame.
#[derive(Debug)]
pub struct BodyWriter<'a> {
    tail: &'a mut BytesMut,
    /// The buffer that holds the frame's header, once a piece by reference has ended it.
    head: Option<BytesMut>,
    pieces: Vec<Bytes>,
    checks_itself: bool,
}

impl BodyWriter<'_> {
    /// Nothing in this body needs the frame's checksum: it has one of its own, which the receiver looks at.
    pub fn checks_itself(&mut self) {
        self.checks_itself = true;
    }

    /// Where to append small fields. Only ever append to it: what it holds already belongs to other frames.
    pub fn fields(&mut self) -> &mut BytesMut {
        self.tail
    }

    /// Appends `bytes`: a copy of them if they are few, else a reference.
    pub fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_BYTES {
            self.tail.extend_from_slice(bytes);
            return;
        }
        let before = self.tail.split();
        if self.head.is_none() {
            self.head = Some(before);
        } else if !before.is_empty() {
            self.pieces.push(before.freeze());
        }
        self.pieces.push(bytes.clone());
    }
}
