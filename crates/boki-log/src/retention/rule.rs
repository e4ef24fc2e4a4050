//! What is to be kept of a book, and of which of its records.

use std::fmt;

use crate::error::LogError;
use crate::tag::Tag;

/// Most rules of one book.
pub const MAX_RULES: usize = 64;

/// How much is kept; whichever bound is reached first lets the oldest go. At least one is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Records younger than this, in microseconds.
    pub age_us: Option<u64>,
    /// The newest so many.
    pub records: Option<u64>,
    /// The newest whose tags and payloads have so many bytes together.
    pub bytes: Option<u64>,
}

/// The grain of a [`Keep`]: nothing that it keeps is ever trimmed, and what it does not keep may stay by this much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slack {
    /// So much longer, in microseconds.
    pub age_us: u64,
    /// So many records more.
    pub records: u64,
    /// So many bytes more.
    pub bytes: u64,
}

impl Keep {
    /// About a 64th of each bound: a trim costs a record of its own, so one must be worth it.
    #[must_use]
    pub fn slack(&self) -> Slack {
        Slack {
            age_us: (self.age_us.unwrap_or_default() / 64).max(10_000),
            records: (self.records.unwrap_or_default() / 64).max(64),
            bytes: (self.bytes.unwrap_or_default() / 64).max(64 << 10),
        }
    }
}

/// Of which records a rule speaks. Never of those with reserved tags: what Boki's own libraries keep, they trim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All of the book.
    Book,
    /// Those under one tag.
    Tag(Tag),
    /// Of every tag that begins so, those under it: each tag by itself.
    Prefix(String),
}

impl Scope {
    /// The scope in writing: a tag, or what tags begin with and `*`; `None`: the book.
    ///
    /// # Errors
    /// [`LogError::InvalidTag`], [`LogError::ReservedTag`].
    pub fn parse(text: Option<&str>) -> Result<Scope, LogError> {
        let Some(text) = text else { return Ok(Scope::Book) };
        let tag = Tag::new(text)?;
        if tag.is_reserved() {
            return Err(LogError::ReservedTag { tag });
        }
        Ok(text.strip_suffix('*').map_or(Scope::Tag(tag), |prefix| Scope::Prefix(prefix.to_owned())))
    }

    /// How closely it fits `tag`: the closest rule is the tag's. `None`: not at all.
    pub(super) fn fit(&self, tag: &str) -> Option<usize> {
        match self {
            Scope::Book => None,
            Scope::Tag(own) => (own.as_str() == tag).then_some(usize::MAX),
            Scope::Prefix(prefix) => tag.starts_with(prefix.as_str()).then_some(prefix.len()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Book => f.write_str("the book"),
            Scope::Tag(tag) => tag.fmt(f),
            Scope::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// So much is kept of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Of which.
    pub scope: Scope,
    /// How much.
    pub keep: Keep,
}

/// That `rules` can be those of one book.
///
/// # Errors
/// Why not, and the scope of the rule that is wrong.
pub fn check(rules: &[Rule]) -> Result<(), (Option<Scope>, &'static str)> {
    if rules.len() > MAX_RULES {
        return Err((None, "a book has at most 64 rules"));
    }
    for (at, Rule { scope, keep }) in rules.iter().enumerate() {
        let wrong = |reason| Err((Some(scope.clone()), reason));
        if *keep == Keep::default() {
            return wrong("it bounds nothing: it needs an age, a number of records or of bytes");
        }
        if [keep.age_us, keep.records, keep.bytes].contains(&Some(0)) {
            return wrong("a bound of 0 keeps nothing at all: trim instead");
        }
        if rules.iter().take(at).any(|earlier| earlier.scope == *scope) {
            return wrong("there are two rules for the same records");
        }
    }
    Ok(())
}
