"""HTTP as a function sees it: the request that it was called by, and its response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, Literal

from ._convert import parse_input
from ._errors import InvalidArgument
from ._payload import JSON, json_bytes
from ._streams import Input
from ._worker_messages import HttpHead

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
EVENTS = "text/event-stream"

SameSite = Literal["strict", "lax", "none"]
_SEPARATORS = frozenset('()<>@,;:\\"/[]?={} \t')


class Headers(Mapping[str, str]):
    """Headers by name, in whatever case; of several with one name, the first."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs
        """All of them, as they came; names in lower case."""

    def __getitem__(self, name: str) -> str:
        lower = name.lower()
        for own, value in self.pairs:
            if own == lower:
                return value
        raise KeyError(name)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        lower = name.lower()
        return [value for own, value in self.pairs if own == lower]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.pairs))

    def __len__(self) -> int:
        return len(dict(self.pairs))

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


class Request:
    """An HTTP request.

    `body` is all of it. A function that says `@boki.http(stream=True)` gets `stream` instead, and
    with it the body as it comes.
    """

    def __init__(self, head: HttpHead, body: bytes, stream: Input | None = None) -> None:
        self.method = head.method
        """In capitals: `GET`."""
        self.raw_path = head.path
        """What lies below the place where the function is mounted, percent-encoded."""
        self.query = head.query
        """Without its `?`, as it was sent."""
        self.headers = Headers(head.headers)
        self._body = body
        self._stream = stream

    @property
    def path(self) -> str:
        """What lies below the place where the function is mounted; begins with `/`."""
        from urllib.parse import unquote

        return unquote(self.raw_path)

    @property
    def params(self) -> dict[str, str]:
        """The parameters of the query; of several with one name, the last."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query, keep_blank_values=True))

    def all_params(self, name: str) -> list[str]:
        """Every value of a parameter of the query."""
        from urllib.parse import parse_qsl

        pairs = parse_qsl(self.query, keep_blank_values=True)
        return [value for own, value in pairs if own == name]

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name."""
        cookies: dict[str, str] = {}
        for header in self.headers.all("cookie"):
            for part in header.split(";"):
                name, equals, value = part.strip().partition("=")
                if equals:
                    cookies.setdefault(name, value.strip('"'))
        return cookies

    @property
    def content_type(self) -> str:
        """Of the body; may be empty."""
        return self.headers.get("content-type", "")

    @property
    def body(self) -> bytes:
        """All of the body."""
        if self._stream is not None:
            raise InvalidArgument('the body comes as a stream: use "stream", not "body"')
        return self._body

    @property
    def stream(self) -> Input:
        """The body as it comes, for a function that says `stream=True`."""
        if self._stream is None:
            raise InvalidArgument('the body is there as a whole: use "body", or say stream=True')
        return self._stream

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body, taken as JSON. What is none is answered with a failure `invalid_input`."""
        return parse_input(self.body, None)

    def __repr__(self) -> str:
        return f"Request({self.method} {self.raw_path})"


class Event:
    """One event of a stream of server-sent events. Data that is no text is sent as JSON."""

    __slots__ = ("data", "event", "id", "retry_ms")

    def __init__(
        self,
        data: Any = "",
        *,
        event: str | None = None,
        id: str | None = None,
        retry_ms: int | None = None,
    ) -> None:
        self.data = data
        self.event = event
        self.id = id
        self.retry_ms = retry_ms

    def encode(self) -> bytes:
        """As it is sent."""
        lines = []
        if self.event is not None:
            lines.append(f"event: {_one_line(self.event)}")
        if self.id is not None:
            lines.append(f"id: {_one_line(self.id)}")
        if self.retry_ms is not None:
            lines.append(f"retry: {self.retry_ms}")
        text = self.data if isinstance(self.data, str) else json_bytes(self.data).decode()
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        lines += [f"data: {line}" for line in text.split("\n")]
        return ("\n".join(lines) + "\n\n").encode()


Pieces = AsyncIterable[Any] | Iterable[Any]
Body = bytes | bytearray | memoryview | str | Pieces | None


class Response:
    """An HTTP response. Its body is bytes, a text, or pieces of either, sent as they come."""

    def __init__(
        self,
        body: Body = None,
        *,
        status: int = 200,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not 100 <= status <= 999:
            raise InvalidArgument(f"invalid status: {status} is none of HTTP")
        if content_type is None:
            content_type = TEXT if isinstance(body, str) else ""
        self.status = status
        self.content_type = content_type
        self.headers: list[tuple[str, str]] = []
        self.body: bytes | Pieces
        if body is None:
            self.body = b""
        elif isinstance(body, str):
            self.body = body.encode()
        elif isinstance(body, (bytes, bytearray, memoryview)):
            self.body = bytes(body)
        else:
            self.body = body
        for name, value in (headers or {}).items():
            self.add_header(name, value)

    @classmethod
    def json(
        cls, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A value, as JSON."""
        return cls(json_bytes(value), status=status, content_type=JSON, headers=headers)

    @classmethod
    def html(
        cls, text: str, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        """A page."""
        return cls(text, status=status, content_type=HTML, headers=headers)

    @classmethod
    def redirect(cls, to: str, *, status: int = 303) -> Response:
        """Sends the client elsewhere."""
        return cls(status=status, headers={"location": to})

    @classmethod
    def events(cls, events: Pieces) -> Response:
        """Server-sent events, each as it comes: `Event`, or what its data is."""
        return cls(events, content_type=EVENTS, headers={"cache-control": "no-cache"})

    def add_header(self, name: str, value: str) -> None:
        """Adds a header, beside those with the same name."""
        if not name or not name.isascii() or not name.isprintable() or set(name) & _SEPARATORS:
            raise InvalidArgument(f"invalid header: {name!r} is no name of one")
        if len(name) > 255 or any((c < " " and c != "\t") or c == "\x7f" for c in value):
            raise InvalidArgument(f"invalid header {name}: its value has control characters")
        if name.lower() == "content-type":
            self.content_type = value
        else:
            self.headers.append((name.lower(), value))

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        path: str = "/",
        domain: str | None = None,
        secure: bool = False,
        http_only: bool = True,
        same_site: SameSite = "lax",
    ) -> None:
        """Sets a cookie. `max_age` in seconds; without it the cookie ends with the browser."""
        if any(c in ';, \\"\t' or not c.isprintable() or not c.isascii() for c in name + value):
            raise InvalidArgument(
                f"invalid cookie {name}: it has characters that no cookie can have"
            )
        if not name or "=" in name:
            raise InvalidArgument(f"invalid cookie: {name!r} is no name of one")
        parts = [f"{name}={value}", f"Path={path}"]
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        if domain is not None:
            parts.append(f"Domain={domain}")
        if secure:
            parts.append("Secure")
        if http_only:
            parts.append("HttpOnly")
        parts.append(f"SameSite={same_site.capitalize()}")
        self.add_header("set-cookie", "; ".join(parts))

    def delete_cookie(self, name: str, *, path: str = "/") -> None:
        """Has the client forget a cookie."""
        self.set_cookie(name, "", max_age=0, path=path)

    def piece(self, value: Any) -> bytes:
        """One of the pieces of its body, as it is sent."""
        if self.content_type == EVENTS:
            return (value if isinstance(value, Event) else Event(value)).encode()
        return raw_piece(value)


def response_of(value: Any) -> Response:
    """What a function for HTTP returned, as a response: anything that is none has a usual one."""
    if isinstance(value, Response):
        return value
    if value is None:
        return Response(status=204)
    if isinstance(value, (bytes, bytearray, memoryview, str)):
        return Response(value)
    return Response.json(value)


def raw_piece(value: Any) -> bytes:
    """A piece of a stream of bytes or text."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise InvalidArgument(f"a piece of a body is bytes or a text, not a {type(value).__name__}")


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise InvalidArgument(f"invalid event: {json.dumps(text)} has more than one line")
    return text
