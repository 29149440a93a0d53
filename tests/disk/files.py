"""A disk as a power cut leaves it: what was synced is certain, of the rest anything may be there.

`Disk` takes the calls of a trace one after the other and knows at each moment, of each file and
folder below one root, what is durable and what is not yet. `image` then writes one of the states
in which a power cut may leave it: of a file, each write since its last sync was kept, dropped or
torn at 512 bytes, whatever became of those before and after it; of a folder, the names that were
made, moved and removed since its last sync are there or not.

A sync makes durable what had ended when it began. Nothing else is taken for granted, not even what
the common file systems do by themselves (that a synced new file has its name).
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from tests.disk.traced import NEVER, Call

SECTOR = 512
# What became of what was not synced: all is lost, all is there, all up to some point, any; or each
# file and folder has a mode of its own.
Mode = Literal["none", "all", "prefix", "any", "mixed"]
MODES: tuple[Mode, ...] = ("none", "all", "prefix", "any", "mixed")
# Files whose content no one needs after a crash.
SKIPPED = ("-shm", "pushd.lock")


class Write(NamedTuple):
    """A change of a file that is not durable yet; without data it cuts the file at `offset`."""

    end: int
    offset: int
    data: bytes | None


class Change(NamedTuple):
    """A change of a folder: a name gets a file or folder, and another one goes."""

    end: int
    name: str
    node: "Node | None"
    gone: str = ""


class Node:
    """A file or a folder."""

    def __init__(self, *, folder: bool) -> None:
        self.folder = folder
        self.content = bytearray()  # of a file, durable
        self.names: dict[str, Node] = {}  # of a folder, durable
        self.pending: list[Write | Change] = []


class Opened:
    """What a descriptor is open on."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.position = 0


class Disk:
    """The files below a root, durable and not."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._top = Node(folder=True)
        self._known = {self._root: self._top}  # as the process sees them, by path
        self._open: dict[int, Opened] = {}
        self._handlers: dict[str, Callable[[Call], None]] = {
            "openat": self._openat,
            "accept4": self._accept4,
            "lseek": self._lseek,
            "mkdir": self._mkdir,
            "unlink": self._unlink,
            "rmdir": self._unlink,
            "rename": self._rename,
            "link": self._link,
            "fsync": self._sync,
            "fdatasync": self._sync,
        }

    # --- what the process does ------------------------------------------------------------

    def begin(self, call: Call) -> None:
        """Take the beginning of a call that writes: from now on some of it may be there."""
        if call.name == "close":
            # Another thread may get the number before the call has returned.
            self._open.pop(call.fd, None)
        opened = self._open.get(call.fd)
        if opened is None or call.result < 0:
            return
        node = opened.node
        if call.name == "pwrite64":
            data = call.strings[0][: call.result]
            node.pending.append(Write(call.end, call.numbers[-1], data))
        elif call.name in ("write", "writev"):
            data = b"".join(call.strings)[: call.result]
            node.pending.append(Write(call.end, opened.position, data))
            opened.position += len(data)
        elif call.name == "ftruncate":
            node.pending.append(Write(call.end, call.numbers[-1], None))

    def finish(self, call: Call) -> None:
        """Take the end of a call."""
        if call.result < 0 or call.end == NEVER:
            return
        handler = self._handlers.get(call.name)
        if handler is not None:
            handler(call)

    def restart(self) -> None:
        """Forget the descriptors of a process that has ended."""
        self._open.clear()

    def _openat(self, call: Call) -> None:
        path = call.strings[0].decode()
        self._open.pop(call.result, None)
        if not path.startswith(f"{self._root}/") and path != self._root:
            return
        node = self._known.get(path)
        if node is None:
            if "O_CREAT" not in call.flags:
                return
            node = self._make(path, call.end, folder=False)
        elif "O_TRUNC" in call.flags:
            node.pending.append(Write(call.end, 0, None))
        self._open[call.result] = Opened(node)

    def _accept4(self, call: Call) -> None:
        self._open.pop(call.result, None)

    def _lseek(self, call: Call) -> None:
        if call.fd in self._open:
            self._open[call.fd].position = call.result

    def _mkdir(self, call: Call) -> None:
        if (path := self._ours(call.strings[0])) is not None:
            self._make(path, call.end, folder=True)

    def _unlink(self, call: Call) -> None:
        path = self._ours(call.strings[0])
        if path is not None and path in self._known:
            parent, name = self._parent(path)
            del self._known[path]
            parent.pending.append(Change(call.end, "", None, name))

    def _rename(self, call: Call) -> None:
        source, target = (each.decode() for each in call.strings[:2])
        if self._ours(call.strings[0]) is None or source not in self._known:
            return
        node = self._known.pop(source)
        self._known[target] = node
        (old, old_name), (new, new_name) = self._parent(source), self._parent(target)
        if old is new:
            old.pending.append(Change(call.end, new_name, node, old_name))
        else:
            new.pending.append(Change(call.end, new_name, node))
            old.pending.append(Change(call.end, "", None, old_name))

    def _link(self, call: Call) -> None:
        source, target = (each.decode() for each in call.strings[:2])
        if self._ours(call.strings[1]) is not None and source in self._known:
            node = self._known[target] = self._known[source]
            parent, name = self._parent(target)
            parent.pending.append(Change(call.end, name, node))

    def _sync(self, call: Call) -> None:
        if call.injected or call.fd not in self._open:
            return
        node = self._open[call.fd].node
        rest: list[Write | Change] = []
        for change in node.pending:
            if change.end < call.begin:
                _apply(node, change)
            else:
                rest.append(change)
        node.pending = rest

    def _make(self, path: str, end: int, *, folder: bool) -> Node:
        node = self._known[path] = Node(folder=folder)
        parent, name = self._parent(path)
        parent.pending.append(Change(end, name, node))
        return node

    def _ours(self, path: bytes) -> str | None:
        text = path.decode()
        return text if text.startswith(f"{self._root}/") else None

    def _parent(self, path: str) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._known[folder], name

    # --- what a power cut leaves ----------------------------------------------------------

    @property
    def unsynced(self) -> int:
        """How many changes are not durable."""
        return sum(len(node.pending) for node in self._nodes(self._top, set()))

    def _nodes(self, node: Node, seen: set[int]) -> Iterator[Node]:
        if id(node) in seen:
            return
        seen.add(id(node))
        yield node
        for child in node.names.values():
            yield from self._nodes(child, seen)
        for change in node.pending:
            if isinstance(change, Change) and change.node is not None:
                yield from self._nodes(change.node, seen)

    def image(self, target: Path, mode: Mode, rng: random.Random) -> None:
        """Write one of the states that a power cut may leave now into an empty folder."""
        self._build(self._top, target, mode, rng)

    def _build(self, node: Node, target: Path, mode: Mode, rng: random.Random) -> None:
        names = dict(node.names)
        for change in survivors(node.pending, of_one(mode, rng), rng):
            assert isinstance(change, Change)
            names.pop(change.gone, None)
            if change.node is not None:
                names[change.name] = change.node
        for name, child in names.items():
            if name.endswith(SKIPPED):
                continue
            path = target / name
            if child.folder:
                path.mkdir(exist_ok=True)
                self._build(child, path, mode, rng)
            else:
                path.write_bytes(content_of(child, of_one(mode, rng), rng))


def of_one(mode: Mode, rng: random.Random) -> Mode:
    """Choose the mode of one file or folder."""
    return rng.choice(MODES[:-1]) if mode == "mixed" else mode


def survivors(
    pending: list[Write | Change], mode: Mode, rng: random.Random
) -> list[Write | Change]:
    """Choose what of some changes is there."""
    if mode == "none":
        return []
    if mode == "all":
        return pending
    if mode == "prefix":
        return pending[: rng.randint(0, len(pending))]
    return [change for change in pending if rng.random() < 0.5]


def content_of(node: Node, mode: Mode, rng: random.Random) -> bytes:
    """Choose a content that a file may have, the last write or each of them torn."""
    content = bytearray(node.content)
    kept = survivors(node.pending, mode, rng)
    for number, change in enumerate(kept, 1):
        assert isinstance(change, Write)
        whole = mode == "all" or (mode == "prefix" and number < len(kept)) or rng.random() < 0.5
        for piece in [change] if whole else torn(change, rng):
            _change(content, piece)
    return bytes(content)


def torn(write: Write, rng: random.Random) -> list[Write]:
    """Keep any of the sectors of a write."""
    if write.data is None:
        return [write]
    pieces = []
    offset, data = write.offset, write.data
    while data:
        room = SECTOR - offset % SECTOR
        if rng.random() < 0.5:
            pieces.append(Write(write.end, offset, data[:room]))
        offset, data = offset + room, data[room:]
    return pieces


def _apply(node: Node, change: Write | Change) -> None:
    if isinstance(change, Write):
        _change(node.content, change)
        return
    node.names.pop(change.gone, None)
    if change.node is not None:
        node.names[change.name] = change.node


def _change(content: bytearray, write: Write) -> None:
    size = write.offset if write.data is None else write.offset + len(write.data)
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if write.data is None:
        del content[write.offset :]
    else:
        content[write.offset : size] = write.data
