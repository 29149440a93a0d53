"""Requests over the control socket: one line out, one line in.

Everything that can go wrong is one of two: the server was not reached, or it refused.
"""

import json
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ..sockets import short_name

# Entries of one reply; the server allows no more.
PAGE = 1000
REPLY_MAX = 64 << 20  # bytes

Fields = dict[str, Any]


class NotReached(Exception):
    """No server answers there; the text says which and why."""


class Refused(Exception):
    """The server refused, or what answers is no server; the text says why."""


class Control:
    """A connection to a control socket; `timeout` is in seconds, for each answer."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self._timeout = timeout
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._read = b""  # received, and not a whole line yet
        try:
            with short_name(path) as name:
                self._socket.connect(name)
        except OSError as error:
            self._socket.close()
            raise NotReached(f"{path}: {reason(error)}") from None

    def __enter__(self) -> "Control":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def call(self, cmd: str, **fields: Any) -> Any:
        """Ask for one thing and give its result; what is None is left out.

        Raises: NotReached, Refused.
        """
        return self._reply(cmd, fields)["result"]

    def entries(self, cmd: str, limit: int = 0, **fields: Any) -> Iterator[Fields]:
        """Give the entries of a list, page by page; `limit` of them, or all for 0."""
        given = 0
        page: str | None = None
        while True:
            size = min(PAGE, limit - given) if limit else PAGE
            reply = self._reply(cmd, {**fields, "size": size, "page": page})
            yield from reply["result"]
            given += len(reply["result"])
            page = reply.get("next")
            if page is None or (limit and given >= limit):
                return

    def _reply(self, cmd: str, fields: Fields) -> Fields:
        wanted = {name: value for name, value in fields.items() if value is not None}
        line = json.dumps({"cmd": cmd, **wanted}, ensure_ascii=False).encode() + b"\n"
        try:
            self._socket.sendall(line)
            frame = _decoded(self._line())
        except OSError as error:
            raise NotReached(f"{self.path}: {reason(error)}") from None
        if frame is None or not isinstance(frame.get("message"), str):
            raise Refused(f"{self.path}: no pushd answers there")
        if frame.get("status") not in (0, 1) or frame.get("cmd") != cmd:
            field = f" ({frame['field']})" if frame.get("field") else ""
            raise Refused(f"{frame['message']}{field}")
        return frame

    def _line(self) -> bytes:
        """Read one line; raises OSError when there is none in time."""
        end = time.monotonic() + self._timeout
        while b"\n" not in self._read and len(self._read) < REPLY_MAX:
            # The rest of the time, and not the timeout again for each byte of a slow peer.
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("closed without an answer")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line


def reason(error: OSError) -> str:
    """Say why something was not reached."""
    return error.strerror or str(error) or type(error).__name__


def _decoded(line: bytes) -> Fields | None:
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None
