//! The two clocks a machine is told: one for timers, which never goes back, and the wall clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Microseconds since the clock was made.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// When this clock will show `at_us`.
    pub(crate) fn instant(&self, at_us: u64) -> Instant {
        self.origin + Duration::from_micros(at_us)
    }
}

/// Microseconds since 1970 by the wall clock; 0 before that.
pub(crate) fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
