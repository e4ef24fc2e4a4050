//! The clock of a node: timers, which never go back, and the time of day that its records carry.
//!
//! It is the system's, or a **virtual** one, which stands still until somebody moves it on: with it a test lets an hour
//! pass at once. A virtual clock is shared by its clones, so one may outlive the node, as a real one does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// See the module.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { origin: Instant },
    Virtual(Arc<Virtual>),
}

#[derive(Debug)]
struct Virtual {
    /// Microseconds since 1970 when the clock was made.
    start_us: u64,
    passed_us: AtomicU64,
}

impl Clock {
    /// The system's.
    #[must_use]
    pub fn system() -> Clock {
        Clock(Source::System { origin: Instant::now() })
    }

    /// One that shows `start_us` (microseconds since 1970) until it is [moved](crate::Node::advance).
    #[must_use]
    pub fn virtual_from(start_us: u64) -> Clock {
        Clock(Source::Virtual(Arc::new(Virtual { start_us, passed_us: AtomicU64::new(0) })))
    }

    /// Whether it moves only when it is told to.
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        matches!(self.0, Source::Virtual(_))
    }

    /// The time of day: microseconds since 1970; 0 before that.
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        match &self.0 {
            Source::System { .. } => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros),
            Source::Virtual(clock) => clock.start_us.saturating_add(clock.passed_us.load(Ordering::Acquire)),
        }
    }

    /// Microseconds since the clock was made: it never goes back.
    pub(crate) fn now_us(&self) -> u64 {
        match &self.0 {
            Source::System { origin } => micros(origin.elapsed()),
            Source::Virtual(clock) => clock.passed_us.load(Ordering::Acquire),
        }
    }

    /// When this clock will show `at_us`. `None`: nobody can tell.
    pub(crate) fn instant(&self, at_us: u64) -> Option<Instant> {
        match &self.0 {
            Source::System { origin } => origin.checked_add(Duration::from_micros(at_us)),
            Source::Virtual(_) => None,
        }
    }

    /// Moves a virtual clock on. `false`: it is the system's, which nobody moves.
    pub(crate) fn advance(&self, by: Duration) -> bool {
        match &self.0 {
            Source::System { .. } => false,
            Source::Virtual(clock) => {
                let moved = |passed: u64| Some(passed.saturating_add(micros(by)));
                // The closure never refuses.
                let _ = clock.passed_us.fetch_update(Ordering::AcqRel, Ordering::Acquire, moved);
                true
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
