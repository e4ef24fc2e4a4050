//! The catalog's operations: books by name.

use boki_log::codec::{Reader, Writer};
use boki_log::{BookId, LogError};
use boki_net::BodyWriter;
use bytes::{BufMut, Bytes};

use crate::{Message, empty_message, kinds};

/// Declares a question that is a book's name. Body: the name, rest, UTF-8.
macro_rules! by_name {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            /// The book's name.
            pub name: String,
        }

        impl Message for $name {
            const KIND: u8 = $kind;

            fn write(&self, body: &mut BodyWriter<'_>) {
                body.fields().put_slice(self.name.as_bytes());
            }

            fn decode(body: &Bytes) -> Result<$name, LogError> {
                let mut reader = Reader::new(body);
                let name = std::str::from_utf8(reader.slice(body.len())?);
                let name = name.map_err(|_| LogError::Malformed { reason: "a text is not UTF-8" })?.to_owned();
                Ok($name { name })
            }
        }
    };
}

by_name!(
    /// Asks for the book of a name; answered by [`BookIs`].
    BookOpen,
    kinds::BOOK_OPEN
);
by_name!(
    /// Makes a book; answered by [`BookIs`].
    BookCreate,
    kinds::BOOK_CREATE
);
by_name!(
    /// Removes a book and everything in it; answered by [`BookRemoved`].
    BookRemove,
    kinds::BOOK_REMOVE
);

/// A book.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | id | u64 |
/// | 8 | created | u64, microseconds since 1970 |
/// | 16 | name | name |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookIs {
    /// Its number, by which operations name it.
    pub id: BookId,
    /// When it was made, microseconds since 1970.
    pub created_us: u64,
    /// Its name.
    pub name: String,
}

impl BookIs {
    fn read(reader: &mut Reader<'_>) -> Result<BookIs, LogError> {
        let id = BookId(reader.u64()?);
        let created_us = reader.u64()?;
        Ok(BookIs { id, created_us, name: reader.short_str()?.to_owned() })
    }
}

impl Message for BookIs {
    const KIND: u8 = kinds::BOOK_IS;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u64_le(self.id.0);
        out.put_u64_le(self.created_us);
        out.put_short_str(&self.name);
    }

    fn decode(body: &Bytes) -> Result<BookIs, LogError> {
        let mut reader = Reader::new(body);
        let book = BookIs::read(&mut reader)?;
        reader.finish()?;
        Ok(book)
    }
}

/// Asks for all books; answered by [`BooksAre`]. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookList;

empty_message!(BookList, kinds::BOOK_LIST);

/// All books. Body: u32, how many; then each as in [`BookIs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BooksAre {
    /// By name.
    pub books: Vec<BookIs>,
}

impl Message for BooksAre {
    const KIND: u8 = kinds::BOOKS_ARE;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_u32_le(self.books.len() as u32);
        for book in &self.books {
            book.write(body);
        }
    }

    fn decode(body: &Bytes) -> Result<BooksAre, LogError> {
        let mut reader = Reader::new(body);
        let count = reader.u32()?;
        let mut books = Vec::with_capacity((count as usize).min(reader.remaining() / 17));
        for _ in 0..count {
            books.push(BookIs::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(BooksAre { books })
    }
}

/// The book is gone. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookRemoved;

empty_message!(BookRemoved, kinds::BOOK_REMOVED);
