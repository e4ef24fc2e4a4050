"""Frames and the fields in them: bytes in, bytes out.

Nothing here knows sockets, or what a message means. Whatever bytes arrive, taking them apart
either succeeds or raises `ProtocolError`.

This side sends frames without a checksum and does not look at those it gets: computing them in
Python costs more than the rest of a message, and every stream it runs over has its own.
"""

from __future__ import annotations

import struct

PREAMBLE = b"BOKI\x01\0\0\0"
VERSION = 1
MAX_BODY = 32 << 20
MAX_SEQ = (1 << 53) - 1

HEADER = struct.Struct("<IBBHQII")
U16 = struct.Struct("<H")
U32 = struct.Struct("<I")
U64 = struct.Struct("<Q")

# Kinds of frames. 64 to 95 belong to the worker link.
HELLO, HELLO_OK, PING, PONG, ERROR, CANCEL = 1, 2, 3, 4, 5, 6
APPEND, APPENDED, READ, RECORDS, TAIL, TAIL_IS = 8, 9, 10, 11, 12, 13
TAGS, TAGS_ARE, SET_AUX, AUX_SET = 14, 15, 16, 17
BOOK_OPEN, BOOK_IS, BOOK_CREATE, BOOK_LIST, BOOKS_ARE, BOOK_REMOVE, BOOK_REMOVED = range(24, 31)
CALL, CALL_RESULT, CALL_ACCEPTED, CALL_WAIT, CALL_PENDING, FUNCTION_LIST, FUNCTIONS_ARE = range(
    32, 39
)
REGISTER, REGISTERED, INVOKE, INVOKE_DONE, INVOKE_CANCEL, WORKER_LOG, DRAIN = range(64, 71)
INVOKE_INPUT, INPUT_CREDIT, OUTPUT_HEAD, OUTPUT_DATA, OUTPUT_CREDIT = range(71, 76)
WORKER_KINDS = range(64, 96)


class ProtocolError(Exception):
    """The bytes that arrived are not Boki's protocol."""


def frame(kind: int, corr: int, body: bytes = b"") -> bytes:
    """A frame, ready to be written."""
    return HEADER.pack(len(body), kind, 0, 0, corr, 0, 0) + body


class FrameParser:
    """Cuts a stream of bytes into frames, however it arrives."""

    __slots__ = ("_need", "_rest")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._need = 0

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """The frames that `data` completes: kind, corr and body of each."""
        rest = self._rest
        if rest:
            rest += data
            # A large body is put together once, not looked at with each of its pieces.
            if len(rest) < self._need:
                return []
            data = bytes(rest)
            rest.clear()
        frames = []
        at, end = 0, len(data)
        need = HEADER.size
        while end - at >= 24:
            length, kind, flags, zero, corr, _, zeros = HEADER.unpack_from(data, at)
            if length > MAX_BODY:
                raise ProtocolError(f"a frame of {length} bytes is above the limit of {MAX_BODY}")
            if flags or zero or zeros:
                raise ProtocolError("a reserved field of a frame's header is set")
            stop = at + 24 + length
            if stop > end:
                need = stop - at
                break
            frames.append((kind, corr, data[at + 24 : stop]))
            at = stop
        if at < end:
            rest += data[at:] if at else data
            self._need = need
        return frames


class Reader:
    """Takes a body apart, field by field."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, length: int) -> bytes:
        stop = self._at + length
        if stop > len(self._body):
            raise ProtocolError("a message ends too early")
        piece = self._body[self._at : stop]
        self._at = stop
        return piece

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def seq(self) -> int:
        """A seq or a position."""
        seq = self.u64()
        if seq > MAX_SEQ:
            raise ProtocolError("a seq above every seq")
        return seq

    def boolean(self) -> bool:
        value = self.u8()
        if value > 1:
            raise ProtocolError("a yes or no that is neither")
        return value == 1

    def name(self) -> str:
        return utf8(self.take(self.u8()))

    def text(self) -> str:
        return utf8(self.take(self.u32()))

    def headers(self) -> list[tuple[str, str]]:
        return [(self.name(), self.text()) for _ in range(self.u16())]

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._at)

    def finish(self) -> None:
        if self._at != len(self._body):
            raise ProtocolError("a message is longer than its fields")


def utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a text is not UTF-8") from None


def name(text: str) -> bytes:
    """A short text: a length of one byte, and its UTF-8. Who calls has checked its length."""
    data = text.encode()
    return bytes((len(data),)) + data


def cut(text: str, limit: int) -> str:
    """As much of `text` as fits into `limit` bytes, ended between characters."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[:limit].decode("utf-8", "ignore")


def text(value: str) -> bytes:
    """A text: a length of four bytes, and its UTF-8."""
    data = value.encode()
    return U32.pack(len(data)) + data


def headers(pairs: list[tuple[str, str]]) -> bytes:
    """The headers of an HTTP message."""
    return U16.pack(len(pairs)) + b"".join(name(key) + text(value) for key, value in pairs)
