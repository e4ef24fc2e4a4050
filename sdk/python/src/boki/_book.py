"""A book, by which its records are appended and read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, Literal, TypeVar

from . import _messages as messages
from . import _wire as wire
from ._batch import NO_ID, records_batch, trim_batch
from ._errors import DeadlineExceeded, Error, InvalidArgument
from ._payload import record_payload
from ._results import Appended, Record, TagPage
from ._session import WAITING, Question, Seen, Session
from ._terms import Duration, milliseconds, seconds
from ._wire import MAX_SEQ

Consistency = Literal["session", "linearizable", "any"]
Ack = Literal["ordered", "durable"]

_CONSISTENCIES = {
    "session": messages.SESSION,
    "linearizable": messages.LINEARIZABLE,
    "any": messages.ANY,
}
_LONG_WAIT_MS = 3_600_000

T = TypeVar("T")


class Book:
    """A book. What one handle of a client's book has seen, all of them have seen.

    The one of a function (`cx.book`) has seen what the caller had seen; what it sees, the caller
    has seen when the call returns.
    """

    __slots__ = ("_seen", "_session", "id", "name")

    def __init__(self, session: Session, number: int, name: str, seen: Seen) -> None:
        self._session = session
        self._seen = seen
        self.id = number
        """Its number: never used again."""
        self.name = name

    @property
    def position(self) -> int:
        """Everything below this is visible to the session."""
        return self._seen.position

    def advance_to(self, position: int) -> None:
        """Takes over what another session has seen: every later read sees it too."""
        if not 0 <= position <= MAX_SEQ:
            raise InvalidArgument(f"invalid position: {position}")
        self._seen.advance(position)

    async def append(
        self,
        data: Any,
        *,
        tags: Iterable[str] = (),
        if_tail: Mapping[str, int] | None = None,
        fence: Mapping[str, int] | None = None,
        raises: Mapping[str, int] | None = None,
        id: bytes | None = None,
        ack: Ack = "ordered",
        deadline: Duration | None = None,
    ) -> Appended:
        """Appends a record; returns its seq. `data`: bytes and texts as they are, else as JSON.

        `if_tail={tag: seq}`: only if the last record under each tag has this seq (0: none there).
        `fence={tag: epoch}`: only if nobody with a later epoch has taken over; `raises` takes over.
        `id`: 16 bytes; repeating an append with its id adds nothing. `ack="durable"` is answered as
        soon as the record is on disk, when its seq may not be known yet; not with conditions.
        """
        return await self.append_batch(
            [(data, tags)],
            if_tail=if_tail,
            fence=fence,
            raises=raises,
            id=id,
            ack=ack,
            deadline=deadline,
        )

    async def append_batch(
        self,
        records: Iterable[tuple[Any, Iterable[str]]],
        *,
        if_tail: Mapping[str, int] | None = None,
        fence: Mapping[str, int] | None = None,
        raises: Mapping[str, int] | None = None,
        id: bytes | None = None,
        ack: Ack = "ordered",
        deadline: Duration | None = None,
    ) -> Appended:
        """Appends several records, contiguous, all or none: data and tags of each.

        Returns the seq of the first. The rest is as in `append`.
        """
        if id is not None and (len(id) != 16 or id == NO_ID):
            raise InvalidArgument("invalid id: it has 16 bytes, not all of them zero")
        if ack not in ("ordered", "durable"):
            raise InvalidArgument(f'invalid ack: {ack!r} is neither "ordered" nor "durable"')
        batch = records_batch(
            self.id,
            id or self._session.append_id(),
            [(record_payload(data), tags) for data, tags in records],
            if_tail,
            fence,
            raises,
        )
        body = messages.append(ack == "durable", batch)
        question = Question(wire.APPEND, body, (wire.APPENDED,), "an append")
        appended: Appended = (await within(deadline, self._session.ask(question, self._seen)))[1]
        return appended

    async def read_next(
        self,
        seq: int = 1,
        *,
        tag: str | None = None,
        limit: int = 100,
        wait: Duration | None = None,
        consistency: Consistency = "session",
        deadline: Duration | None = None,
    ) -> list[Record]:
        """Records from `seq` on, that one included: of one tag, or of the whole book.

        The server may return fewer than there are: read on after the last. If nothing matches, it
        waits up to `wait` for a record that does.
        """
        read = self._read(messages.NEXT, seq, tag, limit, consistency, milliseconds(wait))
        return await within(deadline, read)

    async def read_prev(
        self,
        seq: int = MAX_SEQ,
        *,
        tag: str | None = None,
        limit: int = 100,
        consistency: Consistency = "session",
        deadline: Duration | None = None,
    ) -> list[Record]:
        """Records from `seq` back, that one included, the newest first."""
        return await within(deadline, self._read(messages.PREV, seq, tag, limit, consistency, 0))

    async def first(
        self, tag: str | None = None, *, seq: int = 1, consistency: Consistency = "session"
    ) -> Record | None:
        """The first record from `seq` on, if there is any."""
        records = await self._read(messages.NEXT, seq, tag, 1, consistency, 0)
        return records[0] if records else None

    async def last(
        self, tag: str | None = None, *, seq: int = MAX_SEQ, consistency: Consistency = "session"
    ) -> Record | None:
        """The last record up to `seq`, if there is any."""
        records = await self._read(messages.PREV, seq, tag, 1, consistency, 0)
        return records[0] if records else None

    async def wait(
        self, seq: int = 1, *, tag: str | None = None, timeout: Duration = "30s"
    ) -> Record | None:
        """The first record from `seq` on; waits for it. `None`: it did not come in time."""
        records = await self.read_next(seq, tag=tag, limit=1, wait=timeout)
        return records[0] if records else None

    async def records(
        self,
        start: int = 1,
        end: int = MAX_SEQ,
        *,
        tag: str | None = None,
        consistency: Consistency = "session",
        batch: int = 256,
    ) -> AsyncIterator[Record]:
        """The records from `start` to `end`, both included, up to the last one there is."""
        while start <= end:
            records = await self._read(messages.NEXT, start, tag, batch, consistency, 0)
            if not records:
                return
            for record in records:
                if record.seq > end:
                    return
                yield record
            start = records[-1].seq + 1

    async def subscribe(
        self, start: int = 1, *, tag: str | None = None, batch: int = 256
    ) -> AsyncIterator[Record]:
        """Every record from `start` on, as it comes, for ever. Survives lost connections."""
        while True:
            records = await self._read(messages.NEXT, start, tag, batch, "session", _LONG_WAIT_MS)
            for record in records:
                yield record
            if records:
                start = records[-1].seq + 1

    async def tail(self, tag: str | None = None, *, consistency: Consistency = "session") -> int:
        """The last seq of the book, or of one tag; 0: there is none."""
        kind, position = self._promise(consistency)
        body = messages.tail(self.id, tag, kind, position)
        question = Question(wire.TAIL, body, (wire.TAIL_IS,), "asking for a tail")
        return int((await self._session.ask(question, self._seen))[1][0])

    async def tags(
        self, prefix: str = "", *, after: str | None = None, limit: int = 1000
    ) -> TagPage:
        """The tags that begin with `prefix`, in byte order, each with its last seq."""
        kind, position = self._promise("session")
        body = messages.tags(self.id, prefix, after, limit, kind, position)
        question = Question(wire.TAGS, body, (wire.TAGS_ARE,), "listing tags")
        page: TagPage = (await self._session.ask(question, self._seen))[1][0]
        return page

    async def trim(self, below: int, *, tag: str | None = None) -> None:
        """Removes the records below a seq: of the whole book, or of one tag."""
        body = messages.append(False, trim_batch(self.id, tag, below))
        question = Question(wire.APPEND, body, (wire.APPENDED,), "a trim")
        await self._session.ask(question, self._seen)

    async def set_aux(self, seq: int, aux: Any) -> None:
        """Attaches a cache hint to a record: it may vanish at any time. An empty one removes it."""
        body = messages.set_aux(self.id, seq, record_payload(aux))
        await self._session.ask(Question(wire.SET_AUX, body, (wire.AUX_SET,), "setting aux data"))

    def __repr__(self) -> str:
        return f"Book({self.name!r}, {self.id}, position={self.position})"

    async def _read(
        self,
        direction: int,
        seq: int,
        tag: str | None,
        limit: int,
        consistency: Consistency,
        wait_ms: int,
    ) -> list[Record]:
        kind, position = self._promise(consistency)
        body = messages.read(self.id, tag, seq, direction, limit, kind, position, wait_ms)
        question = Question(wire.READ, body, (wire.RECORDS,), "a read")
        if wait_ms:
            question.lane = WAITING
        records: list[Record] = (await self._session.ask(question, self._seen))[1][0]
        return records

    def _promise(self, consistency: Consistency) -> tuple[int, int]:
        kind = _CONSISTENCIES.get(consistency)
        if kind is None:
            raise InvalidArgument(f'invalid consistency: {consistency!r} is none ("session")')
        return kind, self._seen.position if kind == messages.SESSION else 0


async def within(deadline: Duration | None, what: Awaitable[T]) -> T:
    """Waits for `what`, but not longer than the caller's own deadline."""
    if deadline is None:
        return await what
    timeout = seconds(deadline)
    try:
        return await asyncio.wait_for(what, timeout)
    except Error:
        raise
    except asyncio.TimeoutError as error:
        raise DeadlineExceeded(f"not done within {timeout:g} s") from error
