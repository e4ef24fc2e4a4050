//! Appending and trimming.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use boki_log::batch::{BatchBuilder, Condition, ReservedTags};
use boki_log::op::{self, Ack, Appended};
use boki_log::{AppendId, LogError, Seq, Tag};
use bytes::Bytes;

use crate::book::Book;
use crate::error::{Error, Result};
use crate::in_flight::InFlight;
use crate::payload::IntoPayload;
use crate::question::Question;
use crate::read::{IntoSeq, within};

/// An append in the making: await it to do it; it gives the seq of the first record.
#[must_use = "nothing is appended before this is awaited"]
pub struct Append {
    book: Book,
    records: Vec<(Vec<Tag>, Bytes)>,
    conditions: Vec<Condition>,
    raises: Vec<(Tag, u64)>,
    id: Option<AppendId>,
    deadline: Option<Duration>,
    /// The first thing that was wrong with it.
    error: Option<Error>,
}

impl Append {
    pub(crate) fn new(book: Book) -> Append {
        let (records, conditions, raises) = (Vec::new(), Vec::new(), Vec::new());
        Append { book, records, conditions, raises, id: None, deadline: None, error: None }
    }

    /// Adds a record; tags that follow are its.
    pub fn record(mut self, payload: impl IntoPayload) -> Append {
        match payload.into_payload().bytes {
            Ok(bytes) => self.records.push((Vec::new(), bytes)),
            Err(error) => self.fail(error),
        }
        self
    }

    /// Tags the last record.
    pub fn tags<T: AsRef<str>>(mut self, tags: impl IntoIterator<Item = T>) -> Append {
        for tag in tags {
            self = self.tag(tag.as_ref());
        }
        self
    }

    /// Tags the last record.
    pub fn tag(mut self, tag: impl AsRef<str>) -> Append {
        match (self.records.last_mut(), Tag::new(tag.as_ref())) {
            (Some((tags, _)), Ok(tag)) => tags.push(tag),
            (_, Err(error)) => self.fail(error.into()),
            (None, _) => {
                self.fail(LogError::InvalidArgument { argument: "tag", reason: "there is no record to tag" }.into());
            }
        }
        self
    }

    /// Only if the last record under `tag` has this seq; 0: if there is none.
    pub fn if_tail(mut self, tag: impl AsRef<str>, seq: impl IntoSeq) -> Append {
        match Tag::new(tag.as_ref()) {
            Ok(tag) => self.conditions.push(Condition::Tail { tag, seq: seq.into_seq() }),
            Err(error) => self.fail(error.into()),
        }
        self
    }

    /// Only if the fence of `tag` is at most `epoch`: nobody with a later one has taken over.
    pub fn fence(mut self, tag: impl AsRef<str>, epoch: u64) -> Append {
        match Tag::new(tag.as_ref()) {
            Ok(tag) => self.conditions.push(Condition::Fence { tag, epoch }),
            Err(error) => self.fail(error.into()),
        }
        self
    }

    /// Raises the fence of `tag` to `epoch`, which keeps out writers with earlier ones; fails if it is above.
    pub fn raise(mut self, tag: impl AsRef<str>, epoch: u64) -> Append {
        match Tag::new(tag.as_ref()) {
            Ok(tag) => self.raises.push((tag, epoch)),
            Err(error) => self.fail(error.into()),
        }
        self
    }

    /// Names the append, so that repeating it (from another process, say) adds nothing. Without this the client gives
    /// it an id of its own, which covers lost connections.
    pub fn id(mut self, id: AppendId) -> Append {
        self.id = Some(id);
        self
    }

    /// How long to wait for the answer. When it has passed, whether the append is done is not known.
    pub fn deadline(mut self, deadline: Duration) -> Append {
        self.deadline = Some(deadline);
        self
    }

    /// Be answered earlier: as soon as the records are on disk, when their seqs are not known yet. Not together
    /// with conditions.
    pub fn durable(self) -> Durable {
        Durable(self)
    }

    /// Sends it and does not wait for the answer: for keeping many in flight. Waits only while too many are.
    ///
    /// # Cancel-safety
    /// Dropping the future before it is ready sends nothing.
    ///
    /// # Errors
    /// What is wrong with the append itself, and [`Error::Closed`].
    pub async fn send(self) -> Result<InFlight> {
        self.send_for(Ack::Ordered).await
    }

    /// Does it, and gives all that the server says.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn outcome(self) -> Result<Appended> {
        self.outcome_for(Ack::Ordered).await
    }

    async fn outcome_for(self, ack: Ack) -> Result<Appended> {
        within(self.deadline, async { self.send_for(ack).await?.await }).await
    }

    async fn send_for(self, ack: Ack) -> Result<InFlight> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let session = self.book.session();
        let mut batch = BatchBuilder::new(self.book.id()).id(self.id.unwrap_or_else(|| session.append_id()));
        for condition in self.conditions {
            batch = batch.condition(condition);
        }
        for (tag, epoch) in self.raises {
            batch = batch.raise(tag, epoch);
        }
        for (tags, payload) in self.records {
            batch = batch.record(tags, payload);
        }
        let append = op::Append { batch: batch.build()?, ack, reserved: ReservedTags::Refused };
        let asked = session.ask(Question::Append(append), Some(self.book.seen())).await?;
        Ok(InFlight(asked))
    }

    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

impl IntoFuture for Append {
    type Output = Result<Seq>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Seq>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let appended = self.outcome().await?;
            appended.seq.ok_or_else(|| Error::unexpected("an append without a seq"))
        })
    }
}

impl fmt::Debug for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Append({} records to {:?})", self.records.len(), self.book)
    }
}

/// An append that is answered as soon as it is on disk. Await it to do it.
#[must_use = "nothing is appended before this is awaited"]
#[derive(Debug)]
pub struct Durable(Append);

impl Durable {
    /// As [`Append::send`].
    ///
    /// # Errors
    /// As [`Append::send`].
    pub async fn send(self) -> Result<InFlight> {
        self.0.send_for(Ack::Durable).await
    }
}

impl IntoFuture for Durable {
    type Output = Result<Appended>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Appended>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.0.outcome_for(Ack::Durable))
    }
}

/// A trim in the making.
#[must_use = "nothing is trimmed before `below` is awaited"]
#[derive(Debug)]
pub struct Trim {
    book: Book,
    tag: Option<String>,
}

impl Trim {
    pub(crate) fn new(book: Book) -> Trim {
        Trim { book, tag: None }
    }

    /// Only records under this tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Trim {
        self.tag = Some(tag.into());
        self
    }

    /// Removes the records below this seq. Every reader agrees on what is gone.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn below(self, seq: impl IntoSeq) -> Result<()> {
        let tag = self.tag.map(Tag::new).transpose()?;
        let batch = BatchBuilder::trim(self.book.id(), tag, seq.into_seq())?;
        let append = op::Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Refused };
        let asked = self.book.session().ask(Question::Append(append), Some(self.book.seen())).await?;
        InFlight(asked).await.map(|_| ())
    }
}
