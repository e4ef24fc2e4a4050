"""A worker as a process: from its start to its end."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ._capture import capture
from ._errors import Error
from ._function import Function, registered
from ._worker import Worker


def serve(
    *functions: Callable[..., Any],
    name: str | None = None,
    server: str | None = None,
    concurrency: int = 100,
) -> None:
    """Offers functions (otherwise all that are decorated) until the process is asked to end.

    The server is that of `BOKI_URL`. On SIGTERM and ctrl-c the worker takes no more calls, finishes
    those it has, and returns; on a second one the process ends at once. `concurrency`: how many
    calls it takes at once on each level of nesting.
    """
    offered: Sequence[Callable[..., Any] | Function] = functions or registered
    if not offered:
        raise Error("there is nothing to serve: no function has @boki.function or @boki.http")
    worker = Worker(offered, name=name, server=server, concurrency=concurrency)
    capture()
    # What was loaded until now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    loop = new_loop()
    try:
        loop.run_until_complete(_serve(worker))
    finally:
        try:
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


async def _serve(worker: Worker) -> None:
    stop = asyncio.Event()

    def asked_to_end() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_end)
    await worker.serve(stop)


def new_loop() -> asyncio.AbstractEventLoop:
    """That of uvloop, if somebody has installed it."""
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def serve_file(path: str, *, name: str | None, concurrency: int) -> None:
    """Imports a file, and serves the functions that it decorates."""
    import importlib.util
    from pathlib import Path

    file = Path(path).resolve()
    if not file.is_file():
        sys.exit(f"error: there is no file {path}")
    # As if the file had been run: its neighbours can be imported.
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file)]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        sys.exit(f"error: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    try:
        serve(name=name, concurrency=concurrency)
    except Error as error:
        code = f" {error.code}" if error.code else ""
        sys.exit(f"error{code}: {error}")
