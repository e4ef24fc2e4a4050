"""From JSON to what a function's annotation says, exactly: what does not fit is refused.

Known are plain types (`str`, `int`, `float`, `bool`, `None`, `list`, `dict`, `tuple` and what is in
their brackets), `Literal`, `Optional` and unions, enums by value, dataclasses, `TypedDict`,
`NewType` and `Annotated`. Fields that a dataclass or a `TypedDict` does not know are left out.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from ._errors import Failure

Convert = Callable[[Any], Any]


class Misfit(Exception):
    """A value that does not fit, and where in the input it is."""

    def __init__(self, expected: str, value: Any) -> None:
        super().__init__(expected)
        self.expected = expected
        self.value = value
        self.path = ""

    def inside(self, step: str) -> Misfit:
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        where = f"{self.path.lstrip('.')}: " if self.path else ""
        return f"{where}{self.expected} is expected, not {_described(self.value)}"


def _described(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool() | int() | float():
            return f"the {'yes or no' if isinstance(value, bool) else 'number'} {json.dumps(value)}"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= 40 else "such a text"
        case list():
            return "a list"
        case _:
            return "an object" if isinstance(value, dict) else "nothing"


def _no_such_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_such_number)


def parse_input(data: bytes, convert: Convert | None) -> Any:
    """An input, taken as JSON that fits; nothing at all is `null`."""
    try:
        value = _DECODER.decode(data.decode()) if data else None
        return value if convert is None else convert(value)
    except (Misfit, ValueError, RecursionError) as error:
        message = f"the input does not fit: {error}"
        raise Failure(message, code="invalid_input") from error


def converter(annotation: Any) -> Convert | None:
    """How to convert to `annotation`; `None`: everything is fine as it is.

    Raises `TypeError` for an annotation that is not known.
    """
    if annotation is Any or annotation is object:
        return None
    if annotation is None or annotation is type(None):
        return _plain((type(None),), "null")
    if annotation is str:
        return _plain((str,), "a text")
    if annotation is bool:
        return _plain((bool,), "true or false")
    if annotation is int:
        return _number
    if annotation is float:
        return _float
    if annotation in (list, typing.List):  # noqa: UP006
        return _plain((list,), "a list")
    if annotation in (dict, typing.Dict):  # noqa: UP006
        return _plain((dict,), "an object")
    if isinstance(annotation, typing.NewType):
        return converter(annotation.__supertype__)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _generic(annotation, origin, arguments)
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _enum(annotation)
        if dataclasses.is_dataclass(annotation):
            return _fields_of(_DataclassFields, annotation)
        if typing.is_typeddict(annotation):
            return _fields_of(_TypedDictFields, annotation)
    raise TypeError(f"{annotation!r} cannot be the type of an input")


def _generic(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Convert | None:
    if origin is typing.Annotated:
        return converter(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return _union([converter(one) for one in arguments])
    if origin is typing.Literal:
        return _literal(arguments)
    if origin is list:
        return _list(converter(arguments[0]))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            many = _list(converter(arguments[0]))
            return lambda value: tuple(many(value))
        return _tuple([converter(one) for one in arguments])
    if origin is dict and arguments[0] is str:
        return _dict(converter(arguments[1]))
    raise TypeError(f"{annotation!r} cannot be the type of an input")


def _plain(kinds: tuple[type, ...], expected: str) -> Convert:
    def convert(value: Any) -> Any:
        if isinstance(value, kinds):
            return value
        raise Misfit(expected, value)

    return convert


def _number(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Misfit("a whole number", value)


def _float(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise Misfit("a number", value)


def _list(convert: Convert | None) -> Convert:
    def convert_list(value: Any) -> Any:
        if not isinstance(value, list):
            raise Misfit("a list", value)
        return value if convert is None else _each([convert] * len(value), value)

    return convert_list


def _each(converters: list[Convert | None], values: list[Any]) -> list[Any]:
    converted = []
    for at, (convert, value) in enumerate(zip(converters, values, strict=True)):
        try:
            converted.append(value if convert is None else convert(value))
        except Misfit as misfit:
            raise misfit.inside(f"[{at}]") from None
    return converted


def _tuple(converters: list[Convert | None]) -> Convert:
    def convert(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(converters):
            raise Misfit(f"a list of {len(converters)}", value)
        return tuple(_each(converters, value))

    return convert


def _dict(convert: Convert | None) -> Convert:
    def convert_dict(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Misfit("an object", value)
        if convert is None:
            return value
        converted = {}
        for key, own in value.items():
            try:
                converted[key] = convert(own)
            except Misfit as misfit:
                raise misfit.inside(f".{key}") from None
        return converted

    return convert_dict


def _union(converters: list[Convert | None]) -> Convert | None:
    """The first that fits; if none does, what the last one says that is not about `null`."""
    if None in converters:
        return None

    def convert(value: Any) -> Any:
        said: Misfit | None = None
        for own in converters:
            assert own is not None
            try:
                return own(value)
            except Misfit as misfit:
                if said is None or misfit.path or misfit.expected != "null":
                    said = misfit
        assert said is not None
        raise said

    return convert


def _literal(values: tuple[Any, ...]) -> Convert:
    expected = " or ".join(json.dumps(value, ensure_ascii=False) for value in values)

    def convert(value: Any) -> Any:
        for known in values:
            if value == known and type(value) is type(known):
                return known
        raise Misfit(expected, value)

    return convert


def _enum(kind: type[enum.Enum]) -> Convert:
    return_of = _literal(tuple(member.value for member in kind))
    return lambda value: kind(return_of(value))


class _Fields(abc.ABC):
    """An object of known fields."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._converters: dict[str, Convert | None] = {}

    def look(self) -> None:
        """Looks at the fields, apart from making this: a type may contain itself."""
        hints = typing.get_type_hints(self.kind)
        self._converters = {name: converter(hints[name]) for name in self.names()}

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise Misfit("an object", value)
        fields = {}
        for name, convert in self._converters.items():
            if name in value:
                try:
                    fields[name] = value[name] if convert is None else convert(value[name])
                except Misfit as misfit:
                    raise misfit.inside(f".{name}") from None
            elif self.is_required(name):
                raise Misfit(f"the field {json.dumps(name)}", value)
        return self.made_of(fields)

    @abc.abstractmethod
    def names(self) -> list[str]:
        """Of the fields that are looked for."""

    @abc.abstractmethod
    def is_required(self, name: str) -> bool:
        """Whether an object without it is refused."""

    @abc.abstractmethod
    def made_of(self, fields: dict[str, Any]) -> Any:
        """The value that a function gets."""


_known: dict[type, _Fields] = {}


def _fields_of(kind_of_fields: type[_Fields], kind: type) -> _Fields:
    known = _known.get(kind)
    if known is None:
        known = _known[kind] = kind_of_fields(kind)
        try:
            known.look()
        except BaseException:
            del _known[kind]
            raise
    return known


class _DataclassFields(_Fields):
    def __init__(self, kind: Any) -> None:
        super().__init__(kind)
        self._required = {
            field.name: field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
            for field in dataclasses.fields(kind)
            if field.init
        }

    def names(self) -> list[str]:
        return list(self._required)

    def is_required(self, name: str) -> bool:
        return self._required[name]

    def made_of(self, fields: dict[str, Any]) -> Any:
        return self.kind(**fields)


class _TypedDictFields(_Fields):
    def names(self) -> list[str]:
        return list(typing.get_type_hints(self.kind))

    def is_required(self, name: str) -> bool:
        return name in self.kind.__required_keys__

    def made_of(self, fields: dict[str, Any]) -> Any:
        return fields
