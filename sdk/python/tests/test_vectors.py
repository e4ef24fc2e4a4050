"""Every message, byte for byte as the server's own tests pin it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import server_side as server

from boki import _batch, _crc32c, _messages, _wire
from boki import _worker_messages as worker
from boki._wire import FrameParser, ProtocolError

VECTORS = Path(__file__).parents[3] / "crates/boki-wire/tests/vectors"
CONSISTENCIES = {"any": 0, "session": 1, "linearizable": 2}
LEVELS = {"error": 1, "warn": 2, "info": 3, "debug": 4, "trace": 5}
REASONS = {"caller": 1, "deadline": 2, "shutting_down": 3}
EMPTY = {"Ping", "Pong", "Cancel", "BookList", "BookRemoved", "AuxSet", "CallPending"} | {
    "FunctionList",
    "Drain",
}


def vectors() -> list[Any]:
    files = [VECTORS / "messages.json", VECTORS / "worker.json"]
    messages = [message for file in files for message in json.loads(file.read_text())]
    return [
        pytest.param(one["message"], one["fields"], bytes.fromhex(one["body"]), id=f"{at}-{name}")
        for at, one in enumerate(messages)
        if (name := one["message"])
    ]


def encode_batch(batch: dict[str, Any]) -> bytes:
    if "trim" in batch:
        return _batch.trim_batch(batch["book"], batch["trim"]["tag"], batch["trim"]["below"])
    conditions = batch["conditions"]
    return _batch.records_batch(
        batch["book"],
        bytes.fromhex(batch["id"]),
        [(one["payload"].encode(), reversed(one["tags"])) for one in batch["records"]],
        {one["tail"]: one["seq"] for one in conditions if "tail" in one},
        {one["fence"]: one["epoch"] for one in conditions if "fence" in one},
        {one["tag"]: one["epoch"] for one in batch["raises"]},
    )


def http(head: dict[str, Any] | None) -> Any:
    if head is None:
        return None
    return (head["method"], head["path"], head["query"], [tuple(one) for one in head["headers"]])


def encode(message: str, f: dict[str, Any]) -> bytes:
    """The message's body, by the package where it sends it, by the test's server otherwise."""
    match message:
        case "Hello":
            return _messages.hello({"client": 1, "worker": 2}[f["role"]], f["name"])
        case "HelloOk":
            return server.hello_ok(f["max_in_flight"], f["max_body"], f["name"])
        case "Error":
            return server.error(f["code"], f["message"], f["retry"], f["details"])
        case "BookOpen" | "BookCreate" | "BookRemove":
            return bytes(f["name"].encode())
        case "BookIs":
            return server.book_is(f["id"], f["created_us"], f["name"])
        case "BooksAre":
            return server.books_are([(b["id"], b["created_us"], b["name"]) for b in f["books"]])
        case "Append":
            return _messages.append(f["ack"] == "durable", encode_batch(f["batch"]))
        case "Appended":
            return server.appended(f["seq"] or 0, f["position"], f["count"], f["repeated"])
        case "Read":
            return _messages.read(
                f["book"],
                f["tag"],
                f["from"],
                {"next": 0, "prev": 1}[f["direction"]],
                f["limit"],
                CONSISTENCIES[f["consistency"]],
                f["position"],
                f["wait_ms"],
            )
        case "Records":
            return server.records(f["position"], f["records"])
        case "Tail":
            kind = CONSISTENCIES[f["consistency"]]
            return _messages.tail(f["book"], f["tag"], kind, f["position"])
        case "TailIs":
            return server.tail_is(f["seq"], f["position"])
        case "Tags":
            kind = CONSISTENCIES[f["consistency"]]
            return _messages.tags(
                f["book"], f["prefix"], f["after"], f["limit"], kind, f["position"]
            )
        case "TagsAre":
            tags = [(one["tag"], one["seq"]) for one in f["tags"]]
            return server.tags_are(f["position"], f["more"], tags)
        case "SetAux":
            return _messages.set_aux(f["book"], f["seq"], f["aux"].encode())
        case "Call":
            fields = (f["function"], f["key"], f["limit_key"], f["content_type"])
            head = (f["deadline_ms"], f["detached"], f["priority"], f["parent"])
            place = (f["book"], f["position"])
            return _messages.call(*place, *head, *fields, f["input"].encode())
        case "CallResult":
            call, output = bytes.fromhex(f["call"]), f["output"].encode()
            return server.call_result(call, output, f["content_type"], f["position"], f["attempts"])
        case "CallAccepted":
            return server.call_accepted(bytes.fromhex(f["call"]), f["position"])
        case "CallWait":
            return _messages.call_wait(f["book"], f["call"], f["wait_ms"])
        case "FunctionsAre":
            return server.functions_are(f["functions"])
        case "Register":
            specs = [worker.FunctionSpec(**one) for one in f["functions"]]
            names = (f["worker"], f["process"], f["version"])
            return worker.register(*names, f["concurrency"], f["pid"], specs)
        case "Registered":
            return _wire.U64.pack(f["worker_id"])
        case "Invoke":
            rest = {**f, "call": bytes.fromhex(f["call"]), "http": http(f["http"])}
            return server.invoke(rest.pop("function"), rest.pop("input").encode(), **rest)
        case "InvokeInput":
            return server.invoke_input(f["bytes"].encode(), f["last"])
        case "InputCredit" | "OutputCredit":
            return _messages.u32_bytes(f["bytes"])
        case "OutputHead":
            pairs = [tuple(one) for one in f["headers"]]
            return worker.output_head(f["status"], f["content_type"], pairs)
        case "OutputData":
            return bytes(f["bytes"].encode())
        case "InvokeDone" if "ok" in f:
            ok = f["ok"]
            return worker.done(f["position"], ok["content_type"], ok["output"].encode())
        case "InvokeDone":
            error = f["error"]
            return worker.failed(f["position"], error["code"], error["message"], error["retryable"])
        case "InvokeCancel":
            return bytes((REASONS[f["reason"]],))
        case "WorkerLog":
            call = bytes.fromhex(f["call"]) if f["call"] else worker.NO_CALL
            return worker.log_line(call, LEVELS[f["level"]], f["line"])
        case _:
            assert message in EMPTY
            return b""


def decode(message: str, body: bytes) -> Any:
    """The message's fields, by the package where it gets it, by the test's server otherwise."""
    match message:
        case "Hello":
            return server.read_hello(body)
        case "HelloOk":
            version, in_flight, max_body, name = _messages.read_hello_ok(body)
            numbers = {"version": version, "max_in_flight": in_flight, "max_body": max_body}
            return {**numbers, "name": name}
        case "Error":
            error = _messages.read_error(body)
            texts = {"code": error.code, "message": error.message, "retry": error.retry}
            return {**texts, "details": error.details or None}
        case "BookOpen" | "BookCreate" | "BookRemove":
            return {"name": body.decode()}
        case "BookIs":
            return _messages.read_book_is(body)._asdict()
        case "BooksAre":
            return {"books": [book._asdict() for book in _messages.read_books_are(body)]}
        case "Appended":
            appended = _messages.read_appended(body)
            seq = {"seq": int(appended) or None, "position": appended.position}
            return {**seq, "count": appended.count, "repeated": appended.repeated}
        case "Records":
            records, position = _messages.read_records(body)
            entries = [
                {
                    "seq": one.seq,
                    "time_us": one.time_us,
                    "tags": list(one.tags),
                    "payload": one.text,
                    "aux": None if one.aux is None else one.aux.decode(),
                }
                for one in records
            ]
            return {"position": position, "records": entries}
        case "TailIs":
            seq_is, position = _messages.read_tail_is(body)
            return {"seq": seq_is, "position": position}
        case "TagsAre":
            page, position = _messages.read_tags_are(body)
            tags = [{"tag": tag, "seq": seq} for tag, seq in page.tags]
            return {"position": position, "more": page.more, "tags": tags}
        case "Call":
            return server.read_call(body)
        case "CallResult":
            output = _messages.read_call_result(body)
            numbers = {"position": output.position, "attempts": output.attempts}
            texts = {"call": output.id, "output": output.data.decode()}
            return {**numbers, **texts, "content_type": output.content_type}
        case "CallAccepted":
            sent = _messages.read_call_accepted(body)
            return {"call": sent.id, "position": sent.position}
        case "FunctionsAre":
            return {"functions": [one._asdict() for one in _messages.read_functions_are(body)]}
        case "Register":
            return server.read_register(body)
        case "Registered":
            return {"worker_id": worker.read_registered(body)}
        case "Invoke":
            invoke = worker.Invoke(body)
            head = invoke.http()
            names = set(worker.Invoke.__slots__) - {"_head"}
            fields = {name: getattr(invoke, name) for name in names}
            fields["call"], fields["input"] = invoke.call.hex(), invoke.input.decode()
            pairs = head and [list(pair) for pair in head.headers]
            fields["http"] = head and {**head._asdict(), "headers": pairs}
            return fields
        case "InvokeInput":
            last, data = worker.read_invoke_input(body)
            return {"last": last, "bytes": data.decode()}
        case "InputCredit" | "OutputCredit":
            return {"bytes": worker.read_credit(body)}
        case "OutputHead":
            return server.read_output_head(body)
        case "OutputData":
            return {"bytes": body.decode()}
        case "InvokeDone":
            return server.read_done(body)
        case "InvokeCancel":
            return {"reason": {v: k for k, v in REASONS.items()}[worker.read_cancel(body)]}
        case "WorkerLog":
            return server.read_log(body)
        case "Append" | "Read" | "Tail" | "Tags" | "SetAux" | "CallWait":
            return None
        case _:
            assert body == b""
            return {}


@pytest.mark.parametrize(("message", "fields", "body"), vectors())
def test_messages_are_byte_for_byte_those_of_the_vectors(
    message: str, fields: dict[str, Any], body: bytes
) -> None:
    assert encode(message, fields).hex() == body.hex()
    decoded = decode(message, body)
    if decoded is not None:
        assert decoded == fields


def test_kinds_of_frames_are_those_of_the_vectors() -> None:
    files = [VECTORS / "messages.json", VECTORS / "worker.json"]
    for file in files:
        for one in json.loads(file.read_text()):
            name = "".join("_" * c.isupper() + c.upper() for c in one["message"])[1:]
            assert getattr(_wire, name) == one["kind"], name


def test_frames_are_those_of_the_vectors() -> None:
    frames = {
        key: bytes.fromhex(value)
        for key, value in json.loads((VECTORS / "frames.json").read_text()).items()
    }
    assert frames["preamble"] == _wire.PREAMBLE
    hello = _messages.hello(_messages.CLIENT, "shop")
    assert FrameParser().feed(frames["hello"]) == [(_wire.HELLO, 0, hello)]
    # The vector has a checksum, which this side leaves out.
    ours = bytearray(_wire.frame(_wire.HELLO, 0, hello))
    ours[16:20] = _crc32c.crc32c(hello).to_bytes(4, "little")
    assert bytes(ours) == frames["hello"]
    corr = int.from_bytes(frames["ping"][8:16], "little")
    assert _wire.frame(_wire.PING, corr) == frames["ping"]


def test_frames_may_arrive_in_any_pieces() -> None:
    frames = [(9, corr, bytes(size)) for corr, size in enumerate((0, 1, 23, 24, 25, 70_000, 0))]
    stream = b"".join(_wire.frame(*one) for one in frames)
    for size in (1, 7, 24, 1000, len(stream)):
        parser = FrameParser()
        got = []
        for at in range(0, len(stream), size):
            got += parser.feed(stream[at : at + size])
        assert got == frames


@pytest.mark.parametrize(
    "header",
    [
        bytes.fromhex("00000000030100000000000000000000000000000000000000"),
        bytes.fromhex("000000000300010000000000000000000000000000000000"),
        bytes.fromhex("000000000300000000000000000000000000000001000000"),
        bytes.fromhex("010000020300000000000000000000000000000000000000"),
    ],
)
def test_a_header_that_cannot_be_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameParser().feed(header)


def test_garbage_is_a_protocol_error_and_nothing_else() -> None:
    """Cut, changed and random bodies: decoding them ends well or says what it is."""
    decoders = [
        *_messages.ANSWERS.values(),
        _messages.read_hello_ok,
        worker.Invoke,
        worker.read_registered,
        worker.read_invoke_input,
        worker.read_credit,
        worker.read_cancel,
    ]
    chance = random.Random(7)
    bodies = [vector.values[2] for vector in vectors()]
    refused = 0
    for _ in range(4000):
        body = bytearray(chance.choice(bodies))
        for _ in range(chance.randrange(4)):
            if body:
                body[chance.randrange(len(body))] = chance.randrange(256)
        cut = bytes(body[: chance.randrange(len(body) + 1)]) if chance.random() < 0.5 else body
        for decoder in decoders:
            try:
                decoded = decoder(bytes(cut))
                if isinstance(decoded, worker.Invoke):
                    decoded.http()
            except ProtocolError:
                refused += 1
    assert refused > 1000


def test_checksums_are_those_of_the_plain_definition() -> None:
    def plain(data: bytes) -> int:
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF

    assert _crc32c.crc32c(b"123456789") == 0xE3069283
    chance = random.Random(1)
    for size in [*range(9), 255, 511, 512, 513, 1023, 1024, 1025, 2047, 4100, 9000]:
        data = chance.randbytes(size)
        assert _crc32c.crc32c(data) == plain(data), size
