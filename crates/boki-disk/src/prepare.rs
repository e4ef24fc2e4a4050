//! Makes the next segment's file while the current one is still being written, because filling it with zeros takes a
//! hundred times as long as writing a group. Nothing depends on it: what is not ready is made when it is needed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::segment::{self, Pace};
use crate::vfs::Vfs;

/// A segment's file that is being made.
#[derive(Debug)]
pub(crate) struct Preparation<F> {
    shared: Arc<Shared<F>>,
    bytes: u64,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<F> {
    is_cancelled: AtomicBool,
    is_awaited: AtomicBool,
    made: Mutex<Option<F>>,
}

impl<F: Send + 'static> Preparation<F> {
    /// Starts making a file of `bytes` for segment `number`.
    pub(crate) fn start<V: Vfs<File = F>>(vfs: &V, number: u64, bytes: u64) -> io::Result<Preparation<F>> {
        let shared = Arc::new(Shared {
            is_cancelled: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            made: Mutex::new(None),
        });
        let (for_work, vfs_for_work) = (Arc::clone(&shared), vfs.clone());
        let thread = vfs.background(Box::new(move || {
            let pace = || match (for_work.is_cancelled.load(Relaxed), for_work.is_awaited.load(Relaxed)) {
                (true, _) => None,
                (false, true) => Some(Pace::Fast),
                (false, false) => Some(Pace::Gentle),
            };
            // An error shows itself again when the file is needed, and can be told to somebody then.
            let made = segment::make_zeroed(&vfs_for_work, number, bytes, &pace);
            *for_work.made.lock() = made.ok();
        }))?;
        Ok(Preparation { shared, bytes, thread })
    }

    /// How long the file is.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Waits for the file; `None` if it could not be made.
    pub(crate) fn finish(mut self) -> Option<F> {
        self.shared.is_awaited.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // If it panicked, there is no file; the panic has been reported where it happened.
            let _ = thread.join();
        }
        self.shared.made.lock().take()
    }
}

impl<F> Drop for Preparation<F> {
    /// Whoever opens the journal next must not meet a thread that still makes files in it.
    fn drop(&mut self) {
        self.shared.is_cancelled.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
