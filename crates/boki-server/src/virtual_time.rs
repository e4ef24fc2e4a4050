//! Virtual time: a server whose clock stands still until it is told to move on, so that a test lets an hour pass at once.
//!
//! Everything in the server reads one of two clocks: the node's ([`boki_node::Clock`]: the time of day, and waits in the log)
//! and the runtime's (deadlines, pauses). Both are virtual here, and move together. What workers and clients measure
//! by themselves is not the server's to decide.
//!
//! The runtime's clock is tokio's, paused. A paused clock jumps to the next timer as soon as no task is ready, which a
//! task that waits for a socket is not; that would end every deadline at once. It does not jump while a blocking task
//! runs: a [`Hold`] is one that does nothing else.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use boki_node::Node;
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{resume, sleep};

/// The farthest that time moves in one step: 365 days.
pub(crate) const LONGEST_STEP: Duration = Duration::from_secs(365 * 24 * 3600);

/// The runtime for a server in virtual time: one thread, and a clock that stands still. It must run nothing else, and
/// every server in it has to be one in virtual time.
///
/// # Errors
/// The system's.
pub fn virtual_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(true).build()
}

/// Keeps the runtime's clock from jumping. Dropping it lets go.
#[derive(Debug)]
pub(crate) struct Hold {
    /// The blocking task ends with this.
    _release: mpsc::Sender<()>,
}

impl Hold {
    /// `None`: this is no [`virtual_runtime`].
    pub(crate) fn new() -> Option<Hold> {
        if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return None;
        }
        let (release, released) = mpsc::channel::<()>();
        // Nothing is ever sent: it ends with the sender.
        spawn_blocking(move || released.recv().is_err());
        Some(Hold { _release: release })
    }

    /// From now on time passes by itself, so that what ends a server by the clock does end it.
    pub(crate) fn let_go(self) {
        resume();
    }
}

/// Moves both clocks on, in one step, and lets everything begin that is due by then. `false`: the time is real.
///
/// Must run on the [`virtual_runtime`] itself. `by` is at most [`LONGEST_STEP`]; timers know whole milliseconds, so it is
/// rounded up to one.
pub(crate) async fn advance(node: &Node, by: Duration) -> bool {
    let by =
        Duration::from_millis(u64::try_from(by.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)).min(LONGEST_STEP);
    // A timer that is in the driver's hands before time moves: when it fires, so has everything else that is due.
    let mut due = pin!(sleep(by));
    let is_due = poll_fn(|context| Poll::Ready(due.as_mut().poll(context).is_ready())).await;
    if !node.advance(by) {
        return false;
    }
    tokio::time::advance(by).await;
    if !is_due {
        due.await;
    }
    // Those that were woken together with this task may stand behind it in the queue.
    yield_now().await;
    true
}
