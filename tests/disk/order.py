"""Whether each confirmation left behind the sync of what it confirms, read off a trace.

Other than an image of a power cut this needs no model of a disk: it follows one message from the
write of the page that holds its text, over the frame that commits it, to the sync behind that
frame; and one file from its sync over the rename to the sync of its folder. All of them must have
ended before the reply began to be sent.
"""

import re
from pathlib import PurePath
from typing import NamedTuple

from tests.disk.facts import Transcript
from tests.disk.traced import Call

TAG = re.compile(rb"<p\d+ \d+>")
FRAME_HEAD = 24  # bytes
SYNCS = ("fsync", "fdatasync")


class Order(NamedTuple):
    """How many confirmations were followed, and which came too early."""

    messages: int
    files: int
    early: list[str]


def follow(calls: list[Call], transcript: Transcript) -> Order:
    """Follow every confirmed message and file."""
    synced = _synced_at(calls)
    early = []
    messages = 0
    for line, number, content in transcript.confirmed:
        found = TAG.match(content.encode())
        # Pages hold a text in pieces where it is long; its beginning may be cut in two.
        if found is None or found[0] not in synced:
            continue
        messages += 1
        if synced[found[0]] >= line:
            early.append(f"msgId {number} was confirmed at {line}, synced at {synced[found[0]]}")
    files = 0
    for key, tellings in transcript.told.items():
        if key[0] == "file":
            files += 1
            line = min(told.answered for told in tellings)
            if not _file_synced(calls, key[1], line):
                early.append(f"{key[1]} was confirmed at {line} before it was synced")
    return Order(messages, files, early)


def _synced_at(calls: list[Call]) -> dict[bytes, int]:
    """Tell by which line the commit of each text was synced."""
    found: dict[bytes, int] = {}
    written: list[bytes] = []  # in no commit yet
    committed: dict[bytes, int] = {}  # where the write of the last frame ended
    commits = False
    for call in calls:
        if not call.what.endswith("-wal"):
            continue
        if call.name == "pwrite64" and len(call.strings[0]) == FRAME_HEAD:
            commits = any(call.strings[0][4:8])
        elif call.name == "pwrite64":
            written += [tag for tag in TAG.findall(call.strings[0]) if tag not in committed]
            if commits:
                committed |= {tag: call.end for tag in written if tag not in committed}
                written.clear()
        elif call.name in SYNCS and call.result == 0 and not call.injected:
            for tag, end in committed.items():
                if tag not in found and end < call.begin:
                    found[tag] = call.end
    return found


def _file_synced(calls: list[Call], path: str, line: int) -> bool:
    """Tell whether a file, its rename and its folder were synced in this order."""
    folder = str(PurePath(path).parent)
    source, renamed = "", line
    for call in calls:
        if call.name == "rename" and call.strings[1].decode().endswith(f"/{path}"):
            source, renamed = call.strings[0].decode(), call.end
            begun = call.begin
    if not source:
        return False
    syncs = [call for call in calls if call.name in SYNCS and call.result == 0 and call.end < line]
    # An upload is synced under its own name, and gets another one before it is renamed.
    names = {source} | {
        call.strings[0].decode()
        for call in calls
        if call.name == "link" and call.strings[1].decode() == source
    }
    content = any(call.what in names and call.end < begun for call in syncs)
    name = any(call.what.endswith(f"/{folder}") and call.begin > renamed for call in syncs)
    return content and name
