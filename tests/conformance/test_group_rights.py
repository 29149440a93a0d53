"""Who may do what in a group, from when on, and what nobody else learns of it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from .crowd import (
    another,
    asked,
    chat_of,
    check_notice,
    founded,
    gathered,
    note,
    one_owner,
    roles,
    silent,
    spread,
    started,
    talk,
    told,
    view,
)
from .people import ONE_LOOP, make_friends, new_tag, users
from .process import Process, StartServer
from .wire import Dialer, Frame, Wire, client_id, frame, lines, pair_chat

# What each command answers to an owner, an admin, a member, and one who is not in. The group has
# one more member (`user`), and one who asks to join (`asker`).
MATRIX: list[tuple[str, dict[str, str], tuple[int, int, int, int]]] = [
    ("update_group", {"name": "new"}, (1, 1, 4004, 4005)),
    ("update_group", {}, (1, 1, 4004, 4005)),
    ("set_role", {"userId": "user", "role": "admin"}, (1, 4004, 4004, 4005)),
    ("set_role", {"userId": "user", "role": "owner"}, (1, 4004, 4004, 4005)),
    ("mute", {"userId": "user", "seconds": "60"}, (1, 1, 4004, 4005)),
    ("kick", {"userIds": "user"}, (1, 1, 4004, 4005)),
    ("join_requests", {}, (1, 1, 4004, 4005)),
    ("accept_join", {"userId": "asker"}, (1, 1, 4004, 4005)),
    ("reject_join", {"userId": "asker"}, (1, 1, 4004, 4005)),
    ("invite", {"userIds": "friend"}, (1, 1, 1, 4005)),
    ("group_members", {}, (1, 1, 1, 4005)),
    ("leave_group", {}, (4004, 1, 1, 4005)),
    ("dissolve_group", {}, (1, 4004, 4004, 4005)),
]


def given(fields: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Any]:
    """Put ids in the place of the names of people."""
    found: dict[str, Any] = {name: names.get(value, value) for name, value in fields.items()}
    if "userIds" in found:
        found["userIds"] = [found["userIds"]]
    if "seconds" in found:
        found["seconds"] = int(found["seconds"])
    return found


@ONE_LOOP
class TestMatrix:
    """Each command by each role."""

    @pytest.mark.parametrize(
        ("cmd", "fields", "statuses"), MATRIX, ids=[f"{row[0]}-{row[1]}" for row in MATRIX]
    )
    @pytest.mark.parametrize("rank", range(4), ids=["owner", "admin", "member", "outsider"])
    async def test_role(
        self, dial: Dialer, cmd: str, fields: dict[str, str], statuses: tuple[int, ...], rank: int
    ) -> None:
        """The status of the table; what is refused changes nothing and is told to nobody."""
        group, (owner, admin, member, user) = await founded(dial, 4)
        await owner.ok("set_role", groupId=group, userId=admin.user_id, role="admin")
        outsider, asker, friend = await users(dial, 3)
        caller = (owner, admin, member, outsider)[rank]
        await make_friends(caller, friend)
        await asker.ok("join_group", groupId=group)
        before = (await roles(owner, group), await view(owner, group), await talk(owner, group))
        names = {"user": user.user_id, "asker": asker.user_id, "friend": friend.user_id}
        reply = await caller.command(cmd, groupId=group, **given(fields, names))
        assert reply["status"] == statuses[rank], reply
        if reply["status"] != 1:
            assert reply["field"] == "groupId"
            after = (await roles(owner, group), await view(owner, group), await talk(owner, group))
            assert after == before
            assert await asked(owner, group) == [asker.user_id]

    async def test_admins_among_themselves(self, dial: Dialer) -> None:
        """An admin may put out and mute members only: neither the owner nor another admin."""
        group, (a, b, c, d) = await founded(dial, 4)
        for each in (b, c):
            await a.ok("set_role", groupId=group, userId=each.user_id, role="admin")
        for user, status in ((a, 4004), (b, 4004), (c, 4004), (d, 1)):
            named = {"groupId": group, "userId": user.user_id}
            assert (await b.command("mute", **named, seconds=9))["status"] == status
            listed = {"groupId": group, "userIds": [user.user_id]}
            assert (await b.command("kick", **listed))["status"] == status
        await a.ok("kick", groupId=group, userIds=[b.user_id, c.user_id])

    async def test_blocks_do_not_touch_groups(self, dial: Dialer) -> None:
        """Who blocks somebody hears them in groups, and they hear each other."""
        group, (a, b) = await gathered(dial, 2)
        await a.ok("block", userId=b.user_id)
        await b.post(note(group, "still here"))
        await spread([a], "still here")
        await a.post(note(group, "me too"))
        await spread([b], "me too")


@ONE_LOOP
class TestForeignGroup:
    """The ids of others' groups open nothing and tell nothing."""

    @pytest.mark.parametrize("kind", ["group", "link"])
    async def test_commands(self, dial: Dialer, kind: str) -> None:
        """Every command about a group: the same answer as for one that does not exist."""
        word = new_tag()
        group, (a, b) = await founded(dial, 2, kind, name=word)
        [row] = await a.post(note(group, word))
        own, (c, d) = await founded(dial, 2)
        fields = {"userId": d.user_id, "userIds": [d.user_id], "seconds": 1, "role": "admin"}
        fields |= {"name": "stolen", "description": ""}
        commands = [
            *("accept_join", "reject_join", "join_requests", "invite", "kick", "leave_group"),
            *("dissolve_group", "set_role", "update_group", "mute", "group_members"),
        ]
        if kind == "link":
            commands.append("join_group")
        for cmd in commands:
            replies = []
            for place in (group, "g99999999"):
                reply = await c.command(cmd, groupId=place, **fields)
                assert reply["status"] == 4005, reply
                replies.append({**reply, "date": ""})
            assert replies[0] == replies[1]
        # People of another group, in one's own.
        for cmd, status in (("kick", 4005), ("set_role", 4005), ("mute", 4005), ("invite", 4004)):
            foreign = {**fields, "userId": a.user_id, "userIds": [a.user_id]}
            reply = await c.command(cmd, groupId=own, **foreign)
            assert reply["status"] == status, reply
        assert set(await roles(a, group)) == {a.user_id, b.user_id}
        assert (await view(a, group))["name"] == word
        assert await talk(a, group) == ["joined", word]
        assert row["chatId"] == group

    async def test_chats(self, dial: Dialer) -> None:
        """Every field that takes a chat or a message: 4005 or nothing, as for an unknown one."""
        word = new_tag()
        group, (a, b) = await founded(dial, 2, "tag", name=word)
        [row] = await a.post(note(group, word))
        c = await dial.user(started=True)
        answers = []
        for place in (group, "g99999999"):
            found: list[Frame] = []
            for cmd, fields in (
                ("history", {"chatId": place}),
                ("history", {"chatId": place, "after": "0"}),
                ("history", {"userId": place}),
                ("search_messages", {"chatId": place, "text": word}),
                ("typing", {"chatId": place}),
                ("typing", {"userId": place}),
            ):
                found.append(await c.command(cmd, **fields))
            for kind in "34567":
                found.append(await c.send([note(place, "x", kind)]))
                found.append(await c.send([note("", "x", kind, toId=place)]))
                found.append(await c.send([note(place, "x", kind, clientId=client_id())]))
            await c.read_mark(chatId=place)
            found.append(await c.reply())
            await c.read_mark(chatId=place, msgId=row["msgId"])
            found.append(await c.reply())
            await c.read_mark(toId=place)
            found.append(await c.reply())
            answers.append([{**each, "date": ""} for each in found])
        assert answers[0] == answers[1]
        for reply in answers[0]:
            assert reply["status"] in (4005, 6004) or not reply["result"], reply
            assert word not in str(reply)
        reply = await c.send([note(group, "x", "3", replyTo=row["msgId"])])
        assert reply["status"] == 4005
        for cmd in ("recall", "status", "report"):
            reply = await c.command(cmd, msgId=row["msgId"], reason="x")
            assert reply["status"] == 4005
        await silent(c)
        assert await talk(b, group) == ["joined", word]

    async def test_own_after_leaving(self, dial: Dialer) -> None:
        """Who has left is a stranger to every command, but reads what they could read."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await b.ok("leave_group", groupId=group)
        for cmd, fields, _ in MATRIX:
            rest = given(fields, dict.fromkeys(("user", "asker", "friend"), a.user_id))
            reply = await b.command(cmd, groupId=group, **rest)
            assert reply["status"] == 4005, reply
        assert await talk(b, group) == ["joined", "role", "left"]
        assert (await chat_of(b, group))["group"]["role"] == ""


class TestAtOnce:
    """What a command takes away is gone with its reply, however much is under way."""

    @pytest.mark.parametrize("ending", ["kick", "dissolve_group", "mute", "muteAll", "set_role"])
    async def test_from_elsewhere(self, dial: Dialer, ending: str) -> None:
        """Frames that another connection has pipelined: none is accepted after the reply."""
        group, (a, b, c) = await founded(dial, 3)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        if ending in ("mute", "muteAll"):
            await a.ok("set_role", groupId=group, userId=b.user_id, role="member")
        b2 = await another(dial, b)
        await started(a, b, c)
        kind = "4" if ending == "set_role" else "7"
        cmd, fields = _ending(ending, b)
        early = [lines(*(frame([note(group, f"{n}", kind)]) for n in range(20))) for _ in "12"]
        for wire, data in zip((b, b2), early, strict=True):
            await wire.send_raw(data)
        await a.ok(cmd, groupId=group, **fields)
        for wire in (b, b2):
            await wire.send_raw(lines(*(frame([note(group, "late", kind)]) for _ in range(5))))
        for wire in (b, b2):
            statuses = [(await wire.reply())["status"] for _ in range(25)]
            assert set(statuses[20:]) <= {4004, 4005}, statuses
            assert statuses[:20] == sorted(statuses[:20]), statuses
        heard = await talk(c, group)
        assert "late" not in heard
        name = {"muteAll": "group_updated", "set_role": "role"}.get(ending, cmd)
        name = {"kick": "kicked", "dissolve_group": "dissolved", "mute": "muted"}.get(name, name)
        # The notice stands behind all that was accepted.
        assert heard[-1] == name

    async def test_in_one_packet(self, dial: Dialer) -> None:
        """Leaving, and then writing, in one packet: the first part counts, the rest does not."""
        group, (a, b) = await gathered(dial, 2)
        leave = {"cmd": "leave_group", "groupId": group}
        before, after = frame([note(group, "before")]), frame([note(group, "after")])
        await b.send_raw(lines(before, leave, after, {"cmd": "group_members", "groupId": group}))
        statuses = [(await b.reply())["status"] for _ in range(4)]
        assert statuses == [1, 1, 4005, 4005]
        got = await a.expect_delivery(2)
        assert [each.get("event", {}).get("name") for each in got] == [None, "left"]
        await a.send_raw(
            lines({"cmd": "dissolve_group", "groupId": group}, frame([note(group, "after")]))
        )
        assert [(await a.reply())["status"] for _ in range(2)] == [1, 4005]

    async def test_nothing_new_reaches_them(self, dial: Dialer) -> None:
        """After the reply to `kick` no device of the kicked gets anything of the group."""
        group, (a, b, c) = await gathered(dial, 3)
        b2 = await another(dial, b)
        for number in range(10):
            posts = lines(*(frame([note(group, f"{number}.{n}")]) for n in range(5)))
            await c.send_raw(posts)
            await a.ok("kick", groupId=group, userIds=[b.user_id])
            await c.send_raw(posts)
            for _ in range(10):
                assert (await c.reply())["status"] == 1
            for wire in (b, b2):
                await wire.fence()
                got = [message for each in wire.pushed for message in each["message"]]
                wire.pushed.clear()
                await wire.ack(got[-1]["seq"])
                assert got[-1]["event"]["name"] == "kicked"
                assert len(got) <= 6
            await a.ok("invite", groupId=group, userIds=[b.user_id])
            for wire in (b, b2):
                [back] = await wire.expect_delivery(ack=True)
                assert back["event"]["name"] == "joined"

    @ONE_LOOP
    async def test_given_at_once(self, dial: Dialer) -> None:
        """What a command gives is there with its reply: the word, the role, the group."""
        group, (a, b) = await founded(dial, 2)
        c = await dial.user()
        await make_friends(a, c)
        for _ in range(10):
            await a.ok("update_group", groupId=group, muteAll=True)
            assert (await b.send([note(group, "x")]))["status"] == 4004
            await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
            await b.post(note(group, "x", "4"))
            await a.ok("set_role", groupId=group, userId=b.user_id, role="member")
            await a.ok("update_group", groupId=group, muteAll=False)
            await b.post(note(group, "x"))
            await a.ok("invite", groupId=group, userIds=[c.user_id])
            await c.post(note(group, "x"))
            await a.ok("kick", groupId=group, userIds=[c.user_id])
            assert (await c.send([note(group, "x")]))["status"] == 4005

    async def test_requests_end_too(self, dial: Dialer) -> None:
        """A list with one message for a group that one is out of is refused whole."""
        group, (a, b) = await gathered(dial, 2)
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        await a.drain(1)
        message = {"chatId": "", "fromId": "", "toId": a.user_id, "type": "1"}
        message |= {"info": [{"category": "0", "content": "hi"}], "createTime": ""}
        reply = await b.send([message, note(group, "x")])
        assert (reply["status"], len(reply["failed"])) == (4005, 1)
        await silent(a)
        await b.post(message)
        assert (await a.expect_delivery())[0]["chatId"] == pair_chat(a, b)


def _ending(name: str, user: Wire) -> tuple[str, dict[str, Any]]:
    match name:
        case "kick":
            return name, {"userIds": [user.user_id]}
        case "mute":
            return name, {"userId": user.user_id, "seconds": 600}
        case "muteAll":
            return "update_group", {"muteAll": True}
        case "set_role":
            return name, {"userId": user.user_id, "role": "member"}
    return name, {}


class TestAfterRestart:
    """Neither a crash nor a stop brings a right back, or takes one away."""

    async def test_rights(self, server: StartServer) -> None:
        """Roles, mutes, kicks, leavings, endings and requests are what they were."""
        own = server()
        group, (a, b, c, d, e) = await founded(own.dial, 5)
        f = await own.dial.user()
        ended = await f.ok("create_group", name="ended", kind="tag")
        await f.ok("dissolve_group", groupId=ended["id"])
        await f.ok("join_group", groupId=group, description="me?")
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await a.ok("mute", groupId=group, userId=c.user_id, seconds=600)
        await a.ok("kick", groupId=group, userIds=[d.user_id])
        await e.ok("leave_group", groupId=group)
        tag = await a.ok("create_group", name="quiet", kind="tag", userIds=[b.user_id])
        await a.ok("update_group", groupId=tag["id"], muteAll=True, notice="n")
        people = (a, b, c, d, e, f)
        for crash in (True, False):
            word = {each.user_id: await _all_of(each, group) for each in people}
            if crash:
                own.restart()
            else:
                assert own.stop() == 0
                own.start()
            for each in people:
                await _again(own, each)
            for each in people:
                assert await _all_of(each, group) == word[each.user_id]
            assert await roles(a, group) == {
                a.user_id: "owner",
                b.user_id: "admin",
                c.user_id: "member",
            }
            assert await asked(a, group) == [f.user_id]
            expected = {a: 1, b: 1, c: 4004, d: 4005, e: 4005, f: 4005}
            for each, status in expected.items():
                reply = await each.send([note(group, "x")])
                assert reply["status"] == status, (each.user_id, reply)
            assert (await b.send([note(tag["id"], "x", "3")]))["status"] == 4004
            assert (await view(b, tag["id"]))["notice"] == "n"
            assert (await f.send([note(ended["id"], "x", "3")]))["status"] == 4005
            assert (await a.command("join_group", groupId=ended["id"]))["status"] == 4005

    async def test_mute_ends_by_itself(self, server: StartServer) -> None:
        """A mute is over when its time is, also when the server was down meanwhile."""
        own = server()
        group, (a, b) = await founded(own.dial, 2)
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=1)
        assert (await b.send([note(group, "x")]))["status"] == 4004
        own.restart()
        b = await _again(own, b)
        async with asyncio.timeout(10):
            while (await b.send([note(group, "x")]))["status"] == 4004:
                pass
        [entry] = [
            each
            for each in await b.ok("group_members", groupId=group)
            if each["user"]["id"] == b.user_id
        ]
        assert entry["mutedUntil"] == ""


async def _all_of(wire: Wire, group: str) -> tuple[Any, ...]:
    reply = await wire.command("history", chatId=group, limit=100)
    listed = [each["group"] for each in await wire.ok("chats", size=100) if each["chatId"] == group]
    mine = await wire.ok("my_groups")
    return [each["msgId"] for each in reply["result"]], reply["status"], listed, mine


async def _again(own: Process, wire: Wire) -> Wire:
    """Log in again on the same object, with a new connection."""
    fresh = await own.dial()
    wire.sock.close()
    wire.sock, wire.buffer = fresh.sock, fresh.buffer
    wire.ready.clear()
    wire.pushed.clear()
    await wire.login(wire.phone)
    return wire


@ONE_LOOP
class TestOwner:
    """A group always has exactly one owner."""

    async def test_account_deleted(self, dial: Dialer) -> None:
        """An owner who goes for good leaves it to the eldest admin, else the eldest member."""
        group, (a, b, c, d) = await gathered(dial, 4)
        await a.ok("set_role", groupId=group, userId=c.user_id, role="admin")
        await told([b, c, d], group, "role", userId=c.user_id, role="admin", by=a.user_id)
        await a.ok("delete_account", password=a.password)
        for each in (b, c, d):
            new, left = await each.expect_delivery(2)
            check_notice(new, group, "role", userId=c.user_id, role="owner", by="")
            check_notice(left, group, "left", userIds=[a.user_id], by=a.user_id)
        assert one_owner(await roles(b, group)) == c.user_id
        await c.ok("delete_account", password=c.password)
        assert one_owner(await roles(d, group)) == b.user_id
        assert (await view(b, group))["owner"] == b.user_id
        await b.ok("delete_account", password=b.password)
        await d.ok("delete_account", password=d.password)

    async def test_requests_of_the_deleted(self, dial: Dialer) -> None:
        """Who is gone waits for nothing."""
        group, (a, _) = await founded(dial, 2)
        c = await dial.user()
        await c.ok("join_group", groupId=group)
        await c.ok("delete_account", password=c.password)
        assert await asked(a, group) == []
        reply = await a.command("accept_join", groupId=group, userId=c.user_id)
        assert reply["status"] == 6004
