"""A server that does what a test says: it sees every frame, and sends what it is told to."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import server_side

from boki import _wire as wire
from boki._wire import FrameParser

Frame = tuple[int, int, bytes]


class Peer:
    """One connection, as the server has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = FrameParser()
        self._frames: list[Frame] = []
        self.preamble = b""

    async def greet(self, max_in_flight: int = 16384) -> dict[str, Any]:
        """Shakes hands; returns what the other side said of itself."""
        await self.read_preamble()
        kind, corr, body = await self.next()
        assert (kind, corr) == (wire.HELLO, 0)
        self.send(wire.HELLO_OK, 0, server_side.hello_ok(max_in_flight))
        return server_side.read_hello(body)

    async def read_preamble(self) -> None:
        self.preamble = await self._reader.readexactly(8)

    async def next(self) -> Frame:
        """The next frame."""
        while not self._frames:
            data = await self._reader.read(1 << 16)
            if not data:
                raise EOFError
            self._frames += self._parser.feed(data)
        return self._frames.pop(0)

    async def expect(self, kind: int) -> tuple[int, bytes]:
        """The next frame, which is of this kind: corr and body."""
        got, corr, body = await self.next()
        assert got == kind, f"{server_side.KINDS.get(got)}: {body!r}"
        return corr, body

    def send(self, kind: int, corr: int, body: bytes = b"") -> None:
        self._writer.write(wire.frame(kind, corr, body))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def ended(self) -> bool:
        """Waits for the other side to hang up; whether it said nothing more."""
        try:
            await self.next()
        except (EOFError, ConnectionError):
            return True
        return False

    def cut(self) -> None:
        """Ends the connection as a crash would."""
        self._writer.transport.abort()


class FakeServer:
    """Listens on a free port."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Hears no more, and ends what there is."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def peer(self) -> Peer:
        """The next connection, before its handshake."""
        return await self._peers.get()

    async def greeted(self) -> Peer:
        """The next connection, behind its handshake."""
        peer = await self.peer()
        await peer.greet()
        return peer

    async def __aenter__(self) -> FakeServer:
        await self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._peers.put_nowait(Peer(reader, writer))
