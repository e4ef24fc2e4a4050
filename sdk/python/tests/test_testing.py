"""A test's own server: virtual time, and crashes where the test wants them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import boki
from boki._crash import OPERATIONS, Crashes
from boki._function import registered
from boki.testing import Server

START = "2030-01-01T00:00:00Z"
START_US = 1_893_456_000_000_000


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """Functions of one test are none of another."""
    yield
    registered.clear()


@boki.function
async def sell(cx: boki.Cx, sku: str) -> int:
    """Sells one of a stock that never grows: correct only if it may run twice."""
    stock, sale = f"stock/{sku}", f"sale/{cx.call_id}"
    while True:
        sold = await cx.book.last(sale)
        if sold is not None:
            return int(sold.json())
        last = await cx.book.last(stock)
        seen, left = (last.seq, last.json()) if last else (0, 10)
        try:
            tails = {stock: seen, sale: 0}
            await cx.book.append(left - 1, tags=[stock, sale], if_tail=tails)
        except boki.ConditionFailed:
            continue
        return int(left - 1)


@boki.function
async def sell_carelessly(cx: boki.Cx, sku: str) -> int:
    last = await cx.book.last(f"stock/{sku}")
    left = int(last.json()) if last else 10
    await cx.book.append(left - 1, tags=[f"stock/{sku}"])
    return left - 1


@boki.function
async def attempt(cx: boki.Cx) -> int:
    return cx.attempt


def test_a_worker_that_crashes_after_an_operation_is_followed_by_another_attempt() -> None:
    with Server(sell, sell_carelessly, attempt, virtual_time=True) as server:
        for operation in ("start", "read", "append", "return"):
            server.crash_after(operation)
            assert server.call("sell", operation) == 9
            assert server.call("sell", operation) == 8
        server.crash_after("append")
        assert server.call("sell_carelessly", "tea") == 8, "the careless one is found out"
        server.crash_after("return")
        assert server.call("attempt") == 2
        assert server.call("attempt") == 1, "a planned crash happens once"


def test_a_worker_can_crash_at_any_moment() -> None:
    begun = threading.Event()

    @boki.function
    async def wait(cx: boki.Cx) -> int:
        if cx.attempt == 1:
            begun.set()
            await cx.book.wait(tag="never", timeout="1h")
        return cx.attempt

    with Server(wait, virtual_time=True) as server:
        sent = server.send("wait")
        assert begun.wait(30)
        server.crash_worker()
        result = server.result(sent.id)
        assert result is not None
        assert (result.value, result.attempts) == (2, 2)


def test_deadlines_follow_the_clock() -> None:
    begun = threading.Event()

    @boki.function
    async def wait(cx: boki.Cx) -> None:
        begun.set()
        await cx.book.wait(tag="never", timeout="5h")

    with Server(wait, virtual_time=True) as server:
        sent = server.send("wait", deadline="1h")
        assert begun.wait(30)
        server.advance(3599)
        assert server.result(sent.id, wait=0) is None
        server.advance("1s")
        with pytest.raises(boki.CallTimeout):
            server.result(sent.id)


def test_a_pause_before_another_attempt_ends_when_time_has_passed() -> None:
    attempts: list[int] = []

    @boki.function
    async def flaky(cx: boki.Cx) -> int:
        attempts.append(cx.attempt)
        if cx.attempt < 3:
            raise boki.Failure("not yet", retryable=True)
        return cx.attempt

    with Server(flaky, virtual_time=True) as server:
        sent = server.send("flaky")
        server.advance("1s", once_pausing=1)
        server.advance("1s", once_pausing=1)
        result = server.result(sent.id)
        assert result is not None
        assert result.value == 3
        assert attempts == [1, 2, 3]


def test_time_begins_where_the_test_says_and_goes_on_after_a_restart() -> None:
    with Server(sell, virtual_time=START) as server:
        server.call("sell", "tea")
        server.advance(36 * 3600)
        assert server.now() == START_US / 1e6 + 36 * 3600
        server.restart()
        assert server.now() == START_US / 1e6 + 36 * 3600
        server.call("sell", "tea")
        sales = server.book().read_next(tag="stock/tea")
        assert [sale.time_us - START_US for sale in sales] == [0, 36 * 3600 * 1_000_000]


def test_real_time_is_not_moved() -> None:
    with Server(sell) as server:
        with pytest.raises(boki.Error) as refused:
            server.advance("1h")
        assert refused.value.code == "BK0428"


def test_a_misspelt_operation_is_noticed() -> None:
    crashes: Any = Crashes()
    with pytest.raises(ValueError, match="append"):
        crashes.plan("apend", 1)
    for operation in OPERATIONS:
        crashes.plan(operation, 1)
