//! The engine's end of a worker's connection: what it tells the worker.

use std::sync::Arc;
use std::time::Duration;

use boki_log::{BookId, Position};
use boki_net::{Close, Outbox};
use boki_wire::Message;
use boki_wire::worker::{
    self, CallId, CancelReason, Drain, HttpHead, Invoke, InvokeCancel, InvokeInput, OutputCredit, Registered,
};
use bytes::Bytes;

use crate::input::StreamedInput;

/// While more than this waits to be read by a worker that has calls already, it gets no further ones.
const CONGESTED_BYTES: usize = 4 << 20;

/// What all attempts of a call have in common.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) id: CallId,
    pub(crate) function: Arc<str>,
    pub(crate) book: BookId,
    pub(crate) book_name: Arc<str>,
    pub(crate) content_type: Arc<str>,
    pub(crate) http: Option<HttpHead>,
    /// All of it, or nothing if it is a stream.
    pub(crate) input: Bytes,
    pub(crate) stream: Option<Arc<StreamedInput>>,
}

impl Invocation {
    /// How much memory it takes to let it wait.
    pub(crate) fn bytes(&self) -> usize {
        self.input.len() + self.http.as_ref().map_or(0, |http| http.as_bytes().len())
    }
}

/// Pushes frames to one worker; whoever pushed has to flush.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    outbox: Outbox,
    /// Of the registration: its answer carries the same.
    corr: u64,
}

impl Link {
    pub(crate) fn new(outbox: Outbox, corr: u64) -> Link {
        Link { outbox, corr }
    }

    pub(crate) fn registered(&self, worker_id: u64) {
        Registered { worker_id }.push(&self.outbox, self.corr);
    }

    pub(crate) fn invoke(
        &self,
        corr: u64,
        invocation: &Invocation,
        position: Position,
        attempt: u32,
        time_left: Duration,
    ) {
        // 0 means "no deadline": one that is due this millisecond is told as 1.
        let deadline_ms = u32::try_from(time_left.as_millis()).unwrap_or(u32::MAX).max(1);
        let invoke = Invoke {
            call: invocation.id,
            attempt,
            deadline_ms,
            book: invocation.book,
            position,
            function: &invocation.function,
            book_name: &invocation.book_name,
            content_type: &invocation.content_type,
            http: invocation.http.clone(),
            input: invocation.input.clone(),
            more_input: invocation.stream.is_some(),
        };
        self.outbox.push(worker::INVOKE, corr, |body| invoke.write(body));
        if let Some(stream) = &invocation.stream {
            stream.begin(self, corr);
        }
    }

    pub(crate) fn cancel(&self, corr: u64, reason: CancelReason) {
        InvokeCancel { reason }.push(&self.outbox, corr);
    }

    pub(crate) fn input(&self, corr: u64, bytes: Bytes, last: bool) {
        InvokeInput { last, bytes }.push(&self.outbox, corr);
    }

    pub(crate) fn output_credit(&self, corr: u64, bytes: u32) {
        OutputCredit { bytes }.push(&self.outbox, corr);
    }

    pub(crate) fn drain(&self) {
        Drain.push(&self.outbox, 0);
    }

    pub(crate) fn flush(&self) {
        self.outbox.flush();
    }

    /// Ends the connection once what was pushed has been written.
    pub(crate) fn close(&self) {
        self.outbox.close(Close::AfterWriting);
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.outbox.close(Close::Now);
    }

    pub(crate) fn is_congested(&self) -> bool {
        self.outbox.unwritten() > CONGESTED_BYTES
    }
}
