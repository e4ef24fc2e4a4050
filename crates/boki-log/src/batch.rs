//! The batch: the unit of an append. A client encodes it once; the same bytes cross the wire, lie on the
//! disk and stay in the caches.
//!
//! All integers are little-endian.
//!
//! | offset | field | |
//! |---|---|---|
//! | 0 | length | u32, of the whole batch |
//! | 4 | checksum | u32, CRC-32C of everything from offset 8 on |
//! | 8 | book | u64 |
//! | 16 | append id | 16 bytes, zero = none |
//! | 32 | kind | u8: 1 records, 2 trim |
//! | 33 | flags | u8, zero |
//! | 34 | conditions | u16, how many |
//! | 36 | raises | u16, how many |
//! | 38 | | u16, zero |
//! | 40 | records | u32, how many, at least 1 |
//! | 44 | the conditions | each: kind u8 (1 tail, 2 fence), tag, u64 |
//! | | the raises | each: tag, epoch u64 |
//! | | the records | each: length u32 of what follows, number of tags u8, the tags, payload |
//!
//! A tag is a length (u8) and that many bytes of UTF-8. A trim has one record, with no tag (the whole
//! book) or one, whose payload is the u64 seq below which everything goes.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Writer, crc32c};
use crate::error::LogError;
use crate::ids::{AppendId, BookId, Seq};
use crate::limits::Limits;
use crate::tag::{self, Tag};

/// Bytes of a batch before its conditions.
pub const HEADER_BYTES: usize = 44;

const KIND_RECORDS: u8 = 1;
const KIND_TRIM: u8 = 2;
const CONDITION_TAIL: u8 = 1;
const CONDITION_FENCE: u8 = 2;

/// Something that must hold at a batch's place in the order, else the batch is void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The last record under `tag` has this seq (0: there is none).
    Tail {
        /// The tag.
        tag: Tag,
        /// The seq.
        seq: Seq,
    },
    /// The fence of `tag` is at most `epoch`.
    Fence {
        /// The tag.
        tag: Tag,
        /// The epoch of the writer.
        epoch: u64,
    },
}

/// What a batch is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It adds records.
    Records,
    /// It trims the book, or one tag of it, below a seq.
    Trim {
        /// The tag; `None`: every record of the book.
        tag: Option<Tag>,
        /// The first seq that stays.
        below: Seq,
    },
}

/// An encoded batch whose every field has been checked, so that reading it cannot fail.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    /// Offset of the first raise.
    raises_at: u32,
    /// Offset of the first record.
    records_at: u32,
    extent: Extent,
}

/// What is asked about a batch's records again and again, found when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    count: u32,
    /// Length of the longest payload, in bytes.
    longest: u32,
    /// Most tags on one record.
    most_tags: u8,
    /// A tag of one of them is reserved.
    reserved: bool,
}

impl Extent {
    fn new(count: u32) -> Extent {
        Extent { count, longest: 0, most_tags: 0, reserved: false }
    }

    fn note_payload(&mut self, bytes: usize, tags: u8) {
        self.longest = self.longest.max(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.most_tags = self.most_tags.max(tags);
    }

    fn note_tag(&mut self, tag: &str) {
        self.reserved |= tag.starts_with(tag::RESERVED_PREFIX);
    }
}

impl Batch {
    /// Takes the batch that `bytes` is, checking its structure and checksum, not any limit.
    ///
    /// # Errors
    /// [`LogError::Malformed`] or [`LogError::InvalidTag`].
    pub fn decode(bytes: Bytes) -> Result<Batch, LogError> {
        let malformed = |reason| Err(LogError::Malformed { reason });
        let mut reader = Reader::new(&bytes);
        if reader.u32()? as usize != bytes.len() {
            return malformed("its length field is wrong");
        }
        let checksum = reader.u32()?;
        if crc32c(bytes.get(8..).unwrap_or_default()) != checksum {
            return malformed("its checksum does not match");
        }
        reader.u64()?;
        reader.array::<16>()?;
        let kind = reader.u8()?;
        if kind != KIND_RECORDS && kind != KIND_TRIM {
            return malformed("an unknown kind of batch");
        }
        if reader.u8()? != 0 {
            return malformed("unknown flags");
        }
        let (conditions, raises) = (reader.u16()?, reader.u16()?);
        if reader.u16()? != 0 {
            return malformed("a reserved field is set");
        }
        let records = reader.u32()?;
        if records == 0 || (kind == KIND_TRIM && records != 1) {
            return malformed("a wrong number of records");
        }
        for _ in 0..conditions {
            let condition = reader.u8()?;
            if condition != CONDITION_TAIL && condition != CONDITION_FENCE {
                return malformed("an unknown kind of condition");
            }
            tag::check(reader.short_str()?)?;
            reader.u64()?;
        }
        let raises_at = reader.offset() as u32;
        for _ in 0..raises {
            tag::check(reader.short_str()?)?;
            reader.u64()?;
        }
        let records_at = reader.offset() as u32;
        let mut extent = Extent::new(records);
        for _ in 0..records {
            let body_len = reader.u32()? as usize;
            let mut body = Reader::at(&bytes, reader.offset());
            reader.slice(body_len)?;
            let tags = body.u8()?;
            if kind == KIND_TRIM && tags > 1 {
                return malformed("a trim names more than one tag");
            }
            let mut previous: Option<&str> = None;
            for _ in 0..tags {
                let tag = body.short_str()?;
                tag::check(tag)?;
                if previous.is_some_and(|previous| previous >= tag) {
                    return malformed("a record's tags are not sorted, or one is there twice");
                }
                extent.note_tag(tag);
                previous = Some(tag);
            }
            let Some(payload) = reader.offset().checked_sub(body.offset()) else {
                return malformed("a record's tags are longer than the record");
            };
            if kind == KIND_TRIM && payload != 8 {
                return malformed("a trim without its seq");
            }
            extent.note_payload(payload, tags);
        }
        reader.finish()?;
        Ok(Batch { raises_at, records_at, extent, bytes })
    }

    /// That the batch keeps to `limits` and carries no reserved tag (unless `reserved` says it may).
    ///
    /// # Errors
    /// [`LogError::TooLarge`] or [`LogError::ReservedTag`].
    pub fn check(&self, limits: &Limits, reserved: ReservedTags) -> Result<(), LogError> {
        within("batch in bytes", self.bytes.len(), limits.batch_bytes)?;
        within("records in a batch", self.record_count() as usize, limits.batch_records)?;
        let conditions = usize::from(self.u16_at(34)) + usize::from(self.u16_at(36));
        within("conditions on a batch", conditions, limits.batch_conditions)?;
        within("record payload in bytes", self.extent.longest as usize, limits.record_bytes)?;
        within("tags on a record", usize::from(self.extent.most_tags), limits.record_tags)?;
        if self.extent.reserved {
            for record in self.records() {
                if reserved == ReservedTags::Allowed && is_mixed(&record) {
                    let reason = "a record has reserved tags or others, not both";
                    return Err(LogError::InvalidTag { reason });
                }
                if reserved == ReservedTags::Refused
                    && let Some(tag) = record.tags().find(|tag| tag.starts_with(tag::RESERVED_PREFIX))
                {
                    return Err(LogError::ReservedTag { tag: Tag::new(tag)? });
                }
            }
        }
        Ok(())
    }

    /// The encoding.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The book it is for.
    #[must_use]
    pub fn book(&self) -> BookId {
        BookId(Reader::at(&self.bytes, 8).u64().unwrap_or_default())
    }

    /// Its id, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<AppendId> {
        let id = Reader::at(&self.bytes, 16).array().unwrap_or_default();
        (id != [0; 16]).then_some(AppendId(id))
    }

    /// What it is for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if self.bytes.get(32) != Some(&KIND_TRIM) {
            return Kind::Records;
        }
        let (mut tag, mut below) = (None, 0);
        if let Some(record) = self.records().next() {
            tag = record.tags().next().and_then(|tag| Tag::new(tag).ok());
            below = record.payload().try_into().map(u64::from_le_bytes).unwrap_or_default();
        }
        Kind::Trim { tag, below: Seq(below) }
    }

    /// How many records it has, and so how many seqs it takes; at least 1.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.extent.count
    }

    /// Whether it has any condition (a raise is one: it may be refused).
    #[must_use]
    pub fn is_conditional(&self) -> bool {
        self.u16_at(34) != 0 || self.u16_at(36) != 0
    }

    /// Its conditions, in the order the client gave them.
    pub fn conditions(&self) -> impl Iterator<Item = Condition> + '_ {
        let mut reader = Reader::at(&self.bytes, HEADER_BYTES);
        (0..self.u16_at(34)).map_while(move |_| {
            let kind = reader.u8().ok()?;
            let tag = Tag::new(reader.short_str().ok()?).ok()?;
            let value = reader.u64().ok()?;
            Some(if kind == CONDITION_TAIL {
                Condition::Tail { tag, seq: Seq(value) }
            } else {
                Condition::Fence { tag, epoch: value }
            })
        })
    }

    /// The fences it raises: tag and epoch. Raising one that is higher already makes the batch void.
    pub fn raises(&self) -> impl Iterator<Item = (Tag, u64)> + '_ {
        let mut reader = Reader::at(&self.bytes, self.raises_at as usize);
        (0..self.u16_at(36)).map_while(move |_| Some((Tag::new(reader.short_str().ok()?).ok()?, reader.u64().ok()?)))
    }

    /// Its records' bodies, in order.
    pub fn records(&self) -> impl Iterator<Item = RecordBody> + '_ {
        let mut reader = Reader::at(&self.bytes, self.records_at as usize);
        (0..self.record_count()).map_while(move |_| {
            let len = reader.u32().ok()? as usize;
            Some(RecordBody(reader.bytes(len).ok()?))
        })
    }

    /// Where its records' bodies lie in [`Batch::bytes`]: offset and length of each, in order.
    pub fn record_spans(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut reader = Reader::at(&self.bytes, self.records_at as usize);
        (0..self.record_count()).map_while(move |_| {
            let len = reader.u32().ok()?;
            let at = reader.offset() as u32;
            reader.slice(len as usize).ok()?;
            Some((at, len))
        })
    }

    fn u16_at(&self, offset: usize) -> u16 {
        Reader::at(&self.bytes, offset).u16().unwrap_or_default()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} records, {} bytes, {})", self.record_count(), self.bytes.len(), self.book())
    }
}

/// Whether a batch may carry tags that begin with `~`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservedTags {
    /// No: it comes from a user.
    Refused,
    /// Yes: it comes from one of Boki's own libraries.
    Allowed,
}

/// Whether it has reserved tags and others.
fn is_mixed(record: &RecordBody) -> bool {
    let reserved = record.tags().filter(|tag| tag.starts_with(tag::RESERVED_PREFIX)).count();
    reserved != 0 && reserved != record.tag_count()
}

fn within(what: &'static str, actual: usize, limit: usize) -> Result<(), LogError> {
    if actual <= limit { Ok(()) } else { Err(LogError::TooLarge { what, actual: actual as u64, limit: limit as u64 }) }
}

/// A record as a batch carries it: its tags and its payload, without a seq.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordBody(Bytes);

impl RecordBody {
    /// Takes a record body apart.
    ///
    /// # Errors
    /// [`LogError::Malformed`] or [`LogError::InvalidTag`].
    pub fn decode(bytes: Bytes) -> Result<RecordBody, LogError> {
        let mut reader = Reader::new(&bytes);
        for _ in 0..reader.u8()? {
            tag::check(reader.short_str()?)?;
        }
        Ok(RecordBody(bytes))
    }

    /// The encoding: number of tags, tags, payload.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Its tags, sorted, each once.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        let mut reader = Reader::at(&self.0, 1);
        (0..self.tag_count()).map_while(move |_| reader.short_str().ok())
    }

    /// How many tags it has.
    #[must_use]
    pub fn tag_count(&self) -> usize {
        self.0.first().copied().map_or(0, usize::from)
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.0.get(self.payload_at()..).unwrap_or_default()
    }

    /// Its payload, sharing the body's memory.
    #[must_use]
    pub fn payload_bytes(&self) -> Bytes {
        self.0.slice(self.payload_at()..)
    }

    fn payload_at(&self) -> usize {
        let mut reader = Reader::at(&self.0, 1);
        for _ in 0..self.tag_count() {
            if reader.short_str().is_err() {
                break;
            }
        }
        reader.offset()
    }
}

impl fmt::Debug for RecordBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} bytes", self.tags().collect::<Vec<_>>(), self.payload().len())
    }
}

/// A record as a read returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the order.
    pub seq: Seq,
    /// When it was ordered: microseconds since 1970, the same for every reader, never falling as seq rises.
    pub time_us: u64,
    /// Tags and payload.
    pub body: RecordBody,
    /// Aux data, where this node has any.
    pub aux: Option<Bytes>,
}

/// Builds a [`Batch`].
#[derive(Debug)]
pub struct BatchBuilder {
    book: BookId,
    id: Option<AppendId>,
    conditions: Vec<Condition>,
    raises: Vec<(Tag, u64)>,
    records: Vec<(Vec<Tag>, Bytes)>,
}

impl BatchBuilder {
    /// A batch for `book`, without records as yet.
    #[must_use]
    pub fn new(book: BookId) -> BatchBuilder {
        BatchBuilder { book, id: None, conditions: Vec::new(), raises: Vec::new(), records: Vec::new() }
    }

    /// Gives it an id: repeating the append with the same id adds nothing.
    #[must_use]
    pub fn id(mut self, id: AppendId) -> BatchBuilder {
        self.id = Some(id);
        self
    }

    /// Adds a condition.
    #[must_use]
    pub fn condition(mut self, condition: Condition) -> BatchBuilder {
        self.conditions.push(condition);
        self
    }

    /// Raises the fence of `tag` to `epoch`; void if the fence is above `epoch` already.
    #[must_use]
    pub fn raise(mut self, tag: Tag, epoch: u64) -> BatchBuilder {
        self.raises.push((tag, epoch));
        self
    }

    /// Adds a record. Tags that are there twice are stored once.
    #[must_use]
    pub fn record(mut self, mut tags: Vec<Tag>, payload: impl Into<Bytes>) -> BatchBuilder {
        tags.sort_unstable();
        tags.dedup();
        self.records.push((tags, payload.into()));
        self
    }

    /// Encodes it.
    ///
    /// # Errors
    /// [`LogError::InvalidArgument`] without a record; [`LogError::TooLarge`] where a count or length does not
    /// fit its field in the encoding (the limits of a server are tighter, and checked there).
    pub fn build(self) -> Result<Batch, LogError> {
        if self.records.is_empty() {
            return Err(LogError::InvalidArgument { argument: "records", reason: "a batch has at least one" });
        }
        self.encode(KIND_RECORDS)
    }

    /// Encodes a trim of `book`, or of one tag of it, below `below`.
    ///
    /// # Errors
    /// None in practice; the signature is [`BatchBuilder::build`]'s.
    pub fn trim(book: BookId, tag: Option<Tag>, below: Seq) -> Result<Batch, LogError> {
        let payload = Bytes::copy_from_slice(&below.0.to_le_bytes());
        BatchBuilder::new(book).record(tag.into_iter().collect(), payload).encode(KIND_TRIM)
    }

    fn encode(self, kind: u8) -> Result<Batch, LogError> {
        within("conditions on a batch", self.conditions.len().max(self.raises.len()), usize::from(u16::MAX))?;
        let payload_bytes: usize = self.records.iter().map(|(_, payload)| payload.len() + 64).sum();
        within("batch in bytes", payload_bytes, 1 << 30)?;
        let mut out = BytesMut::with_capacity(HEADER_BYTES + payload_bytes);
        out.put_u64_le(0); // length and checksum, set below
        out.put_u64_le(self.book.0);
        out.put_slice(&self.id.map_or([0; 16], |id| id.0));
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u16_le(self.conditions.len() as u16);
        out.put_u16_le(self.raises.len() as u16);
        out.put_u16_le(0);
        out.put_u32_le(self.records.len() as u32);
        for condition in &self.conditions {
            let (kind, tag, value) = match condition {
                Condition::Tail { tag, seq } => (CONDITION_TAIL, tag, seq.0),
                Condition::Fence { tag, epoch } => (CONDITION_FENCE, tag, *epoch),
            };
            out.put_u8(kind);
            out.put_short_str(tag.as_str());
            out.put_u64_le(value);
        }
        let raises_at = out.len() as u32;
        for (tag, epoch) in &self.raises {
            out.put_short_str(tag.as_str());
            out.put_u64_le(*epoch);
        }
        let records_at = out.len() as u32;
        let mut extent = Extent::new(self.records.len() as u32);
        for (tags, payload) in &self.records {
            within("tags on a record", tags.len(), usize::from(u8::MAX))?;
            let tags_len: usize = tags.iter().map(|tag| 1 + tag.as_str().len()).sum();
            out.put_u32_le((1 + tags_len + payload.len()) as u32);
            out.put_u8(tags.len() as u8);
            for tag in tags {
                extent.note_tag(tag.as_str());
                out.put_short_str(tag.as_str());
            }
            extent.note_payload(payload.len(), tags.len() as u8);
            out.put_slice(payload);
        }
        let len = out.len() as u32;
        let checksum = crc32c(&out[8..]);
        out[..4].copy_from_slice(&len.to_le_bytes());
        out[4..8].copy_from_slice(&checksum.to_le_bytes());
        Ok(Batch { bytes: out.freeze(), raises_at, records_at, extent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(text: &str) -> Tag {
        Tag::new(text).unwrap()
    }

    fn sample() -> Batch {
        BatchBuilder::new(BookId(9))
            .id(AppendId([7; 16]))
            .condition(Condition::Tail { tag: tag("user/42"), seq: Seq(5) })
            .condition(Condition::Fence { tag: tag("lock"), epoch: 3 })
            .raise(tag("lock"), 4)
            .record(vec![tag("b"), tag("a"), tag("b")], &b"hello"[..])
            .record(vec![], &b""[..])
            .build()
            .unwrap()
    }

    #[test]
    fn what_was_built_is_what_is_read_after_decoding() {
        let batch = Batch::decode(sample().bytes().clone()).unwrap();
        assert_eq!(batch, sample());
        assert_eq!(batch.book(), BookId(9));
        assert_eq!(batch.id(), Some(AppendId([7; 16])));
        assert_eq!(batch.kind(), Kind::Records);
        assert_eq!(batch.conditions().count(), 2);
        assert_eq!(batch.raises().collect::<Vec<_>>(), [(tag("lock"), 4)]);
        let records: Vec<_> = batch.records().collect();
        assert_eq!(records[0].tags().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(records[0].payload(), b"hello");
        assert_eq!(records[1].payload(), b"");
        for ((at, len), record) in batch.record_spans().zip(records) {
            assert_eq!(batch.bytes().slice(at as usize..(at + len) as usize), record.bytes());
        }
    }

    #[test]
    fn a_trim_says_its_tag_and_seq() {
        let trim = BatchBuilder::trim(BookId(1), Some(tag("x")), Seq(77)).unwrap();
        let trim = Batch::decode(trim.bytes().clone()).unwrap();
        assert_eq!(trim.kind(), Kind::Trim { tag: Some(tag("x")), below: Seq(77) });
        let trim = BatchBuilder::trim(BookId(1), None, Seq(78)).unwrap();
        assert_eq!(trim.kind(), Kind::Trim { tag: None, below: Seq(78) });
    }

    #[test]
    fn no_truncation_or_single_flipped_bit_decodes() {
        let bytes = sample().bytes().clone();
        for len in 0..bytes.len() {
            assert!(Batch::decode(bytes.slice(..len)).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Batch::decode(damaged.into()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn limits_are_inclusive() {
        let limits = Limits { record_bytes: 5, record_tags: 2, ..Limits::default() };
        assert_eq!(sample().check(&limits, ReservedTags::Refused), Ok(()));
        let tight = Limits { record_bytes: 4, ..Limits::default() };
        assert!(matches!(sample().check(&tight, ReservedTags::Refused), Err(LogError::TooLarge { actual: 5, .. })));
        let tight = Limits { record_tags: 1, ..limits };
        assert!(matches!(sample().check(&tight, ReservedTags::Refused), Err(LogError::TooLarge { actual: 2, .. })));
    }

    #[test]
    fn reserved_tags_are_refused_to_users_only() {
        let batch = BatchBuilder::new(BookId(1)).record(vec![tag("~call/1")], &b"x"[..]).build().unwrap();
        let limits = Limits::default();
        assert!(matches!(batch.check(&limits, ReservedTags::Refused), Err(LogError::ReservedTag { .. })));
        assert_eq!(batch.check(&limits, ReservedTags::Allowed), Ok(()));
        let mixed = BatchBuilder::new(BookId(1)).record(vec![tag("a"), tag("~b")], &b"x"[..]).build().unwrap();
        assert!(matches!(mixed.check(&limits, ReservedTags::Allowed), Err(LogError::InvalidTag { .. })));
    }
}
