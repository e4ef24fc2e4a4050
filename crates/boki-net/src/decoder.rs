//! Bytes in, frames out.
//!
//! Bodies share the receive buffer's memory: nothing is copied per frame. The buffer grows with what has
//! arrived, never with what a header merely claims, and doubles, so that a large body costs linear work however
//! it is cut up on the way.

use bytes::{Buf, BytesMut};

use crate::frame::{Frame, FrameError, HEADER_BYTES, Header, PREAMBLE, checksum};

/// Room for a read on a connection that has not shown that it needs more.
const FIRST_READ_BYTES: usize = 8 << 10;
/// Room for a read on a busy connection.
const LARGEST_READ_BYTES: usize = 64 << 10;
/// With less room than this a read is not worth its system call.
const SMALLEST_READ_BYTES: usize = 2 << 10;
/// A large body's buffer grows by at least this much.
const GROWTH_BYTES: usize = 1 << 20;

/// Takes frames off a byte stream.
#[derive(Debug)]
pub struct Decoder {
    buf: BytesMut,
    max_body: usize,
    read_bytes: usize,
    awaits_preamble: bool,
}

impl Decoder {
    /// For a stream of frames alone: what the accepting side sends.
    #[must_use]
    pub fn new(max_body: usize) -> Decoder {
        Decoder { buf: BytesMut::new(), max_body, read_bytes: FIRST_READ_BYTES, awaits_preamble: false }
    }

    /// For a stream that begins with the preamble: what the opening side sends.
    #[must_use]
    pub fn after_preamble(max_body: usize) -> Decoder {
        Decoder { awaits_preamble: true, ..Decoder::new(max_body) }
    }

    /// The buffer, with room for a read at its end. Only ever append to it.
    pub fn room(&mut self) -> &mut BytesMut {
        let claimed = self.claimed_bytes().saturating_sub(self.buf.len());
        let room = self.buf.capacity() - self.buf.len();
        if claimed > self.read_bytes {
            if room < claimed.min(SMALLEST_READ_BYTES) {
                self.buf.reserve(claimed.min(self.buf.len().max(GROWTH_BYTES)));
            }
        } else if room < claimed.max(SMALLEST_READ_BYTES) {
            self.buf.reserve(self.read_bytes.max(claimed));
        }
        &mut self.buf
    }

    /// Takes note of how much a read brought, to size the next one.
    pub fn was_read(&mut self, bytes: usize) {
        if bytes >= self.read_bytes {
            self.read_bytes = (self.read_bytes * 2).min(LARGEST_READ_BYTES);
        }
    }

    /// The next frame, if it has arrived whole.
    ///
    /// # Errors
    /// [`FrameError`]: nothing that follows can be understood.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.awaits_preamble {
            let Some(start) = self.buf.first_chunk::<{ PREAMBLE.len() }>() else {
                let matches = PREAMBLE.starts_with(&self.buf);
                return if matches { Ok(None) } else { Err(FrameError::Preamble) };
            };
            if *start != PREAMBLE {
                return Err(FrameError::Preamble);
            }
            self.buf.advance(PREAMBLE.len());
            self.awaits_preamble = false;
        }
        let Some(header) = self.buf.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let Header { len, kind, flags, corr, checksum: expected } = Header::decode(header)?;
        let body_len = len as usize;
        if body_len > self.max_body {
            return Err(FrameError::TooLarge { len, limit: self.max_body });
        }
        if self.buf.len() < HEADER_BYTES + body_len {
            return Ok(None);
        }
        self.buf.advance(HEADER_BYTES);
        let body = self.buf.split_to(body_len).freeze();
        if expected != 0 && checksum(&body) != expected {
            return Err(FrameError::Checksum);
        }
        Ok(Some(Frame { kind, flags, corr, body }))
    }

    /// Whether the stream may end here: between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.buf.is_empty()
    }

    /// How long the frame at the front says it is, header included, as far as this side would accept it.
    fn claimed_bytes(&self) -> usize {
        match self.buf.first_chunk::<4>() {
            Some(len) if !self.awaits_preamble => HEADER_BYTES + (u32::from_le_bytes(*len) as usize).min(self.max_body),
            _ => HEADER_BYTES,
        }
    }
}
