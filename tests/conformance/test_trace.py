"""Where is my message? `trace` and `queue` on real servers: each event, and what a restart leaves.

`own` is a server that the tests of this module share; it marks every ack.
"""

import re

import pytest

from .conftest import ADDRESS
from .crowd import another, gathered, note
from .process import Process, StartServer
from .test_control import operator, pushctl, table, told
from .wire import Frame, Wire, befriend, client_id, pair_chat

pytestmark = pytest.mark.skipif(bool(ADDRESS), reason="needs a control socket")

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}")


OWN = {"trace_seconds": 0, "limits_recall": 3600}


def traced(process: Process, *words: str) -> Frame:
    found: Frame = told(pushctl(process, "trace", *words, "--json"))
    return found


def states(found: Frame) -> list[tuple[str, str]]:
    """Whose queues a message went to, and how far it is there."""
    return [(place["userId"], place["state"]) for place in found["places"]]


async def device_of(wire: Wire) -> str:
    return str((await wire.ok("whoami"))["deviceId"])


# Events


async def test_each_event(own: Process) -> None:
    """A message is accepted, committed, sent, acked and read, each with its time, in order."""
    a, b = await own.dial.pair()
    name = client_id()
    sent = await a.say(b.user_id, "secret words", clientId=name)
    [got] = await b.expect_delivery()
    found = traced(own, sent["msgId"])
    head = {"msgId": got["msgId"], "chatId": pair_chat(a, b), "kind": "pair", "type": "1"}
    assert head.items() <= found.items()
    assert (found["fromId"], found["recalled"], found["expires"]) == (a.user_id, False, "")
    [place] = found["places"]
    assert place["deviceId"] == await device_of(b)
    assert (place["state"], place["online"], place["timesSent"]) == ("sent", True, 1)
    assert (place["seq"], place["acked"], place["read"]) == (got["seq"], "", "")
    await b.ack(got["seq"])
    await b.fence()
    await b.read_mark(chatId=got["chatId"])
    await b.fence()
    found = traced(own, "--client-id", a.user_id, name)
    [place] = found["places"]
    assert place["state"] == "acked"
    assert place["ackedExact"] and place["readExact"]
    times = [found["accepted"], found["committed"], place["sent"], place["acked"], place["read"]]
    assert all(MOMENT.fullmatch(time) for time in times)
    assert times == sorted(times)
    status = await a.ok("status", msgId=sent["msgId"])
    assert status == {"stored": found["accepted"][:19], "devices": 1, "delivered": 1, "read": 1}


async def test_the_table(own: Process) -> None:
    """People get the same as a table, and never content or pushIds, as programs do not."""
    a, b = await own.dial.pair()
    sent = await a.say(b.user_id, "secret words")
    await b.expect_delivery(ack=True)
    await b.fence()
    words = ["trace", sent["msgId"]]
    rows = table(pushctl(own, *words))
    assert rows[0] == ["msg", "id", sent["msgId"]]
    assert [b.user_id, await device_of(b), "acked", "yes"] == rows[-1][:4]
    for result in (pushctl(own, *words), pushctl(own, *words, "--json")):
        for secret in ("secret", a.push_id, b.push_id):
            assert secret not in result.stdout


async def test_queued_until_the_device_comes(own: Process) -> None:
    """A message waits for a device that is not there; each time it was sent is counted."""
    a, b = await own.dial.pair()
    b.close()
    sent = await a.say(b.user_id, "x")
    [place] = traced(own, sent["msgId"])["places"]
    assert (place["state"], place["sent"], place["timesSent"]) == ("queued", "", 0)
    for times in (1, 2):
        again, _ = await own.dial.resume(b.push_id)
        await again.expect_delivery()
        await again.fence()
        again.close()
        [place] = traced(own, sent["msgId"])["places"]
        assert (place["state"], place["timesSent"]) == ("sent", times)


async def test_without_a_device(own: Process) -> None:
    """A message waits in the line of an account without a device, and goes to its first one."""
    a, b = await own.dial.user(started=True), await own.dial.user()
    await befriend(a, b)
    sent = await a.say(b.user_id, "x")
    [place] = traced(own, sent["msgId"])["places"]
    assert (place["userId"], place["deviceId"], place["state"]) == (b.user_id, "", "waiting")
    [line] = told(pushctl(own, "queue", b.user_id, "--json"))
    assert (line["deviceId"], line["depth"]) == ("", 2)  # the request as well
    started = await b.start()
    [place] = traced(own, sent["msgId"])["places"]
    assert place["deviceId"] == await device_of(b)
    await b.drain(started["queued"])
    assert states(traced(own, sent["msgId"])) == [(b.user_id, "acked")]
    await b.ok("logout")
    assert states(traced(own, sent["msgId"])) == [(b.user_id, "gone")]


async def test_a_group_with_several_devices(own: Process) -> None:
    """Each device of each member is told, and the sender's other ones, page by page."""
    group, (a, b, c) = await gathered(own.dial, 3)
    b2, a2 = await another(own.dial, b), await another(own.dial, a)
    [sent] = await a.post(note(group, "x"))
    for each in (b, a2):
        await each.expect_delivery(ack=True)
        await each.fence()
    for each in (b2, c):
        await each.expect_delivery()
        await each.fence()
    found = traced(own, sent["msgId"])
    wanted = {
        await device_of(b): (b.user_id, "acked"),
        await device_of(b2): (b.user_id, "sent"),
        await device_of(c): (c.user_id, "sent"),
        await device_of(a2): (a.user_id, "acked"),
    }
    shown = {one["deviceId"]: (one["userId"], one["state"]) for one in found["places"]}
    assert shown == wanted
    assert (found["chatId"], found["kind"], found["type"]) == (group, "group", "7")
    wire = operator(own)
    page = await wire.ok("trace", msgId=sent["msgId"], size=1)
    assert {one["userId"] for one in page["places"]} == {a.user_id}
    rest = await wire.ok("trace", msgId=sent["msgId"], page=page["next"])
    assert page["places"] + rest["places"] == found["places"]
    # Who joins later was never meant.
    late = await own.dial.user(started=True)
    await befriend(a, late)
    await a.ok("invite", groupId=group, userIds=[late.user_id])
    assert traced(own, sent["msgId"])["places"] == found["places"]


async def test_recalled(own: Process) -> None:
    """A recall has its time; the message stays where it was."""
    a, b = await own.dial.pair()
    sent = await a.say(b.user_id, "x")
    await a.ok("recall", msgId=sent["msgId"])
    found = traced(own, sent["msgId"])
    assert found["recalled"]
    assert found["accepted"] <= found["recalledAt"]
    rows = {row[0]: row[1:] for row in table(pushctl(own, "trace", sent["msgId"])) if row}
    assert rows["recalled"] == [found["recalledAt"]]


@pytest.mark.slow
async def test_expired(own: Process) -> None:
    """What waits beyond its time is expired."""
    a, b = await own.dial.pair()
    b.close()
    sent = await a.say(b.user_id, "x", expire=1)
    while (found := traced(own, sent["msgId"]))["places"][0]["state"] == "queued":
        assert not found["expired"]
        await a.fence()
    assert found["expired"]
    assert states(found) == [(b.user_id, "expired")]
    assert "(expired)" in pushctl(own, "trace", sent["msgId"]).stdout


async def test_a_gap(server: StartServer) -> None:
    """What did not fit into a queue stands behind a gap; before and behind it things are told."""
    process = server(queue_messages=2)
    a, b = await process.dial.pair()
    b.close()
    sent = [await a.say(b.user_id, str(number)) for number in range(4)]
    shown = [states(traced(process, one["msgId"]))[0][1] for one in sent]
    assert shown == ["queued", "queued", "gap", "gap"]
    again, _ = await process.dial.resume(b.push_id)
    await again.expect_delivery(3, ack=True)
    await again.fence()
    shown = [states(traced(process, one["msgId"]))[0][1] for one in sent]
    assert shown == ["acked", "acked", "gap", "gap"]


async def test_a_restart_in_between(server: StartServer) -> None:
    """After a crash the rows are told as before; what was only in memory is not kept."""
    process = server(trace_seconds=0)
    a, b = await process.dial.pair()
    first = await a.say(b.user_id, "one")
    await b.expect_delivery(ack=True)
    await b.fence()
    second = await a.say(b.user_id, "two")
    before = traced(process, first["msgId"])
    process.restart()
    found = traced(process, first["msgId"])
    assert found["accepted"] == before["accepted"]
    assert found["committed"] == found["places"][0]["sent"] == ""
    assert found["places"][0]["acked"] == before["places"][0]["acked"]
    assert found["places"][0]["ackedExact"]
    assert pushctl(process, "trace", first["msgId"]).stdout.count("not kept") == 2
    assert states(traced(process, second["msgId"])) == [(b.user_id, "queued")]
    b, _ = await process.dial.resume(b.push_id)
    [got] = await b.expect_delivery(ack=True)
    await b.fence()
    await b.read_mark(chatId=got["chatId"])
    await b.fence()
    [place] = traced(process, second["msgId"])["places"]
    assert (place["state"], place["timesSent"]) == ("acked", 1)
    assert place["sent"] <= place["acked"] <= place["read"]


async def test_coarse_times(server: StartServer) -> None:
    """Acks between two marks have the time of the later one, or of the last ack: "by" it."""
    process = server(trace_seconds=3600)
    a, b = await process.dial.pair()
    b2 = await another(process.dial, b)
    [first, second] = [await a.say(b.user_id, each) for each in "12"]
    got = await b2.expect_delivery(2)
    for each in got:
        await b2.ack(each["seq"])
        await b2.fence()
    mine = await device_of(b2)
    shown = {}
    for sent in (first, second):
        [shown[sent["msgId"]]] = [
            one for one in traced(process, sent["msgId"])["places"] if one["deviceId"] == mine
        ]
    one, two = shown.values()
    assert one["ackedExact"] and not two["ackedExact"]
    assert one["acked"] <= two["acked"]
    result = pushctl(process, "trace", second["msgId"])
    assert f"by {two['acked'][11:]}" in result.stdout


# Refusals


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({}, 4003, "msgId"),
        ({"msgId": "999999999"}, 4005, "msgId"),
        ({"msgId": "x"}, 4005, "msgId"),
        ({"msgId": 7}, 4003, "msgId"),
        ({"msgId": "1", "user": "10001"}, 4003, "user"),
        ({"msgId": "1", "clientId": "c"}, 4003, "clientId"),
        ({"clientId": "c"}, 4003, "user"),
        ({"clientId": "c", "user": "nobody at all"}, 6004, "user"),
        ({"clientId": "c" * 65, "user": "10001"}, 4003, "clientId"),
        ({"msgId": "1", "page": "x"}, 4003, "page"),
        ({"msgId": "1", "size": 101}, 4003, "size"),
    ],
)
async def test_bad_requests(own: Process, fields: Frame, status: int, field: str) -> None:
    """Each bad field of `trace` is named."""
    reply = await operator(own).command("trace", **fields)
    assert (reply["status"], reply["field"], reply["result"]) == (status, field, {})


async def test_no_such_message(own: Process) -> None:
    """Exit code 1 for a message or clientId that is not there, 2 for wrong usage."""
    a = await own.dial.user()
    for words in (["999999999"], ["--client-id", a.user_id, "never"], ["--client-id", "no", "x"]):
        result = pushctl(own, "trace", *words)
        assert (result.exit_code, result.stdout) == (1, "")
    for words in ([], ["1", "--client-id", "10001", "x"]):
        assert pushctl(own, "trace", *words).exit_code == 2


# Queues


async def test_queue(own: Process) -> None:
    """`queue` tells each device's depth and the age of its oldest message, and who is there."""
    a, b = await own.dial.pair()
    b2 = await another(own.dial, b, device="Tablet")
    name = await device_of(b2)
    b2.close()
    for words in "xyz":
        await a.say(b.user_id, words)
    await b.expect_delivery(3, ack=True)
    await b.fence()
    found = told(pushctl(own, "queue", b.user_id, "--json"))
    assert [(one["depth"], one["online"]) for one in found] == [(0, True), (3, False)]
    assert (found[0]["oldest"], found[0]["age"]) == ("", 0)
    assert (found[1]["deviceId"], found[1]["name"]) == (name, "Tablet")
    assert found[1]["oldest"] and found[1]["lastSeen"]
    assert 0 <= found[1]["age"] < 60
    assert told(pushctl(own, "queue", b.phone, "--json"))[1]["depth"] == 3
    rows = table(pushctl(own, "queue", b.user_id))
    assert rows[0][:3] == ["USER", "ID", "DEVICE"]
    assert rows[2][:4] == [b.user_id, name, "Tablet", "3"]
    assert pushctl(own, "queue", "nobody at all").exit_code == 1
    deep = told(pushctl(own, "queue", "--json"))
    assert [one["depth"] for one in deep] == sorted((one["depth"] for one in deep), reverse=True)
    assert name in [one["deviceId"] for one in deep]
    assert told(pushctl(own, "queue", "--json", "--limit", "1")) == deep[:1]
    assert (await operator(own).command("queue", size=1001))["field"] == "size"
