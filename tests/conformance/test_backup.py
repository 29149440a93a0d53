"""The drill on real processes: back up a server that works, restore, check, go on.

`pushctl` is run as an operator runs it; what it prints and its exit code are looked at.
"""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from .process import Process, StartServer
from .wire import content, text

FILE = "pushd.db"
SMALL = 24 << 20  # bytes of a small disk


async def pushctl(*words: object) -> tuple[int, str, str]:
    """Run a verb; gives exit code, standard output and standard error."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pushd.ctl", *map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await run.communicate()
    assert run.returncode is not None
    return run.returncode, out.decode(), err.decode()


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def grow(data: Path, rows: int) -> None:
    """Make the store of a stopped server larger, by 100 kB a row."""
    with closing(sqlite3.connect(data / FILE)) as db, db:
        db.execute("CREATE TABLE ballast (x)")
        db.executemany("INSERT INTO ballast VALUES (randomblob(100000))", [()] * rows)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small disk of its own; skips where nothing can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_the_drill(server: StartServer, tmp_path: Path) -> None:
    """A backup under load is restored to another folder, where a server goes on with it.

    What was confirmed before the backup is there and flows again; the epoch is another one.
    """
    own = server()
    a, b = await own.dial.pair()
    before = [f"before {number}" for number in range(50)]
    await a.post(*(text(b.user_id, each) for each in before))
    path = (await a.ok("save_file", name="x", content="aGVsbG8="))["path"]
    going = True

    async def load() -> int:
        number = 0
        while going:
            number += 1
            await a.post(text(b.user_id, f"during {number}"))
        return number

    loading = asyncio.create_task(load())
    archive = tmp_path / "b.tar.gz"
    code, out, err = await pushctl("backup", archive, "--data", own.data, "--json")
    going = False
    assert await loading > 5
    assert (code, err) == (0, "")
    assert json.loads(out)["files"] == 1
    assert archive.stat().st_mode & 0o777 == 0o600
    epoch = (await own.dial.resume(b.push_id))[1]["epoch"]
    own.kill()
    other = server()
    other.stop()
    shutil.rmtree(other.data)
    code, out, err = await pushctl("restore", archive, "--data", other.data)
    assert (code, err) == (0, ""), err
    assert "restored as of 20" in out
    assert (await pushctl("check", "--data", other.data))[0] == 0
    other.start()
    resumed, reply = await other.dial.resume(b.push_id)
    assert reply["epoch"] != epoch
    got = [content(each) for each in await resumed.take(reply["queued"])]
    got = [each for each in got if each.startswith(("before", "during"))]
    assert got[:50] == before
    assert got[50:] == [f"during {number + 1}" for number in range(len(got) - 50)]
    sender, _ = await other.dial.resume(a.push_id)
    assert (await sender.ok("get_file", path=path))["content"] == "aGVsbG8="
    await sender.post(text(b.user_id, "after"))
    assert content((await resumed.take(1))[0]) == "after"
    assert (await pushctl("check", "--data", other.data))[0] == 0
    assert other.stop() == 0
    other.assert_no_traceback()


async def test_a_check_finds_damage_beside_a_server_and_without_one(server: StartServer) -> None:
    """Exit 0 and 1, as text and as JSON."""
    own = server()
    a = await own.dial.user()
    path = (await a.ok("save_file", name="x", content="aGVsbG8="))["path"]
    code, out, _ = await pushctl("check", "--data", own.data)
    assert (code, out) == (0, "the store and its 1 files are whole\n")
    (own.data / path).write_bytes(b"hallo")
    code, out, _ = await pushctl("check", "--data", own.data, "--json")
    assert code == 1
    assert json.loads(out)["found"] == {"a wrong file": 1}
    assert own.stop() == 0
    code, out, _ = await pushctl("check", "--data", own.data)
    assert code == 1
    assert path in out
    own.assert_no_traceback()


async def test_a_backup_that_is_interrupted_leaves_nothing(
    server: StartServer, tmp_path: Path
) -> None:
    """After ^C in pushctl, and after a stop of the server; neither harms the server."""
    own = server()
    own.stop()
    grow(own.data, 2000)
    own.start()
    archive = tmp_path / "b.tar.gz"
    args = [sys.executable, "-m", "pushd.ctl", "backup", str(archive), "--data", str(own.data)]
    for interrupt in ("pushctl", "server"):
        run = await asyncio.create_subprocess_exec(*args, stderr=subprocess.PIPE)
        await asyncio.to_thread(wait_for, tmp_path / "b.tar.gz.part-db")
        if interrupt == "pushctl":
            run.send_signal(signal.SIGINT)
            _, err = await run.communicate()
            assert err.decode() == "backup: it was stopped\n"
            assert run.returncode == 1
        else:
            assert await asyncio.to_thread(own.stop) == 0
            await run.communicate()
            # It has heard of the end of the job, or of that of the server.
            assert run.returncode in (1, 3)
        assert os.listdir(tmp_path) == []
    own.start()
    await own.dial.user()
    own.assert_no_traceback()


async def test_a_backup_on_a_disk_that_fills_up_leaves_nothing(
    server: StartServer, small_disk: Path
) -> None:
    """Refused at once where the space is known to be too little; the server does not notice."""
    own = server()
    a, b = await own.dial.pair()
    code, _, err = await pushctl("backup", small_disk / "b.tar", "--data", own.data)
    assert code == 1
    assert "bytes free, has" in err
    assert os.listdir(small_disk) == []
    await a.post(text(b.user_id, "still here"))
    own.assert_no_traceback()


@pytest.mark.parametrize("words", [["backup", "x.tar"], ["check"]])
async def test_without_a_server_it_is_said(words: list[str], tmp_path: Path) -> None:
    """Exit 3 for what needs a server, 1 for a folder that holds no store."""
    code, _, err = await pushctl(*words, "--data", tmp_path)
    assert code == (3 if words[0] == "backup" else 1)
    assert err.count("\n") == 1


async def test_a_restore_that_is_refused_says_so_in_one_line(
    server: StartServer, tmp_path: Path
) -> None:
    """Into the folder of a running server, and from what is no archive."""
    own = server()
    archive = tmp_path / "b.tar"
    archive.write_text("dear diary\n" * 100)
    code, _, err = await pushctl("restore", archive, "--data", own.data)
    assert code == 1
    assert "another pushd uses this folder" in err
    code, _, err = await pushctl("restore", archive, "--data", tmp_path / "new")
    assert code == 1
    assert "not a whole backup of pushd" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "new").exists()


async def test_a_folder_that_is_half_restored_is_not_started(tmp_path: Path) -> None:
    """One clear line, exit 1."""
    own = Process(tmp_path)
    (own.data / "restoring").mkdir(parents=True)
    with pytest.raises(RuntimeError, match="a restore did not end here"):
        own.start()
    assert own.process is not None
    assert own.process.returncode == 1
