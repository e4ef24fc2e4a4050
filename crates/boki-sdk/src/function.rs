//! What a worker runs: functions, their inputs and outputs.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cx::Cx;
use crate::failure::Failure;

pub use boki_wire::worker::FunctionSpec;

/// A function that is being run.
pub type Running = Pin<Box<dyn Future<Output = Result<Output, Failure>> + Send>>;

/// A function: what [`function`](crate::function) makes of an `async fn`, or [`Worker::function`](crate::Worker::function) of
/// a closure. There is seldom a reason to implement it by hand.
pub trait Function: Send + Sync + 'static {
    /// Its name and what holds for calls of it.
    fn spec(&self) -> FunctionSpec;

    /// Runs it. Dropping the future gives it up: that is how a call is cancelled.
    fn run(&self, cx: Cx, input: Input) -> Running;
}

/// The argument of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: String,
}

impl Input {
    /// The argument, taken as JSON; nothing at all is `null`.
    ///
    /// # Errors
    /// A failure with the code `invalid_input`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let text: &[u8] = if self.bytes.is_empty() { b"null" } else { &self.bytes };
        serde_json::from_slice(text)
            .map_err(|error| Failure::new(format_args!("the input does not fit: {error}")).code("invalid_input"))
    }

    /// The argument as it is.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// What the caller says it is; may be empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }
}

/// What a function returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: String,
}

impl Output {
    /// A value, as JSON.
    ///
    /// # Errors
    /// If the value has no JSON.
    pub fn json<T: Serialize>(value: &T) -> Result<Output, Failure> {
        let bytes = serde_json::to_vec(value)?.into();
        Ok(Output { bytes, content_type: "application/json".into() })
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(bytes: Bytes) -> Output {
        Output { bytes, content_type: String::new() }
    }

    /// Says what they are: at most 255 bytes; a longer one is cut.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Output {
        self.content_type = content_type.into();
        self.content_type.truncate(self.content_type.floor_char_boundary(255));
        self
    }
}

/// A closure over JSON as a function.
pub(crate) struct JsonFunction<H, I> {
    spec: FunctionSpec,
    handler: H,
    input: std::marker::PhantomData<fn(I)>,
}

/// A closure over bytes as a function.
pub(crate) struct RawFunction<H> {
    spec: FunctionSpec,
    handler: H,
}

impl<H, I> JsonFunction<H, I> {
    pub(crate) fn new(name: String, handler: H) -> JsonFunction<H, I> {
        JsonFunction { spec: spec(name), handler, input: std::marker::PhantomData }
    }
}

impl<H> RawFunction<H> {
    pub(crate) fn new(name: String, handler: H) -> RawFunction<H> {
        RawFunction { spec: spec(name), handler }
    }
}

fn spec(name: String) -> FunctionSpec {
    FunctionSpec { name, description: String::new(), max_attempts: 0, timeout_ms: 0, streams_input: false }
}

impl<H, I, F, O> Function for JsonFunction<H, I>
where
    H: Fn(Cx, I) -> F + Send + Sync + 'static,
    I: DeserializeOwned + 'static,
    F: Future<Output = Result<O, Failure>> + Send + 'static,
    O: Serialize,
{
    fn spec(&self) -> FunctionSpec {
        self.spec.clone()
    }

    fn run(&self, cx: Cx, input: Input) -> Running {
        match input.json() {
            Err(failure) => Box::pin(std::future::ready(Err(failure))),
            Ok(input) => {
                let run = (self.handler)(cx, input);
                Box::pin(async move { Output::json(&run.await?) })
            }
        }
    }
}

impl<H, F> Function for RawFunction<H>
where
    H: Fn(Cx, Input) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Output, Failure>> + Send + 'static,
{
    fn spec(&self) -> FunctionSpec {
        self.spec.clone()
    }

    fn run(&self, cx: Cx, input: Input) -> Running {
        Box::pin((self.handler)(cx, input))
    }
}
