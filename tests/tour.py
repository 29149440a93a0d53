"""Replays what the documents show of terminals and programs, against a real server.

A block marked `session` holds terminals with netcat, and shell commands:

    ana> {"cmd":"ping"}             is typed in the terminal of that name; a new name runs `nc`
    ana< {"cmd":"ping","status":…   is the next line that this terminal shows
    ana< (closed)                   says that the server has hung up
    $ pushctl ping                  is run by a shell; its output stands below it

A block marked `python` is a whole program, and a block marked `text` right behind it its output.
All blocks of a document share one server, which is new and has the default settings. Where a
document says 127.0.0.1:9527, the server's own port is meant. `pushctl` finds its control socket.

What differs from run to run (pushIds, dates, …) is masked before two lines are compared, and a
pushId in a line to be typed stands for the one that the server gave in its place.

    python -m tests.tour README.md              prints the document as it should be today
    python -m tests.tour --write README.md      puts that in its place
"""

import os
import re
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.process import Process

ROOT = Path(__file__).parent.parent
BIN = ROOT / ".venv" / "bin"

# How long a line may take, in seconds.
PATIENCE = 15.0

CLOSED = "(closed)"

_BLOCK = re.compile(r"^```(session|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"(\w+)([<>]) ?(.*)")
_SECRET = re.compile(r'(?<="pushId":")[A-Za-z0-9_-]{24}(?=")')

# What no two runs have in common.
MASKS = (
    (_SECRET, "PUSHID"),
    (re.compile(r'(?<="epoch":")[^"]+(?=")'), "EPOCH"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r'(?<="time":)\d{13}'), "TIME"),
    (re.compile(r'(?<="connection":")\d+(?=")'), "NUMBER"),
    (re.compile(r"(?<=answered in )[0-9.]+(?= ms)"), "DURATION"),
    (re.compile(r"(?<=\[)\d\d:\d\d(?=\])"), "CLOCK"),
)


def masked(line: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, name in MASKS:
        line = pattern.sub(name, line)
    return line


class Terminal:
    """A netcat, and who sits before it."""

    def __init__(self, host: str, port: int) -> None:
        self._process = subprocess.Popen(
            ["nc", host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._shown = b""  # what it has shown and nobody has read

    def type(self, line: str) -> None:
        """Type a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def read(self) -> str:
        """Return the next line that it shows."""
        while b"\n" not in self._shown:
            self._shown += self._more()
        line, _, self._shown = self._shown.partition(b"\n")
        return line.decode()

    def _more(self) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise TimeoutError(f"nothing more is shown behind {self._shown!r}")
        data = os.read(self._process.stdout.fileno(), 65536)
        if not data:
            raise EOFError(f"the server hung up behind {self._shown!r}")
        return data

    def closed(self) -> str:
        """Require that the server has hung up: this netcat ends by nothing else."""
        assert self._process.stdin is not None
        self._process.stdin.close()
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

    def kill(self) -> None:
        """End the program, and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class Tour:
    """One server, and the terminals that are open on it."""

    def __init__(self, address: tuple[str, int], data: Path) -> None:
        self._host, self._port = address
        self._data = data  # where `pushctl` finds the control socket
        self._terminals: dict[str, Terminal] = {}
        self._secrets: dict[str, str] = {}  # documented pushIds, and those of this run
        self._renamed: dict[str, str] = {}  # those that the document is to have from now on
        self._output: list[str] = []  # of the last program

    def replay(self, document: str) -> str:
        """Return a document with the blocks that it should have."""
        try:
            replayed = _BLOCK.sub(self._block, document)
            for name, terminal in self._terminals.items():
                rest = terminal.end()
                assert not rest, f"{name} was shown more than the document says: {rest}"
        finally:
            for terminal in self._terminals.values():
                terminal.kill()
        return replayed

    def _block(self, found: re.Match[str]) -> str:
        kind, text = found[1], found[2]
        lines = text.splitlines()
        if kind == "session":
            lines = list(self._session(lines))
        elif kind == "python":
            self._output = self._program(text)
        elif self._output:
            lines, self._output = _kept(lines, self._output), []
        return "".join(f"{line}\n" for line in [f"```{kind}", *lines, "```"])[:-1]

    def _session(self, lines: list[str]) -> Iterator[str]:
        skipping = False  # the old output of a shell command
        for line in lines:
            typed = _TYPED.fullmatch(line)
            if line.startswith("$ "):
                skipping = True
                output = self._shell(line[2:])
                old = _output_below(lines, line)
                yield line
                yield from _kept(old, output)
            elif typed:
                skipping = False
                yield self._exchange(*typed.groups())
            elif not line or not skipping:
                skipping = False
                yield line

    def _exchange(self, name: str, direction: str, line: str) -> str:
        terminal = self._terminals.get(name)
        if terminal is None:
            terminal = self._terminals[name] = Terminal(self._host, self._port)
        if direction == ">":
            terminal.type(self._own(line))
            return f"{name}> {_replaced(line, self._renamed)}"
        shown = terminal.closed() if line == CLOSED else terminal.read()
        secrets = dict(zip(_SECRET.findall(line), _SECRET.findall(shown), strict=False))
        self._secrets |= secrets
        if masked(line) == masked(shown):
            return f"{name}< {line}"
        self._renamed |= secrets
        return f"{name}< {shown}"

    def _own(self, text: str) -> str:
        """Put this run's pushIds and port in the place of the documented ones."""
        return re.sub(r"\b9527\b", str(self._port), _replaced(text, self._secrets))

    def _shell(self, command: str) -> list[str]:
        path = f"{BIN}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = {"PUSHD_SERVER_DATA": str(self._data)}
        text = self._run(["sh", "-c", self._own(command)], {**os.environ, "PATH": path, **own})
        return text.replace(str(self._port), "9527").splitlines()

    def _program(self, text: str) -> list[str]:
        return self._run([sys.executable, "-c", self._own(text)], dict(os.environ)).splitlines()

    def _run(self, command: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
        )
        assert not done.returncode, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout


def _replaced(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _output_below(lines: list[str], command: str) -> list[str]:
    below: list[str] = []
    for line in lines[lines.index(command) + 1 :]:
        if not line or line.startswith("$ ") or _TYPED.fullmatch(line):
            break
        below.append(line)
    return below


def _kept(old: list[str], new: list[str]) -> list[str]:
    """Keep old lines where only what is masked differs, so that a document stays as it is."""
    same = [masked(line) for line in old] == [masked(line) for line in new]
    return old if same else new


def replay(document: str, folder: Path) -> str:
    """Return a document as it should be, by a server of its own with the default settings."""
    own = Process(folder, auth_bcrypt_cost=10, limits_per_address=True)
    own.start()
    try:
        return Tour(own.address, own.data).replay(document)
    finally:
        own.kill()


def main() -> None:
    """Print or write the documents that the arguments name."""
    write = "--write" in sys.argv
    for name in sys.argv[1:]:
        if name == "--write":
            continue
        path = ROOT / name
        with tempfile.TemporaryDirectory() as folder:
            text = replay(path.read_text("utf-8"), Path(folder))
        if write:
            path.write_text(text, "utf-8")
        else:
            print(text, end="")


if __name__ == "__main__":
    main()
