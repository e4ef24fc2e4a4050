//! Whatever bytes arrive, decoding gives a message or an error; and what the log says of a failure survives the trip.
#![allow(clippy::unwrap_used)]

use boki_log::batch::{BatchBuilder, ReservedTags};
use boki_log::error::Retry;
use boki_log::{BookId, LogError, Seq, Tag, op};
use boki_net::{Decoder, FrameBuf, HEADER_BYTES};
use boki_wire::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

fn decode_as_everything(body: &Bytes) {
    let _ = Hello::decode(body);
    let _ = HelloOk::decode(body);
    let _ = Ping::decode(body);
    let _ = ErrorReply::decode(body).map(|error| error.to_log_error());
    let _ = <op::Append as Message>::decode(body);
    let _ = <op::Appended as Message>::decode(body);
    let _ = <op::Read as Message>::decode(body);
    let _ = <op::Records as Message>::decode(body);
    let _ = <op::Tail as Message>::decode(body);
    let _ = <op::TailReply as Message>::decode(body);
    let _ = <op::Tags as Message>::decode(body);
    let _ = <op::TagsReply as Message>::decode(body);
    let _ = <op::SetAux as Message>::decode(body);
    let _ = BookOpen::decode(body);
    let _ = BookIs::decode(body);
    let _ = BooksAre::decode(body);
    let _ = Call::decode(body);
    let _ = CallResult::decode(body);
    let _ = CallAccepted::decode(body);
    let _ = CallWait::decode(body);
    let _ = FunctionsAre::decode(body);
}

/// Its frame has no checksum, because the batch has one.
#[test]
fn every_flipped_bit_of_a_batch_on_the_way_is_noticed() {
    let batch = BatchBuilder::new(BookId(7)).record(vec![Tag::new("a").unwrap()], &b"hello"[..]).build().unwrap();
    let append = op::Append { batch, ack: op::Ack::Ordered, reserved: ReservedTags::Refused };
    let mut frames = FrameBuf::new();
    frames.push(op::Append::KIND, 0, 1, |body| append.write(body));
    let sent = frames.into_bytes();
    assert_eq!(sent[16..20], [0; 4], "the frame has none");
    for bit in (HEADER_BYTES + 1) * 8..sent.len() * 8 {
        let mut bytes = sent.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut decoder = Decoder::new(1024);
        decoder.room().extend_from_slice(&bytes);
        let frame = decoder.next_frame().unwrap().unwrap();
        assert!(<op::Append as Message>::decode(&frame.body).is_err(), "bit {bit}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        decode_as_everything(&bytes.into());
    }

    /// Small numbers make plausible lengths and counts, so that this goes deeper than pure noise.
    #[test]
    fn plausible_bytes_are_a_message_or_an_error(bytes in vec(prop_oneof![4 => 0_u8..3, 1 => any::<u8>()], 0..300)) {
        decode_as_everything(&bytes.into());
    }
}

#[test]
fn a_claimed_count_takes_no_memory() {
    let bytes: Bytes = [&[0; 8][..], &[0xff; 4]].concat().into();
    assert!(<op::Records as Message>::decode(&bytes).is_err());
    assert!(BooksAre::decode(&bytes.slice(8..)).is_err());
}

#[test]
fn a_read_from_above_every_seq_is_one_from_the_last() {
    let mut body = vec![0; 37];
    body[8..16].fill(0xff);
    assert_eq!(<op::Read as Message>::decode(&body.clone().into()).unwrap().from, Seq::MAX);
    body[16..24].fill(0xff);
    assert!(<op::Read as Message>::decode(&body.into()).is_err());
}

#[test]
fn an_error_that_a_client_acts_on_comes_back_as_it_was() {
    let tag = Tag::new("user/\u{fc}\"42\"").unwrap();
    for error in [
        LogError::ReservedTag { tag: tag.clone() },
        LogError::BookNotFound { name: "orders".into() },
        LogError::BookExists { name: "orders".into() },
        LogError::NoSuchRecord { seq: Seq(4) },
        LogError::ConditionFailed { tag: tag.clone(), expected: Seq(1), actual: Seq::MAX },
        LogError::Fenced { tag, epoch: 1, fence: u64::MAX },
        LogError::DurableWithConditions,
        LogError::DiskFull,
        LogError::WriteFailed { reason: "EIO".into() },
        LogError::ReadFailed { seq: Seq(9), reason: "checksum".into() },
        LogError::ShuttingDown,
        LogError::IndexUnreadable { reason: "index table 7: damaged".into() },
        LogError::IndexFailed { reason: "index table 7: damaged".into() },
    ] {
        let reply = ErrorReply::from(&error);
        assert_eq!(reply.code, error.code());
        assert_eq!(reply.message, error.to_string());
        assert_eq!(reply.to_log_error(), Some(error));
    }
    let overloaded = ErrorReply::from(&LogError::Overloaded { what: "appends" });
    assert!(matches!(overloaded.to_log_error(), Some(LogError::Overloaded { .. })));
    assert_eq!(overloaded.retry, Retry::Later);
    let other = ErrorReply::from(&LogError::InvalidTag { reason: "a tag is never empty" });
    assert_eq!(other.to_log_error(), None);
}

#[test]
fn unknown_flags_are_refused() {
    let frame = |flags| boki_net::Frame { kind: 1, flags, corr: 0, body: Bytes::new() };
    assert_eq!(check_flags(&frame(0)), Ok(()));
    assert!(check_flags(&frame(1)).is_err());
}
