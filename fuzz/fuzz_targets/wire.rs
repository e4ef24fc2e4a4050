//! Messages of the native protocol: understood or refused, and what was understood is written and understood again.
#![no_main]

use boki_log::op;
use boki_net::{Decoder, FrameBuf};
use boki_wire::log::AuxSet;
use boki_wire::*;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

/// Equal messages are written as equal bytes.
fn check<M: Message>(body: &Bytes) {
    let Ok(message) = M::decode(body) else { return };
    let first = written(&message);
    let again = M::decode(&first).unwrap_or_else(|error| panic!("what was written is not read: {error}"));
    assert_eq!(written(&again), first);
}

fn written<M: Message>(message: &M) -> Bytes {
    let mut buf = FrameBuf::new();
    buf.push(M::KIND, 0, 1, |body| message.write(body));
    let mut decoder = Decoder::new(1 << 30);
    decoder.room().extend_from_slice(&buf.into_bytes());
    decoder.next_frame().expect("a frame that was written").expect("a whole frame").body
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let mut body = body.to_vec();
    // An append carries a batch, whose length and checksum are made right: consistency and acknowledgement come before it.
    if *kind == <op::Append as Message>::KIND && body.len() > 9 {
        let len = (body.len() - 1) as u32;
        body[1..5].copy_from_slice(&len.to_le_bytes());
        boki_fuzz::seal(&mut body[1..], 4);
    }
    let body = Bytes::from(body);
    match *kind {
        kinds::HELLO => check::<Hello>(&body),
        kinds::HELLO_OK => check::<HelloOk>(&body),
        kinds::PING => check::<Ping>(&body),
        kinds::PONG => check::<Pong>(&body),
        kinds::ERROR => {
            check::<ErrorReply>(&body);
            let _ = ErrorReply::decode(&body).map(|error| error.to_log_error());
        }
        kinds::CANCEL => check::<Cancel>(&body),
        kinds::APPEND => check::<op::Append>(&body),
        kinds::APPENDED => check::<op::Appended>(&body),
        kinds::READ => check::<op::Read>(&body),
        kinds::RECORDS => check::<op::Records>(&body),
        kinds::TAIL => check::<op::Tail>(&body),
        kinds::TAIL_IS => check::<op::TailReply>(&body),
        kinds::TAGS => check::<op::Tags>(&body),
        kinds::TAGS_ARE => check::<op::TagsReply>(&body),
        kinds::SET_AUX => check::<op::SetAux>(&body),
        kinds::AUX_SET => check::<AuxSet>(&body),
        kinds::BOOK_OPEN => check::<BookOpen>(&body),
        kinds::BOOK_IS => check::<BookIs>(&body),
        kinds::BOOK_CREATE => check::<BookCreate>(&body),
        kinds::BOOK_LIST => check::<BookList>(&body),
        kinds::BOOKS_ARE => check::<BooksAre>(&body),
        kinds::BOOK_REMOVE => check::<BookRemove>(&body),
        kinds::BOOK_REMOVED => check::<BookRemoved>(&body),
        kinds::CALL => check::<Call>(&body),
        kinds::CALL_RESULT => check::<CallResult>(&body),
        kinds::CALL_ACCEPTED => check::<CallAccepted>(&body),
        kinds::CALL_WAIT => check::<CallWait>(&body),
        kinds::CALL_PENDING => check::<CallPending>(&body),
        kinds::FUNCTION_LIST => check::<FunctionList>(&body),
        kinds::FUNCTIONS_ARE => check::<FunctionsAre>(&body),
        _ => {}
    }
});
