"""Files on disk: taken in, looked at, kept under the hash of their content, read in pieces.

Nothing that a client says of a file is believed here: its name is a label that this module does
not even see, its type is read from its content, and its path is the server's own:

    media/ab/abcd….jpg      a whole file: the SHA-256 of its content, an ending by its type
    media/ab/abcd…-256.jpg  the thumbnail of an avatar
    media/parts/…           an upload that is not finished; no path leads there
    media/tmp/…             what is being written; emptied at the start

A file is written aside and synced, renamed to its path, and the folder is synced. So behind a path
lies all of its content or nothing, whatever crashes. Which files there are is for the store to
say: one without a row does not exist, so its row is committed after `publish` and removed before
`remove`. Callers hold the turn of a file or an upload around both.

All work is done in threads. A caller that is cancelled still waits for its thread, so that the
turn it holds covers the work. Each connection does one thing at a time, and that bounds the line.
"""

import asyncio
import base64
import binascii
import errno
import hashlib
import importlib
import io
import os
import re
import secrets
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import structlog

from .errors import Refusal, StoreRefused
from .folders import make_folder, sync_folder
from .status import Status

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger("pushd.media")

PATH = re.compile(r"media/([0-9a-f]{2})/(\1[0-9a-f]{62})(-256)?(\.[a-z0-9]{1,5})?")
UPLOAD = re.compile(r"[A-Za-z0-9_-]{16,64}")

PLAIN = ("", "application/octet-stream")
# The third bytes of frames whose rates exist, for a class of characters.
ADTS_RATES = re.escape(bytes(byte for byte in range(256) if byte >> 2 & 15 < 13))
MP3_RATES = re.escape(
    bytes(byte for byte in range(256) if 0 < byte >> 4 < 15 and byte >> 2 & 3 < 3)
)
# What a content begins with, the ending of its path, and its type.
SIGNS: tuple[tuple[re.Pattern[bytes], str, str], ...] = tuple(
    (re.compile(sign, re.DOTALL), ending, mime)
    for sign, ending, mime in (
        (rb"\xff\xd8\xff", ".jpg", "image/jpeg"),
        (rb"\x89PNG\r\n\x1a\n", ".png", "image/png"),
        (rb"GIF8[79]a", ".gif", "image/gif"),
        (rb"RIFF.{4}WEBP", ".webp", "image/webp"),
        (rb"....ftyp(?:hei[cxms]|hev[cxms])", ".heic", "image/heic"),
        # A brand of pictures in general, where a later one says that this is HEIC.
        (rb"....ftyp(?:mif1|msf1).{4}(?:.{4}){0,8}?hei[cxms]", ".heic", "image/heic"),
        (rb"....ftyp(?:M4A |M4B )", ".m4a", "audio/mp4"),
        (rb"#!AMR\n", ".amr", "audio/amr"),
        (rb"#!AMR-WB\n", ".awb", "audio/amr-wb"),
        (rb"OggS\x00", ".ogg", "audio/ogg"),
        (rb"ID3[\x02-\x04]", ".mp3", "audio/mpeg"),
        # A sync word, then a layer and rates that exist: ADTS has layer 0, MP3 layer III.
        (rb"\xff[\xf0\xf1\xf8\xf9][%b]" % ADTS_RATES, ".aac", "audio/aac"),
        (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][%b]" % MP3_RATES, ".mp3", "audio/mpeg"),
    )
)
HEAD = 64  # bytes of a content that tell its type

THUMBNAIL = 256  # pixels of its longer side
# What a thumbnail is made of; a picture of another type has none.
DECODED = ("JPEG", "PNG", "GIF", "WEBP")

CHUNK = 1 << 20  # bytes hashed at a time
HASHED = 1000  # uploads whose hashes are kept from part to part; others are read again at the end
# What base64 may be broken by.
BLANKS = b" \t\r\n"


class Stored(NamedTuple):
    """What is known of a whole file."""

    path: str
    size: int
    md5: str
    mime: str


class Part(NamedTuple):
    """One part of an upload, and the SHA-256 by which it is known again."""

    data: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Fresh:
    """A file that is written and synced but has no path yet: publish or discard it."""

    file: Stored
    thumbnail: Stored | None
    written: tuple[tuple[Path, Stored], ...]  # where each of them lies


class Media:
    """The folder of stored files, and the threads that work on it."""

    def __init__(self, data: Path, *, picture_pixels: int, threads: int = 4) -> None:
        self._data = data
        self._parts = data / "media" / "parts"
        self._tmp = data / "media" / "tmp"
        self.picture_pixels = picture_pixels  # of the largest avatar that is decoded
        # Decoding takes memory by the pixel: one picture at a time.
        self._decoding = threading.Lock()
        self._hashes: dict[str, Hashes] = {}  # of uploads, as far as they were written here
        self._keeping = threading.Lock()  # of the line above
        self._holders = 0  # backups that need every file that there is
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="media")

    def open(self) -> None:
        """Make the folders, and remove what a crash left half-written; call it at the start.

        Only one server may use the folder. Raises StoreRefused, in one line.
        """
        try:
            for folder in (self._parts.parent, self._parts, self._tmp):
                make_folder(folder)
            _unlink(*self._tmp.iterdir())
            probe = self._new_temp()
            _write_new(probe, b"")
            _unlink(probe)
        except OSError as problem:
            folder = self._parts.parent
            raise StoreRefused(f"{folder}: cannot be used: {problem.strerror}") from None

    def close(self) -> None:
        """Take no more work; idempotent, and does not wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- what comes in --------------------------------------------------------------------

    async def receive(self, text: str, *, most: int, md5: str = "", avatar: bool = False) -> Fresh:
        """Write a file that comes as base64, if it is sound.

        Raises Refusal 8005 for bad base64, nothing, more than `most` bytes or another md5, 8006
        for an avatar that is no picture, 4007 for a full disk.
        """
        return await self._run(self._receive, text, most, md5, avatar)

    async def decode(self, text: str, *, most: int) -> Part:
        """Decode one part; none is b"". Raises Refusal 8005."""
        return await self._run(_decode_part, text, most)

    async def write_part(self, upload: str, offset: int, data: bytes) -> None:
        """Put bytes into an upload at `offset`, where it ends from then on, and sync them.

        Raises Refusal 4005 when the bytes before them are lost, 4007 for a full disk.
        """
        await self._run(self._write_part, upload, offset, data)

    async def gather(self, upload: str, *, size: int, md5: str = "") -> Fresh:
        """Make a file of an upload of `size` bytes, which stays; raises Refusal 8005 for its md5.

        Raises Refusal 4005 when bytes are lost.
        """
        return await self._run(self._gather, upload, size, md5)

    async def publish(self, fresh: Fresh) -> None:
        """Give a written file its path."""
        await self._run(_publish, self._data, fresh)

    async def discard(self, fresh: Fresh) -> None:
        """Remove a written file that got no path."""
        await self._run(_unlink, *(temp for temp, _ in fresh.written))

    # --- archives -------------------------------------------------------------------------

    async def new_archive(self) -> Path:
        """Begin an archive; seal or drop it."""
        return await self._run(self._new_temp)

    async def add_to_archive(self, archive: Path, name: str, data: bytes) -> None:
        """Put one more entry into an archive."""
        await self._run(_add_entry, archive, name, data)

    async def add_stored(self, archive: Path, name: str, path: str) -> None:
        """Put a stored file into an archive; raises Refusal 4005 when its bytes are lost."""
        await self._run(_add_stored, archive, name, self._place(path))

    async def seal(self, archive: Path) -> Fresh:
        """Make a file of an archive that is whole."""
        return await self._run(_seal, archive)

    async def drop_archive(self, archive: Path) -> None:
        """Remove an archive that was not published."""
        await self._run(_unlink, archive)

    # --- what goes out --------------------------------------------------------------------

    async def read(self, path: str, offset: int, length: int, size: int) -> str:
        """Read up to `length` bytes of a file of `size` bytes, as base64; raises Refusal 4005."""
        return await self._run(_read, self._place(path), offset, min(length, size - offset))

    # --- upkeep ---------------------------------------------------------------------------

    async def remove(self, path: str) -> None:
        """Remove a file whose row is gone; while files are held it becomes a stray instead."""
        if not self._holders:
            await self._run(_unlink, self._place(path))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let no file go, so that all stay to which the store refers at any moment in between."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1

    async def remove_upload(self, upload: str) -> None:
        """Remove the bytes of an upload whose row is gone or finished."""
        self._known_hashes(upload)
        await self._run(_unlink, self._part(upload))

    async def paths(self, folder: int) -> list[str]:
        """List the paths of the files in one of the 256 folders."""
        prefix = f"media/{folder:02x}"
        names = await self._run(_names, self._data / prefix)
        return [path for path in (f"{prefix}/{name}" for name in names) if PATH.fullmatch(path)]

    async def uploads(self) -> list[str]:
        """List the uploads of which bytes are here."""
        names = await self._run(_names, self._parts)
        return [name for name in names if UPLOAD.fullmatch(name)]

    # --- in the threads -------------------------------------------------------------------

    async def _run(self, work: Callable[P, R], *args: P.args, **kw: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        job = loop.run_in_executor(self._threads, partial(_work, partial(work, *args, **kw)))
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            if not job.done():
                await asyncio.wait([job])
            raise

    def _receive(self, text: str, most: int, md5: str, avatar: bool) -> Fresh:
        data = decode(text, most)
        if not data:
            raise _bad("the content is empty")
        hashes = Hashes()
        hashes.update(data)
        file = hashes.stored(data[:HEAD])
        _check_md5(file, md5)
        small = self._avatar(data, file) if avatar else b""
        contents = [(data, file)]
        if small:
            contents.append((small, _thumbnail_of(file, small)))
        written: list[tuple[Path, Stored]] = []
        try:
            for content, stored in contents:
                temp = self._new_temp()
                _write_new(temp, content)
                written.append((temp, stored))
        except BaseException:
            _unlink(*(temp for temp, _ in written))
            raise
        return Fresh(file, contents[1][1] if small else None, tuple(written))

    def _avatar(self, data: bytes, file: Stored) -> bytes:
        """Give the thumbnail of an avatar, b"" if none can be made here."""
        if not is_picture(file.mime):
            raise Refusal(Status.FORMAT_ERROR_AVATAR, "this is not a picture", field="content")
        with self._decoding:
            return thumbnail(data, file.mime, self.picture_pixels)

    def _write_part(self, upload: str, offset: int, data: bytes) -> None:
        path = self._part(upload)
        hashes = self._known_hashes(upload)
        if offset:
            with self._opened(path, offset) as file:
                file.seek(offset)
                file.write(data)
                _sync(file)
        else:
            hashes = Hashes()
            _write_new(path, data)
            sync_folder(self._parts)
        if hashes is not None and hashes.size == offset:
            hashes.update(data)
            self._keep_hashes(upload, hashes)

    def _known_hashes(self, upload: str) -> "Hashes | None":
        """Take the hashes of what was written of an upload so far, if they are known."""
        with self._keeping:
            return self._hashes.pop(upload, None)

    def _keep_hashes(self, upload: str, hashes: "Hashes") -> None:
        """Keep the hashes of an upload for its next part; the oldest make room."""
        with self._keeping:
            self._hashes[upload] = hashes
            if len(self._hashes) > HASHED:
                del self._hashes[next(iter(self._hashes))]

    def _gather(self, upload: str, size: int, md5: str) -> Fresh:
        path = self._part(upload)
        with self._opened(path, size) as file:
            hashes = self._known_hashes(upload)
            if hashes is None or hashes.size != size:
                hashes = Hashes()
                while chunk := file.read(CHUNK):
                    hashes.update(chunk)
            file.seek(0)
            stored = hashes.stored(file.read(HEAD))
            _sync(file)
        _check_md5(stored, md5)
        temp = self._new_temp()
        try:
            # All its bytes are synced already: a second name is enough.
            os.link(path, temp)
        except OSError:
            self._copy(path, temp)
        return Fresh(stored, None, ((temp, stored),))

    def _opened(self, path: Path, size: int) -> io.BufferedRandom:
        """Open an upload that holds `size` bytes; what a crash left behind them is cut off."""
        try:
            status = path.stat()
            if status.st_nlink > 1:
                # A crash came between `publish` and the row. The published file must not change.
                temp = self._new_temp()
                self._copy(path, temp)
                os.replace(temp, path)
                sync_folder(self._parts)
            file = path.open("r+b")
        except FileNotFoundError:
            raise _lost(path) from None
        if status.st_size < size:
            file.close()
            raise _lost(path)
        file.truncate(size)
        return file

    def _copy(self, path: Path, temp: Path) -> None:
        try:
            shutil.copyfile(path, temp)
            with temp.open("r+b") as file:
                _sync(file)
        except BaseException:
            _unlink(temp)
            raise

    def _new_temp(self) -> Path:
        return self._tmp / secrets.token_hex(16)

    def _place(self, path: str) -> Path:
        assert PATH.fullmatch(path), "paths come from the store, never from a client"
        return self._data / path

    def _part(self, upload: str) -> Path:
        assert UPLOAD.fullmatch(upload), "uploads come from the store, never from a client"
        return self._parts / upload


class Hashes:
    """The hashes of a content that comes in pieces."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0  # bytes so far

    def update(self, data: bytes) -> None:
        """Add the next piece."""
        self._sha256.update(data)
        self._md5.update(data)
        self.size += len(data)

    def stored(self, head: bytes) -> Stored:
        """Tell what is known of the content, which begins with `head`."""
        name = self._sha256.hexdigest()
        ending, mime = sniff(head)
        path = f"media/{name[:2]}/{name}{ending}"
        return Stored(path, self.size, self._md5.hexdigest(), mime)


def key_of(path: str) -> str:
    """Give the key of the turn of a path: a file and its thumbnail have one."""
    found = PATH.fullmatch(path)
    assert found is not None, "paths come from the store, never from a client"
    return found[2]


def is_picture(mime: str) -> bool:
    """Tell whether a file of this type is a picture; SVG and HTML are not."""
    return mime.startswith("image/")


def sniff(head: bytes) -> tuple[str, str]:
    """Read the type of a content from its first bytes: the ending of its path, and its mime."""
    for sign, ending, mime in SIGNS:
        if sign.match(head, 0, HEAD):
            return ending, mime
    return PLAIN


def decode(text: str, most: int) -> bytes:
    """Decode base64, in which blanks and line ends do not count.

    Raises Refusal 8005 if it is not base64, or holds more than `most` bytes.
    """
    try:
        encoded = text.encode("ascii").translate(None, BLANKS)
        if len(encoded) > (most + 2) // 3 * 4:
            raise _bad(f"a content has at most {most} bytes")
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise _bad("the content is not base64") from None
    if len(data) > most:
        raise _bad(f"a content has at most {most} bytes")
    return data


def thumbnail(data: bytes, mime: str, pixels: int) -> bytes:
    """Decode a picture and make a small JPEG of it; b"" where that is not possible here.

    Raises Refusal 8006 for a picture that is broken or has more than `pixels`.
    """
    pillow = _pillow()
    if pillow is None or mime == "image/heic":
        return b""
    try:
        with pillow.open(io.BytesIO(data), formats=DECODED) as image:
            if image.width * image.height <= pixels:
                return _small(pillow, image)
    except Exception:
        # At broken data decoders raise whatever they like.
        raise Refusal(
            Status.FORMAT_ERROR_AVATAR, "this picture is broken", field="content"
        ) from None
    raise Refusal(
        Status.FORMAT_ERROR_AVATAR, f"a picture has at most {pixels} pixels", field="content"
    )


def _small(pillow: Any, image: Any) -> bytes:
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    upright = importlib.import_module("PIL.ImageOps").exif_transpose(image)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        ground = pillow.new("RGB", upright.size, "white")
        ground.paste(upright, mask=upright.getchannel("A"))
        upright = ground
    out = io.BytesIO()
    upright.convert("RGB").save(out, "JPEG", quality=85)
    return out.getvalue()


def _pillow() -> Any:
    """Give the module that decodes pictures; None where it is not installed."""
    try:
        pillow: Any = importlib.import_module("PIL.Image")
    except ImportError:
        return None
    # Its own limit would warn on stderr; ours refuses.
    pillow.MAX_IMAGE_PIXELS = None
    return pillow


def _thumbnail_of(file: Stored, small: bytes) -> Stored:
    md5 = hashlib.md5(small, usedforsecurity=False).hexdigest()
    return Stored(f"{file.path.partition('.')[0]}-256.jpg", len(small), md5, "image/jpeg")


def _decode_part(text: str, most: int) -> Part:
    data = decode(text, most)
    return Part(data, hashlib.sha256(data).digest())


def _check_md5(file: Stored, md5: str) -> None:
    if md5 and md5.lower() != file.md5:
        raise Refusal(Status.FORMAT_ERROR_FILE, "the md5 is another one", field="md5")


def _bad(text: str) -> Refusal:
    return Refusal(Status.FORMAT_ERROR_FILE, text, field="content")


def _lost(path: Path) -> Refusal:
    log.error("bytes of an upload are missing", upload=path.name)
    return Refusal(Status.NOT_FOUND, "no such upload", field="upload")


# --- the file system ------------------------------------------------------------------------------


def _work(work: Callable[[], R]) -> R:
    try:
        return work()
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Refusal(Status.DISK_FULL) from problem
        raise


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
            _sync(file)
    except BaseException:
        _unlink(path)
        raise


def _publish(data: Path, fresh: Fresh) -> None:
    for temp, stored in fresh.written:
        target = data / stored.path
        folder = target.parent
        # Also where it is there: whoever made it in this moment may not have synced it yet.
        make_folder(folder)
        os.replace(temp, target)
        # If both are names of one file, POSIX has the rename do nothing.
        _unlink(temp)
        sync_folder(folder)


def _read(path: Path, offset: int, length: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except FileNotFoundError:
        data = b""
    if len(data) < length:
        # Removed in this moment, or the disk lost it.
        log.error("a stored file is missing or cut", file=path.name)
        raise Refusal(Status.NOT_FOUND, "no such file", field="path")
    return base64.b64encode(data).decode()


def _add_entry(archive: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data)


def _add_stored(archive: Path, name: str, path: Path) -> None:
    try:
        with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
            file.write(path, name)
    except FileNotFoundError:
        raise _lost(path) from None


def _seal(archive: Path) -> Fresh:
    hashes = Hashes()
    with archive.open("r+b") as file:
        while chunk := file.read(CHUNK):
            hashes.update(chunk)
        _sync(file)
    stored = hashes.stored(b"")._replace(mime="application/zip")
    stored = stored._replace(path=f"{stored.path.partition('.')[0]}.zip")
    return Fresh(stored, None, ((archive, stored),))


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _unlink(*paths: Path) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()


def _sync(file: io.BufferedRandom | io.BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
