"""The client library against a scripted server."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pushd import client as client_module
from pushd.client import (
    Client,
    ClientClosed,
    CommandError,
    Disconnected,
    Draft,
    Info,
    Message,
    Replaced,
    SignedOut,
)
from pushd.errors import LineTooLong
from pushd.link import Link
from tests.fake_server import FakeServer, Frame, VirtualTime, message

PHONE, PASSWORD = "18870742138", "secret-word"


def make(server: FakeServer, time: VirtualTime | None = None, **options: Any) -> Client:
    # Without a device heartbeats come every 30 s, which must not pass at once.
    time = time or VirtualTime(instant=200 if options.get("push_id", "x") else 20)
    defaults: dict[str, Any] = {
        "clock": time.clock,
        "sleep": time.sleep,
        "random": lambda: 0.5,
        "push_id": "known",
    }
    return Client.connect("127.0.0.1", server.port, **(defaults | options))


@contextlib.asynccontextmanager
async def resumed(time: VirtualTime | None = None, **options: Any) -> AsyncIterator[Any]:
    """Give a server and a client that has resumed its device."""
    async with FakeServer() as server, make(server, time, **options) as client:
        yield server, client


async def take(client: Client, count: int) -> list[Message]:
    """Take messages and leave the loop with the last one in hand."""
    taken: list[Message] = []
    async for each in client.messages():
        taken.append(each)
        if len(taken) == count:
            break
    return taken


async def last_event(client: Client) -> str:
    """Give the name of the last event before the client ends."""
    return [event async for event in client.events()][-1].name


async def reconnected(server: FakeServer, client: Client, restarts: int) -> None:
    """Wait until the client has resumed for so many times in all, and serves again."""
    await server.wait_received("restart", restarts)
    await client.ping()


async def disconnected(client: Client, time: VirtualTime) -> None:
    """Wait until the client has seen the break and sleeps before its next attempt."""
    async for event in client.events():
        if event.name == "disconnected":
            break
    await time.wait_sleeper()


async def spin() -> None:
    """Let everything that is ready run."""
    for _ in range(20):
        await asyncio.sleep(0)


# Session


async def test_login_returns_the_account() -> None:
    """`login` gives the account of the reply, and the client knows whose it is."""
    async with FakeServer() as server, make(server, push_id="") as client:
        account = await client.login(PHONE, PASSWORD)
        assert account["account"] == PHONE
        assert client.user_id == "10001"
        assert server.frames("login")[0]["password"] == PASSWORD
        assert not server.frames("start")


async def test_register_refused() -> None:
    """A refusal raises with the server's status, text, field and waiting time."""
    async with FakeServer() as server, make(server, push_id="") as client:
        server.refuse("register", 4290, "too many", field="phone", retryAfter=7)
        with pytest.raises(CommandError) as caught:
            await client.register(PHONE, PASSWORD)
        error = caught.value
        assert (error.status, error.message, error.field) == (4290, "too many", "phone")
        assert error.retry_after == 7
        assert str(error) == "4290 too many (phone)"


async def test_start_gives_the_push_id_to_keep() -> None:
    """`start` asks once for a device, with all options, and keeps its name."""
    options: dict[str, Any] = {
        "push_id": "",
        "device": "desk",
        "accept": ["typing"],
        "heartbeat": 90,
    }
    async with FakeServer() as server, make(server, **options) as client:
        await client.login(PHONE, PASSWORD, start=True)
        await asyncio.gather(client.start(), client.start())
        assert client.push_id == "known"
        [frame] = server.frames("start")
        assert (frame["device"], frame["accept"], frame["heartbeat"]) == ("desk", ["typing"], 90)


async def test_push_id_resumes_without_login() -> None:
    """A client made with a pushId sends `restart` as its first line."""
    async with resumed() as (server, client):
        assert [kind for kind, _ in server.received] == ["restart"]
        assert server.frames("restart")[0]["pushId"] == "known"
        assert client.user_id == "10001"


async def test_dead_push_id_at_connect() -> None:
    """A dead pushId raises SignedOut where the client is opened."""
    async with FakeServer() as server:
        with pytest.raises(SignedOut):
            async with make(server, push_id="dead"):
                pass


async def test_first_connection_fails() -> None:
    """A server that is not there raises OSError at once, without another attempt."""
    async with FakeServer() as server:
        pass
    time = VirtualTime()
    with pytest.raises(OSError):
        async with make(server, time):
            pass
    assert time.naps == []


async def test_logout_ends_messages() -> None:
    """After `logout` the loop over messages ends, and a new login gets a new device."""
    async with resumed() as (server, client):
        server.deliver(message(1))
        reading = asyncio.create_task(take(client, 2))
        await client.ping()
        await client.logout()
        assert [each.msg_id for each in await reading] == ["1"]
        assert client.push_id == ""
        server.unacked.clear()
        await client.login(PHONE, PASSWORD, start=True)
        server.deliver(message(1, "for another account"))
        assert [each.text for each in await take(client, 1)] == ["for another account"]


# Sending


async def test_send() -> None:
    """A message goes out as the contract has it, and its msgId comes back."""
    async with resumed() as (server, client):
        picture = Info("1", "media/a.png")
        msg_id = await client.send(
            "10002", "hi", client_id="c1", infos=[picture], reply_to="7", mentions=["10002"]
        )
        assert msg_id == "1"
        [stored] = server.stored
        assert stored == {
            "type": "1",
            "info": [
                {"category": "0", "content": "hi"},
                {"category": "1", "content": "media/a.png"},
            ],
            "clientId": "c1",
            "toId": "10002",
            "replyTo": "7",
            "mentions": ["10002"],
        }


async def test_every_message_has_a_client_id() -> None:
    """Without a clientId of the caller's each message gets one of its own."""
    async with resumed() as (server, client):
        await client.send("10002", "same")
        await client.send("10002", "same")
        first, second = server.stored
        assert len(first["clientId"]) == 36
        assert first["clientId"] != second["clientId"]


async def test_sends_are_pipelined() -> None:
    """Sends go out without waiting for each other's reply, and get their own msgIds."""
    async with resumed() as (server, client):
        server.hold_replies()
        sends = [asyncio.create_task(client.send("10002", str(number))) for number in range(5)]
        await server.wait_received("list", 5)
        server.release_replies()
        assert await asyncio.gather(*sends) == ["1", "2", "3", "4", "5"]
        assert [each["info"][0]["content"] for each in server.stored] == list("01234")


async def test_writes_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a loop turn sends leaves in one write."""
    writes: list[bytes] = []
    write = Link.write

    def spy(self: Link, lines: bytes) -> None:
        writes.append(lines)
        write(self, lines)

    async with resumed() as (_, client):
        monkeypatch.setattr(Link, "write", spy)
        await asyncio.gather(*(client.send("10002", "x") for _ in range(50)))
        assert len(writes) == 1
        assert writes[0].count(b"\n") == 50


async def test_pipeline_is_bounded() -> None:
    """At most `pipeline` requests are on their way without an answer; the rest follow."""
    async with resumed(pipeline=3) as (server, client):
        server.hold_replies()
        sends = [asyncio.create_task(client.send("10002", "x")) for _ in range(8)]
        await server.wait_received("list", 3)
        await spin()
        assert len(server.frames("list")) == 3
        server.release_replies()
        assert len(await asyncio.gather(*sends)) == 8


async def test_queue_is_bounded() -> None:
    """At most `max_queue` requests wait for a reply; further callers are held back."""
    async with resumed(max_queue=2) as (server, client):
        server.hold_replies()
        sends = [asyncio.create_task(client.send("10002", "x")) for _ in range(6)]
        await server.wait_received("list", 2)
        await spin()
        assert len(server.frames("list")) == 2
        assert len(client._queue) == 0
        server.release_replies()
        assert len(await asyncio.gather(*sends)) == 6


async def test_lost_reply_is_asked_for_again() -> None:
    """A send whose reply got lost is repeated with its clientId, and stored once."""
    async with resumed() as (server, client):
        server.drop_replies()
        sends = [asyncio.create_task(client.send("10002", str(number))) for number in range(3)]
        await server.wait_received("list", 3)
        server.cut()
        assert await asyncio.gather(*sends) == ["1", "2", "3"]
        ids = [frame["message"][0]["clientId"] for frame in server.frames("list")]
        assert ids[:3] == ids[3:]
        assert len(server.stored) == 3


async def test_a_line_that_was_cut_is_sent_again() -> None:
    """A send of which half a line came (4000) is repeated on another connection."""
    async with resumed() as (server, client):
        server.refuse("list", 4000, "this line is not one JSON object")
        assert await client.send("10002", "x") == "1"
        assert len(server.frames("list")) == 2
        assert len(server.frames("restart")) == 2


async def test_sends_wait_while_disconnected() -> None:
    """While disconnected sends wait, and leave in order after the resume."""
    time = VirtualTime(instant=0.5)
    async with resumed(time, heartbeat=900) as (server, client):
        server.cut()
        await disconnected(client, time)
        sends = [asyncio.create_task(client.send("10002", str(number))) for number in range(3)]
        await spin()
        assert not server.frames("list")
        time.advance(1)
        assert await asyncio.gather(*sends) == ["1", "2", "3"]
        kinds = [kind for kind, _ in server.received]
        assert kinds == ["restart", "restart", "list", "list", "list"]


async def test_refused_send() -> None:
    """A refused message raises and is not repeated; those around it are confirmed."""
    async with resumed() as (server, client):
        server.hold_replies()
        server.refuse("list", 4004, "not allowed", field="message[0].toId")
        bad = asyncio.create_task(client.send("10009", "x"))
        good = asyncio.create_task(client.send("10002", "y"))
        await server.wait_received("list", 2)
        server.release_replies()
        assert await good == "1"
        with pytest.raises(CommandError, match="4004"):
            await bad
        assert len(server.frames("list")) == 2


async def test_restarting_server_gets_the_message_again() -> None:
    """A send answered with 5030 is repeated when the server is back."""
    async with resumed() as (server, client):
        server.refuse("list", 5030, "restarting")
        send = asyncio.create_task(client.send("10002", "x", client_id="c1"))
        await server.wait_received("list")
        server.shut_down(retry_after=3)
        assert await send == "1"
        assert [each["clientId"] for each in server.stored] == ["c1"]


async def test_cancelled_send_is_forgotten() -> None:
    """A send that was cancelled before it left never leaves."""
    time = VirtualTime(instant=0.5)
    async with resumed(time, heartbeat=900) as (server, client):
        server.cut()
        await disconnected(client, time)
        gone = asyncio.create_task(client.send("10002", "gone"))
        kept = asyncio.create_task(client.send("10002", "kept"))
        await spin()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert len(client._queue) == 1
        time.advance(1)
        await kept
        assert [each["info"][0]["content"] for each in server.stored] == ["kept"]


async def test_cancelled_send_on_its_way() -> None:
    """The reply to a send that was cancelled on its way is not taken for another's."""
    async with resumed() as (server, client):
        server.hold_replies()
        first = asyncio.create_task(client.send("10002", "1"))
        second = asyncio.create_task(client.send("10002", "2"))
        await server.wait_received("list", 2)
        first.cancel()
        server.release_replies()
        assert await second == "2"
        assert server.connections == 1


async def test_cancelled_send_in_the_turn_of_the_write() -> None:
    """A send that is cancelled in the loop turn in which it would leave does not leave."""
    async with resumed() as (server, client):
        gone = asyncio.create_task(client.send("10002", "gone"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await client.ping()
        assert server.stored == []


async def test_too_long_message_stays_here() -> None:
    """What no line can hold is refused here; the server would hang up."""
    async with resumed() as (server, client):
        with pytest.raises(LineTooLong):
            await client.send("10002", "x" * 1_048_576)
        with pytest.raises(LineTooLong):
            await client.command("save_file", name="a", content="x" * 1_048_576)
        fine, huge = Draft(user_id="10002", text="x"), Draft(user_id="10002", text="x" * 1_048_576)
        with pytest.raises(LineTooLong):
            await client.send_many([fine, huge])
        await client.ping()
        assert not server.frames("list")


async def test_send_many_cuts_frames() -> None:
    """Many messages go in frames of at most 100 messages and 1 MiB, in order."""
    async with resumed() as (server, client):
        drafts = [Draft(user_id="10002", text=str(number)) for number in range(250)]
        ids = await client.send_many(drafts)
        assert ids == [str(number) for number in range(1, 251)]
        assert [len(frame["message"]) for frame in server.frames("list")] == [100, 100, 50]
        await client.send_many([Draft(user_id="10002", text="x" * 400_000) for _ in range(5)])
        sizes = [len(frame["message"]) for frame in server.frames("list")]
        assert sizes == [100, 100, 50, 2, 2, 1]


async def test_send_many_refused() -> None:
    """A refused frame raises with what was bad in it, after all others are confirmed."""
    async with resumed() as (server, client):
        failed = [{"index": 3, "status": 4004, "message": "no", "field": ""}]
        server.refuse("list", 4004, "no", failed=failed)
        with pytest.raises(CommandError) as caught:
            await client.send_many([Draft(user_id="10002", text="x") for _ in range(150)])
        assert list(caught.value.failed) == failed
        assert len(server.stored) == 50


# Receiving


async def test_message_fields() -> None:
    """A delivered message has all that the contract gives it."""
    async with resumed() as (server, client):
        server.deliver(
            message(5, "a", event={"name": "recalled"}, recalled=True, replyTo="4", clientId="c")
        )
        [got] = await take(client, 1)
        assert (got.msg_id, got.seq, got.chat_id, got.text) == ("5", 1, "10001-10002", "a")
        assert (got.from_id, got.to_id, got.type) == ("10002", "10001", "1")
        assert (got.event, got.recalled, got.reply_to) == ({"name": "recalled"}, True, "4")
        assert (got.client_id, got.time) == ("c", 1542231656000)


async def test_text_leaves_other_parts_out() -> None:
    """`text` joins the text parts only."""
    parts = (Info("0", "a"), Info("1", "media/x.png"), Info("0", "b"))
    assert Message(infos=parts).text == "a\nb"


async def test_ack_when_the_next_is_asked_for() -> None:
    """A message in the consumer's hands is not acked; asking for the next one acks it."""
    async with resumed() as (server, client):
        server.deliver(message(1), message(2))
        inbox = client.messages()
        assert (await anext(inbox)).msg_id == "1"
        await client.ping()
        assert server.acks() == []
        assert (await anext(inbox)).msg_id == "2"
        await client.ping()
        assert server.acks() == [1]


async def test_acks_are_joined() -> None:
    """A consumer that does not wait between messages acks many with one line."""
    async with resumed() as (server, client):
        server.deliver(*(message(number) for number in range(1, 101)))
        await take(client, 100)
        await client.ping()
        assert server.acks() == [99]


async def test_start_is_implied_by_messages() -> None:
    """`messages` binds the device if nobody has."""
    async with FakeServer() as server, make(server, push_id="") as client:
        await client.login(PHONE, PASSWORD)
        asking = asyncio.create_task(take(client, 1))
        await server.wait_received("start")
        server.deliver(message(1))
        assert [each.msg_id for each in await asking] == ["1"]


async def test_messages_without_session() -> None:
    """`messages` raises what `start` is refused with."""
    async with FakeServer() as server, make(server, push_id="") as client:
        server.refuse("start", 11001, "log in first")
        with pytest.raises(CommandError, match="11001"):
            await take(client, 1)


async def test_repeats_are_dropped() -> None:
    """What the consumer has had is not shown again after a break, and is acked."""
    async with resumed() as (server, client):
        server.deliver(message(1), message(2), message(3))
        inbox = client.messages()
        assert [(await anext(inbox)).msg_id for _ in range(2)] == ["1", "2"]
        server.drop_replies()
        server.cut()
        await reconnected(server, client, 2)
        assert (await anext(inbox)).msg_id == "3"
        await client.ping()
        assert server.acks()[-1] == 2
        assert [each["msgId"] for each in server.unacked] == ["3"]


async def test_message_in_hand_over_a_break() -> None:
    """A break acks nothing: the message in hand is acked when the next one is asked for."""
    async with resumed() as (server, client):
        server.deliver(message(1))
        inbox = client.messages()
        await anext(inbox)
        server.cut()
        await reconnected(server, client, 2)
        assert server.acks() == []
        asking = asyncio.ensure_future(anext(inbox))
        await server.wait_received("ok")
        assert server.acks() == [1]
        server.deliver(message(2))
        assert (await asking).msg_id == "2"


async def test_unread_messages_come_again() -> None:
    """Messages that waited for the consumer when the link broke are neither lost nor doubled."""
    async with resumed() as (server, client):
        server.deliver(*(message(number) for number in range(1, 6)))
        await client.ping()
        server.cut()
        await reconnected(server, client, 2)
        assert [each.msg_id for each in await take(client, 5)] == list("12345")
        await client.ping()
        assert server.acks() == [4]


async def test_memory_of_repeats_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest ids are remembered."""
    monkeypatch.setattr("pushd.inbox.MAX_SEEN", 3)
    async with resumed() as (server, client):
        server.deliver(*(message(number) for number in range(1, 6)))
        await take(client, 5)
        assert list(client._inbox._seen) == ["3", "4", "5"]


async def test_restored_store_makes_ids_new() -> None:
    """Another epoch is told as `resync`, and its ids are not taken for repeats."""
    async with resumed() as (server, client):
        server.deliver(message(1, "old"))
        inbox = client.messages()
        assert (await anext(inbox)).text == "old"
        server.restore("e2")
        server.cut()
        await reconnected(server, client, 2)
        server.deliver(message(1, "new"))
        assert (await anext(inbox)).text == "new"
        names = [client._events.popleft().name for _ in range(len(client._events))]
        assert names == ["connected", "disconnected", "resync", "connected"]


async def test_restored_store_gets_no_old_acks() -> None:
    """A seq is acked only on the link that brought it: elsewhere it may mean another message."""
    async with resumed() as (server, client):
        server.deliver(message(1), message(2), message(3))
        inbox = client.messages()
        assert [(await anext(inbox)).msg_id for _ in range(3)] == ["1", "2", "3"]
        await client.ping()
        server.restore("e2")
        server.cut()
        await reconnected(server, client, 2)
        server.deliver(message(1, "a"), message(2, "b"), message(3, "c"))
        await client.ping()
        assert (await anext(inbox)).text == "a"
        await client.ping()
        assert server.acks() == [2]


async def test_message_finished_while_disconnected() -> None:
    """What is read between two links is acked only when the new one has brought it again."""
    time = VirtualTime(instant=0.5)
    async with resumed(time, heartbeat=900) as (server, client):
        server.deliver(message(1), message(2))
        await client.ping()
        server.cut()
        await disconnected(client, time)
        inbox = client.messages()
        assert [(await anext(inbox)).msg_id for _ in range(2)] == ["1", "2"]
        server.restore("e1")
        server.deliver(message(3))
        time.advance(1)
        assert (await anext(inbox)).msg_id == "3"
        await client.ping()
        assert server.acks() == []


async def test_message_in_hand_is_not_acked_elsewhere() -> None:
    """A message that the new link has not brought yet is not acked on it."""
    async with resumed() as (server, client):
        server.deliver(message(1))
        inbox = client.messages()
        await anext(inbox)
        server.restore("e1")
        server.cut()
        await reconnected(server, client, 2)
        server.deliver(message(2))
        assert (await anext(inbox)).msg_id == "2"
        await client.ping()
        assert server.acks() == []


async def test_full_inbox_stops_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ignores its own window is not read on until the consumer catches up."""
    monkeypatch.setattr(client_module, "MAX_INBOX", 4)
    async with resumed() as (server, client):
        server.deliver(*(message(number) for number in range(1, 7)))
        inbox = client.messages()
        await anext(inbox)
        pong = asyncio.create_task(client.ping())
        await server.wait_received("ping")
        await spin()
        assert not pong.done()
        for _ in range(5):
            await anext(inbox)
        await pong


async def test_one_consumer() -> None:
    """A second consumer at the same time is a mistake, and told."""
    async with resumed() as (_, client):
        first = asyncio.create_task(take(client, 1))
        await spin()
        with pytest.raises(RuntimeError, match="one consumer"):
            await take(client, 1)
        first.cancel()


async def test_events() -> None:
    """Frames that `accept` asked for come as events, in order."""
    async with resumed(accept=["ack", "typing", "presence"]) as (server, client):
        server.say(
            {"status": 1, "message": {"fromId": "10002", "chatId": "c", "msgId": "9"}, "pushId": ""}
        )
        for event in (
            {"name": "typing", "userId": "10002", "chatId": "c"},
            {"name": "presence", "userId": "10002", "online": True},
        ):
            server.say({"status": 1, "message": "", "pushId": "known", "event": event})
        events = client.events()
        got = [await anext(events) for _ in range(4)]
        assert [event.name for event in got] == ["connected", "ack", "typing", "presence"]
        assert (got[1].user_id, got[1].chat_id, got[1].msg_id) == ("10002", "c", "9")
        assert (got[2].user_id, got[2].chat_id) == ("10002", "c")
        assert got[3].online


# Commands


async def test_command() -> None:
    """A command's fields lie flat, and its result comes back."""
    async with resumed() as (server, client):
        server.answer("chats", [{"chatId": "c"}])
        assert await client.chats(page=2) == [{"chatId": "c"}]
        assert server.frames("chats")[0]["page"] == 2
        assert await client.ping("x") == "x"


async def test_empty_search_is_no_error() -> None:
    """Status 0 with "ok" is the empty result of a search."""
    async with resumed() as (server, client):
        server.answer("search", [], status=0)
        assert await client.search("nobody") == []
        server.answer("search", [], status=0, message="failed")
        with pytest.raises(CommandError, match="failed"):
            await client.search("nobody")


async def test_pages() -> None:
    """`pages` passes `next` back until there is none."""
    following = {0: "p1", "p1": "p2", "p2": ""}

    def friends(frame: Frame) -> Frame:
        page = frame.get("page", 0)
        more = {"next": following[page]} if following[page] else {}
        return {"result": [{"id": str(page)}], **more}

    async with resumed() as (server, client):
        server.answer("friends", friends)
        pages = [page async for page in client.pages("friends", field="a")]
        assert pages == [[{"id": "0"}], [{"id": "p1"}], [{"id": "p2"}]]
        assert all(frame["field"] == "a" for frame in server.frames("friends"))


async def test_history() -> None:
    """`history` gives messages, and its pages go on in the direction that was asked for."""
    async with resumed() as (server, client):
        server.answer("history", [message(4, "a")])
        assert [each.text for each in await client.history("c", limit=5)] == ["a"]
        server.answer("history", lambda f: {"result": [], "next": "" if f["after"] == "9" else "9"})
        _ = [page async for page in client.pages("history", chatId="c", after="3")]
        assert [frame.get("after") for frame in server.frames("history")] == [None, "3", "9"]


async def test_command_lost_on_its_way() -> None:
    """A command whose reply got lost is not repeated, for it may have been done."""
    async with resumed() as (server, client):
        server.drop_replies()
        command = asyncio.create_task(client.add_friend("10002"))
        await server.wait_received("add_friend")
        server.cut()
        with pytest.raises(Disconnected):
            await command
        await client.ping()
        assert len(server.frames("add_friend")) == 1


# Reconnecting


async def test_backoff_doubles_to_two_minutes() -> None:
    """The waits are 1 s doubling to 120 s, and start anew after a resume."""
    time = VirtualTime()
    async with resumed(time) as (server, client):
        server.refuse_connections(9)
        server.cut()
        await reconnected(server, client, 2)
        assert time.naps == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]
        server.cut()
        await reconnected(server, client, 3)
        assert time.naps[10:] == [1]


@pytest.mark.parametrize(("chance", "wait"), [(0.0, 0.75), (1.0, 1.25)])
async def test_backoff_jitter(chance: float, wait: float) -> None:
    """Chance moves a wait by up to a quarter in both directions."""
    time = VirtualTime()
    async with resumed(time, random=lambda: chance) as (server, client):
        server.cut()
        await reconnected(server, client, 2)
        assert time.naps == [wait]


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
async def test_retry_after_is_honoured(chance: float) -> None:
    """Nobody comes back before the server's `retryAfter`, and not all in the same moment."""
    time = VirtualTime()
    async with resumed(time, random=lambda: chance) as (server, client):
        server.refuse("restart", 4290, "too many", retryAfter=60)
        server.shut_down(retry_after=30)
        await reconnected(server, client, 3)
        spread = 1 + abs(0.25 * (2 * chance - 1))
        assert time.naps == [30 * spread, 60 * spread]
        await server.until(lambda: len(server._live) == 1)


@pytest.mark.parametrize(("verb", "error"), [("replace", Replaced), ("sign_out", SignedOut)])
async def test_last_words(verb: str, error: type[Exception]) -> None:
    """`replaced` and `signed_out` end messages, sends and calls, and nobody reconnects."""
    time = VirtualTime()
    async with resumed(time) as (server, client):
        reading = asyncio.create_task(take(client, 1))
        server.hold_replies()
        send = asyncio.create_task(client.send("10002", "x"))
        await server.wait_received("list")
        getattr(server, verb)()
        for waiting in (send, reading):
            with pytest.raises(error):
                await waiting
        with pytest.raises(error):
            await client.ping()
        await server.until(lambda: not server._live)
        assert (server.connections, time.naps) == (1, [])


async def test_push_id_that_died_meanwhile() -> None:
    """A resume answered with 11001 ends the client."""
    time = VirtualTime()
    async with resumed(time) as (server, client):
        server.push_ids.clear()
        server.cut()
        with pytest.raises(SignedOut):
            await take(client, 1)
        with pytest.raises(SignedOut):
            await client.send("10002", "x")
        assert time.naps == [1]


async def test_login_is_repeated_without_a_device() -> None:
    """A client that has not started logs in again after a break; sends survive it."""
    async with FakeServer() as server, make(server, push_id="") as client:
        await client.login(PHONE, PASSWORD)
        server.drop_replies()
        send = asyncio.create_task(client.send("10002", "x"))
        await server.wait_received("list")
        server.cut()
        assert await send == "1"
        first, second = server.frames("login")
        assert first["password"] == second["password"] == PASSWORD


async def test_password_is_forgotten_after_start() -> None:
    """With a pushId at hand the password is kept no longer."""
    async with FakeServer() as server, make(server, push_id="") as client:
        await client.login(PHONE, PASSWORD)
        assert client._login == (PHONE, PASSWORD)
        await client.start()
        assert client._login is None


async def test_relogin_refused() -> None:
    """A repeated login that is refused ends the client, except for refusals that pass."""
    async with FakeServer() as server, make(server, push_id="") as client:
        await client.login(PHONE, PASSWORD)
        server.refuse("login", 4290, "too many", retryAfter=5)
        server.refuse("login", 10000, "wrong password")
        server.cut()
        with pytest.raises(SignedOut, match="wrong password"):
            await take(client, 1)
        assert len(server.frames("login")) == 3


async def test_without_reconnect() -> None:
    """With `reconnect=False` a break ends everything with Disconnected."""
    async with resumed(reconnect=False) as (server, client):
        server.drop_replies()
        send = asyncio.create_task(client.send("10002", "x"))
        await server.wait_received("list")
        server.cut()
        for waiting in (send, take(client, 1), client.ping()):
            with pytest.raises(Disconnected):
                await waiting
        assert server.connections == 1


@pytest.mark.parametrize(
    "line",
    [
        b'{"status":1,"message":"ok","id":4711}\n',
        b"no json\n",
        b"\xff\xfe\n",
        b'{"status":"one"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
async def test_violations(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A line that the contract does not allow costs the link, and nothing that was sent."""
    async with resumed() as (server, client):
        server.hold_replies()
        send = asyncio.create_task(client.send("10002", "x"))
        await server.wait_received("list")
        server.say(line)
        await server.wait_received("restart", 2)
        server.release_replies()
        assert await send == "1"
        assert "the server sent" in caplog.text


async def test_nothing_counts_after_a_violation() -> None:
    """What stands behind a line that the contract does not allow is not looked at."""
    async with resumed(accept=["typing"]) as (server, client):
        typing = {"status": 1, "message": "", "event": {"name": "typing"}}
        server.say(b"no json\n" + json.dumps(typing).encode() + b"\n")
        await reconnected(server, client, 2)
        names = [client._events.popleft().name for _ in range(len(client._events))]
        assert names == ["connected", "disconnected", "connected"]


async def test_endless_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end is not kept beyond the limit."""
    monkeypatch.setattr("pushd.link.MAX_REPLY", 10_000)
    async with resumed() as (server, client):
        server.say(b"x" * 10_001)
        await reconnected(server, client, 2)


async def test_lines_in_pieces() -> None:
    """Where the bytes are cut means nothing."""
    got: list[Any] = []
    link = Link(
        handle=lambda _, frame: got.append(frame.message),
        wake=lambda: None,
        lost=lambda _: None,
        clock=lambda: 0.0,
    )
    lines = [json.dumps({"message": [message(n, "é\u2028")]}, ensure_ascii=False) for n in (1, 2)]
    for byte in "\r\n".join([*lines, "", ""]).encode():
        link.data_received(bytes([byte]))
    assert [each.text for [each] in got] == ["é\u2028"] * 2


async def test_heartbeat_when_idle() -> None:
    """A heartbeat goes out after `heartbeat` seconds without a line, and not before."""
    time = VirtualTime()
    async with resumed(time, heartbeat=300) as (server, client):
        await time.wait_sleeper()
        time.advance(299)
        await client.ping()
        time.advance(1)
        await time.wait_sleeper()
        await client.send("10002", "x")
        assert not server.frames("heartbeat")
        time.advance(300)
        await server.wait_received("heartbeat")


async def test_heartbeat_without_a_session() -> None:
    """Without a session the server waits for 60 s only, and heartbeats come every 30 s."""
    time = VirtualTime(instant=0.5)
    async with FakeServer() as server, make(server, time, push_id=""):
        for count in (1, 2):
            await time.wait_sleeper()
            time.advance(30)
            await server.wait_received("heartbeat", count)


async def test_unanswered_heartbeat_costs_the_link() -> None:
    """A server that has not answered one heartbeat when the next is due is given up."""
    time = VirtualTime()
    async with resumed(time, heartbeat=300) as (server, client):
        server.drop_replies()
        for _ in range(2):
            await time.wait_sleeper()
            time.advance(300)
        await reconnected(server, client, 2)
        assert len(server.frames("heartbeat")) == 1


# Closing


async def test_close_is_idempotent() -> None:
    """`close` may be called again, also at the same time; afterwards everything raises."""
    async with FakeServer() as server:
        client = make(server)
        await client.open()
        await asyncio.gather(client.close(), client.close())
        await client.close()
        with pytest.raises(ClientClosed):
            await client.send("10002", "x")
        assert client.closed
        assert await last_event(client) == "connected"


async def test_close_fails_what_waits() -> None:
    """Sends and commands without an answer raise ClientClosed; messages() ends."""
    async with resumed() as (server, client):
        reading = asyncio.create_task(take(client, 1))
        watching = asyncio.create_task(last_event(client))
        server.hold_replies()
        waiting = [asyncio.create_task(client.send("10002", "x"))]
        waiting.append(asyncio.create_task(client.chats()))
        await server.wait_received("chats")
        await client.close()
        for task in waiting:
            with pytest.raises(ClientClosed):
                await task
        assert await reading == []
        assert await watching == "connected"


async def test_close_while_disconnected() -> None:
    """Closing ends the attempts to reconnect, and fails what never left."""
    time = VirtualTime(instant=0.5)
    async with resumed(time, heartbeat=900) as (server, client):
        server.cut()
        await disconnected(client, time)
        send = asyncio.create_task(client.send("10002", "x"))
        await spin()
        await client.close()
        with pytest.raises(ClientClosed):
            await send
        assert server.connections == 1


async def test_close_sends_the_last_acks() -> None:
    """What the consumer has finished is acked although the client closes at once."""
    async with FakeServer() as server:
        async with make(server) as client:
            server.deliver(message(1), message(2))
            await take(client, 2)
        assert server.acks() == [1]
        assert [each["msgId"] for each in server.unacked] == ["2"]


async def test_close_before_open() -> None:
    """A client that was never opened can be closed."""
    await Client.connect("127.0.0.1", 1).close()


# Secrets


async def test_nothing_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    """No log line and no repr holds a password, a pushId or what people wrote."""
    caplog.set_level(logging.DEBUG)
    async with FakeServer() as server, make(server, push_id="") as client:
        await client.login(PHONE, PASSWORD, start=True)
        server.deliver(message(1, "dear diary"))
        [got] = await take(client, 1)
        draft = Draft(user_id="10002", text="dear diary", infos=(Info("0", "dear diary"),))
        await client.send_many([draft])
        server.say(b'"dear diary"\n')
        await server.wait_received("restart")
        await client.ping()
        shown = caplog.text + repr([client, got, draft, *draft.infos, client._link])
    for secret in (PASSWORD, "known", "diary"):
        assert secret not in shown


# Read marks


async def test_mark_read_names_the_chat() -> None:
    """A read mark names the peer or the group, and a message if it is to move only so far."""
    async with resumed() as (server, client):
        client.mark_read(user_id="10002")
        client.mark_read("g1", msg_id="7")
        await client.ping()
        first, second = [frame["message"] for frame in server.frames("ack")]
        assert (first["fromId"], first["toId"], first["content"]) == ("10002", "10001", "ok")
        assert "msgId" not in first
        assert (second["chatId"], second["msgId"]) == ("g1", "7")


async def test_refused_read_mark_answers_nothing() -> None:
    """The refusal of a read mark is not taken for the answer of what was asked behind it."""
    async with resumed() as (server, client):
        server.hold_replies()
        client.mark_read("g1")
        [frame] = await server.wait_received("ack")
        answer = asyncio.create_task(client.ping("x"))
        await server.wait_received("ping")
        server.say({"status": 4005, "pushId": "known", "message": "no", "id": frame["id"]})
        server.release_replies()
        assert await answer == "x"


async def test_mark_read_while_disconnected() -> None:
    """A read mark is lost while there is no connection, and is no error."""
    time = VirtualTime(instant=0)
    async with resumed(time) as (server, client):
        server.cut()
        await disconnected(client, time)
        client.mark_read("g1")
        time.advance(5)
        await reconnected(server, client, 2)
        assert not server.frames("ack")
