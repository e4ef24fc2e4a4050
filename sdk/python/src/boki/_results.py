"""What a server answers, as a program sees it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ._errors import NotJson


class Appended(int):
    """The seq of the first record that an append added; 0 if it is on disk and not ordered yet."""

    count: int
    """How many records the append added."""
    repeated: bool
    """Its id had been used before: this is what was added then, and nothing was added now."""
    position: int
    """What the session has seen with it."""

    def __new__(cls, seq: int, count: int, repeated: bool, position: int) -> Appended:
        appended = super().__new__(cls, seq)
        appended.count = count
        appended.repeated = repeated
        appended.position = position
        return appended


class Record:
    """A record of a book."""

    __slots__ = ("aux", "data", "seq", "tags", "time_us")

    def __init__(
        self, seq: int, time_us: int, tags: tuple[str, ...], data: bytes, aux: bytes | None
    ) -> None:
        self.seq = seq
        """Its place in the order."""
        self.time_us = time_us
        """When it was ordered, in microseconds since 1970: the same for every reader."""
        self.tags = tags
        """Its tags, sorted."""
        self.data = data
        """Its payload."""
        self.aux = aux
        """Its cache hint, if the server has any."""

    @property
    def time(self) -> float:
        """When it was ordered, in seconds since 1970, as `time.time()` counts."""
        return self.time_us / 1e6

    @property
    def text(self) -> str:
        """Its payload as text."""
        return self.data.decode()

    def json(self) -> Any:
        """Its payload, taken as JSON."""
        return parse_json(self.data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Record({self.seq}, tags={self.tags!r}, data={self.data!r})"

    def _fields(self) -> tuple[object, ...]:
        return (self.seq, self.time_us, self.tags, self.data, self.aux)


class TagPage(NamedTuple):
    """A page of tags, in the order of their bytes."""

    tags: list[tuple[str, int]]
    """Each with the last seq under it."""
    more: bool
    """There are more after the last of these."""


class BookInfo(NamedTuple):
    """A book as the catalog has it."""

    id: int
    name: str
    created_us: int


class CallOutput:
    """What a call returned, with everything that is known of it."""

    __slots__ = ("attempts", "content_type", "data", "id", "position")

    def __init__(
        self, id: str, data: bytes, content_type: str, position: int, attempts: int
    ) -> None:
        self.id = id
        """The call: 32 hexadecimal digits."""
        self.data = data
        """What the function returned."""
        self.content_type = content_type
        """Of the data; may be empty."""
        self.position = position
        """What the caller has seen now."""
        self.attempts = attempts
        """How many attempts it took."""

    def json(self) -> Any:
        """The output, taken as JSON."""
        return parse_json(self.data)

    @property
    def value(self) -> Any:
        """The output: what its JSON says if it is JSON, else the bytes."""
        return self.json() if self.content_type == "application/json" else self.data

    def __repr__(self) -> str:
        return f"CallOutput({self.id}, {self.content_type!r}, {self.data!r})"


class Sent(NamedTuple):
    """A call that is on record: it will run, whatever crashes."""

    id: str
    """By which its result can be asked for."""
    position: int


class FunctionInfo(NamedTuple):
    """A function that the server knows."""

    name: str
    description: str
    workers: int
    running: int
    queued: int
    max_attempts: int
    timeout_ms: int


def parse_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotJson(f"JSON: {error}") from error
