//! What a function knows of its call, and what it can do there.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boki_net::Outbox;
use boki_wire::Message;
use boki_wire::worker::{CallId, HttpHead, Level, WorkerLog};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::book::Book;
use crate::call::{Call, CallOutput, Sent};
use crate::client::Client;
use crate::error::Result;
use crate::payload::{IntoPayload, Json};

/// The call that a function runs for. Clones are the same.
#[derive(Clone)]
pub struct Cx(pub(crate) Arc<Running>);

pub(crate) struct Running {
    pub(crate) call: CallId,
    /// Names this attempt on its connection.
    pub(crate) corr: u64,
    pub(crate) attempt: u32,
    pub(crate) function: String,
    pub(crate) deadline: Option<Instant>,
    pub(crate) book: Book,
    pub(crate) client: Client,
    pub(crate) outbox: Outbox,
    pub(crate) http: Option<HttpHead>,
    /// Its output has: there is no deadline any more.
    pub(crate) has_begun: AtomicBool,
}

impl Cx {
    /// The caller's book. It has seen what the caller had seen; what it sees, the caller has seen when the call returns.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.0.book
    }

    /// Other books, and everything else that can be asked of the server.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The call's id: the same in every attempt of it.
    #[must_use]
    pub fn call_id(&self) -> CallId {
        self.0.call
    }

    /// Which attempt of the call this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The name by which the function was called.
    #[must_use]
    pub fn function(&self) -> &str {
        &self.0.function
    }

    /// The HTTP request that the call came by, if it did and is not on record.
    #[must_use]
    pub fn http(&self) -> Option<&HttpHead> {
        self.0.http.as_ref()
    }

    /// When the attempt will be given up, unless its output has begun by then: one that is sent piece by piece may take as long
    /// as it is read.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Calls another function in the same book, with the input as JSON; the output is JSON too. Await it, or add
    /// a key first. It may take as long as this call has left.
    ///
    /// ```no_run
    /// # async fn example(cx: &boki_sdk::Cx) -> boki_sdk::Result<()> {
    /// let free: bool = cx.call("is_free", &4).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn call<O: DeserializeOwned>(&self, function: impl Into<String>, input: &impl Serialize) -> ChildCall<O> {
        ChildCall { call: self.call_raw(function, Json(input)), output: PhantomData }
    }

    /// Calls another function in the same book, with bytes.
    pub fn call_raw(&self, function: impl Into<String>, input: impl IntoPayload) -> Call {
        let call = self.detached(function, input);
        match self.time_left() {
            Some(left) => call.deadline(left),
            None => call,
        }
    }

    /// Has another function called in the same book, and does not wait for that: it runs whatever becomes of this
    /// call. The input is JSON.
    pub fn send(&self, function: impl Into<String>, input: &impl Serialize) -> ChildSend {
        ChildSend(self.detached(function, Json(input)))
    }

    fn detached(&self, function: impl Into<String>, input: impl IntoPayload) -> Call {
        self.0.client.call(function, input).book(&self.0.book).parent(self.0.corr)
    }

    fn time_left(&self) -> Option<Duration> {
        if self.0.has_begun.load(Ordering::Relaxed) {
            return None;
        }
        // No time at all would mean "as long as it takes".
        self.0.deadline.map(|at| at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)))
    }

    /// Logs a line under this call: `boki logs` shows it. See also [`info!`](crate::info) and its like.
    pub fn log(&self, level: Level, line: impl fmt::Display) {
        for line in line.to_string().lines() {
            WorkerLog { call: Some(self.0.call), level, line: line.to_owned() }.push(&self.0.outbox, self.0.corr);
        }
        self.0.outbox.flush();
    }
}

impl fmt::Debug for Cx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cx({} {}, attempt {})", self.0.function, self.0.call, self.0.attempt)
    }
}

/// A call of another function in the making: await it to make it and get its output.
#[must_use = "nothing is called before this is awaited"]
pub struct ChildCall<O> {
    call: Call,
    output: PhantomData<fn() -> O>,
}

impl<O> ChildCall<O> {
    /// Calls of a function with the same key, in the same book, are one call. A key made of [`Cx::call_id`] gives
    /// each call of this function one call of the other, however many attempts this one takes.
    pub fn key(mut self, key: impl Into<String>) -> ChildCall<O> {
        self.call = self.call.key(key);
        self
    }

    /// How long to wait for the result.
    pub fn deadline(mut self, deadline: Duration) -> ChildCall<O> {
        self.call = self.call.deadline(deadline);
        self
    }

    /// As [`Call::priority`].
    pub fn priority(mut self, priority: u8) -> ChildCall<O> {
        self.call = self.call.priority(priority);
        self
    }

    /// As [`Call::limit_key`].
    pub fn limit_key(mut self, key: impl Into<String>) -> ChildCall<O> {
        self.call = self.call.limit_key(key);
        self
    }
}

impl<O: DeserializeOwned> IntoFuture for ChildCall<O> {
    type Output = Result<O>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<O>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let call = self.call.into_future();
        Box::pin(async move {
            let output: CallOutput = call.await?;
            output.json()
        })
    }
}

impl<O> fmt::Debug for ChildCall<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.call, f)
    }
}

/// A call of another function that nobody waits for. Await it to make it.
#[must_use = "nothing is called before this is awaited"]
#[derive(Debug)]
pub struct ChildSend(Call);

impl ChildSend {
    /// As [`ChildCall::key`].
    pub fn key(self, key: impl Into<String>) -> ChildSend {
        ChildSend(self.0.key(key))
    }

    /// How long the call may take in all; otherwise as long as it takes.
    pub fn deadline(self, deadline: Duration) -> ChildSend {
        ChildSend(self.0.deadline(deadline))
    }

    /// As [`Call::priority`].
    pub fn priority(self, priority: u8) -> ChildSend {
        ChildSend(self.0.priority(priority))
    }

    /// As [`Call::limit_key`].
    pub fn limit_key(self, key: impl Into<String>) -> ChildSend {
        ChildSend(self.0.limit_key(key))
    }
}

impl IntoFuture for ChildSend {
    type Output = Result<Sent>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Sent>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        self.0.detach().into_future()
    }
}

/// Logs a line of a call: `boki::info!(cx, "seat {seat} is held")`.
#[macro_export]
macro_rules! info {
    ($cx:expr, $($line:tt)+) => { $cx.log($crate::Level::Info, ::core::format_args!($($line)+)) };
}

/// Logs something odd in a call: `boki::warn!(cx, "no seat left")`.
#[macro_export]
macro_rules! warn {
    ($cx:expr, $($line:tt)+) => { $cx.log($crate::Level::Warn, ::core::format_args!($($line)+)) };
}

/// Logs that something failed in a call: `boki::error!(cx, "{error}")`.
#[macro_export]
macro_rules! error {
    ($cx:expr, $($line:tt)+) => { $cx.log($crate::Level::Error, ::core::format_args!($($line)+)) };
}

/// Logs what helps to find a fault in a call: `boki::debug!(cx, "{state:?}")`.
#[macro_export]
macro_rules! debug {
    ($cx:expr, $($line:tt)+) => { $cx.log($crate::Level::Debug, ::core::format_args!($($line)+)) };
}
