"""A server under strace, and what it asked of the system, call by call.

    own = Traced(folder, inject=("fdatasync:error=EIO:when=3",))
    own.start(); …; own.kill()
    calls = own.calls()

`inject` makes calls fail, or kills the server at one of them. What cannot be traced on this
machine is said by `obstacle`, so that tests can skip.

Strings are written by strace as hex and taken back to bytes here. Reads of files are left out:
they are most of what a starting Python does, and no tool asks for them.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conformance.process import Process

# What changes files, and what goes over sockets.
FILES = (
    "openat,close,lseek,pwrite64,write,writev,ftruncate,fallocate,fdatasync,fsync,"
    "unlink,unlinkat,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,rmdir"
)
SOCKETS = "accept4,sendto,sendmsg,recvfrom,read"
# Bytes of one string that are written down.
LONGEST = 4_000_000
# The end of a call that has none: the process was killed in it.
NEVER = 1 << 60

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()")
_HEX = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_END = re.compile(r"\)\s+= (-?\d+)(?:<((?:\\x..)*)>)?(?: \w+ \([^)]*\))?( \(INJECTED\))?$")
_FD = re.compile(r"(-?\d+)(?:<((?:\\x..)*)>)?")


class Call(NamedTuple):
    """One call of the system; `begin` and `end` say when, as lines of the trace."""

    name: str
    fd: int  # its first argument where that is a descriptor, else -1
    what: str  # what that descriptor is: a path, socket:[…]
    strings: list[bytes]
    numbers: list[int]  # arguments that are numbers
    result: int
    begin: int
    end: int
    flags: str  # the words of its arguments
    injected: bool


class Traced(Process):
    """A server of which every call is written down; each start writes a trace of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        inject: Sequence[str] = (),
        trace: str = f"{FILES},{SOCKETS}",
        launcher: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **settings: object,
    ) -> None:
        loop = str(settings.pop("loop", "asyncio"))
        super().__init__(folder, loop=loop, **settings)
        self.inject = tuple(inject)
        self.traces: list[Path] = []
        self._trace = trace
        self._launcher = list(launcher)  # in the place of -m pushd
        self._more = environment or {}

    def _command(self, ports: Path) -> list[str]:
        path = self.folder / f"trace{len(self.traces)}"
        self.traces.append(path)
        # -D: the server is our child and strace is not, so that signals and exit codes are its own.
        strace = ["strace", "-D", "-f", "-qq", "-y", "-xx", "-s", str(LONGEST), "-o", str(path)]
        faults = [word for fault in self.inject for word in ("-e", f"inject={fault}")]
        command = super()._command(ports)
        if self._launcher:
            command[1:3] = self._launcher
        # Much quicker, but strace injects nothing then.
        quick = [] if faults else ["--seccomp-bpf"]
        return [*strace, *quick, "-e", f"trace={self._trace}", *faults, *command]

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self._more}

    def calls(self) -> list[Call]:
        """Give what all starts so far asked of the system; the lines are counted over all."""
        found: list[Call] = []
        line = 0
        for path in self.traces:
            with path.open() as file:
                calls, count = read(file, line)
            found += calls
            line += count
        return found


def read(lines: Iterator[str], first: int = 0) -> tuple[list[Call], int]:
    """Read a trace; gives its calls and how many lines there were."""
    calls: list[Call] = []
    open_: dict[str, tuple[str, int]] = {}  # by thread: the beginning of its call, and where
    number = first - 1
    for number, line in enumerate(lines, first):
        found = _LINE.match(line)
        if found is None:
            continue
        thread, resumed, name = found.groups()
        begin = number
        if resumed:
            head, begin = open_.pop(thread, ("", 0))
            if not head:
                continue
            line = head + line[found.end() :]
            name = resumed
        elif line.endswith("<unfinished ...>\n"):
            open_[thread] = (line.removesuffix("<unfinished ...>\n"), number)
            continue
        call = _call(name, line.rstrip("\n"), begin, number)
        if call is not None:
            calls.append(call)
    # Calls without an end: the process was killed in them.
    for head, begin in open_.values():
        found = _LINE.match(head)
        assert found is not None
        call = _call(found[3], f"{head}) = {NEVER}", begin, NEVER)
        if call is not None:
            calls.append(call)
    return sorted(calls, key=lambda call: call.begin), number + 1 - first


def _call(name: str, line: str, begin: int, end: int) -> Call | None:
    start = line.index("(") + 1
    first = _FD.match(line, start)
    fd, what = (int(first[1]), _plain(first[2] or "")) if first else (-1, "")
    if name == "read" and not what.startswith("socket:"):
        return None
    if line.endswith("= ?"):
        # The process was killed in it; what it was to write or send may have gone through.
        line, end = f"{line[: line.rindex(')')]}) = {NEVER}", NEVER
    finish = _END.search(line)
    if finish is None:
        return None
    inner = line[start : finish.start()]
    strings = [bytes.fromhex(each[1].replace("\\x", "")) for each in _HEX.finditer(inner)]
    rest = re.sub(r"<(?:\\x..)*>", "", _HEX.sub("", inner))
    words = [word.strip() for word in rest.split(",")]
    numbers = [int(word) for word in words if re.fullmatch(r"-?(0|[1-9]\d*)", word)]
    return Call(name, fd, what, strings, numbers, int(finish[1]), begin, end, rest, bool(finish[3]))


def _plain(text: str) -> str:
    return bytes.fromhex(text.replace("\\x", "")).decode(errors="replace")


def obstacle() -> str:
    """Say why nothing can be traced here; empty when it can."""
    if not shutil.which("strace"):
        return "needs strace"
    with tempfile.TemporaryDirectory() as folder:
        command = ["strace", "-D", "-f", "--seccomp-bpf", "-o", f"{folder}/probe"]
        done = subprocess.run([*command, sys.executable, "-c", ""], capture_output=True)
    return "needs the right to trace" if done.returncode else ""
