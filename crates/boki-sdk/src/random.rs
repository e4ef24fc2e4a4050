//! The little randomness a client needs: numbers that no other client has, and jitter.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits, from the seed that the system gives each process for its hash maps.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// Between 0 and 1.
pub(crate) fn fraction() -> f64 {
    (random() >> 11) as f64 / (1_u64 << 53) as f64
}
