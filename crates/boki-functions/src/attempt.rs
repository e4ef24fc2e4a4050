//! One call, attempt by attempt, until it has a result, or the beginning of one.

use std::sync::Arc;

use boki_log::Position;
use boki_wire::worker::{CancelReason, InvokeDone, Outcome, OutputHead};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backoff::backoff;
use crate::body::{Body, BodyStream, gather};
use crate::call::CallReply;
use crate::counters::count;
use crate::dispatch::{AttemptKey, Flushes, Limit, Request, Standing};
use crate::error::CallError;
use crate::exchange::{Ended, exchange};
use crate::functions::Shared;
use crate::input::Pump;
use crate::link::Invocation;
use crate::output::{Holding, Output};
use crate::record::Turn;

/// How a call is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) standing: Standing,
    pub(crate) position: Position,
    pub(crate) limit: Limit,
    pub(crate) max_attempts: u32,
    pub(crate) on_record: bool,
    /// The output is wanted as a whole, within the call's time.
    pub(crate) whole: bool,
}

/// What came of an attempt.
enum Attempted {
    Ended(Ended),
    /// Its output has begun. The instant is that until which the call may take, if it is wanted as a whole.
    Began {
        head: Box<OutputHead>,
        output: Box<Output>,
        until: Option<Instant>,
    },
}

/// Counts a call that pauses before its next attempt, as long as it does.
struct Pausing<'a>(&'a watch::Sender<usize>);

impl Pausing<'_> {
    fn new(count: &watch::Sender<usize>) -> Pausing<'_> {
        count.send_modify(|count| *count += 1);
        Pausing(count)
    }
}

impl Drop for Pausing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
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
            self.shared.give_up(self.key, reason);
        }
    }
}

impl Shared {
    /// Runs a call to its result, or to the beginning of its output. `pump` passes on its input, if that is a stream.
    /// `turn`: the place of a call on record among those that wait, told of every attempt.
    ///
    /// # Cancel-safety
    /// Dropping the future gives the call up; its worker is told.
    pub(crate) async fn drive(
        self: &Arc<Shared>,
        mut invocation: Arc<Invocation>,
        plan: Plan,
        mut pump: Option<Pump>,
        turn: Option<&Turn>,
    ) -> Result<CallReply, CallError> {
        let function = &Arc::clone(&invocation.function);
        let mut seen = plan.position;
        let mut attempts = 1;
        loop {
            let attempted = self.attempt(&invocation, seen, attempts, &plan, turn).await?;
            // An input that is gone in part cannot be given to another attempt, unless it lies somewhere.
            let has_begun = invocation.stream.as_ref().is_some_and(|stream| stream.has_begun());
            let is_gone = has_begun && !turn.is_some_and(Turn::has_input);
            let last = attempts >= plan.max_attempts || is_gone;
            let ended = match attempted {
                Attempted::Ended(ended) => ended,
                Attempted::Began { head, mut output, until } => {
                    output.pump = pump.take();
                    output.position = seen;
                    let began = self.began(&invocation, head, output, until, turn).await;
                    match (began, turn) {
                        // Of an output that goes on record, nobody has seen the beginning.
                        (Err(CallError::WorkerLost { .. }), Some(_)) if !last => Ended::WorkerLost(None),
                        (began, _) => return began,
                    }
                }
            };
            match ended {
                Ended::Done(InvokeDone { position, outcome: Outcome::Ok { content_type, output } }) => {
                    let position = seen.max(position);
                    if output.len() > self.config.payload_bytes {
                        let (actual, limit) = (output.len() as u64, self.config.payload_bytes as u64);
                        return Err(CallError::PayloadTooLarge { what: "output", actual, limit });
                    }
                    let (id, output, content_type) = (invocation.id, output.into(), content_type.into());
                    return Ok(CallReply { id, output, content_type, head: None, position, attempts });
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
                    if let Some(turn) = turn {
                        turn.waits_again();
                    }
                    self.pause(&invocation, attempts, plan.limit).await?;
                }
                Ended::WorkerLost(_) if is_gone => {
                    return Err(CallError::InputGone { function: Arc::clone(function) });
                }
                Ended::WorkerLost(seat) if last => {
                    let reason = match seat {
                        Some(seat) => self.pools.end_of(seat).await,
                        None => None,
                    };
                    let (function, reason) = (Arc::clone(function), reason.unwrap_or_default());
                    return Err(CallError::WorkerLost { function, attempts, reason });
                }
                Ended::WorkerLost(_) => {
                    if let Some(turn) = turn {
                        turn.waits_again();
                    }
                }
                Ended::Refused(error) => return Err(error),
                Ended::GivenUp | Ended::Began(_) => return Err(CallError::Cancelled { id: invocation.id }),
            }
            attempts += 1;
            count(&self.counters.retries);
            if let Some(turn) = turn.filter(|turn| has_begun && turn.has_input()) {
                (invocation, pump) = turn.renew(&invocation);
            }
        }
    }

    /// An attempt's output has begun: if somebody gets it as it comes, there will be no other attempt.
    async fn began(
        &self,
        invocation: &Invocation,
        mut head: Box<OutputHead>,
        mut output: Box<Output>,
        until: Option<Instant>,
        turn: Option<&Turn>,
    ) -> Result<CallReply, CallError> {
        let (id, attempts, mut position) = (invocation.id, output.attempts, output.position);
        let content_type = std::mem::take(&mut head.content_type).into();
        let output = match until {
            None => Body::Stream(BodyStream::new(output)),
            Some(until) => {
                let taken = async {
                    match turn {
                        Some(turn) => turn.take_output(invocation, &mut output).await,
                        None => {
                            let gathered = gather(&mut *output, 0, self.config.payload_bytes).await;
                            gathered.map_err(|error| error.of("output"))
                        }
                    }
                };
                match timeout_at(until, taken).await {
                    Ok(taken) => {
                        position = output.position;
                        Body::Whole(taken?)
                    }
                    Err(_) => {
                        let function = Arc::clone(&invocation.function);
                        return Err(CallError::DeadlineExceeded { function, id });
                    }
                }
            }
        };
        // What is on record has no head: whoever asks for the result later gets the same as who asks first.
        let head = turn.is_none().then_some(head);
        Ok(CallReply { id, output, content_type, head, position, attempts })
    }

    async fn attempt(
        self: &Arc<Shared>,
        invocation: &Arc<Invocation>,
        position: Position,
        attempt: u32,
        plan: &Plan,
        turn: Option<&Turn>,
    ) -> Result<Attempted, CallError> {
        let (reply, mut waiter) = exchange();
        let is_awaited = turn.is_some() || matches!(plan.limit, Limit::OnceRunning);
        let (started, starts) = is_awaited.then(oneshot::channel).unzip();
        let request = Request {
            invocation: Arc::clone(invocation),
            standing: plan.standing.clone(),
            position,
            attempt,
            limit: plan.limit,
            on_record: plan.on_record,
            reply,
            started,
        };
        let mut flushes = Flushes::default();
        let key = self.dispatch.lock().submit(request, Instant::now(), &mut flushes);
        self.perform(flushes, None);
        let key = key?;
        let mut held = Held { shared: self, key, reason: Some(CancelReason::Caller) };
        // A sender that is gone means that the attempt has ended without running.
        let started = match (plan.limit, starts) {
            (_, None) => None,
            (Limit::Until(until), Some(starts)) => timeout_at(until, starts).await.ok().and_then(Result::ok),
            (Limit::OnceRunning, Some(starts)) => starts.await.ok(),
        };
        if let (Some(_), Some(turn)) = (started, turn) {
            turn.started();
        }
        let until = match plan.limit {
            Limit::Until(until) => Some(until),
            Limit::OnceRunning => started,
        };
        let ended = match until {
            Some(until) => timeout_at(until, &mut waiter).await.ok(),
            None => Some((&mut waiter).await),
        };
        match ended {
            None => {
                held.reason = Some(CancelReason::Deadline);
                let (function, id) = (Arc::clone(&invocation.function), invocation.id);
                Err(CallError::DeadlineExceeded { function, id })
            }
            Some(Ended::Began(head)) => {
                held.reason = None;
                let output = Box::new(Output {
                    held: Holding::new(self, key),
                    invocation: Arc::clone(invocation),
                    attempts: attempt,
                    waiter,
                    position,
                    pump: None,
                });
                Ok(Attempted::Began { head, output, until: until.filter(|_| plan.whole) })
            }
            Some(ended) => {
                held.reason = None;
                Ok(Attempted::Ended(ended))
            }
        }
    }

    /// Gives an attempt up; its worker is told.
    pub(crate) fn give_up(&self, key: AttemptKey, reason: CancelReason) {
        let mut flushes = Flushes::default();
        self.dispatch.lock().cancel(key, reason, Instant::now(), &mut flushes);
        self.perform(flushes, None);
        self.note_idle();
    }

    /// Waits before the next attempt, each time longer.
    async fn pause(&self, invocation: &Invocation, attempts: u32, limit: Limit) -> Result<(), CallError> {
        let pause = backoff(self.config.retry_pause, self.config.retry_pause_max, attempts, &invocation.id);
        let until = Instant::now() + pause;
        let _pausing = Pausing::new(&self.pausing);
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
