"""How people write addresses and times."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from ._errors import InvalidAddress, InvalidArgument

DEFAULT_SERVER = "127.0.0.1:2654"
_DEFAULT_PORT = 2654
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_MS = (1 << 32) - 1

Duration = float | int | str | timedelta
"""A time: seconds as a number, "1500ms", "30s", "5m", "2h", "7d", or a `timedelta`."""


class Address(NamedTuple):
    """Where a server is: a host and its port, or the path of a Unix socket."""

    host: str
    port: int
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, `unix:/path`, or `http://host:port`: the port is the same."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path:
            raise _invalid(text, "the path is missing")
        return Address("", 0, path)
    if text.startswith("https://"):
        raise _invalid(text, "TLS is not supported")
    host = text
    for scheme in ("http://", "tcp://", "boki://"):
        if text.startswith(scheme):
            host = text.removeprefix(scheme)
            break
    host = host.removesuffix("/")
    if not host or "/" in host or " " in host:
        raise _invalid(text, "host:port or unix:/path is expected")
    name, colon, port = host.rpartition(":")
    if not colon or (":" in name and not name.endswith("]")):
        return Address(host.strip("[]"), _DEFAULT_PORT)
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise _invalid(text, "the port is not a number below 65536")
    return Address(name.strip("[]"), int(port))


def _invalid(text: str, reason: str) -> InvalidAddress:
    return InvalidAddress(f'invalid address "{text}": {reason}')


def seconds(duration: Duration) -> float:
    """A time in seconds."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        digits = duration.rstrip("usmhd")
        unit = _UNITS.get(duration[len(digits) :])
        try:
            value = float(digits) * unit if unit is not None else -1.0
        except ValueError:
            value = -1.0
    else:
        value = float(duration)
    if not 0 <= value < float("inf"):
        raise InvalidArgument(
            f'invalid duration {duration!r}: a number of seconds, or one with a unit like "30s"'
        )
    return value


def milliseconds(duration: Duration | None) -> int:
    """A time in milliseconds, rounded up so that a short one is not none; 0 stands for none."""
    if duration is None:
        return 0
    return min(-int(-seconds(duration) * 1000 // 1), _MAX_MS)
