"""HUP: the running server takes over what it may, says what it may not, and refuses what is bad."""

import json
import signal
from collections.abc import Callable

from .operated import Operated
from .people import new_name
from .process import variable
from .wire import frame, text

Operate = Callable[..., Operated]


async def test_new_limits_bite_on_what_is_connected(operated: Operate) -> None:
    """Open connections are bound by the new limits from their next frame on; nobody is dropped."""
    own = operated("[limits]\ntext = 100\n[auth]\nstrangers = 'refuse'\n")
    a, b = await own.dial.user(started=True), await own.dial.user(started=True)
    await a.refused(4004, frame([text(b.user_id, "hello")], a.push_id))
    own.file.write_text("[limits]\ntext = 4\npage_max = 20\n[auth]\nstrangers = 'allow'\n")
    told = await own.hup()
    assert told["changed"] == '["auth.strangers", "limits.text", "limits.page_max"]'
    assert told["files"] == f'["{own.file}"]'
    reply = await a.refused(4003, frame([text(b.user_id, "hello")], a.push_id))
    assert reply["field"] == "message[0].info[0].content"
    await a.say(b.user_id, "four")
    await b.expect_delivery(ack=True)
    assert (await a.command("friends", size=21))["field"] == "size"
    own.file.write_text("")
    assert (await own.hup())["changed"] == told["changed"]
    assert (await a.command("friends", size=21))["status"] == 1


async def test_a_full_queue_follows(operated: Operate) -> None:
    """What the writer's thread and the store's verbs hold of the settings changes as well."""
    own = operated("[queue]\nmessages = 100\n[limits]\ngroup_members = 2\n")
    a, b = await own.dial.pair()
    b.close()
    own.file.write_text("[queue]\nmessages = 2\n[limits]\ngroup_members = 1\n")
    await own.hup()
    for number in range(4):
        await a.say(b.user_id, str(number))
    _, reply = await own.dial.resume(b.push_id)
    assert reply["queued"] == 3  # two, and the gap that stands for the others
    name = new_name()
    members = await a.command("create_group", name=name, kind="group", userIds=[b.user_id])
    assert members["status"] == 4006


async def test_the_log_level_changes(operated: Operate) -> None:
    """Frames are logged once the level is debug, and no more when it is not."""
    own = operated("[log]\nlevel = 'warning'\n")
    wire = await own.dial()
    await wire.fence()
    assert own.lines() == []
    own.file.write_text("[log]\nlevel = 'debug'\n")
    await own.hup()
    await wire.fence()
    await own.line("frame")
    own.file.write_text("[log]\nlevel = 'error'\n[limits]\nbroken = 1\n")
    await own.hup("not reloaded, all settings stay")
    own.file.write_text("[log]\nlevel = 'error'\n")
    await own.hup()
    await wire.fence()
    own.dial.close()
    own.stop()
    assert own.lines()[-1]["event"] == "reloaded"


async def test_a_bad_file_is_refused_whole(operated: Operate) -> None:
    """Nothing of it holds, each error is one line of the log, and the next good one is taken."""
    own = operated("[limits]\npage = 7\n")
    wire = await own.dial.user()
    own.file.write_text("[limits]\npage_max = 20\npge = 5\n[queue]\ndays = -1\n")
    told = await own.hup("not reloaded, all settings stay")
    assert told["errors"] == 2
    assert [line["problem"] for line in own.lines("bad setting")] == [
        f"{own.file}:3: limits.pge: unknown setting, did you mean page?",
        f"{own.file}:5: queue.days: must be from 1 to 36500 (days), not -1",
    ]
    assert (await wire.command("friends", size=21))["status"] == 1
    own.file.write_text("[limits]\npage_max = 20\n")
    assert (await own.hup())["changed"] == '["limits.page", "limits.page_max"]'
    own.file.unlink()
    await own.hup("not reloaded, all settings stay")
    assert (await wire.command("friends", size=21))["field"] == "size"
    assert own.stop() == 0


async def test_what_needs_a_restart_is_named(operated: Operate) -> None:
    """Where it listens and where its data lies stay; the rest of the same file is taken over."""
    own = operated("[server]\nbacklog = 100\n")
    own.file.write_text(
        "[server]\nbacklog = 50\nzone = 'Asia/Shanghai'\n[store]\nreaders = 3\n[limits]\npage = 5\n"
    )
    assert (await own.hup())["changed"] == '["limits.page"]'
    named = [line["setting"] for line in own.lines("takes effect at the next start")]
    assert named == ["server.zone", "server.backlog", "store.readers"]
    wire = await own.dial.user()
    await wire.fence()


async def test_flags_and_variables_still_win(operated: Operate) -> None:
    """A reload reads the file anew; flags and environment are those of the start."""
    own = operated("", "--log-level", "info", limits_text=50)
    assert variable("limits_text") == "PUSHD_LIMITS_TEXT"
    own.file.write_text("[log]\nlevel = 'error'\n[limits]\ntext = 3\npage = 5\n")
    (own.folder / "conf.d").mkdir()
    (own.folder / "conf.d" / "a.toml").write_text("[limits]\npage = 6\ntext = 2\n")
    assert (await own.hup())["changed"] == '["limits.page"]'
    a, b = await own.dial.pair()
    await a.say(b.user_id, "hello")


async def test_hups_in_a_row(operated: Operate) -> None:
    """However many come at once, the last file holds, and the server serves on."""
    own = operated("")
    wire = await own.dial.user()
    for size in range(20, 40):
        own.file.write_text(f"[limits]\npage_max = {size}\n")
        own.signal(signal.SIGHUP)
        own.signal(signal.SIGHUP)
    # Before the first reload the default holds, in which both sizes are allowed.
    while [(await wire.command("friends", size=size))["status"] for size in (39, 40)] != [1, 4003]:
        await own.line("reloaded")
    assert own.stop() == 0


async def test_a_hup_during_the_shutdown(operated: Operate) -> None:
    """It changes nothing and ends nothing: the shutdown goes on and its code is 0."""
    own = operated("")
    await own.dial.pair()
    own.signal(signal.SIGTERM)
    assert own.process is not None
    while own.process.poll() is None:
        own.signal(signal.SIGHUP)
        own.signal(signal.SIGUSR1)
    assert own.process.returncode == 0
    assert own.lines("stopped")[-1]["code"] == 0


async def test_a_hup_during_the_start(operated: Operate) -> None:
    """One that comes before the server can reload does not end it, and is not forgotten."""
    own = operated("", start=False)
    # From the very first instruction on, which is more than a real start can promise.
    own.options["preexec_fn"] = lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    own.spawn()
    own.signal(signal.SIGHUP)
    await own.listening()
    await own.line("reloaded")
    assert own.stop() == 0


async def test_usr1_tells_the_state(operated: Operate) -> None:
    """One line for each kind of thing, and for the connections that hold most."""
    own = operated("")
    a, b = await own.dial.pair()
    await a.say(b.user_id, "Walrus-5512")
    await b.expect_delivery()
    # The server may take a signal before a connection that was made before it.
    await (await own.dial()).fence()
    own.signal(signal.SIGUSR1)
    await own.line("state: connection", 3)
    counts = own.lines("state: connections")[-1]
    assert (counts["open"], counts["devices"]) == (3, 2)
    assert json.loads(counts["states"]) == {"STARTED": 2, "ANONYMOUS": 1}
    queues = own.lines("state: queues")[-1]
    assert (queues["pending"], queues["in_flight"]) == (0, 1)
    assert own.lines("state: store")[-1]["waiting"] == 0
    assert own.lines("state: budgets")[-1]["searches"] == 0
    tasks = own.lines("state: tasks")[-1]
    # As it is named in a compiled build.
    assert tasks.get("Writer_run", tasks.get("run_Writer_gen")) == 1
    first = own.lines("state: connection")[-3]
    assert (first["user"], first["in_flight"]) == (int(b.user_id), 1)
    for secret in ("Walrus-5512", a.push_id, b.push_id, a.phone):
        assert secret not in own.log_text()
