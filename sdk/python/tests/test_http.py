"""HTTP functions and streams through a real server."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

import boki
from boki._function import registered
from boki.testing import Server

CONFIG = """
[[mount]]
path = "/web"
function = "web"
[[mount]]
path = "/upload"
function = "upload"
[[mount]]
path = "/echo"
function = "echo"
[[mount]]
path = "/ticks"
function = "ticks"
"""
PIECE = bytes(range(256)) * 256

go_on = asyncio.Semaphore(0)
closed = threading.Event()


@boki.http
def web(request: boki.Request) -> boki.Response:
    said = {
        "method": request.method,
        "path": request.path,
        "params": request.params,
        "own": request.headers.get("x-own"),
        "cookies": request.cookies,
        "body": request.text,
    }
    response = boki.Response.json(said, status=201, headers={"X-Answer": "42"})
    response.set_cookie("seat", "4")
    response.set_cookie("row", "7")
    return response


@boki.http(stream=True)
async def upload(request: boki.Request) -> dict[str, int]:
    size = pieces = 0
    async for piece in request.stream:
        size, pieces = size + len(piece), pieces + 1
    return {"size": size, "many": pieces > size // len(PIECE) // 2}


@boki.function
async def echo(input: boki.Input) -> AsyncIterator[bytes]:
    async for piece in input:
        yield piece


@boki.http
async def ticks() -> boki.Response:
    async def events() -> AsyncIterator[Any]:
        try:
            for n in range(1 << 30):
                yield boki.Event({"n": n}, id=str(n))
                await go_on.acquire()
        finally:
            closed.set()

    return boki.Response.events(events())


@boki.function
async def tick() -> None:
    go_on.release()


FUNCTIONS: list[Any] = [web, upload, echo, ticks, tick]
registered.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(*FUNCTIONS, config=CONFIG) as server:
        yield server


@pytest.fixture
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    address = urlsplit(server.url)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    yield connection
    connection.close()


def test_a_request_and_its_response(connection: http.client.HTTPConnection) -> None:
    headers = {"X-Own": "1", "Cookie": "user=ada; theme=dark"}
    connection.request("PUT", "/web/seats/4%20a?row=7&x=", "h\u00e9".encode(), headers)
    response = connection.getresponse()
    assert response.status == 201
    assert response.headers["x-answer"] == "42"
    assert response.headers["content-type"] == "application/json"
    cookies = [value.split(";")[0] for value in response.headers.get_all("set-cookie", [])]
    assert cookies == ["seat=4", "row=7"]
    assert json.loads(response.read()) == {
        "method": "PUT",
        "path": "/seats/4 a",
        "params": {"row": "7", "x": ""},
        "own": "1",
        "cookies": {"user": "ada", "theme": "dark"},
        "body": "h\u00e9",
    }


def test_large_bodies_pass_through(connection: http.client.HTTPConnection) -> None:
    # More than the server would hold as a whole.
    count = 640
    connection.request("POST", "/upload", (PIECE for _ in range(count)))
    assert json.loads(connection.getresponse().read()) == {
        "size": count * len(PIECE),
        "many": True,
    }
    connection.request("POST", "/echo", (PIECE for _ in range(20)))
    assert connection.getresponse().read() == PIECE * 20


def test_events_arrive_and_a_client_that_leaves_closes_them(
    connection: http.client.HTTPConnection, server: Server
) -> None:
    connection.request("GET", "/ticks")
    response = connection.getresponse()
    assert response.headers["content-type"] == "text/event-stream"
    for n in range(3):
        lines = [response.readline() for _ in range(3)]
        assert lines == [f"id: {n}\n".encode(), f'data: {{"n":{n}}}\n'.encode(), b"\n"]
        if n < 2:
            # The next event comes because of this.
            server.call("tick")
    assert not closed.is_set()
    response.close()
    connection.close()
    assert closed.wait(30)
