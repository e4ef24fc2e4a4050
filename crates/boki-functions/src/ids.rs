//! Ids of calls.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use boki_wire::worker::CallId;

/// Gives calls their ids.
#[derive(Debug)]
pub(crate) struct CallIds {
    /// Tells this start of the engine from every other.
    start: u64,
    next: AtomicU64,
}

impl CallIds {
    pub(crate) fn new() -> CallIds {
        CallIds { start: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(1) }
    }

    pub(crate) fn next(&self) -> CallId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        CallId((u128::from(self.start) << 64 | u128::from(number)).to_be_bytes())
    }
}

/// The id of a call with an idempotency key: the same for the same function and key, at any time.
pub(crate) fn of_key(function: &str, key: &str) -> CallId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(function.len() as u64).to_le_bytes());
    hasher.update(function.as_bytes());
    hasher.update(key.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    CallId(id)
}
