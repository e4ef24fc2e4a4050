"""The worker's side of its link, against a server that does what the test says."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import server_side
from conftest import Run
from fake_server import FakeServer, Peer

import boki
import boki.sync
from boki import _capture, _worker
from boki import _wire as wire
from boki._function import Function, registered


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """Functions of one test are none of another."""
    yield
    registered.clear()


async def register(peer: Peer) -> dict[str, Any]:
    """Shakes hands with a worker and takes it in; returns what it registered."""
    assert (await peer.greet())["role"] == "worker"
    corr, body = await peer.expect(wire.REGISTER)
    peer.send(wire.REGISTERED, corr, wire.U64.pack(1))
    return server_side.read_register(body)


@asynccontextmanager
async def serving(
    *functions: Callable[..., Any], **options: Any
) -> AsyncIterator[tuple[FakeServer, Peer]]:
    """A worker with these functions, registered."""
    async with FakeServer() as server:
        stop = asyncio.Event()
        worker = _worker.Worker(functions, server=server.address, **options)
        task = asyncio.create_task(worker.serve(stop))
        peer = await server.peer()
        await register(peer)
        yield server, peer
        stop.set()
        await server.close()
        await task


async def invoke(peer: Peer, function: str, value: Any = None, **fields: Any) -> dict[str, Any]:
    """Calls a function; returns its InvokeDone."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    peer.send(wire.INVOKE, 77, server_side.invoke(function, data, **fields))
    return await done(peer, 77)


async def done(peer: Peer, corr: int) -> dict[str, Any]:
    got, body = await peer.expect(wire.INVOKE_DONE)
    assert got == corr
    return server_side.read_done(body)


def test_a_worker_says_what_it_offers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @boki.function(timeout="30s", retries=4)
    async def hold(seat: int) -> None:
        """Holds a seat.

        For ten minutes.
        """

    @boki.function(name="upload", description="Takes a file")
    async def take(input: boki.Input) -> None: ...

    @boki.http
    def web(request: boki.Request) -> str:
        return ""

    async def test() -> None:
        monkeypatch.setenv("BOKI_WORKER", "5f1c")
        monkeypatch.setenv("BOKI_VERSION", "v3")
        async with FakeServer() as server:
            worker = _worker.Worker(registered, name="shop", server=server.address, concurrency=64)
            task = asyncio.create_task(worker.serve())
            said = await register(await server.peer())
            task.cancel()
        assert said.pop("pid") > 0
        common = {"max_attempts": 0, "timeout_ms": 0, "streams_input": False}
        assert said == {
            "worker": "shop",
            "process": "5f1c",
            "version": "v3",
            "concurrency": 64,
            "functions": [
                {
                    **common,
                    "name": "hold",
                    "description": "Holds a seat.",
                    "max_attempts": 5,
                    "timeout_ms": 30000,
                },
                {
                    **common,
                    "name": "upload",
                    "description": "Takes a file",
                    "streams_input": True,
                },
                {**common, "name": "web", "description": ""},
            ],
        }

    run(test())


@dataclass
class Order:
    sku: str
    count: int = 1


def test_inputs_and_outputs(run: Run) -> None:
    @boki.function
    async def plus(number: int) -> int:
        return number + 1

    @boki.function
    async def order(cx: boki.Cx, order: Order) -> Order:
        assert cx.function == "order"
        assert cx.attempt == 2
        assert cx.call_id == b"0123456789abcdef".hex()
        return Order(order.sku, order.count + 1)

    @boki.function
    async def raw(data: bytes) -> bytes:
        return data[::-1]

    @boki.function
    async def page() -> boki.Output:
        return boki.Output(b"<p>", "text/html")

    @boki.function
    async def guess(cx, value=7):  # type: ignore[no-untyped-def]
        return value

    @boki.function
    def plain(text: str) -> str:
        return text + threading.current_thread().name

    async def test() -> None:
        async with serving(plus, order, raw, page, guess, plain) as (_, peer):
            for function, value, output in [
                ("plus", 1, "2"),
                ("order", {"sku": "tea", "extra": 1}, '{"sku":"tea","count":2}'),
                ("guess", b"", "7"),
                ("guess", [1, None], "[1,null]"),
                ("plain", "in ", '"in boki-function"'),
            ]:
                answer = await invoke(peer, function, value, attempt=2, position=40)
                ok = {"content_type": "application/json", "output": output}
                assert answer == {"ok": ok, "position": 40}
            answer = await invoke(peer, "raw", b"abc")
            assert answer["ok"] == {"content_type": "", "output": "cba"}
            answer = await invoke(peer, "page")
            assert answer["ok"] == {"content_type": "text/html", "output": "<p>"}

    run(test())


def test_what_does_not_fit_or_exist_is_a_failure(run: Run) -> None:
    @boki.function
    async def order(order: Order) -> None: ...

    async def test() -> None:
        async with serving(order) as (_, peer):
            for data, words in [
                (b'{"sku":7}', "sku: a text is expected, not the number 7"),
                (b'{"count":1}', 'the field "sku" is expected, not an object'),
                (b"[]", "an object is expected, not a list"),
                (b"{", "Expecting property name"),
                (b"\xff", "utf-8"),
                (b"NaN", "NaN is no JSON"),
                (b"[" * 100_000, "recursion"),
            ]:
                answer = await invoke(peer, "order", data)
                assert answer["error"]["code"] == "invalid_input"
                assert words in answer["error"]["message"]
                assert not answer["error"]["retryable"]
            answer = await invoke(peer, "nobody")
            assert answer["error"]["code"] == "not_run"
            peer.send(wire.INVOKE, 5, b"short")
            assert (await done(peer, 5))["error"]["code"] == "not_run"
            answer = await invoke(peer, "order", b"{", more_input=True)
            assert answer["error"]["code"] == "not_run"

    run(test())


def test_what_a_function_raises_is_its_failure(run: Run) -> None:
    def fail(how: str) -> None:
        if how == "failure":
            raise boki.Failure("sold out", code="sold_out")
        if how == "retry":
            raise boki.Failure("not now", retryable=True)
        if how == "full":
            raise boki.DiskFull("the disk is full")
        if how == "exit":
            raise SystemExit(3)
        raise ValueError("no such planet")

    @boki.function
    async def fails(how: str) -> None:
        fail(how)

    @boki.function(name="fails_plainly")
    def fails_plainly(how: str) -> None:
        fail(how)

    async def test() -> None:
        async with serving(fails, fails_plainly) as (_, peer):
            for function in ("fails", "fails_plainly"):
                for how, expected in [
                    ("failure", ("sold_out", "sold out", False)),
                    ("retry", ("", "not now", True)),
                    ("full", ("BK0301", "the disk is full", True)),
                ]:
                    error = (await invoke(peer, function, how))["error"]
                    assert (error["code"], error["message"], error["retryable"]) == expected
                for how, words in [("exit", "SystemExit: 3"), ("", "ValueError: no such planet")]:
                    data = json.dumps(how).encode()
                    peer.send(wire.INVOKE, 9, server_side.invoke(function, data))
                    lines = []
                    while (frame := await peer.next())[0] == wire.WORKER_LOG:
                        lines.append(server_side.read_log(frame[2]))
                    assert lines[0]["line"] == "Traceback (most recent call last):"
                    assert lines[-1]["line"] == words
                    assert {line["level"] for line in lines} == {"error"}
                    answer = server_side.read_done(frame[2])
                    assert answer["error"] == {"code": "", "message": words, "retryable": False}

    run(test())


def test_what_a_function_prints_is_in_the_log_of_its_call(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging
    import sys

    @boki.function
    async def talk(cx: boki.Cx) -> None:
        cx.log.info("one %s", 1)
        print("two", 2)
        print("three ", end="")
        logging.getLogger("own").error("four %d", 4)
        cx.log.debug("five\nsix")
        await asyncio.sleep(0)
        print("and seven", file=sys.stderr, end="")

    @boki.function
    def talk_plainly(cx: boki.sync.Cx) -> None:
        print("a")
        cx.log.trace("b %s")
        logging.getLogger("own").warning("c")

    async def lines(peer: Peer, function: str) -> list[tuple[str, str]]:
        peer.send(wire.INVOKE, 9, server_side.invoke(function))
        said = []
        while (frame := await peer.next())[0] == wire.WORKER_LOG:
            line = server_side.read_log(frame[2])
            assert line["call"] == b"0123456789abcdef".hex()
            said.append((line["level"], line["line"]))
        assert "ok" in server_side.read_done(frame[2])
        return said

    async def test() -> None:
        async with serving(talk, talk_plainly) as (_, peer):
            assert await lines(peer, "talk") == [
                ("info", "one 1"),
                ("info", "two 2"),
                ("error", "four 4"),
                ("debug", "five"),
                ("debug", "six"),
                ("info", "three and seven"),
            ]
            assert await lines(peer, "talk_plainly") == [
                ("info", "a"),
                ("trace", "b %s"),
                ("warn", "c"),
            ]

    root = logging.getLogger()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    _capture.capture()
    run(test())


def test_a_call_begins_where_its_caller_was_and_its_children_belong_to_it(run: Run) -> None:
    @boki.function
    async def parent(cx: boki.Cx) -> Any:
        assert cx.book.name == "orders"
        seq = await cx.book.append("x")
        output = await cx.call("child", {"n": 1}, limit_key="ada", priority=7)
        sent = await cx.send("later", key="k")
        return [seq, output, sent.id, cx.book.position]

    @boki.function
    def plain_parent(cx: boki.sync.Cx) -> Any:
        seq = cx.book.append("x")
        output = cx.call("child", {"n": 1}, limit_key="ada", priority=7)
        sent = cx.send("later", key="k")
        return [seq, output, sent.id, cx.book.position]

    async def test() -> None:
        async with serving(parent, plain_parent) as (_, peer):
            for corr, function in ((1 << 33, "parent"), (1 << 34, "plain_parent")):
                body = server_side.invoke(
                    function, position=40, deadline_ms=60_000, book_name="orders"
                )
                peer.send(wire.INVOKE, corr, body)
                append, body = await peer.expect(wire.APPEND)
                assert body[9:17] == wire.U64.pack(7)
                peer.send(wire.APPENDED, append, server_side.appended(44, 45))
                call, body = await peer.expect(wire.CALL)
                asked = server_side.read_call(body)
                assert 0 < asked.pop("deadline_ms") <= 60_000
                assert asked == {
                    "book": 7,
                    "position": 45,
                    "detached": False,
                    "priority": 7,
                    "parent": corr,
                    "function": "child",
                    "key": None,
                    "limit_key": "ada",
                    "content_type": "application/json",
                    "input": '{"n":1}',
                }
                result = server_side.call_result(bytes(16), b'"out"', "application/json", 50)
                peer.send(wire.CALL_RESULT, call, result)
                send, body = await peer.expect(wire.CALL)
                asked = server_side.read_call(body)
                assert (asked["position"], asked["key"]) == (50, "k")
                assert (asked["detached"], asked["parent"]) == (True, corr)
                peer.send(wire.CALL_ACCEPTED, send, server_side.call_accepted(bytes(16), 52))
                answer = await done(peer, corr)
                assert json.loads(answer["ok"]["output"]) == [44, "out", "00" * 16, 52]
                assert answer["position"] == 52

    run(test())


def test_what_is_cancelled_stops_and_answers(run: Run) -> None:
    stopped = threading.Event()

    @boki.function
    async def wait(cx: boki.Cx) -> None:
        try:
            await cx.call("child")
        finally:
            assert cx.cancelled

    @boki.function
    def wait_plainly(cx: boki.sync.Cx) -> None:
        try:
            cx.book.wait(timeout="1h")
        finally:
            assert cx.cancelled
            stopped.set()

    @boki.function
    async def goes_on() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "anyway"
        return ""

    async def test() -> None:
        async with serving(wait, wait_plainly, goes_on) as (_, peer):
            for function, question in (("wait", wire.CALL), ("wait_plainly", wire.READ)):
                peer.send(wire.INVOKE, 9, server_side.invoke(function))
                corr, _ = await peer.expect(question)
                peer.send(wire.INVOKE_CANCEL, 9, b"\2")
                frames = [await peer.next(), await peer.next()]
                assert (wire.CANCEL, corr, b"") in frames
                (body,) = [body for kind, _, body in frames if kind == wire.INVOKE_DONE]
                assert server_side.read_done(body)["error"]["code"] == "cancelled"
            assert stopped.is_set()
            # Both in one piece: the task has had no turn yet.
            both = wire.frame(wire.INVOKE, 9, server_side.invoke("wait"))
            peer.send_raw(both + wire.frame(wire.INVOKE_CANCEL, 9, b"\1"))
            assert (await done(peer, 9))["error"]["code"] == "cancelled"
            peer.send(wire.INVOKE, 9, server_side.invoke("goes_on"))
            peer.send(wire.PING, 1)
            await peer.expect(wire.PONG)
            peer.send(wire.INVOKE_CANCEL, 9, b"\1")
            assert (await done(peer, 9))["ok"]["output"] == '"anyway"'
            # What has ended, or never was, is nothing to cancel.
            peer.send(wire.INVOKE_CANCEL, 9, b"\1")
            peer.send(wire.PING, 2)
            await peer.expect(wire.PONG)

    run(test())


def test_a_lost_connection_gives_up_what_runs_and_registers_again(run: Run) -> None:
    given_up = asyncio.Event()

    @boki.function
    async def wait(number: int) -> int:
        try:
            if number == 0:
                await asyncio.Event().wait()
        finally:
            given_up.set()
        return number

    async def test() -> None:
        async with serving(wait) as (server, peer):
            peer.send(wire.INVOKE, 9, server_side.invoke("wait", b"0"))
            peer.send(wire.PING, 1)
            await peer.expect(wire.PONG)
            peer.cut()
            await given_up.wait()
            peer = await server.peer()
            assert (await register(peer))["functions"][0]["name"] == "wait"
            # The next thing it says is the answer to this, not one to what it gave up.
            assert (await invoke(peer, "wait", 3))["ok"]["output"] == "3"

    run(test())


def test_a_worker_that_ends_finishes_what_it_has(run: Run) -> None:
    go_on = asyncio.Event()

    @boki.function
    async def wait() -> str:
        await go_on.wait()
        return "done"

    async def test() -> None:
        async with FakeServer() as server:
            stop = asyncio.Event()
            worker = _worker.Worker([wait], server=server.address)
            task = asyncio.create_task(worker.serve(stop))
            peer = await server.peer()
            await register(peer)
            peer.send(wire.INVOKE, 9, server_side.invoke("wait"))
            peer.send(wire.PING, 1)
            await peer.expect(wire.PONG)
            stop.set()
            await peer.expect(wire.DRAIN)
            peer.send(wire.DRAIN, 0)
            peer.send(wire.PING, 2)
            await peer.expect(wire.PONG)
            assert not task.done()
            go_on.set()
            assert (await done(peer, 9))["ok"]["output"] == '"done"'
            assert await peer.ended()
            await task

    run(test())


@pytest.mark.parametrize("process", ["", "5f1c"])
def test_a_drained_worker_ends_if_the_server_started_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, process: str
) -> None:
    monkeypatch.setenv("BOKI_WORKER", process)
    monkeypatch.setattr(_worker, "_ORPHANED_AFTER", 0.01)

    @boki.function
    async def nothing() -> None: ...

    async def test() -> None:
        async with FakeServer() as server:
            worker = _worker.Worker([nothing], server=server.address)
            task = asyncio.create_task(worker.serve())
            peer = await server.peer()
            await register(peer)
            peer.send(wire.DRAIN, 0)
            if process:
                await task
            peer.cut()
            if not process:
                # Nobody would start it again: it waits for the next server.
                await register(await server.peer())
                task.cancel()

    run(test())


def test_a_worker_without_its_server_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOKI_WORKER", "5f1c")
    monkeypatch.setattr(_worker, "_ORPHANED_AFTER", 0.01)

    @boki.function
    async def nothing() -> None: ...

    async def test() -> None:
        async with FakeServer() as server:
            worker = _worker.Worker([nothing], server=server.address)
            task = asyncio.create_task(worker.serve())
            await register(await server.peer())
            await server.close()
            await task
        await _worker.Worker([nothing], server="127.0.0.1:1").serve()

    run(test())


def test_a_refused_worker_ends_unless_the_server_is_stopping(run: Run) -> None:
    @boki.function
    async def nothing() -> None: ...

    async def test() -> None:
        async with FakeServer() as server:
            worker = _worker.Worker([nothing], server=server.address)
            task = asyncio.create_task(worker.serve())
            peer = await server.peer()
            peer.send(wire.ERROR, 0, server_side.error("BK0305", "stopping", "same_id"))
            await peer.read_preamble()
            await peer.expect(wire.HELLO)
            peer.cut()
            peer = await server.peer()
            await peer.greet()
            corr, _ = await peer.expect(wire.REGISTER)
            peer.send(wire.ERROR, corr, server_side.error("BK0410", "stopping", "later"))
            peer.cut()
            peer = await server.peer()
            await peer.greet()
            corr, _ = await peer.expect(wire.REGISTER)
            peer.send(wire.ERROR, corr, server_side.error("BK0412", "no such process"))
            with pytest.raises(boki.Error) as refused:
                await task
            assert refused.value.code == "BK0412"

    run(test())


def test_plain_functions_never_wait_for_each_others_threads(run: Run) -> None:
    together = threading.Barrier(120)

    @boki.function
    def meet() -> None:
        together.wait(30)

    async def test() -> None:
        async with serving(meet) as (_, peer):
            for corr in range(1, 121):
                peer.send(wire.INVOKE, corr, server_side.invoke("meet"))
            answers = [await peer.expect(wire.INVOKE_DONE) for _ in range(120)]
            assert {corr for corr, _ in answers} == set(range(1, 121))
            assert all("ok" in server_side.read_done(body) for _, body in answers)

    run(test())


def test_signatures_that_cannot_be_filled_are_refused() -> None:
    @boki.function
    async def two(a: int, b: int) -> None: ...

    @boki.function
    async def star(*values: int) -> None: ...

    @boki.function
    async def unknown(value: complex) -> None: ...

    @boki.function
    async def wrong_cx(cx: boki.sync.Cx) -> None: ...

    @boki.function
    def plain_stream(input: boki.Input) -> None: ...

    @boki.http
    def not_a_request(value: int) -> None: ...

    for function in (two, star, unknown, wrong_cx, plain_stream, not_a_request):
        with pytest.raises(TypeError, match=function.__name__):
            _worker.Worker([function])

    @boki.function
    async def once() -> None: ...

    with pytest.raises(boki.Error) as twice:
        _worker.Worker([once, once])
    assert twice.value.code == "BK0619"
    with pytest.raises(TypeError):
        _worker.Worker([print])
    assert isinstance(once.__boki__, Function)  # type: ignore[attr-defined]
