"""Files of a client: sent whole or in parts, fetched in pieces, over breaks of the connection.

A file of at most `PART` bytes goes by one `save_file`, a larger one by `save_part`: part by part,
and whatever gets no answer is sent again. That is safe, for the server knows its last part again
by its place and its content, and `save_file` and `get_file` may be repeated anyhow. So an upload
goes on where it broke, also when the server was killed meanwhile.

No file is held in memory as a whole while it is sent; one that is fetched is, and `most` bounds
it. Files are read in a thread. What is fetched counts only if its md5 is the one that was told.
"""

import asyncio
import base64
import hashlib
import io
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import Any, BinaryIO

from .calls import Calls, given
from .inbox import Info
from .link import ClientError, CommandError, Disconnected
from .status import Status

# Limits of the contract, in bytes
PART = 700 * 1024
MAX_FILE = 16 * 1024 * 1024
MAX_NAME = 255  # characters

# How often one part is sent without an answer before that is an error.
MAX_TRIES = 10
# How long a server that says it restarts is left alone at least, in seconds.
REST = 1.0

# What the server's paths end with: it has looked at the content.
PICTURES = {".jpg", ".png", ".gif", ".webp", ".heic"}
VOICES = {".m4a", ".amr", ".awb", ".ogg", ".mp3", ".aac"}


class TransferError(ClientError):
    """A file cannot be sent, or what came is not the file; the text says why."""

    def __str__(self) -> str:
        return str(self.args[0])


def info_of(path: str) -> Info:
    """Make the part of a message that shows a saved file: a picture, a voice or any file."""
    ending = PurePath(path).suffix
    category = "1" if ending in PICTURES else "2" if ending in VOICES else "3"
    return Info(category, path)


class Transfers(Calls):
    """Uploads and downloads; whoever inherits this provides `_call` and `_sleep`."""

    _sleep: Callable[[float], Awaitable[None]]

    async def upload(
        self,
        source: bytes | str | os.PathLike[str],
        *,
        name: str = "",
        purpose: str = "message",
        most: int = MAX_FILE,
    ) -> str:
        """Save a file on the server, and return the path to put into a message or a profile.

        `source` is the content, or a local path. `name` is a label, by default the local name.
        `most` is the server's limit in bytes; an avatar has at most 700 KiB. Over breaks it goes
        on; while disconnected it waits.

        Raises: OSError for what cannot be read; TransferError for what is empty, too large or
        no regular file; CommandError, ClientClosed, SessionEnded; Disconnected after ten breaks
        without an answer.
        """
        file, size = await asyncio.to_thread(_open, source)
        try:
            label = _label(name or ("" if isinstance(source, bytes) else PurePath(source).name))
            limit = min(most, PART) if purpose == "avatar" else most
            _check_size(label or "the file", size, limit)
            if size <= PART:
                return await self._save_whole(file, label, purpose)
            return await self._save_parts(file, size, label)
        finally:
            file.close()

    async def download(self, path: str, *, most: int = MAX_FILE) -> bytes:
        """Return the content of a saved file, checked by its md5.

        Raises: CommandError; TransferError for more than `most` bytes, and for what is not the
        file; ClientClosed, SessionEnded; Disconnected after ten breaks without an answer.
        """
        content = bytearray()
        while True:
            reply = await self._persist("get_file", path=path, offset=len(content))
            piece, size, md5 = _piece(reply)
            if size > most:
                raise TransferError(f"the file has {size} bytes, and {most} are allowed")
            content += piece
            if len(content) > size or (not piece and len(content) < size):
                raise TransferError("the server sent what is no part of the file")
            if len(content) == size:
                break
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            raise TransferError("what came is not the file: its md5 is another one")
        return bytes(content)

    async def _save_whole(self, file: BinaryIO, label: str, purpose: str) -> str:
        data = await asyncio.to_thread(file.read, PART)
        fields = {"content": _text(data), "md5": _md5(data).hexdigest(), **given(name=label)}
        return _path(await self._persist("save_file", purpose=purpose, **fields))

    async def _save_parts(self, file: BinaryIO, size: int, label: str) -> str:
        upload, offset, whole = "", 0, _md5(b"")
        while True:
            data = await asyncio.to_thread(file.read, min(PART, size - offset))
            whole.update(data)
            fields = {"offset": offset, "content": _text(data), **given(upload=upload)}
            offset += len(data)
            if not data or offset == size:
                # A file that was cut while it was read ends here too.
                end = {"done": True, "md5": whole.hexdigest(), **given(name=label)}
                return _path(await self._persist("save_part", **fields, **end))
            reply = await self._persist("save_part", **fields)
            upload = str(reply.get("upload") or "")
            if not upload or reply.get("offset") != offset:
                raise TransferError("the server has lost a part of the file")

    async def _persist(self, cmd: str, **fields: Any) -> dict[str, Any]:
        """Call a command that may be repeated, until it is answered."""
        for _ in range(MAX_TRIES - 1):
            try:
                return await self._object(cmd, **fields)
            except Disconnected:
                continue
            except CommandError as problem:
                if problem.status != Status.RESTARTING:
                    raise
                await self._sleep(max(problem.retry_after, REST))
        return await self._object(cmd, **fields)


def _open(source: bytes | str | os.PathLike[str]) -> tuple[BinaryIO, int]:
    if isinstance(source, bytes):
        return io.BytesIO(source), len(source)
    # Without this flag opening a pipe would wait for somebody to write.
    handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise TransferError(f"{PurePath(source).name or source} is {what}")
    return os.fdopen(handle, "rb"), status.st_size


def _check_size(name: str, size: int, most: int) -> None:
    if not size:
        raise TransferError(f"{name} is empty")
    if size > most:
        raise TransferError(f"{name} has {size} bytes, and {most} are allowed")


def _label(name: str) -> str:
    # A local name need not be text.
    return os.fsencode(name).decode("utf-8", "replace").replace("\0", "")[:MAX_NAME]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _md5(data: bytes) -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)


def _path(reply: dict[str, Any]) -> str:
    path = reply.get("path")
    if not isinstance(path, str) or not path:
        raise TransferError("the server did not say where the file is")
    return path


def _piece(reply: dict[str, Any]) -> tuple[bytes, int, str]:
    content, size, md5 = reply.get("content"), reply.get("size"), reply.get("md5")
    if not (isinstance(content, str) and isinstance(size, int) and isinstance(md5, str)):
        raise TransferError("the server sent what is no part of the file")
    try:
        return base64.b64decode(content, validate=True), size, md5
    except ValueError:
        raise TransferError("the server sent what is no part of the file") from None
