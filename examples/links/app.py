"""Short links: a function for HTTP, with all its state in the log.

Each link is a record under `link/CODE`, each click one under `click/CODE`.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import TypedDict

import boki

_DIGITS = "abcdefghijkmnpqrstuvwxyz23456789"


class Link(TypedDict):
    url: str


@boki.http
async def links(cx: boki.Cx, request: boki.Request) -> boki.Response:
    """Makes short links, and leads those who follow them."""
    match request.method, request.path.strip("/").split("/"):
        case "POST", [""]:
            return await make(cx, request.json())
        case "GET", [code] if code:
            return await follow(cx, code)
        case "GET", [code, "clicks"]:
            # Server-sent events: what was clicked, and every click from now on.
            return boki.Response.events(clicks(cx.book, code))
        case _:
            return boki.Response("no such page\n", status=404)


async def make(cx: boki.Cx, link: Link) -> boki.Response:
    url = link.get("url") if isinstance(link, dict) else None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return boki.Response.json({"error": "a url is expected"}, status=400)
    code, is_new = await claim(cx.book, url)
    cx.log.info("%s leads to %s", code, url)
    return boki.Response.json({"code": code, "url": url}, status=201 if is_new else 200)


async def claim(book: boki.Book, url: str) -> tuple[str, bool]:
    """The code of a URL, and whether it has been made just now.

    The record is appended only if nobody has the code. So the same URL has the same code, however
    often and by however many at once it is asked for, and two URLs never share one.
    """
    digest = hashlib.sha256(url.encode()).digest()
    for length in range(5, len(digest)):
        code = "".join(_DIGITS[byte % 32] for byte in digest[:length])
        tag = f"link/{code}"
        try:
            await book.append(url, tags=[tag], if_tail={tag: 0})
            return code, True
        except boki.ConditionFailed as taken:
            record = await book.first(tag, seq=taken.actual)
            if record is not None and record.text == url:
                return code, False
    raise boki.Failure("every code of this URL is taken")


async def follow(cx: boki.Cx, code: str) -> boki.Response:
    record = await cx.book.last(f"link/{code}")
    if record is None:
        return boki.Response("no such link\n", status=404)
    # A repeated attempt counts once: the append has the call's id.
    await cx.book.append("", tags=[f"click/{code}"], id=bytes.fromhex(cx.call_id))
    return boki.Response.redirect(record.text, status=302)


async def clicks(book: boki.Book, code: str) -> AsyncIterator[boki.Event]:
    count = 0
    async for record in book.subscribe(tag=f"click/{code}"):
        count += 1
        yield boki.Event({"clicks": count, "at": record.time}, id=str(record.seq))


@boki.function
def top(cx: boki.sync.Cx, limit: int = 10) -> dict[str, int]:
    """The links that were followed most."""
    counts: dict[str, int] = {}
    for record in cx.book.records():
        for tag in record.tags:
            if tag.startswith("click/"):
                code = tag.removeprefix("click/")
                counts[code] = counts.get(code, 0) + 1
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:limit])
