//! The bytes of every message are those of `vectors/messages.json`, which other implementations test against too.
//! A vector never changes: a message that must change gets a new kind.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::time::Duration;

use boki_log::batch::{BatchBuilder, Condition, RecordBody, ReservedTags};
use boki_log::op::{
    Ack, Append, Appended, Consistency, Direction, Read, Records, SetAux, Tags, TagsReply, Tail, TailReply,
};
use boki_log::{AppendId, BookId, LogError, Position, Record, Seq, Tag};
use boki_net::{Decoder, FrameBuf, HEADER_BYTES, PREAMBLE};
use boki_wire::log::AuxSet;
use boki_wire::worker::CallId;
use boki_wire::*;
use bytes::Bytes;
use serde_json::{Value, json};

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body_of<M: Message>(message: &M) -> Bytes {
    let mut frames = FrameBuf::new();
    frames.push(M::KIND, 0, 0, |body| message.write(body));
    frames.into_bytes().slice(HEADER_BYTES..)
}

/// The vectors as this crate writes them, each checked to come back as it was.
#[derive(Default)]
struct Vectors(Vec<Value>);

impl Vectors {
    fn add<M: Message + Debug>(&mut self, message: &str, fields: Value, value: &M) {
        let body = body_of(value);
        let back = M::decode(&body).unwrap();
        assert_eq!(format!("{back:?}"), format!("{value:?}"));
        assert_eq!(body_of(&back), body);
        for len in 0..body.len() {
            let _ = M::decode(&body.slice(..len));
        }
        self.0.push(json!({ "message": message, "kind": M::KIND, "fields": fields, "body": hex(&body) }));
    }
}

fn batch() -> boki_log::Batch {
    BatchBuilder::new(BookId(7))
        .id(AppendId(*b"0123456789abcdef"))
        .condition(Condition::Tail { tag: tag("user/42"), seq: Seq(5) })
        .condition(Condition::Fence { tag: tag("lock"), epoch: 3 })
        .raise(tag("lock"), 4)
        .record(vec![tag("user/42"), tag("a")], &b"hello"[..])
        .record(vec![], &b""[..])
        .build()
        .unwrap()
}

fn log_vectors(out: &mut Vectors) {
    let batch_fields = json!({
        "book": 7, "id": "30313233343536373839616263646566",
        "conditions": [{"tail": "user/42", "seq": 5}, {"fence": "lock", "epoch": 3}],
        "raises": [{"tag": "lock", "epoch": 4}],
        "records": [{"tags": ["a", "user/42"], "payload": "hello"}, {"tags": [], "payload": ""}],
    });
    let append = |ack| Append { batch: batch(), ack, reserved: ReservedTags::Refused };
    out.add("Append", json!({"ack": "ordered", "batch": batch_fields}), &append(Ack::Ordered));
    out.add("Append", json!({"ack": "durable", "batch": batch_fields}), &append(Ack::Durable));
    let trim = BatchBuilder::trim(BookId(7), Some(tag("x")), Seq(9)).unwrap();
    out.add(
        "Append",
        json!({"ack": "ordered", "batch": {"book": 7, "trim": {"tag": "x", "below": 9}}}),
        &Append { batch: trim, ack: Ack::Ordered, reserved: ReservedTags::Refused },
    );
    out.add(
        "Appended",
        json!({"seq": 41, "position": 43, "count": 2, "repeated": true}),
        &Appended { seq: Some(Seq(41)), count: 2, repeated: true, position: Position(Seq(43)) },
    );
    out.add(
        "Appended",
        json!({"seq": null, "position": 0, "count": 1, "repeated": false}),
        &Appended { seq: None, count: 1, repeated: false, position: Position::START },
    );
    out.add(
        "Read",
        json!({"book": 7, "tag": "user/42", "from": 5, "direction": "next", "limit": 10, "consistency": "session", "position": 43, "wait_ms": 1500}),
        &Read {
            book: BookId(7),
            tag: Some(tag("user/42")),
            from: Seq(5),
            direction: Direction::Next,
            limit: 10,
            consistency: Consistency::Session(Position(Seq(43))),
            wait: Some(Duration::from_millis(1500)),
        },
    );
    out.add(
        "Read",
        json!({"book": 7, "tag": null, "from": 9_007_199_254_740_991_u64, "direction": "prev", "limit": 1, "consistency": "linearizable", "position": 0, "wait_ms": 0}),
        &Read {
            book: BookId(7),
            tag: None,
            from: Seq::MAX,
            direction: Direction::Prev,
            limit: 1,
            consistency: Consistency::Linearizable,
            wait: None,
        },
    );
    out.add(
        "Records",
        json!({"position": 44, "records": [
            {"seq": 41, "time_us": 1_700_000_000_000_000_u64, "tags": ["a"], "payload": "hello", "aux": null},
            {"seq": 43, "time_us": 1_700_000_000_000_001_u64, "tags": [], "payload": "", "aux": "hint"},
        ]}),
        &Records {
            records: vec![
                Record {
                    seq: Seq(41),
                    time_us: 1_700_000_000_000_000,
                    body: RecordBody::decode(Bytes::from_static(b"\x01\x01ahello")).unwrap(),
                    aux: None,
                },
                Record {
                    seq: Seq(43),
                    time_us: 1_700_000_000_000_001,
                    body: RecordBody::decode(Bytes::from_static(b"\0")).unwrap(),
                    aux: Some("hint".into()),
                },
            ],
            position: Position(Seq(44)),
        },
    );
    out.add(
        "Tail",
        json!({"book": 7, "tag": "a", "consistency": "any", "position": 0}),
        &Tail { book: BookId(7), tag: Some(tag("a")), consistency: Consistency::Any },
    );
    out.add("TailIs", json!({"seq": 41, "position": 44}), &TailReply { seq: Seq(41), position: Position(Seq(44)) });
    out.add(
        "Tags",
        json!({"book": 7, "prefix": "user/", "after": "user/41", "limit": 100, "consistency": "session", "position": 44}),
        &Tags {
            book: BookId(7),
            prefix: "user/".into(),
            after: Some(tag("user/41")),
            limit: 100,
            consistency: Consistency::Session(Position(Seq(44))),
        },
    );
    out.add(
        "TagsAre",
        json!({"tags": [{"tag": "user/42", "seq": 41}, {"tag": "user/43", "seq": 17}], "more": true, "position": 44}),
        &TagsReply {
            tags: vec![(tag("user/42"), Seq(41)), (tag("user/43"), Seq(17))],
            more: true,
            position: Position(Seq(44)),
        },
    );
    out.add(
        "SetAux",
        json!({"book": 7, "seq": 41, "aux": "hint"}),
        &SetAux { book: BookId(7), seq: Seq(41), aux: "hint".into() },
    );
    out.add("AuxSet", json!({}), &AuxSet);
}

fn other_vectors(out: &mut Vectors) {
    for (role, text) in [(Role::Client, "client"), (Role::Worker, "worker")] {
        let hello = Hello { version: 1, role, name: "shop".into() };
        out.add("Hello", json!({"version": 1, "role": text, "name": "shop"}), &hello);
    }
    out.add(
        "HelloOk",
        json!({"version": 1, "max_in_flight": 16384, "max_body": 33_554_432, "name": "boki"}),
        &HelloOk { version: 1, max_in_flight: 16384, max_body: 32 << 20, name: "boki".into() },
    );
    out.add("Ping", json!({}), &Ping);
    out.add("Pong", json!({}), &Pong);
    out.add("Cancel", json!({}), &Cancel);
    let failed = LogError::ConditionFailed { tag: tag("user/42"), expected: Seq(5), actual: Seq(6) };
    out.add(
        "Error",
        json!({"retry": "never", "code": "BK0201", "message": failed.to_string(), "details": {"tag": "user/42", "expected": 5, "actual": 6}}),
        &ErrorReply::from(&failed),
    );
    let failed = WireError::UnknownKind { kind: 60 };
    out.add(
        "Error",
        json!({"retry": "never", "code": "BK0602", "message": failed.to_string(), "details": null}),
        &ErrorReply::from(&failed),
    );
    out.add("BookOpen", json!({"name": "orders"}), &BookOpen { name: "orders".into() });
    let orders = BookIs { id: BookId(12), created_us: 1_700_000_000_000_000, name: "orders".into() };
    let orders_fields = json!({"id": 12, "created_us": 1_700_000_000_000_000_u64, "name": "orders"});
    out.add("BookIs", orders_fields.clone(), &orders);
    out.add("BookCreate", json!({"name": "orders"}), &BookCreate { name: "orders".into() });
    out.add("BookList", json!({}), &BookList);
    out.add("BooksAre", json!({"books": [orders_fields]}), &BooksAre { books: vec![orders] });
    out.add("BookRemove", json!({"name": "orders"}), &BookRemove { name: "orders".into() });
    out.add("BookRemoved", json!({}), &BookRemoved);
    let call = Call {
        book: BookId(12),
        position: Position(Seq(44)),
        deadline: Some(Duration::from_secs(5)),
        detached: false,
        priority: 7,
        parent: 4_294_967_298,
        function: "checkout".into(),
        idempotency_key: Some("order-1".into()),
        limit_key: Some("ada".into()),
        content_type: "application/json".into(),
        input: "{}".into(),
    };
    out.add(
        "Call",
        json!({"book": 12, "position": 44, "deadline_ms": 5000, "detached": false, "priority": 7, "parent": 4_294_967_298_u64, "function": "checkout", "key": "order-1", "limit_key": "ada", "content_type": "application/json", "input": "{}"}),
        &call,
    );
    let detached = Call {
        deadline: None,
        detached: true,
        priority: 5,
        parent: 0,
        idempotency_key: None,
        limit_key: None,
        content_type: String::new(),
        ..call
    };
    out.add(
        "Call",
        json!({"book": 12, "position": 44, "deadline_ms": 0, "detached": true, "priority": 5, "parent": 0, "function": "checkout", "key": null, "limit_key": null, "content_type": "", "input": "{}"}),
        &detached,
    );
    let id = CallId(*b"fedcba9876543210");
    let id_text = id.to_string();
    out.add(
        "CallResult",
        json!({"call": id_text, "position": 45, "attempts": 2, "content_type": "text/plain", "output": "done"}),
        &CallResult {
            call: id,
            position: Position(Seq(45)),
            attempts: 2,
            content_type: "text/plain".into(),
            output: "done".into(),
        },
    );
    out.add(
        "CallAccepted",
        json!({"call": id_text, "position": 45}),
        &CallAccepted { call: id, position: Position(Seq(45)) },
    );
    out.add(
        "CallWait",
        json!({"book": 12, "call": id_text, "wait_ms": 30000}),
        &CallWait { book: BookId(12), call: id, wait: Some(Duration::from_secs(30)) },
    );
    out.add("CallPending", json!({}), &CallPending);
    out.add("FunctionList", json!({}), &FunctionList);
    out.add(
        "FunctionsAre",
        json!({"functions": [{"name": "checkout", "description": "Takes an order", "workers": 2, "running": 1, "queued": 0, "max_attempts": 3, "timeout_ms": 60000}]}),
        &FunctionsAre {
            functions: vec![FunctionIs {
                name: "checkout".into(),
                description: "Takes an order".into(),
                workers: 2,
                running: 1,
                queued: 0,
                max_attempts: 3,
                timeout_ms: 60_000,
            }],
        },
    );
}

#[test]
fn every_message_has_the_bytes_of_its_vectors() {
    let mut ours = Vectors::default();
    other_vectors(&mut ours);
    log_vectors(&mut ours);
    let pinned: Vec<Value> = serde_json::from_str(include_str!("vectors/messages.json")).unwrap();
    for (ours, pinned) in ours.0.iter().zip(&pinned) {
        assert_eq!(ours, pinned);
    }
    let unpinned: Vec<String> = ours.0.iter().skip(pinned.len()).map(ToString::to_string).collect();
    assert!(unpinned.is_empty(), "not in vectors/messages.json:\n{}", unpinned.join(",\n"));
}

#[test]
fn the_frames_of_a_connections_start_are_as_pinned() {
    let mut frames = FrameBuf::new();
    frames.push_preamble();
    let hello = Hello { version: 1, role: Role::Client, name: "shop".into() };
    frames.push(Hello::KIND, 0, 0, |body| hello.write(body));
    frames.push(Ping::KIND, 0, 258, |body| Ping.write(body));
    let bytes = frames.into_bytes();
    let pinned: Value = serde_json::from_str(include_str!("vectors/frames.json")).unwrap();
    let parts = ["preamble", "hello", "ping"].map(|part| pinned[part].as_str().unwrap());
    assert_eq!(hex(&bytes), parts.concat());
    let mut decoder = Decoder::after_preamble(1000);
    decoder.room().extend_from_slice(&bytes);
    assert_eq!(Hello::decode(&decoder.next_frame().unwrap().unwrap().body), Ok(hello));
    assert_eq!(decoder.next_frame().unwrap().unwrap().corr, 258);
    assert!(bytes.starts_with(&PREAMBLE));
}
