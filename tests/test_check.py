"""The check of store and files: what is whole passes, and each kind of damage is named.

A store with people, groups, gaps and files is made once; each test damages a copy of it.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pushd.check import Report, check
from pushd.errors import StoreRefused
from pushd.jobs import Job, Stopped
from pushd.store import FILE
from pushd.store.check import MOST, QUEUE_RULES, RULES, open_stopped
from pushd.store.engine import RESTORING, Lock
from tests.test_files_store import PNG, Bench, to, to_group


async def populate(folder: Path) -> None:
    """Friends, a group, a dissolved one, messages that wait and some that became a gap, files."""
    bench = Bench(folder)
    await bench.open()
    one, other = await bench.friends()
    third = await bench.user()
    await bench.store.friends.ask(one.who, third.account, "")
    await bench.store.friends.accept(third.who, one.account)
    key = await bench.group(one, other, third)
    await bench.store.groups.dissolve(one.who, await bench.group(one, other))
    for number in range(3):
        await bench.post(one, await bench.save(one, PNG + b"%d" % number), **to(other))
    bench.clock.ms += 40 * 86_400_000
    await bench.store.retention.expire_queues(bench.clock.wall() - 86_400_000, 10)
    await bench.post(one, await bench.save(one, PNG + b"new"), **to_group(key))
    await bench.store.lifecycle.delete(third.who)
    await bench.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    asyncio.run(populate(folder))
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "data")


async def report_of(folder: Path, job: Job | None = None) -> Report:
    report = Report()
    with open_stopped(folder) as checker:
        await check(checker, folder, report, job or Job("check"))
    return report


def sql(folder: Path, script: str) -> None:
    with closing(sqlite3.connect(folder / FILE)) as db, db:
        db.executescript(script)


async def test_a_whole_store_passes(folder: Path) -> None:
    """Nothing is found, all files were read, and the progress ends at its total."""
    job = Job("check")
    report = await report_of(folder, job)
    assert report.found == {}, report.text()
    assert report.text() == "the store and its 4 files are whole"
    assert job.done == job.total > 50


FIRST = "(SELECT min(device) FROM queue)"
DAMAGE: dict[str, tuple[str, str]] = {
    "no epoch": ("DELETE FROM meta WHERE key = 'epoch'", "meta"),
    "an account without its line": (
        "UPDATE device SET token = x'00' WHERE id = 1",
        "account 10001",
    ),
    "a deleted account with devices": (
        "INSERT INTO device (account, created, last_seen, since) VALUES (10003, 0, 0, 0);"
        "INSERT INTO position (device) SELECT max(id) FROM device",
        "account 10003",
    ),
    "a device without a position": ("DELETE FROM position WHERE device = 1", "device 1"),
    "a position that cannot be": ("UPDATE position SET acked = last + 1", "acked"),
    "a queue without a device": ("INSERT INTO queue VALUES (99, 1, 1)", "device 99"),
    "a gap that is in no queue": (
        "INSERT INTO gap SELECT device, last + 1, last + 1, 1, 0, 0 FROM position",
        "seq",
    ),
    "a chat of a gap that is not there": (
        "INSERT INTO gap_chat VALUES (1, 77, 1, 0)",
        "device 1, seq 77, chat 1",
    ),
    "a message without its chat": ("UPDATE message SET chat = 99 WHERE id = 2", "message 2"),
    "a message that its chat does not list": (
        "DELETE FROM chat_recent WHERE message = 2; DELETE FROM chat_message WHERE message = 2",
        "message 2",
    ),
    "a chat that lists what is not its message": (
        "INSERT INTO chat_message VALUES (1, 999)",
        "chat 1, message 999",
    ),
    "a message that cannot be read": (
        "UPDATE message SET body = substr(body, 1, 8) WHERE id = 2",
        "message 2",
    ),
    "a damaged message": (
        "UPDATE message SET body = replace(body, 'e', 'f') WHERE id = 2",
        "message 2",
    ),
    "a message without its sender": ("UPDATE message SET sender = 99 WHERE id = 2", "message 2"),
    "a msgId that was never given": ("UPDATE position SET message = 999999", "msgId 999999"),
    "a chat with wrong members": (
        "DELETE FROM member WHERE account = 10001 AND chat IN"
        " (SELECT id FROM chat WHERE key = '10001-10002')",
        "chat 10001-10002",
    ),
    "a chat of no kind": ("UPDATE chat SET kind = 'tea' WHERE id = 1", "chat"),
    "a group without one owner": (
        "UPDATE member SET role = 'member' WHERE role = 'owner'",
        ": 0 owners",
    ),
    "a dissolved group with members": (
        "UPDATE groups SET dissolved = 1",
        "group g",
    ),
    "a member that cannot be": ("UPDATE member SET role = 'king' WHERE role = 'owner'", "10001"),
    "a friendship of one side": (
        "DELETE FROM friendship WHERE account = 10001",
        "accounts 10002 and 10001",
    ),
    "a thumbnail of a thumbnail": (
        "UPDATE file SET original = 1 WHERE id = 2; UPDATE file SET original = 2 WHERE id = 3",
        "file media/",
    ),
    "a hole in a queue": (
        f"DELETE FROM queue WHERE device = {FIRST} AND seq ="
        f" (SELECT max(seq) FROM queue WHERE device = {FIRST}) - 1",
        "is followed by",
    ),
    "a queue that does not end at its last seq": ("UPDATE position SET last = last + 1", "last is"),
    "a queue row without its message": (
        "DELETE FROM message WHERE id IN (SELECT message FROM queue)",
        "msgId",
    ),
    "a message twice in a queue": (
        f"UPDATE queue_recent SET message = (SELECT min(message) FROM queue WHERE device = {FIRST})"
        f" WHERE device = {FIRST}",
        ", msgId",
    ),
    "a queue row of somebody else's chat": (
        "UPDATE message SET chat = (SELECT id FROM chat WHERE key LIKE 'system/%')"
        " WHERE id IN (SELECT message FROM queue)",
        "msgId",
    ),
    "a lost reference": (
        "PRAGMA foreign_keys=OFF; DELETE FROM account WHERE id = 10002",
        "lost account",
    ),
}


def test_each_rule_has_its_damage() -> None:
    """No rule is there that no test has seen broken."""
    assert set(RULES) | set(QUEUE_RULES) <= set(DAMAGE)


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damage_of_the_store_is_named(folder: Path, kind: str) -> None:
    """Each rule finds what breaks it, and says where."""
    script, text = DAMAGE[kind]
    sql(folder, script)
    report = await report_of(folder)
    assert kind in report.found, report.text()
    assert any(found.kind == kind and text in found.text for found in report.problems)
    assert f"{kind}: {report.found[kind]}" in report.text()


async def test_damaged_pages_are_named(folder: Path) -> None:
    """SQLite's own check is asked; what cannot be read at all ends no check."""
    data = bytearray((folder / FILE).read_bytes())
    for page in range(3, len(data) // 4096):
        data[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    (folder / FILE).write_bytes(data)
    assert "damaged" in (await report_of(folder)).found


def first_file(folder: Path) -> Path:
    return min(path for path in (folder / "media").rglob("*.png"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("a missing file", Path.unlink),
        ("a wrong file", cut),
        ("a wrong file", change),
        ("a file that cannot be read", make_folder),
    ],
)
async def test_damage_of_a_file_is_named(
    folder: Path, kind: str, damage: Callable[[Path], None]
) -> None:
    """Missing, cut, changed, unreadable: with its path."""
    path = first_file(folder)
    damage(path)
    report = await report_of(folder)
    assert report.found == {kind: 1}
    assert path.name in report.problems[0].text


async def test_a_file_too_many_is_named(folder: Path) -> None:
    """What lies in the folders of files and is in no row."""
    extra = first_file(folder).parent / "notes\n.txt"
    extra.touch()
    report = await report_of(folder)
    assert report.found == {"a file too many": 1}
    assert "notes\\n.txt" in report.text()


async def test_many_problems_are_counted(folder: Path) -> None:
    """A report is bounded: it names some of a kind and counts the others."""
    for number in range(MOST + 5):
        (first_file(folder).parent / f"{number}.txt").touch()
    report = await report_of(folder)
    assert report.found == {"a file too many": MOST + 5}
    assert len(report.problems) == MOST
    assert report.text().endswith("…")


async def test_a_check_can_be_stopped(folder: Path) -> None:
    """It ends soon, also within a long statement."""
    with pytest.raises(Stopped):
        await report_of(folder, Job("check", stopping=True))


async def test_what_is_no_store_of_ours_is_refused(folder: Path, tmp_path: Path) -> None:
    """In one line: no store, another schema, a server that runs, a restore that did not end."""
    with pytest.raises(StoreRefused, match="there is no store"):
        await report_of(tmp_path)
    lock = Lock(folder)
    with pytest.raises(StoreRefused, match="another pushd uses this folder"):
        await report_of(folder)
    lock.release()
    (folder / RESTORING).mkdir()
    with pytest.raises(StoreRefused, match="did not end"):
        await report_of(folder)
    (folder / RESTORING).rmdir()
    sql(folder, "PRAGMA user_version=1")
    with pytest.raises(StoreRefused, match="has schema 1"):
        await report_of(folder)


async def test_a_check_changes_nothing(folder: Path) -> None:
    """Not a byte of the store, and the lock is free afterwards."""
    before = (folder / FILE).read_bytes()
    await report_of(folder)
    assert (folder / FILE).read_bytes() == before
    Lock(folder).release()
