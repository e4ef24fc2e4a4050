#!/usr/bin/env python3
"""The functions of docs/conformance.md, offered by docs/reference-worker.py: the suite runs on this."""
import asyncio, importlib.util, json, pathlib

spec = importlib.util.spec_from_file_location("reference", pathlib.Path(__file__).parent.parent / "docs" / "reference-worker.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
Failure = reference.Failure


def function(run):
    """Input and output as bytes."""
    reference.FUNCTIONS[run.__name__] = run


def json_function(run):
    """Input and output as JSON."""
    async def function(call):
        try:
            value = json.loads(call.input or "null")
        except ValueError as error:
            raise Failure("invalid_input", str(error))
        return "application/json", json.dumps(await run(call, value), separators=(",", ":")).encode()
    reference.FUNCTIONS[run.__name__] = function


@json_function
async def fail(call, value):
    raise Failure(value["code"], value["message"], value["retryable"])


@json_function
async def about(call, _):
    return {"call": call.id.hex(), "attempt": call.attempt, "function": call.function, "book": call.book_name}


@json_function
async def append(call, value):
    return {"seq": await call.append(value["data"].encode(), value.get("tags", ()), value.get("if_tail"))}


@json_function
async def read(call, value):
    return await call.read(value.get("tag", ""), value.get("from", 1), value.get("dir") == "prev", value.get("limit", 1), value.get("wait_ms", 0))


@json_function
async def tail(call, value):
    return await call.tail(value.get("tag", ""))


@json_function
async def tags(call, value):
    return await call.tags(value["prefix"])


@json_function
async def trim(call, value):
    await call.append(b"", [value["tag"]] if "tag" in value else [], trim_below=value["below"])


@json_function
async def set_aux(call, value):
    await call.set_aux(value["seq"], value["aux"])


@json_function
async def subscribe(call, value):
    found, start = [], value["from"]
    while len(found) < value["count"]:
        for record in await call.read(value["tag"], start, limit=value["count"] - len(found), wait_ms=10_000):
            found, start = found + [record["data"]], record["seq"] + 1
    return found


@json_function
async def count(call, name):
    """Appends only if nobody was faster, else looks again."""
    tag = "count/" + name
    while True:
        last = await call.read(tag, (1 << 53) - 1, prev=True)
        seq, number = (last[0]["seq"], int(last[0]["data"]) + 1) if last else (0, 1)
        try:
            await call.append(b"%d" % number, [tag], {tag: seq})
            return number
        except Failure as error:
            if error.code != "BK0201": raise


@json_function
async def nested(call, value):
    data = json.dumps(value.get("input")).encode()
    return await call.call(value["function"], data, value.get("key", ""), value.get("detached", False), value.get("deadline_ms", 0))


@json_function
async def log_lines(call, value):
    [call.log(line) for line in value]


@json_function
async def sleep_until_cancelled(call, _):
    await asyncio.Event().wait()


@function
async def stream_in(call):
    size = total = 0
    async for piece in call.input_pieces(): size, total = size + len(piece), total + sum(piece)
    return "application/json", b'{"bytes":%d,"sum":%d}' % (size, total)


@function
async def stream_out(call):
    value = json.loads(call.input)
    call.head(content_type="application/octet-stream")
    for number in range(value["pieces"]): await call.send(bytes([number % 256]) * value["bytes"])
    if "fail" in value: raise Failure(value["fail"], "as asked")
    return "", b""


@function
async def http_echo(call):
    method, path, query, headers = call.http
    call.head(201, "application/json", [("x-method", method)])
    return "", json.dumps({"method": method, "path": path, "query": query, "headers": dict(headers), "body": call.input.decode()}).encode()


if __name__ == "__main__":
    asyncio.run(reference.main())
