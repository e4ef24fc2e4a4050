"""The worker link's messages: a server's are decoded here, a worker's encoded."""

from __future__ import annotations

import struct
from typing import NamedTuple

from . import _wire as wire
from ._wire import MAX_SEQ, U16, U32, ProtocolError, Reader, name, text

STREAM_WINDOW = 256 << 10
MAX_PIECE = 64 << 10
ERROR, WARN, INFO, DEBUG, TRACE = 1, 2, 3, 4, 5
BY_CALLER, BY_DEADLINE, BY_SHUTDOWN = 1, 2, 3
NO_CALL = bytes(16)

_INVOKE = struct.Struct("<16sIIQQB")
_DONE = struct.Struct("<BBQ")
_MORE_INPUT, _OVER_HTTP = 1, 2


class FunctionSpec(NamedTuple):
    """What a worker says of one function that it offers."""

    name: str
    description: str
    max_attempts: int
    """How often a call is tried at most; 0: the server's default."""
    timeout_ms: int
    """How long a call may take unless the caller says otherwise; 0: the server's default."""
    streams_input: bool
    """It takes its input piece by piece: the server need not gather it."""


class HttpHead(NamedTuple):
    """The HTTP request that a call came by."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]


class Invoke:
    """Run a function. The HTTP head stays as it came until somebody asks for it."""

    __slots__ = (
        "_head",
        "attempt",
        "book",
        "book_name",
        "call",
        "content_type",
        "deadline_ms",
        "function",
        "input",
        "more_input",
        "position",
    )

    def __init__(self, body: bytes) -> None:
        try:
            call, attempt, deadline_ms, book, position, flags = _INVOKE.unpack_from(body)
            at = 42 + body[41]
            function = body[42:at]
            stop = at + 1 + body[at]
            book_name = body[at + 1 : stop]
            at = stop + 1 + body[stop]
            content_type = body[stop + 1 : at]
            if at > len(body):
                raise IndexError
        except (struct.error, IndexError):
            raise ProtocolError("a message ends too early") from None
        if position > MAX_SEQ:
            raise ProtocolError("a position above every seq")
        if flags & ~(_MORE_INPUT | _OVER_HTTP):
            raise ProtocolError("unknown flags")
        self.call: bytes = call
        self.attempt: int = attempt
        self.deadline_ms: int = deadline_ms
        self.book: int = book
        self.position: int = position
        self.more_input = flags & _MORE_INPUT != 0
        self.function = wire.utf8(function)
        self.book_name = wire.utf8(book_name)
        self.content_type = wire.utf8(content_type)
        self._head: bytes | None = None
        if flags & _OVER_HTTP:
            start, at = at, _skip_head(body, at)
            self._head = body[start:at]
        self.input = body[at:]

    def http(self) -> HttpHead | None:
        """The HTTP request that the call came by, if it did."""
        if self._head is None:
            return None
        reader = Reader(self._head)
        return HttpHead(reader.name(), reader.text(), reader.text(), reader.headers())


def _skip_head(body: bytes, at: int) -> int:
    """Where the HTTP head that begins at `at` ends."""
    u32 = U32.unpack_from
    try:
        at += 1 + body[at]
        at += 4 + u32(body, at)[0]
        at += 4 + u32(body, at)[0]
        count = U16.unpack_from(body, at)[0]
        at += 2
        for _ in range(count):
            at += 1 + body[at]
            at += 4 + u32(body, at)[0]
    except (struct.error, IndexError):
        raise ProtocolError("a message ends too early") from None
    if at > len(body):
        raise ProtocolError("a message ends too early")
    return at


def read_registered(body: bytes) -> int:
    """How the server names the worker."""
    reader = Reader(body)
    worker_id = reader.u64()
    reader.finish()
    return worker_id


def read_invoke_input(body: bytes) -> tuple[bool, bytes]:
    """Whether nothing follows, and the next piece of an input."""
    reader = Reader(body)
    last = reader.boolean()
    return last, reader.rest()


def read_credit(body: bytes) -> int:
    """How many bytes more may be sent."""
    reader = Reader(body)
    credit = reader.u32()
    reader.finish()
    return credit


def read_cancel(body: bytes) -> int:
    """Why an attempt is given up; what is not known is taken as the caller's wish."""
    reader = Reader(body)
    reason = reader.u8()
    reader.finish()
    return reason if reason in (BY_DEADLINE, BY_SHUTDOWN) else BY_CALLER


def register(
    worker: str,
    process: str,
    version: str,
    concurrency: int,
    pid: int,
    functions: list[FunctionSpec],
) -> bytes:
    head = [name(wire.cut(worker, 255)), name(process), name(wire.cut(version, 255))]
    head += [U32.pack(concurrency), U32.pack(pid), U16.pack(len(functions))]
    for spec in functions:
        numbers = struct.pack("<IIB", spec.max_attempts, spec.timeout_ms, spec.streams_input)
        head += [name(spec.name), text(spec.description), numbers]
    return b"".join(head)


def done(position: int, content_type: str, output: bytes) -> bytes:
    """A function has returned."""
    return _DONE.pack(0, 0, position) + name(content_type) + output


def failed(position: int, code: str, message: str, retryable: bool) -> bytes:
    """A function has failed."""
    return _DONE.pack(1, retryable, position) + name(wire.cut(code, 255)) + message.encode()


def output_head(status: int, content_type: str, headers: list[tuple[str, str]]) -> bytes:
    return U16.pack(status) + name(content_type) + wire.headers(headers)


def log_line(call: bytes, level: int, line: str) -> bytes:
    return call + bytes((level,)) + line.encode("utf-8", "replace")
