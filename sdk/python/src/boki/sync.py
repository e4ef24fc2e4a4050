"""The same without `await`, for scripts and for plain functions.

    with boki.sync.connect() as client:
        book = client.book("orders")
        book.append("hello", tags=["user/42"])

Everything here waits for what the class of the same name in `boki` does, and is documented there.
A client has an event loop of its own, in a thread; it may be used from any number of threads.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, TypeVar

from . import _book, _client, _cx
from ._errors import Closed
from ._messages import DEFAULT_PRIORITY
from ._results import Appended, BookInfo, CallOutput, FunctionInfo, Record, Sent, TagPage
from ._terms import Address, Duration
from ._wire import MAX_SEQ

T = TypeVar("T")

__all__ = ["Book", "Client", "Cx", "connect"]


class Portal(Protocol):
    """Runs coroutines elsewhere, for a thread that waits."""

    def run(self, what: Coroutine[Any, Any, T]) -> T: ...


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="boki", daemon=True)
        self._thread.start()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return wait_for(what, self.loop)

    def stop(self) -> None:
        """Ends the thread; what runs in the loop is given up."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


def wait_for(what: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    """Runs a coroutine in a loop of another thread, and waits for it here."""
    try:
        future = asyncio.run_coroutine_threadsafe(what, loop)
    except RuntimeError as error:
        what.close()
        raise Closed("the client is closed") from error
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise Closed("the client is closed") from None
    finally:
        # Whoever is interrupted here gives up what was under way.
        future.cancel()


class Book:
    """As `boki.Book`, without `await`."""

    __slots__ = ("_book", "_portal")

    def __init__(self, portal: Portal, book: _book.Book) -> None:
        self._portal = portal
        self._book = book

    @property
    def id(self) -> int:
        return self._book.id

    @property
    def name(self) -> str:
        return self._book.name

    @property
    def position(self) -> int:
        return self._book.position

    def advance_to(self, position: int) -> None:
        self._book.advance_to(position)

    def append(
        self,
        data: Any,
        *,
        tags: Iterable[str] = (),
        if_tail: Mapping[str, int] | None = None,
        fence: Mapping[str, int] | None = None,
        raises: Mapping[str, int] | None = None,
        id: bytes | None = None,
        ack: _book.Ack = "ordered",
        deadline: Duration | None = None,
    ) -> Appended:
        return self.append_batch(
            [(data, tags)],
            if_tail=if_tail,
            fence=fence,
            raises=raises,
            id=id,
            ack=ack,
            deadline=deadline,
        )

    def append_batch(
        self,
        records: Iterable[tuple[Any, Iterable[str]]],
        *,
        if_tail: Mapping[str, int] | None = None,
        fence: Mapping[str, int] | None = None,
        raises: Mapping[str, int] | None = None,
        id: bytes | None = None,
        ack: _book.Ack = "ordered",
        deadline: Duration | None = None,
    ) -> Appended:
        append = self._book.append_batch(
            records,
            if_tail=if_tail,
            fence=fence,
            raises=raises,
            id=id,
            ack=ack,
            deadline=deadline,
        )
        return self._portal.run(append)

    def read_next(
        self,
        seq: int = 1,
        *,
        tag: str | None = None,
        limit: int = 100,
        wait: Duration | None = None,
        consistency: _book.Consistency = "session",
        deadline: Duration | None = None,
    ) -> list[Record]:
        read = self._book.read_next(
            seq, tag=tag, limit=limit, wait=wait, consistency=consistency, deadline=deadline
        )
        return self._portal.run(read)

    def read_prev(
        self,
        seq: int = MAX_SEQ,
        *,
        tag: str | None = None,
        limit: int = 100,
        consistency: _book.Consistency = "session",
        deadline: Duration | None = None,
    ) -> list[Record]:
        read = self._book.read_prev(
            seq, tag=tag, limit=limit, consistency=consistency, deadline=deadline
        )
        return self._portal.run(read)

    def first(
        self, tag: str | None = None, *, seq: int = 1, consistency: _book.Consistency = "session"
    ) -> Record | None:
        return self._portal.run(self._book.first(tag, seq=seq, consistency=consistency))

    def last(
        self,
        tag: str | None = None,
        *,
        seq: int = MAX_SEQ,
        consistency: _book.Consistency = "session",
    ) -> Record | None:
        return self._portal.run(self._book.last(tag, seq=seq, consistency=consistency))

    def wait(
        self, seq: int = 1, *, tag: str | None = None, timeout: Duration = "30s"
    ) -> Record | None:
        return self._portal.run(self._book.wait(seq, tag=tag, timeout=timeout))

    def records(
        self,
        start: int = 1,
        end: int = MAX_SEQ,
        *,
        tag: str | None = None,
        consistency: _book.Consistency = "session",
        batch: int = 256,
    ) -> Iterator[Record]:
        records = self._book.records(start, end, tag=tag, consistency=consistency, batch=batch)
        return iterate(self._portal, records)

    def subscribe(
        self, start: int = 1, *, tag: str | None = None, batch: int = 256
    ) -> Iterator[Record]:
        return iterate(self._portal, self._book.subscribe(start, tag=tag, batch=batch))

    def tail(self, tag: str | None = None, *, consistency: _book.Consistency = "session") -> int:
        return self._portal.run(self._book.tail(tag, consistency=consistency))

    def tags(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> TagPage:
        return self._portal.run(self._book.tags(prefix, after=after, limit=limit))

    def trim(self, below: int, *, tag: str | None = None) -> None:
        self._portal.run(self._book.trim(below, tag=tag))

    def set_aux(self, seq: int, aux: Any) -> None:
        self._portal.run(self._book.set_aux(seq, aux))

    def __repr__(self) -> str:
        return repr(self._book)


class Client:
    """As `boki.Client`, without `await`."""

    def __init__(
        self, portal: Portal, client: _client.Client, stop: Callable[[], None] | None = None
    ) -> None:
        self._portal = portal
        self._client = client
        self._stop = stop

    @property
    def address(self) -> Address:
        return self._client.address

    def book(self, name: str) -> Book:
        return Book(self._portal, self._portal.run(self._client.book(name)))

    def create_book(self, name: str) -> Book:
        return Book(self._portal, self._portal.run(self._client.create_book(name)))

    def remove_book(self, name: str) -> None:
        self._portal.run(self._client.remove_book(name))

    def books(self) -> list[BookInfo]:
        return self._portal.run(self._client.books())

    def functions(self) -> list[FunctionInfo]:
        return self._portal.run(self._client.functions())

    def call(
        self,
        function: str,
        input: Any = None,
        *,
        book: Book | None = None,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
        content_type: str | None = None,
    ) -> Any:
        output = self.call_output(
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

    def call_output(
        self,
        function: str,
        input: Any = None,
        *,
        book: Book | None = None,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
        content_type: str | None = None,
    ) -> CallOutput:
        call = self._client.call_output(
            function,
            input,
            book=_plain(book),
            key=key,
            deadline=deadline,
            priority=priority,
            limit_key=limit_key,
            content_type=content_type,
        )
        return self._portal.run(call)

    def send(
        self,
        function: str,
        input: Any = None,
        *,
        book: Book | None = None,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
        content_type: str | None = None,
    ) -> Sent:
        send = self._client.send(
            function,
            input,
            book=_plain(book),
            key=key,
            deadline=deadline,
            priority=priority,
            limit_key=limit_key,
            content_type=content_type,
        )
        return self._portal.run(send)

    def result(
        self, call: str, *, book: Book | None = None, wait: Duration | None = None
    ) -> CallOutput | None:
        return self._portal.run(self._client.result(call, book=_plain(book), wait=wait))

    def close(self) -> None:
        self._portal.run(self._client.close())
        if self._stop is not None:
            self._stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._client)


def _plain(book: Book | None) -> _book.Book | None:
    return None if book is None else book._book


class Cx:
    """As `boki.Cx`, without `await`: the call that a plain function runs for.

    When the attempt is given up, `cancelled` says so, and whatever waits here raises
    `CallCancelled`; a plain function that does neither is left to end by itself.
    """

    __slots__ = ("_cx", "_portal")

    def __init__(self, portal: Portal, cx: _cx.Cx) -> None:
        self._portal = portal
        self._cx = cx

    @property
    def call_id(self) -> str:
        return self._cx.call_id

    @property
    def attempt(self) -> int:
        return self._cx.attempt

    @property
    def function(self) -> str:
        return self._cx.function

    @property
    def content_type(self) -> str:
        return self._cx.content_type

    @property
    def deadline(self) -> float | None:
        return self._cx.deadline

    @property
    def time_left(self) -> float | None:
        return self._cx.time_left

    @property
    def cancelled(self) -> bool:
        return self._cx.cancelled

    @property
    def book(self) -> Book:
        return Book(self._portal, self._cx.book)

    @property
    def client(self) -> Client:
        return Client(self._portal, self._cx.client)

    @property
    def log(self) -> _cx.Log:
        return self._cx.log

    def call(
        self,
        function: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
    ) -> Any:
        output = self.call_output(
            function, input, key=key, deadline=deadline, priority=priority, limit_key=limit_key
        )
        return output.value

    def call_output(
        self,
        function: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
    ) -> CallOutput:
        call = self._cx.call_output(
            function, input, key=key, deadline=deadline, priority=priority, limit_key=limit_key
        )
        return self._portal.run(call)

    def send(
        self,
        function: str,
        input: Any = None,
        *,
        key: str | None = None,
        deadline: Duration | None = None,
        priority: int = DEFAULT_PRIORITY,
        limit_key: str | None = None,
    ) -> Sent:
        send = self._cx.send(
            function, input, key=key, deadline=deadline, priority=priority, limit_key=limit_key
        )
        return self._portal.run(send)

    def __repr__(self) -> str:
        return repr(self._cx)


def connect(
    address: str | None = None,
    *,
    name: str = "",
    connect_timeout: Duration = "5s",
    reconnect_for: Duration = "30s",
) -> Client:
    """As `boki.connect`, without `await`. Close it, or use it with `with`."""
    connecting = _client.connect(
        address, name=name, connect_timeout=connect_timeout, reconnect_for=reconnect_for
    )
    thread = LoopThread()
    try:
        client = thread.run(connecting.open())
    except BaseException:
        thread.stop()
        raise
    return Client(thread, client, thread.stop)


def iterate(portal: Portal, items: AsyncIterator[T]) -> Iterator[T]:
    """What an asynchronous iterator gives, one at a time."""

    async def following() -> tuple[T] | None:
        # A coroutine cannot end with `StopIteration`.
        async for item in items:
            return (item,)
        return None

    while (found := portal.run(following())) is not None:
        yield found[0]
