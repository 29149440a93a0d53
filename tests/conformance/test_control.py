"""The operator at the control socket of a real server: who gets in, what each row does.

`own` is a server that the tests of this module share; `Operator` speaks by its control socket,
and `pushctl` runs a verb against it.
"""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pushd import handlers
from pushd.commands import Needs
from pushd.ctl import pushctl as command

from .conftest import ADDRESS
from .people import new_name
from .process import Process, StartServer
from .wire import PASSWORD, Closed, Frame, Wire, frame, lines, new_phone, text

pytestmark = pytest.mark.skipif(bool(ADDRESS), reason="needs a control socket")

OPERATOR_ROWS = [row for row in handlers.table().values() if row.needs is Needs.OPERATOR]


def path_of(process: Process) -> Path:
    return process.data / "control.sock"


def operator(process: Process) -> Wire:
    """Speak by the control socket."""
    return process.dial.operator(str(path_of(process)))


def pushctl(process: Process, *words: str, input: str = "") -> Result:
    """Run a verb in this process."""
    args = [*words, "--socket", str(path_of(process))]
    return CliRunner().invoke(command, args, input=input)


def told(result: Result) -> Any:
    """What a verb with --json printed."""
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def table(result: Result) -> list[list[str]]:
    """What a verb printed, by words; the titles come first."""
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return [line.split() for line in result.stdout.splitlines()]


async def audited(process: Process, action: str) -> list[Frame]:
    """The audit's entries of an action, the newest first."""
    found = await operator(process).ok("audit", size=1000)
    return [entry for entry in found if entry["action"] == action]


# The socket


def test_mode_and_owner(own: Process) -> None:
    """The socket is for the server's user alone."""
    found = path_of(own).stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.skipif(shutil.which("nc") is None, reason="needs netcat")
def test_another_user_is_refused() -> None:
    """Whoever is neither root nor the server's user reads 4004 and nothing more, whatever the mode
    of the socket has become."""
    with tempfile.TemporaryDirectory() as name:
        process = Process(Path(name))
        process.start()
        try:
            for each in (Path(name), process.data):
                each.chmod(0o755)
            path_of(process).chmod(0o666)
            done = subprocess.run(
                ["nc", "-N", "-U", str(path_of(process))],
                input=b'{"cmd":"stats"}\n',
                capture_output=True,
                timeout=20,
                check=False,
                user=65534,
            )
        finally:
            process.kill()
    [answer] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (answer["status"], answer["pushId"]) == (4004, "")


async def test_a_dead_servers_socket_is_replaced(server: StartServer) -> None:
    """After a crash the socket is still there; the next start takes its place."""
    process = server()
    process.kill()
    assert path_of(process).is_socket()
    process.start()
    wire = operator(process)
    assert (await wire.ok("stats"))["pid"] == process.process.pid  # type: ignore[union-attr]


def start_fails(folder: Path, **settings: object) -> tuple[int, str]:
    """Start a server that must end by itself; gives its code and the last line of its log."""
    process = Process(folder, **settings)
    with pytest.raises(RuntimeError):
        process.start()
    assert process.process is not None
    assert not (folder / "ports").exists()
    return process.process.returncode, process.log_text().splitlines()[-1]


@pytest.mark.slow
async def test_a_live_servers_socket_is_left_alone(own: Process, tmp_path: Path) -> None:
    """A second server that is to use the same socket does not start."""
    code, line = start_fails(tmp_path, server_control=str(path_of(own)))
    assert code == 1
    assert "another server listens there" in line
    wire = operator(own)
    await wire.ok("ping")


@pytest.mark.slow
def test_no_file_is_replaced(tmp_path: Path) -> None:
    """What is no socket is never removed."""
    (tmp_path / "precious").write_text("mine")
    code, line = start_fails(tmp_path, server_control=str(tmp_path / "precious"))
    assert code == 1
    assert "is no socket" in line
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.slow
def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    """The name of the socket holds 80 bytes: more is a bad setting, said in one line."""
    code, line = start_fails(tmp_path, server_control="/" + "x" * 81)
    assert code == 78
    assert "PUSHD_SERVER_CONTROL" in line
    assert "81 bytes" in line


async def test_none(server: StartServer) -> None:
    """Without a name there is no control socket."""
    process = server(server_control="")
    assert not path_of(process).exists()
    a = await process.dial.user()
    assert (await a.command("stats"))["status"] == 4004


async def test_the_operator_gets_in_when_nobody_does(server: StartServer) -> None:
    """`limits.connections` holds for clients only, and operators do not count among them."""
    process = server(limits_connections=2)
    first = operator(process)
    await first.ok("ping")
    full = [await process.dial() for _ in range(2)]
    for each in full:
        await each.ok("ping")
    over = await process.dial()
    assert (await over.recv())["status"] == 4290
    wire = operator(process)
    assert (await wire.ok("stats"))["connections"] >= 2
    await full[0].ok("ping")


async def test_operators_are_few(server: StartServer) -> None:
    """There is a bound for them too."""
    process = server()
    wires = [operator(process) for _ in range(33)]
    refused = []
    for wire in wires:
        try:
            await wire.ok("ping")
        except (Closed, AssertionError, OSError):
            refused.append(wire)
    assert len(refused) == 1


# Rows


@pytest.mark.parametrize("row", OPERATOR_ROWS, ids=lambda row: row.name)
async def test_only_by_the_socket(own: Process, row: Any) -> None:
    """Over TCP each of an operator's rows is 4004, with and without a session, and `help` is
    silent about it."""
    for wire in (await own.dial(), await own.dial.user()):
        reply = await wire.command(row.name)
        assert reply["status"] == 4004
        assert reply["result"] == ([] if row.listing else {})
        assert row.name not in [each["cmd"] for each in await wire.ok("help")]
        assert (await wire.command("help", name=row.name))["status"] == 4004


async def test_what_else_works_there(own: Process) -> None:
    """The rows that need nothing work there; those of people do not."""
    wire = operator(own)
    assert (await wire.ok("ping", text="x")) == {"text": "x"}
    assert (await wire.ok("whoami"))["userId"] == ""
    shown = {each["cmd"] for each in await wire.ok("help")}
    assert shown == {row.name for row in OPERATOR_ROWS} | {"help", "ping", "whoami", "quit"}
    login = await wire.command("login", phone=new_phone(), password=PASSWORD)
    assert login["status"] == 4004
    assert (await wire.command("friends"))["status"] == 11001
    assert (await wire.exchange(frame("start")))["status"] == 4004
    assert (await wire.exchange(frame("restart", "x" * 24)))["status"] == 4004
    assert (await wire.exchange(frame([text("10001", "x")])))["status"] == 11001
    assert (await wire.exchange(frame("")))["status"] == 1
    assert (await wire.command("quit"))["status"] == 1
    with pytest.raises(Closed):
        await wire.recv()


async def test_long_lines_from_the_first_byte(own: Process) -> None:
    """An operator has no login, but `limits.line` holds at once."""
    wire = operator(own)
    assert len((await wire.ok("ping", text="x" * 50_000))["text"]) == 50_000


async def test_no_deadline(server: StartServer) -> None:
    """An operator may think; a client without a login is closed meanwhile."""
    process = server(limits_login_idle=1, limits_login_total=1)
    wire, client = operator(process), await process.dial()
    assert await client.rest() == []  # closed, without a word
    await wire.ok("ping")


@pytest.mark.skipif(shutil.which("nc") is None, reason="needs netcat")
async def test_netcat(own: Process) -> None:
    """`nc -U` serves an operator, with `help`."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["nc", "-N", "-U", str(path_of(own))],
        input=lines({"cmd": "help"}, {"cmd": "stats"}) + b"hello\n",
        stdout=subprocess.PIPE,
        timeout=20,
        check=True,
    )
    first, second, third = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"cmd": "enable", "fields": {"user": "string"}, "needs": "operator"} in first["result"]
    assert second["result"]["version"]
    assert third["status"] == 4000


# Verbs that look


async def test_status(own: Process) -> None:
    """`status` tells the process, the connections and what the store holds."""
    a = await own.dial.user(started=True)
    found = told(pushctl(own, "status", "--json"))
    assert own.process is not None
    assert found["pid"] == own.process.pid
    assert found["online"] >= 1
    assert found["operators"] >= 1
    assert found["users"] >= 1
    assert found["schema"] >= 8
    assert found["storeBytes"] + found["logBytes"] > 0
    assert found["ready"] is True
    assert found["framesByKind"]["command"] >= 1
    assert found["framesByKind"]["start"] >= 1
    assert found["bytesIn"] > 0
    assert found["bytesOut"] > 0
    assert found["batchMean"] >= 1
    assert 0 < found["syncP99"] < 10
    assert found["memoryBytes"] > 1 << 20
    for name in ("messagesAccepted", "messagesAcked", "oldestSeconds", "failedHandshakes"):
        assert found[name] >= 0, name
    for name in ("loopLagP99", "loopLagMax"):
        assert 0 <= found[name] < 10, name
    rows = {" ".join(row[:-1]): row[-1] for row in table(pushctl(own, "status"))}
    assert rows["pid"] == str(own.process.pid)
    assert rows["ready"] == "yes"
    assert rows["disk full"] == "no"
    assert "users" not in told(pushctl(own, "stats", "--json"))
    await a.command("friends", page="x")
    assert told(pushctl(own, "stats", "--json"))["refusals"]["4003"] >= 1


async def test_users(own: Process) -> None:
    """`users` finds by a part of name or phone and by id, and shows who is disabled."""
    name = new_name()
    a = await own.dial.user(started=True, username=name)
    for words in (name, name.lower()[2:], a.phone, a.phone[2:], a.user_id):
        found = told(pushctl(own, "users", words, "--json"))
        assert a.user_id in [user["userId"] for user in found], words
    [user] = told(pushctl(own, "users", name, "--json"))
    assert (user["username"], user["phone"], user["state"]) == (name, a.phone, "active")
    assert (user["devices"], user["online"]) == (1, 1)
    head, row = table(pushctl(own, "users", name))
    assert head[:2] == ["USER", "ID"]
    assert row[0] == a.user_id
    assert told(pushctl(own, "users", "nobody has this", "--json")) == []


async def test_pages(own: Process) -> None:
    """Lists are fetched page by page, up to --limit; 0 is no limit."""
    wire = operator(own)
    for _ in range(3):
        await own.dial.user()
    everybody = told(pushctl(own, "users", "--json", "--limit", "0"))
    ids = [int(user["userId"]) for user in everybody]
    assert ids == sorted(set(ids))
    assert len(ids) >= 3
    assert told(pushctl(own, "users", "--json", "--limit", "2")) == everybody[:2]
    page = await wire.command("users", size=2)
    assert len(page["result"]) == 2
    rest = await wire.command("users", size=1000, page=page["next"])
    assert [user["userId"] for user in rest["result"]] == [str(one) for one in ids[2:]]
    numbers = await wire.command("sessions", size=1)
    more = await wire.command("sessions", size=1, page=numbers["next"])
    assert more["result"][0]["connection"] > numbers["result"][0]["connection"]
    assert (await wire.command("users", size=1001))["field"] == "size"


async def test_online_and_sessions(own: Process) -> None:
    """`online` lists who is logged in; `sessions` tells each connection's state and backlog."""
    a, b = await own.dial.pair()
    c = await own.dial.user()
    online = {user["userId"] for user in told(pushctl(own, "online", "--json", "--limit", "0"))}
    assert {a.user_id, b.user_id, c.user_id} <= online
    await a.say(b.user_id, "unacked")
    await b.expect_delivery()
    [session] = told(pushctl(own, "sessions", b.user_id, "--json"))
    assert session["connection"] == int((await b.ok("whoami"))["connection"])
    assert (session["state"], session["address"]) == ("started", "127.0.0.1")
    assert session["waiting"] >= 1
    [session] = told(pushctl(own, "sessions", c.phone, "--json"))
    assert (session["state"], session["deviceId"]) == ("logged in", "")
    states = {each["state"] for each in told(pushctl(own, "sessions", "--json", "--limit", "0"))}
    assert {"operator", "started", "logged in"} <= states
    assert pushctl(own, "sessions", "no such user").exit_code == 1
    assert table(pushctl(own, "online"))[0][0] == "USER"


# Verbs that act


async def test_kick(own: Process) -> None:
    """A kicked client reads a last frame that says it may come back, and it may."""
    a = await own.dial.user(started=True)
    push_id = a.push_id
    assert told(pushctl(own, "kick", a.user_id, "--json")) == {"userId": a.user_id, "closed": 1}
    last = (await a.rest())[-1]
    assert (last["status"], last["retryAfter"]) == (5030, 3)
    assert last["event"] == {"name": "shutdown"}
    again, reply = await own.dial.resume(push_id)
    assert reply["userId"] == a.user_id
    number = (await again.ok("whoami"))["connection"]
    assert pushctl(own, "kick", "--connection", number).stdout == "1 closed\n"
    await again.rest()
    assert pushctl(own, "kick", "--connection", number).exit_code == 1
    assert pushctl(own, "kick", a.user_id).exit_code == 1
    entries = [entry for entry in await audited(own, "evict") if entry["userId"] == a.user_id]
    assert [entry["outcome"][:4] for entry in entries] == ["4005", "ok", "ok"]


async def test_disable_and_enable(own: Process) -> None:
    """A disabled account is signed out at once and cannot log in until it is enabled."""
    name = new_name()
    a = await own.dial.user(started=True, username=name)
    assert pushctl(own, "disable", name).stdout == f"{a.user_id} is disabled\n"
    last = (await a.rest())[-1]
    assert (last["status"], last["event"]) == (11001, {"name": "signed_out"})
    b = await own.dial()
    assert (await b.command("login", phone=a.phone, password=PASSWORD))["status"] == 4004
    assert "disabled" in pushctl(own, "users", a.phone).stdout
    again = pushctl(own, "disable", a.phone)
    assert again.exit_code == 1
    assert "disabled already" in again.stderr
    assert pushctl(own, "enable", a.phone).exit_code == 0
    await b.login(a.phone)
    outcomes = [(e["outcome"], e["detail"]) for e in await audited(own, "disable")][:2]
    shown = f"user={a.user_id}"
    assert outcomes == [("4004 this account is disabled already (user)", shown), ("ok", shown)]
    assert (await audited(own, "enable"))[0]["userId"] == a.user_id


async def test_reset_password(own: Process) -> None:
    """The new password is read or made, shown once if made, and in no audit and no log."""
    a = await own.dial.user(started=True)
    result = pushctl(own, "reset_password", a.user_id, input="another secret\n")
    assert result.stdout == f"{a.user_id} has another password\n"
    assert (await a.rest())[-1]["event"] == {"name": "signed_out"}
    b = await own.dial()
    assert (await b.command("login", phone=a.phone, password=PASSWORD))["status"] == 10000
    await b.login(a.phone, "another secret")
    made = told(pushctl(own, "reset_password", a.user_id, "--generate", "--json"))["password"]
    assert len(made) >= 16
    await (await own.dial()).login(a.phone, made)
    assert pushctl(own, "reset_password", a.user_id).exit_code == 2  # nothing on standard input
    assert pushctl(own, "reset_password", a.user_id, input="short\n").exit_code == 1
    everything = json.dumps(await audited(own, "reset_password")) + own.log_text()
    for secret in ("another secret", made, "short"):
        assert secret not in everything


async def test_register_and_unregister(own: Process) -> None:
    """Accounts are made and deleted as people do it; a deletion asks first."""
    phone, name = new_phone(), new_name()
    result = pushctl(own, "register", phone, name, input=f"{PASSWORD}\n")
    assert result.exit_code == 0
    a = await own.dial()
    await a.login(phone)
    assert result.stdout == f"{a.user_id} is registered\n"
    assert pushctl(own, "register", phone, "--generate").exit_code == 1
    refused = pushctl(own, "unregister", name)
    assert refused.exit_code == 1
    assert await a.ok("account")
    assert told(pushctl(own, "unregister", name, "--yes", "--json")) == {"userId": a.user_id}
    assert (await a.rest())[-1]["event"] == {"name": "signed_out"}
    assert pushctl(own, "unregister", phone, "--yes").exit_code == 1
    outcomes = [entry["outcome"] for entry in await audited(own, "register_user")][:2]
    assert outcomes == ["7001 this phone is registered already (phone)", "ok"]
    made = (await audited(own, "register_user"))[1]
    assert (made["userId"], made["detail"]) == (a.user_id, f"username={name}")
    assert [entry["outcome"] for entry in await audited(own, "unregister")][1] == "ok"


async def test_loglevel(own: Process) -> None:
    """The level is shown, and changed until the next start."""
    assert pushctl(own, "loglevel").stdout == "info\n"
    assert told(pushctl(own, "loglevel", "debug", "--json")) == {"level": "debug"}
    assert pushctl(own, "loglevel").stdout == "debug\n"
    assert pushctl(own, "loglevel", "loud").exit_code == 2
    pushctl(own, "loglevel", "info")
    assert (await audited(own, "loglevel"))[0]["detail"] == "level=info"


async def test_reports(own: Process) -> None:
    """What people report is listed until it is done with."""
    a, b = await own.dial.pair()
    await a.ok("report", userId=b.user_id, reason="spam \x1b[2J")
    [found] = [r for r in told(pushctl(own, "reports", "--json")) if r["by"] == a.user_id]
    assert (found["userId"], found["done"]) == (b.user_id, "")
    printed = pushctl(own, "reports").stdout
    assert "\x1b" not in printed
    assert "spam \\u001b[2J" in printed
    number = str(found["number"])
    assert pushctl(own, "report", number).exit_code == 2
    assert pushctl(own, "report", number, "--done").exit_code == 0
    assert not [r for r in told(pushctl(own, "reports", "--json")) if r["by"] == a.user_id]
    [kept] = [r for r in told(pushctl(own, "reports", "--all", "--json")) if r["by"] == a.user_id]
    assert kept["done"]
    assert pushctl(own, "report", "999999", "--done").exit_code == 1
    assert (await audited(own, "close_report"))[1]["userId"] == b.user_id


async def test_stop(server: StartServer) -> None:
    """`stop` answers, then the server ends in order; the action is in the audit of the next one."""
    process = server()
    assert told(pushctl(process, "stop", "--json"))["pid"] == process.process.pid  # type: ignore[union-attr]
    assert await process.ended() == 0
    gone = pushctl(process, "status")
    assert gone.exit_code == 3
    assert gone.stdout == ""
    process.start()
    assert (await audited(process, "stop"))[0]["outcome"] == "ok"


# The audit


async def test_who_did_it(own: Process) -> None:
    """An entry names the user and the process at the other end; looking is not written down."""
    pushctl(own, "enable", "no such user")
    entry = (await audited(own, "enable"))[0]
    assert entry["actor"] == f"uid {os.geteuid()} pid {os.getpid()}"
    assert entry["outcome"].startswith("6004")
    assert not await audited(own, "users")
    assert not await audited(own, "stats")


async def test_a_request_that_cannot_be_read_is_written_down(own: Process) -> None:
    """What is refused before its handler runs is in the audit as well."""
    wire = operator(own)
    assert (await wire.command("disable", user=5))["status"] == 4003
    assert (await audited(own, "disable"))[0]["outcome"].startswith("4003")


async def test_logins(own: Process) -> None:
    """Logins are written down with their outcome, and found by user and by time."""
    a = await own.dial.user()
    b = await own.dial()
    await b.command("login", phone=a.phone, password="wrong password")
    await b.command("login", phone=a.phone, password="wrong password")
    await b.login(a.phone)
    found = told(pushctl(own, "audit", "--user", a.phone, "--json"))
    assert {(e["action"], e["outcome"], e["count"]) for e in found} == {
        ("login", "wrong password", 2),
        ("login", "ok", 1),
    }
    assert {entry["actor"] for entry in found} == {"127.0.0.1"}
    assert told(pushctl(own, "audit", "--user", a.phone, "--since", "1h", "--json")) == found
    assert told(pushctl(own, "audit", "--user", a.phone, "--since", "2999-01-01", "--json")) == []
    assert len(told(pushctl(own, "audit", "--limit", "1", "--json"))) == 1
    assert pushctl(own, "audit", "--since", "yesterday").exit_code == 2
    assert table(pushctl(own, "audit", "--limit", "1"))[0][0] == "DATE"


async def test_a_flood_of_guesses(server: StartServer) -> None:
    """Many guesses make few entries, and push out no action of an operator."""
    process = server(audit_rows=100)
    pushctl(process, "loglevel", "warning")
    wires = [await process.dial() for _ in range(4)]
    for wire in wires:
        guesses = [{"cmd": "login", "phone": new_phone(), "password": PASSWORD} for _ in range(100)]
        await wire.send_raw(lines(*guesses))
    for wire in wires:
        for _ in range(100):
            assert (await wire.recv())["status"] == 6004
    found = await audited(process, "login")
    assert sum(entry["count"] for entry in found) == 400
    assert len(found) < 20
    assert {(entry["outcome"], entry["userId"]) for entry in found} == {("unknown user", "")}
    assert len(await audited(process, "loglevel")) == 1


async def test_logins_survive_a_stop(server: StartServer) -> None:
    """What was counted in the last seconds is written before the end."""
    process = server()
    a = await process.dial.user()
    await (await process.dial()).login(a.phone)
    assert process.stop() == 0
    process.start()
    assert (await audited(process, "login"))[0]["userId"] == a.user_id


# Where the socket is


@pytest.mark.slow
def test_it_is_found_by_the_settings(own: Process, tmp_path: Path) -> None:
    """Without --socket the settings say where it is: --data, environment, file."""
    file = tmp_path / "some.toml"
    file.write_text(f'[server]\ndata = "{own.data}"\n')
    for words, environ in (
        (["--data", str(own.data)], {}),
        (["-c", str(file)], {}),
        ([], {"PUSHD_SERVER_DATA": str(own.data)}),
    ):
        result = CliRunner().invoke(command, ["stats", "--json", *words], env=environ)
        assert own.process is not None
        assert json.loads(result.stdout)["pid"] == own.process.pid
    none = CliRunner().invoke(command, ["stats"], env={"PUSHD_SERVER_CONTROL": ""})
    assert none.exit_code == 1
    bad = CliRunner().invoke(command, ["stats"], env={"PUSHD_LIMITS_PAGE": "x"})
    assert bad.exit_code == 1


def test_ping(own: Process) -> None:
    """`ping` goes by the socket too."""
    assert "answered in" in pushctl(own, "ping").stdout
    assert told(pushctl(own, "ping", "--json"))["milliseconds"] > 0


ODD: list[Any] = [
    *("", " ", "x", "0", "-1", "１０００１", "9" * 20, "x" * 400, "a\0b", "\x1b[2J", "%_\\", "+"),
    *("after:1", "after:1.2", "+8618870742138", None, True, False, [], {}),
    *(0, -1, 7, 2**53 - 1, 2**53, 2**64, 1.5),
]


@pytest.mark.parametrize("row", OPERATOR_ROWS, ids=lambda row: row.name)
async def test_odd_values(own: Process, row: Any) -> None:
    """Whatever stands in a field of an operator's row, the answer is no 5000 and has its shape."""
    if row.name == "stop":
        pytest.skip("it has no fields, and ends the server")
    wire = operator(own)
    [told] = await wire.ok("help", name=row.name)
    for name in told["fields"]:
        for value in ODD:
            reply = await wire.command(row.name, **{name: value})
            assert reply["status"] not in (5000, 5030), (name, value, reply)
            assert type(reply["result"]) is (list if row.listing else dict)
            await wire.fence()  # ten bad lines in a row would close the connection
    await wire.command("loglevel", level="info")
    await wire.ok("ping")
