"""A worker's way to the server, with a place in it where the connection can be cut.

Every frame is passed on, both ways. Here it is seen which operation a function asks for, and an
answer can be kept from the worker after the server has done what it says. For `boki.testing`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from . import _wire as wire
from ._terms import parse_address
from ._wire import FrameParser

_CHUNK = 64 << 10
_TRIM, _DETACHED = 2, 1
_KIND_OF_BATCH, _FLAGS_OF_CALL = 1 + 32, 20

OPERATIONS = (
    "start",
    "append",
    "trim",
    "read",
    "tail",
    "tags",
    "set_aux",
    "call",
    "send",
    "return",
)


def _asked(kind: int, body: bytes) -> str | None:
    """What a question of a worker asks for, if it is an operation."""
    if kind == wire.APPEND:
        is_trim = len(body) > _KIND_OF_BATCH and body[_KIND_OF_BATCH] == _TRIM
        return "trim" if is_trim else "append"
    if kind == wire.CALL:
        is_detached = len(body) > _FLAGS_OF_CALL and body[_FLAGS_OF_CALL] & _DETACHED
        return "send" if is_detached else "call"
    names = {wire.READ: "read", wire.TAIL: "tail", wire.TAGS: "tags", wire.SET_AUX: "set_aux"}
    return names.get(kind)


@dataclass
class _Planned:
    operation: str
    nth: int
    seen: int = 0


class Crashes:
    """The crashes that are to come. Each happens once."""

    def __init__(self) -> None:
        self._planned: list[_Planned] = []
        self._running = 0

    def plan(self, operation: str, nth: int) -> None:
        if operation not in OPERATIONS:
            known = ", ".join(OPERATIONS)
            raise ValueError(f"there is no operation {operation!r}; there are: {known}")
        self._planned.append(_Planned(operation, max(nth, 1)))

    def connected(self) -> None:
        """A worker has connected: it runs nothing."""
        self._running = 0
        self._count_anew()

    def from_worker(self, kind: int, body: bytes) -> tuple[bool, bool]:
        """Whether the worker does not survive this frame, and whether not the answer to it."""
        if kind == wire.INVOKE_DONE:
            self._running -= 1
            return self._happens("return"), False
        operation = _asked(kind, body)
        return False, operation is not None and self._happens(operation)

    def begins(self) -> bool:
        """An attempt begins. Whether the worker does not survive that."""
        self._running += 1
        if self._running == 1:
            # What is counted is counted in one attempt: nobody could tell several apart.
            self._count_anew()
        return self._happens("start")

    def _count_anew(self) -> None:
        for planned in self._planned:
            planned.seen = 0

    def _happens(self, operation: str) -> bool:
        for planned in self._planned:
            if planned.operation == operation:
                planned.seen += 1
                if planned.seen == planned.nth:
                    self._planned.remove(planned)
                    return True
        return False


class Crossing:
    """Passes a worker's connections on to the server, one after the other."""

    def __init__(self, server: str) -> None:
        self._server = parse_address(server)
        self._listener: asyncio.Server | None = None
        self._both: list[asyncio.StreamWriter] = []
        self._doomed: int | None = None
        self._registrations = 0
        self._registered = asyncio.Condition()
        self.crashes = Crashes()

    async def open(self) -> str:
        """Where the worker finds it."""
        self._listener = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._cut()

    async def crash(self) -> None:
        """Cuts the connection there is. Returns when the worker has registered again."""
        before = self._registrations
        self._cut()
        async with self._registered:
            await self._registered.wait_for(lambda: self._registrations > before)

    def _cut(self) -> None:
        for writer in self._both:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, worker: asyncio.StreamWriter) -> None:
        server: asyncio.StreamWriter | None = None
        try:
            address = self._server
            if address.path is not None:
                answers, server = await asyncio.open_unix_connection(address.path)
            else:
                answers, server = await asyncio.open_connection(address.host, address.port)
            self._both = [worker, server]
            self._doomed = None
            self.crashes.connected()
            server.write(await reader.readexactly(len(wire.PREAMBLE)))
            both_ways = [
                asyncio.ensure_future(self._from_worker(reader, server)),
                asyncio.ensure_future(self._from_server(answers, worker)),
            ]
            _, going_on = await asyncio.wait(both_ways, return_when=asyncio.FIRST_COMPLETED)
            for way in going_on:
                way.cancel()
            await asyncio.gather(*both_ways, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            pass  # a connection that is lost: the worker opens another
        finally:
            for writer in (worker, server):
                if writer is not None:
                    writer.close()

    async def _from_worker(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        parser = FrameParser()
        while data := await reader.read(_CHUNK):
            for kind, corr, body in parser.feed(data):
                now, later = self.crashes.from_worker(kind, body)
                if now:
                    self._cut()
                    return
                if later:
                    self._doomed = corr
                server.write(wire.frame(kind, corr, body))
            await server.drain()

    async def _from_server(
        self, reader: asyncio.StreamReader, worker: asyncio.StreamWriter
    ) -> None:
        parser = FrameParser()
        while data := await reader.read(_CHUNK):
            for kind, corr, body in parser.feed(data):
                is_answer = kind not in wire.WORKER_KINDS
                if (kind == wire.INVOKE and self.crashes.begins()) or (
                    is_answer and corr == self._doomed
                ):
                    self._cut()
                    return
                worker.write(wire.frame(kind, corr, body))
                if kind == wire.REGISTERED:
                    async with self._registered:
                        self._registrations += 1
                        self._registered.notify_all()
            with suppress(ConnectionError):
                await worker.drain()
