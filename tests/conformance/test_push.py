"""What an operator sends: `push` and `broadcast` on real servers, repeats and crashes included.

`own` is a server that the tests of this module share.
"""

import asyncio
import json
import sys
import time
from typing import Any

import pytest

from .conftest import ADDRESS
from .crowd import another, gathered
from .process import Process, StartServer
from .test_control import audited, operator, path_of, pushctl, table, told
from .wire import Frame, Wire, client_id, content, new_phone

pytestmark = pytest.mark.skipif(bool(ADDRESS), reason="needs a control socket")

INFO = [{"category": "0", "content": "one"}, {"category": "0", "content": "two"}]


def done(process: Process, *words: str, input: str = "") -> Any:
    return told(pushctl(process, *words, "--json", input=input))


async def told_to(wire: Wire, *texts: str) -> list[Frame]:
    """Require exactly these messages of the server's own."""
    found = await wire.expect_delivery(len(texts), ack=True)
    assert [content(one) for one in found] == list(texts)
    assert {(one["chatId"], one["fromId"], one["type"]) for one in found} == {("system", "", "0")}
    await wire.fence()
    assert not wire.pushed
    return found


async def crowd(process: Process, count: int) -> list[str]:
    """Make accounts without devices; gives their ids."""
    wire = operator(process)
    password = "Zebra-7731"
    phones = [new_phone() for _ in range(count)]
    made = [await wire.ok("register_user", phone=one, password=password) for one in phones]
    wire.close()
    return [one["userId"] for one in made]


# To some


async def test_to_users(own: Process) -> None:
    """A text goes to all devices of those who are named, once each, into their system chat."""
    a, b = await own.dial.user(started=True), await own.dial.user(started=True)
    a2 = await another(own.dial, a)
    c = await own.dial.user(started=True)
    words = ["push", "hello", "--to", a.user_id, "--to", b.phone, "--to", a.phone, "--phone"]
    found = done(own, *words, b.phone)
    assert (found["accounts"], found["devices"], found["skipped"]) == (2, 3, 0)
    got = [(await told_to(each, "hello"))[0]["msgId"] for each in (a, a2, b)]
    assert [got[0], got[2]] == found["msgIds"]
    assert got[0] == got[1]
    await c.expect_nothing()
    [shown] = await a.ok("history", chatId="system")
    assert shown["msgId"] == got[0]
    rows = {" ".join(row[:-1]): row[-1] for row in table(pushctl(own, *words, b.phone))}
    assert (rows["accounts"], rows["devices"]) == ("2", "3")


async def test_to_a_group(own: Process) -> None:
    """To a group it comes in the group's own order, one message for all."""
    group, (a, b) = await gathered(own.dial, 2)
    found = done(own, "push", "hello", "--group", group)
    assert (found["accounts"], found["devices"]) == (2, 2)
    for each in (a, b):
        [got] = await each.expect_delivery()
        assert (got["chatId"], got["fromId"], got["type"]) == (group, "", "0")
        assert [got["msgId"]] == found["msgIds"]
    assert done(own, "trace", got["msgId"])["kind"] == "group"


async def test_infos_and_expire(own: Process) -> None:
    """`--info` takes what clients send as `info`; `--expire` has it vanish."""
    a = await own.dial.user(started=True)
    done(own, "push", "--info", json.dumps(INFO), "--to", a.user_id, "--expire", "60")
    [got] = await a.expect_delivery()
    assert (got["info"], got["expire"]) == (INFO, 60)
    found = done(own, "trace", got["msgId"])
    assert found["expires"] > found["accepted"]


async def test_a_file(own: Process) -> None:
    """A picture of the server's goes to whoever may not read it before; an unknown one nowhere."""
    a, b = await own.dial.user(started=True), await own.dial.user(started=True)
    path = (await a.ok("save_file", name="x.txt", content="aGVsbG8=", purpose="message"))["path"]
    assert (await b.command("get_file", path=path))["status"] == 4005
    words = ["push", "--to", b.user_id, "--info"]
    done(own, *words, json.dumps([{"category": "3", "content": path}]))
    await b.expect_delivery()
    assert (await b.ok("get_file", path=path))["content"] == "aGVsbG8="
    result = pushctl(own, *words, '[{"category":"1","content":"media/none"}]')
    assert (result.exit_code, result.stderr) == (1, "no such file (info)\n")


async def test_standard_input(own: Process) -> None:
    """With "-" each line is a message; the same lines with the same clientId are sent once."""
    a = await own.dial.user(started=True)
    words = ["push", "-", "--to", a.user_id, "--client-id", client_id()]
    found = done(own, *words, input="one\n\n  two\r\nthree")
    assert len({one["msgIds"][0] for one in found}) == 3
    await told_to(a, "one", "  two", "three")
    assert done(own, *words, input="one\n\n  two\r\nthree") == found
    await a.expect_nothing()
    done(own, "push", "-", "--info", "--to", a.user_id, input=json.dumps(INFO) + "\n")
    [got] = await a.expect_delivery()
    assert got["info"] == INFO
    result = pushctl(own, *words[:-1], client_id(), input="good\n" + "x" * 10001 + "\nlost\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("line 2: content has at most 10000 characters (text)")
    assert result.stderr.endswith("; 1 before it are sent\n")


async def test_repeats(own: Process) -> None:
    """The same clientId and content give the same msgIds and send nothing; other ones are 4003."""
    a, b = await own.dial.user(started=True), await own.dial.user(started=True)
    name = client_id()
    words = ["push", "hello", "--client-id", name, "--to", a.user_id]
    found = done(own, *words)
    assert found["clientId"] == name
    await told_to(a, "hello")
    assert done(own, *words) == found
    for other in (
        ["push", "other", "--client-id", name, "--to", a.user_id],
        [*words, "--expire", "60"],
        [*words, "--to", b.user_id],
        ["broadcast", "hello", "--client-id", name, "--all"],
    ):
        result = pushctl(own, *other)
        assert result.exit_code == 1
        assert result.stderr == "this clientId stands for another message (clientId)\n"
    for each in (a, b):
        await each.expect_nothing()


async def test_the_audit(own: Process) -> None:
    """It is written down who pushed to whom, and never what."""
    a = await own.dial.user()
    done(own, "push", "secret words", "--to", a.phone, "--client-id", name := client_id())
    entry = (await audited(own, "push"))[0]
    assert entry["detail"] == f"users=['{a.user_id}'] client_id={name}"
    assert "secret" not in own.log_text()


# Refusals


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"users": ["USER"]}, 4003, "text"),
        ({"users": ["USER"], "text": "x", "info": INFO}, 4003, "text"),
        ({"users": ["USER"], "text": "x" * 10001}, 4003, "text"),
        ({"users": ["USER"], "text": 5}, 4003, "text"),
        (
            {"users": ["USER"], "info": [{"category": "9", "content": "x"}]},
            4003,
            "info[0].category",
        ),
        ({"users": ["USER"], "info": [{"category": "0"}]}, 4003, "info[0].content"),
        ({"users": ["USER"], "info": INFO * 11}, 4003, "info"),
        ({"users": ["USER"], "text": "x", "expire": 10**9}, 4003, "expire"),
        ({"users": ["USER"], "text": "x", "clientId": "c" * 65}, 4003, "clientId"),
        ({"text": "x"}, 4003, "users"),
        ({"users": [], "text": "x"}, 4003, "users"),
        ({"users": ["USER"] * 1001, "text": "x"}, 4003, "users"),
        ({"users": ["USER", "nobody at all"], "text": "x"}, 6004, "users[1]"),
        ({"phone": "18800000000", "text": "x"}, 6004, "phone"),
        ({"phone": "123", "text": "x"}, 8001, "phone"),
        ({"users": ["USER"], "groupId": "g1", "text": "x"}, 4003, "groupId"),
        ({"groupId": "g999999", "text": "x"}, 4005, "groupId"),
        ({"groupId": "10001-10002", "text": "x"}, 4005, "groupId"),
    ],
)
async def test_bad_requests(own: Process, fields: Frame, status: int, field: str) -> None:
    """Each bad field of `push` is named, and nothing is sent."""
    a = await own.dial.user(started=True)
    if "users" in fields:
        users = [a.user_id if one == "USER" else one for one in fields["users"]]
        fields = {**fields, "users": users}
    reply = await operator(own).command("push", **fields)
    assert (reply["status"], reply["field"], reply["result"]) == (status, field, {})
    await a.expect_nothing()


async def test_bad_next(own: Process) -> None:
    """`push_next` needs the clientId of something that was begun."""
    wire = operator(own)
    for fields, status in (({}, 4003), ({"clientId": "never"}, 4005)):
        reply = await wire.command("push_next", **fields)
        assert (reply["status"], reply["field"]) == (status, "clientId")
    assert (await wire.command("broadcast", text=""))["field"] == "text"


@pytest.mark.parametrize(
    "words",
    [
        ["push", "x"],
        ["push", "--to", "10001"],
        ["push", "x", "--to", "10001", "--group", "g1"],
        ["push", "x", "--to", "10001", "--expire", "0"],
        ["push", "no json", "--info", "--to", "10001"],
        ["push", "{}", "--info", "--to", "10001"],
        ["broadcast", "x"],
        ["broadcast", "--all"],
    ],
    ids=" ".join,
)
def test_wrong_usage(own: Process, words: list[str]) -> None:
    """Exit code 2; nothing goes to all without --all."""
    result = pushctl(own, *words)
    assert (result.exit_code, result.stdout) == (2, "")


async def test_disabled_and_deleted(own: Process) -> None:
    """Who is disabled cannot be pushed to and is skipped by a broadcast; who is deleted is none."""
    a, b = await own.dial.user(), await own.dial.user()
    await operator(own).ok("disable", user=a.user_id)
    await operator(own).ok("unregister", user=b.user_id)
    for user, said in ((a, "this account is disabled"), (b, "no such user")):
        result = pushctl(own, "push", "x", "--to", user.user_id)
        assert (result.exit_code, result.stderr) == (1, f"{said} (users[0])\n")
    assert done(own, "broadcast", "x", "--all")["skipped"] >= 1
    await operator(own).ok("enable", user=a.user_id)
    assert done(own, "queue", a.user_id) == []


# To all


async def test_broadcast(server: StartServer) -> None:
    """All accounts get it once, also what is asked for again; who comes later does not."""
    process = server()
    a = await process.dial.user(started=True)
    users = await crowd(process, 250)
    name = client_id()
    words = ["broadcast", "hello", "--all", "--client-id", name]
    found = done(process, *words)
    assert (found["accounts"], found["devices"], len(found["msgIds"])) == (251, 1, 251)
    await told_to(a, "hello")
    [late] = await crowd(process, 1)
    assert done(process, *words) == found
    assert await depths(process, [*users, late]) == [1] * 250 + [0]
    await a.expect_nothing()


async def depths(process: Process, users: list[str]) -> list[int]:
    """How much waits for each of these users."""
    wire = operator(process)
    found = [await wire.ok("queue", user=user) for user in users]
    wire.close()
    return [sum(one["depth"] for one in queues) for queues in found]


async def test_a_crash_in_the_middle(server: StartServer) -> None:
    """After kill -9 between and within steps the same clientId reaches all, and nobody twice."""
    process = server()
    users = await crowd(process, 500)
    name = client_id()
    command = ["broadcast", "hello", "--all", "--client-id", name, "--json"]
    wire = operator(process)
    begun = await wire.ok("broadcast", text="hello", clientId=name)
    assert (begun["done"], begun["accounts"], begun["msgIds"]) == (False, 100, [])
    # A step whose reply nobody reads.
    await wire.send_line({"cmd": "push_next", "clientId": name})
    process.restart()
    wire = operator(process)
    reached = (await wire.ok("push_next", clientId=name))["accounts"]
    assert reached in (200, 300)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pushd.ctl", *command, "--socket", str(path_of(process))),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    while not await wire.ok("queue", user=users[reached]):
        pass
    process.kill()
    _, said = await running.communicate()
    # It was quicker only on a machine where this test was held up.
    assert running.returncode in (0, 3)
    assert not said or said.endswith(f"; go on with --client-id {name}\n".encode())
    process.start()
    found = done(process, *command[:-1])
    assert (found["accounts"], len(found["msgIds"])) == (500, 500)
    assert await depths(process, users) == [1] * 500


async def test_a_pair_is_not_held_up(server: StartServer, capsys: Any) -> None:
    """While 2,000 accounts get a broadcast a pair goes on chatting; the longest wait is told."""
    process = server()
    await crowd(process, 2000)
    a, b = await process.dial.pair()
    waits: list[float] = []
    work = asyncio.create_task(
        asyncio.to_thread(done, process, "broadcast", "hello", "--all", "--client-id", "all")
    )
    while not work.done():
        began = time.perf_counter()
        await a.say(b.user_id, "x")
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    assert (await work)["accounts"] == 2002
    assert len(waits) > 5
    with capsys.disabled():
        waits.sort()
        middle, longest = waits[len(waits) // 2] * 1000, waits[-1] * 1000
        print(f"\n{len(waits)} messages beside: median {middle:.1f} ms, longest {longest:.1f} ms")
