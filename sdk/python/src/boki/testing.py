"""A server of one's own for a test, with the functions under test in the test's own process.

    from boki.testing import Server

    def test_hello() -> None:
        with Server(hello) as server:
            assert server.call("hello", "ada") == "Hello ada!"

The server is the `boki` binary of `BOKI_BIN`, else that on the path; its data is gone afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from . import sync
from ._client import connect
from ._function import Function, registered
from ._results import CallOutput, Sent
from ._server_process import ServerProcess
from ._terms import Duration
from ._worker import Worker

__all__ = ["Server"]

_PATIENCE = 30.0


class Server:
    """A server, and a worker with these functions (otherwise all that are decorated).

    `config` is the text of a `boki.toml`, `settings` are such on top: `{"limits__record": "1MiB"}`.
    """

    def __init__(
        self,
        *functions: Callable[..., Any],
        binary: str | None = None,
        config: str = "",
        settings: Mapping[str, str] | None = None,
        concurrency: int = 100,
    ) -> None:
        self._process = ServerProcess(binary, config, settings)
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
        worker = Worker(
            self._functions, name="test", server=self.url, concurrency=self._concurrency
        )
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
