"""Backup archives: one tar file that holds a store, the files it refers to, and a manifest.

    pushd.db         a whole store
    media/ab/ab….jpg each file that the store refers to, hash and size as the store has them
    manifest.json    what is in it; the last entry, so an archive without it is not whole

The chain of proof: the manifest has the hash of the store, the store has path, size and MD5 of each
file, and the path of a file holds its SHA-256. A file that was missing or damaged when the backup
was made is not in it; the manifest counts and names such files.

Reading believes nothing: entries are plain files with names of these three kinds, and are written
only below one folder by this module itself. This module knows no server and no SQL.
"""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, cast

import msgspec

from .errors import PushdError
from .folders import sync_folder
from .media import PATH
from .steady import Steady
from .store.copy import FILE, Copy, FileFact

FORMAT = "pushd-backup"
VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_MAX = 1 << 20  # bytes
HEADER_MAX = 4096  # bytes of what is said of a file beside its header
NAMED = 100  # damaged files that a manifest names
DATE = "%Y-%m-%dT%H:%M:%SZ"
CHUNK = 1 << 20  # bytes at a time
GZIP = b"\x1f\x8b"
GZIP_LEVEL = 1  # the disk is about as fast

# Called with the bytes that were done since the last call; may raise to break off.
Progress = Callable[[int], None]


class ArchiveError(PushdError):
    """An archive cannot be made or used; the text says why in one line."""


class Manifest(msgspec.Struct, kw_only=True):
    """What an archive says of itself."""

    format: str = FORMAT
    version: int = VERSION
    pushd: str = ""  # the version that made it
    time: int = 0  # ms since 1970, when the store was as it is here
    date: str = ""  # the same for people
    schema: int
    epoch: str
    db_size: int
    db_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    files: int  # media files in the archive
    bytes: int  # of them
    damaged: int  # files that the store refers to and that are not in the archive
    names: list[str]  # some of these
    rows: dict[str, int]


class _Entry(tarfile.TarInfo):
    """A header of an archive: of a plain file, or of the little that is said of the next one.

    Names and attributes in headers of their own are read into memory whole, and sparse files are
    as large as they like: neither is believed.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        """Read a header; raises ArchiveError for a kind that no backup has."""
        entry = super().frombuf(buf, encoding, errors)
        extended = entry.type == tarfile.XHDTYPE and entry.size <= HEADER_MAX
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) and not extended:
            raise ArchiveError(f"an entry that no backup has: {_shown(entry.name)}")
        return entry


class _Hashing(io.RawIOBase):
    """A file that is hashed while it is read, and tells how far it has come."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read and hash."""
        data = self._file.read(size)
        self.sha256.update(data)
        self._progress(len(data))
        return data


class _Synced(io.RawIOBase):
    """A file that is synced while it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._steady = Steady(file.fileno())

    def write(self, data: Any) -> int:
        """Write, and sync now and then."""
        count = self._file.write(data)
        self._steady.wrote(count)
        return count

    def flush(self) -> None:
        """Hand all on to the system."""
        self._file.flush()


# --- writing ----------------------------------------------------------------------------------


def write(
    target: Path,
    copy: Copy,
    data: Path,
    *,
    compress: bool,
    pushd: str,
    time: int,
    progress: Progress,
) -> Manifest:
    """Write an archive of a copy and its files in `data` to a new file, and sync it.

    Raises OSError, and what `progress` raises; the caller removes what was written then.
    """
    with target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        with (
            _packed(cast(IO[bytes], _Synced(file)), compress) as out,
            tarfile.open(fileobj=out, mode="w|", bufsize=CHUNK) as tar,
        ):
            # In the place of 16 KiB: each piece asks for the GIL.
            cast(Any, tar).copybufsize = CHUNK
            manifest = _fill(tar, copy, data, progress)
            manifest.pushd, manifest.time = pushd, time
            manifest.date = datetime.fromtimestamp(time / 1000, UTC).strftime(DATE)
            text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
            _add(tar, MANIFEST, len(text), io.BytesIO(text))
        file.flush()
        os.fsync(file.fileno())
    return manifest


@contextmanager
def _packed(file: IO[bytes], compress: bool) -> Iterator[IO[bytes]]:
    if not compress:
        yield file
        return
    with gzip.GzipFile("", "wb", GZIP_LEVEL, cast(Any, file), mtime=0) as packed:
        yield cast(IO[bytes], packed)


def _fill(tar: tarfile.TarFile, copy: Copy, data: Path, progress: Progress) -> Manifest:
    """Add the store and its files; gives what the manifest says of them."""
    with copy.path.open("rb") as store:
        size = os.fstat(store.fileno()).st_size
        hashing = _Hashing(store, progress)
        _add(tar, FILE, size, hashing)
    count, total, damaged = 0, 0, list[str]()
    lost = 0
    for fact in copy.files():
        if _add_file(tar, data, fact, progress):
            count += 1
            total += fact.size
        else:
            lost += 1
            if len(damaged) < NAMED:
                damaged.append(fact.path)
    return Manifest(
        schema=copy.schema,
        epoch=copy.epoch,
        db_size=size,
        db_sha256=hashing.sha256.hexdigest(),
        files=count,
        bytes=total,
        damaged=lost,
        names=damaged,
        rows=copy.counts(),
    )


def _add(tar: tarfile.TarFile, name: str, size: int, file: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o600
    tar.addfile(entry, file)
    # It would keep every entry in memory.
    cast(Any, tar).members.clear()


def _add_file(tar: tarfile.TarFile, data: Path, fact: FileFact, progress: Progress) -> bool:
    """Add one stored file; False if it is missing or not what the store says."""
    try:
        file = (data / fact.path).open("rb")
    except OSError:
        return False
    with file:
        if problem_of(file, fact, progress):
            return False
        file.seek(0)
        _add(tar, fact.path, fact.size, file)
    return True


def problem_of(file: IO[bytes], fact: FileFact, progress: Progress = lambda done: None) -> str:
    """Say what is wrong with a file's content; "" when it is as the store has it."""
    size = os.fstat(file.fileno()).st_size
    if size != fact.size:
        return f"has {size} bytes instead of {fact.size}"
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    while chunk := file.read(CHUNK):
        sha256.update(chunk)
        md5.update(chunk)
        progress(len(chunk))
    return _other_hash(fact, sha256.hexdigest(), md5.hexdigest())


def _other_hash(fact: FileFact, sha256: str, md5: str) -> str:
    found = PATH.fullmatch(fact.path)
    if found is None:
        return "has a path that is not one of pushd"
    # The name of a thumbnail is the hash of the picture that it is made of.
    if md5 != fact.md5 or (found[3] is None and sha256 != found[2]):
        return "has another content"
    return ""


# --- reading ----------------------------------------------------------------------------------


def extract(source: Path, folder: Path, *, progress: Progress) -> Manifest:
    """Put a whole and proven archive into an empty folder, all of it synced.

    Raises ArchiveError or StoreRefused for what is no sound backup, OSError; the caller removes
    what was written then.
    """
    try:
        with source.open("rb") as file, _unpacked(file) as unpacked:
            manifest = _read(unpacked, folder, progress)
            # The checksum of a packed file is behind its last byte.
            while unpacked.read(CHUNK):
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise ArchiveError(f"{source}: not a whole backup of pushd: {problem}") from None
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
    sync_folder(folder)
    return manifest


@contextmanager
def _unpacked(file: IO[bytes]) -> Iterator[IO[bytes]]:
    packed = file.read(2) == GZIP
    file.seek(0)
    if not packed:
        yield file
        return
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield cast(IO[bytes], unpacked)


def _read(source: IO[bytes], folder: Path, progress: Progress) -> Manifest:
    with tarfile.open(fileobj=source, mode="r|", bufsize=CHUNK, tarinfo=_Entry) as tar:
        first = tar.next()
        if first is None or first.name != FILE or not first.isreg():
            raise ArchiveError("not a backup of pushd: it does not begin with a store")
        sha256 = _extract_store(tar, first, folder / FILE, progress)
        with Copy(folder / FILE) as copy:
            copy.verify()
            count, total = 0, 0
            while (entry := tar.next()) is not None and entry.name != MANIFEST:
                cast(Any, tar).members.clear()
                total += _extract_file(tar, entry, copy, folder, progress)
                count += 1
            manifest = _manifest(tar, entry)
            if (manifest.db_size, manifest.db_sha256) != (first.size, sha256):
                raise ArchiveError("the store is not the one of the manifest")
            if (manifest.files, manifest.bytes) != (count, total):
                raise ArchiveError(f"{count} files instead of {manifest.files}")
            if copy.media()[0] != count + manifest.damaged:
                raise ArchiveError("files that the store refers to are missing")
    return manifest


def _extract_store(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, progress: Progress
) -> str:
    sha256 = hashlib.sha256()
    for chunk in _contents(tar, entry, target, progress):
        sha256.update(chunk)
    return sha256.hexdigest()


def _extract_file(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, copy: Copy, folder: Path, progress: Progress
) -> int:
    """Write one media file and compare it with the store; gives its size."""
    if not entry.isreg() or PATH.fullmatch(entry.name) is None:
        raise ArchiveError(f"an entry that no backup has: {_shown(entry.name)}")
    fact = copy.file(entry.name)
    if fact is None:
        raise ArchiveError(f"a file that the store does not know: {entry.name}")
    if fact.size != entry.size:
        raise ArchiveError(f"{entry.name}: has {entry.size} bytes instead of {fact.size}")
    target = folder / entry.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    for chunk in _contents(tar, entry, target, progress):
        sha256.update(chunk)
        md5.update(chunk)
    problem = _other_hash(fact, sha256.hexdigest(), md5.hexdigest())
    if problem:
        raise ArchiveError(f"{entry.name}: {problem}")
    return fact.size


def _contents(
    tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, progress: Progress
) -> Iterator[bytes]:
    """Write an entry to a new file, synced, and give its pieces."""
    source = tar.extractfile(entry)
    assert source is not None, "it is a plain file"
    free = shutil.disk_usage(target.parent).free
    if entry.size > free:
        # Of a packed archive a few bytes say so much.
        raise ArchiveError(f"{target.parent}: needs {entry.size} bytes free, has {free}")
    try:
        with target.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            left = entry.size
            while left:
                chunk = source.read(min(CHUNK, left))
                if not chunk:
                    raise EOFError("it ends early")
                file.write(chunk)
                left -= len(chunk)
                progress(len(chunk))
                yield chunk
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise ArchiveError(f"an entry comes twice: {_shown(entry.name)}") from None


def _manifest(tar: tarfile.TarFile, entry: tarfile.TarInfo | None) -> Manifest:
    if entry is None or not entry.isreg() or entry.size > MANIFEST_MAX:
        raise ArchiveError("it ends before its manifest: it was cut off")
    source = tar.extractfile(entry)
    assert source is not None, "it is a plain file"
    try:
        manifest = msgspec.json.decode(source.read(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ArchiveError("its manifest cannot be read") from None
    if manifest.format != FORMAT or manifest.version > VERSION:
        raise ArchiveError("its manifest is of a newer pushd: install that one")
    return manifest


def _shown(name: str) -> str:
    return ascii(name[:100])


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, as far as possible."""
    shutil.rmtree(folder, ignore_errors=True)
