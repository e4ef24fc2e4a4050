//! One call, attempt by attempt, until it has a result.

use std::sync::Arc;

use boki_log::Position;
use boki_wire::worker::{CancelReason, InvokeDone, Outcome};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff::backoff;
use crate::call::CallReply;
use crate::counters::count;
use crate::dispatch::{AttemptKey, Ended, Flushes, Limit, Request};
use crate::error::CallError;
use crate::functions::Shared;
use crate::link::Invocation;

/// How a call is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) position: Position,
    pub(crate) limit: Limit,
    pub(crate) max_attempts: u32,
    pub(crate) on_record: bool,
}

/// An attempt that somebody waits for. Dropping it gives the attempt up.
struct Held<'a> {
    shared: &'a Shared,
    key: AttemptKey,
    /// Why it would be given up; `None` once it has ended.
    reason: Option<CancelReason>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            let mut flushes = Flushes::default();
            self.shared.dispatch.lock().cancel(self.key, reason, &mut flushes);
            flushes.flush();
            self.shared.note_idle();
        }
    }
}

impl Shared {
    /// Runs a call to its result.
    ///
    /// # Cancel-safety
    /// Dropping the future gives the call up; its worker is told.
    pub(crate) async fn drive(&self, invocation: &Arc<Invocation>, plan: Plan) -> Result<CallReply<Bytes>, CallError> {
        let function = &invocation.function;
        let mut seen = plan.position;
        let mut attempts = 1;
        loop {
            let last = attempts >= plan.max_attempts;
            match self.attempt(invocation, seen, attempts, plan).await? {
                Ended::Done(InvokeDone { position, outcome: Outcome::Ok { content_type, output } }) => {
                    let position = seen.max(position);
                    if output.len() > self.config.payload_bytes {
                        let (actual, limit) = (output.len() as u64, self.config.payload_bytes as u64);
                        return Err(CallError::PayloadTooLarge { what: "output", actual, limit });
                    }
                    let content_type = content_type.into();
                    return Ok(CallReply { id: invocation.id, output, content_type, position, attempts });
                }
                Ended::Done(InvokeDone { position, outcome: Outcome::Err { code, message, retryable } }) => {
                    seen = seen.max(position);
                    if !retryable || last {
                        return Err(CallError::FunctionFailed {
                            function: Arc::clone(function),
                            code: code.into(),
                            message: message.into(),
                            retryable,
                            position: seen,
                            attempts,
                        });
                    }
                    self.pause(invocation, attempts, plan.limit).await?;
                }
                Ended::WorkerLost if last => {
                    return Err(CallError::WorkerLost { function: Arc::clone(function), attempts });
                }
                Ended::WorkerLost => {}
                Ended::Refused(error) => return Err(error),
            }
            attempts += 1;
            count(&self.counters.retries);
        }
    }

    async fn attempt(
        &self,
        invocation: &Arc<Invocation>,
        position: Position,
        attempt: u32,
        plan: Plan,
    ) -> Result<Ended, CallError> {
        let (reply, mut ended) = oneshot::channel();
        let (started, starts) = match plan.limit {
            Limit::Until(_) => (None, None),
            Limit::OnceRunning => {
                let (started, starts) = oneshot::channel();
                (Some(started), Some(starts))
            }
        };
        let invocation = Arc::clone(invocation);
        let (id, function) = (invocation.id, Arc::clone(&invocation.function));
        let request =
            Request { invocation, position, attempt, limit: plan.limit, on_record: plan.on_record, reply, started };
        let mut flushes = Flushes::default();
        let key = self.dispatch.lock().submit(request, Instant::now(), &mut flushes)?;
        self.demand.note(flushes.edges);
        flushes.flush();
        let mut held = Held { shared: self, key, reason: Some(CancelReason::Caller) };
        let until = match (plan.limit, starts) {
            (Limit::Until(until), _) => Some(until),
            // A sender that is gone means that the attempt has ended without running.
            (Limit::OnceRunning, Some(starts)) => starts.await.ok(),
            (Limit::OnceRunning, None) => None,
        };
        let result = match until {
            Some(until) => timeout_at(until, &mut ended).await.ok(),
            None => Some(ended.await),
        };
        let Some(result) = result else {
            held.reason = Some(CancelReason::Deadline);
            return Err(CallError::DeadlineExceeded { function, id });
        };
        held.reason = None;
        // The table drops a sender unused only when the attempt is cancelled, which only `held` does.
        result.map_err(|_| CallError::Cancelled { id })
    }

    /// Waits before the next attempt, each time longer.
    async fn pause(&self, invocation: &Invocation, attempts: u32, limit: Limit) -> Result<(), CallError> {
        let pause = backoff(self.config.retry_pause, self.config.retry_pause_max, attempts, &invocation.id);
        let until = Instant::now() + pause;
        match limit {
            Limit::Until(deadline) if deadline <= until => {
                sleep_until(deadline).await;
                Err(CallError::DeadlineExceeded { function: Arc::clone(&invocation.function), id: invocation.id })
            }
            _ => {
                tokio::select! {
                    () = sleep_until(until) => Ok(()),
                    () = self.closing.cancelled() => Err(CallError::ShuttingDown),
                }
            }
        }
    }
}
