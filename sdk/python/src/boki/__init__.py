"""Boki: functions, and one durable, totally ordered log to keep their state in.

    import boki

    @boki.function
    async def hello(name: str) -> str:
        return f"Hello {name}!"

`docs/python.md` is the guide. What is used is what is imported: a worker starts fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import sync as sync
    from . import testing as testing
    from ._book import Ack as Ack
    from ._book import Book as Book
    from ._book import Consistency as Consistency
    from ._client import Client as Client
    from ._client import connect as connect
    from ._cx import Cx as Cx
    from ._errors import BookExists as BookExists
    from ._errors import BookNotFound as BookNotFound
    from ._errors import CallCancelled as CallCancelled
    from ._errors import CallNotFound as CallNotFound
    from ._errors import CallTimeout as CallTimeout
    from ._errors import Closed as Closed
    from ._errors import ConditionFailed as ConditionFailed
    from ._errors import ConnectFailed as ConnectFailed
    from ._errors import DeadlineExceeded as DeadlineExceeded
    from ._errors import Disconnected as Disconnected
    from ._errors import DiskFull as DiskFull
    from ._errors import Error as Error
    from ._errors import Failure as Failure
    from ._errors import Fenced as Fenced
    from ._errors import FunctionFailed as FunctionFailed
    from ._errors import FunctionNotFound as FunctionNotFound
    from ._errors import InvalidAddress as InvalidAddress
    from ._errors import InvalidArgument as InvalidArgument
    from ._errors import InvalidTag as InvalidTag
    from ._errors import KeyReused as KeyReused
    from ._errors import NoSuchRecord as NoSuchRecord
    from ._errors import NotJson as NotJson
    from ._errors import OutcomeUnknown as OutcomeUnknown
    from ._errors import Overloaded as Overloaded
    from ._errors import ShuttingDown as ShuttingDown
    from ._errors import TooLarge as TooLarge
    from ._errors import UnexpectedAnswer as UnexpectedAnswer
    from ._errors import WorkerLost as WorkerLost
    from ._function import Output as Output
    from ._function import function as function
    from ._function import http as http
    from ._http import Event as Event
    from ._http import Headers as Headers
    from ._http import Request as Request
    from ._http import Response as Response
    from ._payload import Json as Json
    from ._results import Appended as Appended
    from ._results import BookInfo as BookInfo
    from ._results import CallOutput as CallOutput
    from ._results import FunctionInfo as FunctionInfo
    from ._results import Record as Record
    from ._results import Sent as Sent
    from ._results import TagPage as TagPage
    from ._serve import serve as serve
    from ._streams import Input as Input
    from ._terms import Duration as Duration
    from ._worker import Worker as Worker

__version__ = "0.1.0"

_MODULES = {
    "_book": ("Ack", "Book", "Consistency"),
    "_client": ("Client", "connect"),
    "_cx": ("Cx",),
    "_errors": (
        "BookExists",
        "BookNotFound",
        "CallCancelled",
        "CallNotFound",
        "CallTimeout",
        "Closed",
        "ConditionFailed",
        "ConnectFailed",
        "DeadlineExceeded",
        "Disconnected",
        "DiskFull",
        "Error",
        "Failure",
        "Fenced",
        "FunctionFailed",
        "FunctionNotFound",
        "InvalidAddress",
        "InvalidArgument",
        "InvalidTag",
        "KeyReused",
        "NoSuchRecord",
        "NotJson",
        "OutcomeUnknown",
        "Overloaded",
        "ShuttingDown",
        "TooLarge",
        "UnexpectedAnswer",
        "WorkerLost",
    ),
    "_function": ("Output", "function", "http"),
    "_http": ("Event", "Headers", "Request", "Response"),
    "_payload": ("Json",),
    "_results": (
        "Appended",
        "BookInfo",
        "CallOutput",
        "FunctionInfo",
        "Record",
        "Sent",
        "TagPage",
    ),
    "_serve": ("serve",),
    "_streams": ("Input",),
    "_terms": ("Duration",),
    "_worker": ("Worker",),
}
_SUBMODULES = ("sync", "testing")
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f"boki.{name}")
    module = _HOMES.get(name)
    if module is not None:
        value: object = getattr(import_module(f"boki.{module}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'boki' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_SUBMODULES, "__version__"])
