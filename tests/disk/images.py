"""Looking at what a crash or a power cut left: the server's own recovery, then what it knows.

`examine` opens the store in this process as a server does at its start, closes it as at its end,
and says what is wrong: it cannot be opened, a page or a rule is broken, a file that the store
refers to is not whole, or something that was confirmed is lost. `examine_served` asks a real
server instead, over the wire.
"""

import asyncio
import hashlib
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pushd.clock import Clock
from pushd.config import Config, Server
from pushd.config import Store as StoreConfig
from pushd.errors import StoreRefused
from pushd.media import Media
from pushd.store import Store
from pushd.store.check import open_stopped
from tests.conformance.process import Process
from tests.conformance.wire import Closed, Frame
from tests.disk.facts import Facts, judge


def examine(folder: Path, facts: Facts) -> list[str]:
    """Recover a folder in this process and say what is wrong."""
    try:
        asyncio.run(recover(folder))
        return wrong_files(folder) + broken_rules(folder) + judge(folder, facts)
    except StoreRefused as problem:
        return [f"refused: {problem}"]
    except sqlite3.Error as problem:
        return [f"malformed: {problem}"]


def examine_and_remove(folder: Path, facts: Facts) -> list[str]:
    """Do the same with a folder that is not needed any more."""
    try:
        return examine(folder, facts)
    finally:
        shutil.rmtree(folder)


async def recover(folder: Path) -> None:
    """Open the store and the files as the start of a server does, and close them."""
    config = Config(server=Server(data=str(folder)), store=StoreConfig(reserve=0, readers=1))
    store = await Store.open(config, Clock())
    try:
        store.start(lambda deliveries, signals: None)
        media = Media(folder, picture_pixels=1)
        try:
            media.open()
        finally:
            media.close()
    finally:
        await store.close()


def broken_rules(folder: Path) -> list[str]:
    """Say what `pushctl check` finds in the store: pages, references, rules of the tables."""
    found = []
    with open_stopped(folder) as checker:
        while (problems := checker.step()) is not None:
            found += [f"{problem.kind}: {problem.text}" for problem in problems]
    return found


def wrong_files(folder: Path) -> list[str]:
    """Say which files are not whole to which the store refers."""
    with closing(sqlite3.connect(f"file:{folder / 'pushd.db'}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT path, size, md5 FROM file").fetchall()
    return [
        f"file {path}: {wrong}" for path, *rest in rows if (wrong := _wrong(folder / path, *rest))
    ]


def _wrong(path: Path, size: int, md5: str) -> str:
    if not path.exists():
        return "is not there"
    data = path.read_bytes()
    same = len(data) == size and hashlib.md5(data, usedforsecurity=False).hexdigest() == md5
    return "" if same else "is not whole"


async def examine_served(process: Process, facts: Facts) -> list[str]:
    """Start a real server on the folder, ask it over the wire, then look at its store."""
    try:
        await asyncio.to_thread(process.start)
    except RuntimeError as problem:
        return [f"did not start: {problem}"]
    found = []
    try:
        for push_id in [
            key[1] for key, value in facts.values.items() if key[0] == "device" and value
        ]:
            found += await _device(process, push_id, facts)
    except (AssertionError, Closed, OSError) as problem:
        found.append(f"{type(problem).__name__}: {problem}")
    finally:
        process.dial.close()
        if await asyncio.to_thread(process.stop) != 0:
            found.append("the server did not end with 0")
    if "Traceback" in process.log_text():
        found.append("a traceback in the log")
    return found


async def _device(process: Process, push_id: str, facts: Facts) -> list[str]:
    """Take a device up: what waits for it, and what its account finds in history and files."""
    wire, reply = await process.dial.resume(push_id)
    messages = await wire.drain(reply["queued"])
    got = {message["seq"]: int(message["msgId"]) for message in messages}
    acked = reply["first"] - 1 if reply["queued"] else reply["last"]
    durable, wished = facts.acked.get(push_id, (0, 0))
    found = []
    if not durable <= acked <= wished:
        found.append(f"a device stands at {acked}, not {durable} to {wished}")
    if reply["last"] < facts.last.get(push_id, 0):
        found.append(f"a device's seqs go back to {reply['last']}")
    for place in facts.places:
        if place.push_id == push_id and place.seq > acked and got.get(place.seq) != place.msg_id:
            found.append(f"msgId {place.msg_id} did not come as seq {place.seq}")
    history = {message["msgId"]: message for message in await _history(wire)}
    for place in facts.places:
        content = facts.values.get(("message", str(place.msg_id)))
        shown = history.get(str(place.msg_id))
        if place.push_id == push_id and content is not None:
            if shown is None:
                found.append(f"msgId {place.msg_id} is not in the history")
            elif not shown.get("recalled") and shown["info"][0]["content"] != content:
                found.append(f"msgId {place.msg_id} has another content in the history")
    wire.close()
    return found


async def _history(wire: Any) -> list[Frame]:
    """Read the history of all chats of an account."""
    found: list[Frame] = []
    for chat in await wire.ok("chats", size=100):
        fields: dict[str, Any] = {}
        while True:
            reply = await wire.command("history", chatId=chat["chatId"], limit=100, **fields)
            found += reply["result"]
            if "next" not in reply:
                break
            fields = {"before": reply["next"]}
    return found
