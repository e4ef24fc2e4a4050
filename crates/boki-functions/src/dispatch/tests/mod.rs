//! Tests of the scheduler as a pure machine: time is a number here, and workers are outboxes that nobody reads.

mod fairness;
mod family;
mod limits;
mod model;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use boki_log::{BookId, Position};
use boki_net::Outbox;
use boki_wire::calls::DEFAULT_PRIORITY;
use boki_wire::worker::{CallId, FunctionSpec, InvokeDone, Outcome};
use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::error::CallError;
use crate::exchange::{Ended, Waiter, exchange};
use crate::limits::LimitRule;

/// A machine, its time, and what it was asked for.
pub(super) struct World {
    pub(super) table: Dispatch,
    pub(super) now: Instant,
    pub(super) flushes: Flushes,
    calls: u64,
}

/// An attempt that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) key: AttemptKey,
    pub(super) end: Waiter,
}

/// What an attempt is asked for with.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) function: &'static str,
    pub(super) priority: u8,
    pub(super) key: Option<String>,
    pub(super) parent: Option<AttemptKey>,
    pub(super) attempt: u32,
    pub(super) on_record: bool,
}

pub(super) fn ask(function: &'static str) -> Ask {
    Ask { function, priority: DEFAULT_PRIORITY, key: None, parent: None, attempt: 1, on_record: false }
}

pub(super) fn of(function: &'static str, key: &str) -> Ask {
    Ask { key: Some(key.to_owned()), ..ask(function) }
}

pub(super) fn limit(name: &str, matches: &str) -> LimitRule {
    LimitRule::new(name, matches.parse().unwrap())
}

impl Asked {
    /// How it ended, told once; `None`: it has not.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        match Pin::new(&mut self.end).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => Some(ended),
            Poll::Pending => None,
        }
    }
}

impl World {
    pub(super) fn new() -> World {
        World::with(FunctionsConfig { queue_calls: 1_000_000, ..FunctionsConfig::default() })
    }

    pub(super) fn with(config: FunctionsConfig) -> World {
        let table = Dispatch::new(Arc::new(config));
        World { table, now: Instant::now(), flushes: Flushes::default(), calls: 0 }
    }

    pub(super) fn worker(&mut self, concurrency: u32, functions: &[&str]) -> WorkerKey {
        let spec = |name: &&str| FunctionSpec {
            name: (*name).to_owned(),
            description: String::new(),
            max_attempts: 0,
            timeout_ms: 0,
            streams_input: false,
        };
        let worker = NewWorker {
            name: "w".into(),
            pid: 0,
            link: Link::new(Outbox::new(64 << 20), 1),
            concurrency,
            functions: functions.iter().map(spec).collect(),
            seat: None,
        };
        self.table.attach(worker, self.now, &mut self.flushes).unwrap()
    }

    pub(super) fn limits(&mut self, limits: &[LimitRule]) {
        for limit in limits {
            limit.check().unwrap();
        }
        let limits = limits.iter().cloned().map(|limit| InForce { limit: Arc::new(limit), is_stored: false }).collect();
        self.table.set_limits(limits, self.now, &mut self.flushes);
    }

    pub(super) fn try_submit(&mut self, ask: Ask) -> Result<Asked, CallError> {
        self.calls += 1;
        let (reply, end) = exchange();
        let request = Request {
            invocation: Arc::new(Invocation {
                id: CallId(u128::from(self.calls).to_be_bytes()),
                function: ask.function.into(),
                book: BookId(1),
                book_name: "b".into(),
                content_type: "".into(),
                http: None,
                input: Bytes::from_static(b"in"),
                stream: None,
            }),
            standing: Standing {
                priority: ask.priority,
                limit_key: ask.key.map(Arc::from),
                parent: ask.parent,
                level: 0,
            },
            position: Position::START,
            attempt: ask.attempt,
            limit: Limit::OnceRunning,
            on_record: ask.on_record,
            reply,
            started: None,
        };
        let key = self.table.submit(request, self.now, &mut self.flushes)?;
        Ok(Asked { key, end })
    }

    pub(super) fn submit(&mut self, ask: Ask) -> Asked {
        self.try_submit(ask).unwrap()
    }

    /// Where an attempt runs; `None`: it waits, or is over.
    pub(super) fn worker_of(&self, key: AttemptKey) -> Option<WorkerKey> {
        self.table.attempts.get(key)?.worker
    }

    pub(super) fn runs(&self, asked: &Asked) -> bool {
        self.worker_of(asked.key).is_some()
    }

    /// Attempts that hold a place.
    pub(super) fn running(&self) -> Vec<AttemptKey> {
        self.table.attempts.iter().filter(|(_, attempt)| attempt.worker.is_some()).map(|(key, _)| key).collect()
    }

    pub(super) fn answer(&mut self, key: AttemptKey) -> bool {
        let worker = self.worker_of(key).expect("it does not run");
        let outcome = Outcome::Ok { content_type: String::new(), output: Bytes::new() };
        let done = InvokeDone { position: Position::START, outcome };
        self.table.answer(worker, key, done, self.now, &mut self.flushes)
    }

    pub(super) fn cancel(&mut self, key: AttemptKey) {
        self.table.cancel(key, boki_wire::worker::CancelReason::Caller, self.now, &mut self.flushes);
    }

    /// Lets time pass, calling the machine whenever it asked for that.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.table.next_timer().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.table.tick(self.now, &mut self.flushes);
        }
        self.now = until;
    }
}
