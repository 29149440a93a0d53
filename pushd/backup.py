"""Backups: a running server's store and files in one archive, and an archive made a store again.

A backup is of one instant, though it takes a while. While it runs no file is deleted; first the
store is copied, and the copy is as the store was at the moment when it was done; then the files
that the copy refers to are packed with it. The bytes of a file lie on the disk before the store
refers to it, so all of them are there.

All is written beside the target under names of its own and synced, then renamed: there is a whole
archive under the name, or nothing. What a killed server left is removed by the next backup.

A restore unpacks into `restoring` in the folder, where a server refuses to start, proves all, and
moves it to its place; that folder goes last.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from . import __version__, archive
from .archive import ArchiveError, Manifest, Progress, remove_tree
from .errors import StoreRefused
from .folders import make_folder, sync_folder
from .jobs import Job
from .media import Media
from .steady import remove
from .store import Store
from .store.copy import FILE, Copy
from .store.engine import LOCK, RESTORING, Lock

# What is made beside an archive.
PART = ".part"
PART_COPY = ".part-db"
# Kept free beside a backup, in bytes, for the server that goes on.
SPARE = 64 << 20


async def make(
    store: Store,
    media: Media,
    target: Path,
    job: Job,
    *,
    now: Callable[[], int],
    free: Callable[[Path], int] | None = None,
) -> Manifest:
    """Back up a running server into a new file; a name that ends in gz is packed.

    Raises ArchiveError for a target that will not do, OSError, Stopped; nothing is left then.
    """
    await asyncio.to_thread(_check_target, store.folder, target)
    copy, part = (target.with_name(target.name + end) for end in (PART_COPY, PART))
    try:
        with media.holding():
            return await _make(store, target, copy, part, job, now, free or _free)
    finally:
        # In a thread: a disk takes its time to free a gigabyte.
        await asyncio.to_thread(_remove, copy, part)


def _remove(*paths: Path) -> None:
    for path in paths:
        remove(path)


async def _make(
    store: Store,
    target: Path,
    copy: Path,
    part: Path,
    job: Job,
    now: Callable[[], int],
    free: Callable[[Path], int],
) -> Manifest:
    await asyncio.to_thread(_remove_old, copy, part)
    size, files = await store.size(), await store.files.total()
    needed, there = 2 * size + files + SPARE, await asyncio.to_thread(free, target.parent)
    if there < needed:
        raise ArchiveError(f"{target.parent}: needs {needed} bytes free, has {there}")
    job.stage, job.total = "copying", 2 * size + files
    await store.copy(copy, job.advance)
    time = now()
    job.stage = "checking"
    await asyncio.to_thread(_prove, copy, job)
    job.stage = "packing"
    manifest = await asyncio.to_thread(_pack, part, copy, store.folder, time, job.advance)
    job.advance()
    size = await asyncio.to_thread(_put, part, target)
    job.done = job.total
    job.result = {
        "file": str(target),
        "bytes": size,
        "files": manifest.files,
        "damaged": manifest.damaged,
        "names": manifest.names,
        "rows": manifest.rows,
    }
    return manifest


def _check_target(data: Path, target: Path) -> None:
    if not target.is_absolute():
        raise ArchiveError(f"{target}: not a whole path")
    folder = target.parent
    if not folder.is_dir():
        raise ArchiveError(f"{folder}: no such folder")
    if folder.resolve().is_relative_to(data.resolve()):
        raise ArchiveError(f"{target}: lies in the folder that it would be a copy of")
    if target.exists() or target.is_symlink():
        raise ArchiveError(f"{target}: exists: name another, or move it away")


def _remove_old(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _prove(path: Path, job: Job) -> None:
    with Copy(path, readonly=False) as copy:
        copy.stop_when(lambda: job.stopping)
        copy.drop_uploads()
        try:
            copy.verify()
        except StoreRefused:
            job.advance()
            raise
    job.advance()


def _pack(part: Path, copy: Path, data: Path, time: int, progress: Progress) -> Manifest:
    compress = part.name.removesuffix(PART).endswith("gz")
    with Copy(copy) as opened:
        return archive.write(
            part,
            opened,
            data,
            compress=compress,
            pushd=__version__,
            time=time,
            progress=progress,
        )


def _put(part: Path, target: Path) -> int:
    os.rename(part, target)
    sync_folder(target.parent)
    return target.stat().st_size


# --- restoring --------------------------------------------------------------------------------


def restore(
    source: Path, data: Path, *, now: Callable[[], int], progress: Progress = lambda done: None
) -> Manifest:
    """Make a store of an archive in an empty or new folder, with a history of its own.

    Raises ArchiveError or StoreRefused, in one line, and OSError; nothing is left then.
    """
    if not source.is_file():
        raise ArchiveError(f"{source}: no such file")
    new, known = not data.exists(), (data / LOCK).exists()
    make_folder(data)
    lock = Lock(data)
    try:
        _check_empty(data)
        made = _restore(source, data, now, progress)
    except BaseException:
        if not known:
            (data / LOCK).unlink(missing_ok=True)
        if new:
            with suppress(OSError):
                data.rmdir()
        raise
    finally:
        lock.release()
    return made


def _check_empty(data: Path) -> None:
    names = sorted({path.name for path in data.iterdir()} - {LOCK})
    if RESTORING in names:
        raise ArchiveError(
            f"{data}: an earlier restore did not end: remove this folder, then restore again"
        )
    if names:
        shown = ", ".join(names[:3])
        raise ArchiveError(f"{data}: not empty ({shown}): move it away, or name another folder")


def _restore(source: Path, data: Path, now: Callable[[], int], progress: Progress) -> Manifest:
    aside = data / RESTORING
    aside.mkdir(mode=0o700)
    try:
        sync_folder(data)
        manifest = archive.extract(source, aside, progress=progress)
        with Copy(aside / FILE, readonly=False) as copy:
            copy.renew((now() - manifest.time) // 1000)
        with (aside / FILE).open("rb") as file:
            os.fsync(file.fileno())
        for path in sorted(aside.iterdir()):
            os.rename(path, data / path.name)
        sync_folder(data)
    except BaseException:
        remove_tree(data / "media")
        (data / FILE).unlink(missing_ok=True)
        remove_tree(aside)
        raise
    aside.rmdir()
    sync_folder(data)
    sync_folder(data.resolve().parent)
    return manifest
