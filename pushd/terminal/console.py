"""Whole lines to a screen and from a keyboard, be they a terminal or pipes.

What others wrote is not trusted: control, format and bidirectional characters are shown as
escapes, and a message is one line, so nobody can draw on the screen or pretend to be another
line. Reading blocks, and therefore happens in a thread of its own which nobody waits for at the
end.
"""

import asyncio
import contextlib
import getpass
import queue
import threading
import unicodedata
from collections.abc import Callable
from typing import TextIO

# Control, format, surrogate and private characters, and line ends of all kinds.
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


class Quit(Exception):
    """The person wants to leave, or the input has ended."""


def escape(text: str) -> str:
    """Show control, format and bidirectional characters as escapes, line ends included."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    # The joiner only ties emoji and letters together.
    if character == "\u200d" or unicodedata.category(character) not in UNSAFE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


class Screen:
    """Whole lines to a stream, in its encoding."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def line(self, text: str) -> None:
        """Show a line that is ours; foreign parts have been escaped by the caller."""
        self._put(text + "\n")

    def prompt(self, text: str) -> None:
        """Ask for a line."""
        self._put(text)

    def error(self, problem: object) -> None:
        """Show a problem as one line."""
        self.line(f"! {escape(str(problem))}")

    def _put(self, text: str) -> None:
        safe = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        # The reader of a pipe may have gone; that ends with the input.
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(safe)
            self._stream.flush()


class Keyboard:
    """Lines from a stream, read in a thread so that the loop goes on."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: nothing can end a read that waits for a person.
        threading.Thread(target=self._work, name="keyboard", daemon=True).start()

    async def line(self, prompt: str = "") -> str:
        """Give the next line without its end; raises Quit at the end of the input."""
        self._screen.prompt(prompt)
        text = await self._in_thread(self._stream.readline)
        if not text:
            raise Quit
        return text.rstrip("\r\n")

    async def secret(self, prompt: str) -> str:
        """Give a line that is not echoed if a person types it."""
        if not self._stream.isatty():
            return await self.line(prompt)
        try:
            return await self._in_thread(lambda: getpass.getpass(prompt))
        except EOFError:
            raise Quit from None

    def stop(self) -> None:
        """Let the thread end when its read does."""
        self._tasks.put(None)

    async def _in_thread(self, read: Callable[[], str]) -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def work() -> None:
            try:
                outcome: str | Exception = read()
            except (OSError, ValueError, EOFError) as error:
                outcome = error if isinstance(error, EOFError) else ""
            # The loop may be gone when a person types at last.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future, outcome)

        self._tasks.put(work)
        return await future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


def _resolve(future: "asyncio.Future[str]", outcome: str | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, str):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
