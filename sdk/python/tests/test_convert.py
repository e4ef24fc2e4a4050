"""What inputs fit which annotations."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Literal, NewType, Optional, TypedDict

import pytest

import boki
from boki._convert import converter, parse_input


class Colour(enum.Enum):
    RED = "red"


class Point(TypedDict, total=False):
    x: int


@dataclass
class Line:
    ends: tuple[Point, Point]
    colour: Colour = Colour.RED
    names: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class Tree:
    left: Tree | None = None
    right: Tree | None = None


@dataclass
class Unknown:
    what: complex


UserId = NewType("UserId", int)


def test_annotations_say_what_fits() -> None:
    fits: list[tuple[Any, str, Any]] = [
        (Any, "[1]", [1]),
        (float, "1", 1.0),
        (None, "null", None),
        (list, "[1]", [1]),
        (dict, "{}", {}),
        (list[Any], "[1]", [1]),
        (tuple[int, ...], "[1,2]", (1, 2)),
        (Optional[int], "null", None),  # noqa: UP045
        (int | str, '"a"', "a"),
        (Literal["a", 1], "1", 1),
        (UserId, "7", 7),
        (
            Line,
            '{"ends":[{"x":1},{"y":2}],"names":{"a":["b"]}}',
            Line(({"x": 1}, {}), Colour.RED, {"a": ["b"]}),
        ),
        (Tree, '{"left":{"right":{}}}', Tree(Tree(None, Tree()))),
    ]
    for annotation, text, value in fits:
        assert parse_input(text.encode(), converter(annotation)) == value
    misfits: list[tuple[Any, str, str]] = [
        (int, "true", "a whole number is expected, not the yes or no true"),
        (int, "1.0", "a whole number is expected, not the number 1.0"),
        (float, '"1"', 'a number is expected, not "1"'),
        (bool, "1", "true or false is expected, not the number 1"),
        (None, "0", "null is expected, not the number 0"),
        (Literal["a", 1], "true", '"a" or 1 is expected, not the yes or no true'),
        (Colour, '"blue"', '"red" is expected, not "blue"'),
        (int | None, '"a"', 'a whole number is expected, not "a"'),
        (list[int], '[1,"2"]', '[1]: a whole number is expected, not "2"'),
        (tuple[int, int], "[1]", "a list of 2 is expected, not a list"),
        (tuple[int, int], "[1,null]", "[1]: a whole number is expected, not null"),
        (Line, '{"ends":[{"x":1},{"x":"2"}]}', 'ends[1].x: a whole number is expected, not "2"'),
        (Line, "{}", 'the field "ends" is expected, not an object'),
        (dict[str, int], '{"a":[]}', "a: a whole number is expected, not a list"),
    ]
    for annotation, text, words in misfits:
        with pytest.raises(boki.Failure) as failure:
            parse_input(text.encode(), converter(annotation))
        assert failure.value.code == "invalid_input"
        assert failure.value.message == f"the input does not fit: {words}"
    for unknown in (complex, dict[int, str], set[int], type, Unknown, list[Unknown]):
        with pytest.raises(TypeError):
            converter(unknown)
