//! The bytes of every message of the worker link are those of `vectors/worker.json`, which other
//! implementations test against too; and whatever bytes arrive, decoding does not panic.
#![allow(clippy::unwrap_used)]

use boki_log::{BookId, Position, Seq};
use boki_net::{BodyWriter, FrameBuf, HEADER_BYTES};
use boki_wire::Message;
use boki_wire::worker::*;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body_of(write: impl FnOnce(&mut BodyWriter<'_>)) -> Bytes {
    let mut frames = FrameBuf::new();
    frames.push(0, 0, 0, write);
    frames.into_bytes().slice(HEADER_BYTES..)
}

fn vector<M: Message + PartialEq + std::fmt::Debug>(message: &str, fields: Value, value: &M) -> Value {
    let body = body_of(|body| value.write(body));
    assert_eq!(&M::decode(&body).unwrap(), value);
    json!({ "message": message, "kind": M::KIND, "fields": fields, "body": hex(&body) })
}

fn vectors() -> Vec<Value> {
    let register = Register {
        worker: "shop".into(),
        process: "5f1c".into(),
        version: "v3".into(),
        concurrency: 64,
        pid: 4711,
        functions: vec![
            FunctionSpec {
                name: "hold".into(),
                description: "Holds a seat".into(),
                max_attempts: 5,
                timeout_ms: 30_000,
                streams_input: true,
            },
            FunctionSpec {
                name: "book".into(),
                description: String::new(),
                max_attempts: 0,
                timeout_ms: 0,
                streams_input: false,
            },
        ],
    };
    let call = CallId(*b"0123456789abcdef");
    let invoke = Invoke {
        call,
        attempt: 2,
        deadline_ms: 60_000,
        book: BookId(7),
        position: Position(Seq(41)),
        function: "hold",
        book_name: "orders",
        content_type: "application/json",
        http: None,
        input: Bytes::from_static(b"{\"seat\":4}"),
        more_input: false,
    };
    let invoke_body = body_of(|body| invoke.write(body));
    assert_eq!(Invoke::decode(&invoke_body).unwrap(), invoke);
    let head = HttpHead::new("POST", "/seats/4", "row=7", [("cookie", "user=ada"), ("accept", "*/*")]);
    let streamed =
        Invoke { content_type: "", http: Some(head), input: Bytes::from_static(b"begin"), more_input: true, ..invoke };
    let streamed_body = body_of(|body| streamed.write(body));
    assert_eq!(Invoke::decode(&streamed_body).unwrap(), streamed);
    let call_text = "30313233343536373839616263646566";
    let position = Position(Seq(43));
    let ok = Outcome::Ok { content_type: "application/json".into(), output: Bytes::from_static(b"true") };
    let failed = |retryable| Outcome::Err { code: "sold_out".into(), message: "no seat left".into(), retryable };
    let done = |outcome| InvokeDone { position, outcome };
    vec![
        vector(
            "Register",
            json!({"worker": "shop", "process": "5f1c", "version": "v3", "concurrency": 64, "pid": 4711, "functions": [
                {"name": "hold", "description": "Holds a seat", "max_attempts": 5, "timeout_ms": 30_000, "streams_input": true},
                {"name": "book", "description": "", "max_attempts": 0, "timeout_ms": 0, "streams_input": false},
            ]}),
            &register,
        ),
        vector("Registered", json!({"worker_id": 4_294_967_297_u64}), &Registered { worker_id: 4_294_967_297 }),
        json!({
            "message": "Invoke", "kind": INVOKE, "body": hex(&invoke_body),
            "fields": {
                "call": call_text, "attempt": 2, "deadline_ms": 60_000, "book": 7, "position": 41,
                "function": "hold", "book_name": "orders", "content_type": "application/json",
                "http": null, "input": "{\"seat\":4}", "more_input": false,
            },
        }),
        json!({
            "message": "Invoke", "kind": INVOKE, "body": hex(&streamed_body),
            "fields": {
                "call": call_text, "attempt": 2, "deadline_ms": 60_000, "book": 7, "position": 41,
                "function": "hold", "book_name": "orders", "content_type": "",
                "http": {"method": "POST", "path": "/seats/4", "query": "row=7",
                    "headers": [["cookie", "user=ada"], ["accept", "*/*"]]},
                "input": "begin", "more_input": true,
            },
        }),
        vector(
            "InvokeInput",
            json!({"last": false, "bytes": "middle"}),
            &InvokeInput { last: false, bytes: Bytes::from_static(b"middle") },
        ),
        vector("InvokeInput", json!({"last": true, "bytes": ""}), &InvokeInput { last: true, bytes: Bytes::new() }),
        vector("InputCredit", json!({"bytes": 65_536}), &InputCredit { bytes: 65_536 }),
        vector(
            "OutputHead",
            json!({"status": 201, "content_type": "text/plain", "headers": [["set-cookie", "seat=4"]]}),
            &OutputHead {
                status: 201,
                content_type: "text/plain".into(),
                headers: vec![("set-cookie".into(), "seat=4".into())],
            },
        ),
        vector("OutputData", json!({"bytes": "part"}), &OutputData { bytes: Bytes::from_static(b"part") }),
        vector("OutputCredit", json!({"bytes": 65_536}), &OutputCredit { bytes: 65_536 }),
        vector(
            "InvokeDone",
            json!({"position": 43, "ok": {"content_type": "application/json", "output": "true"}}),
            &done(ok),
        ),
        vector(
            "InvokeDone",
            json!({"position": 43, "error": {"code": "sold_out", "message": "no seat left", "retryable": false}}),
            &done(failed(false)),
        ),
        vector(
            "InvokeDone",
            json!({"position": 43, "error": {"code": "sold_out", "message": "no seat left", "retryable": true}}),
            &done(failed(true)),
        ),
        vector("InvokeCancel", json!({"reason": "caller"}), &InvokeCancel { reason: CancelReason::Caller }),
        vector("InvokeCancel", json!({"reason": "deadline"}), &InvokeCancel { reason: CancelReason::Deadline }),
        vector(
            "InvokeCancel",
            json!({"reason": "shutting_down"}),
            &InvokeCancel { reason: CancelReason::ShuttingDown },
        ),
        vector(
            "WorkerLog",
            json!({"call": call_text, "level": "warn", "line": "almost full"}),
            &WorkerLog { call: Some(call), level: Level::Warn, line: "almost full".into() },
        ),
        vector(
            "WorkerLog",
            json!({"call": null, "level": "info", "line": "ready"}),
            &WorkerLog { call: None, level: Level::Info, line: "ready".into() },
        ),
        vector("Drain", json!({}), &Drain),
    ]
}

#[test]
fn every_message_has_the_bytes_of_its_vectors() {
    let ours = vectors();
    let pinned: Vec<Value> = serde_json::from_str(include_str!("vectors/worker.json")).unwrap();
    for (ours, pinned) in ours.iter().zip(&pinned) {
        assert_eq!(ours, pinned);
    }
    let unpinned: Vec<String> = ours.iter().skip(pinned.len()).map(ToString::to_string).collect();
    assert!(unpinned.is_empty(), "not in vectors/worker.json:\n{}", unpinned.join(",\n"));
    assert_eq!(ours.len(), pinned.len());
}

fn decode_as_everything(body: &Bytes) {
    let _ = Register::decode(body);
    let _ = Registered::decode(body);
    let _ = Invoke::decode(body);
    let _ = InvokeDone::decode(body);
    let _ = InvokeInput::decode(body);
    let _ = InputCredit::decode(body);
    let _ = OutputHead::decode(body);
    let _ = OutputData::decode(body);
    let _ = OutputCredit::decode(body);
    let _ = InvokeCancel::decode(body);
    let _ = WorkerLog::decode(body);
    let _ = Drain::decode(body);
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        decode_as_everything(&bytes.into());
    }

    #[test]
    fn plausible_bytes_are_a_message_or_an_error(bytes in vec(prop_oneof![4 => 0_u8..3, 1 => any::<u8>()], 0..200)) {
        decode_as_everything(&bytes.into());
    }
}

#[test]
fn a_calls_id_is_printed_and_read() {
    let id = CallId(*b"0123456789abcdef");
    assert_eq!(id.to_string(), "30313233343536373839616263646566");
    assert_eq!(id.to_string().parse(), Ok(id));
    for wrong in [
        "",
        "30",
        "3031323334353637383961626364656g",
        "+0313233343536373839616263646566",
        "30313233343536373839616263646566 ",
    ] {
        assert_eq!(wrong.parse::<CallId>(), Err(InvalidCallId), "{wrong}");
    }
}

#[test]
fn unknown_statuses_flags_and_positions_are_refused() {
    let mut body = body_of(|body| {
        let outcome = Outcome::Ok { content_type: String::new(), output: Bytes::new() };
        InvokeDone { position: Position(Seq(1)), outcome }.write(body);
    })
    .to_vec();
    for (at, value) in [(0, 2), (1, 1), (1, 4), (9, 0xff)] {
        let was = std::mem::replace(&mut body[at], value);
        assert!(InvokeDone::decode(&body.clone().into()).is_err(), "byte {at} = {value}");
        body[at] = was;
    }
    assert!(InvokeDone::decode(&body.into()).is_ok());
}
