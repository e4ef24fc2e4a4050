"""One connection to a server: frames in, frames out, and the handshake.

What is sent within one turn of the event loop is written with one call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from . import _messages as messages
from . import _wire as wire
from ._errors import ConnectFailed, Error, UnexpectedAnswer
from ._terms import Address
from ._wire import HEADER, FrameParser, ProtocolError

OnFrame = Callable[[int, int, bytes], None]


class Link(asyncio.Protocol):
    """A connection. `lost` is done when it has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = FrameParser()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._on_frame: OnFrame = self._greeted
        self.greeting: asyncio.Future[tuple[int, bytes]] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.heard = False
        """Something has arrived since this was last set to false."""

    def receive_with(self, on_frame: OnFrame) -> None:
        """From now on frames go there."""
        self._on_frame = on_frame

    def send(self, kind: int, corr: int, body: bytes = b"") -> None:
        """Sends a frame, soon; over a connection that has ended, never."""
        if self._transport is None:
            return
        out = self._out
        if not out:
            self._loop.call_soon(self._flush)
        out.append(HEADER.pack(len(body), kind, 0, 0, corr, 0, 0))
        if body:
            out.append(body)

    @property
    def backlog(self) -> int:
        """How many bytes wait to be written."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Ends the connection, once what was sent is written."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def _greeted(self, kind: int, corr: int, body: bytes) -> None:
        if not self.greeting.done():
            self.greeting.set_result((kind, body))

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not every loop's transport says that it is one.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            for kind, corr, body in self._parser.feed(data):
                if kind == wire.PING:
                    self.send(wire.PONG, corr)
                else:
                    self._on_frame(kind, corr, body)
        except ProtocolError:
            # Nothing that follows can be trusted. Whoever waits asks again on the next connection.
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._out.clear()
        if not self.greeting.done():
            self.greeting.set_exception(exc or ConnectionResetError("the server hung up"))
            # Whoever opens the connection may have given up by now.
            self.greeting.exception()
        if not self.lost.done():
            self.lost.set_result(None)


async def open_link(address: Address, role: int, name: str, timeout: float) -> tuple[Link, int]:
    """Connects and shakes hands. Returns also how many questions may be open at once."""
    loop = asyncio.get_running_loop()
    link = Link(loop)
    try:
        return link, await asyncio.wait_for(_shake_hands(loop, link, address, role, name), timeout)
    except (OSError, asyncio.TimeoutError) as error:
        link.abort()
        reason = str(error) or "no answer in time"
        raise ConnectFailed(f"cannot connect to {address}: {reason}") from error
    except BaseException:
        link.abort()
        raise


async def _shake_hands(
    loop: asyncio.AbstractEventLoop, link: Link, address: Address, role: int, name: str
) -> int:
    if address.path is not None:
        transport, _ = await loop.create_unix_connection(lambda: link, address.path)
    else:
        transport, _ = await loop.create_connection(lambda: link, address.host, address.port)
    transport.write(wire.PREAMBLE)
    link.send(wire.HELLO, 0, messages.hello(role, name))
    kind, body = await link.greeting
    try:
        if kind == wire.HELLO_OK:
            version, max_in_flight, _, _ = messages.read_hello_ok(body)
            if version != wire.VERSION:
                raise UnexpectedAnswer(f"the server speaks version {version} of the protocol")
            return max_in_flight
        error: Error = (
            messages.read_error(body)
            if kind == wire.ERROR
            else UnexpectedAnswer(f"a message of kind {kind} instead of a greeting")
        )
    except ProtocolError as garbage:
        error = UnexpectedAnswer(str(garbage))
    raise error
