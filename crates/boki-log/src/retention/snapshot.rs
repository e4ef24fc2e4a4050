//! Retention as bytes, for a checkpoint. Little-endian; a list is its length and its items.

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Writer};
use crate::error::LogError;
use crate::ids::{BookId, Seq};
use crate::tag::Tag;

use super::Retention;
use super::ledger::{Ledger, Mark};
use super::rule::{Keep, Rule, Scope};
use super::watch::Watch;

/// First field of a snapshot: changes with its layout.
const VERSION: u32 = 1;

impl Retention {
    /// Everything as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u32_le(VERSION);
        out.put_u64_le(self.books.len() as u64);
        for (id, watch) in &self.books {
            out.put_u64_le(id.0);
            put_watch(&mut out, watch);
        }
        out.freeze()
    }

    /// Takes a snapshot apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`] if `bytes` is not a whole snapshot of this version.
    pub fn restore(bytes: &Bytes) -> Result<Retention, LogError> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != VERSION {
            return Err(LogError::Malformed { reason: "a retention snapshot of another version" });
        }
        let mut retention = Retention::default();
        for _ in 0..reader.u64()? {
            retention.books.insert(BookId(reader.u64()?), take_watch(&mut reader)?);
        }
        reader.finish()?;
        let books: Vec<BookId> = retention.books.keys().copied().collect();
        books.into_iter().for_each(|book| retention.look_at_all(book));
        Ok(retention)
    }
}

/// Rules as bytes, for the record that sets them.
#[must_use]
pub fn encode_rules(rules: &[Rule]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u32_le(VERSION);
    put_rules(&mut out, rules);
    out.freeze()
}

/// What [`encode_rules`] made.
///
/// # Errors
/// [`LogError::Malformed`].
pub fn decode_rules(bytes: &Bytes) -> Result<Vec<Rule>, LogError> {
    let mut reader = Reader::new(bytes);
    if reader.u32()? != VERSION {
        return Err(LogError::Malformed { reason: "retention rules of another version" });
    }
    let rules = take_rules(&mut reader)?;
    reader.finish()?;
    Ok(rules)
}

fn put_rules(out: &mut BytesMut, rules: &[Rule]) {
    out.put_u32_le(rules.len() as u32);
    for Rule { scope, keep } in rules {
        match scope {
            Scope::Book => out.put_u8(0),
            Scope::Tag(tag) => {
                out.put_u8(1);
                out.put_short_str(tag.as_str());
            }
            Scope::Prefix(prefix) => {
                out.put_u8(2);
                out.put_short_str(prefix);
            }
        }
        // A bound is never 0.
        for bound in [keep.age_us, keep.records, keep.bytes] {
            out.put_u64_le(bound.unwrap_or_default());
        }
    }
}

fn put_watch(out: &mut BytesMut, watch: &Watch) {
    put_rules(out, &watch.rules);
    out.put_u64_le(watch.since.0);
    out.put_u8(u8::from(watch.is_whole));
    out.put_u64_le(watch.floor.0);
    out.put_u64_le(watch.uncounted);
    put_ledger(out, &watch.book);
    out.put_u64_le(watch.tags.len() as u64);
    for (tag, ledger) in &watch.tags {
        out.put_short_str(tag.as_str());
        put_ledger(out, ledger);
    }
}

fn take_rules(reader: &mut Reader<'_>) -> Result<Vec<Rule>, LogError> {
    let mut rules = Vec::new();
    for _ in 0..reader.u32()? {
        let scope = match reader.u8()? {
            0 => Scope::Book,
            1 => Scope::Tag(Tag::new(reader.short_str()?)?),
            2 => Scope::Prefix(reader.short_str()?.to_owned()),
            _ => return Err(LogError::Malformed { reason: "an unknown scope of a retention rule" }),
        };
        let mut bound = || reader.u64().map(|bound| (bound != 0).then_some(bound));
        let keep = Keep { age_us: bound()?, records: bound()?, bytes: bound()? };
        rules.push(Rule { scope, keep });
    }
    Ok(rules)
}

fn take_watch(reader: &mut Reader<'_>) -> Result<Watch, LogError> {
    let rules = take_rules(reader)?;
    let mut watch = Watch::new(rules, Seq(reader.u64()?));
    watch.is_whole = reader.u8()? != 0;
    watch.floor = Seq(reader.u64()?);
    watch.uncounted = reader.u64()?;
    watch.book = take_ledger(reader)?;
    for _ in 0..reader.u64()? {
        let tag = Tag::new(reader.short_str()?)?;
        watch.tags.insert(tag, take_ledger(reader)?);
    }
    Ok(watch)
}

fn put_ledger(out: &mut BytesMut, ledger: &Ledger) {
    out.put_u64_le(ledger.end.0);
    out.put_u32_le(ledger.marks.len() as u32);
    for mark in &ledger.marks {
        for field in [mark.first.0, mark.oldest_us, mark.newest_us, mark.records, mark.bytes] {
            out.put_u64_le(field);
        }
    }
}

fn take_ledger(reader: &mut Reader<'_>) -> Result<Ledger, LogError> {
    let mut ledger = Ledger { end: Seq(reader.u64()?), ..Ledger::default() };
    for _ in 0..reader.u32()? {
        let mark = Mark {
            first: Seq(reader.u64()?),
            oldest_us: reader.u64()?,
            newest_us: reader.u64()?,
            records: reader.u64()?,
            bytes: reader.u64()?,
        };
        ledger.records = ledger.records.saturating_add(mark.records);
        ledger.bytes = ledger.bytes.saturating_add(mark.bytes);
        ledger.marks.push_back(mark);
    }
    Ok(ledger)
}
