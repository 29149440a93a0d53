"""Folders whose names outlive a power cut.

A name is durable once the folder that it is in has been synced, and not before: what was synced in
a new folder is lost with its name.
"""

import os
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder, for this user alone, and those above it; idempotent.

    It is synced also where it is there already: who made it may have been killed before that.
    """
    missing = [each for each in folder.parents if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in (folder, *missing):
        # Where others made the folder, this user need not have the right to read what it is in.
        with suppress(PermissionError):
            sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
