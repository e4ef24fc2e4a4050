"""The client against a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from conftest import Run

import boki
import boki.sync
from boki._server_process import ServerProcess


@dataclass
class Order:
    sku: str
    qty: int


def unique() -> str:
    return f"book-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def new_book(server: ServerProcess) -> AsyncIterator[tuple[boki.Client, boki.Book]]:
    async with boki.connect(server.url, name="tests") as client:
        yield client, await client.create_book(unique())


def test_what_is_appended_is_read(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            first = await book.append(b"\0raw", tags=["b", "a", "b"])
            assert await book.append("text", tags=["a"]) > first
            await book.append({"sku": "tea"})
            await book.append(Order("tea", 2), tags=["a"])
            await book.append(boki.Json("text"))
            records = await book.read_next()
            assert [record.data for record in records] == [
                b"\0raw",
                b"text",
                b'{"sku":"tea"}',
                b'{"sku":"tea","qty":2}',
                b'"text"',
            ]
            assert records[0].tags == ("a", "b")
            assert records[0].seq == first
            assert records[1].text == "text"
            assert records[3].json() == {"sku": "tea", "qty": 2}
            assert records[0].time_us <= records[4].time_us
            assert records[0].time == records[0].time_us / 1e6
            newest = await book.read_prev(tag="a", limit=2)
            assert [record.seq for record in newest] == [records[3].seq, records[1].seq]
            assert await book.last("a") == records[3]
            assert await book.first("a", seq=first + 1) == records[1]
            assert await book.last("nothing") is None
            assert book.position > records[4].seq
            with pytest.raises(boki.NotJson):
                records[0].json()

    run(test())


def test_a_batch_is_all_or_nothing(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            appended = await book.append_batch([("debit", ["a/1"]), ("credit", ["a/2"])])
            assert appended.count == 2
            assert [r.seq for r in await book.read_next()] == [appended, appended + 1]
            with pytest.raises(boki.ConditionFailed) as failed:
                await book.append_batch([("x", ["a/1"]), ("y", [])], if_tail={"a/1": 0})
            assert (failed.value.tag, failed.value.expected) == ("a/1", 0)
            assert failed.value.actual == appended
            assert failed.value.code == "BK0201"
            assert failed.value.retry == "never"
            assert await book.tail() == appended + 1

    run(test())


def test_conditions_and_fences(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            seq = await book.append("1", tags=["t"], if_tail={"t": 0})
            seq = await book.append("2", tags=["t"], if_tail={"t": seq, "other": 0})
            assert await book.tail("t") == seq
            await book.append("n2 leads", tags=["leader"], raises={"leader": 2})
            with pytest.raises(boki.Fenced) as fenced:
                await book.append("work", fence={"leader": 1})
            assert (fenced.value.tag, fenced.value.epoch, fenced.value.fence) == ("leader", 1, 2)
            await book.append("work", fence={"leader": 2})

    run(test())


def test_an_append_with_an_id_is_done_once(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            once = await book.append("x", id=b"order-17........")
            again = await book.append("x", id=b"order-17........")
            assert (once.repeated, again.repeated, again == once) == (False, True, True)
            assert len(await book.read_next()) == 1
            on_disk = await book.append("y", ack="durable")
            assert on_disk == 0 or on_disk > once
            with pytest.raises(boki.Error, match="conditions"):
                await book.append("z", ack="durable", if_tail={"t": 0})

    run(test())


def test_reads_wait_and_subscriptions_go_on(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (client, book):
            waiting = asyncio.create_task(book.wait(tag="t"))
            other = await client.book(book.name)
            seq = await other.append("first", tags=["t"])
            record = await waiting
            assert record is not None
            assert record.seq == seq
            assert await book.wait(seq + 1, tag="t", timeout="1ms") is None
            seen = []
            appends = [asyncio.create_task(book.append(str(n), tags=["t"])) for n in range(5)]
            async for record in book.subscribe(seq + 1, tag="t", batch=2):
                seen.append(record.text)
                if len(seen) == 5:
                    break
            assert seen == ["0", "1", "2", "3", "4"]
            await asyncio.gather(*appends)
            between = [r.text async for r in book.records(seq, seq + 3, tag="t", batch=1)]
            assert between == ["first", "0", "1", "2"]

    run(test())


def test_tails_tags_trim_and_aux(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            assert await book.tail() == 0
            seqs = [await book.append(str(n), tags=[f"user/{n}"]) for n in range(3)]
            assert await book.tail("user/1", consistency="linearizable") == seqs[1]
            page = await book.tags("user/", limit=2)
            assert page == boki.TagPage([("user/0", seqs[0]), ("user/1", seqs[1])], True)
            rest = await book.tags("user/", after="user/1")
            assert rest == boki.TagPage([("user/2", seqs[2])], False)
            await book.set_aux(seqs[2], {"state": 1})
            last = await book.last()
            assert last is not None
            assert last.aux == b'{"state":1}'
            await book.trim(seqs[1], tag="user/0")
            assert await book.tail("user/0") == 0
            await book.trim(seqs[2])
            assert [record.seq for record in await book.read_next()] == [seqs[2]]
            with pytest.raises(boki.NoSuchRecord):
                await book.set_aux(seqs[2] + 100, b"x")

    run(test())


def test_books_are_made_listed_and_removed(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with boki.connect(server.url) as client:
            name = unique()
            with pytest.raises(boki.BookNotFound) as missing:
                await client.book(name)
            assert missing.value.name == name
            book = await client.create_book(name)
            with pytest.raises(boki.BookExists):
                await client.create_book(name)
            assert (book.id, name) in [(info.id, info.name) for info in await client.books()]
            await client.remove_book(name)
            with pytest.raises(boki.BookNotFound):
                await client.book(name)

    run(test())


def test_positions_are_handed_on(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book), boki.connect(server.url) as other:
            await book.append("x")
            theirs = await other.book(book.name)
            theirs.advance_to(book.position)
            assert theirs.position == book.position
            assert len(await theirs.read_next()) == 1

    run(test())


Wrong = Callable[[boki.Book], Awaitable[Any]]
WRONG: list[tuple[Wrong, type[boki.Error]]] = [
    (lambda book: book.append("x", tags=[""]), boki.InvalidTag),
    (lambda book: book.append("x", tags=["x" * 256]), boki.InvalidTag),
    (lambda book: book.append("x", tags=["~own"]), boki.Error),
    (lambda book: book.append("x", tags="text"), boki.InvalidArgument),
    (lambda book: book.append("x", id=b"short"), boki.InvalidArgument),
    (lambda book: book.append("x", if_tail={"t": -1}), boki.InvalidArgument),
    (lambda book: book.append("x", raises={"t": 1 << 64}), boki.InvalidArgument),
    (lambda book: book.append("x", ack="never"), boki.InvalidArgument),  # type: ignore[arg-type]
    (lambda book: book.append({1, 2}), boki.NotJson),
    (lambda book: book.append({"x": float("nan")}), boki.NotJson),
    (lambda book: book.append_batch([]), boki.InvalidArgument),
    (lambda book: book.append(bytes(9 << 20)), boki.TooLarge),
    (lambda book: book.read_next(limit=-1), boki.InvalidArgument),
    (lambda book: book.read_next(wait="soon"), boki.InvalidArgument),
    (lambda book: book.tail(consistency="best"), boki.InvalidArgument),  # type: ignore[arg-type]
]


def test_what_makes_no_sense_is_refused_and_the_connection_goes_on(
    server: ServerProcess, run: Run
) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            for wrong, expected in WRONG:
                with pytest.raises(expected):
                    await wrong(book)
            assert await book.append("fine") > 0

    run(test())


def test_calls_without_a_worker_fail(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with boki.connect(server.url) as client:
            with pytest.raises(boki.FunctionNotFound) as missing:
                await client.call("nobody", {"x": 1})
            assert missing.value.function == "nobody"
            assert missing.value.retry == "later"
            with pytest.raises(boki.CallNotFound):
                await client.result("00" * 16)
            with pytest.raises(boki.InvalidArgument):
                await client.result("00")
            with pytest.raises(boki.InvalidArgument):
                await client.call("nobody", priority=10)
            assert await client.functions() == []
            await client.ping()

    run(test())


def test_large_records_travel(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with new_book(server) as (_, book):
            data = bytes(range(256)) * 4096
            await asyncio.gather(*(book.append(data, tags=[str(n)]) for n in range(6)))
            read = [record async for record in book.records()]
            assert len(read) == 6
            assert all(record.data == data for record in read)

    run(test())


def test_a_unix_socket_is_an_address(server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with boki.connect(f"unix:{server.data}/boki.sock") as client:
            assert await client.books()

    run(test())


def test_nobody_listening_is_an_error(run: Run) -> None:
    async def test() -> None:
        with pytest.raises(boki.ConnectFailed):
            await boki.connect("127.0.0.1:1")

    run(test())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:2654", "127.0.0.1:2654"),
        ("http://localhost:80/", "localhost:80"),
        ("localhost", "localhost:2654"),
        ("[::1]:99", "[::1]:99"),
        ("[::1]", "[::1]:2654"),
        ("::1", "[::1]:2654"),
        ("unix:/run/boki.sock", "unix:/run/boki.sock"),
        ("unix:///run/boki.sock", "unix:/run/boki.sock"),
        ("unix:boki.sock", "unix:boki.sock"),
    ],
)
def test_addresses_come_in_several_forms(text: str, expected: str) -> None:
    from boki._terms import parse_address

    assert str(parse_address(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "unix:", "host:port", "host:99999", "https://host", "http://host/path", "a b"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    from boki._terms import parse_address

    with pytest.raises(boki.InvalidAddress) as wrong:
        parse_address(text)
    assert wrong.value.code == "BK0611"


def test_durations_come_in_several_forms() -> None:
    from boki._terms import milliseconds

    for duration, expected in [
        (None, 0),
        (1, 1000),
        (0.0001, 1),
        ("500ms", 500),
        ("1.5s", 1500),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("3d", 259_200_000),
        (timedelta(seconds=2), 2000),
        ("900d", (1 << 32) - 1),
    ]:
        assert milliseconds(duration) == expected
    for wrong in ("", "5", "s", "-1s", "5 parsecs", -1, float("inf")):
        with pytest.raises(boki.InvalidArgument):
            milliseconds(wrong)


def test_the_loop_may_be_that_of_uvloop(server: ServerProcess) -> None:
    from boki._serve import new_loop

    async def test() -> None:
        async with new_book(server) as (_, book):
            seqs = await asyncio.gather(*(book.append(str(n)) for n in range(10)))
            assert await book.tail() == max(seqs)

    loop = new_loop()
    # Installed for the tests; where it is not, the usual loop serves.
    assert type(loop).__module__ == "uvloop"
    try:
        loop.run_until_complete(test())
    finally:
        loop.close()


def test_a_script_needs_no_await(server: ServerProcess) -> None:
    with boki.sync.connect(server.url) as client:
        book = client.create_book(unique())
        seqs = [book.append(str(n), tags=["t"]) for n in range(3)]
        assert [record.text for record in book.records(tag="t")] == ["0", "1", "2"]
        for record in book.subscribe(seqs[1]):
            assert record.seq == seqs[1]
            break
        with pytest.raises(boki.ConditionFailed):
            book.append("x", if_tail={"t": 0})
        assert book.tail("t") == seqs[2]
        assert book.position > seqs[2]
        with pytest.raises(boki.FunctionNotFound):
            client.call("nobody", book=book)
    with pytest.raises(boki.Closed):
        book.tail()
