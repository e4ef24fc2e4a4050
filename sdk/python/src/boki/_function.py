"""Functions: what the decorators make known, and what their signatures say."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar, overload

from ._convert import Convert, converter, parse_input
from ._errors import InvalidArgument
from ._streams import Input
from ._terms import Duration, milliseconds
from ._wire import cut
from ._worker_messages import FunctionSpec

F = TypeVar("F", bound=Callable[..., Any])

_NO_INPUT, _JSON, _RAW, _STREAM, _REQUEST = range(5)
_MAX_NAME_BYTES = 255


class Output:
    """What a function returns, with a content type of its own."""

    __slots__ = ("content_type", "data")

    def __init__(self, data: bytes, content_type: str = "") -> None:
        self.data = data
        self.content_type = content_type


class Function:
    """A function that a worker can offer."""

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        name: str | None,
        description: str | None,
        timeout: Duration | None,
        retries: int | None,
        content_type: str | None,
        is_http: bool,
        streams_body: bool,
    ) -> None:
        self.target = target
        self.name = name or target.__name__
        self.description = _first_line(target) if description is None else description
        self.content_type = content_type
        self.is_http = is_http
        self.is_async = inspect.iscoroutinefunction(target) or inspect.isasyncgenfunction(target)
        self.streams_output = inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(
            target
        )
        self.streams_input = streams_body
        self.takes_cx = False
        self._timeout_ms = milliseconds(timeout)
        self._attempts = 0 if retries is None else retries + 1
        self._input = _NO_INPUT
        self._convert: Convert | None = None
        self._has_default = False
        self._is_bound = False
        if not 0 < len(self.name.encode()) <= _MAX_NAME_BYTES:
            raise InvalidArgument(f"invalid name of a function: {self.name!r}")
        if self._attempts < 0:
            raise InvalidArgument(f"invalid retries: {retries}")
        if streams_body and not self.is_async:
            raise TypeError(f'{self.name}: only an "async def" can take its body as a stream')

    def spec(self) -> FunctionSpec:
        """What the server is told of it."""
        self.bind()
        description = cut(self.description, 1000)
        return FunctionSpec(
            self.name, description, self._attempts, self._timeout_ms, self.streams_input
        )

    def bind(self) -> None:
        """Looks at the signature: now, when every name in the annotations is known."""
        if self._is_bound:
            return
        self._is_bound = True
        from ._cx import Cx
        from ._http import Request
        from .sync import Cx as SyncCx

        try:
            hints = _hints(self.target)
        except NameError as error:
            raise TypeError(f"{self.name}: an annotation cannot be resolved: {error}") from None
        parameters = list(inspect.signature(self.target).parameters.values())
        for parameter in parameters:
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                raise TypeError(f"{self.name}: a parameter *{parameter.name} cannot be filled")
        first = hints.get(parameters[0].name) if parameters else None
        if parameters and (first in (Cx, SyncCx) or (parameters[0].name == "cx" and first is None)):
            if first is not None and (first is Cx) != self.is_async:
                expected = "boki.Cx" if self.is_async else "boki.sync.Cx"
                raise TypeError(f"{self.name}: the type of cx is {expected} here")
            self.takes_cx = True
            parameters = parameters[1:]
        if len(parameters) > 1:
            names = ", ".join(parameter.name for parameter in parameters)
            raise TypeError(f"{self.name}: cx and one input at most are filled, not {names}")
        if not parameters:
            return
        annotation = hints.get(parameters[0].name, Any)
        self._has_default = parameters[0].default is not parameters[0].empty
        if self.is_http:
            if annotation not in (Request, Any):
                raise TypeError(f"{self.name}: a function for HTTP takes a boki.Request")
            self._input = _REQUEST
        elif annotation is bytes:
            self._input = _RAW
        elif annotation is Input:
            if not self.is_async:
                raise TypeError(f'{self.name}: only an "async def" can take its input as a stream')
            self._input = _STREAM
            self.streams_input = True
        else:
            self._input = _JSON
            try:
                self._convert = converter(annotation)
            except (TypeError, NameError) as error:
                raise TypeError(f"{self.name}: {error}") from None

    def arguments(self, data: bytes, stream: Input | None, request: Any) -> tuple[Any, ...]:
        """What is given to it after `cx`."""
        if self._input == _NO_INPUT or (self._has_default and not data and self._input == _JSON):
            return ()
        if self._input == _JSON:
            return (parse_input(data, self._convert),)
        if self._input == _RAW:
            return (data,)
        return (stream,) if self._input == _STREAM else (request(),)

    def __repr__(self) -> str:
        return f"Function({self.name!r})"


registered: list[Function] = []
"""What the decorators have seen, in order."""


@overload
def function(target: F, /) -> F: ...


@overload
def function(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    retries: int | None = None,
    content_type: str | None = None,
) -> Callable[[F], F]: ...


def function(
    target: Any = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    retries: int | None = None,
    content_type: str | None = None,
) -> Any:
    """Offers a function under its name: async or plain, or a generator whose pieces are streamed.

    It takes `cx`, an input, both (in this order) or neither. The input is JSON that fits the
    parameter's annotation; `bytes` are what was sent, `boki.Input` is it as it comes. What it
    returns is JSON; bytes are as they are. It stays what it was: a test may call it.

    `timeout` and `retries` hold for calls of it unless the caller says otherwise; `content_type`
    is that of streamed output.
    """

    def known(target: F) -> F:
        own = Function(
            target,
            name=name,
            description=description,
            timeout=timeout,
            retries=retries,
            content_type=content_type,
            is_http=False,
            streams_body=False,
        )
        return _register(target, own)

    return known if target is None else known(target)


@overload
def http(target: F, /) -> F: ...


@overload
def http(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    retries: int | None = None,
    content_type: str | None = None,
    stream: bool = False,
) -> Callable[[F], F]: ...


def http(
    target: Any = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: Duration | None = None,
    retries: int | None = None,
    content_type: str | None = None,
    stream: bool = False,
) -> Any:
    """Offers a function that takes a `boki.Request` and returns a `boki.Response`.

    A text, bytes, or a value (as JSON) that it returns is a response as well. With `stream=True`
    it gets the request's body as it comes.
    """

    def known(target: F) -> F:
        own = Function(
            target,
            name=name,
            description=description,
            timeout=timeout,
            retries=retries,
            content_type=content_type,
            is_http=True,
            streams_body=stream,
        )
        return _register(target, own)

    return known if target is None else known(target)


def function_of(target: Callable[..., Any] | Function) -> Function:
    """What a decorator made of `target`; a callable without one is a function as it is."""
    if isinstance(target, Function):
        return target
    own = getattr(target, "__boki__", None)
    if isinstance(own, Function):
        return own
    raise TypeError(f"{target!r} is no function of Boki: decorate it with @boki.function")


def _register(target: F, own: Function) -> F:
    target.__boki__ = own  # type: ignore[attr-defined]
    registered.append(own)
    return target


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    annotations = dict(getattr(target, "__annotations__", {}))
    annotations.pop("return", None)
    if not annotations:
        return {}
    hints = typing.get_type_hints(target, include_extras=True)
    hints.pop("return", None)
    return hints


def _first_line(target: Callable[..., Any]) -> str:
    return (target.__doc__ or "").strip().partition("\n")[0]
