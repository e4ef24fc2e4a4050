//! The catalog: the book whose records name all other books. A book is created by a conditional append under the tag of
//! its name, so two creators cannot both succeed, and its number is the seq of that record, so it is never reused.

use boki_log::batch::{Condition, ReservedTags};
use boki_log::op::{Ack, Append, Consistency, Tags};
use boki_log::{Batch, BatchBuilder, BookId, LogError, Seq, Tag};

use crate::node::Node;

/// Longest book name, in bytes.
const MAX_NAME_BYTES: usize = 128;
const PREFIX: &str = "~book/";

/// A book as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Book {
    /// Its number.
    pub id: BookId,
    /// Its name.
    pub name: String,
    /// When it was made, microseconds since 1970.
    pub created_us: u64,
}

impl Node {
    /// The book of that name.
    ///
    /// # Errors
    /// [`LogError::BookNotFound`], [`LogError::InvalidBookName`].
    pub async fn book(&self, name: &str) -> Result<Book, LogError> {
        self.find_book(name)
    }

    /// The book of that name, as this node knows it now.
    ///
    /// # Errors
    /// [`LogError::BookNotFound`], [`LogError::InvalidBookName`].
    pub fn find_book(&self, name: &str) -> Result<Book, LogError> {
        let tag = tag_of(name)?;
        let (id, created_us) = self
            .with_index(|index| {
                let seq = index.tail(BookId::CATALOG, Some(&tag)).ok()?;
                index.place(seq).ok()?.map(|(_, _, time_us)| (BookId(seq.0), time_us))
            })
            .ok_or_else(|| LogError::BookNotFound { name: name.to_owned() })?;
        Ok(Book { id, name: name.to_owned(), created_us })
    }

    /// Every book, by name.
    ///
    /// # Errors
    /// [`LogError::ShuttingDown`].
    pub async fn books(&self) -> Result<Vec<Book>, LogError> {
        let mut books = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .tags(Tags {
                    book: BookId::CATALOG,
                    prefix: PREFIX.to_owned(),
                    after: after.take(),
                    limit: 1000,
                    consistency: Consistency::Any,
                })
                .await?;
            after = page.tags.last().map(|(tag, _)| tag.clone());
            books.extend(
                page.tags.iter().filter_map(|(tag, _)| self.find_book(tag.as_str().strip_prefix(PREFIX)?).ok()),
            );
            if !page.more {
                return Ok(books);
            }
        }
    }

    /// Makes a book.
    ///
    /// # Errors
    /// [`LogError::BookExists`], [`LogError::InvalidBookName`], and what an append can fail with.
    pub async fn create_book(&self, name: &str) -> Result<Book, LogError> {
        let tag = tag_of(name)?;
        let batch = BatchBuilder::new(BookId::CATALOG)
            .condition(Condition::Tail { tag: tag.clone(), seq: Seq::NONE })
            .record(vec![tag], name.as_bytes().to_vec())
            .build()?;
        match self.append(library(batch)).await {
            Ok(_) => {
                let book = self.find_book(name)?;
                self.rules_changed(book.clone());
                Ok(book)
            }
            Err(LogError::ConditionFailed { .. }) => Err(LogError::BookExists { name: name.to_owned() }),
            Err(error) => Err(error),
        }
    }

    /// Removes a book and everything in it. Its number is never used again; its name may be.
    ///
    /// # Errors
    /// [`LogError::BookNotFound`], and what an append can fail with.
    pub async fn remove_book(&self, name: &str) -> Result<(), LogError> {
        let book = self.find_book(name)?;
        // First the records, then the name: after a crash in between the name is still there to remove again.
        match self.append(library(BatchBuilder::trim(book.id, None, Seq::MAX)?)).await {
            Ok(_) | Err(LogError::BookNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.append(library(BatchBuilder::trim(BookId::CATALOG, Some(tag_of(name)?), Seq(book.id.0 + 1))?)).await?;
        self.remove_rules(book.id).await?;
        if let Err(error) = self.blobs().remove_of(book.id).await {
            tracing::warn!(book = name, %error, "what lay beside the log of a removed book could not be removed");
        }
        Ok(())
    }
}

fn library(batch: Batch) -> Append {
    Append { batch, ack: Ack::Ordered, reserved: ReservedTags::Allowed }
}

fn tag_of(name: &str) -> Result<Tag, LogError> {
    let invalid = |reason| Err(LogError::InvalidBookName { name: name.to_owned(), reason });
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return invalid("a name has 1 to 128 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
        return invalid("a name consists of letters, digits, '_', '-' and '.'");
    }
    Tag::new(format!("{PREFIX}{name}"))
}
