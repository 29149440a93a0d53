"""The line-mode chat client behind `pushctl chat`.

Three things run at a time: the lines that a person types, handled one after the other; the
messages that arrive; and what the connection itself has to say. All of them write whole lines to
one screen, so nothing needs to know where the cursor stands, and a pipe serves as well as a
terminal.

`console` reads and writes lines, `lines` makes lines of messages, `chat` is the sitting; `talk`,
`people`, `groups` and `files` are families of commands, each ending in its rows. It must not know
the wire: it asks a `Client`.
"""

import contextlib
import sys
from typing import TextIO

from ..client import Client, ClientError
from . import files, groups, people, talk
from .chat import Chat
from .console import Keyboard, Screen, escape

__all__ = ["escape", "run_chat"]

COMMANDS = (*talk.COMMANDS, *people.COMMANDS, *groups.COMMANDS, *files.COMMANDS, *talk.LAST)

# Exit codes beside those of a chat
UNREACHABLE = 3


async def run_chat(
    host: str, port: int, *, stdin: TextIO | None = None, stdout: TextIO | None = None
) -> int:
    """Chat on this terminal, or with piped lines, until `/quit` or the end of the input.

    Returns the exit code: 0, 1 if there was no login or the session was ended from elsewhere,
    3 if the server was not reached. Leaving logs out, for a terminal is no device to keep: it
    would take one of the account's ten places.
    """
    screen = Screen(stdout or sys.stdout)
    keyboard = Keyboard(stdin or _standard_input(), screen)
    client = Client.connect(host, port, device="terminal")
    try:
        await client.open()
    except (OSError, ClientError) as error:
        screen.error(f"cannot reach {host}:{port}: {error}")
        return UNREACHABLE
    try:
        return await Chat(client, keyboard, screen, COMMANDS).run()
    finally:
        await client.close()
        keyboard.stop()


def _standard_input() -> TextIO:
    """Give the standard input; what is no text there is a bad line, and not the end of it."""
    with contextlib.suppress(AttributeError):
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr] # if it is a file
    return sys.stdin
