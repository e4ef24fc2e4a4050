"""A worker: offers functions to a server, and runs what it is called for."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from . import _messages, _wire
from . import _worker_messages as messages
from ._calls import Attempt
from ._client import Client
from ._errors import ConnectFailed, Error, InvalidArgument, ShuttingDown
from ._function import Function, function_of
from ._link import Link, open_link
from ._session import Session
from ._terms import DEFAULT_SERVER, parse_address
from ._threads import Mailbox, Threads
from ._wire import ProtocolError

_REGISTRATION = 1
_PATIENCE = 2.0
_ORPHANED_AFTER = 10.0
_CONNECT_TIMEOUT, _RECONNECT_FOR = 5.0, 30.0
_FIRST_DELAY, _LONGEST_DELAY = 0.02, 2.0
_MAX_LOG_BACKLOG = 4 << 20
_MAX_POSTED = 10_000

_DISCONNECTED, _CONNECTED, _REGISTERED, _DRAINING, _REFUSED = range(5)


class Worker:
    """A worker in the making; `serve` makes it one.

    It connects to the server, and again when the connection is lost. A call whose worker is lost
    is tried again: functions may run more than once. `concurrency`: how many calls it takes at
    once on each level of nesting.
    """

    def __init__(
        self,
        functions: Iterable[Callable[..., Any] | Function],
        *,
        name: str | None = None,
        server: str | None = None,
        concurrency: int = 100,
    ) -> None:
        self._functions: dict[str, Function] = {}
        for target in functions:
            own = function_of(target)
            if own.name in self._functions:
                message = f'the worker has two functions "{own.name}"'
                raise Error(message, code="BK0619")
            self._functions[own.name] = own
        if not 1 <= concurrency <= 65536:
            raise InvalidArgument(f"invalid concurrency: {concurrency} (1 to 65536)")
        self._specs = [own.spec() for own in self._functions.values()]
        self._name = name or _program()
        self._process = os.environ.get("BOKI_WORKER", "")
        self._address = parse_address(server or os.environ.get("BOKI_URL") or DEFAULT_SERVER)
        self._concurrency = concurrency
        self._running: dict[int, Attempt] = {}
        self._link: Link | None = None
        self._phase = _DISCONNECTED
        self._refusal: Error | None = None
        self._finishing = False
        self._lost_lines = 0
        self.threads = Threads()

    async def serve(
        self, stop: asyncio.Event | None = None, ready: asyncio.Event | None = None
    ) -> None:
        """Serves calls until `stop` is set, or the server that started it goes away.

        Raises what the server says if it refuses the worker. `ready` is set when it is taken in.
        """
        stop = asyncio.Event() if stop is None else stop
        self._ready = ready
        self.loop = asyncio.get_running_loop()
        self.thread = threading.get_ident()
        self.mailbox = Mailbox(self.loop)
        self._changed = asyncio.Event()
        stopped = self.loop.create_task(stop.wait())
        try:
            opening = self.loop.create_task(self._open())
            await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                opening.cancel()
                await asyncio.wait([opening])
                return
            opened = opening.result()
            if opened is None:
                return
            link, in_flight = opened
            self.session = Session(
                self._address,
                self._name,
                in_flight,
                connect_timeout=_CONNECT_TIMEOUT,
                reconnect_for=_RECONNECT_FOR,
                side=self,
            )
            self.client = Client(self.session)
            self.session.start(link)
            try:
                await self._attend(stopped)
                await self._finish()
            finally:
                self._finishing = True
                await self.session.close()
        finally:
            stopped.cancel()

    # The way of the worker.

    async def _open(self) -> tuple[Link, int] | None:
        """The first connection. `None`: there is no server any more for this process."""
        since = self.loop.time()
        delay = _FIRST_DELAY
        while True:
            try:
                return await open_link(
                    self._address, _messages.WORKER, self._name, _CONNECT_TIMEOUT
                )
            except (ConnectFailed, ShuttingDown):
                # Nobody listens yet, or one server ends before the next begins.
                if self._process and self.loop.time() - since > _ORPHANED_AFTER:
                    return None
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)

    async def _attend(self, stopped: asyncio.Task[bool]) -> None:
        """Returns when the worker is to end."""
        while True:
            self._changed.clear()
            # The server says so again to whoever connects next.
            if (
                self._phase == _REFUSED
                and self._refusal is not None
                and self._refusal.code not in ("BK0305", "BK0410")
            ):
                raise self._refusal
            # A worker that nobody would start again waits for the next server.
            if self._phase == _DRAINING and self._process:
                return
            may_be_orphaned = self._process and self._phase == _DISCONNECTED
            changed = self.loop.create_task(self._changed.wait())
            done, _ = await asyncio.wait(
                [changed, stopped],
                timeout=_ORPHANED_AFTER if may_be_orphaned else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            changed.cancel()
            if stopped in done or not done:
                return

    async def _finish(self) -> None:
        """Asks for no more calls, and finishes those there are."""
        self._finishing = True
        if self._link is not None and self._phase != _DRAINING:
            self._link.send(_wire.DRAIN, 0)
            # The server says the same: no call is on its way any more.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._until(lambda: not self._is_connected()), _PATIENCE)
        await self._until(lambda: not self._running)

    def _is_connected(self) -> bool:
        return self._phase in (_CONNECTED, _REGISTERED)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def _enter(self, phase: int) -> None:
        self._phase = phase
        self._changed.set()

    # The connection's side that runs functions.

    def connected(self, link: Link) -> None:
        if self._finishing:
            return
        self._link = link
        register = messages.register(
            self._name,
            self._process,
            os.environ.get("BOKI_VERSION", ""),
            self._concurrency,
            os.getpid(),
            self._specs,
        )
        link.send(_wire.REGISTER, _REGISTRATION, register)
        self._enter(_CONNECTED)

    def frame(self, kind: int, corr: int, body: bytes) -> None:
        if kind == _wire.INVOKE:
            self._invoke(corr, body)
        elif kind == _wire.INVOKE_CANCEL:
            messages.read_cancel(body)
            attempt = self._running.get(corr)
            if attempt is not None:
                attempt.cancel()
        elif kind == _wire.INVOKE_INPUT:
            last, piece = messages.read_invoke_input(body)
            attempt = self._running.get(corr)
            if attempt is not None and attempt.input is not None:
                attempt.input.feed(last, piece)
        elif kind == _wire.OUTPUT_CREDIT:
            credit = messages.read_credit(body)
            attempt = self._running.get(corr)
            if attempt is not None and attempt.output is not None:
                attempt.output.credit(credit)
        elif kind == _wire.DRAIN:
            self._enter(_DRAINING)
        elif kind == _wire.REGISTERED and corr == _REGISTRATION:
            messages.read_registered(body)
            if self._phase == _CONNECTED:
                self._enter(_REGISTERED)
            if self._ready is not None:
                self._ready.set()

    def refused(self, corr: int, error: Error) -> None:
        if corr == _REGISTRATION:
            self._refusal = error
            self._enter(_REFUSED)

    def disconnected(self) -> None:
        self._link = None
        running, self._running = self._running, {}
        for attempt in running.values():
            attempt.abandon()
        self._enter(_DISCONNECTED)

    def _invoke(self, corr: int, body: bytes) -> None:
        link = self._link
        if link is None:
            return
        try:
            invoke = messages.Invoke(body)
        except ProtocolError as error:
            self._refuse(link, corr, f"the worker cannot read the call: {error}")
            return
        function = self._functions.get(invoke.function)
        if function is None:
            self._refuse(link, corr, f'the worker has no function "{invoke.function}"')
        elif invoke.more_input and not function.streams_input:
            self._refuse(link, corr, f'"{invoke.function}" takes its input as a whole')
        else:
            attempt = Attempt(self, link, corr, invoke, function)
            self._running[corr] = attempt
            attempt.start()

    def _refuse(self, link: Link, corr: int, message: str) -> None:
        link.send(_wire.INVOKE_DONE, corr, messages.failed(0, "not_run", message, False))

    # What attempts use.

    def ended(self, attempt: Attempt) -> None:
        """An attempt is about to answer."""
        self._running.pop(attempt.corr, None)
        if self._finishing:
            self._changed.set()

    def call_in_loop(self, work: Callable[[], None]) -> None:
        """Does something in the event loop: at once if this is its thread."""
        if threading.get_ident() == self.thread:
            work()
        else:
            self.mailbox.post(work)

    def post_log(self, link: Link, corr: int, body: bytes) -> None:
        """A line of a log, from another thread."""
        if len(self.mailbox) < _MAX_POSTED:
            self.mailbox.post(partial(self.send_log, link, corr, body))
        else:
            self._lost_lines += 1

    def send_log(self, link: Link, corr: int, body: bytes) -> None:
        """A line of a log. What the server is too slow for is lost, and counted."""
        if link.backlog > _MAX_LOG_BACKLOG:
            self._lost_lines += 1
            return
        if self._lost_lines:
            lost, self._lost_lines = self._lost_lines, 0
            line = f"{lost} lines were lost: the server did not take them as fast as they came"
            lost_line = messages.log_line(messages.NO_CALL, messages.WARN, line)
            link.send(_wire.WORKER_LOG, 0, lost_line)
        link.send(_wire.WORKER_LOG, corr, body)


def _program() -> str:
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return program.removesuffix(".py") or "worker"
