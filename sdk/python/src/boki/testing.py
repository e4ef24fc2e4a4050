"""A server of one's own for a test, with the functions under test in the test's own process.

    from boki.testing import Server

    def test_hello() -> None:
        with Server(hello) as server:
            assert server.call("hello", "ada") == "Hello ada!"

The server is the `boki` binary of `BOKI_BIN`, else that on the path; its data is gone afterwards.
With `virtual_time=True` its time stands still until `advance` moves it, and at any time it crashes
where the test wants it: `crash_worker`, `crash_after`, `restart`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from . import sync
from ._client import connect
from ._crash import Crossing
from ._function import Function, registered
from ._results import CallOutput, Sent
from ._server_process import ServerProcess
from ._terms import Duration, seconds
from ._worker import Worker

__all__ = ["Server"]

_PATIENCE = 30.0


class Server:
    """A server, and a worker with these functions (otherwise all that are decorated).

    `config` is the text of a `boki.toml`, `settings` are such on top: `{"limits__record": "1MiB"}`.
    With `virtual_time` the server's time stands still: at the present, or at a moment such as
    `"2030-01-01T00:00:00Z"`.
    """

    def __init__(
        self,
        *functions: Callable[..., Any],
        binary: str | None = None,
        config: str = "",
        settings: Mapping[str, str] | None = None,
        concurrency: int = 100,
        virtual_time: bool | str = False,
    ) -> None:
        self._process = ServerProcess(binary, config, settings, virtual_time)
        self._crossing: Crossing | None = None
        self._functions: Sequence[Callable[..., Any] | Function] = functions or registered
        self._concurrency = concurrency
        self._thread: sync.LoopThread | None = None
        self._client: sync.Client | None = None
        self._worker: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._ready: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Of its HTTP side and its native protocol alike."""
        return self._process.url

    @property
    def log(self) -> str:
        """What the server has logged so far, lines of calls included."""
        return self._process.log

    @property
    def client(self) -> sync.Client:
        """A client of the server."""
        if self._client is None:
            raise RuntimeError('the server runs inside "with Server(..) as server"')
        return self._client

    def book(self, name: str = "default") -> sync.Book:
        """A book of that name: made if there is none."""
        from ._errors import BookNotFound

        try:
            return self.client.book(name)
        except BookNotFound:
            return self.client.create_book(name)

    def call(self, function: str, input: Any = None, **terms: Any) -> Any:
        """As `Client.call`."""
        return self.client.call(function, input, **terms)

    def send(self, function: str, input: Any = None, **terms: Any) -> Sent:
        """As `Client.send`."""
        return self.client.send(function, input, **terms)

    def result(self, call: str, *, wait: Duration = "30s") -> CallOutput | None:
        """As `Client.result`; waits for it."""
        return self.client.result(call, wait=wait)

    def advance(self, by: Duration, *, once_pausing: int = 0) -> None:
        """Lets so much time pass, at once: for a server with `virtual_time`.

        What falls due on the way happens at the new time. First it waits until so many calls pause,
        because their functions failed and said that trying again may help.
        """
        self._process.advance(f"{math.ceil(seconds(by) * 1000)}ms", once_pausing)

    def now(self) -> float:
        """What the server's clock shows, in seconds since 1970."""
        return self._process.time()

    def crash_worker(self) -> None:
        """Lets the worker crash now: what ran is tried again. Returns when there is a new one."""
        thread, crossing = self._worker_link()
        thread.run(asyncio.wait_for(crossing.crash(), _PATIENCE))

    def crash_after(self, operation: str, nth: int = 1) -> None:
        """Lets the worker crash, once, at the nth such operation of an attempt.

        It does so when the server has done it and before the function hears of that. Operations
        are `append`, `trim`, `read`, `tail`, `tags`, `set_aux`, `call` and `send`; besides, `start`
        (the attempt has not begun yet) and `return` (it has returned, and nobody knows). While
        several calls run at once, their operations are counted together.
        """
        thread, crossing = self._worker_link()

        async def plan() -> None:
            crossing.crashes.plan(operation, nth)

        thread.run(plan())

    def _worker_link(self) -> tuple[sync.LoopThread, Crossing]:
        if self._thread is None or self._crossing is None:
            raise RuntimeError('there is no worker: use it inside "with Server(..) as server"')
        return self._thread, self._crossing

    def restart(self) -> None:
        """Kills the server as a crash would, and starts it again on its data.

        The functions are there again when this returns.
        """
        thread, ready = self._thread, self._ready
        if thread is not None and ready is not None:
            # Set again by the next registration: that of this connection has been.
            thread.loop.call_soon_threadsafe(ready.clear)
        self._process.kill()
        self._process.start()
        if thread is not None and ready is not None:
            thread.run(self._taken_in(ready))

    def __enter__(self) -> Server:
        self._process.start()
        self._thread = sync.LoopThread()
        try:
            client = self._thread.run(connect(self.url, name="test").open())
            self._client = sync.Client(self._thread, client)
            if self._functions:
                self._thread.run(self._start_worker())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    async def _start_worker(self) -> None:
        self._crossing = Crossing(self.url)
        address = await self._crossing.open()
        worker = Worker(self._functions, name="test", server=address, concurrency=self._concurrency)
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._worker = asyncio.create_task(worker.serve(self._stop, self._ready))
        await self._taken_in(self._ready)

    async def _taken_in(self, ready: asyncio.Event) -> None:
        assert self._worker is not None
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait(
            [waiting, self._worker], timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if self._worker.done():
            self._worker.result()
        elif not ready.is_set():
            raise RuntimeError(f"the server did not take the worker in:\n{self.log}")

    async def _stop_worker(self) -> None:
        if self._worker is not None and self._stop is not None:
            self._stop.set()
            await asyncio.wait([self._worker], timeout=_PATIENCE)
        if self._crossing is not None:
            await self._crossing.close()

    def _end(self) -> None:
        if self._thread is not None:
            try:
                self._thread.run(self._stop_worker())
                if self._client is not None:
                    self._client.close()
            finally:
                self._thread.stop()
                self._thread = self._client = None
        self._process.stop()
        self._process.remove()
