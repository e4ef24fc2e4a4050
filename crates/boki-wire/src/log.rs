//! The log's operations and their answers. The types are [`boki_log::op`]'s own: here is their form on the wire.
//!
//! A `position` is what a session read is promised to see, and in an answer what the asker has seen now. Reads
//! carry a consistency (u8: 0 any, 1 session, 2 linearizable); `position` counts only for a session.

use std::time::Duration;

use boki_log::batch::{RecordBody, ReservedTags};
use boki_log::codec::{Reader, Writer};
use boki_log::op::{
    Ack, Append, Appended, Consistency, Direction, Read, Records, Reply, SetAux, Tags, TagsReply, Tail, TailReply,
};
use boki_log::{Batch, BookId, LogError, Position, Record, Seq, Tag};
use boki_net::{BodyWriter, Outbox};
use bytes::{BufMut, Bytes};

use crate::{Message, empty_message, kinds};

/// Length of aux data that is not there.
const NO_AUX: u32 = u32::MAX;

/// Adds a batch.
///
/// | offset | field | |
/// |---|---|---|
/// | 0 | ack | u8: 0 ordered, 1 durable |
/// | 1 | batch | rest: as in [`boki_log::batch`], kept as it is from here to the disk |
///
/// The batch shares the body's memory. Reserved tags never come over the wire.
impl Message for Append {
    const KIND: u8 = kinds::APPEND;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_u8(match self.ack {
            Ack::Ordered => 0,
            Ack::Durable => 1,
        });
        body.put_shared(self.batch.bytes());
        // A batch has its own checksum, and the byte before it is 0 or 1.
        body.checks_itself();
    }

    fn decode(body: &Bytes) -> Result<Append, LogError> {
        let mut reader = Reader::new(body);
        let ack = match reader.u8()? {
            0 => Ack::Ordered,
            1 => Ack::Durable,
            _ => return malformed("an unknown kind of acknowledgement"),
        };
        let batch = Batch::decode(reader.rest())?;
        Ok(Append { batch, ack, reserved: ReservedTags::Refused })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | seq | u64, of the first record; 0 = durable, not yet ordered |
/// | 8 | position | u64 |
/// | 16 | count | u32, records in the batch |
/// | 20 | repeated | u8: 1 if the id had been used before |
impl Message for Appended {
    const KIND: u8 = kinds::APPENDED;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u64_le(self.seq.unwrap_or(Seq::NONE).0);
        out.put_u64_le(self.position.0.0);
        out.put_u32_le(self.count);
        out.put_u8(u8::from(self.repeated));
    }

    fn decode(body: &Bytes) -> Result<Appended, LogError> {
        let mut reader = Reader::new(body);
        let seq = seq(&mut reader)?;
        let position = position(&mut reader)?;
        let count = reader.u32()?;
        let repeated = boolean(&mut reader)?;
        reader.finish()?;
        Ok(Appended { seq: (seq != Seq::NONE).then_some(seq), count, repeated, position })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | book | u64 |
/// | 8 | from | u64; above the largest seq is taken as the largest |
/// | 16 | position | u64 |
/// | 24 | direction | u8: 0 next, 1 prev |
/// | 25 | consistency | u8 |
/// | 26 | | u16, zero |
/// | 28 | limit | u32 |
/// | 32 | wait_ms | u32, 0 = not at all |
/// | 36 | tag | name, empty = every record of the book |
impl Message for Read {
    const KIND: u8 = kinds::READ;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let (consistency, position) = parts(self.consistency);
        let out = body.fields();
        out.put_u64_le(self.book.0);
        out.put_u64_le(self.from.0);
        out.put_u64_le(position);
        out.put_u8(match self.direction {
            Direction::Next => 0,
            Direction::Prev => 1,
        });
        out.put_u8(consistency);
        out.put_u16_le(0);
        out.put_u32_le(self.limit);
        out.put_u32_le(self.wait.map_or(0, millis));
        out.put_short_str(self.tag.as_ref().map_or("", Tag::as_str));
    }

    fn decode(body: &Bytes) -> Result<Read, LogError> {
        let mut reader = Reader::new(body);
        let book = BookId(reader.u64()?);
        let from = Seq(reader.u64()?).min(Seq::MAX);
        let position = position(&mut reader)?;
        let direction = match reader.u8()? {
            0 => Direction::Next,
            1 => Direction::Prev,
            _ => return malformed("an unknown direction"),
        };
        let consistency = consistency(reader.u8()?, position)?;
        if reader.u16()? != 0 {
            return malformed("a reserved field is set");
        }
        let limit = reader.u32()?;
        let wait_ms = reader.u32()?;
        let wait = (wait_ms != 0).then(|| Duration::from_millis(u64::from(wait_ms)));
        let tag = optional_tag(&mut reader)?;
        reader.finish()?;
        Ok(Read { book, tag, from, direction, limit, consistency, wait })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | position | u64 |
/// | 8 | records | u32, how many; then each: |
/// | | seq | u64 |
/// | | time | u64, microseconds since 1970 |
/// | | length | u32, of the record |
/// | | aux length | u32; 2^32-1 = there is none |
/// | | record | number of tags u8, the tags (names), payload |
/// | | aux | |
impl Message for Records {
    const KIND: u8 = kinds::RECORDS;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_u64_le(self.position.0.0);
        body.fields().put_u32_le(self.records.len() as u32);
        for record in &self.records {
            let out = body.fields();
            out.put_u64_le(record.seq.0);
            out.put_u64_le(record.time_us);
            out.put_u32_le(record.body.bytes().len() as u32);
            out.put_u32_le(record.aux.as_ref().map_or(NO_AUX, |aux| aux.len() as u32));
            body.put_shared(record.body.bytes());
            if let Some(aux) = &record.aux {
                body.put_shared(aux);
            }
        }
    }

    fn decode(body: &Bytes) -> Result<Records, LogError> {
        let mut reader = Reader::new(body);
        let position = position(&mut reader)?;
        let count = reader.u32()?;
        let mut records = Vec::with_capacity((count as usize).min(reader.remaining() / 24));
        for _ in 0..count {
            let seq = seq(&mut reader)?;
            let time_us = reader.u64()?;
            let body_len = reader.u32()?;
            let aux_len = reader.u32()?;
            let body = RecordBody::decode(reader.bytes(body_len as usize)?)?;
            let aux = if aux_len == NO_AUX { None } else { Some(reader.bytes(aux_len as usize)?) };
            records.push(Record { seq, time_us, body, aux });
        }
        reader.finish()?;
        Ok(Records { records, position })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | book | u64 |
/// | 8 | position | u64 |
/// | 16 | consistency | u8 |
/// | 17 | tag | name, empty = the whole book |
impl Message for Tail {
    const KIND: u8 = kinds::TAIL;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let (consistency, position) = parts(self.consistency);
        let out = body.fields();
        out.put_u64_le(self.book.0);
        out.put_u64_le(position);
        out.put_u8(consistency);
        out.put_short_str(self.tag.as_ref().map_or("", Tag::as_str));
    }

    fn decode(body: &Bytes) -> Result<Tail, LogError> {
        let mut reader = Reader::new(body);
        let book = BookId(reader.u64()?);
        let position = position(&mut reader)?;
        let consistency = consistency(reader.u8()?, position)?;
        let tag = optional_tag(&mut reader)?;
        reader.finish()?;
        Ok(Tail { book, tag, consistency })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | seq | u64, 0 = empty |
/// | 8 | position | u64 |
impl Message for TailReply {
    const KIND: u8 = kinds::TAIL_IS;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_u64_le(self.seq.0);
        body.fields().put_u64_le(self.position.0.0);
    }

    fn decode(body: &Bytes) -> Result<TailReply, LogError> {
        let mut reader = Reader::new(body);
        let seq = seq(&mut reader)?;
        let position = position(&mut reader)?;
        reader.finish()?;
        Ok(TailReply { seq, position })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | book | u64 |
/// | 8 | position | u64 |
/// | 16 | limit | u32 |
/// | 20 | consistency | u8 |
/// | 21 | after | name, empty = from the first |
/// | | prefix | text |
impl Message for Tags {
    const KIND: u8 = kinds::TAGS;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let (consistency, position) = parts(self.consistency);
        let out = body.fields();
        out.put_u64_le(self.book.0);
        out.put_u64_le(position);
        out.put_u32_le(self.limit);
        out.put_u8(consistency);
        out.put_short_str(self.after.as_ref().map_or("", Tag::as_str));
        out.put_long_bytes(self.prefix.as_bytes());
    }

    fn decode(body: &Bytes) -> Result<Tags, LogError> {
        let mut reader = Reader::new(body);
        let book = BookId(reader.u64()?);
        let position = position(&mut reader)?;
        let limit = reader.u32()?;
        let consistency = consistency(reader.u8()?, position)?;
        let after = optional_tag(&mut reader)?;
        let prefix = reader.long_str()?.to_owned();
        reader.finish()?;
        Ok(Tags { book, prefix, after, limit, consistency })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | position | u64 |
/// | 8 | more | u8: 1 if there are more after these |
/// | 9 | tags | u32, how many; then each: tag name, its last seq u64 |
impl Message for TagsReply {
    const KIND: u8 = kinds::TAGS_ARE;

    fn write(&self, body: &mut BodyWriter<'_>) {
        let out = body.fields();
        out.put_u64_le(self.position.0.0);
        out.put_u8(u8::from(self.more));
        out.put_u32_le(self.tags.len() as u32);
        for (tag, seq) in &self.tags {
            out.put_short_str(tag.as_str());
            out.put_u64_le(seq.0);
        }
    }

    fn decode(body: &Bytes) -> Result<TagsReply, LogError> {
        let mut reader = Reader::new(body);
        let position = position(&mut reader)?;
        let more = boolean(&mut reader)?;
        let count = reader.u32()?;
        let mut tags = Vec::with_capacity((count as usize).min(reader.remaining() / 10));
        for _ in 0..count {
            tags.push((Tag::new(reader.short_str()?)?, seq(&mut reader)?));
        }
        reader.finish()?;
        Ok(TagsReply { tags, more, position })
    }
}

/// | offset | field | |
/// |---|---|---|
/// | 0 | book | u64 |
/// | 8 | seq | u64 |
/// | 16 | aux | rest; empty removes it |
impl Message for SetAux {
    const KIND: u8 = kinds::SET_AUX;

    fn write(&self, body: &mut BodyWriter<'_>) {
        body.fields().put_u64_le(self.book.0);
        body.fields().put_u64_le(self.seq.0);
        body.put_shared(&self.aux);
    }

    fn decode(body: &Bytes) -> Result<SetAux, LogError> {
        let mut reader = Reader::new(body);
        let book = BookId(reader.u64()?);
        let seq = Seq(reader.u64()?).min(Seq::MAX);
        Ok(SetAux { book, seq, aux: reader.rest() })
    }
}

/// The aux data is attached. No fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuxSet;

empty_message!(AuxSet, kinds::AUX_SET);

/// Pushes the answer to an operation to `outbox`, which is for the caller to flush.
pub fn push_reply(outbox: &Outbox, corr: u64, reply: &Reply) {
    match reply {
        Reply::Appended(appended) => appended.push(outbox, corr),
        Reply::Records(records) => records.push(outbox, corr),
        Reply::Tail(tail) => tail.push(outbox, corr),
        Reply::Tags(tags) => tags.push(outbox, corr),
        Reply::AuxSet => AuxSet.push(outbox, corr),
    }
}

pub(crate) fn malformed<T>(reason: &'static str) -> Result<T, LogError> {
    Err(LogError::Malformed { reason })
}

pub(crate) fn position(reader: &mut Reader<'_>) -> Result<Position, LogError> {
    let seq = Seq(reader.u64()?);
    if seq <= Seq::MAX { Ok(Position(seq)) } else { malformed("a position above every seq") }
}

pub(crate) fn boolean(reader: &mut Reader<'_>) -> Result<bool, LogError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => malformed("a yes or no that is neither"),
    }
}

/// Rounded up, so that a short wait is not none.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

fn seq(reader: &mut Reader<'_>) -> Result<Seq, LogError> {
    let seq = Seq(reader.u64()?);
    if seq <= Seq::MAX { Ok(seq) } else { malformed("a seq above every seq") }
}

fn optional_tag(reader: &mut Reader<'_>) -> Result<Option<Tag>, LogError> {
    match reader.short_str()? {
        "" => Ok(None),
        tag => Tag::new(tag).map(Some),
    }
}

fn parts(consistency: Consistency) -> (u8, u64) {
    match consistency {
        Consistency::Any => (0, 0),
        Consistency::Session(position) => (1, position.0.0),
        Consistency::Linearizable => (2, 0),
    }
}

fn consistency(kind: u8, position: Position) -> Result<Consistency, LogError> {
    match kind {
        0 => Ok(Consistency::Any),
        1 => Ok(Consistency::Session(position)),
        2 => Ok(Consistency::Linearizable),
        _ => malformed("an unknown consistency"),
    }
}
