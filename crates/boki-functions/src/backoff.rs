//! How long to wait before trying again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// `first`, doubled with every failure, at most `max`; of that, between a half and the whole, chosen by `who`
/// and the number of failures, so that those who failed together do not come back together.
pub(crate) fn backoff(first: Duration, max: Duration, failures: u32, who: &impl Hash) -> Duration {
    let whole = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max);
    let mut hasher = DefaultHasher::new();
    who.hash(&mut hasher);
    failures.hash(&mut hasher);
    let share = hasher.finish() % 1024;
    whole / 2 + (whole / 2).mul_f64(share as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_limit_and_never_halves_more_than_once() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(10));
        for (failures, whole_ms) in [(1, 100), (2, 200), (3, 400), (7, 6400), (8, 10_000), (4_000_000_000, 10_000)] {
            let whole = Duration::from_millis(whole_ms);
            for who in 0..100 {
                let pause = backoff(first, max, failures, &who);
                assert!(pause >= whole / 2 && pause <= whole, "{pause:?} after {failures}");
            }
        }
    }
}
