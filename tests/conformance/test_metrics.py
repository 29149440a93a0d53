"""What the server tells Prometheus: each metric moves by what was done, and by nothing else."""

import asyncio
import base64
import os
import resource
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from pushd.metrics import METRICS as ROWS

from .authority import Authority, ask, dial
from .people import failed
from .process import StartServer
from .scrape import METRICS, Series, moved, series, until
from .wire import befriend, frame, text

# As METRICS, but the store is asked once: no probe of the store is among its commits.
ONCE = {**METRICS, "metrics_refresh_seconds": 3600}


def test_every_metric_is_read_by_a_test() -> None:
    """No metric is without a test in this file."""
    source = Path(__file__).read_text("utf-8")
    assert [row.name for row in ROWS if row.name not in source] == []


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_connections(server: StartServer, loop: str) -> None:
    """Connections are counted by listener, sessions by login and devices by start."""
    own = server(loop, **METRICS)
    before = await series(own)
    wires = [await own.dial() for _ in range(3)]
    for wire in wires:
        await wire.fence()
    await wires[0].register()
    await wires[1].register()
    await wires[1].start()
    after = await series(own)
    assert moved(before, after, "pushd_connections") == {"listener=tcp": 3}
    assert moved(before, after, "pushd_connections_accepted_total") == {"listener=tcp": 3}
    assert moved(before, after, "pushd_sessions") == {"": 2}
    assert moved(before, after, "pushd_devices_online") == {"": 1}
    assert moved(before, after, "pushd_open_files") == {"": 3}
    for wire in wires:
        wire.close()
    gone = await until(own, lambda now: now["pushd_connections{listener=tcp}"] == 0)
    for name in ("pushd_sessions", "pushd_devices_online", "pushd_open_files"):
        assert moved(before, gone, name) == {}
    assert moved(after, gone, "pushd_connections_accepted_total") == {}


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_handshakes(server: StartServer, loop: str, tmp_path: Path) -> None:
    """A TLS handshake that is refused or takes too long is counted, a good one is not."""
    authority = Authority(tmp_path)
    own = authority.start(server, loop=loop, tls_handshake_seconds=1, **METRICS)
    before = await series(own)
    wire = await asyncio.to_thread(authority.connect, own)
    await asyncio.to_thread(ask, wire)
    (await own.dial()).close()  # by the plain listener
    silent = dial(own.addresses[-1])
    wrong = dial(own.addresses[-1], b"GET / HTTP/1.1\r\n\r\n")
    name = "pushd_tls_handshakes_failed_total"
    after = await until(own, lambda now: now[name] >= before[name] + 2)
    assert moved(before, after, name) == {"": 2}
    for sock in (wire, silent, wrong):
        sock.close()


async def test_sessions_end(server: StartServer) -> None:
    """A session is one until it is logged out, replaced or signed out."""
    own = server(**METRICS)
    a = await own.dial.user(started=True)
    b = await own.dial.device(a)
    c, _ = await own.dial.resume(a.push_id)
    now = await until(own, lambda now: now["pushd_connections{listener=tcp}"] == 2)
    assert (now["pushd_sessions"], now["pushd_devices_online"]) == (2, 2)
    await c.ok("logout")
    now = await series(own)
    assert (now["pushd_sessions"], now["pushd_devices_online"]) == (1, 1)
    await b.ok("delete_account", password=b.password)
    assert (await series(own))["pushd_sessions"] == 0


async def test_frames(server: StartServer) -> None:
    """Each line is counted once, by what it was; a blank one is none."""
    own = server(**METRICS)
    a, b = await own.dial.pair()
    before = await series(own)
    await a.heartbeat()
    await a.send_raw(b"\n \n")
    await a.exchange(frame([text(b.user_id, "hi"), text(b.user_id, "hi")], a.push_id))
    await a.refused(4003, frame([], a.push_id))
    await a.refused(6004, frame([text("10099", "hi")], a.push_id))
    await b.take(2)
    await b.read_mark(fromId=a.user_id, toId=b.user_id)
    await a.refused(4000, b"{")
    await a.refused(4003, frame("hello", a.push_id))
    await a.refused(11000, frame("start", ""))
    await b.fence()
    c, _ = await own.dial.resume(b.push_id)
    after = await series(own)
    kinds = moved(before, after, "pushd_frames_total")
    oks = kinds.pop("kind=ok")
    assert oks in (1, 2)  # a packet may hold both messages
    assert kinds == {
        "kind=heartbeat": 1,
        "kind=list": 3,
        "kind=read": 1,
        "kind=bad": 2,
        "kind=start": 1,
        "kind=restart": 1,
        "kind=command": 1,
    }
    c.close()


async def test_commands(server: StartServer) -> None:
    """Commands are counted by name; what is none makes no series of its own."""
    own = server(**METRICS)
    a = await own.dial.user()
    before = await series(own)
    await a.fence()
    await a.fence()
    await failed(a, 4003, "history", [], limit="x")
    for name in ("pingg", "x" * 1000, "drop"):
        await a.refused(4002, {"cmd": name})
    after = await series(own)
    expected = {"cmd=ping": 2, "cmd=history": 1, "cmd=unknown": 3}
    assert moved(before, after, "pushd_commands_total") == expected
    assert moved(before, after, "pushd_frames_total") == {"kind=command": 6}


async def test_refusals(server: StartServer) -> None:
    """Refusals are counted by status, of commands, lists and lines; an empty search is none."""
    own = server(limits_line_before_login=256, **METRICS)
    a = await own.dial.user()
    b = await own.dial()
    before = await series(own)
    await a.refused(6004, frame([text("10099", "hi")], ""))
    await a.refused(4004, frame([text(a.user_id, "hi", fromId="10099")], ""))
    await a.refused(4000, b"{")
    await a.refused(6004, {"cmd": "add_friend", "userId": "10099"})
    await b.refused(11001, frame([text("10099", "hi")], ""))
    await b.refused(4001, b"x" * 300)
    reply = await a.command("search", username="nobody")
    assert reply["status"] == 0
    after = await series(own)
    assert moved(before, after, "pushd_refusals_total") == {
        "status=4000": 1,
        "status=4001": 1,
        "status=4004": 1,
        "status=6004": 2,
        "status=11001": 1,
    }


async def test_bytes(server: StartServer) -> None:
    """Bytes are counted as they are on the wire."""
    own = server(**METRICS)
    a = await own.dial()
    await a.fence()
    before = await series(own)
    line = b'{"cmd":"ping","text":"0123456789"}\r\n'
    await a.send_raw(line * 10)
    received = [await a.recv_line() for _ in range(10)]
    after = await series(own)
    assert moved(before, after, "pushd_received_bytes_total") == {"": len(line) * 10}
    sent = sum(len(each) + 1 for each in received)
    assert moved(before, after, "pushd_sent_bytes_total") == {"": sent}


async def test_messages(server: StartServer) -> None:
    """Messages are counted when they are confirmed, delivered and acked; what waits is told."""
    own = server(**METRICS)
    a, b = await own.dial.pair()
    before = await series(own)
    await a.exchange(frame([text(b.user_id, "hi") for _ in range(5)], a.push_id))
    found = await b.expect_delivery(5)
    between = await series(own)
    assert moved(before, between, "pushd_messages_accepted_total") == {"": 5}
    assert moved(before, between, "pushd_messages_delivered_total") == {"": 5}
    assert moved(before, between, "pushd_messages_acked_total") == {}
    assert moved(before, between, "pushd_queue_messages") == {"": 5}
    oldest = moved(before, between, "pushd_queue_oldest_seconds")
    assert set(oldest) == {"devices=all", "devices=online"}
    assert all(0 < age < 5 for age in oldest.values())
    await b.ack(found[2]["seq"])
    await b.fence()
    after = await series(own)
    assert moved(before, after, "pushd_messages_acked_total") == {"": 3}
    assert moved(before, after, "pushd_queue_messages") == {"": 2}
    b.close()
    gone = await until(own, lambda now: now["pushd_devices_online"] == 1)
    assert gone["pushd_queue_oldest_seconds{devices=online}"] == 0
    assert gone["pushd_queue_oldest_seconds{devices=all}"] > oldest["devices=all"]
    again, _ = await own.dial.resume(b.push_id)
    await again.take(2)
    await again.fence()
    done = await series(own)
    assert moved(before, done, "pushd_messages_acked_total") == {"": 5}
    assert moved(before, done, "pushd_messages_delivered_total") == {"": 7}
    assert moved(before, done, "pushd_queue_messages") == {}
    assert done["pushd_queue_oldest_seconds{devices=all}"] == 0


async def test_commits(server: StartServer) -> None:
    """A list is one commit and one sync, however many messages it holds."""
    own = server(**ONCE)
    a, b = await own.dial.pair()
    before = await series(own)
    await a.exchange(frame([text(b.user_id, "hi") for _ in range(7)], a.push_id))
    after = await series(own)
    assert moved(before, after, "pushd_commits_total") == {"": 1}
    assert moved(before, after, "pushd_commit_operations_count") == {"": 1}
    assert moved(before, after, "pushd_commit_operations_sum") == {"": 7}
    assert moved(before, after, "pushd_commit_seconds_count") == {"": 1}
    assert moved(before, after, "pushd_sync_seconds_count") == {"": 1}
    in_all = moved(before, after, "pushd_commit_seconds_sum")[""]
    assert 0 < moved(before, after, "pushd_sync_seconds_sum")[""] < in_all < 5
    buckets = moved(before, after, "pushd_commit_operations_bucket")
    assert buckets["le=8.0"] == buckets["le=+Inf"] == 1
    assert "le=4.0" not in buckets


async def test_the_probe_is_one_commit(server: StartServer) -> None:
    """Whoever reads makes one commit at most, and none while the last one is young."""
    own = server(**METRICS)
    before = await series(own)
    for _ in range(20):
        last, before = before, await series(own)
        if moved(last, before, "pushd_commits_total") == {"": 1}:
            break
    else:
        # The upkeep of the start commits too, and is over long before.
        raise AssertionError("reading never makes one commit alone")
    own = server(**ONCE)
    read = [await series(own)]

    def quiet(now: Series) -> bool:
        read.append(now)
        return moved(read[-2], now, "pushd_commits_total") == {}

    # The upkeep of the start ends; a commit for each who reads would not.
    await until(own, quiet)


async def test_what_waits_for_the_writer(server: StartServer) -> None:
    """Messages that are handed in wait until they are committed."""
    own = server(**ONCE)
    a, b = await own.dial.pair()
    await series(own)
    other = sqlite3.connect(own.data / "pushd.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await a.send_line(frame([text(b.user_id, "hi") for _ in range(6)], a.push_id))
    now = await until(own, lambda now: now["pushd_writer_waiting"] > 0)
    assert now["pushd_writer_waiting"] == 6
    other.execute("ROLLBACK")
    other.close()
    await a.reply()
    assert (await series(own))["pushd_writer_waiting"] == 0


async def test_logins(server: StartServer) -> None:
    """Logins are counted by what became of them, and budgets by what they refused."""
    own = server(limits_per_address=True, limits_wrong_passwords=2, limits_groups=1, **METRICS)
    a = await own.dial.user()
    b = await own.dial()
    # A password of another address: one that has succeeded here does not wait.
    own_phone = a.phone
    before = await series(own)
    await b.refused(8001, {"cmd": "login", "phone": "1", "password": "secret66"})
    await b.refused(6004, {"cmd": "login", "phone": "13900000001", "password": "secret66"})
    wrong = {"cmd": "login", "phone": "13900000002", "password": "secret66"}
    await b.refused(6004, wrong)
    await b.refused(6004, wrong)
    await b.refused(4290, wrong)
    await b.refused(10000, {"cmd": "login", "phone": own_phone, "password": "secret67"})
    await b.login(own_phone)
    await a.ok("create_group", name="one", kind="group")
    await failed(a, 4290, "create_group", {}, name="two", kind="group")
    after = await series(own)
    assert moved(before, after, "pushd_logins_total") == {
        "outcome=ok": 1,
        "outcome=wrong_password": 1,
        "outcome=unknown_user": 3,
        "outcome=limited": 1,
        "outcome=refused": 1,
    }
    expected = {"budget=groups": 1, "budget=wrong_passwords": 1}
    assert moved(before, after, "pushd_budgets_refused_total") == expected


async def test_the_budget_of_messages(server: StartServer) -> None:
    """Lists over the budget of messages are counted with the others."""
    own = server(limits_messages=2, **METRICS)
    a, b = await own.dial.user(), await own.dial.user()
    await befriend(a, b)
    before = await series(own)
    lines = [frame([text(b.user_id, "hi")] * 2), frame([text(b.user_id, "hi")])]
    await a.exchange(lines[0])
    await a.refused(4290, lines[1])
    expected = {"budget=messages": 1}
    assert moved(before, await series(own), "pushd_budgets_refused_total") == expected


async def test_passwords_in_line(server: StartServer) -> None:
    """Passwords that are hashed or wait are told while they do."""
    own = server(auth_bcrypt_cost=12, auth_bcrypt_threads=1, **METRICS)
    wires = [await own.dial() for _ in range(4)]
    for number, wire in enumerate(wires):
        request = {"cmd": "register", "phone": f"1390000000{number}", "password": "secret66"}
        await wire.send_line(request)
    now = await until(own, lambda now: now["pushd_commands_total{cmd=register}"] >= 1)
    assert now["pushd_password_jobs"] in (1, 2, 3)
    for wire in wires:
        assert (await wire.reply())["status"] == 1
    assert (await series(own))["pushd_password_jobs"] == 0


async def test_media(server: StartServer) -> None:
    """Stored files are told by their bytes; one that is there already takes none."""
    own = server(**METRICS)
    a = await own.dial.user()
    before = await series(own)
    for content in (b"x" * 1000, b"y" * 234, b"x" * 1000):
        await a.ok("save_file", name="a", content=base64.b64encode(content).decode())
    assert moved(before, await series(own), "pushd_media_bytes") == {"": 1234}


async def test_damaged_messages(server: StartServer) -> None:
    """A message is counted each time that it is read and is not what was written."""
    own = server(**METRICS)
    a, b = await own.dial.pair()
    push_id = b.push_id
    b.close()
    await a.post(text(b.user_id, "as it was"))
    assert (await series(own))["pushd_damaged_messages_total"] == 0
    own.stop()
    with closing(sqlite3.connect(own.data / "pushd.db")) as db, db:
        db.execute("UPDATE message SET body = replace(body, 'as it was', 'as it is!')")
    own.restart()
    b, _ = await own.dial.resume(push_id)
    (gap,) = await b.take(1)
    assert gap["event"]["name"] == "gap"
    assert (await series(own))["pushd_damaged_messages_total"] == 1


async def test_the_disk(server: StartServer) -> None:
    """Sizes are those of the files, and the free space that of their disk."""
    own = server(**ONCE)
    await own.dial.user()
    now = await series(own)
    assert now["pushd_store_bytes"] == (own.data / "pushd.db").stat().st_size
    assert now["pushd_store_wal_bytes"] == (own.data / "pushd.db-wal").stat().st_size > 0
    assert abs(now["pushd_disk_free_bytes"] - shutil.disk_usage(own.data).free) < 1 << 30
    assert now["pushd_disk_full"] == 0


def resident(process: int) -> int:
    """The memory of a process, as the system has it."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def threads(process: int) -> int:
    """How many threads a process has, as the system knows it."""
    return len(os.listdir(f"/proc/{process}/task"))


async def test_the_process(server: StartServer) -> None:
    """Memory, time and versions are those of the process."""
    own = server("asyncio", **METRICS)
    assert own.process is not None
    began = time.monotonic()
    before = await series(own)
    assert abs(before["pushd_memory_bytes"] - resident(own.process.pid)) < 8 << 20
    after = await until(own, lambda now: now["pushd_uptime_seconds"] > 0.5)
    passed = moved(before, after, "pushd_uptime_seconds")[""]
    assert 0 < passed <= time.monotonic() - began
    assert 0 < moved(before, after, "pushd_cpu_seconds_total")[""] < 10
    files = resource.prlimit(own.process.pid, resource.RLIMIT_NOFILE)[0]
    assert after["pushd_open_files_max"] == files > after["pushd_open_files"] > 10
    # The thread that answered the request has ended since.
    assert 5 < after["pushd_threads"] <= threads(own.process.pid) + 1
    [info] = [name for name in after if name.startswith("pushd_build_info")]
    assert after[info] == 1
    assert f"sqlite={sqlite3.sqlite_version}" in info
    assert "loop=asyncio" in info


async def test_tasks(server: StartServer) -> None:
    """A connection that waits has no task."""
    own = server(**METRICS)
    before = (await series(own))["pushd_tasks"]
    assert before > 5
    a, b = await own.dial.pair()
    await a.say(b.user_id, "hi")
    await b.expect_delivery(ack=True)
    await b.fence()
    after = await until(own, lambda now: now["pushd_tasks"] <= before)
    assert after["pushd_sessions"] == 2


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_the_lag_of_the_loop(server: StartServer, loop: str) -> None:
    """A loop that stood still for a while was late once, and by that while."""
    own = server(loop, **METRICS)
    before = await series(own)
    own.signal(signal.SIGSTOP)
    await asyncio.sleep(0.8)  # the effect itself: the process stands for so long
    own.signal(signal.SIGCONT)
    after = await series(own)
    assert 0.6 < after["pushd_loop_lag_max_seconds"] < 3
    late = {
        name: after[f"pushd_loop_lag_seconds_{name}"] - before[f"pushd_loop_lag_seconds_{name}"]
        for name in ("count", "sum", "bucket{le=0.5}")
    }
    assert late["count"] - late["bucket{le=0.5}"] == 1
    assert late["sum"] > 0.6


async def test_ready(server: StartServer) -> None:
    """A server that is ready tells so by a metric, too."""
    own = server(**METRICS)
    assert (await series(own))["pushd_ready"] == 1


async def test_top(server: StartServer) -> None:
    """An operator gets all metrics, the devices that are behind and the longest queues."""
    own = server(**METRICS)
    a, b = await own.dial.pair()
    c = await own.dial.user()
    await befriend(a, c)
    await a.exchange(frame([text(b.user_id, "hi")] * 3, a.push_id))
    await a.exchange(frame([text(c.user_id, "hi")] * 7, a.push_id))
    await b.expect_delivery(3)
    operator = own.dial.operator(str(own.data / "control.sock"))
    found = await operator.ok("top")
    assert set(found["metrics"]) == {row.name for row in ROWS} | {"time"}
    assert found["metrics"]["pushd_messages_accepted_total"] == 10
    assert found["metrics"]["pushd_commit_operations"]["count"] > 0
    assert found["metrics"]["pushd_connections"] == {"tcp": 3, "tls": 0, "control": 1}
    [slow] = found["slowest"]
    assert (slow["userId"], slow["waiting"]) == (b.user_id, 3)
    waiting = {(row["userId"], bool(row["deviceId"])): row["waiting"] for row in found["queues"]}
    # The line of an account without a device holds the notice of the friendship as well.
    assert waiting[b.user_id, True] == 3
    assert waiting[c.user_id, False] >= 7
    assert [row["waiting"] for row in found["queues"]] == sorted(waiting.values(), reverse=True)
    one = await operator.ok("top", size=1)
    assert len(one["queues"]) == 1
    await operator.refused(4003, {"cmd": "top", "size": 21})
    await a.refused(4004, {"cmd": "top"})
