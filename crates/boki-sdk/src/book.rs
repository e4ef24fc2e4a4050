//! A book, by which its records are appended and read.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use boki_log::op::{self, Consistency};
use boki_log::{BookId, Position, Seq};
use bytes::Bytes;

use crate::answer::Answer;
use crate::append::{Append, Trim};
use crate::error::{Error, Result};
use crate::payload::IntoPayload;
use crate::question::Question;
use crate::read::{IntoSeq, Read, Tail};
use crate::session::{Lease, Session};
use crate::subscription::Subscription;
use crate::tags::Tags;

/// A book as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookInfo {
    /// Its number: never used again.
    pub id: BookId,
    /// Its name.
    pub name: String,
    /// When it was made, microseconds since 1970.
    pub created_us: u64,
}

/// A book. Clones are the same session: what one has seen, all have seen.
#[derive(Clone)]
pub struct Book {
    lease: Arc<Lease>,
    id: BookId,
    name: Arc<str>,
    position: Arc<AtomicU64>,
}

impl Book {
    pub(crate) fn new(lease: Arc<Lease>, id: BookId, name: Arc<str>, position: Arc<AtomicU64>) -> Book {
        Book { lease, id, name, position }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> BookId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything below this is visible to the session.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(Seq(self.position.load(Ordering::Relaxed)))
    }

    /// Takes over what another session has seen: every later read sees it too.
    pub fn advance_to(&self, position: Position) {
        self.position.fetch_max(position.0.0, Ordering::Relaxed);
    }

    /// Appends a record. Await it, or add tags and conditions first.
    pub fn append(&self, payload: impl IntoPayload) -> Append {
        self.batch().record(payload)
    }

    /// Appends several records: contiguous, all or none.
    ///
    /// ```no_run
    /// # async fn example(book: boki_sdk::Book) -> boki_sdk::Result<()> {
    /// let first = book.batch().record(b"a").tags(["x"]).record(b"b").if_tail("x", 0).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> Append {
        Append::new(self.clone())
    }

    /// Reads records from a seq on: that one if it is there, and those after it.
    pub fn read_next(&self, from: impl IntoSeq) -> Read {
        Read::new(self.clone(), op::Direction::Next, from.into_seq())
    }

    /// Reads records from a seq back: that one if it is there, and those before it.
    pub fn read_prev(&self, from: impl IntoSeq) -> Read {
        Read::new(self.clone(), op::Direction::Prev, from.into_seq())
    }

    /// The last seq of the book, or of one tag.
    pub fn tail(&self) -> Tail {
        Tail::new(self.clone())
    }

    /// The tags that begin with `prefix`, in byte order.
    pub fn tags(&self, prefix: impl Into<String>) -> Tags {
        Tags::new(self.clone(), prefix.into())
    }

    /// Every record from a seq on, as it comes, for ever.
    pub fn subscribe(&self, from: impl IntoSeq) -> Subscription {
        Subscription::new(self.clone(), from.into_seq())
    }

    /// Removes old records: of the whole book, or of one tag. Nothing is removed before [`Trim::below`] says up to where.
    pub fn trim(&self) -> Trim {
        Trim::new(self.clone())
    }

    /// Attaches a cache hint to a record: it may vanish at any time. An empty one removes it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_aux(&self, seq: impl IntoSeq, aux: impl IntoPayload) -> Result<()> {
        let aux: Bytes = aux.into_payload().bytes?;
        let question = Question::SetAux(op::SetAux { book: self.id, seq: seq.into_seq(), aux });
        match self.session().answer(question, None).await? {
            Answer::AuxSet => Ok(()),
            _ => Err(Error::unexpected("not one to setting aux data")),
        }
    }

    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.lease.0
    }

    /// Where the position is kept.
    pub(crate) fn seen(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.position)
    }

    /// What its reads are promised unless they ask for something else.
    pub(crate) fn consistency(&self) -> Consistency {
        Consistency::Session(self.position())
    }
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Book({:?}, {}, {:?})", self.name, self.id, self.position())
    }
}
