"""Replays what the documents show of terminals and programs, against a real server.

A block marked `session` holds terminals and shell commands:

    ana> {"cmd":"ping"}             is typed in the terminal of that name; a new name runs `nc`
    ben$ pushctl chat               runs another program in a new terminal; its prompts are lines
    ana< {"cmd":"ping","status":…   is the next line that this terminal shows
    ana< (closed)                   says that the server has hung up, or the program has ended
    $ pushctl ping                  is run by a shell; its output stands below it

A block marked `python` is a whole program, and a block marked `text` right behind it its output.
All blocks of a document share one server, which is new and has the default settings, and one
folder, which is empty. Where a document says 127.0.0.1:9527, the server's own port is meant; a
`pushctl chat` that names no server gets this one, and the other verbs find its control socket.

What differs from run to run (pushIds, dates, …) is masked before two lines are compared, and a
pushId in a line to be typed stands for the one that the server gave in its place.

    python -m tests.tour README.md              prints the document as it should be today
    python -m tests.tour --write README.md      puts that in its place
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.process import Process
from tests.terminals import CLOSED, PATIENCE, Netcat, Shell, Terminal

ROOT = Path(__file__).parent.parent
BIN = ROOT / ".venv" / "bin"

_BLOCK = re.compile(r"^```(session|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"(\w+)([<>$]) ?(.*)")
_SECRET = re.compile(r'(?<="pushId":")[A-Za-z0-9_-]{24}(?=")')

# What no two runs have in common.
MASKS = (
    (_SECRET, "PUSHID"),
    (re.compile(r'(?<="epoch":")[^"]+(?=")'), "EPOCH"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?"), "DATE"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}\b"), "CLOCK"),
    (re.compile(r'(?<="time":)\d{13}'), "TIME"),
    (re.compile(r'(?<="connection":")\d+(?=")'), "NUMBER"),
    (re.compile(r"(?<=answered in )[0-9.]+(?= ms)"), "DURATION"),
    (re.compile(r"(?<=: )[0-9.]+ KiB(?=, )"), "SIZE"),
    (re.compile(r"(?<=\[)\d\d:\d\d(?=\])"), "CLOCK"),
)


def masked(line: str) -> str:
    """Return a line without what differs from run to run."""
    for pattern, name in MASKS:
        line = pattern.sub(name, line)
    return line


class Tour:
    """One server, and the terminals that are open on it."""

    def __init__(self, address: tuple[str, int], data: Path, folder: Path) -> None:
        self._host, self._port = address
        self._data = data  # where `pushctl` finds the control socket
        self._folder = folder  # where programs run
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
        done: list[str] = []  # what was typed and shown
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
                try:
                    done.append(self._exchange(*typed.groups()))
                except (OSError, EOFError) as problem:
                    problem.add_note("\n".join([*done[-20:], f"{line}  <- here"]))
                    raise
                yield done[-1]
            elif not line or not skipping:
                skipping = False
                yield line

    def _exchange(self, name: str, direction: str, line: str) -> str:
        terminal = self._terminals.get(name)
        if direction == "$":
            assert terminal is None, f"{name} has a terminal already"
            server = f" -s {self._host}:{self._port}" if line == "pushctl chat" else ""
            self._terminals[name] = Shell(
                self._own(line) + server, self._folder, self._environment()
            )
            return f"{name}$ {line}"
        if terminal is None:
            terminal = self._terminals[name] = Netcat(self._host, self._port)
        if direction == ">":
            terminal.type(self._own(line))
            return f"{name}> {_replaced(line, self._renamed)}"
        shown = terminal.closed() if line == CLOSED else terminal.read()
        if shown == CLOSED:
            # The next one of that name sits down anew.
            self._terminals.pop(name).kill()
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
        text = self._run(["sh", "-c", self._own(command)])
        return text.replace(str(self._port), "9527").splitlines()

    def _program(self, text: str) -> list[str]:
        return self._run([sys.executable, "-c", self._own(text)]).splitlines()

    def _environment(self) -> dict[str, str]:
        path = f"{BIN}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        source = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        own = {"PATH": path, "PYTHONPATH": source, "PUSHD_SERVER_DATA": str(self._data)}
        return {**os.environ, **own}

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
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
    desk = folder / "desk"
    desk.mkdir()
    try:
        return Tour(own.address, own.data, desk).replay(document)
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
