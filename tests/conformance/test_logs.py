"""The log of a real server: what it tells, what it never tells, and that nobody waits for it."""

import os
import re
import subprocess
from collections.abc import Callable

import pytest

from .operated import Operated, eventually
from .people import dial_from
from .wire import PASSWORD, Wire, frame, text

Operate = Callable[..., Operated]

# Makes `ping` of a text that begins with "boom" fail with an exception that quotes it all.
FAILING = """
import pushd.handlers.terminal as terminal
encode = terminal.encode

def failing(text):
    if text.startswith("boom"):
        try:
            raise KeyError(text)
        except KeyError:
            int(text)
    return encode(text)

terminal.encode = failing
from pushd.cli import pushd
pushd(prog_name="pushd")
"""


@pytest.mark.parametrize("format", ["console", "json", "logfmt"])
async def test_no_secret_is_in_any_log(operated: Operate, format: str) -> None:
    """A whole session at debug, with a failure that quotes what was sent: none of it is there."""
    own = operated("[log]\nlevel = 'debug'\nrate = 0\n", program=FAILING, log_format=format)
    a, b = await own.dial.pair()
    await a.say(b.user_id, "Walrus-5512")
    await b.expect_delivery(ack=True)
    bad = text(b.user_id, "Walrus-5512", type="nonsense")
    await a.exchange(frame([bad], a.push_id))
    await a.ok("search_messages", text="Walrus-5512")
    await a.command("add_friend", userId="Walrus-5512", description="Walrus-5512")
    await a.ok("change_password", old=PASSWORD, new=f"new {PASSWORD}")
    wire = await own.dial()
    await wire.command("login", phone=a.phone, password=f"not {PASSWORD}")
    await wire.login(a.phone, f"new {PASSWORD}")
    await wire.exchange(frame("start", b.push_id))
    lost = await own.dial()
    await lost.refused(11001, frame("restart", f"{a.push_id[:12]}{b.push_id[12:]}"))
    await lost.send_line(b'{"cmd":"login","password":"%b' % PASSWORD.encode())
    for secret in (a.push_id, "Walrus-5512", PASSWORD):
        await a.send_line({"cmd": "ping", "text": f"boom {secret}"})
        line = await a.recv_line()
        assert re.search(rb'"message":"internal error ([0-9a-f]{8})"', line), line
    own.dial.close()
    own.stop()
    logged = own.log_text()
    assert logged.count("Traceback (most recent call last)") == 6
    assert "boom" not in logged
    for secret in (PASSWORD, "Walrus-5512", a.phone, *halves(a), *halves(b)):
        assert secret not in logged


def halves(wire: Wire) -> tuple[str, str]:
    """Both halves of a pushId."""
    middle = len(wire.push_id) // 2
    return wire.push_id[:middle], wire.push_id[middle:]


@pytest.mark.parametrize("format", ["console", "json", "logfmt"])
async def test_no_line_can_be_forged(operated: Operate, format: str) -> None:
    """Whatever stands in a field, one event is one line of the server's making."""
    own = operated("[log]\nlevel = 'debug'\n", log_format=format)
    wire = await own.dial.user()
    other = await own.dial()
    forged = "1\n2026-11-24 INFO admin logged in"
    for phone in (forged, "\u001b[2J", "\r", "\u2028", "x" * 3000):
        await other.command("login", phone=phone, password=PASSWORD)
        await wire.exchange({"cmd": phone})
    await wire.command("ping", text="y" * 100_000)
    own.dial.close()
    own.stop()
    logged = own.log_text()
    assert "admin" not in logged
    assert all(line.isprintable() for line in logged.split("\n"))
    assert max(map(len, logged.split("\n"))) < 1000


async def test_a_reference_is_found_in_the_log(operated: Operate) -> None:
    """The peer gets a reference, the log has it with connection, user and traceback."""
    own = operated("", program=FAILING)
    wire = await own.dial.user()
    number = (await wire.ok("whoami"))["connection"]
    await wire.send_line({"cmd": "ping", "text": "boom"})
    reference = (await wire.recv_line()).split(b"internal error ")[1][:8].decode()
    line = await own.line("internal error")
    assert line["reference"] == reference
    assert (line["connection"], line["user"]) == (int(number), int(wire.user_id))
    assert line["where"] == "ping"
    assert line["exception"].endswith("ValueError")
    assert "terminal.py" in line["exception"]
    await wire.fence()


async def test_a_life_in_lines(operated: Operate) -> None:
    """What an operator wants to know of a connection is told at info, with its numbers."""
    own = operated("")
    a = await own.dial.user(started=True)
    b = await own.dial.device(a)
    await b.ok("logout")
    await b.ok("quit")
    b.close()
    await own.line("connection closed")
    c, _ = await own.dial.resume(a.push_id)
    await a.rest()
    d = await own.dial()
    await d.command("login", phone=a.phone, password="wrong one")
    c.abort()
    d.close()
    await own.line("connection closed", 4)
    own.stop()
    user = int(a.user_id)
    told = [
        (line["event"], line["connection"], line.get("user", 0), line.get("reason"))
        for line in own.lines()
        if "connection" in line
    ]
    assert told[:7] == [
        ("registered", 1, user, None),
        ("started", 1, user, None),
        ("logged in", 2, user, None),
        ("started", 2, user, None),
        ("logged out", 2, user, None),
        ("connection closed", 2, 0, "quit"),
        ("taken over", 1, user, None),
    ]
    assert set(told[7:]) == {
        ("connection closed", 1, user, "replaced"),
        ("wrong password", 4, 0, None),
        ("connection closed", 3, user, "reset"),
        ("connection closed", 4, 0, "closed by the peer"),
    }
    ends = {line["connection"]: line for line in own.lines("connection closed")}
    assert ends[3]["device"] == ends[1]["device"] == own.lines("started")[0]["device"]
    assert "device" not in ends[4]
    assert own.lines("wrong password")[0]["address"] == "127.0.0.1"
    assert own.lines("wrong password")[0]["status"] == 10000
    assert {line["address"] for line in own.lines("connection closed")} == {"127.0.0.1"}


async def test_the_reasons_of_an_end(operated: Operate) -> None:
    """Each way in which a connection ends has its own words."""
    limits = "[limits]\nlogin_idle = 1\nbad_lines = 2\nconnections_per_address = 1\n"
    own = operated(limits, limits_per_address=True)
    silent = await own.dial()
    refused = await own.dial()
    await refused.rest()
    await silent.rest()
    silent.close()
    await own.line("connection closed")
    for data, reason in ((b"{\n{\n", "bad lines"), (b"x" * 5000 + b"\n", "line too long")):
        wire = await dial_from(own, "127.0.0.2")
        await wire.send_raw(data)
        await wire.rest()
        wire.close()
        await eventually(lambda reason=reason: reason in reasons(own))
    last = await dial_from(own, "127.0.0.2")
    await last.fence()
    own.stop()
    last.close()
    assert reasons(own) == ["silent", "bad lines", "line too long", "shutdown"]
    assert own.lines("connection refused")[0]["why"] == "too many connections from this address"


def reasons(own: Operated) -> list[str]:
    """Why connections have ended so far."""
    return [line["reason"] for line in own.lines("connection closed")]


async def test_the_first_lines(operated: Operate) -> None:
    """The first line says what was started, with which settings; then it is ready."""
    own = operated("[limits]\nconnections = 50\n")
    await own.line("ready")
    first, second = own.lines()[:2]
    assert first["event"] == "starting"
    assert first["config"] == f'["{own.file}"]'
    assert first["store"] == str(own.data / "pushd.db")
    assert first["connections"] == 50
    assert first["listen"] == '["127.0.0.1:0"]'
    assert re.fullmatch(r"3\.\d+\.\d+", first["sqlite"])
    assert {"version", "loop", "files", "queue_messages", "line"} <= set(first)
    assert second["event"] == "ready"
    assert second["listen"] == f'["127.0.0.1:{own.address[1]}"]'


async def test_a_flood_of_connections_is_no_flood_of_lines(operated: Operate) -> None:
    """So many lines of one event are written in a second; the next one says how many were not."""
    own = operated("[log]\nrate = 3\n")
    for _ in range(40):
        wire = await own.dial()
        await wire.fence()
        wire.close()
    count = 40

    async def another() -> bool:
        nonlocal count
        count += 1
        wire = await own.dial()
        await wire.ok("quit")
        return any("suppressed" in line for line in own.lines("connection closed"))

    while not await another():
        assert count < 3000
    told = own.lines("connection closed")
    assert len(told) < count / 2
    assert sum(line.get("suppressed", 0) for line in told) > 20


# --- nobody waits for it ----------------------------------------------------------------------


async def test_a_full_pipe_holds_nobody_up(operated: Operate) -> None:
    """A reader of the log that hangs costs lines, and the lost ones are counted later."""
    own = operated("[log]\nlevel = 'debug'\nwaiting = 100\n", start=False)
    own.options = {"stderr": subprocess.PIPE}
    process = own.spawn()
    assert process.stderr is not None
    await own.listening()
    wire = await own.dial.user()
    for _ in range(40):
        await wire.send_raw(b'{"cmd":"ping"}\n' * 50)
        for _ in range(50):
            await wire.recv_line()
    await wire.fence()
    os.set_blocking(process.stderr.fileno(), False)
    logged = b""

    def lost() -> bool:
        nonlocal logged
        logged += process.stderr.read() or b""  # type: ignore[union-attr]
        return b"lines of the log were lost" in logged

    await eventually(lost)
    await wire.fence()
    assert own.stop() == 0
    process.stderr.close()


@pytest.mark.parametrize("kept", [True, False])
async def test_a_pipe_that_nobody_reads_does_not_stop_the_end(
    operated: Operate, kept: bool
) -> None:
    """The end waits a second for a reader that hangs, and not at all for one that has gone."""
    own = operated("[log]\nlevel = 'debug'\n", start=False)
    own.options = {"stderr": subprocess.PIPE}
    process = own.spawn()
    await own.listening()
    if not kept:
        assert process.stderr is not None
        process.stderr.close()
    wire = await own.dial.user()
    for _ in range(1500):
        await wire.fence()
    assert own.stop() == 0
    if kept:
        assert process.stderr is not None
        process.stderr.close()


async def test_a_closed_standard_error_is_no_file_of_the_store(operated: Operate) -> None:
    """Started without its descriptors, the server serves, and nothing of it gets their numbers."""
    own = operated("[log]\nlevel = 'debug'\n", start=False)
    own.options = {"preexec_fn": lambda: os.closerange(0, 3)}
    process = own.spawn()
    await own.listening()
    a, b = await own.dial.pair()
    await a.say(b.user_id, "hello")
    for number in range(3):
        assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
    assert own.stop() == 0
    own.options = {}
    own.start()
    _, reply = await own.dial.resume(b.push_id)
    assert reply["queued"] == 1
