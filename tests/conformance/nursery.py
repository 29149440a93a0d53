"""Servers that start in a tenth of the time: forked where pushd has been imported already.

Two thirds of a second, most of a start is importing, and the tests start some hundred servers. A
*nursery* is a process that imports what a server needs, opens nothing and starts no thread. Asked
for a server it forks twice, so that the server becomes a child of whoever asked (its *subreaper*),
and becomes `python -m pushd`: the same arguments, environment, output, signals and exit.

The servers that tests share, those with a settings file or passed descriptors, and those of the
tools are still started as an operator starts them.
"""

import ctypes
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

# What a server is otherwise started with.
PUSHD = (sys.executable, "-m", "pushd")

ROOT = Path(__file__).parents[2]

_SET_CHILD_SUBREAPER = 36  # of prctl(2)
_REQUEST = 1 << 17  # bytes of a command line and an environment


class Forked:
    """A server of a nursery, with what the tests use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reaping = threading.Lock()  # a pid is reaped once, whichever thread waits

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with self._reaping:
            if self.returncode is None:
                found, status = os.waitpid(self.pid, os.WNOHANG)
                if found:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises: subprocess.TimeoutExpired.
        """
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(PUSHD, timeout or 0.0)
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks servers, while the context lasts."""

    def __enter__(self) -> Self:
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.conformance.nursery", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._channel.close()
        self._process.wait(10)

    def fork(self, args: Sequence[str], env: Mapping[str, str], output: IO[Any]) -> Forked:
        """Start `python -m pushd` with these arguments, environment and output."""
        request = json.dumps({"args": args, "env": dict(env), "folder": os.getcwd()}).encode()
        socket.send_fds(self._channel, [request], [output.fileno()])
        pid = int(self._channel.recv(64))
        assert self._channel.recv(64) == b"its parent has ended"
        return Forked(pid)


# The other side


def _become(request: dict[str, Any]) -> None:
    """Be the server; ends with a SystemExit as that does."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["pushd", *request["args"]]
    runpy.run_module("pushd", run_name="__main__", alter_sys=True)


def main(channel: socket.socket) -> None:
    """Fork servers until the other side has gone."""
    while True:
        request, files, _, _ = socket.recv_fds(channel, _REQUEST, 1)
        if not request:
            return
        parent = os.fork()
        if not parent:
            server = os.fork()
            if server:
                channel.send(str(server).encode())
                os._exit(0)
            channel.close()
            for number in (1, 2):
                os.dup2(files[0], number)
            os.close(files[0])
            return _become(json.loads(request))
        os.close(files[0])
        os.waitpid(parent, 0)
        channel.send(b"its parent has ended")


if __name__ == "__main__":
    import uvloop  # noqa: F401

    import pushd.cli
    import pushd.exporter
    import pushd.server  # noqa: F401

    main(socket.socket(fileno=int(sys.argv[1])))
