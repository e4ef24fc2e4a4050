"""The batch: the unit of an append. The same bytes cross the wire and lie on the server's disk."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from ._crc32c import crc32c
from ._errors import Error, InvalidArgument, InvalidTag
from ._wire import MAX_SEQ, U32, U64, name

_HEAD = struct.Struct("<Q16sBBHHHI")
_RECORDS, _TRIM = 1, 2
_TAIL, _FENCE = b"\1", b"\2"
_U64_MAX = (1 << 64) - 1
NO_ID = bytes(16)


def tag_bytes(tag: str) -> bytes:
    """A tag as it is written: 1 to 255 bytes of UTF-8, behind their number."""
    if not tag:
        raise InvalidTag("invalid tag: a tag is never empty")
    if len(tag.encode()) > 255:
        raise InvalidTag("invalid tag: a tag has at most 255 bytes")
    return name(tag)


def records_batch(
    book: int,
    append_id: bytes,
    records: Iterable[tuple[bytes, Iterable[str]]],
    if_tail: Mapping[str, int] | None = None,
    fence: Mapping[str, int] | None = None,
    raises: Mapping[str, int] | None = None,
) -> bytes:
    """A batch of records: payload and tags of each."""
    conditions = [_TAIL + tag_bytes(tag) + _seq(seq) for tag, seq in (if_tail or {}).items()]
    conditions += [_FENCE + tag_bytes(tag) + _epoch(epoch) for tag, epoch in (fence or {}).items()]
    raised = [tag_bytes(tag) + _epoch(epoch) for tag, epoch in (raises or {}).items()]
    bodies: list[bytes] = []
    for payload, tags in records:
        if isinstance(tags, str):
            raise InvalidArgument("invalid tags: a list of tags is expected, not one text")
        # In the order of their bytes, each once; UTF-8 keeps the order of the characters.
        sorted_tags = sorted(set(tags))
        if len(sorted_tags) > 255:
            raise Error(f"tags on a record is {len(sorted_tags)}, the limit is 255", code="BK0104")
        head = bytes((len(sorted_tags),)) + b"".join(map(tag_bytes, sorted_tags))
        bodies += [U32.pack(len(head) + len(payload)), head, payload]
    if not bodies:
        raise InvalidArgument("invalid batch: it has no records")
    counts = (len(conditions), len(raised))
    if max(counts) > 0xFFFF:
        raise InvalidArgument("invalid batch: it has more than 65535 conditions")
    head = _HEAD.pack(book, append_id, _RECORDS, 0, *counts, 0, len(bodies) // 3)
    return _sealed(b"".join([head, *conditions, *raised, *bodies]))


def trim_batch(book: int, tag: str | None, below: int) -> bytes:
    """A batch that trims a book, or one tag of it, below a seq."""
    tags = b"\0" if tag is None else b"\1" + tag_bytes(tag)
    head = _HEAD.pack(book, NO_ID, _TRIM, 0, 0, 0, 0, 1)
    return _sealed(head + U32.pack(len(tags) + 8) + tags + _seq(below))


def _sealed(rest: bytes) -> bytes:
    return U32.pack(len(rest) + 8) + U32.pack(crc32c(rest)) + rest


def _seq(seq: int) -> bytes:
    if not 0 <= seq <= MAX_SEQ:
        raise InvalidArgument(f"invalid seq: {seq} is not one (0 to {MAX_SEQ})")
    return U64.pack(seq)


def _epoch(epoch: int) -> bytes:
    if not 0 <= epoch <= _U64_MAX:
        raise InvalidArgument(f"invalid epoch: {epoch} does not fit into 64 bits")
    return U64.pack(epoch)
