//! Where bodies go that outlive their frame.
//!
//! A frame's body shares the connection's receive buffer with every other frame that one read brought: a short one that is kept
//! would hold on to all of it. So short ones are copied. Those of one connection share pieces of memory, since an allocation
//! for each costs more than the copy; they are also given back at about the same time, because what keeps them (the cache of
//! recent records) drops the oldest first.

use bytes::{Bytes, BytesMut};

/// Longer bodies hold on to the receive buffer instead, of which they are most.
const COPIED_BYTES: usize = 16 << 10;
/// Largest piece: what a connection holds on to although it is idle.
const PIECE_BYTES: usize = 32 << 10;

/// Copies what one connection keeps.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// Room that is left.
    room: BytesMut,
    /// Length of the last piece: the next is twice as long, so that a connection that keeps little takes little.
    last_piece: usize,
}

impl Shelf {
    /// The body, without the buffer that it came in.
    pub(crate) fn keep(&mut self, body: Bytes) -> Bytes {
        if body.len() >= COPIED_BYTES {
            return body;
        }
        if self.room.capacity() < body.len() {
            self.last_piece = (self.last_piece * 2).min(PIECE_BYTES).max(body.len());
            self.room = BytesMut::with_capacity(self.last_piece);
        }
        self.room.extend_from_slice(&body);
        self.room.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_bodies_are_copied_and_share_memory_and_long_ones_stay_where_they_are() {
        let mut shelf = Shelf::default();
        let buffer = Bytes::from(vec![7; 2 * COPIED_BYTES]);
        let long = buffer.slice(..COPIED_BYTES);
        assert_eq!(shelf.keep(long.clone()).as_ptr(), long.as_ptr());
        let short = buffer.slice(1..1001);
        let kept: Vec<_> = (0..500).map(|_| shelf.keep(short.clone())).collect();
        assert!(kept.iter().all(|kept| *kept == short && !buffer.as_ptr_range().contains(&kept.as_ptr())));
        let joined = kept.windows(2).filter(|pair| pair[0].as_ptr_range().end == pair[1].as_ptr()).count();
        assert!(joined > 470, "{joined} of 500 lie behind another");
    }

    #[test]
    fn a_connection_that_keeps_little_takes_little() {
        let mut shelf = Shelf::default();
        shelf.keep(Bytes::from_static(&[7; 100]));
        assert_eq!((shelf.last_piece, shelf.room.capacity()), (100, 0));
        for _ in 0..10_000 {
            shelf.keep(Bytes::from_static(&[7; 100]));
        }
        assert!(shelf.last_piece <= PIECE_BYTES, "{}", shelf.last_piece);
    }
}
