//! Inputs and outputs of calls on record: in the record, or beside the log if they are large.

use std::sync::Arc;

use boki_log::{BookId, LogError};
use boki_node::{BlobError, BlobName, BlobSource, Blobs};
use boki_wire::worker::CallId;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use crate::body::{Body, BodyError, BodyStream};
use crate::call::Call;
use crate::error::CallError;
use crate::functions::Shared;

/// Which payload of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Input,
    Output,
}

impl Part {
    pub(super) fn of(number: u8) -> Option<Part> {
        [Part::Input, Part::Output].into_iter().find(|part| part.number() == number)
    }

    pub(super) fn number(self) -> u8 {
        match self {
            Part::Input => 1,
            Part::Output => 2,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Part::Input => "input",
            Part::Output => "output",
        }
    }
}

/// A payload of a call on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// In the record.
    Inline(Bytes),
    /// Beside the log.
    Blob(BlobRef),
}

/// What a record says of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlobRef {
    /// Of its name; the call and the part are the rest.
    pub(super) version: u64,
    pub(super) len: u64,
    /// Of what is in it, if it has to be told from others: of the input of a call with a key.
    pub(super) digest: [u8; 16],
}

impl Payload {
    /// How much memory it takes before it is loaded.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Payload::Inline(bytes) => bytes.len(),
            Payload::Blob(_) => 0,
        }
    }

    /// Whether two callers mean the same.
    pub(super) fn is_same(&self, other: &Payload) -> bool {
        match (self, other) {
            (Payload::Inline(one), Payload::Inline(other)) => one == other,
            (Payload::Blob(one), Payload::Blob(other)) => one.len == other.len && one.digest == other.digest,
            _ => false,
        }
    }

    pub(super) fn blob(&self) -> Option<&BlobRef> {
        match self {
            Payload::Inline(_) => None,
            Payload::Blob(blob) => Some(blob),
        }
    }
}

/// The name of a call's blob.
pub(super) fn blob_name(book: BookId, id: CallId, part: Part, version: u64) -> BlobName {
    BlobName { owner: book.0, item: u128::from_be_bytes(id.0), part: part.number(), version }
}

/// The call that a blob belongs to.
pub(super) fn call_of_blob(name: BlobName) -> (BookId, CallId) {
    (BookId(name.owner), CallId(name.item.to_be_bytes()))
}

/// A blob that no record names yet. Dropped before it is [kept](NewBlob::keep), it is removed.
#[derive(Debug)]
pub(super) struct NewBlob {
    blobs: Blobs,
    name: Option<BlobName>,
}

impl NewBlob {
    /// A record names it, or may.
    pub(super) fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.blobs.remove_later(name);
        }
    }
}

impl Shared {
    /// A payload ready to be written down: with its blob, if it is large.
    pub(super) async fn store(
        &self,
        (book, id): (BookId, CallId),
        part: Part,
        is_keyed: bool,
        body: &mut (impl Stream<Item = Result<Bytes, BodyError>> + Unpin),
    ) -> Result<(Payload, Option<NewBlob>), CallError> {
        let mut first = BytesMut::new();
        let next = loop {
            let Some(piece) = body.next().await else {
                return Ok((Payload::Inline(first.freeze()), None));
            };
            let piece = piece.map_err(|error| error.of(part.what()))?;
            if first.len() + piece.len() > self.config.inline_bytes {
                break piece;
            }
            first.extend_from_slice(&piece);
        };
        let failed = |error| blob_failure(part, error);
        let blobs = self.node.blobs();
        let name = blobs.name(book, u128::from_be_bytes(id.0), part.number());
        let mut sink = blobs.write(name).await.map_err(failed)?;
        let mut hasher = is_keyed.then(blake3::Hasher::new);
        let mut known = [first.freeze(), next].into_iter();
        let mut len = 0;
        loop {
            let piece = match known.next() {
                Some(piece) => piece,
                None => match body.next().await {
                    Some(piece) => piece.map_err(|error| error.of(part.what()))?,
                    None => break,
                },
            };
            len += piece.len() as u64;
            if len > self.config.blob_bytes {
                let limit = self.config.blob_bytes;
                return Err(CallError::PayloadTooLarge { what: part.what(), actual: len, limit });
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            sink.write(piece).await.map_err(failed)?;
        }
        let blob = NewBlob { blobs: blobs.clone(), name: Some(name) };
        sink.finish().await.map_err(failed)?;
        let mut digest = [0; 16];
        if let Some(hasher) = hasher {
            digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        }
        Ok((Payload::Blob(BlobRef { version: name.version, len, digest }), Some(blob)))
    }

    /// The call with its input as it is to be written down.
    pub(super) async fn store_input(
        &self,
        id: CallId,
        call: Call,
    ) -> Result<(Call<Payload>, Option<NewBlob>), CallError> {
        // One that could not be given to the function need not be kept.
        let streams = self.dispatch.lock().terms(&call.function).streams_input;
        let most = if streams == Some(false) { self.config.payload_bytes as u64 } else { self.config.blob_bytes };
        let at_least = call.input.at_least();
        if at_least > most {
            return Err(CallError::PayloadTooLarge { what: "input", actual: at_least, limit: most });
        }
        let of = (call.book, id);
        let is_keyed = call.idempotency_key.is_some();
        let (call, input) = call.with_input(Payload::Inline(Bytes::new()));
        let (input, blob) = match input {
            Body::Whole(bytes) if bytes.len() <= self.config.inline_bytes => (Payload::Inline(bytes), None),
            Body::Whole(bytes) => self.store(of, Part::Input, is_keyed, &mut pieces(bytes)).await?,
            Body::Stream(stream) => self.store(of, Part::Input, is_keyed, &mut stream.at_most(most)).await?,
        };
        Ok((Call { input, ..call }, blob))
    }

    /// A function's output as it is to be written down.
    pub(super) async fn store_output(
        &self,
        of: (BookId, CallId),
        output: Bytes,
    ) -> Result<(Payload, Option<NewBlob>), CallError> {
        if output.len() <= self.config.inline_bytes {
            return Ok((Payload::Inline(output), None));
        }
        self.store(of, Part::Output, false, &mut pieces(output)).await
    }

    /// A payload to be read.
    pub(super) async fn open(
        &self,
        (book, id): (BookId, CallId),
        part: Part,
        payload: Payload,
    ) -> Result<Body, CallError> {
        let blob = match payload {
            Payload::Inline(bytes) => return Ok(Body::Whole(bytes)),
            Payload::Blob(blob) => blob,
        };
        // Is there none, its record was trimmed, and it with that.
        let source = open_blob(self.node.blobs(), blob_name(book, id, part, blob.version), part, blob.len).await?;
        let source = source.ok_or(CallError::CallNotFound { id })?;
        Ok(Body::Stream(BodyStream::new(read(Source::Open(Box::new(source)), part)).of_len(blob.len)))
    }

    /// An input beside the log. It is opened when the first piece is taken: calls that wait hold no files open.
    pub(super) fn stored_input(&self, (book, id): (BookId, CallId), blob: BlobRef) -> BodyStream {
        let name = blob_name(book, id, Part::Input, blob.version);
        let source = Source::Closed(self.node.blobs().clone(), name, blob.len);
        BodyStream::new(read(source, Part::Input)).of_len(blob.len)
    }
}

/// A blob that is to be read, piece by piece.
enum Source {
    Closed(Blobs, BlobName, u64),
    Open(Box<BlobSource>),
    Over,
}

fn read(source: Source, part: Part) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    Box::pin(stream::unfold(source, move |source| async move {
        match next_piece(source, part).await {
            Ok((piece, source)) => Some((Ok(piece?), source)),
            Err(error) => Some((Err(BodyError::Call(Box::new(error))), Source::Over)),
        }
    }))
}

async fn next_piece(source: Source, part: Part) -> Result<(Option<Bytes>, Source), CallError> {
    let mut source = match source {
        Source::Closed(blobs, name, len) => {
            let missing =
                || CallError::PayloadDamaged { what: part.what(), reason: format!("{name} is missing").into() };
            Box::new(open_blob(&blobs, name, part, len).await?.ok_or_else(missing)?)
        }
        Source::Open(source) => source,
        Source::Over => return Ok((None, Source::Over)),
    };
    let piece = source.next().await.map_err(|error| blob_failure(part, error))?;
    Ok((piece, Source::Open(source)))
}

async fn open_blob(blobs: &Blobs, name: BlobName, part: Part, len: u64) -> Result<Option<BlobSource>, CallError> {
    let source = blobs.read(name).await.map_err(|error| blob_failure(part, error))?;
    match &source {
        Some(source) if source.len() != len => {
            let reason = format!("{name} has {} bytes, its record says {len}", source.len()).into();
            Err(CallError::PayloadDamaged { what: part.what(), reason })
        }
        _ => Ok(source),
    }
}

/// Bytes that are there as a whole, in pieces that the disk is given at a time.
fn pieces(bytes: Bytes) -> impl Stream<Item = Result<Bytes, BodyError>> + Unpin {
    const PIECE_BYTES: usize = 256 << 10;
    let starts = (0..bytes.len()).step_by(PIECE_BYTES);
    stream::iter(starts.map(move |at| Ok(bytes.slice(at..bytes.len().min(at + PIECE_BYTES)))))
}

fn blob_failure(part: Part, error: BlobError) -> CallError {
    let reason: Arc<str> = error.to_string().into();
    match error {
        BlobError::Full { .. } => CallError::Log(LogError::DiskFull),
        BlobError::Damaged { .. } => CallError::PayloadDamaged { what: part.what(), reason },
        _ => CallError::PayloadUnavailable { what: part.what(), reason },
    }
}
