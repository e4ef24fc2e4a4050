"""Functions of this process, called through a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import boki
import boki.sync
from boki._function import registered
from boki.testing import Server


@boki.function
async def greet(cx: boki.Cx, name: str) -> str:
    """Greets somebody, and counts how often it has."""
    tag = f"greeted/{name}"
    while True:
        last = await cx.book.last(tag)
        times = last.json() + 1 if last else 1
        try:
            await cx.book.append(times, tags=[tag], if_tail={tag: last.seq if last else 0})
        except boki.ConditionFailed:
            continue
        return f"Hello {name}, for the {times}. time!"


@boki.function
async def down(cx: boki.Cx, depth: int) -> int:
    return 0 if depth == 0 else 1 + int(await cx.call("down_plainly", depth - 1))


@boki.function
def down_plainly(cx: boki.sync.Cx, depth: int) -> int:
    return 0 if depth == 0 else 1 + int(cx.call("down", depth - 1))


@boki.function
async def write(cx: boki.Cx, text: str) -> int:
    return await cx.book.append(text, tags=["written"])


@boki.function
async def read_after_child(cx: boki.Cx) -> list[str]:
    await cx.call("write", "by the child")
    return [record.text async for record in cx.book.records(tag="written")]


@boki.function(retries=2)
async def third_time(cx: boki.Cx) -> int:
    if cx.attempt < 3:
        raise boki.Failure("not yet", code="early", retryable=True)
    return cx.attempt


cancelled = threading.Semaphore(0)


@boki.function
async def forever(cx: boki.Cx, depth: int) -> None:
    try:
        if depth:
            await cx.call("forever", depth - 1)
        await asyncio.Event().wait()
    finally:
        cancelled.release()


FUNCTIONS: list[Any] = [greet, down, down_plainly, write, read_after_child, third_time, forever]
registered.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(*FUNCTIONS) as server:
        yield server


def test_a_function_is_called_and_keeps_its_state_in_the_log(server: Server) -> None:
    assert server.call("greet", "ada") == "Hello ada, for the 1. time!"
    assert server.call("greet", "ada") == "Hello ada, for the 2. time!"
    assert server.call("greet", "ada", key="k") == server.call("greet", "ada", key="k")
    assert server.call("greet", "ada") == "Hello ada, for the 4. time!"
    texts = [record.text for record in server.book().records(tag="greeted/ada")]
    assert texts == ["1", "2", "3", "4"]
    with pytest.raises(boki.KeyReused):
        server.call("greet", "bob", key="k")


def test_functions_call_each_other(server: Server) -> None:
    assert server.call("down", 9) == 9
    assert server.call("read_after_child") == ["by the child"]


def test_a_sent_call_runs_by_itself(server: Server) -> None:
    sent = server.send("write", "sent")
    output = server.result(sent.id)
    assert output is not None
    assert output.id == sent.id
    record = server.book().last("written")
    assert record is not None
    assert (record.seq, record.text) == (output.value, "sent")


def test_failures_reach_the_caller(server: Server) -> None:
    with pytest.raises(boki.FunctionFailed) as failed:
        server.call("greet", 7)
    assert failed.value.function == "greet"
    assert failed.value.failure == "invalid_input"
    assert failed.value.words.endswith("a text is expected, not the number 7")
    assert (failed.value.attempts, failed.value.retry) == (1, "never")
    assert server.call("third_time") == 3
    assert server.client.call_output("third_time").attempts == 3


def test_a_deadline_cancels_a_function_and_its_children(server: Server) -> None:
    with pytest.raises(boki.CallTimeout) as late:
        server.call("forever", 2, deadline="50ms")
    assert isinstance(late.value, TimeoutError)
    assert "forever" in str(late.value)
    for _ in range(3):
        assert cancelled.acquire(timeout=30)


def test_the_server_may_crash_in_between(server: Server) -> None:
    sent = server.send("greet", "bob", key="before the crash")
    server.restart()
    output = server.result(sent.id)
    assert output is not None
    assert output.value == "Hello bob, for the 1. time!"
    assert server.call("greet", "bob", key="before the crash") == output.value


def test_a_file_is_served_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "neighbour.py").write_text("WORDS = 'from next door'\n")
    (tmp_path / "app.py").write_text(
        "import boki, neighbour, sys\n"
        "@boki.function\n"
        "def hello() -> list[str]:\n"
        "    return [neighbour.WORDS, __name__, sys.argv[0][-6:]]\n"
    )
    with Server(write) as server:
        worker = subprocess.Popen(
            [sys.executable, "-m", "boki", str(tmp_path / "app.py")],
            env={"BOKI_URL": server.url, "PYTHONPATH": str(Path(boki.__file__).parents[1])},
        )
        offered: list[str] = []
        while "hello" not in offered:
            assert worker.poll() is None
            offered = [info.name for info in server.client.functions()]
        assert server.call("hello") == ["from next door", "app", "app.py"]
        worker.terminate()
        assert worker.wait(30) == 0


def test_a_file_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "wrong.py").write_text("import boki\n@boki.function\ndef f(a, b): ...\n")
    for name, words in [
        ("missing.py", "error: there is no file"),
        ("empty.py", "error: there is nothing to serve"),
        ("wrong.py", "TypeError: f: cx and one input at most are filled, not a, b"),
    ]:
        ended = subprocess.run(
            [sys.executable, "-m", "boki", str(tmp_path / name)],
            env={"PYTHONPATH": str(Path(boki.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1
        assert words in ended.stderr
