"""The worker under test of the conformance suite: the functions of `docs/conformance.md`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal, TypedDict

import boki


class Fail(TypedDict):
    code: str
    message: str
    retryable: bool


class Options(TypedDict, total=False):
    """Fields that may be absent."""

    tag: str
    tags: list[str]
    if_tail: dict[str, int]
    dir: Literal["next", "prev"]
    limit: int


class Append(Options):
    data: str


Read = TypedDict("Read", {"tag": str, "from": int, "dir": str, "limit": int}, total=False)
Follow = TypedDict("Follow", {"tag": str, "from": int, "count": int})


class Prefix(TypedDict):
    prefix: str


class Trim(Options):
    below: int


class Aux(TypedDict):
    seq: int
    aux: str


class Terms(TypedDict, total=False):
    input: Any
    key: str
    detached: bool
    deadline_ms: int


class Nested(Terms):
    function: str


class Ending(TypedDict, total=False):
    fail: str


class Pieces(Ending):
    pieces: int
    bytes: int


@boki.function
async def echo(cx: boki.Cx, data: bytes) -> boki.Output:
    return boki.Output(data, cx.content_type)


@boki.function
async def fail(how: Fail) -> None:
    raise boki.Failure(how["message"], code=how["code"], retryable=how["retryable"])


@boki.function
async def about(cx: boki.Cx) -> dict[str, Any]:
    return {
        "call": cx.call_id,
        "attempt": cx.attempt,
        "function": cx.function,
        "book": cx.book.name,
    }


@boki.function
async def append(cx: boki.Cx, value: Append) -> dict[str, int]:
    tags, if_tail = value.get("tags", []), value.get("if_tail")
    return {"seq": await cx.book.append(value["data"], tags=tags, if_tail=if_tail)}


@boki.function
async def read(cx: boki.Cx, value: Read) -> list[dict[str, Any]]:
    read = cx.book.read_prev if value.get("dir") == "prev" else cx.book.read_next
    return [
        {
            "seq": record.seq,
            "tags": record.tags,
            "data": record.text,
            "aux": None if record.aux is None else record.aux.decode(),
        }
        for record in await read(
            value.get("from", 1), tag=value.get("tag"), limit=value.get("limit", 1)
        )
    ]


@boki.function
async def tail(cx: boki.Cx, value: Options) -> int:
    return await cx.book.tail(value.get("tag"))


@boki.function
async def tags(cx: boki.Cx, value: Prefix) -> dict[str, int]:
    return dict((await cx.book.tags(value["prefix"])).tags)


@boki.function
async def trim(cx: boki.Cx, value: Trim) -> None:
    await cx.book.trim(value["below"], tag=value.get("tag"))


@boki.function
async def set_aux(cx: boki.Cx, value: Aux) -> None:
    await cx.book.set_aux(value["seq"], value["aux"])


@boki.function
async def subscribe(cx: boki.Cx, value: Follow) -> list[str]:
    found: list[str] = []
    if value["count"] > 0:
        async for record in cx.book.subscribe(value["from"], tag=value["tag"]):
            found.append(record.text)
            if len(found) == value["count"]:
                break
    return found


@boki.function
async def count(cx: boki.Cx, name: str) -> int:
    tag = f"count/{name}"
    while True:
        last = await cx.book.last(tag)
        seq, number = (last.seq, last.json() + 1) if last else (0, 1)
        try:
            await cx.book.append(number, tags=[tag], if_tail={tag: seq})
        except boki.ConditionFailed:
            continue
        return number


@boki.function
async def nested(cx: boki.Cx, value: Nested) -> Any:
    function, data, key = value["function"], value.get("input"), value.get("key")
    if value.get("detached"):
        return (await cx.send(function, data, key=key)).id
    deadline = value["deadline_ms"] / 1000 if "deadline_ms" in value else None
    return await cx.call(function, data, key=key, deadline=deadline)


@boki.function
async def log_lines(cx: boki.Cx, lines: list[str]) -> None:
    for line in lines:
        cx.log.info(line)


@boki.function
async def sleep_until_cancelled() -> None:
    await asyncio.Event().wait()


@boki.function
async def stream_in(input: boki.Input) -> dict[str, int]:
    size = total = 0
    async for piece in input:
        size, total = size + len(piece), total + sum(piece)
    return {"bytes": size, "sum": total}


@boki.function(content_type="application/octet-stream")
async def stream_out(value: Pieces) -> AsyncIterator[bytes]:
    for number in range(value["pieces"]):
        yield bytes([number % 256]) * value["bytes"]
    if "fail" in value:
        raise boki.Failure("as asked", code=value["fail"])


@boki.http
async def http_echo(request: boki.Request) -> boki.Response:
    said = {
        "method": request.method,
        "path": request.raw_path,
        "query": request.query,
        "headers": dict(request.headers),
        "body": request.text,
    }
    return boki.Response.json(said, status=201, headers={"x-method": request.method})


if __name__ == "__main__":
    boki.serve(concurrency=4)
