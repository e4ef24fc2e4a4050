//! Reading records and tails.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use boki_log::op::{self, Consistency, Direction};
use boki_log::{Seq, Tag};

use crate::answer::Answer;
use crate::book::Book;
use crate::error::{Error, Result};
use crate::question::Question;
use crate::record::Record;

/// How many records a read returns at most, unless it says otherwise.
const DEFAULT_LIMIT: u32 = 100;

/// A seq, or a plain number that is one.
pub trait IntoSeq {
    /// Makes it one; what is above every seq becomes the largest.
    fn into_seq(self) -> Seq;
}

impl IntoSeq for Seq {
    fn into_seq(self) -> Seq {
        self.min(Seq::MAX)
    }
}

impl IntoSeq for u64 {
    fn into_seq(self) -> Seq {
        Seq(self).min(Seq::MAX)
    }
}

/// A read in the making: await it to do it.
#[must_use = "nothing is read before this is awaited"]
#[derive(Clone, Debug)]
pub struct Read {
    book: Book,
    direction: Direction,
    from: Seq,
    tag: Option<String>,
    limit: u32,
    consistency: Option<Consistency>,
    wait: Option<Duration>,
    deadline: Option<Duration>,
}

impl Read {
    pub(crate) fn new(book: Book, direction: Direction, from: Seq) -> Read {
        let (limit, tag, consistency, wait, deadline) = (DEFAULT_LIMIT, None, None, None, None);
        Read { book, direction, from, tag, limit, consistency, wait, deadline }
    }

    /// Only records with this tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Read {
        self.tag = Some(tag.into());
        self
    }

    /// At most this many records (100). The server may return fewer than there are: read on after the last.
    pub fn limit(mut self, limit: u32) -> Read {
        self.limit = limit;
        self
    }

    /// If nothing matches, wait this long for a record that does. For `read_next` only.
    pub fn wait(mut self, wait: Duration) -> Read {
        self.wait = Some(wait);
        self
    }

    /// Sees every record whose append was acknowledged, to anybody, before this read began.
    pub fn linearizable(mut self) -> Read {
        self.consistency = Some(Consistency::Linearizable);
        self
    }

    /// Sees what the server has, even if the session has seen more.
    pub fn any(mut self) -> Read {
        self.consistency = Some(Consistency::Any);
        self
    }

    /// How long to wait for the server's answer.
    pub fn deadline(mut self, deadline: Duration) -> Read {
        self.deadline = Some(deadline);
        self
    }

    /// Reads one record, if there is any.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn first(self) -> Result<Option<Record>> {
        Ok(self.limit(1).records().await?.into_iter().next())
    }

    /// # Cancel-safety
    /// Dropping the future gives the read up, at the server too.
    pub(crate) async fn records(self) -> Result<Vec<Record>> {
        let question = Question::Read(op::Read {
            book: self.book.id(),
            tag: self.tag.map(Tag::new).transpose()?,
            from: self.from,
            direction: self.direction,
            limit: self.limit,
            consistency: self.consistency.unwrap_or_else(|| self.book.consistency()),
            wait: self.wait,
        });
        let answer = self.book.session().answer(question, Some(self.book.seen()));
        match within(self.deadline, answer).await? {
            Answer::Records(records) => Ok(records.records.into_iter().map(Record::from).collect()),
            _ => Err(Error::unexpected("not one to a read")),
        }
    }
}

impl IntoFuture for Read {
    type Output = Result<Vec<Record>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Vec<Record>>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.records())
    }
}

/// Asks for a tail: await it to do so. 0 stands for "empty".
#[must_use = "nothing is asked before this is awaited"]
#[derive(Clone, Debug)]
pub struct Tail {
    book: Book,
    tag: Option<String>,
    consistency: Option<Consistency>,
}

impl Tail {
    pub(crate) fn new(book: Book) -> Tail {
        Tail { book, tag: None, consistency: None }
    }

    /// That of this tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Tail {
        self.tag = Some(tag.into());
        self
    }

    /// Sees every record whose append was acknowledged, to anybody, before this began.
    pub fn linearizable(mut self) -> Tail {
        self.consistency = Some(Consistency::Linearizable);
        self
    }

    /// Sees what the server has, even if the session has seen more.
    pub fn any(mut self) -> Tail {
        self.consistency = Some(Consistency::Any);
        self
    }

    async fn seq(self) -> Result<Seq> {
        let question = Question::Tail(op::Tail {
            book: self.book.id(),
            tag: self.tag.map(Tag::new).transpose()?,
            consistency: self.consistency.unwrap_or_else(|| self.book.consistency()),
        });
        match self.book.session().answer(question, Some(self.book.seen())).await? {
            Answer::Tail(tail) => Ok(tail.seq),
            _ => Err(Error::unexpected("not one to asking for a tail")),
        }
    }
}

impl IntoFuture for Tail {
    type Output = Result<Seq>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Seq>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.seq())
    }
}

/// Bounds `future` by the caller's deadline, if there is one.
pub(crate) async fn within<T>(deadline: Option<Duration>, future: impl Future<Output = Result<T>>) -> Result<T> {
    match deadline {
        None => future.await,
        Some(deadline) => tokio::time::timeout(deadline, future).await.unwrap_or(Err(Error::Deadline(deadline))),
    }
}
