from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from boki._server_process import ServerProcess

Run = Callable[[Coroutine[Any, Any, Any]], Any]

PATIENCE = 60.0
"""A test that waits for what never comes is a failure, not a wait for ever."""


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """One server for the tests that do not mind each other."""
    process = ServerProcess()
    process.start()
    yield process
    process.stop()
    process.remove()


@pytest.fixture
def own_server() -> Iterator[ServerProcess]:
    """A server that the test may kill."""
    process = ServerProcess()
    process.start()
    yield process
    process.stop()
    process.remove()


@pytest.fixture
def run() -> Run:
    """Runs a coroutine in an event loop of its own."""

    def run(what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(asyncio.wait_for(what, PATIENCE))

    return run
