//! What a worker runs: functions, their inputs and outputs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use boki_wire::worker::HttpHead;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cx::Cx;
use crate::failure::Failure;
use crate::flow::InputQueue;
use crate::http::{Head, Request, Response};
use crate::stream::{InputStream, OutputStream, Pieces};

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

/// The code of the failure of an input that does not fit.
pub(crate) const INVALID_INPUT: &str = "invalid_input";

/// The argument of a call.
#[derive(Debug)]
pub struct Input {
    bytes: Bytes,
    rest: Option<InputQueue>,
    content_type: String,
    pub(crate) http: Option<HttpHead>,
}

impl Input {
    pub(crate) fn new(bytes: Bytes, content_type: String, http: Option<HttpHead>, rest: Option<InputQueue>) -> Input {
        Input { bytes, rest, content_type, http }
    }

    /// The argument, taken as JSON; nothing at all is `null`. Of a function that takes a stream, only what came with the call.
    ///
    /// # Errors
    /// A failure with the code `invalid_input`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let text: &[u8] = if self.bytes.is_empty() { b"null" } else { &self.bytes };
        serde_json::from_slice(text)
            .map_err(|error| Failure::new(format_args!("the input does not fit: {error}")).code(INVALID_INPUT))
    }

    /// The argument as it is. Of a function that takes a stream, only what came with the call.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The argument piece by piece.
    #[must_use]
    pub fn into_stream(self) -> InputStream {
        InputStream::new(self.bytes, self.rest, self.content_type)
    }

    /// What the caller says it is; may be empty.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.content_type
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.rest.is_some()
    }

    /// The same as a whole, of at most `limit` bytes.
    pub(crate) async fn gathered(self, limit: usize) -> Result<Input, Failure> {
        let Input { bytes, rest, content_type, http } = self;
        let bytes = InputStream::new(bytes, rest, String::new()).gather(limit).await?;
        Ok(Input { bytes, rest: None, content_type, http })
    }
}

/// What a function returns.
#[derive(Debug)]
pub struct Output {
    pub(crate) body: OutputBody,
    pub(crate) content_type: String,
    /// Of an HTTP response.
    pub(crate) head: Option<Head>,
}

/// The bytes of an output.
pub(crate) enum OutputBody {
    Whole(Bytes),
    Stream(Pieces),
}

impl fmt::Debug for OutputBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutputBody::Whole(bytes) => write!(f, "{} bytes", bytes.len()),
            OutputBody::Stream(_) => f.write_str("a stream"),
        }
    }
}

impl Output {
    /// A value, as JSON.
    ///
    /// # Errors
    /// If the value has no JSON.
    pub fn json<T: Serialize>(value: &T) -> Result<Output, Failure> {
        let bytes = serde_json::to_vec(value)?;
        Ok(Output::bytes(bytes.into()).content_type("application/json"))
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(bytes: Bytes) -> Output {
        Output { body: OutputBody::Whole(bytes), content_type: String::new(), head: None }
    }

    /// Says what they are: at most 255 bytes; a longer one is cut.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Output {
        self.content_type = content_type.into();
        self.content_type.truncate(self.content_type.floor_char_boundary(255));
        self
    }
}

impl From<OutputStream> for Output {
    fn from(stream: OutputStream) -> Output {
        let OutputStream { pieces, content_type } = stream;
        Output { body: OutputBody::Stream(pieces), content_type, head: None }
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

/// A closure over streams as a function.
pub(crate) struct StreamFunction<H>(RawFunction<H>);

/// A closure over HTTP as a function.
pub(crate) struct HttpFunction<H>(RawFunction<H>);

impl<H> StreamFunction<H> {
    pub(crate) fn new(name: String, handler: H) -> StreamFunction<H> {
        StreamFunction(RawFunction { spec: FunctionSpec { streams_input: true, ..spec(name) }, handler })
    }
}

impl<H> HttpFunction<H> {
    pub(crate) fn new(name: String, handler: H) -> HttpFunction<H> {
        HttpFunction(RawFunction { spec: FunctionSpec { streams_input: true, ..spec(name) }, handler })
    }
}

fn spec(name: String) -> FunctionSpec {
    FunctionSpec { name, description: String::new(), max_attempts: 0, timeout_ms: 0, streams_input: false }
}

impl<H, F, O> Function for StreamFunction<H>
where
    H: Fn(Cx, InputStream) -> F + Send + Sync + 'static,
    F: Future<Output = Result<O, Failure>> + Send + 'static,
    O: Into<Output>,
{
    fn spec(&self) -> FunctionSpec {
        self.0.spec.clone()
    }

    fn run(&self, cx: Cx, input: Input) -> Running {
        let run = (self.0.handler)(cx, input.into_stream());
        Box::pin(async move { run.await.map(Into::into) })
    }
}

impl<H, F> Function for HttpFunction<H>
where
    H: Fn(Cx, Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Response, Failure>> + Send + 'static,
{
    fn spec(&self) -> FunctionSpec {
        self.0.spec.clone()
    }

    fn run(&self, cx: Cx, input: Input) -> Running {
        let run = (self.0.handler)(cx, Request::of(input));
        Box::pin(async move { Response::output(run.await) })
    }
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
