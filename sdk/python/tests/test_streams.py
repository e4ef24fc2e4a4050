"""Streams both ways and HTTP functions, against a server that does what the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import server_side
from conftest import Run
from fake_server import Peer
from test_worker import done, serving

import boki
import boki.sync
from boki import _wire as wire
from boki._function import registered
from boki._worker_messages import MAX_PIECE, STREAM_WINDOW

Head = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    yield
    registered.clear()


async def answer(peer: Peer, corr: int = 9) -> tuple[Head | None, list[bytes], dict[str, Any]]:
    """Head, pieces and end of an answer that fits into the first window."""
    head, pieces = None, []
    while True:
        kind, got, body = await peer.next()
        assert got == corr
        if kind == wire.OUTPUT_HEAD:
            assert head is None
            head = server_side.read_output_head(body)
        elif kind == wire.OUTPUT_DATA:
            assert head is not None
            pieces.append(body)
        else:
            assert kind == wire.INVOKE_DONE
            return head, pieces, server_side.read_done(body)


def test_what_a_generator_yields_is_streamed(run: Run) -> None:
    @boki.function
    async def counts() -> AsyncIterator[dict[str, int]]:
        for n in range(2):
            yield {"n": n}

    @boki.function
    def words() -> Iterator[str]:
        yield "one "
        yield "tw\u00f6"

    @boki.function(content_type="image/png")
    async def picture() -> AsyncIterator[bytes]:
        yield b"\x89PNG"

    @boki.function
    async def nothing() -> AsyncIterator[bytes]:
        for _ in ():
            yield b""

    async def test() -> None:
        async with serving(counts, words, picture, nothing) as (_, peer):
            for function, content_type, expected in [
                ("counts", "application/x-ndjson", [b'{"n":0}\n', b'{"n":1}\n']),
                ("words", "text/plain; charset=utf-8", [b"one ", "twö".encode()]),
                ("picture", "image/png", [b"\x89PNG"]),
            ]:
                peer.send(wire.INVOKE, 9, server_side.invoke(function))
                head, pieces, end = await answer(peer)
                assert head == {"status": 200, "content_type": content_type, "headers": []}
                assert pieces == expected
                assert end["ok"] == {"content_type": "", "output": ""}
            peer.send(wire.INVOKE, 9, server_side.invoke("nothing"))
            assert (await answer(peer))[:2] == (None, [])

    run(test())


def test_pieces_come_one_by_one(run: Run) -> None:
    turns = asyncio.Semaphore(0)

    @boki.function
    async def ticks() -> AsyncIterator[str]:
        for n in range(3):
            await turns.acquire()
            yield str(n)

    async def test() -> None:
        async with serving(ticks) as (_, peer):
            peer.send(wire.INVOKE, 9, server_side.invoke("ticks"))
            for n in range(3):
                turns.release()
                if n == 0:
                    await peer.expect(wire.OUTPUT_HEAD)
                assert await peer.expect(wire.OUTPUT_DATA) == (9, str(n).encode())
            await done(peer, 9)

    run(test())


@pytest.mark.parametrize("name", ["much", "much_plainly"])
def test_output_waits_for_credit(run: Run, name: str) -> None:
    yielded = 0

    @boki.function
    async def much() -> AsyncIterator[bytes]:
        nonlocal yielded
        for _ in range(8):
            yielded += 1
            yield bytes(100_000)

    @boki.function
    def much_plainly() -> Iterator[bytes]:
        nonlocal yielded
        for _ in range(8):
            yielded += 1
            yield bytes(100_000)

    async def test() -> None:
        async with serving(much, much_plainly) as (_, peer):
            peer.send(wire.INVOKE, 9, server_side.invoke(name))
            await peer.expect(wire.OUTPUT_HEAD)
            got = 0
            while got < STREAM_WINDOW:
                _, piece = await peer.expect(wire.OUTPUT_DATA)
                assert len(piece) <= MAX_PIECE
                got += len(piece)
            assert got == STREAM_WINDOW
            peer.send(wire.PING, 1)
            await peer.expect(wire.PONG)
            assert yielded == 3
            peer.send(wire.OUTPUT_CREDIT, 9, wire.U32.pack(10))
            assert len((await peer.expect(wire.OUTPUT_DATA))[1]) == 10
            peer.send(wire.OUTPUT_CREDIT, 9, wire.U32.pack(1 << 20))
            got += 10
            while got < 800_000:
                got += len((await peer.expect(wire.OUTPUT_DATA))[1])
            assert (await done(peer, 9))["ok"] == {"content_type": "", "output": ""}
            assert got == 800_000

    run(test())


def test_a_stream_that_fails_is_broken_off(run: Run) -> None:
    @boki.function
    async def breaks() -> AsyncIterator[str]:
        yield "begin"
        raise boki.Failure("no more", code="broken")

    @boki.function
    async def endless(cx: boki.Cx) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(MAX_PIECE)
        finally:
            await asyncio.sleep(0)
            cx.log.info("closed")

    @boki.function
    def endless_plainly(cx: boki.sync.Cx) -> Iterator[bytes]:
        try:
            while True:
                yield bytes(MAX_PIECE)
        finally:
            cx.log.info("closed")

    async def test() -> None:
        async with serving(breaks, endless, endless_plainly) as (_, peer):
            peer.send(wire.INVOKE, 9, server_side.invoke("breaks"))
            head, pieces, end = await answer(peer)
            assert head is not None
            assert pieces == [b"begin"]
            assert end["error"] == {"code": "broken", "message": "no more", "retryable": False}
            for name in ("endless", "endless_plainly"):
                peer.send(wire.INVOKE, 9, server_side.invoke(name))
                await peer.expect(wire.OUTPUT_HEAD)
                for _ in range(STREAM_WINDOW // MAX_PIECE):
                    await peer.expect(wire.OUTPUT_DATA)
                peer.send(wire.INVOKE_CANCEL, 9, b"\1")
                # It is closed before the call is answered.
                _, body = await peer.expect(wire.WORKER_LOG)
                assert server_side.read_log(body)["line"] == "closed"
                assert (await done(peer, 9))["error"]["code"] == "cancelled"

    run(test())


def test_input_comes_as_it_is_taken(run: Run) -> None:
    turns = asyncio.Semaphore(0)

    @boki.function
    async def count(input: boki.Input) -> list[int]:
        sizes = []
        async for piece in input:
            sizes.append(len(piece))
            await turns.acquire()
        return sizes

    @boki.function
    async def whole(cx: boki.Cx, input: boki.Input) -> Any:
        return [input.content_type, await input.json()]

    async def test() -> None:
        async with serving(count, whole) as (_, peer):
            begin = server_side.invoke("count", bytes(1000), more_input=True)
            peer.send(wire.INVOKE, 9, begin)
            for _ in range(4):
                peer.send(wire.INVOKE_INPUT, 9, server_side.invoke_input(bytes(MAX_PIECE)))
            peer.send(wire.PING, 1)
            await peer.expect(wire.PONG)
            # What came with the call is no credit; each piece that is taken is.
            turns.release()
            assert await peer.expect(wire.INPUT_CREDIT) == (9, wire.U32.pack(MAX_PIECE))
            for _ in range(3):
                turns.release()
                assert await peer.expect(wire.INPUT_CREDIT) == (9, wire.U32.pack(MAX_PIECE))
            turns.release()
            peer.send(wire.INVOKE_INPUT, 9, server_side.invoke_input(b"", last=True))
            end = await done(peer, 9)
            assert json.loads(end["ok"]["output"]) == [1000, *[MAX_PIECE] * 4]
            peer.send(wire.INVOKE, 9, server_side.invoke("whole", b'{"a"', more_input=True))
            peer.send(wire.INVOKE_INPUT, 9, server_side.invoke_input(b":1}", last=True))
            assert json.loads((await done(peer, 9))["ok"]["output"]) == [
                "application/json",
                {"a": 1},
            ]
            # All of it came with the call.
            peer.send(wire.INVOKE, 9, server_side.invoke("whole", b"3"))
            assert json.loads((await done(peer, 9))["ok"]["output"])[1] == 3

    run(test())


def test_more_input_than_the_credit_allows_ends_the_connection(run: Run) -> None:
    @boki.function
    async def never_reads(input: boki.Input) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with serving(never_reads) as (server, peer):
            peer.send(wire.INVOKE, 9, server_side.invoke("never_reads", more_input=True))
            for _ in range(5):
                peer.send(wire.INVOKE_INPUT, 9, server_side.invoke_input(bytes(MAX_PIECE)))
            assert await peer.ended()
            await server.peer()

    run(test())


def test_a_function_sees_the_request_that_it_was_called_by(run: Run) -> None:
    seen: list[boki.Request] = []

    @boki.http
    async def web(cx: boki.Cx, request: boki.Request) -> None:
        seen.append(request)

    @boki.http
    def web_plainly(request: boki.Request) -> Any:
        return request.json()

    @boki.http(stream=True)
    async def upload(request: boki.Request) -> str:
        assert request.method == "PUT"
        return str(len(await request.stream.read()))

    headers = [
        ("cookie", "user=ada; theme=dark"),
        ("accept", "*/*"),
        ("cookie", 'user=eve; last="x"'),
        ("content-type", "text/plain"),
    ]
    http = ("PUT", "/seats/4%20a", "row=7&row=8&x=", headers)

    async def test() -> None:
        async with serving(web, web_plainly, upload) as (_, peer):
            peer.send(wire.INVOKE, 9, server_side.invoke("web", b"h\xc3\xa9", http=http))
            head, _, _ = await answer(peer)
            assert head == {"status": 204, "content_type": "", "headers": []}
            (request,) = seen
            assert (request.method, request.path) == ("PUT", "/seats/4 a")
            assert (request.raw_path, request.query) == ("/seats/4%20a", "row=7&row=8&x=")
            assert request.params == {"row": "8", "x": ""}
            assert request.all_params("row") == ["7", "8"]
            assert request.headers["Accept"] == "*/*"
            assert request.headers.get("missing") is None
            assert request.headers.all("Cookie") == [headers[0][1], headers[2][1]]
            assert request.cookies == {"user": "ada", "theme": "dark", "last": "x"}
            assert (request.content_type, request.text) == ("text/plain", "h\u00e9")
            with pytest.raises(boki.InvalidArgument):
                _ = request.stream
            peer.send(wire.INVOKE, 9, server_side.invoke("web_plainly", b'{"a":1}', http=http))
            assert json.loads((await answer(peer))[2]["ok"]["output"]) == {"a": 1}
            peer.send(wire.INVOKE, 9, server_side.invoke("web_plainly", b"{", http=http))
            assert (await answer(peer))[2]["error"]["code"] == "invalid_input"
            # Called by its name, without HTTP.
            peer.send(wire.INVOKE, 9, server_side.invoke("web", b"{}"))
            await answer(peer)
            assert (seen[1].method, seen[1].path) == ("POST", "/")
            assert seen[1].content_type == "application/json"
            peer.send(wire.INVOKE, 9, server_side.invoke("upload", http=http, more_input=True))
            peer.send(wire.INVOKE_INPUT, 9, server_side.invoke_input(bytes(70_000), last=True))
            _, _, end = await answer(peer)
            assert end["ok"]["output"] == "70000"

    run(test())


def respond(path: str) -> Any:
    match path:
        case "/text":
            return "plain"
        case "/value":
            return {"a": 1}
        case "/bytes":
            return b"raw"
        case "/made":
            response = boki.Response.json([1], status=201, headers={"X-Own": "1"})
            response.set_cookie("seat", "4", max_age=60, secure=True)
            response.delete_cookie("old")
            return response
        case "/gone":
            return boki.Response.redirect("/text")
        case "/page":
            return boki.Response.html("<p>")
        case _:
            raise boki.Failure("no such page")


def test_a_function_answers_with_a_response(run: Run) -> None:
    @boki.http
    async def web(request: boki.Request) -> Any:
        return respond(request.path)

    @boki.http
    def web_plainly(request: boki.Request) -> Any:
        return respond(request.path)

    text = "text/plain; charset=utf-8"
    cookies = [
        ["set-cookie", "seat=4; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax"],
        ["set-cookie", "old=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"],
    ]

    async def test() -> None:
        async with serving(web, web_plainly) as (_, peer):
            for name in ("web", "web_plainly"):
                for path, head, content_type, body in [
                    ("/text", None, text, "plain"),
                    ("/value", None, "application/json", '{"a":1}'),
                    ("/bytes", None, "", "raw"),
                    ("/made", (201, [["x-own", "1"], *cookies]), "application/json", "[1]"),
                    ("/gone", (303, [["location", "/text"]]), "", ""),
                    ("/page", None, "text/html; charset=utf-8", "<p>"),
                ]:
                    peer.send(wire.INVOKE, 9, server_side.invoke(name, http=("GET", path, "", [])))
                    got, pieces, end = await answer(peer)
                    assert pieces == []
                    assert end["ok"] == {"content_type": content_type, "output": body}
                    if head is None:
                        assert got is None
                    else:
                        status, headers = head
                        assert got == {
                            "status": status,
                            "content_type": content_type,
                            "headers": headers,
                        }
                peer.send(wire.INVOKE, 9, server_side.invoke(name, http=("GET", "/x", "", [])))
                assert (await answer(peer))[2]["error"]["message"] == "no such page"

    run(test())


def test_events_are_sent_as_they_come(run: Run) -> None:
    async def events() -> AsyncIterator[Any]:
        yield "hello\nworld"
        yield boki.Event({"n": 1}, event="count", id="7", retry_ms=100)

    @boki.http
    async def feed() -> boki.Response:
        return boki.Response.events(events())

    @boki.http
    def feed_plainly() -> boki.Response:
        return boki.Response.events(["hello\r\nworld", boki.Event({"n": 1}, event="count", id="7")])

    @boki.http
    async def feed_of_list() -> boki.Response:
        return boki.Response(["a", b"b"], status=202)

    @boki.http
    def wrong() -> boki.Response:
        return boki.Response([1])

    async def test() -> None:
        async with serving(feed, feed_plainly, feed_of_list, wrong) as (_, peer):
            for name, retry in (("feed", "retry: 100\n"), ("feed_plainly", "")):
                peer.send(wire.INVOKE, 9, server_side.invoke(name))
                head, pieces, _ = await answer(peer)
                assert head == {
                    "status": 200,
                    "content_type": "text/event-stream",
                    "headers": [["cache-control", "no-cache"]],
                }
                assert pieces == [
                    b"data: hello\ndata: world\n\n",
                    f'event: count\nid: 7\n{retry}data: {{"n":1}}\n\n'.encode(),
                ]
            peer.send(wire.INVOKE, 9, server_side.invoke("feed_of_list"))
            head, pieces, _ = await answer(peer)
            assert head is not None
            assert head["status"] == 202
            assert pieces == [b"a", b"b"]
            peer.send(wire.INVOKE, 9, server_side.invoke("wrong"))
            _, pieces, end = await answer(peer)
            assert pieces == []
            assert end["error"]["code"] == "BK0105"

    run(test())


def test_headers_and_cookies_that_cannot_be_are_refused() -> None:
    response = boki.Response()
    for name, value in [("", "x"), ("a b", "x"), ("a:", "x"), ("a", "x\r\nb: y"), ("\u00e4", "x")]:
        with pytest.raises(boki.InvalidArgument):
            response.add_header(name, value)
    for name, value in [("", "x"), ("a=b", "x"), ("a", "x; Path=/"), ("a", "\u00e4")]:
        with pytest.raises(boki.InvalidArgument):
            response.set_cookie(name, value)
    for wrong in (boki.Event("x", id="1\n2"), boki.Event("x", event="a\rb")):
        with pytest.raises(boki.InvalidArgument):
            wrong.encode()
    with pytest.raises(boki.InvalidArgument):
        boki.Response(status=99)
    response.add_header("Content-Type", "text/css")
    assert (response.content_type, response.headers) == ("text/css", [])
