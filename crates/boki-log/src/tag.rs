//! Tags: the names under which a record can be found.

use std::borrow::Borrow;
use std::fmt;

use crate::error::LogError;

/// Longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 255;

/// First character of the tags that Boki's own libraries write. A user's append may not carry one.
pub const RESERVED_PREFIX: char = '~';

/// A tag: 1 to 255 bytes of UTF-8. Tags are ordered byte by byte, so a prefix is a range.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// Takes `text` as a tag.
    ///
    /// # Errors
    /// [`LogError::InvalidTag`] if it is empty or longer than 255 bytes.
    pub fn new(text: impl Into<Box<str>>) -> Result<Tag, LogError> {
        let text = text.into();
        check(&text)?;
        Ok(Tag(text))
    }

    /// The tag's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only Boki's own libraries may append records with this tag.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

/// Whether `text` can be a tag.
pub(crate) fn check(text: &str) -> Result<(), LogError> {
    if text.is_empty() {
        return Err(LogError::InvalidTag { reason: "a tag is never empty" });
    }
    if text.len() > MAX_TAG_BYTES {
        return Err(LogError::InvalidTag { reason: "a tag has at most 255 bytes" });
    }
    Ok(())
}

impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
