//! Frames of the native protocol, however the stream is cut up.
#![no_main]

use boki_net::{Decoder, FrameBuf, HEADER_BYTES, PREAMBLE};
use libfuzzer_sys::fuzz_target;

const MAX_BODY: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let mut stream = PREAMBLE.to_vec();
    stream.extend_from_slice(data);
    // The checksum of every frame made right, where it is not "absent".
    let mut at = PREAMBLE.len();
    while let Some(header) = stream.get(at..at + HEADER_BYTES) {
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = at + HEADER_BYTES;
        if header[16..20] != [0; 4]
            && let Some(sum) = stream.get(body..body + len).map(boki_fuzz::crc32c)
        {
            stream[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
        }
        at = body.saturating_add(len);
    }
    let whole = decode(&stream, stream.len());
    let in_pieces = decode(&stream, usize::from(*cut) + 1);
    assert_eq!(whole, in_pieces);
    // What was understood says the same again.
    let mut written = FrameBuf::new();
    for frame in &whole.0 {
        written.push_frame(frame);
    }
    let again = decode(&[&PREAMBLE[..], &written.into_bytes()].concat(), usize::MAX);
    assert_eq!((again.0, again.1), (whole.0, None));
});

fn decode(stream: &[u8], piece: usize) -> (Vec<boki_net::Frame>, Option<boki_net::FrameError>) {
    let mut decoder = Decoder::after_preamble(MAX_BODY);
    let mut frames = Vec::new();
    for piece in stream.chunks(piece.min(stream.len().max(1))) {
        decoder.room().extend_from_slice(piece);
        decoder.was_read(piece.len());
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
