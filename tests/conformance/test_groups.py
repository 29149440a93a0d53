"""Section 3, groups: making, finding, joining, leading and ending them.

What is said in groups stands in `test_group_messages`, who may do what in `test_group_rights`.
"""

from typing import Any

import pytest

from .crowd import (
    GROUP,
    KINDS,
    another,
    asked,
    chat_of,
    check_notice,
    founded,
    gathered,
    note,
    roles,
    silent,
    spread,
    started,
    talk,
    told,
    view,
)
from .people import (
    ONE_LOOP,
    USER,
    all_pages,
    assert_envelope,
    failed,
    ids,
    is_date,
    limited,
    make_friends,
    new_tag,
    users,
)
from .process import StartServer
from .wire import Dialer, Frame, befriend, content, pair_chat

EACH_KIND = pytest.mark.parametrize("kind", KINDS)

# The commands that answer with the group that they name.
ABOUT_ONE = (
    "accept_join",
    "reject_join",
    "invite",
    "kick",
    "leave_group",
    "dissolve_group",
    "set_role",
    "update_group",
    "mute",
)


def check_group(group: Frame, **expected: object) -> None:
    """Require the members of a group and nothing else, and these values."""
    more = {"code"} if "code" in group else set()
    assert set(group) == GROUP | more, group
    assert is_date(group["modifyAt"])
    assert type(group["members"]) is int
    assert type(group["muteAll"]) is bool
    assert {name: group[name] for name in expected} == expected


@ONE_LOOP
class TestCreate:
    """`create_group`."""

    @EACH_KIND
    async def test_result(self, dial: Dialer, kind: str) -> None:
        """The whole group as its owner sees it; a link alone has a code."""
        a, b = await users(dial, 2)
        await make_friends(a, b)
        fields = {"name": " 群 one ", "kind": kind, "userIds": [b.user_id], "desc": "d"}
        reply = await a.command("create_group", **fields, avatar="")
        assert_envelope(reply, "create_group", dict)
        check_group(
            reply["result"],
            name="群 one",
            kind=kind,
            desc="d",
            avatar="",
            notice="",
            owner=a.user_id,
            role="owner",
            members=2,
            muteAll=False,
        )
        assert ("code" in reply["result"]) == (kind == "link")
        assert await roles(b, reply["result"]["id"]) == {a.user_id: "owner", b.user_id: "member"}

    async def test_least(self, dial: Dialer) -> None:
        """A name and a kind are enough; what is optional may be absent, null or empty."""
        a = await dial.user()
        for rest in ({}, {"userIds": None, "desc": None, "avatar": None}):
            made = await a.ok("create_group", name="x", kind="tag", **rest)
            check_group(made, members=1, desc="", avatar="", role="owner")
        made = await a.ok("create_group", name="x", kind="tag", userIds="", desc="", avatar="")
        check_group(made, members=1)

    @EACH_KIND
    async def test_everybody_is_told(self, dial: Dialer, kind: str) -> None:
        """All who are in get `joined`, as the first message of the group's chat."""
        a, b = await dial.pair()
        made = await a.ok("create_group", name="Choir", kind=kind, userIds=[b.user_id])
        event = {"userIds": [a.user_id, b.user_id], "by": a.user_id}
        notice = await told([a, b], made["id"], "joined", **event)
        assert "Choir" in content(notice)
        assert await talk(b, made["id"]) == await talk(a, made["id"]) == ["joined"]

    async def test_oneself_and_repeats(self, dial: Dialer) -> None:
        """Oneself and repeats in `userIds` count once."""
        a, b = await users(dial, 2)
        await make_friends(a, b)
        listed = [b.user_id, a.user_id, b.user_id, a.user_id]
        made = await a.ok("create_group", name="x", kind="group", userIds=listed)
        check_group(made, members=2, role="owner")
        assert await roles(a, made["id"]) == {a.user_id: "owner", b.user_id: "member"}

    async def test_friends_only(self, dial: Dialer) -> None:
        """Who is no friend is 4004, who does not exist 6004; then there is no group at all."""
        a, b, c = await users(dial, 3)
        await make_friends(a, b)
        for status, user in ((4004, c.user_id), (6004, "99999999"), (6004, "x")):
            fields = {"name": "x", "kind": "group", "userIds": [b.user_id, user]}
            reply = await failed(a, status, "create_group", {}, None, **fields)
            assert reply["field"].startswith("userIds")
        assert await a.ok("my_groups") == await b.ok("my_groups") == []
        assert await b.ok("chats") != []
        assert "group" not in str(await b.ok("chats"))

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("name", None),
            ("name", " \t"),
            ("name", "x" * 51),
            ("kind", None),
            ("kind", "club"),
            ("kind", "Group"),
            ("desc", "x" * 501),
            ("userIds", ["1"] * 5001),
            ("userIds", "10001"),
        ],
    )
    async def test_bad_fields(self, dial: Dialer, field: str, value: object) -> None:
        """What is missing, unknown or too long: 4003 with the field."""
        a = await dial.user()
        fields = {"name": "x", "kind": "group", field: value}
        await failed(a, 4003, "create_group", {}, field, **fields)
        assert await a.ok("my_groups") == []

    async def test_longest(self, dial: Dialer) -> None:
        """A name of 50 and a description of 500 characters are taken as they are."""
        a = await dial.user()
        made = await a.ok("create_group", name="群" * 50, kind="group", desc="😀" * 500)
        check_group(made, name="群" * 50, desc="😀" * 500)

    async def test_avatar(self, dial: Dialer) -> None:
        """A path that is no picture of the caller's: 8006."""
        a = await dial.user()
        fields = {"name": "x", "kind": "group", "avatar": "media/none.png"}
        await failed(a, 8006, "create_group", {}, "avatar", **fields)
        made = await a.ok("create_group", name="x", kind="group")
        path = {"groupId": made["id"], "avatar": "media/none.png"}
        await failed(a, 8006, "update_group", {}, "avatar", **path)


@ONE_LOOP
class TestSearch:
    """`search_group`."""

    async def test_by_part(self, dial: Dialer) -> None:
        """Groups and tags whose name holds it, folded and literal; a link never."""
        a, b = await users(dial, 2)
        tag = new_tag()
        made = {}
        for kind in KINDS:
            made[kind] = await a.ok("create_group", name=f"Ärzte {tag} 100%", kind=kind)
        for part in (tag, tag.upper(), f"ÄRZTE {tag}", f"a\u0308rzte {tag}", f"{tag} 100%"):
            reply = await b.command("search_group", name=part)
            assert_envelope(reply, "search_group", list)
            assert reply["status"] == 1
            assert ids(reply["result"]) == [made["group"]["id"], made["tag"]["id"]]
        for found in reply["result"]:
            check_group(found, role="", owner=a.user_id, members=1)
        for part in (f"{tag} 100_", f"{tag}%", f"{tag}x"):
            assert (await b.command("search_group", name=part))["status"] == 0

    async def test_as_one_sees_it(self, dial: Dialer) -> None:
        """The caller's own role; what only members may read is not shown to others."""
        a, b = await users(dial, 2)
        tag = new_tag()
        made = await a.ok("create_group", name=tag, kind="tag")
        await a.ok("update_group", groupId=made["id"], notice="for members")
        for wire, role, notice in ((a, "owner", "for members"), (b, "", "")):
            [found] = await wire.ok("search_group", name=tag)
            check_group(found, role=role, notice=notice)

    async def test_empty(self, dial: Dialer) -> None:
        """Nothing found, and an empty name: status 0, an empty list and "ok", as `search` has it.

        Nobody can list all groups.
        """
        a = await dial.user()
        await a.ok("create_group", name="x", kind="tag")
        for name in (new_tag() * 2, "", None, " ", "\u200b"):
            reply = await a.command("search_group", name=name)
            assert_envelope(reply, "search_group", list)
            assert (reply["status"], reply["result"], reply["message"]) == (0, [], "ok")
        await failed(a, 4003, "search_group", [], "name", name="x" * 301)

    async def test_ended_and_renamed(self, dial: Dialer) -> None:
        """A dissolved group is not found, a renamed one by its new name only."""
        a = await dial.user()
        old, new = new_tag(), new_tag()
        made = await a.ok("create_group", name=old, kind="group")
        await a.ok("update_group", groupId=made["id"], name=new.upper())
        assert (await a.command("search_group", name=old))["status"] == 0
        assert ids(await a.ok("search_group", name=new)) == [made["id"]]
        await a.ok("dissolve_group", groupId=made["id"])
        assert (await a.command("search_group", name=new))["status"] == 0

    async def test_pages(self, dial: Dialer) -> None:
        """By `next` each once; by number a page each; the last one has no `next`."""
        a = await dial.user()
        tag = new_tag()
        made = [(await a.ok("create_group", name=tag, kind="tag"))["id"] for _ in range(13)]
        assert ids(await all_pages(a, "search_group", name=tag)) == made
        assert ids(await all_pages(a, "search_group", name=tag, size=4)) == made
        for page, count in ((0, 10), ("1", 3), (2, 0)):
            reply = await a.command("search_group", name=tag, page=page)
            assert len(reply["result"]) == count
            assert ("next" in reply) == (page == 0)


@ONE_LOOP
class TestJoin:
    """`join_group`, `join_requests`, `accept_join`, `reject_join`."""

    async def test_tag(self, dial: Dialer) -> None:
        """Anybody joins a tag at once, and all are told, the one who joins too."""
        group, (a, b) = await gathered(dial, 2, "tag")
        c = await dial.user(started=True)
        reply = await c.command("join_group", groupId=group)
        assert_envelope(reply, "join_group", dict)
        check_group(reply["result"], id=group, role="member", members=3, owner=a.user_id)
        await told([a, b, c], group, "joined", userIds=[c.user_id], by=c.user_id)
        await c.post(note(group, "hi"))
        await spread([a, b], "hi")

    async def test_link(self, dial: Dialer) -> None:
        """A link is joined by its code alone; its id, seen or guessed, opens nothing."""
        group, (a, b) = await gathered(dial, 2, "link")
        c = await dial.user(started=True)
        for fields in ({"groupId": group}, {"code": "x"}, {"code": group.code + "x"}):
            field = next(iter(fields))
            await failed(c, 4005, "join_group", {}, field, **fields)
        result = await c.ok("join_group", code=group.code, groupId="")
        check_group(result, id=group, role="member", members=3)
        assert result["code"] == group.code
        await told([a, b, c], group, "joined", userIds=[c.user_id], by=c.user_id)

    async def test_code_is_for_members(self, dial: Dialer) -> None:
        """The code is long, and whoever leaves is shown it no more."""
        group, (a, b) = await founded(dial, 2, "link")
        assert len(group.code) >= 12
        assert (await view(b, group))["code"] == group.code
        assert "code" not in await b.ok("leave_group", groupId=group)
        assert group.code not in str(await b.ok("chats"))
        await a.ok("dissolve_group", groupId=group)
        await failed(b, 4005, "join_group", {}, "code", code=group.code)

    async def test_twice(self, dial: Dialer) -> None:
        """Who is in already is told the group, and nothing changes."""
        for kind in KINDS:
            group, (a, b) = await gathered(dial, 2, kind)
            result = await b.ok("join_group", groupId=group)
            check_group(result, id=group, role="member", members=2)
            if kind == "link":
                assert (await a.ok("join_group", code=group.code))["role"] == "owner"
            await silent(a, b)

    async def test_ask(self, dial: Dialer) -> None:
        """A group asks its owner and admins by a message of type 2, and nobody else."""
        group, (a, b, c) = await gathered(dial, 3)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await told([a, b, c], group, "role", userId=b.user_id, role="admin", by=a.user_id)
        d = await dial.user(started=True)
        result = await d.ok("join_group", groupId=group, description="let me in")
        check_group(result, id=group, role="", members=3, notice="")
        for leader in (a, b):
            [got] = await leader.expect_delivery(ack=True)
            assert (got["type"], got["fromId"], got["toId"]) == ("2", d.user_id, leader.user_id)
            assert got["chatId"] == pair_chat(d, leader)
            assert content(got) == "let me in"
            event = {"groupId": group, "userId": d.user_id, "description": "let me in"}
            assert got["event"] == {"name": "join_request", **event}
        await silent(c, d)
        assert d.user_id not in await roles(a, group)

    async def test_ask_without_words(self, dial: Dialer) -> None:
        """Without a description the message is readable still."""
        group, (a,) = await gathered(dial, 1)
        d = await dial.user()
        await d.ok("join_group", groupId=group)
        [got] = await a.expect_delivery()
        assert got["event"]["description"] == ""
        assert len(content(got).split()) > 2
        await failed(d, 4003, "join_group", {}, "description", groupId=group, description="x" * 201)

    async def test_ask_again(self, dial: Dialer) -> None:
        """Asking again changes the description and sends nothing."""
        group, (a,) = await gathered(dial, 1)
        d = await dial.user()
        await d.ok("join_group", groupId=group, description="one")
        await a.expect_delivery(ack=True)
        await d.ok("join_group", groupId=group, description="two")
        await silent(a)
        [entry] = await a.ok("join_requests", groupId=group)
        assert entry["description"] == "two"

    async def test_requests(self, dial: Dialer) -> None:
        """`{"user", "description", "date"}` of each who waits, in pages."""
        group, (a, b) = await founded(dial, 2)
        people = await users(dial, 12)
        for each in people:
            await each.ok("join_group", groupId=group, description=f"I am {each.user_id}")
        reply = await a.command("join_requests", groupId=group)
        assert_envelope(reply, "join_requests", list, "next")
        for entry in reply["result"]:
            assert set(entry) == {"user", "description", "date"}
            assert set(entry["user"]) == USER
            assert entry["description"] == f"I am {entry['user']['id']}"
            assert is_date(entry["date"])
            assert entry["user"]["phone"] == ""
        assert sorted(await asked(a, group)) == sorted(each.user_id for each in people)
        await failed(b, 4004, "join_requests", [], "groupId", groupId=group)
        await failed(people[0], 4005, "join_requests", [], "groupId", groupId=group)

    async def test_accept(self, dial: Dialer) -> None:
        """The one who asked is in, and all are told; a second time changes nothing."""
        group, (a, b) = await gathered(dial, 2)
        d = await dial.user(started=True)
        await d.ok("join_group", groupId=group)
        await a.expect_delivery(ack=True)
        reply = await a.command("accept_join", groupId=group, userId=d.user_id)
        assert_envelope(reply, "accept_join", dict)
        check_group(reply["result"], id=group, role="owner", members=3)
        await told([a, b, d], group, "joined", userIds=[d.user_id], by=a.user_id)
        assert await asked(a, group) == []
        await a.ok("accept_join", groupId=group, userId=d.user_id)
        await silent(a, b, d)
        await failed(a, 4005, "reject_join", {}, "userId", groupId=group, userId=d.user_id)

    async def test_reject(self, dial: Dialer) -> None:
        """The request is gone and nobody is told; they may ask again."""
        group, (a, b) = await gathered(dial, 2)
        d = await dial.user(started=True)
        await d.ok("join_group", groupId=group)
        await a.expect_delivery(ack=True)
        result = await a.ok("reject_join", groupId=group, userId=d.user_id)
        check_group(result, id=group, members=2)
        await silent(a, b, d)
        assert await asked(a, group) == []
        for cmd in ("accept_join", "reject_join"):
            await failed(a, 4005, cmd, {}, "userId", groupId=group, userId=d.user_id)
        await d.ok("join_group", groupId=group)
        [got] = await a.expect_delivery()
        assert got["event"]["name"] == "join_request"
        assert await asked(a, group) == [d.user_id]

    async def test_request_ends_with_the_door_opened(self, dial: Dialer) -> None:
        """Whoever was invited meanwhile waits no more."""
        group, (a, _) = await founded(dial, 2)
        d = await dial.user()
        await d.ok("join_group", groupId=group)
        await make_friends(a, d)
        await a.ok("invite", groupId=group, userIds=[d.user_id])
        assert await asked(a, group) == []
        await a.ok("kick", groupId=group, userIds=[d.user_id])
        await failed(a, 4005, "accept_join", {}, "userId", groupId=group, userId=d.user_id)

    @EACH_KIND
    async def test_no_such_group(self, dial: Dialer, kind: str) -> None:
        """Unknown, dissolved, or no group at all: 4005; without any id 4003."""
        a, b = await dial.pair()
        made = await a.ok("create_group", name="x", kind=kind)
        await a.ok("dissolve_group", groupId=made["id"])
        for group in (made["id"], "g99999999", "g", "gx", pair_chat(a, b), "system", b.user_id):
            await failed(b, 4005, "join_group", {}, "groupId", groupId=group)
        await failed(b, 4003, "join_group", {}, "groupId")
        await failed(b, 4003, "join_group", {}, "groupId", groupId="", code=None)


@ONE_LOOP
class TestInvite:
    """`invite`."""

    @EACH_KIND
    async def test_friends(self, dial: Dialer, kind: str) -> None:
        """Any member brings friends in; all are told at once, repeats and members once."""
        group, (a, b) = await gathered(dial, 2, kind)
        c, d = await users(dial, 2)
        await make_friends(b, c, d)
        await started(c, d)
        await b.drain(2)
        listed = [c.user_id, d.user_id, c.user_id, a.user_id, b.user_id]
        reply = await b.command("invite", groupId=group, userIds=listed)
        assert_envelope(reply, "invite", dict)
        check_group(reply["result"], id=group, role="member", members=4)
        event = {"userIds": [c.user_id, d.user_id], "by": b.user_id}
        await told([a, b, c, d], group, "joined", **event)
        assert (await roles(c, group))[d.user_id] == "member"

    async def test_members_stay_as_they_are(self, dial: Dialer) -> None:
        """Inviting who is in changes no role and tells nobody."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await started(a, b)
        await a.ok("invite", groupId=group, userIds=[b.user_id, a.user_id])
        await silent(a, b)
        assert await roles(a, group) == {a.user_id: "owner", b.user_id: "admin"}

    async def test_all_or_nobody(self, dial: Dialer) -> None:
        """One who is no friend (4004) or nobody (6004): then nobody is let in."""
        group, (a, _) = await founded(dial, 2)
        c, d = await users(dial, 2)
        await make_friends(a, c)
        for status, user in ((4004, d.user_id), (6004, "99999999"), (6004, "x")):
            listed = {"groupId": group, "userIds": [c.user_id, user]}
            reply = await failed(a, status, "invite", {}, None, **listed)
            assert reply["field"].startswith("userIds")
        assert len(await roles(a, group)) == 2
        for nobody in ([], "", None):
            await failed(a, 4003, "invite", {}, "userIds", groupId=group, userIds=nobody)


@ONE_LOOP
class TestKick:
    """`kick`."""

    async def test_kick(self, dial: Dialer) -> None:
        """All are told, the kicked too; they are in no list any more."""
        group, (a, b, c, d) = await gathered(dial, 4)
        reply = await a.command("kick", groupId=group, userIds=[c.user_id, d.user_id, c.user_id])
        assert_envelope(reply, "kick", dict)
        check_group(reply["result"], id=group, members=2, role="owner")
        event = {"userIds": [c.user_id, d.user_id], "by": a.user_id}
        await told([a, b, c, d], group, "kicked", **event)
        assert set(await roles(a, group)) == {a.user_id, b.user_id}
        assert await c.ok("my_groups") == []
        await a.post(note(group, "after"))
        await spread([b], "after")
        await silent(c, d)

    async def test_all_or_nobody(self, dial: Dialer) -> None:
        """One who is not in (4005), nobody (6004) or not below (4004): nobody is put out."""
        group, (a, b, c) = await founded(dial, 3)
        d = await dial.user()
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        for wire, status, user in (
            (a, 4005, d.user_id),
            (a, 6004, "99999999"),
            (a, 6004, "x"),
            (a, 4004, a.user_id),
            (b, 4004, a.user_id),
            (b, 4004, b.user_id),
            (c, 4004, b.user_id),
        ):
            listed = {"groupId": group, "userIds": [c.user_id, user]}
            await failed(wire, status, "kick", {}, None, **listed)
        assert len(await roles(a, group)) == 3
        await failed(a, 4003, "kick", {}, "userIds", groupId=group, userIds=[])

    async def test_coming_back(self, dial: Dialer) -> None:
        """The kicked may be let in again, as a member, and reads from then on."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await a.post(note(group, "before"))
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        await a.post(note(group, "between"))
        await a.ok("invite", groupId=group, userIds=[b.user_id])
        await a.post(note(group, "after"))
        assert (await roles(a, group))[b.user_id] == "member"
        assert await talk(b, group) == ["joined", "after"]


@ONE_LOOP
class TestLeave:
    """`leave_group` and `dissolve_group`."""

    @EACH_KIND
    async def test_leave(self, dial: Dialer, kind: str) -> None:
        """All are told, the one who leaves too; nothing new reaches them."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        reply = await c.command("leave_group", groupId=group)
        assert_envelope(reply, "leave_group", dict)
        check_group(reply["result"], id=group, role="", members=2, notice="")
        await told([a, b, c], group, "left", userIds=[c.user_id], by=c.user_id)
        await a.post(note(group, "after"))
        await spread([b], "after")
        await silent(c)
        await failed(c, 4005, "leave_group", {}, "groupId", groupId=group)

    async def test_owner(self, dial: Dialer) -> None:
        """An owner hands over or dissolves: 4004, alone as well; after handing over they go."""
        group, (a, b) = await founded(dial, 2)
        await failed(a, 4004, "leave_group", {}, "groupId", groupId=group)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="owner")
        await a.ok("leave_group", groupId=group)
        await failed(b, 4004, "leave_group", {}, "groupId", groupId=group)
        assert await roles(b, group) == {b.user_id: "owner"}

    @EACH_KIND
    async def test_dissolve(self, dial: Dialer, kind: str) -> None:
        """All who were members are told; then the group is in no list and takes nothing."""
        group, (a, b, c) = await gathered(dial, 3, kind)
        await c.ok("leave_group", groupId=group)
        await told([a, b, c], group, "left", userIds=[c.user_id], by=c.user_id)
        reply = await a.command("dissolve_group", groupId=group)
        assert_envelope(reply, "dissolve_group", dict)
        check_group(reply["result"], id=group, role="", members=0, owner="")
        await told([a, b], group, "dissolved")
        await silent(c)
        for wire in (a, b):
            assert await wire.ok("my_groups") == []
            await failed(wire, 4005, "group_members", [], "groupId", groupId=group)
            reply = await wire.send([note(group, "x")])
            assert reply["status"] == 4005
            assert await talk(wire, group) == ["joined", "left", "dissolved"]
        await failed(a, 4005, "dissolve_group", {}, "groupId", groupId=group)


@ONE_LOOP
class TestRoles:
    """`set_role`."""

    async def test_up_and_down(self, dial: Dialer) -> None:
        """An owner makes admins and members; each change is told to all."""
        group, (a, b, c) = await gathered(dial, 3)
        for role in ("admin", "member"):
            reply = await a.command("set_role", groupId=group, userId=b.user_id, role=role)
            assert_envelope(reply, "set_role", dict)
            check_group(reply["result"], id=group, role="owner", owner=a.user_id)
            await told([a, b, c], group, "role", userId=b.user_id, role=role, by=a.user_id)
            assert (await roles(c, group))[b.user_id] == role
            assert (await view(b, group))["role"] == role

    async def test_hand_over(self, dial: Dialer) -> None:
        """Another becomes owner, the old one an admin: one owner at any time."""
        group, (a, b, c) = await gathered(dial, 3)
        result = await a.ok("set_role", groupId=group, userId=c.user_id, role="owner")
        check_group(result, owner=c.user_id, role="admin")
        await told([a, b, c], group, "role", userId=c.user_id, role="owner", by=a.user_id)
        assert await roles(b, group) == {
            a.user_id: "admin",
            b.user_id: "member",
            c.user_id: "owner",
        }
        await failed(a, 4004, "dissolve_group", {}, "groupId", groupId=group)
        await c.ok("kick", groupId=group, userIds=[a.user_id])

    async def test_same_role(self, dial: Dialer) -> None:
        """Giving somebody the role that they have tells nobody."""
        group, (a, b) = await gathered(dial, 2)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="member")
        await silent(a, b)

    async def test_codes(self, dial: Dialer) -> None:
        """Not in 4005, nobody 6004, oneself 4004, no role 4003."""
        group, (a, b) = await founded(dial, 2)
        c = await dial.user()
        for status, field, user, role in (
            (4005, "userId", c.user_id, "admin"),
            (6004, "userId", "99999999", "admin"),
            (6004, "userId", "x", "admin"),
            (4003, "userId", "", "admin"),
            (4004, "userId", a.user_id, "member"),
            (4004, "userId", a.user_id, "owner"),
            (4003, "role", b.user_id, ""),
            (4003, "role", b.user_id, "king"),
            (4003, "role", b.user_id, "Admin"),
        ):
            named = {"groupId": group, "userId": user, "role": role}
            await failed(a, status, "set_role", {}, field, **named)
        assert await roles(a, group) == {a.user_id: "owner", b.user_id: "member"}

    async def test_a_muted_heir(self, dial: Dialer) -> None:
        """An owner is not muted: nobody could end that."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=600)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="owner")
        await b.post(note(group, "I speak"))


@ONE_LOOP
class TestUpdate:
    """`update_group`."""

    async def test_fields(self, dial: Dialer) -> None:
        """What is given changes and is told; what is absent or null stays."""
        group, (a, b) = await gathered(dial, 2)
        for changes in (
            {"name": " New 群 "},
            {"desc": "d"},
            {"notice": "n"},
            {"muteAll": True},
            {"name": "Two", "desc": "e", "notice": "o", "muteAll": False},
            {"desc": "", "notice": ""},
        ):
            before = await view(a, group)
            rest: dict[str, Any] = {"name": None, "desc": None, "notice": None, "avatar": ""}
            given = {**rest, "muteAll": "", **changes}
            reply = await a.command("update_group", groupId=group, **given)
            assert_envelope(reply, "update_group", dict)
            shown = {**changes, "name": str(changes.get("name", before["name"])).strip()}
            check_group(reply["result"], **{**before, **shown, "modifyAt": ""} | _modified(reply))
            changed = {name: shown[name] for name in changes}
            await told([a, b], group, "group_updated", by=a.user_id, changed=changed)
            check_group(await view(b, group), **shown)

    async def test_nothing(self, dial: Dialer) -> None:
        """Without a change nobody is told, and the group is as it was."""
        group, (a, b) = await gathered(dial, 2)
        before = await view(a, group)
        assert await a.ok("update_group", groupId=group) == before
        assert await a.ok("update_group", groupId=group, name="", avatar="") == before
        await silent(a, b)

    async def test_bad_fields(self, dial: Dialer) -> None:
        """Too long or blank: 4003 with the field, and nothing of the request is done."""
        group, (a, _) = await founded(dial, 2)
        for field, value in (
            ("name", " "),
            ("name", "x" * 51),
            ("desc", "x" * 501),
            ("notice", "x" * 501),
            ("muteAll", "yes"),
            ("muteAll", 1),
        ):
            fields = {"groupId": group, "desc": "changed", field: value}
            await failed(a, 4003, "update_group", {}, field, **fields)
        assert (await view(a, group))["desc"] == ""


def _modified(reply: Frame) -> Frame:
    return {"modifyAt": reply["result"]["modifyAt"]}


@ONE_LOOP
class TestMute:
    """`mute`, and `mutedUntil`."""

    async def test_mute(self, dial: Dialer) -> None:
        """A muted one cannot write and is told so, like all; 0 ends it."""
        group, (a, b, c) = await gathered(dial, 3)
        reply = await a.command("mute", groupId=group, userId=b.user_id, seconds=600)
        assert_envelope(reply, "mute", dict)
        check_group(reply["result"], id=group, members=3)
        await told([a, b, c], group, "muted", userId=b.user_id, seconds=600, by=a.user_id)
        entry = {each["user"]["id"]: each for each in await c.ok("group_members", groupId=group)}
        assert is_date(entry[b.user_id]["mutedUntil"])
        assert entry[b.user_id]["mutedUntil"] > entry[b.user_id]["joinedAt"]
        assert entry[c.user_id]["mutedUntil"] == ""
        for kind in ("5", "7"):
            reply = await b.send([note(group, "x", kind)])
            assert (reply["status"], reply["field"]) == (4004, "message[0].chatId")
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=0)
        await told([a, b, c], group, "muted", userId=b.user_id, seconds=0, by=a.user_id)
        await b.post(note(group, "again"))
        await spread([a, c], "again")

    async def test_a_muted_one_still_reads(self, dial: Dialer) -> None:
        """Muting takes away the word, and nothing else."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=600)
        await started(a, b)
        await a.post(note(group, "for all"))
        await spread([b], "for all")
        assert (await talk(b, group))[-1] == "for all"

    async def test_leaving_does_not_end_it(self, dial: Dialer) -> None:
        """Who leaves a tag and comes back is muted still."""
        group, (a, b) = await founded(dial, 2, "tag")
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=600)
        await b.ok("leave_group", groupId=group)
        await b.ok("join_group", groupId=group)
        assert (await b.send([note(group, "x")]))["status"] == 4004
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=0)
        await b.post(note(group, "x"))

    async def test_codes(self, dial: Dialer) -> None:
        """Not in 4005, nobody 6004, not below 4004, no such time 4003."""
        group, (a, b, c) = await founded(dial, 3)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        d = await dial.user()
        for wire, status, user in (
            (a, 4005, d.user_id),
            (a, 6004, "99999999"),
            (a, 4004, a.user_id),
            (b, 4004, a.user_id),
            (b, 4004, b.user_id),
            (c, 4004, b.user_id),
        ):
            named = {"groupId": group, "userId": user, "seconds": 60}
            await failed(wire, status, "mute", {}, None, **named)
        for seconds in (None, "", "60", -1, 1.5, 2**40, True):
            named = {"groupId": group, "userId": c.user_id, "seconds": seconds}
            await failed(a, 4003, "mute", {}, "seconds", **named)
        await b.ok("mute", groupId=group, userId=c.user_id, seconds=365 * 86400)
        await a.ok("mute", groupId=group, userId=b.user_id, seconds=60)

    async def test_mute_all(self, dial: Dialer) -> None:
        """With `muteAll` only owner and admins write."""
        group, (a, b, c) = await founded(dial, 3)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        await b.ok("update_group", groupId=group, muteAll=True)
        for wire in (a, b):
            await wire.post(note(group, "x"), note(group, "x", "4"), note(group, "x", "5"))
        for kind in ("5", "7"):
            assert (await c.send([note(group, "x", kind)]))["status"] == 4004
        await a.ok("update_group", groupId=group, muteAll=False)
        await c.post(note(group, "x"))


@ONE_LOOP
class TestLists:
    """`group_members` and `my_groups`."""

    async def test_members(self, dial: Dialer) -> None:
        """`{"user", "role", "joinedAt", "mutedUntil"}` of each, users as the caller sees them."""
        group, (a, b, c) = await founded(dial, 3)
        await a.ok("set_alias", userId=b.user_id, alias="Bee")
        reply = await a.command("group_members", groupId=group)
        assert_envelope(reply, "group_members", list)
        for entry in reply["result"]:
            assert set(entry) == {"user", "role", "joinedAt", "mutedUntil"}
            assert set(entry["user"]) == USER
            assert is_date(entry["joinedAt"])
            assert entry["mutedUntil"] == ""
        by_id = {entry["user"]["id"]: entry["user"] for entry in reply["result"]}
        assert by_id[b.user_id]["alias"] == "Bee"
        assert by_id[b.user_id]["phone"] == b.phone
        # b and c are no friends: being in one group shows no phone.
        seen = {each["user"]["id"]: each for each in await b.ok("group_members", groupId=group)}
        assert seen[c.user_id]["user"]["phone"] == ""
        assert seen[c.user_id]["user"]["isFriend"] is False

    async def test_pages_of_members(self, dial: Dialer) -> None:
        """By `next` each member once, though people come meanwhile; sizes 1 to 100."""
        group, (a,) = await founded(dial, 1, "tag")
        people = await users(dial, 14)
        for each in people[:12]:
            await each.ok("join_group", groupId=group)
        expected = [a.user_id, *(each.user_id for each in people)]
        reply = await a.command("group_members", groupId=group, size=5)
        assert ids(reply["result"]) == expected[:5]
        await people[12].ok("join_group", groupId=group)
        rest = await all_pages(a, "group_members", groupId=group, size=5, page=reply["next"])
        assert ids(rest) == expected[5:14]
        assert ids(await a.ok("group_members", groupId=group, page=1)) == expected[10:14]
        assert await a.ok("group_members", groupId=group, page=9) == []
        for size in (0, 101, -1):
            await failed(a, 4003, "group_members", [], "size", groupId=group, size=size)
        await failed(a, 4003, "group_members", [], "page", groupId=group, page="x")

    async def test_mine(self, dial: Dialer) -> None:
        """All groups that one is in now, as one sees them; none that one has left."""
        a, b = await users(dial, 2)
        await make_friends(a, b)
        made = []
        for kind in (*KINDS, *KINDS):
            made.append(await a.ok("create_group", name=kind, kind=kind, userIds=[b.user_id]))
        await b.ok("leave_group", groupId=made[1]["id"])
        await a.ok("kick", groupId=made[2]["id"], userIds=[b.user_id])
        await a.ok("dissolve_group", groupId=made[3]["id"])
        reply = await b.command("my_groups")
        assert_envelope(reply, "my_groups", list)
        assert ids(reply["result"]) == [made[index]["id"] for index in (0, 4, 5)]
        for each in reply["result"]:
            check_group(each, role="member", members=2, owner=a.user_id)
        assert ids(await all_pages(a, "my_groups", size=2)) == [
            made[index]["id"] for index in (0, 1, 2, 4, 5)
        ]

    async def test_all_about_one_show_it(self, dial: Dialer) -> None:
        """Every command about one group: 4003 without an id, 4005 with one of nobody's."""
        a = await dial.user()
        for cmd in (*ABOUT_ONE, "group_members", "join_requests"):
            shape: object = [] if cmd in ("group_members", "join_requests") else {}
            rest = {"userId": a.user_id, "userIds": [a.user_id], "role": "admin", "seconds": 1}
            for nothing in ("", None):
                await failed(a, 4003, cmd, shape, "groupId", groupId=nothing, **rest)
            for unknown in ("g99999999", "g", "system", "10001-10002", "x" * 64, "gg1", "g01"):
                await failed(a, 4005, cmd, shape, "groupId", groupId=unknown, **rest)
            await failed(a, 4003, cmd, shape, "groupId", groupId="x" * 65, **rest)


@ONE_LOOP
class TestNotices:
    """The server's own messages lie in the group's order like any other."""

    async def test_order(self, dial: Dialer) -> None:
        """Each device gets notices and messages in one order, which history keeps."""
        group, (a, b) = await gathered(dial, 2)
        again = await another(dial, a)
        c = await dial.user(started=True)
        await befriend(a, c)
        await again.expect_delivery(2, ack=True)
        await a.post(note(group, "one"))
        await a.ok("invite", groupId=group, userIds=[c.user_id])
        await a.post(note(group, "two"))
        await a.ok("update_group", groupId=group, name="N")
        await a.ok("set_role", groupId=group, userId=c.user_id, role="admin")
        await c.post(note(group, "three"))
        await a.ok("kick", groupId=group, userIds=[c.user_id])
        names = ["one", "joined", "two", "group_updated", "role", "three", "kicked"]
        got = await b.expect_delivery(7)
        assert [_name(message) for message in got] == names
        assert [_name(each) for each in await again.expect_delivery(7)] == names
        assert [int(each["msgId"]) for each in got] == sorted(int(m["msgId"]) for m in got)
        assert (await talk(b, group))[-7:] == names
        assert await talk(c, group) == names[1:]
        check_notice(got[3], group, "group_updated", by=a.user_id, changed={"name": "N"})

    async def test_names_of_people(self, dial: Dialer) -> None:
        """A notice is readable by people: it says who, by name or by id, and never a phone."""
        a = await dial.user(username=f"Z{new_tag()}")
        b = await dial.user()
        group = await a.ok("create_group", name="Choir", kind="tag")
        await b.ok("join_group", groupId=group["id"])
        await b.ok("leave_group", groupId=group["id"])
        found = [content(each) for each in await b.ok("history", chatId=group["id"])]
        for words in found:
            assert b.user_id in words
            assert b.phone not in words
        [first, *_] = await a.ok("history", chatId=group["id"])
        name = (await a.ok("account"))["user"]["username"]
        assert name in content(first)

    async def test_to_who_was_away(self, dial: Dialer) -> None:
        """What happened while a device was off comes in order when it is back."""
        group, (a, b) = await gathered(dial, 2)
        b.close()
        await a.post(note(group, "one"))
        await a.ok("update_group", groupId=group, notice="n")
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        await a.post(note(group, "two"))
        back, reply = await dial.resume(b.push_id)
        assert reply["queued"] == 3
        got = await back.expect_delivery(3)
        assert [_name(message) for message in got] == ["one", "group_updated", "kicked"]

    async def test_in_chats(self, dial: Dialer) -> None:
        """A group stands in the list of chats, with its newest message, notices included."""
        group, (a, b) = await founded(dial, 2)
        entry = await chat_of(b, group)
        assert entry["kind"] == "group"
        check_group(entry["group"], id=group, role="member", members=2)
        assert "user" not in entry
        assert entry["last"]["event"]["name"] == "joined"
        assert entry["peerRead"] == "0"
        await a.post(note(group, "hi"))
        assert content((await chat_of(b, group))["last"]) == "hi"


class TestLimits:
    """Bounds that an operator sets."""

    async def test_budget(self, server: StartServer) -> None:
        """More new groups than an hour allows: 4290."""
        dial = server(limits_groups=2).dial
        a = await dial.user()
        for _ in range(2):
            await a.ok("create_group", name="x", kind="tag")
        await limited(a, "create_group", {}, name="x", kind="tag")

    async def test_most_members(self, server: StartServer) -> None:
        """Beyond `limits.group_members`: 4006 by every way in; nothing has changed then."""
        dial = server(limits_group_members=2).dial
        a, b, c, d = await users(dial, 4)
        await make_friends(a, b, c)
        both = [b.user_id, c.user_id]
        await failed(a, 4006, "create_group", {}, None, name="x", kind="group", userIds=both)
        assert await a.ok("my_groups") == []
        made = {}
        for kind in KINDS:
            made[kind] = await a.ok("create_group", name="x", kind=kind, userIds=[b.user_id])
        group = made["group"]["id"]
        await failed(a, 4006, "invite", {}, None, groupId=group, userIds=[c.user_id])
        await failed(d, 4006, "join_group", {}, None, groupId=made["tag"]["id"])
        await failed(d, 4006, "join_group", {}, None, code=made["link"]["code"])
        await d.ok("join_group", groupId=group)
        await failed(a, 4006, "accept_join", {}, None, groupId=group, userId=d.user_id)
        # The request still waits, and is good once there is room.
        assert await asked(a, group) == [d.user_id]
        await a.ok("kick", groupId=group, userIds=[b.user_id])
        await a.ok("accept_join", groupId=group, userId=d.user_id)
        assert await roles(a, group) == {a.user_id: "owner", d.user_id: "member"}


def _name(message: Frame) -> str:
    return str(message["event"]["name"]) if "event" in message else content(message)
