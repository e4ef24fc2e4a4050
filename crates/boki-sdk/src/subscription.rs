//! An endless read.

use std::collections::VecDeque;
use std::time::Duration;

use boki_log::Seq;

use crate::book::Book;
use crate::error::Result;
use crate::record::Record;

/// How long one read waits at the server before it is asked again.
const WAIT: Duration = Duration::from_secs(3600);
/// Most records that are fetched ahead.
const BATCH: u32 = 256;

/// The records of a book, or of one tag, as they come. Survives lost connections.
#[derive(Debug)]
pub struct Subscription {
    book: Book,
    from: Seq,
    tag: Option<String>,
    batch: u32,
    fetched: VecDeque<Record>,
}

impl Subscription {
    pub(crate) fn new(book: Book, from: Seq) -> Subscription {
        Subscription { book, from, tag: None, batch: BATCH, fetched: VecDeque::new() }
    }

    /// Only records with this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Subscription {
        self.tag = Some(tag.into());
        self
    }

    /// At most this many records are fetched ahead (256).
    #[must_use]
    pub fn batch(mut self, records: u32) -> Subscription {
        self.batch = records;
        self
    }

    /// The next record; waits until there is one.
    ///
    /// # Cancel-safety
    /// Safe: no record is lost.
    ///
    /// # Errors
    /// [`Error`](crate::Error). Calling again goes on where it stopped.
    pub async fn next(&mut self) -> Result<Record> {
        loop {
            if let Some(record) = self.fetched.pop_front() {
                self.from = record.seq.next();
                return Ok(record);
            }
            let mut read = self.book.read_next(self.from).limit(self.batch).wait(WAIT);
            if let Some(tag) = &self.tag {
                read = read.tag(tag.as_str());
            }
            self.fetched = read.records().await?.into();
        }
    }
}
