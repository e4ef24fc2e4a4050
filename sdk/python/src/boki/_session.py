"""What outlives a connection: open questions, their bounds, ids and positions.

A connection that breaks is opened again. Then everything without an answer is asked again, in the
order in which it was asked, if asking twice does no more than asking once; what cannot be repeated
fails with `OutcomeUnknown`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from typing import Any, Protocol

from . import _messages as messages
from . import _wire as wire
from ._errors import Closed, Disconnected, Error, OutcomeUnknown, UnexpectedAnswer
from ._link import Link, open_link
from ._terms import Address
from ._wire import ProtocolError

QUICK, WAITING, CALLS = 0, 1, 2
"""Lanes. One kind of question never waits for the answers of another, so those that wait for
something to happen never keep out those that make it happen."""

_MAX_QUICK = 4096
_LARGE_KIB = 128 << 10
_SMALL_BYTES = 4 << 10
_QUIET = 10.0
_FIRST_DELAY, _LONGEST_DELAY = 0.02, 2.0
_FAREWELL = 1.0


class Side(Protocol):
    """The half of a connection that runs functions."""

    def connected(self, link: Link) -> None: ...

    def frame(self, kind: int, corr: int, body: bytes) -> None: ...

    def refused(self, corr: int, error: Error) -> None: ...

    def disconnected(self) -> None: ...


class Seen:
    """A position that only grows: everything below it is visible to the session."""

    __slots__ = ("position",)

    def __init__(self, position: int = 0) -> None:
        self.position = position

    def advance(self, position: int) -> None:
        if position > self.position:
            self.position = position


class Question:
    """Something to ask, kept until it is answered so that it can be asked again."""

    __slots__ = ("answers", "body", "kind", "lane", "repeatable", "what")

    def __init__(
        self,
        kind: int,
        body: bytes,
        answers: tuple[int, ...],
        what: str,
        *,
        lane: int = QUICK,
        repeatable: bool = True,
    ) -> None:
        self.kind = kind
        self.body = body
        self.answers = answers
        """The kinds of frames that answer it."""
        self.what = what
        self.lane = lane
        self.repeatable = repeatable
        """Asking twice does no more than asking once."""


class _Bound:
    """How much there may be of something at once. Those that wait are let in as they came."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_take(self, amount: int) -> bool:
        if self._waiting or self._free < amount:
            return False
        self._free -= amount
        return True

    async def take(self, amount: int) -> None:
        if self.try_take(amount):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(amount)
            else:
                self._let_in()
            raise

    def give_back(self, amount: int) -> None:
        self._free += amount
        self._let_in()

    def _let_in(self) -> None:
        waiting = self._waiting
        while waiting:
            amount, turn = waiting[0]
            if not turn.done():
                if self._free < amount:
                    return
                self._free -= amount
                turn.set_result(None)
            waiting.popleft()


class _Open:
    """A question without an answer."""

    __slots__ = ("answer", "large", "question", "seen", "stalled_since", "was_sent")

    def __init__(
        self, question: Question, seen: Seen | None, answer: asyncio.Future[Any], large: int
    ) -> None:
        self.question = question
        self.seen = seen
        self.answer = answer
        self.large = large
        self.was_sent = False
        self.stalled_since: float | None = None


class Session:
    """See the module."""

    def __init__(
        self,
        address: Address,
        name: str,
        max_in_flight: int,
        *,
        connect_timeout: float,
        reconnect_for: float,
        side: Side | None = None,
    ) -> None:
        self.address = address
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._connect_timeout = connect_timeout
        self._reconnect_for = reconnect_for
        self._side = side
        # Together the lanes stay within what the server takes.
        quarter = max(max_in_flight // 4, 1)
        self._lanes = (
            _Bound(min(quarter, _MAX_QUICK)),
            _Bound(max(max_in_flight // 2, 1)),
            _Bound(quarter),
        )
        self._large = _Bound(_LARGE_KIB)
        self._open: dict[int, _Open] = {}
        # Below are numbers that no question has: 0, and a worker's registration.
        self._next_corr = 2
        self._link: Link | None = None
        self._closed = False
        self._watch: asyncio.TimerHandle | None = None
        self._pinged = False
        self._client_id = os.urandom(8)
        self._appends = 0
        self._seen: dict[int, Seen] = {}
        self._keeper: asyncio.Task[None] | None = None

    def append_id(self) -> bytes:
        """An id that no other append has."""
        self._appends += 1
        return self._client_id + self._appends.to_bytes(8, "big")

    def seen(self, book: int) -> Seen:
        """Where the session's position in a book is kept."""
        return self._seen.setdefault(book, Seen())

    def start(self, link: Link) -> None:
        """Serves the session over `link`, and over further ones when that breaks."""
        self._connected(link)
        self._keeper = self.loop.create_task(self._keep_connected(link))

    async def ask(self, question: Question, seen: Seen | None = None) -> tuple[int, Any]:
        """Asks, once there is room for one more question, and waits for the answer.

        Returns the answer's kind and what it says. `seen` takes note of what it has seen. Whoever
        is cancelled here gives the answer up.
        """
        lane = self._lanes[question.lane]
        size = len(question.body)
        large = 0 if size <= _SMALL_BYTES else min(-(-size // 1024), _LARGE_KIB)
        if not lane.try_take(1):
            await lane.take(1)
        if large and not self._large.try_take(large):
            try:
                await self._large.take(large)
            except BaseException:
                lane.give_back(1)
                raise
        corr = self._next_corr
        self._next_corr = corr + 1
        opened = _Open(question, seen, self.loop.create_future(), large)
        if self._closed:
            self._release(opened)
            raise Closed("the client is closed")
        self._open[corr] = opened
        if self._link is None:
            opened.stalled_since = self.loop.time()
        else:
            opened.was_sent = True
            self._link.send(question.kind, corr, question.body)
            if self._watch is None:
                self._watch_over(self._link)
        try:
            return await opened.answer  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self._give_up(corr)
            if opened.answer.done() and not opened.answer.cancelled():
                # It failed in this very moment, and nobody is told any more.
                opened.answer.exception()
            raise

    async def close(self) -> None:
        """Ends the connection, once what was sent is written. What is open fails."""
        self._closed = True
        opened, self._open = self._open, {}
        for one in opened.values():
            self._end(one, Closed("the client is closed"))
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        link, keeper = self._link, self._keeper
        if link is not None:
            link.close()
            await asyncio.wait([link.lost], timeout=_FAREWELL)
            link.abort()
        if keeper is not None and keeper is not asyncio.current_task():
            keeper.cancel()
            await asyncio.wait([keeper])

    # The connection.

    async def _keep_connected(self, link: Link) -> None:
        delay = _FIRST_DELAY
        while True:
            since = self.loop.time()
            await link.lost
            self._disconnected()
            if self._closed:
                return
            if self.loop.time() - since > _LONGEST_DELAY:
                delay = _FIRST_DELAY
            role = messages.CLIENT if self._side is None else messages.WORKER
            while True:
                # Before the first attempt too: a server may accept every connection and drop it.
                # Clients that lost the same server do not all come back in the same moment.
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, _LONGEST_DELAY)
                try:
                    link, _ = await open_link(self.address, role, self._name, self._connect_timeout)
                    break
                except Error as error:
                    # Failing in the moment of being cancelled may hide that from the task.
                    if self._closed:
                        return
                    self._expire(error)
            if self._closed:
                link.abort()
                return
            self._connected(link)

    def _connected(self, link: Link) -> None:
        self._link = link
        link.receive_with(self._frame)
        if self._side is not None:
            self._side.connected(link)
        for corr, opened in self._open.items():
            opened.was_sent = True
            opened.stalled_since = None
            link.send(opened.question.kind, corr, opened.question.body)
        if self._open:
            self._watch_over(link)

    def _disconnected(self) -> None:
        """What may have been done and cannot be repeated fails, the rest waits."""
        self._link = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        now = self.loop.time()
        for corr, opened in list(self._open.items()):
            if opened.was_sent and not opened.question.repeatable:
                del self._open[corr]
                what = opened.question.what
                self._end(
                    opened,
                    OutcomeUnknown(
                        f"the connection was lost while {what} was under way: it may have been done"
                    ),
                )
            else:
                opened.stalled_since = now
        if self._side is not None:
            self._side.disconnected()

    def _expire(self, last: Error) -> None:
        """No server could be reached: what has waited too long for one fails."""
        since = self.loop.time() - self._reconnect_for
        for corr, opened in list(self._open.items()):
            if opened.stalled_since is not None and opened.stalled_since <= since:
                del self._open[corr]
                text = f"no connection to {self.address} for {self._reconnect_for:g} s: {last}"
                self._end(opened, Disconnected(text))

    def _watch_over(self, link: Link) -> None:
        """While the server owes an answer, a long silence is asked whether it is one."""
        link.heard = False
        self._pinged = False
        self._watch = self.loop.call_later(_QUIET, self._listen, link)

    def _listen(self, link: Link) -> None:
        self._watch = None
        if link.heard:
            self._pinged = False
            if not self._open:
                return
        elif self._pinged:
            link.abort()
            return
        else:
            self._pinged = True
            link.send(wire.PING, 0)
        link.heard = False
        self._watch = self.loop.call_later(_QUIET, self._listen, link)

    # Answers.

    def _frame(self, kind: int, corr: int, body: bytes) -> None:
        if kind in wire.WORKER_KINDS:
            if self._side is not None:
                self._side.frame(kind, corr, body)
            return
        read = messages.ANSWERS.get(kind)
        if read is None:
            return
        if kind == wire.ERROR and corr == 0:
            # The server's word for the whole connection, which it ends now.
            raise ProtocolError(str(read(body)))
        opened = self._open.get(corr)
        if opened is None:
            if kind == wire.ERROR and self._side is not None:
                self._side.refused(corr, read(body))
            return
        result: Any
        try:
            result = read(body)
        except ProtocolError as error:
            kind, result = wire.ERROR, UnexpectedAnswer(f"the server's answer is garbled: {error}")
        if kind == wire.ERROR:
            if result.code == "BK0305" and opened.question.repeatable:
                # The server is about to hang up: the next connection answers.
                return
        elif kind not in opened.question.answers:
            result = UnexpectedAnswer(
                f"a message of kind {kind} in answer to {opened.question.what}"
            )
            kind = wire.ERROR
        del self._open[corr]
        if opened.seen is not None:
            opened.seen.advance(messages.position_of(kind, result))
        self._end(opened, result if kind == wire.ERROR else (kind, result))

    def _give_up(self, corr: int) -> None:
        opened = self._open.pop(corr, None)
        if opened is None:
            return
        # The server goes on with these although nobody wants the answer.
        if self._link is not None and opened.was_sent and opened.question.lane != QUICK:
            self._link.send(wire.CANCEL, corr)
        self._release(opened)

    def _end(self, opened: _Open, result: Error | tuple[int, Any]) -> None:
        self._release(opened)
        if opened.answer.done():
            return
        if isinstance(result, Error):
            opened.answer.set_exception(result)
        else:
            opened.answer.set_result(result)

    def _release(self, opened: _Open) -> None:
        self._lanes[opened.question.lane].give_back(1)
        if opened.large:
            self._large.give_back(opened.large)
