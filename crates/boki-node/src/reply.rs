//! How results reach those who asked.

use std::sync::Arc;

use boki_log::LogError;
use boki_log::op::Reply;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Receives replies. One sink serves many operations, told apart by their number.
pub trait ReplySink: Send + Sync {
    /// The operation submitted with `corr` has ended. Called once per operation, from any thread, possibly before
    /// `submit` returns; must not block.
    fn reply(&self, corr: u64, result: Result<Reply, LogError>);
    /// No further reply comes for now: the moment to wake whoever writes them out. May be called when
    /// there was none.
    fn flush(&self);
    /// As `flush`, and nobody else was given replies: the calling thread has the time to write them out itself.
    fn flush_alone(&self) {
        self.flush();
    }
}

/// A sink for a single operation, as a future.
pub(crate) struct OneShot(Mutex<Option<oneshot::Sender<Result<Reply, LogError>>>>);

impl OneShot {
    pub(crate) fn channel() -> (Arc<dyn ReplySink>, oneshot::Receiver<Result<Reply, LogError>>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(OneShot(Mutex::new(Some(sender)))), receiver)
    }
}

impl ReplySink for OneShot {
    fn reply(&self, _corr: u64, result: Result<Reply, LogError>) {
        if let Some(sender) = self.0.lock().take() {
            // Nobody waits any more: the caller has given up.
            let _ = sender.send(result);
        }
    }

    fn flush(&self) {}
}
