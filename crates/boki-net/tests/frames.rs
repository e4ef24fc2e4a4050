//! The framing itself: its exact bytes, and that how the bytes arrive never matters.
#![allow(clippy::unwrap_used)]

use boki_net::{Decoder, Frame, FrameBuf, FrameError, HEADER_BYTES, PREAMBLE};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

fn frame(kind: u8, corr: u64, body: impl Into<Bytes>) -> Frame {
    Frame { kind, flags: 0, corr, body: body.into() }
}

fn encode(frames: &[Frame]) -> Bytes {
    let mut buf = FrameBuf::new();
    for frame in frames {
        buf.push_frame(frame);
    }
    buf.into_bytes()
}

/// Feeds `bytes` in pieces of the given sizes (the last one repeats) and collects what comes out.
fn decode(mut decoder: Decoder, mut bytes: &[u8], sizes: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(*sizes.last().unwrap()));
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(sizes.next().unwrap().clamp(1, bytes.len()));
        decoder.room().extend_from_slice(piece);
        decoder.was_read(piece.len());
        bytes = rest;
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn a_frame_has_exactly_these_bytes() {
    let mut buf = FrameBuf::new();
    buf.push_preamble();
    buf.push(7, 1, 0x0102_0304_0506_0708, |body| body.fields().extend_from_slice(b"123456789"));
    buf.push(8, 0, 1, |_| {});
    #[rustfmt::skip]
    let golden: &[u8] = &[
        b'B', b'O', b'K', b'I', 1, 0, 0, 0,
        9, 0, 0, 0, 7, 1, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0x83, 0x92, 0x06, 0xe3, 0, 0, 0, 0,
        b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'9',
        0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(buf.into_bytes(), golden);
    let frames = decode(Decoder::after_preamble(9), golden, &[usize::MAX]).unwrap();
    assert_eq!(frames[0], Frame { kind: 7, flags: 1, corr: 0x0102_0304_0506_0708, body: "123456789".into() });
    assert_eq!(frames[1], frame(8, 1, ""));
}

#[test]
fn a_body_that_checks_itself_has_no_other_checksum() {
    for bytes in [Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100_000])] {
        let mut buf = FrameBuf::new();
        buf.push(7, 0, 1, |body| {
            body.checks_itself();
            body.put_shared(&bytes);
        });
        // The next one has its own again.
        buf.push_frame(&frame(8, 2, "x"));
        let mut encoded = buf.into_bytes().to_vec();
        assert_eq!(encoded[16..20], [0; 4]);
        assert_ne!(encoded[HEADER_BYTES + bytes.len() + 16..][..4], [0; 4]);
        encoded[HEADER_BYTES] ^= 1;
        let frames = decode(Decoder::new(bytes.len()), &encoded, &[usize::MAX]).unwrap();
        assert_eq!(frames.len(), 2, "whether the body is whole is for others to see");
    }
}

#[test]
fn a_body_in_pieces_is_the_same_as_in_one() {
    let (small, large) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100_000]));
    let mut pieces = FrameBuf::new();
    pieces.push(1, 0, 1, |body| body.put_shared(&small));
    pieces.push(2, 0, 2, |body| {
        body.put_shared(&small);
        body.put_shared(&large);
        body.put_shared(&large);
        body.fields().extend_from_slice(b"end");
    });
    pieces.push(3, 0, 3, |body| body.put_shared(&small));
    let whole = [&small[..], &large, &large, b"end"].concat();
    let expected = [frame(1, 1, small.clone()), frame(2, 2, whole), frame(3, 3, small)];
    assert_eq!(decode(Decoder::new(1 << 20), &pieces.into_bytes(), &[1000]).unwrap(), expected);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_header() {
    let bytes = encode(&[frame(1, 1, vec![0; 101])]);
    let refused = decode(Decoder::new(100), &bytes[..HEADER_BYTES], &[usize::MAX]);
    assert_eq!(refused, Err(FrameError::TooLarge { len: 101, limit: 100 }));
    assert_eq!(decode(Decoder::new(101), &bytes, &[usize::MAX]).unwrap().len(), 1);
}

#[test]
fn a_flipped_bit_in_a_body_is_noticed() {
    let mut bytes = encode(&[frame(1, 1, "hello")]).to_vec();
    bytes[HEADER_BYTES + 2] ^= 0x10;
    assert_eq!(decode(Decoder::new(100), &bytes, &[usize::MAX]), Err(FrameError::Checksum));
}

#[test]
fn an_absent_checksum_is_not_checked() {
    let mut bytes = encode(&[frame(1, 1, "hello")]).to_vec();
    bytes[16..20].fill(0);
    assert_eq!(decode(Decoder::new(100), &bytes, &[usize::MAX]).unwrap(), [frame(1, 1, "hello")]);
}

#[test]
fn reserved_fields_must_be_zero() {
    for at in [6, 7, 20, 23] {
        let mut bytes = encode(&[frame(1, 1, "hello")]).to_vec();
        bytes[at] = 1;
        assert_eq!(decode(Decoder::new(100), &bytes, &[usize::MAX]), Err(FrameError::Reserved), "offset {at}");
    }
}

#[test]
fn another_protocol_is_refused_at_its_first_wrong_byte() {
    assert_eq!(decode(Decoder::after_preamble(100), b"G", &[1]), Err(FrameError::Preamble));
    assert_eq!(decode(Decoder::after_preamble(100), b"BOKI\x02", &[1]), Err(FrameError::Preamble));
    assert_eq!(decode(Decoder::after_preamble(100), &PREAMBLE, &[1]), Ok(vec![]));
}

/// The buffer holds what arrived and at most as much again: a header's claim alone costs nothing.
#[test]
fn a_claimed_length_alone_takes_no_memory() {
    let mut decoder = Decoder::new(1 << 30);
    let mut header = encode(&[frame(1, 1, "x")]).to_vec();
    header[..4].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    decoder.room().extend_from_slice(&header);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.room().capacity() <= 4 << 20);
}

#[test]
fn a_large_body_that_trickles_in_is_moved_few_times() {
    let bytes = encode(&[frame(1, 1, vec![5; 8 << 20])]);
    let mut decoder = Decoder::new(8 << 20);
    let mut moves = 0;
    for piece in bytes.chunks(1024) {
        let before = decoder.room().as_ptr();
        decoder.room().extend_from_slice(piece);
        moves += usize::from(decoder.room().as_ptr() != before);
    }
    assert_eq!(decoder.next_frame().unwrap().unwrap().body.len(), 8 << 20);
    assert!(moves < 20, "{moves}");
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let body = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 4000..9000)];
    (any::<u8>(), any::<u64>(), body).prop_map(|(kind, corr, body)| frame(kind, corr, body))
}

proptest! {
    #[test]
    fn any_split_of_the_stream_gives_the_same_frames(
        frames in vec(any_frame(), 0..20),
        sizes in vec(1_usize..3000, 1..20),
    ) {
        let bytes = [&PREAMBLE[..], &encode(&frames)].concat();
        prop_assert_eq!(decode(Decoder::after_preamble(9000), &bytes, &sizes).unwrap(), frames);
    }

    #[test]
    fn garbage_is_an_error_or_frames_but_never_a_panic(
        bytes in vec(any::<u8>(), 1..500),
        sizes in vec(1_usize..50, 1..5),
    ) {
        let _ = decode(Decoder::new(1 << 20), &bytes, &sizes);
        let _ = decode(Decoder::after_preamble(1 << 20), &bytes, &sizes);
    }

    #[test]
    fn a_damaged_stream_never_panics(
        frames in vec(any_frame(), 1..5),
        at in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let mut bytes = encode(&frames).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= mask;
        let _ = decode(Decoder::new(9000), &bytes, &[100]);
    }
}
