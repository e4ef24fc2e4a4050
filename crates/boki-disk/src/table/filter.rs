//! The filter: which keys are certainly not in a table, without a look at it. Pure bytes.
//!
//! A split block Bloom filter, as the Parquet format has it: a key's hash chooses one **bucket** of 32 bytes, which is eight
//! words, and one bit in each of them. So a question costs one line of the CPU's cache. At [`BITS_PER_KEY`] bits, about one
//! in 200 keys that are not there is not recognized.
//!
//! The buckets lie in **pieces** of [`PIECE_BYTES`], so that as much of a filter is read and kept as is asked.
//!
//! The hash is XXH3 with a seed of the data directory's: who chooses tags cannot choose buckets.

use twox_hash::XxHash3_64;

/// Bytes of one bucket.
pub(super) const BUCKET_BYTES: usize = 32;

/// Bytes of a filter that are read and checked as one; the last piece may have less.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Room per key. 12 bits: 0.5 % false answers; 8 bits would give 3 %, 16 bits 0.1 %.
const BITS_PER_KEY: u64 = 12;

const BUCKETS_PER_PIECE: u64 = (PIECE_BYTES / BUCKET_BYTES) as u64;

const _: () = assert!(PIECE_BYTES.is_multiple_of(BUCKET_BYTES));

/// Odd multipliers that spread the lower half of a hash over the words of a bucket: those of the Parquet format.
const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Hashes keys for the filters of one data directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHash {
    seed: u64,
}

impl KeyHash {
    pub(super) fn new(directory: u128) -> KeyHash {
        KeyHash { seed: (directory >> 64) as u64 ^ directory as u64 }
    }

    pub(super) fn of(self, key: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(self.seed, key)
    }
}

/// The bits of a bucket that a hash sets.
fn mask(hash: u64) -> [u32; 8] {
    SALT.map(|salt| 1 << ((hash as u32).wrapping_mul(salt) >> 27))
}

/// How large a filter is, and where in it a key has its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilterShape {
    buckets: u64,
}

impl FilterShape {
    /// For so many keys. Without keys there is no filter.
    pub(super) fn for_keys(keys: u64) -> FilterShape {
        FilterShape { buckets: keys.saturating_mul(BITS_PER_KEY).div_ceil(8 * BUCKET_BYTES as u64) }
    }

    pub(super) fn bytes(self) -> u64 {
        self.buckets * BUCKET_BYTES as u64
    }

    pub(super) fn pieces(self) -> usize {
        self.buckets.div_ceil(BUCKETS_PER_PIECE) as usize
    }

    /// Bytes of a piece.
    pub(super) fn piece_bytes(self, piece: usize) -> usize {
        let before = piece as u64 * BUCKETS_PER_PIECE;
        (self.buckets.saturating_sub(before).min(BUCKETS_PER_PIECE) as usize) * BUCKET_BYTES
    }

    /// In which piece a key has its bits, and at which byte of it its bucket begins; `None` if there is no filter.
    pub(super) fn place(self, hash: u64) -> Option<(usize, usize)> {
        if self.buckets == 0 {
            return None;
        }
        let bucket = ((u128::from(hash >> 32) * u128::from(self.buckets)) >> 32) as u64;
        let at = (bucket % BUCKETS_PER_PIECE) as usize * BUCKET_BYTES;
        Some(((bucket / BUCKETS_PER_PIECE) as usize, at))
    }
}

/// Sets a key's bits in its bucket.
pub(super) fn insert(bucket: &mut [u8], hash: u64) {
    for (word, mask) in bucket.chunks_exact_mut(4).zip(mask(hash)) {
        for (byte, mask) in word.iter_mut().zip(mask.to_le_bytes()) {
            *byte |= mask;
        }
    }
}

/// Whether a key's bits are set in its bucket.
pub(super) fn contains(bucket: &[u8], hash: u64) -> bool {
    bucket.as_chunks::<4>().0.iter().zip(mask(hash)).all(|(word, mask)| u32::from_le_bytes(*word) & mask != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: KeyHash = KeyHash { seed: 7 };

    fn build(keys: std::ops::Range<u64>) -> (FilterShape, Vec<Vec<u8>>) {
        let shape = FilterShape::for_keys(keys.end - keys.start);
        let mut pieces: Vec<_> = (0..shape.pieces()).map(|piece| vec![0; shape.piece_bytes(piece)]).collect();
        for key in keys {
            let hash = HASH.of(&key.to_be_bytes());
            let (piece, at) = shape.place(hash).unwrap();
            insert(&mut pieces[piece][at..at + BUCKET_BYTES], hash);
        }
        (shape, pieces)
    }

    #[test]
    fn every_key_is_found_and_few_others() {
        for keys in [1, 20, 1000, 200_000] {
            let (shape, pieces) = build(0..keys);
            assert_eq!(pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(), shape.bytes());
            let is_in = |key: u64| {
                let hash = HASH.of(&key.to_be_bytes());
                let (piece, at) = shape.place(hash).unwrap();
                contains(&pieces[piece][at..at + BUCKET_BYTES], hash)
            };
            assert!((0..keys).all(is_in), "{keys} keys");
            let wrong = (keys..keys + 100_000).filter(|key| is_in(*key)).count();
            assert!(wrong < 1000, "{wrong} of 100000 others, {keys} keys");
        }
    }

    #[test]
    fn without_keys_there_is_no_filter() {
        assert_eq!(FilterShape::for_keys(0).place(5), None);
        assert_eq!(FilterShape::for_keys(0).pieces(), 0);
    }

    #[test]
    fn hash_and_bits_are_those_of_every_version() {
        // Filters lie on disks: a library that hashes otherwise would make keys vanish.
        assert_eq!(KeyHash::new(0).of(b""), 0x2d06_8005_38d3_94c2, "XXH3 of nothing, as its specification has it");
        assert_eq!(HASH.of(b"tag"), HASH.of(b"tag"));
        assert_eq!(mask(0), [1; 8]);
        let mut bucket = [0; BUCKET_BYTES];
        insert(&mut bucket, 0x0123_4567_89ab_cdef);
        assert_eq!(bucket.iter().map(|byte| byte.count_ones()).sum::<u32>(), 8);
    }
}
