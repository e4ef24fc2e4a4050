//! The door: how many connections are open, and whether one more may be.
//!
//! Above the limit a few more are let in just to be told so; beyond those, connections are closed without a
//! word. So the number of connections is bounded whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many connections above the limit are told why they are refused, at one time.
const TOLD: usize = 64;

/// Counts connections of every kind.
#[derive(Debug)]
pub(crate) struct Door {
    limit: usize,
    open: AtomicUsize,
    refused: AtomicU64,
}

/// What happens to a new connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is served.
    Served(Pass),
    /// It is told that there are too many.
    Told(Pass),
    /// It is closed.
    Closed,
}

/// Stands for an open connection; dropping it says that it is closed.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Door>);

impl Door {
    pub(crate) fn new(limit: usize) -> Arc<Door> {
        Arc::new(Door { limit, open: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    pub(crate) fn admit(self: &Arc<Door>) -> Admission {
        // A pass per connection from here on, so that the count is right whatever becomes of it.
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let pass = Pass(Arc::clone(self));
        if before < self.limit {
            return Admission::Served(pass);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        if before < self.limit + TOLD { Admission::Told(pass) } else { Admission::Closed }
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many may be.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// How many were not served since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_makes_room_for_another() {
        let door = Door::new(1);
        let Admission::Served(first) = door.admit() else { panic!("the first is served") };
        let told: Vec<_> = (0..TOLD).map(|_| door.admit()).collect();
        assert!(told.iter().all(|admission| matches!(admission, Admission::Told(_))));
        assert!(matches!(door.admit(), Admission::Closed));
        assert_eq!((door.open(), door.refused()), (1 + TOLD, 1 + TOLD as u64));
        drop((first, told));
        assert_eq!(door.open(), 0);
        assert!(matches!(door.admit(), Admission::Served(_)));
    }
}
