//! A future that wakes itself while it is polled is polled again at once.
//!
//! Left to the runtime, such a task goes to the end of the queue, and an idle thread is woken to look for work that there is
//! not. HTTP connections do that with every request that has a body: one part of the connection wakes the other, and
//! both are the same task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// So often in a row; then others have their turn.
const TIMES: usize = 4;

/// Nobody polls the future: a wake-up is the runtime's business.
const ASLEEP: u8 = 0;
/// It is being polled.
const POLLED: u8 = 1;
/// It is being polled, and was woken meanwhile.
const WOKEN: u8 = 2;

/// Stands between one future and the runtime.
#[derive(Debug)]
pub(crate) struct SelfWakes {
    state: Arc<State>,
    waker: Waker,
}

#[derive(Debug)]
struct State {
    phase: AtomicU8,
    /// The task's own.
    task: Mutex<Waker>,
}

impl SelfWakes {
    pub(crate) fn new() -> SelfWakes {
        let state = Arc::new(State { phase: AtomicU8::new(ASLEEP), task: Mutex::new(Waker::noop().clone()) });
        SelfWakes { waker: Waker::from(Arc::clone(&state)), state }
    }

    /// Polls by `poll`, which is always that of the same future.
    pub(crate) fn poll<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        self.state.task.lock().clone_from(cx.waker());
        for _ in 0..TIMES {
            self.state.phase.store(POLLED, Ordering::SeqCst);
            let polled = poll(&mut Context::from_waker(&self.waker));
            if polled.is_ready() || self.state.phase.swap(ASLEEP, Ordering::SeqCst) == POLLED {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let polled = self.phase.compare_exchange(POLLED, WOKEN, Ordering::SeqCst, Ordering::SeqCst);
        if polled == Err(ASLEEP) {
            self.task.lock().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_without_the_runtime() {
        let (self_wakes, wakes) = (SelfWakes::new(), Arc::new(Wakes::default()));
        let task = Waker::from(Arc::clone(&wakes));
        let mut polls = 0;
        let polled = self_wakes.poll(&mut Context::from_waker(&task), |cx| {
            polls += 1;
            if polls < 3 {
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert_eq!((polled, polls), (Poll::Pending, 3));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_wake_up_between_two_polls_reaches_the_task() {
        let (self_wakes, wakes) = (SelfWakes::new(), Arc::new(Wakes::default()));
        let task = Waker::from(Arc::clone(&wakes));
        let mut inner = None;
        let _ = self_wakes.poll(&mut Context::from_waker(&task), |cx| {
            inner = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        inner.unwrap().wake();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn one_that_never_stops_lets_others_have_their_turn() {
        let (self_wakes, wakes) = (SelfWakes::new(), Arc::new(Wakes::default()));
        let task = Waker::from(Arc::clone(&wakes));
        let polled = self_wakes.poll(&mut Context::from_waker(&task), |cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }
}
