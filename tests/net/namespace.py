"""A network namespace with one cable to this machine, which can be pulled: needs root and `ip`.

with Namespace() as there:
    sock = there.socket()            # a socket of that side; there.host is the server's address
    there.pull()                     # the cable is out: neither side is told anything
    there.plug()
    there.lose()                     # instead: routes into nothing, on both sides
    there.find()
"""

import ctypes
import os
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Self

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET


class Unavailable(Exception):
    """This machine does not allow it; the text says why."""


class Namespace:
    """A namespace; `host` and `there` are the addresses of the two ends of its cable."""

    def __init__(self) -> None:
        number = os.getpid() % 16_000
        self.name = f"pushd{number}"
        base = f"198.18.{number // 64}.{number % 64 * 4}".rpartition(".")
        self.host, self.there = (f"{base[0]}.{int(base[2]) + end}" for end in (1, 2))
        self._cable = (f"{self.name}a", f"{self.name}b")
        self._thread: ThreadPoolExecutor

    def __enter__(self) -> Self:
        if os.geteuid() or shutil.which("ip") is None:
            raise Unavailable("a network namespace needs root and the command ip")
        here, away = self._cable
        try:
            _ip(f"netns add {self.name}")
            _ip(f"link add {here} type veth peer name {away} netns {self.name}")
            _ip(f"addr add {self.host}/30 dev {here}")
            _ip(f"-n {self.name} addr add {self.there}/30 dev {away}")
            _ip(f"-n {self.name} link set lo up")
        except Unavailable:
            self._remove()
            raise
        self.plug()
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(self.name,))
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()
        self._remove()

    def _remove(self) -> None:
        # The cable goes with either end.
        for words in (f"link del {self._cable[0]}", f"netns del {self.name}"):
            subprocess.run(["ip", *words.split()], capture_output=True, check=False)

    def socket(self) -> socket.socket:
        """Make a TCP socket that belongs to the other side."""
        # A socket stays in the namespace of the thread that made it.
        made = self._thread.submit(socket.socket, socket.AF_INET, socket.SOCK_STREAM).result()
        made.setblocking(False)
        return made

    def pull(self) -> None:
        """Take the cable out."""
        _ip(f"-n {self.name} link set {self._cable[1]} down")

    def plug(self) -> None:
        """Put the cable in."""
        _ip(f"link set {self._cable[0]} up")
        _ip(f"-n {self.name} link set {self._cable[1]} up")

    def lose(self) -> None:
        """Route what goes to the other side into nothing, on both sides."""
        _ip(f"route add blackhole {self.there}/32")
        _ip(f"-n {self.name} route add blackhole {self.host}/32")

    def mute(self) -> None:
        """Lose what goes to the other side; what comes from there still arrives."""
        # To a card that nobody has.
        neighbour = f"{self.there} lladdr 02:00:00:00:00:01 dev {self._cable[0]} nud permanent"
        _ip(f"neigh replace {neighbour}")

    def find(self) -> None:
        """Route it to the other side again."""
        _ip(f"route del blackhole {self.there}/32")
        _ip(f"-n {self.name} route del blackhole {self.host}/32")


def _ip(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"ip {words}: {done.stderr.strip()}")


def _enter(name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}", "rb") as there:
        if libc.setns(there.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")
