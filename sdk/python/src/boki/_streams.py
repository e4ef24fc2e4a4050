"""Inputs and outputs that travel piece by piece, with credit for what was taken.

In each direction so many bytes may be under way; whoever is slow holds up the other side, never
anybody's memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from . import _wire as wire
from . import _worker_messages as messages
from ._convert import parse_input
from ._link import Link
from ._wire import U32, ProtocolError


class Input:
    """A function's input as it comes: `async for piece in input`.

    A function with a parameter of this type gets its input while the caller still sends it.
    """

    def __init__(self, link: Link, corr: int, begin: bytes, more: bool, content_type: str) -> None:
        self._link = link
        self._corr = corr
        self._pieces: deque[bytes] = deque([begin] if begin else [])
        self._begin = len(begin)
        self._ended = not more
        self._unread = 0
        self._taken = 0
        self._arrived: asyncio.Future[None] | None = None
        self.content_type = content_type
        """What the caller says it is; may be empty."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._ended:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        piece = self._pieces.popleft()
        self._take(len(piece))
        return piece

    async def read(self) -> bytes:
        """All that is left of it."""
        return b"".join([piece async for piece in self])

    async def json(self) -> Any:
        """All that is left of it, taken as JSON."""
        return parse_input(await self.read(), None)

    def _take(self, length: int) -> None:
        # What came with the call itself does not count.
        free = min(self._begin, length)
        self._begin -= free
        self._unread -= length - free
        self._taken += length - free
        if self._taken >= messages.MAX_PIECE and not self._ended:
            self._link.send(wire.INPUT_CREDIT, self._corr, U32.pack(self._taken))
            self._taken = 0

    def feed(self, last: bool, piece: bytes) -> None:
        """The next piece has arrived."""
        self._unread += len(piece)
        if self._ended or self._unread > messages.STREAM_WINDOW:
            raise ProtocolError("more input than the credit allows")
        if piece:
            self._pieces.append(piece)
        self._ended = last
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class OutputStream:
    """The output of one attempt, piece by piece."""

    def __init__(self, link: Link, corr: int) -> None:
        self._link = link
        self._corr = corr
        self._window = messages.STREAM_WINDOW
        self._credited: asyncio.Future[None] | None = None
        self.is_begun = False

    def begin(self, status: int, content_type: str, headers: list[tuple[str, str]]) -> None:
        """Sends the head, after which the attempt is not tried again."""
        head = messages.output_head(status, content_type, headers)
        self._link.send(wire.OUTPUT_HEAD, self._corr, head)
        self.is_begun = True

    async def write(self, data: bytes) -> None:
        """Sends a piece, as soon as there is credit for it."""
        at = 0
        while at < len(data):
            while self._window == 0:
                self._credited = asyncio.get_running_loop().create_future()
                await self._credited
            length = min(len(data) - at, self._window, messages.MAX_PIECE)
            self._window -= length
            self._link.send(wire.OUTPUT_DATA, self._corr, data[at : at + length])
            at += length

    def credit(self, length: int) -> None:
        """So many bytes more may be sent."""
        self._window += length
        if self._credited is not None and not self._credited.done():
            self._credited.set_result(None)
