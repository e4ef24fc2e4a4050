"""What a function prints or logs goes to the log of its call.

Outside of a call, everything goes where it always went: the server collects what a worker prints.
"""

from __future__ import annotations

import io
import logging
import sys
from contextvars import ContextVar
from typing import Protocol, TextIO

from . import _worker_messages as messages


class Call(Protocol):
    """Whoever takes lines for a call's log, from any thread."""

    def log(self, level: int, text: str) -> None: ...

    def write(self, level: int, text: str) -> None: ...


current: ContextVar[Call | None] = ContextVar("boki_call", default=None)
"""The call that the code runs for, if it does."""


class _Stream(io.TextIOBase):
    """Stands for standard output or standard error."""

    def __init__(self, inner: TextIO, level: int) -> None:
        self._inner = inner
        self._level = level

    def write(self, text: str, /) -> int:
        call = current.get()
        if call is None:
            return self._inner.write(text)
        call.write(self._level, text)
        return len(text)

    def flush(self) -> None:
        self._inner.flush()

    def fileno(self) -> int:
        return self._inner.fileno()

    def isatty(self) -> bool:
        return self._inner.isatty()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._inner.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._inner.errors

    @property
    def buffer(self) -> object:
        """For whoever writes bytes: they do not pass here."""
        return self._inner.buffer


class _Handler(logging.Handler):
    """Takes records of `logging` into the call's log, with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            call = current.get()
            if call is None:
                sys.stderr.write(f"{record.levelname} {record.name}: {text}\n")
            else:
                call.log(_level(record.levelno), text)
        except Exception:
            self.handleError(record)


def _level(number: int) -> int:
    if number >= logging.ERROR:
        return messages.ERROR
    if number >= logging.WARNING:
        return messages.WARN
    return messages.INFO if number >= logging.INFO else messages.DEBUG


def capture() -> None:
    """From now on, in this process.

    An application that has set up `logging` by itself keeps that: what it writes to standard error
    in a call is in the call's log as well, as text.
    """
    if not isinstance(sys.stdout, _Stream):
        sys.stdout = _Stream(sys.stdout, messages.INFO)
    if not isinstance(sys.stderr, _Stream):
        sys.stderr = _Stream(sys.stderr, messages.INFO)
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_Handler())
        if root.level == logging.WARNING:
            root.setLevel(logging.INFO)
