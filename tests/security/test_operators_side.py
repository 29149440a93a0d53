"""What reaches an operator from strangers: names on a terminal, archives, the socket, failures."""

import asyncio
import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from pushd import backup
from pushd.archive import ArchiveError
from pushd.control import ControlSocket
from pushd.ctl import pushctl
from pushd.ctl.table import json_text
from tests.conformance.operated import Operated
from tests.conformance.process import StartServer
from tests.conformance.wire import PASSWORD, text

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b2J\u202e\u2066a\r\nroot\u2028 密 é 😀"
MARK = "walrus"


async def test_no_text_of_others_commands_the_terminal(server: StartServer) -> None:
    """Whatever people wrote, each verb of `pushctl` prints what a terminal only shows."""
    own = server()
    a, b = await own.dial.pair(device=f"{MARK}{EVIL}"[:64])
    await b.ok("report", userId=a.user_id, reason=f"{MARK}{EVIL}")
    await a.ok("complete_account", username=MARK, desc=EVIL)
    row = await a.say(b.user_id, EVIL, clientId=f"{MARK}\x9b\u202e")
    other = await own.dial()
    await other.command("login", phone=f"{MARK}{EVIL}", password=PASSWORD)
    verbs = [
        ["users"], ["users", MARK], ["online"], ["sessions"], ["reports"], ["audit"], ["queue"],
        ["trace", row["msgId"]], ["stats"], ["status"], ["kick", f"{MARK}{EVIL}"],
        ["users", f"{MARK}{EVIL}"], ["sessions", f"{MARK}{EVIL}"], ["disable", EVIL],
    ]  # fmt: skip
    where = ["--socket", str(own.data / "control.sock")]
    found = ""
    for verb in verbs:
        for more in ([], ["--json"]):
            args = [*verb, *more, *where]
            result = await asyncio.to_thread(CliRunner().invoke, pushctl, args)
            shown = result.stdout + result.stderr
            assert all(char.isprintable() or char == "\n" for char in shown), (args, shown)
            if more and result.exit_code == 0:
                json.loads(result.stdout)
            found += shown
    # For a program it is the same text.
    told = await asyncio.to_thread(CliRunner().invoke, pushctl, ["reports", "--json", *where])
    assert json.loads(told.stdout)[0]["reason"] == f"{MARK}{EVIL}"
    assert "密 é 😀" in told.stdout
    hidden = "\U000e0001\ufeff"
    assert json_text(hidden) == '"\\udb40\\udc01\\ufeff"'
    assert json.loads(json_text(hidden)) == hidden
    assert found.count(MARK) > 4
    assert "\\u009b" in found


# --- archives -----------------------------------------------------------------------------------

KINDS = {
    "name": tarfile.GNUTYPE_LONGNAME,
    "link": tarfile.GNUTYPE_LONGLINK,
    "attributes": tarfile.XHDTYPE,
    "attributes of all": tarfile.XGLTYPE,
    "Solaris": tarfile.SOLARIS_XHDTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "of nobody": b"Z",
}


def archive(path: Path, *entries: tuple[bytes, str, int, bytes]) -> Path:
    """Write a packed archive of headers with a kind, a name, a size and what is really there."""
    with gzip.open(path, "wb", 9) as out:
        for kind, name, size, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = kind, size
            out.write(entry.tobuf(tarfile.GNU_FORMAT))
            out.write(data + bytes(-len(data) % 512))
        out.write(bytes(1024))
    return path


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_headers_are_no_bomb(tmp_path: Path, kind: bytes) -> None:
    """32 MiB of a header in 32 KiB of an archive are refused unread, by whatever kind they come."""
    size = 32 << 20
    source = archive(tmp_path / "bomb.gz", (kind, "x", size, bytes(size)))
    assert source.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            backup.restore(source, tmp_path / "new", now=lambda: 0)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert not (tmp_path / "new").exists()


def test_a_store_larger_than_the_disk(tmp_path: Path) -> None:
    """A packed archive that says its store has an exabyte is refused before a byte is written."""
    source = archive(tmp_path / "bomb.gz", (tarfile.REGTYPE, "pushd.db", 1 << 60, bytes(4096)))
    with pytest.raises(ArchiveError, match="bytes free"):
        backup.restore(source, tmp_path / "new", now=lambda: 0)
    assert not (tmp_path / "new").exists()


def test_a_sparse_store(tmp_path: Path) -> None:
    """A store with holes, by attributes that Python's tarfile would believe, is no store."""
    path = tmp_path / "bomb.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("pushd.db")
        data = b"1\n0\n0\n".ljust(512, b"\0")
        entry.size = len(data)
        holes = {"major": "1", "minor": "0", "name": "pushd.db", "realsize": str(1 << 50)}
        entry.pax_headers = {f"GNU.sparse.{name}": value for name, value in holes.items()}
        tar.addfile(entry, io.BytesIO(data))
    with pytest.raises(ArchiveError):
        backup.restore(path, tmp_path / "new", now=lambda: 0)
    assert not (tmp_path / "new").exists()


# --- the socket -----------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_the_place_of_the_socket(tmp_path: Path, there: bool) -> None:
    """Neither is what a symbolic link leads to removed, nor a socket made there."""
    target, path = tmp_path / "target", tmp_path / "control.sock"
    if there:
        target.write_text("precious")
    path.symlink_to(target)
    with pytest.raises(OSError, match="no socket"):
        ControlSocket(str(path)).open(5)
    assert path.is_symlink()
    assert target.exists() == there


# --- failures -------------------------------------------------------------------------------------

# Checks that fail for a reason of their own: of a budget, of rights, of guesses.
BROKEN = """
import pushd.commands, pushd.limits, pushd.store.posting

def broken(*args, **more):
    raise RuntimeError("a check that fails")

def spend(self, session, name):
    if session.actor is not None:
        broken()

pushd.commands.Context.spend = spend
pushd.store.posting._check_rights = broken
if {guesses}:
    pushd.limits.Penalties.check = broken
from pushd.cli import pushd
pushd(prog_name="pushd")
"""


async def test_a_check_that_fails_refuses(operated: Callable[..., Operated]) -> None:
    """When a check itself breaks, what it guards does not happen, and only that request fails."""
    own = operated("", program=BROKEN.format(guesses=False))
    a, b = await own.dial.user(started=True), await own.dial.user()
    for line in (
        {"cmd": "save_file", "name": "x", "content": "eHg="},
        {"cmd": "add_friend", "userId": b.user_id},
        {"cmd": "create_group", "name": "x", "kind": "tag"},
        {"cmd": "search", "username": "x"},
    ):
        await a.send_line(line)
        reply = json.loads(await a.recv_line())
        assert reply["status"] == 5000, reply
        assert "check" not in reply["message"]
    assert await b.ok("friend_requests") == []
    assert await a.ok("my_groups") == []
    await a.send_line({"status": 1, "pushId": a.push_id, "message": [text(b.user_id, "x")]})
    reply = json.loads(await a.recv_line())
    assert reply["status"] != 1
    await b.fence()
    assert own.lines("internal error")
    own.stop()


async def test_a_check_of_guesses_that_fails_lets_nobody_in(
    operated: Callable[..., Operated],
) -> None:
    """The right password is refused as well while nobody counts the wrong ones."""
    own = operated("", program=BROKEN.format(guesses=True))
    user = await own.dial.user()
    wire = await own.dial()
    await wire.send_line({"cmd": "login", "phone": user.phone, "password": PASSWORD})
    assert json.loads(await wire.recv_line())["status"] == 5000
    await wire.refused(11001, {"cmd": "friends"})
    await user.fence()
