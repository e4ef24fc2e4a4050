"""What can be appended, or given to a function, as bytes."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from ._errors import NotJson

JSON = "application/json"


class Json:
    """A value whose payload is its JSON. Needed where a text would be taken as it is."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"a {type(value).__name__} has no JSON")


# For every language to read: no infinities, which JSON has not.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
)


def json_bytes(value: Any) -> bytes:
    """The JSON of a value: of plain data, and of dataclasses and enums in it."""
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"JSON: {error}") from error


def record_payload(data: Any) -> bytes:
    """A record's payload: bytes and texts as they are, anything else as JSON."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    return json_bytes(data.value if isinstance(data, Json) else data)


def argument(value: Any) -> tuple[bytes, str]:
    """A function's input or output, and its content type: bytes as they are, else JSON."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), ""
    return json_bytes(value.value if isinstance(value, Json) else value), JSON
