"""What a function knows of its call, and what it can do there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _worker_messages as messages
from ._book import Book
from ._messages import DEFAULT_PRIORITY
from ._results import CallOutput, Sent
from ._terms import Duration

if TYPE_CHECKING:
    from ._calls import Attempt
    from ._client import Client


class Log:
    """The call's log: `boki logs` shows it. Arguments are put in as by `logging`."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def trace(self, message: object, *args: object) -> None:
        self._log(messages.TRACE, message, args)

    def debug(self, message: object, *args: object) -> None:
        self._log(messages.DEBUG, message, args)

    def info(self, message: object, *args: object) -> None:
        self._log(messages.INFO, message, args)

    def warning(self, message: object, *args: object) -> None:
        self._log(messages.WARN, message, args)

    def error(self, message: object, *args: object) -> None:
        self._log(messages.ERROR, message, args)

    def _log(self, level: int, message: object, args: tuple[object, ...]) -> None:
        self._attempt.log(level, str(message) % args if args else str(message))


class Cx:
    """The call that a function runs for."""

    __slots__ = ("_attempt", "_book")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._book: Book | None = None

    @property
    def call_id(self) -> str:
        """The call's id, 32 hexadecimal digits: the same in every attempt of it."""
        return self._attempt.invoke.call.hex()

    @property
    def attempt(self) -> int:
        """Which attempt of the call this is, from 1."""
        return self._attempt.invoke.attempt

    @property
    def function(self) -> str:
        """The name by which the function was called."""
        return self._attempt.invoke.function

    @property
    def content_type(self) -> str:
        """What the caller says the input is; may be empty."""
        return self._attempt.invoke.content_type

    @property
    def deadline(self) -> float | None:
        """When the attempt will be given up, as `time.monotonic()` counts."""
        return self._attempt.deadline

    @property
    def time_left(self) -> float | None:
        """How many seconds are left until then."""
        return self._attempt.time_left()

    @property
    def cancelled(self) -> bool:
        """The attempt has been given up. An `async def` is told by `asyncio.CancelledError` too."""
        return self._attempt.cancelled

    @property
    def book(self) -> Book:
        """The caller's book."""
        if self._book is None:
            invoke = self._attempt.invoke
            session = self._attempt.worker.session
            self._book = Book(session, invoke.book, invoke.book_name, self._attempt.seen)
        return self._book

    @property
    def client(self) -> Client:
        """Other books, and everything else that can be asked of the server."""
        return self._attempt.worker.client

    @property
    def log(self) -> Log:
        """The call's log."""
        return Log(self._attempt)

    async def call(
        self,
        function: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
    ) -> Any:
        """Calls another function in the same book; returns its output.

        It may take as long as this call has left, and is given up with it. With a `key` made of
        `call_id`, each call of this function makes one call of the other, however many attempts
        this one takes; such a call is on record and goes on.
        """
        output = await self.call_output(
            function, input, key=key, deadline=deadline, priority=priority, limit_key=limit_key
        )
        return output.value

    async def call_output(
        self,
        function: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
    ) -> CallOutput:
        """As `call`; returns everything that is known of the output."""
        if deadline is None:
            left = self._attempt.time_left()
            # No time at all would mean "as long as it takes".
            deadline = None if left is None else max(left, 0.001)
        output: CallOutput = await self.client._call(
            function,
            input,
            self.book,
            key,
            deadline,
            priority,
            limit_key,
            None,
            parent=self._attempt.corr,
        )
        return output

    async def send(
        self,
        function: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
    ) -> Sent:
        """Has another function called in the same book: it runs whatever becomes of this call."""
        return await self.client._send(
            function,
            input,
            self.book,
            key,
            deadline,
            priority,
            limit_key,
            None,
            parent=self._attempt.corr,
        )

    def __repr__(self) -> str:
        return f"Cx({self.function} {self.call_id}, attempt {self.attempt})"
