"""The server's side of the messages: encodes what the package decodes, and the other way round."""

from __future__ import annotations

import json
import struct
from typing import Any

from boki import _wire as wire
from boki._wire import U32, U64, Reader, headers, name, text

RETRIES = {"never": 0, "later": 1, "same_id": 2}


def hello_ok(max_in_flight: int = 16384, max_body: int = 33554432, server: str = "boki") -> bytes:
    return struct.pack("<HHII", 1, 0, max_in_flight, max_body) + name(server)


def error(code: str, message: str, retry: str = "never", details: Any = None) -> bytes:
    raw = "" if details is None else json.dumps(details, separators=(",", ":"))
    return bytes((RETRIES[retry],)) + name(code) + text(message) + text(raw)


def appended(seq: int, position: int, count: int = 1, repeated: bool = False) -> bytes:
    return struct.pack("<QQIB", seq, position, count, repeated)


def records(position: int, entries: list[dict[str, Any]]) -> bytes:
    out = [U64.pack(position), U32.pack(len(entries))]
    for entry in entries:
        body = bytes((len(entry["tags"]),)) + b"".join(name(tag) for tag in entry["tags"])
        body += entry["payload"].encode()
        aux = None if entry["aux"] is None else entry["aux"].encode()
        aux_length = 0xFFFFFFFF if aux is None else len(aux)
        out.append(struct.pack("<QQII", entry["seq"], entry["time_us"], len(body), aux_length))
        out.append(body + (aux or b""))
    return b"".join(out)


def tail_is(seq: int, position: int) -> bytes:
    return U64.pack(seq) + U64.pack(position)


def tags_are(position: int, more: bool, tags: list[tuple[str, int]]) -> bytes:
    head = U64.pack(position) + bytes((more,)) + U32.pack(len(tags))
    return head + b"".join(name(tag) + U64.pack(seq) for tag, seq in tags)


def book_is(number: int, created_us: int, book: str) -> bytes:
    return U64.pack(number) + U64.pack(created_us) + name(book)


def books_are(books: list[tuple[int, int, str]]) -> bytes:
    return U32.pack(len(books)) + b"".join(book_is(*book) for book in books)


def call_result(
    call: bytes, output: bytes, content_type: str = "", position: int = 0, attempts: int = 1
) -> bytes:
    return call + U64.pack(position) + U32.pack(attempts) + text(content_type) + output


def call_accepted(call: bytes, position: int) -> bytes:
    return call + U64.pack(position)


def functions_are(functions: list[dict[str, Any]]) -> bytes:
    out = [U32.pack(len(functions))]
    for one in functions:
        out += [name(one["name"]), text(one["description"])]
        numbers = [one[field] for field in ("workers", "running", "queued", "max_attempts")]
        out.append(struct.pack("<IIIIQ", *numbers, one["timeout_ms"]))
    return b"".join(out)


def invoke(
    function: str,
    data: bytes = b"",
    *,
    call: bytes = b"0123456789abcdef",
    attempt: int = 1,
    deadline_ms: int = 0,
    book: int = 7,
    position: int = 0,
    book_name: str = "default",
    content_type: str = "application/json",
    http: tuple[str, str, str, list[tuple[str, str]]] | None = None,
    more_input: bool = False,
) -> bytes:
    flags = more_input | (2 if http else 0)
    body = struct.pack("<16sIIQQB", call, attempt, deadline_ms, book, position, flags)
    body += name(function) + name(book_name) + name(content_type)
    if http:
        method, path, query, pairs = http
        body += name(method) + text(path) + text(query) + headers(pairs)
    return body + data


def invoke_input(data: bytes, last: bool = False) -> bytes:
    return bytes((last,)) + data


def read_hello(body: bytes) -> dict[str, Any]:
    reader = Reader(body)
    version, role, flags = reader.u16(), reader.u8(), reader.u8()
    fields = {"version": version, "role": {1: "client", 2: "worker"}[role], "name": reader.name()}
    reader.finish()
    assert flags == 0
    return fields


def read_register(body: bytes) -> dict[str, Any]:
    reader = Reader(body)
    fields: dict[str, Any] = {field: reader.name() for field in ("worker", "process", "version")}
    fields["concurrency"], fields["pid"] = reader.u32(), reader.u32()
    functions = []
    for _ in range(reader.u16()):
        own = {"name": reader.name(), "description": reader.text()}
        numbers = {"max_attempts": reader.u32(), "timeout_ms": reader.u32()}
        functions.append({**own, **numbers, "streams_input": reader.boolean()})
    reader.finish()
    return {**fields, "functions": functions}


def read_done(body: bytes) -> dict[str, Any]:
    reader = Reader(body)
    status, flags, position = reader.u8(), reader.u8(), reader.seq()
    own, rest = reader.name(), reader.rest()
    if status == 0:
        assert flags == 0
        return {"ok": {"content_type": own, "output": rest.decode()}, "position": position}
    failure = {"code": own, "message": rest.decode(), "retryable": flags == 1}
    return {"error": failure, "position": position}


def read_output_head(body: bytes) -> dict[str, Any]:
    reader = Reader(body)
    status, content_type = reader.u16(), reader.name()
    pairs = [list(pair) for pair in reader.headers()]
    reader.finish()
    return {"status": status, "content_type": content_type, "headers": pairs}


def read_log(body: bytes) -> dict[str, Any]:
    reader = Reader(body)
    call, level = reader.take(16), reader.u8()
    names = {1: "error", 2: "warn", 3: "info", 4: "debug", 5: "trace"}
    own = None if call == bytes(16) else call.hex()
    return {"call": own, "level": names[level], "line": reader.rest().decode()}


def read_call(body: bytes) -> dict[str, Any]:
    reader = Reader(body)
    fields: dict[str, Any] = {
        "book": reader.u64(),
        "position": reader.seq(),
        "deadline_ms": reader.u32(),
        "detached": reader.boolean(),
        "priority": reader.u8(),
        "parent": reader.u64(),
        "function": reader.text(),
    }
    fields["key"], fields["limit_key"] = reader.text() or None, reader.text() or None
    fields["content_type"], fields["input"] = reader.text(), reader.rest().decode()
    return fields


KINDS = {value: key for key, value in vars(wire).items() if key.isupper() and type(value) is int}
