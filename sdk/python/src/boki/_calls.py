"""One attempt of a call: runs the function, and answers once.

An `async def` runs as a task of the event loop, a plain function in a thread of its own. Whatever
becomes of it, the server hears of its end exactly once, unless the connection it came by is lost.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from collections.abc import AsyncIterable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import _wire as wire
from . import _worker_messages as messages
from ._capture import current
from ._cx import Cx
from ._errors import CallCancelled, Error, Failure
from ._function import Function, Output
from ._http import TEXT, Request, Response, raw_piece, response_of
from ._link import Link
from ._payload import argument, json_bytes
from ._session import Seen
from ._streams import Input, OutputStream
from ._worker_messages import HttpHead, Invoke

if TYPE_CHECKING:
    from ._worker import Worker

T = TypeVar("T")

_MAX_OUTPUT = wire.MAX_BODY - 1024
_MAX_MESSAGE = 64 << 10
_MAX_LINE = 64 << 10
_LINES = "application/x-ndjson"


class Attempt:
    """See the module."""

    __slots__ = (
        "_is_over",
        "_is_started",
        "_partial",
        "_task",
        "_waits",
        "cancelled",
        "corr",
        "deadline",
        "function",
        "input",
        "invoke",
        "link",
        "output",
        "seen",
        "worker",
    )

    def __init__(
        self, worker: Worker, link: Link, corr: int, invoke: Invoke, function: Function
    ) -> None:
        self.worker = worker
        self.link = link
        self.corr = corr
        """Names the attempt on its connection."""
        self.invoke = invoke
        self.function = function
        self.seen = Seen(invoke.position)
        self.deadline = (
            worker.loop.time() + invoke.deadline_ms / 1000 if invoke.deadline_ms else None
        )
        self.cancelled = False
        self.input: Input | None = None
        self.output: OutputStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._waits: set[concurrent.futures.Future[Any]] = set()
        self._partial: dict[int, str] | None = None
        self._is_started = False
        self._is_over = False

    def start(self) -> None:
        """Runs the function, from the event loop."""
        invoke = self.invoke
        if self.function.streams_input:
            self.input = Input(
                self.link, self.corr, invoke.input, invoke.more_input, invoke.content_type
            )
        token = current.set(self)
        if self.function.is_async:
            self._task = self.worker.loop.create_task(self._run())
        else:
            context = contextvars.copy_context()
            self.worker.threads.run(partial(context.run, self._run_plain))
        current.reset(token)

    def time_left(self) -> float | None:
        """Seconds until the attempt is given up."""
        if self.deadline is None:
            return None
        return max(self.deadline - self.worker.loop.time(), 0.0)

    # Giving up.

    def cancel(self) -> None:
        """The server does not want it any more."""
        self.cancelled = True
        if self._task is not None:
            self._task.cancel()
            if not self._is_started:
                # The task ends without having run.
                self._end(self._failed(asyncio.CancelledError()))
        for wait in list(self._waits):
            wait.cancel()

    def abandon(self) -> None:
        """Its connection is lost: it is tried again elsewhere, and nobody waits for it here."""
        self._is_over = True
        self.cancel()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """Waits in the function's thread for what the event loop does."""
        if self.cancelled:
            what.close()
            raise CallCancelled("the call was cancelled")
        wait = asyncio.run_coroutine_threadsafe(what, self.worker.loop)
        self._waits.add(wait)
        try:
            if self.cancelled:
                wait.cancel()
            return wait.result()
        except concurrent.futures.CancelledError:
            raise CallCancelled("the call was cancelled") from None
        finally:
            self._waits.discard(wait)
            wait.cancel()

    # Running.

    async def _run(self) -> None:
        self._is_started = True
        function = self.function
        try:
            arguments = self._arguments()
            if function.takes_cx:
                arguments = (Cx(self), *arguments)
            if function.streams_output:
                done = await self._pieces(function.target(*arguments), self._usual_head)
            else:
                value = await function.target(*arguments)
                response = self._streamed_response(value)
                if response is None:
                    done = self._done(value)
                else:
                    assert not isinstance(response.body, bytes)
                    self._begin_response(response)
                    done = await self._pieces(response.body, response.piece)
        except (Exception, asyncio.CancelledError, SystemExit) as error:
            done = self._failed(error)
        self._end(done)

    def _run_plain(self) -> None:
        function = self.function
        try:
            arguments = self._arguments()
            if function.takes_cx:
                from .sync import Cx as SyncCx

                arguments = (SyncCx(self, Cx(self)), *arguments)
            value = function.target(*arguments)
            if function.streams_output:
                done = self._plain_pieces(value, self._usual_head)
            else:
                response = self._streamed_response(value)
                if response is None:
                    done = self._done(value)
                else:
                    if not isinstance(response.body, Iterable):
                        raise TypeError("a plain function cannot stream from an async iterator")
                    self.worker.mailbox.post(partial(self._begin_response, response))
                    done = self._plain_pieces(response.body, response.piece)
        except BaseException as error:
            done = self._failed(error)
        self.worker.mailbox.post(partial(self._end, done))

    def _arguments(self) -> tuple[Any, ...]:
        return self.function.arguments(self.invoke.input, self.input, self._request)

    def _request(self) -> Request:
        head = self.invoke.http()
        if head is None:
            # It was called by its name: as if its input had been posted.
            headers = [("content-type", self.invoke.content_type)]
            head = HttpHead("POST", "/", "", headers if self.invoke.content_type else [])
        return Request(head, self.invoke.input, self.input)

    # Output.

    def _done(self, value: Any) -> bytes:
        """What the function returned, as the one answer."""
        if self.function.is_http:
            response = response_of(value)
            assert isinstance(response.body, bytes)
            data, content_type = response.body, response.content_type
            if response.status != 200 or response.headers:
                self.worker.call_in_loop(partial(self._begin_response, response))
        elif isinstance(value, Output):
            data, content_type = value.data, wire.cut(value.content_type, 255)
        else:
            data, content_type = argument(value)
        if len(data) > _MAX_OUTPUT:
            message = f"the output has {len(data)} bytes, at most {_MAX_OUTPUT} can travel"
            raise Failure(message, code="output_too_large")
        return messages.done(self.seen.position, content_type, data)

    def _streamed_response(self, value: Any) -> Response | None:
        is_streamed = isinstance(value, Response) and not isinstance(value.body, bytes)
        return value if is_streamed and self.function.is_http else None

    def _begin_response(self, response: Response) -> None:
        self._begin(response.status, response.content_type, response.headers)

    def _begin(self, status: int, content_type: str, headers: list[tuple[str, str]]) -> None:
        if not self._is_over:
            self.output = OutputStream(self.link, self.corr)
            self.output.begin(status, wire.cut(content_type, 255), headers)

    def _usual_head(self, piece: Any) -> bytes:
        """Encodes a piece of a generator's output; the first one says what they are."""
        is_raw = isinstance(piece, (bytes, bytearray, memoryview, str))
        data = raw_piece(piece) if is_raw else json_bytes(piece) + b"\n"
        if self.output is None:
            usual = TEXT if isinstance(piece, str) else "" if is_raw else _LINES
            content_type = self.function.content_type or usual
            self.worker.call_in_loop(partial(self._begin, 200, content_type, []))
        return data

    async def _pieces(self, pieces: Any, encode: Any) -> bytes:
        try:
            if isinstance(pieces, AsyncIterable):
                async for piece in pieces:
                    await self._write(encode(piece))
            else:
                for piece in pieces:
                    await self._write(encode(piece))
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        return messages.done(self.seen.position, "", b"")

    def _plain_pieces(self, pieces: Iterable[Any], encode: Any) -> bytes:
        try:
            for piece in pieces:
                self.run(self._write(encode(piece)))
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
        return messages.done(self.seen.position, "", b"")

    async def _write(self, data: bytes) -> None:
        if self.output is not None:
            await self.output.write(data)

    # The end.

    def _failed(self, error: BaseException) -> bytes:
        is_cancel = isinstance(error, (asyncio.CancelledError, CallCancelled))
        if is_cancel and self.cancelled:
            failure = Failure("the call was cancelled", code="cancelled")
        elif isinstance(error, Failure):
            failure = error
        elif isinstance(error, Error):
            # What was done or not may come out differently in a new attempt.
            failure = Failure(error.message, code=error.code, retryable=error.retry != "never")
        else:
            import traceback

            self.log(messages.ERROR, "".join(traceback.format_exception(error)))
            last_line = "".join(traceback.format_exception_only(error)).strip()
            failure = Failure(last_line)
        message = wire.cut(failure.message, _MAX_MESSAGE)
        return messages.failed(self.seen.position, failure.code, message, failure.retryable)

    def _end(self, done: bytes) -> None:
        """Answers, from the event loop."""
        if self._is_over:
            return
        self._is_over = True
        if self._partial is not None:
            for level, text in self._partial.items():
                if text:
                    self.log(level, text)
        self.worker.ended(self)
        self.link.send(wire.INVOKE_DONE, self.corr, done)

    # The log.

    def log(self, level: int, text: str) -> None:
        """Adds lines to the call's log, from any thread."""
        for line in text.splitlines():
            body = messages.log_line(self.invoke.call, level, wire.cut(line, _MAX_LINE))
            if threading.get_ident() == self.worker.thread:
                self.worker.send_log(self.link, self.corr, body)
            else:
                self.worker.post_log(self.link, self.corr, body)

    def write(self, level: int, text: str) -> None:
        """Adds what is printed: lines, as soon as they are whole."""
        if self._partial is None:
            self._partial = {}
        lines, newline, rest = (self._partial.get(level, "") + text).rpartition("\n")
        self._partial[level] = rest
        if newline:
            self.log(level, lines or " ")
