//! Messages between the server and a worker: understood or refused, and what was understood is written and understood again.
#![no_main]

use boki_net::{BodyWriter, Decoder, FrameBuf};
use boki_wire::Message;
use boki_wire::worker::*;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fn check<M: Message>(body: &Bytes) {
    let Ok(message) = M::decode(body) else { return };
    let first = written(|body| message.write(body));
    let again = M::decode(&first).unwrap_or_else(|error| panic!("what was written is not read: {error}"));
    assert_eq!(written(|body| again.write(body)), first);
}

fn written(write: impl FnOnce(&mut BodyWriter<'_>)) -> Bytes {
    let mut buf = FrameBuf::new();
    buf.push(1, 0, 1, write);
    let mut decoder = Decoder::new(1 << 30);
    decoder.room().extend_from_slice(&buf.into_bytes());
    decoder.next_frame().expect("a frame that was written").expect("a whole frame").body
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    match *kind % 12 {
        0 => check::<Register>(&body),
        1 => check::<Registered>(&body),
        2 => {
            let Ok(invoke) = Invoke::decode(&body) else { return };
            let first = written(|body| invoke.write(body));
            let again = Invoke::decode(&first).unwrap_or_else(|error| panic!("what was written is not read: {error}"));
            assert_eq!(written(|body| again.write(body)), first);
        }
        3 => check::<InvokeDone>(&body),
        4 => check::<InvokeCancel>(&body),
        5 => check::<WorkerLog>(&body),
        6 => check::<Drain>(&body),
        7 => check::<InvokeInput>(&body),
        8 => check::<InputCredit>(&body),
        9 => check::<OutputHead>(&body),
        10 => check::<OutputData>(&body),
        _ => check::<OutputCredit>(&body),
    }
});
