"""Bugs put into the server by hand: the simulation must find each of them.

A bug is one change of one module's text, made in a copy of the package that a process of its own
then simulates. Whoever changes that text here in the server changes it in this table too.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Bug(NamedTuple):
    """A text of a module, and what is put in its place."""

    name: str
    module: str
    old: str
    new: str
    breaks: str


BUGS = (
    Bug(
        "sync_skipped",
        "store/engine.py",
        'db.execute("PRAGMA synchronous=FULL")',
        'db.execute("PRAGMA synchronous=OFF")',
        "a power cut takes what was confirmed",
    ),
    Bug(
        "commit_skipped",
        "store/journal.py",
        '        self.db.execute("COMMIT")\n',
        '        self.db.execute("ROLLBACK" if self.next_id % 7 == 3 else "COMMIT")\n',
        "some batches are confirmed and are nowhere",
    ),
    Bug(
        "failed_sync_confirmed",
        "store/writer.py",
        "        for operation in (*batch, *self.lines.drain()):\n"
        "            operation.error = Refusal(Status.RESTARTING, retry_after=3)\n",
        "        for operation in (*batch, *self.lines.drain()):\n",
        "what a failed sync took is confirmed all the same",
    ),
    Bug(
        "ack_off_by_one",
        "outbox.py",
        "            if entry[0] > seq:\n",
        "            if entry[0] > seq + 1:\n",
        "one message more is acked than the client said",
    ),
    Bug(
        "ack_takes_all",
        "outbox.py",
        "                return self._release(index + 1)\n",
        "                return self._release(len(self._flight))\n",
        "an ack takes packets that the client has not seen",
    ),
    Bug(
        "acks_not_fenced",
        "connection.py",
        "                await service.barrier(self.session.device)\n",
        "                pass\n",
        "a command is answered before the acks in front of it are committed",
    ),
    Bug(
        "copies_forgotten",
        "store/posting.py",
        "    if len(sender.devices) > (1 if device else 0):\n",
        "    if len(sender.devices) > 2:\n",
        "a sender's other device gets no copy",
    ),
    Bug(
        "copy_to_itself",
        "store/posting.py",
        "        if queue.device != device:\n",
        "        if queue.device:\n",
        "the device that sent a message gets it",
    ),
    Bug(
        "dedupe_lost_at_start",
        "store/indexes.py",
        "        self._young = dict(db.execute(query))\n",
        "        self._young = {}\n",
        "what is sent again after a restart is stored twice",
    ),
    Bug(
        "window_ignored",
        "outbox.py",
        "held >= self._max_count or self._bytes >= self._max_bytes",
        "held > 1_000_000",
        "more than a window is in flight",
    ),
    Bug(
        "positions_not_saved",
        "store/journal.py",
        "        for queue in self._dirty.values():\n            rows +=",
        "        for queue in list(self._dirty.values())[:2]:\n            rows +=",
        "seqs are given out again after a crash",
    ),
    Bug(
        "gap_id_given_again",
        "store/journal.py",
        "            self._id_given = True\n",
        "",
        "after a crash a message gets the msgId of a gap",
    ),
    Bug(
        "gap_forgotten",
        "store/journal.py",
        "        device = queue.device\n        if not queue.gap or",
        "        device = queue.device\n        return\n        if not queue.gap or",
        "what a full queue does not take vanishes without a word",
    ),
    Bug(
        "rollback_keeps_queues",
        "store/journal.py",
        "(self._mailboxes, self._queues, self._routes, self._chats, self._dirty)",
        "(self._routes, self._chats, self._dirty)",
        "a batch that was rolled back leaves its seqs behind",
    ),
    Bug(
        "lag_ends_early",
        "outbox.py",
        "        if self.last >= self.newest:\n            self.lagging = False\n",
        "        self.lagging = False\n",
        "a device that lags skips what was committed while a page was read",
    ),
    Bug(
        "page_ends_early",
        "store/messages.py",
        "q.seq > ? AND q.seq <= ? ORDER BY q.seq LIMIT ?",
        "q.seq > ? AND q.seq <= ? - (q.seq % 5 = 4) ORDER BY q.seq LIMIT ?",
        "the last message of a backlog is not read",
    ),
    Bug(
        "batch_put_back_behind",
        "store/lines.py",
        "            self._common[:0] = rest\n",
        "            self._common += rest\n",
        "a sender's messages change places when a batch is split",
    ),
    Bug(
        "line_not_taken_over",
        "store/devices.py",
        "    source = _unclaimed(journal, box, answering) if box.devices else box.line\n",
        "    source = _unclaimed(journal, box, answering) if box.devices else None\n",
        "what waited for a user without a device is lost",
    ),
    Bug(
        "last_device_forgets",
        "store/devices.py",
        "if box is not None and queue is not None and list(box.devices) == [device]:",
        "if box is not None and queue is not None and len(box.devices) > 9:",
        "what the last device had not acked dies with it",
    ),
    Bug(
        "taken_over_untold",
        "handlers/login.py",
        "        actor, then=lambda _: ctx.hub.sign_out(actor.device, keep=session)\n",
        "        actor\n",
        "a connection goes on with a device that a logout elsewhere has ended",
    ),
    Bug(
        "page_not_fenced",
        "store/messages.py",
        "        if not page:\n            await self.writer.barrier()\n",
        "",
        "a queue that ends while it is read is taken for a hole",
    ),
    Bug(
        "sweep_loses_rows",
        "store/indexes.py",
        '            f" ORDER BY {self._key}",\n            bounds,',
        '            f" ORDER BY {self._key} LIMIT 9",\n            bounds,',
        "rows are lost when they move to the old part",
    ),
    Bug(
        "kick_not_honoured",
        "store/groups.py",
        "        group.members.pop(account, None)\n",
        "",
        "who was kicked goes on writing and reading",
    ),
    Bug(
        "mute_ignored",
        "store/groups.py",
        "        group.members[user].muted_until = until\n",
        "",
        "who is muted writes on, until the group is loaded anew",
    ),
    Bug(
        "mute_all_ignored",
        "store/membership.py",
        "        if self.mute_all and not leads:\n",
        "        if self.mute_all and not self.members:\n",
        "everybody writes though all are muted",
    ),
    Bug(
        "block_cached",
        "store/friends.py",
        "            journal.db.execute(remove, (one, other))\n"
        "        journal.forget_pair(actor.account, user)\n",
        "            journal.db.execute(remove, (one, other))\n",
        "who was blocked writes on, until the pair is loaded anew",
    ),
    Bug(
        "recall_kept_open",
        "store/messages.py",
        "        stub = stub_of(body)\n",
        "        stub = body\n",
        "a recalled message is shown in full",
    ),
    Bug(
        "uncached_members_skipped",
        "store/journal.py",
        "            self._load_mailboxes(missing[start : start + LOADED_AT_ONCE])\n",
        "            break\n",
        "members of a group who are not in the cache get nothing",
    ),
    Bug(
        "read_mark_moves_back",
        "store/messages.py",
        "        if mark <= read:\n            return\n",
        "        if mark == read:\n            return\n",
        "a conversation that was read is unread again",
    ),
    Bug(
        "split_line_lost",
        "protocol.py",
        "            self._partial += data\n            return\n",
        "            self._partial = data\n            return\n",
        "a line that comes in three pieces loses one",
    ),
)


def find(bug: Bug, seeds: range) -> tuple[int, str]:
    """Simulate a server with a bug; gives the first seed that finds it and how, else 0 and ""."""
    with tempfile.TemporaryDirectory(prefix="pushd-bug-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "pushd", copy / "pushd", ignore=shutil.ignore_patterns("*.pyc"))
        (copy / "tests").symlink_to(ROOT / "tests")
        module = copy / "pushd" / bug.module
        module.write_text(broken(bug))
        command = [sys.executable, "-m", "tests.sim", "--until", "--first", str(seeds.start)]
        done = subprocess.run(
            [*command, "--seeds", str(len(seeds))],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": folder, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
    if not done.returncode:
        return 0, ""
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("seed "):
        raise RuntimeError(f"{bug.name} is no program: {done.stderr[-500:]}")
    seed, _, violation = lines[-1].removeprefix("seed ").partition(": ")
    return int(seed), violation


def broken(bug: Bug) -> str:
    """Give the text of a bug's module with the bug in it; the old text must stand there once."""
    text = (ROOT / "pushd" / bug.module).read_text()
    if text.count(bug.old) != 1:
        raise ValueError(f"{bug.name}: {bug.module} has changed: {bug.old!r}")
    return text.replace(bug.old, bug.new)
