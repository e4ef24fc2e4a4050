"""How an operation can fail.

Every error has a stable `code` with a page in `docs/errors/`, and says whether trying again makes
sense. The classes are those that a program is likely to act on; any other is plain `Error`.
"""

from __future__ import annotations

from typing import Any, Literal

Retry = Literal["never", "later", "same_id"]


class Error(Exception):
    """An operation that was not done, or is not known to be done."""

    code: str = ""
    retry: Retry = "never"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry: Retry | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = details or {}
        if code is not None:
            self.code = code
        if retry is not None:
            self.retry = retry

    def _text(self, field: str) -> str:
        value = self.details.get(field)
        return value if isinstance(value, str) else ""

    def _number(self, field: str) -> int:
        value = self.details.get(field)
        return value if isinstance(value, int) else 0


class InvalidTag(Error):
    """A tag is empty, or longer than 255 bytes."""

    code = "BK0102"


class TooLarge(Error):
    """Something is larger than a limit allows."""

    code = "BK0104"


class InvalidArgument(Error):
    """An argument makes no sense for the operation."""

    code = "BK0105"


class BookNotFound(Error):
    """There is no book of that name."""

    code = "BK0110"

    @property
    def name(self) -> str:
        return self._text("name")


class BookExists(Error):
    """There is a book of that name already."""

    code = "BK0111"

    @property
    def name(self) -> str:
        return self._text("name")


class NoSuchRecord(Error):
    """There is no record at that seq (any more)."""

    code = "BK0113"

    @property
    def seq(self) -> int:
        return self._number("seq")


class ConditionFailed(Error):
    """An `if_tail` did not hold: nothing was appended. Read again, and decide again."""

    code = "BK0201"

    @property
    def tag(self) -> str:
        return self._text("tag")

    @property
    def expected(self) -> int:
        return self._number("expected")

    @property
    def actual(self) -> int:
        """The seq of the last record under the tag."""
        return self._number("actual")


class Fenced(Error):
    """Somebody with a later epoch has taken over: nothing was appended."""

    code = "BK0202"

    @property
    def tag(self) -> str:
        return self._text("tag")

    @property
    def epoch(self) -> int:
        return self._number("epoch")

    @property
    def fence(self) -> int:
        return self._number("fence")


class DiskFull(Error):
    """The server's disk is full: nothing was written."""

    code = "BK0301"
    retry: Retry = "later"


class Overloaded(Error):
    """Too much is waiting already; try again later."""

    code = "BK0304"
    retry: Retry = "later"


class ShuttingDown(Error):
    """The server is stopping."""

    code = "BK0305"
    retry: Retry = "same_id"


class FunctionNotFound(Error):
    """No worker offers the function."""

    code = "BK0401"
    retry: Retry = "later"

    @property
    def function(self) -> str:
        return self._text("function")


class FunctionFailed(Error):
    """The function that was called failed: that is the call's result."""

    code = "BK0402"

    @property
    def function(self) -> str:
        return self._text("function")

    @property
    def failure(self) -> str:
        """The function's own code: that of its `Failure`; may be empty."""
        return self._text("error")

    @property
    def words(self) -> str:
        """The function's own message."""
        return self._text("message")

    @property
    def attempts(self) -> int:
        return self._number("attempts")


class WorkerLost(Error):
    """Every attempt of the call ended with the loss of its worker."""

    code = "BK0403"
    retry: Retry = "same_id"


class CallTimeout(Error, TimeoutError):
    """The call gave no result in time."""

    code = "BK0404"
    retry: Retry = "same_id"


class CallCancelled(Error):
    """The call was given up."""

    code = "BK0406"


class KeyReused(Error):
    """The key belongs to a call with another input."""

    code = "BK0407"


class CallNotFound(Error):
    """There is no such call on record (any more)."""

    code = "BK0409"


class InvalidAddress(Error):
    """The address of the server is none."""

    code = "BK0611"


class ConnectFailed(Error):
    """The first connection failed."""

    code = "BK0612"
    retry: Retry = "later"


class Disconnected(Error):
    """The connection was lost, and no server could be reached since."""

    code = "BK0613"
    retry: Retry = "same_id"


class OutcomeUnknown(Error):
    """The connection was lost while something was under way that cannot be repeated safely."""

    code = "BK0614"
    retry: Retry = "same_id"


class DeadlineExceeded(Error, TimeoutError):
    """The caller's own deadline has passed. The operation may still be done."""

    code = "BK0615"
    retry: Retry = "same_id"


class UnexpectedAnswer(Error):
    """The server's answer does not fit the question."""

    code = "BK0616"


class NotJson(Error):
    """A value has no JSON, or a payload is not the JSON that was expected."""

    code = "BK0617"


class Closed(Error):
    """The client is closed."""

    code = "BK0618"


_CLASSES: dict[str, type[Error]] = {kind.code: kind for kind in Error.__subclasses__()}
# A client acts on these as on the log's own.
_CLASSES["BK0405"] = Overloaded
_CLASSES["BK0408"] = TooLarge
_CLASSES["BK0410"] = ShuttingDown

_RETRIES: dict[int, Retry] = {1: "later", 2: "same_id"}


def from_reply(code: str, message: str, retry: int, details: dict[str, Any]) -> Error:
    """What a server's error is here. A kind of retry that is not known is none to act on."""
    kind = _CLASSES.get(code, Error)
    return kind(message, code=code, retry=_RETRIES.get(retry, "never"), details=details)


class Failure(Exception):
    """How a function fails on purpose: its caller gets this instead of an output.

    Unless it is `retryable` it is the call's result, and the call is not tried again.
    """

    def __init__(self, message: str = "", *, code: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable
