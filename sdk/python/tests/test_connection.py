"""What becomes of questions when connections break, or the server does what it must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import server_side
from conftest import Run
from fake_server import FakeServer, Peer

import boki
from boki import _wire as wire
from boki._server_process import ServerProcess


@asynccontextmanager
async def connected(**options: str) -> AsyncIterator[tuple[FakeServer, Peer, boki.Client]]:
    async with FakeServer() as server:
        connecting = asyncio.create_task(boki.connect(server.address, **options).open())
        peer = await server.peer()
        await peer.greet()
        client = await connecting
        yield server, peer, client
        await client.close()


async def open_book(peer: Peer, client: boki.Client) -> boki.Book:
    opening = asyncio.create_task(client.book("orders"))
    corr, name = await peer.expect(wire.BOOK_OPEN)
    peer.send(wire.BOOK_IS, corr, server_side.book_is(7, 0, name.decode()))
    return await opening


def test_a_connection_begins_with_preamble_and_hello(run: Run) -> None:
    async def test() -> None:
        async with FakeServer() as server:
            connecting = asyncio.create_task(boki.connect(server.address, name="shop").open())
            peer = await server.peer()
            hello = await peer.greet()
            assert peer.preamble == b"BOKI\x01\0\0\0"
            assert hello == {"version": 1, "role": "client", "name": "shop"}
            client = await connecting
            peer.send(wire.PING, 7)
            assert await peer.next() == (wire.PONG, 7, b"")
            await client.close()
            assert await peer.ended()

    run(test())


def test_appends_are_asked_again_in_their_order_until_they_are_answered(run: Run) -> None:
    async def test() -> None:
        async with connected() as (server, peer, client):
            book = await open_book(peer, client)
            appends = [asyncio.create_task(book.append(str(n))) for n in range(3)]
            sent = [await peer.expect(wire.APPEND) for _ in appends]
            ids = {body[1 + 16 : 1 + 32] for _, body in sent}
            assert len(ids) == 3
            peer.send(wire.APPENDED, sent[1][0], server_side.appended(5, 6))
            assert await appends[1] == 5
            peer.cut()
            peer = await server.greeted()
            # The same bytes, so the same ids.
            assert [await peer.expect(wire.APPEND) for _ in range(2)] == [sent[0], sent[2]]
            for at in (2, 0):
                peer.send(wire.APPENDED, sent[at][0], server_side.appended(10 + at, 20))
            assert [await appends[0], await appends[2]] == [10, 12]
            assert book.position == 20

    run(test())


def test_what_cannot_be_repeated_fails_when_the_connection_breaks(run: Run) -> None:
    async def test() -> None:
        async with connected() as (server, peer, client):
            call = asyncio.create_task(client.call("f"))
            keyed = asyncio.create_task(client.call("f", key="k"))
            send = asyncio.create_task(client.send("f"))
            create = asyncio.create_task(client.create_book("b"))
            for kind in (wire.CALL, wire.CALL, wire.CALL, wire.BOOK_CREATE):
                await peer.expect(kind)
            peer.cut()
            for unknown in (call, create):
                with pytest.raises(boki.OutcomeUnknown) as error:
                    await unknown
                assert (error.value.code, error.value.retry) == ("BK0614", "same_id")
            peer = await server.greeted()
            corr, body = await peer.expect(wire.CALL)
            assert server_side.read_call(body)["key"] == "k"
            peer.send(wire.CALL_RESULT, corr, server_side.call_result(bytes(16), b"x"))
            assert await keyed == b"x"
            corr, body = await peer.expect(wire.CALL)
            assert len(server_side.read_call(body)["key"]) == 32
            peer.send(wire.CALL_ACCEPTED, corr, server_side.call_accepted(bytes(15) + b"1", 4))
            assert (await send).id == "00" * 15 + "31"

    run(test())


def test_a_server_that_shuts_down_leaves_the_answer_to_the_next(run: Run) -> None:
    async def test() -> None:
        async with connected() as (server, peer, client):
            book = await open_book(peer, client)
            append = asyncio.create_task(book.append("x"))
            corr, _ = await peer.expect(wire.APPEND)
            peer.send(wire.ERROR, corr, server_side.error("BK0305", "stopping", "same_id"))
            peer.cut()
            peer = await server.greeted()
            corr, _ = await peer.expect(wire.APPEND)
            peer.send(wire.APPENDED, corr, server_side.appended(1, 2))
            assert await append == 1

    run(test())


def test_waiting_for_a_lost_server_has_an_end(run: Run) -> None:
    async def test() -> None:
        async with connected(reconnect_for="1ms") as (server, peer, client):
            book = await open_book(peer, client)
            await server.close()
            with pytest.raises(boki.Disconnected) as error:
                await book.append("x")
            assert error.value.code == "BK0613"
            # The client itself goes on trying.
            await server.listen()
            peer = await server.greeted()
            tail = asyncio.create_task(book.tail())
            corr, _ = await peer.expect(wire.TAIL)
            peer.send(wire.TAIL_IS, corr, server_side.tail_is(3, 4))
            assert await tail == 3

    run(test())


def test_what_nobody_waits_for_is_cancelled_at_the_server(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, peer, client):
            book = await open_book(peer, client)
            read = asyncio.create_task(book.read_next(wait="1h"))
            corr, _ = await peer.expect(wire.READ)
            read.cancel()
            assert await peer.next() == (wire.CANCEL, corr, b"")
            with pytest.raises(boki.DeadlineExceeded):
                await book.read_next(wait="1h", deadline="1ms")
            corr, _ = await peer.expect(wire.READ)
            assert await peer.next() == (wire.CANCEL, corr, b"")
            # Its answer, that was on its way, finds nobody.
            peer.send(wire.RECORDS, corr, server_side.records(9, []))
            tail = asyncio.create_task(book.tail())
            corr, _ = await peer.expect(wire.TAIL)
            peer.send(wire.TAIL_IS, corr, server_side.tail_is(3, 4))
            assert (await tail, book.position) == (3, 4)

    run(test())


def test_an_answer_that_does_not_fit_is_an_error_of_its_question(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, peer, client):
            book = await open_book(peer, client)
            for kind, body in ((wire.BOOKS_ARE, bytes(4)), (wire.TAIL_IS, b"short")):
                tail = asyncio.create_task(book.tail())
                corr, _ = await peer.expect(wire.TAIL)
                peer.send(kind, corr, body)
                with pytest.raises(boki.UnexpectedAnswer):
                    await tail

    run(test())


def test_garbage_ends_the_connection_and_the_next_one_answers(run: Run) -> None:
    async def test() -> None:
        async with connected() as (server, peer, client):
            book = await open_book(peer, client)
            tail = asyncio.create_task(book.tail())
            await peer.expect(wire.TAIL)
            peer.send_raw(b"\xff" * 24)
            peer = await server.greeted()
            corr, _ = await peer.expect(wire.TAIL)
            peer.send(99, corr, b"of a later version")
            peer.send(wire.TAIL_IS, corr, server_side.tail_is(3, 4))
            assert await tail == 3

    run(test())


def test_a_server_that_refuses_says_why(run: Run) -> None:
    async def test() -> None:
        async with FakeServer() as server:
            connecting = asyncio.create_task(boki.connect(server.address).open())
            peer = await server.peer()
            await peer.read_preamble()
            await peer.expect(wire.HELLO)
            peer.send(wire.ERROR, 0, server_side.error("BK0603", "version 1 is too old"))
            with pytest.raises(boki.Error, match="too old") as refused:
                await connecting
            assert refused.value.code == "BK0603"
            with pytest.raises(boki.ConnectFailed):
                await boki.connect(server.address, connect_timeout="1ms")

    run(test())


def test_questions_wait_for_room_in_the_order_in_which_they_came(run: Run) -> None:
    async def test() -> None:
        async with FakeServer() as server:
            connecting = asyncio.create_task(boki.connect(server.address).open())
            peer = await server.peer()
            await peer.greet(max_in_flight=4)
            client = await connecting
            book = await open_book(peer, client)
            appends = [asyncio.create_task(book.append(str(n))) for n in range(4)]
            appends[1].cancel()
            for n in (0, 2, 3):
                corr, body = await peer.expect(wire.APPEND)
                assert body.endswith(str(n).encode())
                # A call has room of its own.
                call = asyncio.create_task(client.call("f"))
                call_corr, _ = await peer.expect(wire.CALL)
                peer.send(wire.CALL_RESULT, call_corr, server_side.call_result(bytes(16), b""))
                await call
                peer.send(wire.APPENDED, corr, server_side.appended(n + 1, n + 2))
                assert await appends[n] == n + 1
            await client.close()

    run(test())


def test_a_session_never_goes_back(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, peer, client):
            book = await open_book(peer, client)
            for position in (9, 4):
                tail = asyncio.create_task(book.tail())
                corr, _ = await peer.expect(wire.TAIL)
                peer.send(wire.TAIL_IS, corr, server_side.tail_is(3, position))
                await tail
                assert book.position == 9

    run(test())


def test_a_closed_client_answers_nothing_more(run: Run) -> None:
    async def test() -> None:
        async with connected() as (_, peer, client):
            book = await open_book(peer, client)
            read = asyncio.create_task(book.read_next(wait="1h"))
            await peer.expect(wire.READ)
            await client.close()
            with pytest.raises(boki.Closed):
                await read
            with pytest.raises(boki.Closed):
                await book.tail()

    run(test())


def test_a_killed_server_doubles_and_loses_nothing(own_server: ServerProcess, run: Run) -> None:
    async def test() -> None:
        async with boki.connect(own_server.url) as client:
            book = await client.create_book("orders")
            answers = asyncio.Semaphore(0)

            async def write(writer: int) -> None:
                for n in range(100):
                    await book.append(f"{writer}/{n}", tags=[str(writer)])
                    answers.release()

            writers = [asyncio.create_task(write(writer)) for writer in range(8)]
            for _ in range(2):
                for _ in range(150):
                    await answers.acquire()
                own_server.kill()
                own_server.start()
            await asyncio.gather(*writers)
            for writer in range(8):
                texts = [record.text async for record in book.records(tag=str(writer))]
                assert texts == [f"{writer}/{n}" for n in range(100)]

    run(test())
