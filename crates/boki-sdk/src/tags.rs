//! Listing tags.

use std::future::{Future, IntoFuture};
use std::pin::Pin;

use boki_log::op;
use boki_log::{Seq, Tag};

use crate::answer::Answer;
use crate::book::Book;
use crate::error::{Error, Result};
use crate::question::Question;

/// How many tags a page has at most, unless the asker says otherwise.
const DEFAULT_LIMIT: u32 = 1000;

/// A page of tags in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// Each with the last seq under it.
    pub tags: Vec<(String, Seq)>,
    /// There are more after the last of these.
    pub more: bool,
}

/// Asks for tags: await it to do so.
#[must_use = "nothing is asked before this is awaited"]
#[derive(Clone, Debug)]
pub struct Tags {
    book: Book,
    prefix: String,
    after: Option<String>,
    limit: u32,
}

impl Tags {
    pub(crate) fn new(book: Book, prefix: String) -> Tags {
        Tags { book, prefix, after: None, limit: DEFAULT_LIMIT }
    }

    /// Only those after this one: the last of the page before.
    pub fn after(mut self, tag: impl Into<String>) -> Tags {
        self.after = Some(tag.into());
        self
    }

    /// At most this many (1000).
    pub fn limit(mut self, limit: u32) -> Tags {
        self.limit = limit;
        self
    }

    async fn page(self) -> Result<TagPage> {
        let question = Question::Tags(op::Tags {
            book: self.book.id(),
            prefix: self.prefix,
            after: self.after.map(Tag::new).transpose()?,
            limit: self.limit,
            consistency: self.book.consistency(),
        });
        match self.book.session().answer(question, Some(self.book.seen())).await? {
            Answer::Tags(reply) => {
                let tags = reply.tags.into_iter().map(|(tag, seq)| (tag.to_string(), seq)).collect();
                Ok(TagPage { tags, more: reply.more })
            }
            _ => Err(Error::unexpected("not one to listing tags")),
        }
    }
}

impl IntoFuture for Tags {
    type Output = Result<TagPage>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<TagPage>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.page())
    }
}
