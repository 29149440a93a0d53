"""How far long work has come: one line on a terminal's standard error, and nothing elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

# What takes less than so many seconds shows nothing.
QUIET = 0.5
PERIOD = 0.1
BAR = 30  # characters


class Progress:
    """A bar where the whole is known, else a count.

    with Progress("backup", total) as progress:
        progress.at(done)
    """

    def __init__(
        self,
        label: str,
        total: int = 0,
        *,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = total  # 0 while it is not known
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._now = now
        self._next = now() + QUIET  # when the line is drawn next
        self._drawn = 0  # characters of the line that stands there
        self._shows = self._stream.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draw("")

    def at(self, done: int, total: int = 0) -> None:
        """Note how much is done, and of how much if that has become known."""
        self.total = total or self.total
        if self._shows and self._now() >= self._next:
            self._next = self._now() + PERIOD
            self._draw(self._text(done))

    def _text(self, done: int) -> str:
        if not self.total:
            return f"{self._label}: {done}"
        part = min(done / self.total, 1.0)
        full = int(part * BAR)
        return f"{self._label}: [{'#' * full}{'-' * (BAR - full)}] {part:4.0%}"

    def _draw(self, text: str) -> None:
        if text or self._drawn:
            self._stream.write(f"\r{text}{' ' * (self._drawn - len(text))}\r{text}")
            self._stream.flush()
            self._drawn = len(text)


def counted(label: str, entries: Iterable[T], **options: Any) -> Iterator[T]:
    """Give entries on, and show how many there were so far."""
    with Progress(label, **options) as progress:
        for count, entry in enumerate(entries, start=1):
            progress.at(count)
            yield entry
