"""Terminals for the documents: a program in each, typed into and read line by line.

`Netcat` runs `nc` on pipes. `Shell` runs any program on a terminal of its own, so that it prompts
and hides passwords as it does for people; what is typed is not echoed. A prompt of `pushctl chat`
is read like a line, for nothing follows it until somebody types.
"""

import fcntl
import os
import pty
import select
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

# How long a line may take, in seconds.
PATIENCE = 15.0

CLOSED = "(closed)"

PROMPTS = ("(l)og in or (r)egister? ", "phone: ", "password: ", "name: ")


class Terminal:
    """A program, and who sits before it."""

    def __init__(self, process: "subprocess.Popen[bytes]", keys: int, screen: int) -> None:
        self._process = process
        self._keys = keys  # what typing writes to
        self._screen = screen  # what it shows
        self._shown = b""  # what it has shown and nobody has read

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self._keys, line.encode() + b"\n")

    def read(self) -> str:
        """Return the next line that it shows; raises EOFError when it shows no more."""
        while b"\n" not in self._shown:
            self._shown += self._more()
        line, _, self._shown = self._shown.partition(b"\n")
        return line.decode()

    def _more(self) -> bytes:
        if not select.select([self._screen], [], [], PATIENCE)[0]:
            raise TimeoutError(f"nothing more is shown behind {self._shown!r}")
        try:
            data = os.read(self._screen, 65536)
        except OSError:
            data = b""  # A terminal whose program has ended says it this way.
        if not data:
            raise EOFError(f"the program ended behind {self._shown!r}")
        return data

    def closed(self) -> str:
        """Return that the program has ended, or what it shows instead."""
        raise NotImplementedError

    def end(self) -> list[str]:
        """Leave, and return the lines that nobody has read."""
        raise NotImplementedError

    def kill(self) -> None:
        """End the program, and close what leads to it; idempotent."""
        self._process.kill()
        self._process.wait()
        for end in {self._keys, self._screen} - {-1}:
            os.close(end)
        self._keys = self._screen = -1


class Netcat(Terminal):
    """A netcat."""

    def __init__(self, host: str, port: int) -> None:
        keys, screen = os.pipe(), os.pipe()
        process = subprocess.Popen(["nc", host, str(port)], stdin=keys[0], stdout=screen[1])
        os.close(keys[0])
        os.close(screen[1])
        super().__init__(process, keys[1], screen[0])

    def closed(self) -> str:
        """Require that the server has hung up: this netcat ends by nothing else."""
        os.close(self._keys)
        self._keys = -1
        self._process.wait(PATIENCE)
        return CLOSED

    def end(self) -> list[str]:
        """Leave, and return the lines that nobody has read."""
        rest: list[str] = []
        if self._process.poll() is None:
            self.type('{"cmd":"ping","id":"the end"}')
            while '"id":"the end"' not in (line := self.read()):
                rest.append(line)
        self.kill()
        return rest


class Shell(Terminal):
    """A program that a shell runs on a terminal of its own."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        super().__init__(process, master, master)
        self._hidden = False  # the last prompt was one for a password, which ends its own line

    def read(self) -> str:
        """Return the next line or prompt that it shows; raises EOFError when it shows no more."""
        while True:
            for prompt in PROMPTS:
                if self._shown == prompt.encode():
                    self._shown = b""
                    self._hidden = prompt == "password: "
                    return prompt.rstrip()
            if b"\n" not in self._shown:
                self._shown += self._more()
                continue
            line = super().read().rstrip("\r")
            if line or not self._hidden:
                return line
            self._hidden = False

    def closed(self) -> str:
        """Return that the program has ended, or the line that it shows instead."""
        try:
            return self.read()
        except EOFError:
            return CLOSED

    def end(self) -> list[str]:
        """Leave, and return the lines that nobody has read."""
        if self._process.poll() is None:
            self.type("/quit")
        rest: list[str] = []
        while (line := self.closed()) != CLOSED:
            rest.append(line)
        self.kill()
        return rest


def _take_terminal() -> None:
    """Make the terminal the one that passwords are asked from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
