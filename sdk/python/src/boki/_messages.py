"""The messages of a client: what it asks is encoded here, what it is answered is decoded.

`docs/worker-protocol.md` and the tables in `crates/boki-wire/src` say what the fields are.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from . import _wire as wire
from ._batch import tag_bytes
from ._errors import Error, InvalidArgument, from_reply
from ._results import Appended, BookInfo, CallOutput, FunctionInfo, Record, Sent, TagPage
from ._wire import MAX_SEQ, U32, U64, ProtocolError, Reader, text

CLIENT, WORKER = 1, 2
NEXT, PREV = 0, 1
ANY, SESSION, LINEARIZABLE = 0, 1, 2
DEFAULT_PRIORITY = 5

_U32_MAX = (1 << 32) - 1
_NO_AUX = _U32_MAX
_HELLO = struct.Struct("<HBB")
_READ = struct.Struct("<QQQBBHII")
_TAIL = struct.Struct("<QQB")
_TAGS = struct.Struct("<QQIB")
_CALL = struct.Struct("<QQIBBQ")
_CALL_WAIT = struct.Struct("<Q16sI")
_APPENDED = struct.Struct("<QQIB")
_RECORD = struct.Struct("<QQII")


def hello(role: int, name: str) -> bytes:
    return _HELLO.pack(wire.VERSION, role, 0) + wire.name(wire.cut(name, 255))


def append(durable: bool, batch: bytes) -> bytes:
    return (b"\1" if durable else b"\0") + batch


def read(
    book: int,
    tag: str | None,
    start: int,
    direction: int,
    limit: int,
    consistency: int,
    position: int,
    wait_ms: int,
) -> bytes:
    start = min(max(start, 0), MAX_SEQ)
    head = _READ.pack(
        book, start, position, direction, consistency, 0, _u32(limit, "limit"), wait_ms
    )
    return head + _optional_tag(tag)


def tail(book: int, tag: str | None, consistency: int, position: int) -> bytes:
    return _TAIL.pack(book, position, consistency) + _optional_tag(tag)


def tags(
    book: int, prefix: str, after: str | None, limit: int, consistency: int, position: int
) -> bytes:
    head = _TAGS.pack(book, position, _u32(limit, "limit"), consistency)
    return head + _optional_tag(after) + text(prefix)


def set_aux(book: int, seq: int, aux: bytes) -> bytes:
    return U64.pack(book) + U64.pack(min(max(seq, 0), MAX_SEQ)) + aux


def call(
    book: int,
    position: int,
    deadline_ms: int,
    detached: bool,
    priority: int,
    parent: int,
    function: str,
    key: str | None,
    limit_key: str | None,
    content_type: str,
    data: bytes,
) -> bytes:
    if not 0 <= priority <= 9:
        raise InvalidArgument(f"invalid priority: {priority} is not one (0 to 9)")
    return b"".join(
        (
            _CALL.pack(book, position, deadline_ms, detached, priority, parent),
            text(function),
            text(key or ""),
            text(limit_key or ""),
            text(content_type),
            data,
        )
    )


def call_wait(book: int, call_id: str, wait_ms: int) -> bytes:
    return _CALL_WAIT.pack(book, call_id_bytes(call_id), wait_ms)


def call_id_bytes(call_id: str) -> bytes:
    try:
        data = bytes.fromhex(call_id)
    except ValueError:
        data = b""
    if len(data) != 16 or len(call_id) != 32:
        raise InvalidArgument("invalid call: a call's id has 32 hexadecimal digits")
    return data


def read_hello_ok(body: bytes) -> tuple[int, int, int, str]:
    """Version, questions in flight, largest body, name of the server."""
    reader = Reader(body)
    version, _ = reader.u16(), reader.u16()
    fields = (version, reader.u32(), reader.u32(), reader.name())
    reader.finish()
    return fields


def read_error(body: bytes) -> Error:
    reader = Reader(body)
    retry, code, message, raw = reader.u8(), reader.name(), reader.text(), reader.text()
    reader.finish()
    try:
        details = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        details = {}
    return from_reply(code, message, retry, details if isinstance(details, dict) else {})


def read_appended(body: bytes) -> Appended:
    if len(body) != _APPENDED.size:
        raise ProtocolError("an answer to an append of a wrong length")
    seq, position, count, repeated = _APPENDED.unpack(body)
    if seq > MAX_SEQ or position > MAX_SEQ or repeated > 1:
        raise ProtocolError("an answer to an append with a field that cannot be")
    return Appended(seq, count, repeated == 1, position)


def read_records(body: bytes) -> tuple[list[Record], int]:
    """The records, and what the asker has seen now."""
    reader = Reader(body)
    position, count = reader.seq(), reader.u32()
    records = []
    for _ in range(count):
        seq, time_us, length, aux_length = _RECORD.unpack(reader.take(_RECORD.size))
        if seq > MAX_SEQ:
            raise ProtocolError("a seq above every seq")
        own = Reader(reader.take(length))
        own_tags = tuple([own.name() for _ in range(own.u8())])
        aux = None if aux_length == _NO_AUX else reader.take(aux_length)
        records.append(Record(seq, time_us, own_tags, own.rest(), aux))
    reader.finish()
    return records, position


def read_tail_is(body: bytes) -> tuple[int, int]:
    """The tail, and what the asker has seen now."""
    reader = Reader(body)
    fields = (reader.seq(), reader.seq())
    reader.finish()
    return fields


def read_tags_are(body: bytes) -> tuple[TagPage, int]:
    """A page of tags, and what the asker has seen now."""
    reader = Reader(body)
    position, more, count = reader.seq(), reader.boolean(), reader.u32()
    page = []
    for _ in range(count):
        page.append((reader.name(), reader.seq()))
    reader.finish()
    return TagPage(page, more), position


def read_book_is(body: bytes) -> BookInfo:
    reader = Reader(body)
    book = _book(reader)
    reader.finish()
    return book


def read_books_are(body: bytes) -> list[BookInfo]:
    reader = Reader(body)
    count = reader.u32()
    books = []
    for _ in range(count):
        books.append(_book(reader))
    reader.finish()
    return books


def read_nothing(body: bytes) -> None:
    if body:
        raise ProtocolError("a message is longer than its fields")


def read_call_result(body: bytes) -> CallOutput:
    reader = Reader(body)
    call_id, position, attempts = reader.take(16).hex(), reader.seq(), reader.u32()
    content_type = reader.text()
    return CallOutput(call_id, reader.rest(), content_type, position, attempts)


def read_call_accepted(body: bytes) -> Sent:
    reader = Reader(body)
    sent = Sent(reader.take(16).hex(), reader.seq())
    reader.finish()
    return sent


def read_functions_are(body: bytes) -> list[FunctionInfo]:
    reader = Reader(body)
    functions = []
    for _ in range(reader.u32()):
        own, description = reader.name(), reader.text()
        numbers = (reader.u32(), reader.u32(), reader.u32(), reader.u32())
        functions.append(FunctionInfo(own, description, *numbers, reader.u64()))
    reader.finish()
    return functions


def position_of(kind: int, answer: Any) -> int:
    """What the asker has seen with an answer; 0 if that is nothing new."""
    if kind in (wire.APPENDED, wire.CALL_RESULT, wire.CALL_ACCEPTED):
        return int(answer.position)
    if kind in (wire.RECORDS, wire.TAIL_IS, wire.TAGS_ARE):
        return int(answer[1])
    if kind == wire.ERROR:
        position = answer.details.get("position")
        return position if isinstance(position, int) and 0 <= position <= MAX_SEQ else 0
    return 0


ANSWERS: dict[int, Any] = {
    wire.ERROR: read_error,
    wire.APPENDED: read_appended,
    wire.RECORDS: read_records,
    wire.TAIL_IS: read_tail_is,
    wire.TAGS_ARE: read_tags_are,
    wire.AUX_SET: read_nothing,
    wire.BOOK_IS: read_book_is,
    wire.BOOKS_ARE: read_books_are,
    wire.BOOK_REMOVED: read_nothing,
    wire.CALL_RESULT: read_call_result,
    wire.CALL_ACCEPTED: read_call_accepted,
    wire.CALL_PENDING: read_nothing,
    wire.FUNCTIONS_ARE: read_functions_are,
    wire.PONG: read_nothing,
}


def _book(reader: Reader) -> BookInfo:
    number, created_us = reader.u64(), reader.u64()
    return BookInfo(number, reader.name(), created_us)


def _optional_tag(tag: str | None) -> bytes:
    return b"\0" if tag is None else tag_bytes(tag)


def _u32(value: int, what: str) -> int:
    if not 0 <= value <= _U32_MAX:
        raise InvalidArgument(f"invalid {what}: {value} is not between 0 and {_U32_MAX}")
    return value


def u32_bytes(value: int) -> bytes:
    """A credit."""
    return U32.pack(value)
