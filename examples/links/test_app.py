"""The links, by HTTP, on a server of the test's own."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import app
import pytest

from boki.testing import Server

CONFIG = Path(__file__).with_name("boki.toml").read_text()


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(app.links, app.top, config=CONFIG) as server:
        yield server


def ask(server: Server, path: str, value: Any = None) -> tuple[int, Any, bytes]:
    """Status, headers and body."""
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(server.url + path, data)
    try:
        with OPENER.open(request, timeout=30) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def make(server: Server, url: str) -> tuple[int, str]:
    status, _, body = ask(server, "/l", {"url": url})
    return status, json.loads(body)["code"]


def test_a_link_leads_to_its_url(server: Server) -> None:
    status, code = make(server, "https://example.com/tea")
    assert status == 201
    status, headers, _ = ask(server, f"/l/{code}")
    assert (status, headers["location"]) == (302, "https://example.com/tea")
    assert ask(server, "/l/nobody")[0] == 404
    assert ask(server, "/l/a/b/c")[0] == 404
    assert ask(server, "/l", {"url": "tea"})[0] == 400
    assert ask(server, "/l", [])[0] == 400


def test_a_url_has_one_code_however_many_ask_at_once(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make(server, "https://example.com/one"), range(16)))
    assert len({code for _, code in made}) == 1
    assert sorted(status for status, _ in made) == [200] * 15 + [201]


def test_two_urls_never_share_a_code(server: Server) -> None:
    _, code = make(server, "https://example.com/first")
    # Somebody else's link has the code that the next URL would get.
    wanted = "https://example.com/second"
    taken = make(server, wanted)[1]
    server.book().trim(server.book().tail() + 1)
    server.book().append("https://example.com/other", tags=[f"link/{taken}"])
    assert make(server, wanted)[1] == make(server, wanted)[1] != taken
    assert code != taken


def test_clicks_are_counted_and_seen_as_they_come(server: Server) -> None:
    codes = [make(server, f"https://example.com/{n}")[1] for n in range(2)]
    for code in (codes[0], codes[1], codes[1]):
        ask(server, f"/l/{code}")
    server.restart()
    assert server.call("top") == {codes[1]: 2, codes[0]: 1}
    assert server.call("top", 1) == {codes[1]: 2}
    with urllib.request.urlopen(f"{server.url}/l/{codes[0]}/clicks", timeout=30) as events:
        assert events.headers["content-type"] == "text/event-stream"
        for count in (1, 2, 3):
            event = [events.readline() for _ in range(3)]
            assert json.loads(event[1].removeprefix(b"data: "))["clicks"] == count
            # The next one comes because of this.
            ask(server, f"/l/{codes[0]}")
