//! Compression of frames' bodies with LZ4, and when it is not worth trying. Pure.
//!
//! A compressed body is the length of the plain one (u32), then one LZ4 block.

use crate::frame::BLOCK_BYTES;

/// Whether what is written is compressed. What is read says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// LZ4 blocks, where they save something.
    Lz4,
}

/// Bodies that are shorter are not compressed by themselves.
const LEAST_BYTES: usize = 256;
/// After bodies that did not shrink, so many are not even tried, at the most.
const MOST_SKIPPED: u32 = 64;
/// What one byte of an LZ4 block can become.
const MOST_PER_BYTE: usize = 255;
/// Longest plain body that is believed.
const MOST_PLAIN_BYTES: usize = 1 << 30;
const LEN_BYTES: usize = 4;

/// Compresses one body after the other, and learns from it.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    /// So many bodies are stored as they are before the next is tried.
    skip: u32,
    /// How many will be, if that one does not shrink either.
    next_skip: u32,
}

impl Compressor {
    /// Adds `plain`, compressed, to `out`; `false`: it was not tried or saves too little, and `out` is as it was.
    /// A group of `group_bytes` that takes one block anyway gains nothing.
    pub(crate) fn compress(&mut self, plain: &[u8], group_bytes: u64, out: &mut Vec<u8>) -> bool {
        if plain.len() < LEAST_BYTES || group_bytes <= BLOCK_BYTES as u64 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let Ok(len) = u32::try_from(plain.len()) else { return false };
        let start = out.len();
        out.extend_from_slice(&len.to_le_bytes());
        out.resize(start + LEN_BYTES + lz4_flex::block::get_maximum_output_size(plain.len()), 0);
        let written = lz4_flex::block::compress_into(plain, &mut out[start + LEN_BYTES..]).unwrap_or(usize::MAX);
        // An eighth at the least: every read of it pays for the saving.
        if plain.len() <= MOST_PLAIN_BYTES && written < plain.len() - plain.len() / 8 - LEN_BYTES {
            out.truncate(start + LEN_BYTES + written);
            self.next_skip = 0;
            return true;
        }
        out.truncate(start);
        self.next_skip = (self.next_skip * 2).clamp(1, MOST_SKIPPED);
        self.skip = self.next_skip;
        false
    }
}

/// The plain body of a compressed one. Takes no more memory than the body can fill, and 1 GiB.
pub(crate) fn expand(body: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (len, block) = body.split_first_chunk::<LEN_BYTES>().ok_or("a compressed frame has no length")?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > MOST_PLAIN_BYTES || len > block.len().saturating_mul(MOST_PER_BYTE) {
        return Err("a compressed frame has an impossible length");
    }
    let mut plain = vec![0; len];
    match lz4_flex::block::decompress_into(block, &mut plain) {
        Ok(written) if written == len => Ok(plain),
        Ok(_) => Err("a compressed frame is shorter than it says"),
        Err(_) => Err("a compressed frame cannot be expanded"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LARGE: u64 = 1 << 20;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn what_saves_nothing_is_stored_as_it_is() {
        let mut out = b"before".to_vec();
        let text = b"the same again and again, ".repeat(100);
        assert!(!Compressor::default().compress(&noise(10_000), LARGE, &mut out));
        assert!(!Compressor::default().compress(&text[..LEAST_BYTES - 1], LARGE, &mut out));
        assert!(!Compressor::default().compress(&text, BLOCK_BYTES as u64, &mut out), "one block is written anyway");
        assert_eq!(out, b"before");
        assert!(Compressor::default().compress(&text, LARGE, &mut out));
        assert_eq!(expand(&out[6..]).unwrap(), text);
    }

    #[test]
    fn noise_is_tried_ever_less_often_and_text_again_at_once() {
        let mut compressor = Compressor::default();
        let mut out = Vec::new();
        let (noise, text) = (noise(1000), vec![b'x'; 1000]);
        let mut tried = 0;
        for _ in 0..1000 {
            tried += u32::from(compressor.skip == 0);
            assert!(!compressor.compress(&noise, LARGE, &mut out));
        }
        assert!(tried < 25, "{tried}");
        let until = (0..).take_while(|_| !compressor.compress(&text, LARGE, &mut out)).count();
        assert!(until <= MOST_SKIPPED as usize, "{until}");
        assert!((0..100).all(|_| compressor.compress(&text, LARGE, &mut out)));
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        let mut out = Vec::new();
        assert!(Compressor::default().compress(&vec![0; 100_000], LARGE, &mut out));
        for len in [0, 1, 99_999, 100_001, u32::MAX] {
            let mut bytes = out.clone();
            bytes[..LEN_BYTES].copy_from_slice(&len.to_le_bytes());
            assert!(expand(&bytes).is_err(), "{len}");
        }
        assert!(expand(&[1, 0]).is_err());
        assert!(expand(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_or_are_refused(plain in proptest::collection::vec(0_u8..4, 0..2000), junk in any::<Vec<u8>>()) {
            let mut out = Vec::new();
            if Compressor::default().compress(&plain, LARGE, &mut out) {
                prop_assert_eq!(expand(&out).unwrap(), plain);
            }
            let _ = expand(&junk);
        }
    }
}
