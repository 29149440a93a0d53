"""The exceptions of pushd: whose fault it is, and whether the connection survives it.

    PushdError
     +-- Refusal            the request cannot be served; the connection goes on
     |    +-- BadField      a field of it is not usable (4003)
     |    |    +-- BadList  messages of a list are not readable
     |    +-- Malformed     the line is not one JSON object (4000)
     |    +-- TooMany       a budget is used up (4290)
     +-- LineTooLong        the peer broke the framing (4001); the connection is closed
     +-- StoreError         the store cannot be used; nothing of the batch is confirmed
     |    +-- StoreRefused  it cannot be opened: newer, locked, damaged (exit 1, one line)
     |    +-- StoreFailed   a write or sync failed; trust nothing more (exit 1, one line)
     +-- ConfigError        a setting is unknown or bad (exit 78, one line each)

A peer gets the code and a text; the detail goes to the log.
"""

from collections.abc import Sequence

from .status import TEXTS, Status


class PushdError(Exception):
    """Everything that pushd raises on purpose."""

    status: Status = Status.INTERNAL
    survives: bool = True


class Refusal(PushdError):
    """The request is refused with a status; `field` names what was wrong.

    `retry_after` is in seconds and set with 4290 and 5030. A refusal never holds a secret.
    """

    def __init__(
        self,
        status: Status,
        message: str = "",
        *,
        field: str = "",
        retry_after: int = 0,
    ) -> None:
        super().__init__(status, message, field, retry_after)
        self.status = status
        self.message = message or TEXTS[status]
        self.field = field
        self.retry_after = retry_after
        self.frame_id: str | int | None = None  # of the line, when it could not be decoded whole

    def __str__(self) -> str:
        where = f" ({self.field})" if self.field else ""
        return f"{int(self.status)} {self.message}{where}"


class BadField(Refusal):
    """A field has a wrong type, length, range or character."""

    def __init__(self, field: str, message: str = "") -> None:
        super().__init__(Status.BAD_FIELD, message, field=field)


class BadList(BadField):
    """Some messages of a list cannot be read; `failed` tells each as the reply does."""

    def __init__(self, field: str, message: str, failed: Sequence[object]) -> None:
        super().__init__(field, message)
        self.failed = failed


class Malformed(Refusal):
    """The line does not decode as one JSON object."""

    def __init__(self, message: str = "") -> None:
        super().__init__(Status.MALFORMED, message)


class TooMany(Refusal):
    """A budget is used up; the same request may succeed after `retry_after` seconds."""

    def __init__(self, retry_after: int, message: str = "") -> None:
        super().__init__(Status.TOO_MANY, message, retry_after=retry_after)


class LineTooLong(PushdError):
    """A line is longer than `limit` bytes; what follows it is not read."""

    status = Status.TOO_LONG
    survives = False

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"a line holds at most {self.limit} bytes here"


class StoreError(PushdError):
    """The store cannot be used."""

    survives = False


class StoreRefused(StoreError):
    """The store cannot be opened; the text says why and what to do, in one line."""


class StoreFailed(StoreError):
    """A write or a sync failed; the process must end, and nothing of its batch counts."""


class ConfigError(PushdError):
    """One or more settings are bad; `lines` says file, key and the nearest right name."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__(*lines)
        self.lines = tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)
