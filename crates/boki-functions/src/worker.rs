//! A connected worker, as its connection sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use boki_log::LogError;
use boki_net::{Frame, Outbox};
use boki_wire::Message;
use boki_wire::worker::{self, InputCredit, InvokeDone, OutputData, OutputHead, Register, WorkerLog};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::call::Parent;
use crate::counters::count;
use crate::dispatch::{AttemptKey, Flushes, NewWorker, WorkerKey};
use crate::error::CallError;
use crate::exchange::Incoming;
use crate::flood::LogBudget;
use crate::functions::Shared;
use crate::link::Link;
use crate::logs::Source;
use crate::pool::Attached;

/// Most functions that one worker may offer.
const MAX_FUNCTIONS: usize = 4096;
/// Most calls that one worker may take at once.
const MAX_CONCURRENCY: u32 = 1 << 16;

/// The link to a connected worker. Give it every frame of a kind in [`worker::KINDS`] that arrives; drop it
/// when the connection has ended.
pub struct WorkerLink {
    shared: Arc<Shared>,
    key: WorkerKey,
    name: Arc<str>,
    /// Which version of the code it says it runs.
    version: Arc<str>,
    /// The process that it is, if this engine started it.
    process: Option<Attached>,
    gone: bool,
    /// How much it may log.
    budget: Arc<Mutex<LogBudget>>,
    link: Link,
    /// Those that have begun, by the attempts that make them.
    outputs: BTreeMap<u64, Incoming>,
}

impl WorkerLink {
    pub(crate) fn attach(
        shared: &Arc<Shared>,
        register: Register,
        corr: u64,
        outbox: Outbox,
    ) -> Result<WorkerLink, CallError> {
        check(&register)?;
        let link = Link::new(outbox, corr);
        let process = shared.pools.attached(&register.process, &link)?;
        let name: Arc<str> = match &process {
            Some(process) => Arc::clone(process.name()),
            None => register.worker.as_str().into(),
        };
        let version = register.version.as_str().into();
        let worker = NewWorker {
            name: Arc::clone(&name),
            pid: register.pid,
            link: link.clone(),
            concurrency: process
                .as_ref()
                .map_or(register.concurrency, |process| process.concurrency(register.concurrency)),
            functions: register.functions,
            seat: process.as_ref().map(Attached::seat),
        };
        let mut flushes = Flushes::default();
        let key = shared.dispatch.lock().attach(worker, Instant::now(), &mut flushes)?;
        shared.perform(flushes, None);
        if let Some(process) = &process {
            process.registered(key);
        }
        shared.note_worker();
        tracing::info!(worker = %name, id = key.number(), "worker connected");
        let budget = match &process {
            Some(process) => Arc::clone(process.budget()),
            None => Arc::new(Mutex::new(LogBudget::new(shared.config.log_rate, Instant::now()))),
        };
        let (shared, outputs) = (Arc::clone(shared), BTreeMap::new());
        Ok(WorkerLink { shared, key, name, version, process, gone: false, budget, link, outputs })
    }

    /// How the engine names the worker.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.key.number()
    }

    /// What a human calls the worker.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The attempt that this worker names as the one that calls: one that runs on it. `None`: there is no such, or no
    /// longer.
    #[must_use]
    pub fn parent(&self, corr: u64) -> Option<Parent> {
        let key = AttemptKey::from_corr(corr);
        (corr != 0 && self.shared.dispatch.lock().runs_on(key, self.key)).then_some(Parent(key))
    }

    /// A frame has arrived. What follows from it for this worker is in its outbox when this returns, and
    /// still has to be written: by the connection's task, if that is who calls.
    ///
    /// # Errors
    /// The worker breaks the protocol: it counts as gone, and its connection is to be closed.
    pub fn on_frame(&mut self, frame: &Frame) -> Result<(), LogError> {
        if self.gone {
            return Ok(());
        }
        let result = self.take(frame);
        if let Err(error) = &result {
            tracing::warn!(worker = %self.name, id = self.key.number(), %error, "worker broke the protocol");
            self.leave();
        }
        result
    }

    fn take(&mut self, frame: &Frame) -> Result<(), LogError> {
        match frame.kind {
            worker::INVOKE_DONE => {
                let done = InvokeDone::decode(&frame.body)?;
                let key = AttemptKey::from_corr(frame.corr);
                if !self.outputs.is_empty() {
                    self.outputs.remove(&frame.corr);
                }
                let mut flushes = Flushes::default();
                let now = Instant::now();
                if !self.shared.dispatch.lock().answer(self.key, key, done, now, &mut flushes) {
                    count(&self.shared.counters.stray_answers);
                }
                // The connection's task writes what this pushes to it, once it has taken all that arrived with it.
                self.shared.perform(flushes, Some(self.key));
                self.shared.note_idle();
                Ok(())
            }
            worker::OUTPUT_HEAD => self.output_begins(frame),
            worker::OUTPUT_DATA => {
                let OutputData { bytes } = OutputData::decode(&frame.body)?;
                let output = self.outputs.get(&frame.corr);
                let output = output.ok_or(LogError::Malformed { reason: "a piece of an output that has not begun" })?;
                self.shared.counters.stream_buffered(output.data(bytes)?);
                Ok(())
            }
            worker::INPUT_CREDIT => {
                let InputCredit { bytes } = InputCredit::decode(&frame.body)?;
                let input = self.shared.inputs.lock().get(&frame.corr).cloned();
                // An attempt that has just ended needs no more.
                if let Some(input) = input {
                    input.credit(frame.corr, bytes);
                }
                Ok(())
            }
            worker::WORKER_LOG => {
                let log = WorkerLog::decode(&frame.body)?;
                let attempt = AttemptKey::from_corr(frame.corr);
                let function = self.shared.dispatch.lock().function_of(attempt, self.key);
                let (worker, version, function) = (&self.name, &self.version, function.as_ref());
                let source = Source { worker, version, call: log.call, function };
                self.shared.log_of_worker(&self.budget, source, log.level, &log.line);
                Ok(())
            }
            worker::DRAIN => {
                let mut flushes = Flushes::default();
                if self.shared.dispatch.lock().send_drain(self.key, Instant::now(), &mut flushes) {
                    self.shared.expire_later();
                }
                self.shared.perform(flushes, Some(self.key));
                Ok(())
            }
            worker::REGISTER => Err(LogError::Malformed { reason: "a worker registers once per connection" }),
            worker::REGISTERED
            | worker::INVOKE
            | worker::INVOKE_CANCEL
            | worker::INVOKE_INPUT
            | worker::OUTPUT_CREDIT => {
                Err(LogError::Malformed { reason: "a worker sent a message that only an engine sends" })
            }
            _ => Ok(()),
        }
    }

    fn output_begins(&mut self, frame: &Frame) -> Result<(), LogError> {
        let head = OutputHead::decode(&frame.body)?;
        if self.outputs.contains_key(&frame.corr) {
            return Err(LogError::Malformed { reason: "an output begins once" });
        }
        let dispatch = self.shared.dispatch.lock();
        let output = match dispatch.reply_of(AttemptKey::from_corr(frame.corr), self.key) {
            None => return Err(LogError::Malformed { reason: "the output of a call that does not run here" }),
            Some(None) => Incoming::unwanted(),
            Some(Some(reply)) => reply.begin(head, self.link.clone(), frame.corr, self.shared.config.payload_bytes)?,
        };
        drop(dispatch);
        self.outputs.insert(frame.corr, output);
        Ok(())
    }

    fn leave(&mut self) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        if let Some(process) = &self.process {
            process.disconnected(self.key);
        }
        let mut flushes = Flushes::default();
        if self.shared.dispatch.lock().detach(self.key, Instant::now(), &mut flushes) {
            self.shared.expire_later();
        }
        self.outputs.clear();
        if self.process.is_none() {
            self.shared.tell_dropped(&self.budget, &self.name, &self.version);
        }
        self.shared.perform(flushes, None);
        self.shared.note_idle();
        self.shared.note_worker();
        tracing::info!(worker = %self.name, id = self.key.number(), "worker disconnected");
    }
}

impl Drop for WorkerLink {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for WorkerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerLink({}, {})", self.key.number(), self.name)
    }
}

fn check(register: &Register) -> Result<(), CallError> {
    let invalid = |reason| Err(CallError::InvalidWorker { reason });
    if register.worker.is_empty() {
        return invalid("it has no name");
    }
    if register.concurrency == 0 {
        return invalid("it takes no call at once");
    }
    if register.concurrency > MAX_CONCURRENCY {
        return invalid("it takes more than 65536 calls at once");
    }
    if register.functions.is_empty() {
        return invalid("it offers no function");
    }
    if register.functions.len() > MAX_FUNCTIONS {
        return invalid("it offers more than 4096 functions");
    }
    let mut names = BTreeSet::new();
    for function in &register.functions {
        if function.name.is_empty() {
            return invalid("a function has no name");
        }
        if !names.insert(function.name.as_str()) {
            return invalid("it offers two functions of the same name");
        }
    }
    Ok(())
}
