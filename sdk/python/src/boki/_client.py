"""The client: one connection, and what can be asked over it."""

from __future__ import annotations

import os
from collections.abc import Generator
from types import TracebackType
from typing import Any

from . import _messages as messages
from . import _wire as wire
from ._book import Book
from ._link import open_link
from ._payload import argument
from ._results import BookInfo, CallOutput, FunctionInfo, Sent
from ._session import CALLS, WAITING, Question, Seen, Session
from ._terms import DEFAULT_SERVER, Address, Duration, milliseconds, parse_address, seconds

_DEFAULT_BOOK = 0
"""Stands for the server's default book in a call."""


class Client:
    """A connection to a server, opened again by itself when it breaks.

    Any number of operations may be under way on it. An append is repeated with its id until it is
    answered, so it is done once; reads are repeated; what cannot be repeated safely fails with
    `OutcomeUnknown`. For each book it keeps the position of the last answer and sends it along: it
    reads its own writes, and never goes back in time, whichever server answers.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def address(self) -> Address:
        """Where the server is."""
        return self._session.address

    async def book(self, name: str) -> Book:
        """The book of that name, or `BookNotFound`."""
        question = Question(wire.BOOK_OPEN, name.encode(), (wire.BOOK_IS,), "opening a book")
        return self._book((await self._session.ask(question))[1])

    async def create_book(self, name: str) -> Book:
        """Makes a book, or `BookExists`."""
        question = Question(
            wire.BOOK_CREATE, name.encode(), (wire.BOOK_IS,), "creating a book", repeatable=False
        )
        return self._book((await self._session.ask(question))[1])

    async def remove_book(self, name: str) -> None:
        """Removes a book and everything in it."""
        question = Question(
            wire.BOOK_REMOVE,
            name.encode(),
            (wire.BOOK_REMOVED,),
            "removing a book",
            repeatable=False,
        )
        await self._session.ask(question)

    async def books(self) -> list[BookInfo]:
        """Every book, by name."""
        question = Question(wire.BOOK_LIST, b"", (wire.BOOKS_ARE,), "listing books")
        books: list[BookInfo] = (await self._session.ask(question))[1]
        return books

    async def ping(self) -> None:
        """Asks the server for nothing but an answer: that it is there, and, by the time this takes,
        how far away.
        """
        await self._session.ask(
            Question(wire.PING, b"", (wire.PONG,), "asking whether the server is there")
        )

    async def functions(self) -> list[FunctionInfo]:
        """Every function that the server knows, by name."""
        question = Question(wire.FUNCTION_LIST, b"", (wire.FUNCTIONS_ARE,), "listing functions")
        functions: list[FunctionInfo] = (await self._session.ask(question))[1]
        return functions

    async def call(
        self,
        function: str,
        input: Any = None,
        *,
        book: Book | None = None,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = messages.DEFAULT_PRIORITY,
        limit_key: str | None = None,
        content_type: str | None = None,
    ) -> Any:
        """Calls a function and returns its output: what its JSON says, or bytes.

        `input`: bytes as they are, anything else as JSON; `None` is none at all. Calls with the
        same `key`, in the same book, are one call: it runs until it has a result, whatever
        crashes, and all get that.
        """
        output = await self.call_output(
            function,
            input,
            book=book,
            key=key,
            deadline=deadline,
            priority=priority,
            limit_key=limit_key,
            content_type=content_type,
        )
        return output.value

    async def call_output(
        self,
        function: str,
        input: Any = None,
        *,
        book: Book | None = None,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = messages.DEFAULT_PRIORITY,
        limit_key: str | None = None,
        content_type: str | None = None,
    ) -> CallOutput:
        """As `call`; returns everything that is known of the output."""
        output: CallOutput = await self._call(
            function, input, book, key, deadline, priority, limit_key, content_type
        )
        return output

    async def send(
        self,
        function: str,
        input: Any = None,
        *,
        book: Book | None = None,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = messages.DEFAULT_PRIORITY,
        limit_key: str | None = None,
        content_type: str | None = None,
    ) -> Sent:
        """Puts a call on record and does not wait for its result: it runs, whatever crashes."""
        return await self._send(
            function, input, book, key, deadline, priority, limit_key, content_type
        )

    async def result(
        self, call: str, *, book: Book | None = None, wait: Duration | None = None
    ) -> CallOutput | None:
        """The output of a call on record. `None`: there is none yet, not even after `wait`."""
        number, seen = self._place(book)
        wait_ms = milliseconds(wait)
        question = Question(
            wire.CALL_WAIT,
            messages.call_wait(number, call, wait_ms),
            (wire.CALL_RESULT, wire.CALL_PENDING),
            "waiting for a call's result",
        )
        if wait_ms:
            question.lane = WAITING
        output: CallOutput | None = (await self._session.ask(question, seen))[1]
        return output

    async def close(self) -> None:
        """Ends the connection. What is open fails with `Closed`."""
        await self._session.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Client({self.address})"

    async def _call(
        self,
        function: str,
        input: Any,
        book: Book | None,
        key: str | None,
        deadline: Duration | None,
        priority: int,
        limit_key: str | None,
        content_type: str | None,
        *,
        detached: bool = False,
        parent: int = 0,
    ) -> Any:
        number, seen = self._place(book)
        # Nothing at all is `null` to whoever takes JSON, and a default to whoever has one.
        data, own_type = (b"", "") if input is None else argument(input)
        body = messages.call(
            number,
            seen.position,
            milliseconds(deadline),
            detached,
            priority,
            parent,
            function,
            key,
            limit_key,
            own_type if content_type is None else content_type,
            data,
        )
        question = Question(
            wire.CALL,
            body,
            (wire.CALL_ACCEPTED,) if detached else (wire.CALL_RESULT,),
            "a call",
            lane=CALLS,
            repeatable=bool(key),
        )
        return (await self._session.ask(question, seen))[1]

    async def _send(
        self,
        function: str,
        input: Any,
        book: Book | None,
        key: str | None,
        deadline: Duration | None,
        priority: int,
        limit_key: str | None,
        content_type: str | None,
        *,
        parent: int = 0,
    ) -> Sent:
        # A key in any case, so that it can be repeated when the connection breaks.
        key = key or os.urandom(16).hex()
        terms = (deadline, priority, limit_key, content_type)
        sent: Sent = await self._call(
            function, input, book, key, *terms, detached=True, parent=parent
        )
        return sent

    def _place(self, book: Book | None) -> tuple[int, Seen]:
        if book is None:
            return _DEFAULT_BOOK, self._session.seen(_DEFAULT_BOOK)
        return book.id, book._seen

    def _book(self, info: BookInfo) -> Book:
        return Book(self._session, info.id, info.name, self._session.seen(info.id))


class Connecting:
    """A connection in the making: `await` it, or use it with `async with`."""

    def __init__(
        self, address: str | None, name: str, connect_timeout: float, reconnect_for: float
    ) -> None:
        self._address = parse_address(address or os.environ.get("BOKI_URL") or DEFAULT_SERVER)
        self._name = name
        self._connect_timeout = connect_timeout
        self._reconnect_for = reconnect_for
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        return self.open().__await__()

    async def __aenter__(self) -> Client:
        self._client = await self.open()
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()

    async def open(self) -> Client:
        link, in_flight = await open_link(
            self._address, messages.CLIENT, self._name, self._connect_timeout
        )
        session = Session(
            self._address,
            self._name,
            in_flight,
            connect_timeout=self._connect_timeout,
            reconnect_for=self._reconnect_for,
        )
        session.start(link)
        return Client(session)


def connect(
    address: str | None = None,
    *,
    name: str = "",
    connect_timeout: Duration = "5s",
    reconnect_for: Duration = "30s",
) -> Connecting:
    """Connects to `host:port`, `unix:/path` or `http://host:port`; else to that of `BOKI_URL`.

        async with boki.connect() as client:
            book = await client.book("orders")

    An operation waits up to `reconnect_for` for a lost connection to come back before it fails; the
    client itself goes on trying.
    """
    return Connecting(address, name, seconds(connect_timeout), seconds(reconnect_for))
