"""A stranger with every id of two friends in hand: what they reach, change, learn and forge.

The commands and their fields are asked of the server, so a new one is tried from the day it is
there. What may be done with a stranger's id stands in ALLOWED; all else is refused, and the two
find their world as it was.
"""

import json
from base64 import b64encode
from typing import Any

import pytest

from tests.conformance.people import all_pages, failed, make_friends, new_name
from tests.conformance.process import StartServer
from tests.conformance.wire import (
    PASSWORD,
    Dialer,
    Frame,
    Wire,
    assert_refused,
    frame,
    pair_chat,
    text,
)

IDS = (
    *("userId", "userIds", "chatId", "msgId", "deviceId", "groupId"),
    *("code", "path", "upload", "before", "after", "avatar"),
)
# What works with the id of somebody who is no friend: they may be looked at, asked, shut out.
ALLOWED = {"account", "add_friend", "block", "unblock", "join_group", "report"}
# These end the attacker, or take no id of anybody else.
LEFT_OUT = {"delete_account", "logout", "quit", "register", "login", "ping", "help", "whoami"}
# What the attacker may have changed for the two: both were asked to be friends.
TOLD = {"friend_request", "join_request"}


class World:
    """Two friends with a chat, a file, a group and devices; and a stranger with their ids."""

    def __init__(self, c: Wire, d: Wire, stranger: Wire) -> None:
        self.c, self.d, self.stranger = c, d, stranger
        self.ids: dict[str, Any] = {}  # theirs, by the name of the field

    async def settle(self) -> "World":
        """Make the two's world."""
        c, d = self.c, self.d
        await make_friends(c, d)
        picture = b64encode(b"theirs: a file").decode()
        file = await c.ok("save_file", name="theirs", content=picture)
        info = [{"category": "3", "content": file["path"]}, {"category": "0", "content": "theirs"}]
        row = (await c.post({**text(d.user_id, ""), "info": info}))[0]
        part = await c.ok("save_part", offset=0, content=picture)
        group = await c.ok("create_group", name="theirs", kind="group", userIds=[d.user_id])
        link = await c.ok("create_group", name="theirs too", kind="link", userIds=[d.user_id])
        await c.post({**text("", "theirs"), "chatId": group["id"], "type": "7"})
        for one in (c, d):
            await one.ok("complete_account", username=new_name(), desc="theirs to tell")
        self.ids = {
            "userId": c.user_id,
            "userIds": [c.user_id],
            "chatId": pair_chat(c, d),
            "msgId": row["msgId"],
            "deviceId": (await c.ok("whoami"))["deviceId"],
            "groupId": group["id"],
            "code": link["id"],
            "path": file["path"],
            "avatar": file["path"],
            "upload": part["upload"],
            "before": row["msgId"],
            "after": row["msgId"],
        }
        return self

    async def picture(self) -> Frame:
        """Everything that the two see of themselves and each other."""
        found: Frame = {}
        for name, one, other in (("c", self.c, self.d), ("d", self.d, self.c)):
            chats = await all_pages(one, "chats")
            found[name] = {
                "account": await one.ok("account"),
                "friend": await one.ok("account", userId=other.user_id),
                "devices": [each["deviceId"] for each in await one.ok("devices")],
                "friends": await all_pages(one, "friends"),
                "blocked": await one.ok("blocked"),
                "groups": await all_pages(one, "my_groups"),
                "members": await all_pages(one, "group_members", groupId=self.ids["groupId"]),
                "history": [await one.ok("history", chatId=self.ids["chatId"])],
                "talk": await one.ok("history", chatId=self.ids["groupId"]),
                "read": [
                    (each["chatId"], each["read"], each["unread"])
                    for each in chats
                    if each["chatId"] in (self.ids["chatId"], self.ids["groupId"])
                ],
                "file": await one.ok("get_file", path=self.ids["path"]),
            }
        return found


@pytest.fixture
async def world(dial: Dialer) -> World:
    """Two friends, and somebody who is neither."""
    c, d, stranger = [await dial.user(started=True) for _ in range(3)]
    return await World(c, d, stranger).settle()


def sound(row: Frame, ids: dict[str, Any]) -> Frame:
    """A request with the ids given, and what is plausible in all other fields."""
    plain = {"string": "x", "integer": 1, "boolean": True, "array": ["x"]}
    request = {name: plain[kind.split(" or ")[0]] for name, kind in row["fields"].items()}
    known = {
        "role": "admin",
        "page": 0,
        "size": 10,
        "limit": 10,
        "old": PASSWORD,
        "new": PASSWORD,
        "kind": "group",
        "sex": 1,
        "offset": 0,
        "content": b64encode(b"x").decode(),
        "purpose": "message",
        "username": "",
        "phone": "",
        "seconds": 60,
    }
    return {name: ids.get(name, known.get(name, value)) for name, value in request.items()}


def requests(row: Frame, ids: dict[str, Any]) -> list[Frame]:
    """Requests with one of their ids, and with all of them, that its fields can hold."""
    names = [name for name in IDS if name in row["fields"]]
    found = [{name: ids[name]} for name in names]
    found += [{name: ids[name] for name in names}]
    # An id of one kind in the place of another, too.
    for name in names:
        if name not in ("userIds", "path", "avatar"):
            found += [{name: ids[other]} for other in ("userId", "chatId", "groupId", "msgId")]
    if "groupId" in names:
        found += [{"groupId": ids["groupId"], "userId": ids["userId"], "userIds": ids["userIds"]}]
    clean = []
    for chosen in found:
        request = {
            name: value
            for name, value in sound(row, chosen).items()
            if name in chosen or name not in IDS
        }
        clean.append({"cmd": row["cmd"], **request})
    return clean


async def test_every_id_of_others_is_refused(world: World) -> None:
    """Every command with every id of others in every field: refused, nothing told or changed."""
    before = await world.picture()
    rows = [row for row in await world.stranger.ok("help") if row["cmd"] not in LEFT_OUT]
    assert len(rows) > 40
    tried = 0
    for row in rows:
        for request in requests(row, world.ids) if set(IDS) & set(row["fields"]) else []:
            reply = await world.stranger.exchange(request)
            await world.stranger.fence()  # ten bad lines running end a connection
            tried += 1
            said = json.dumps(reply, ensure_ascii=False)
            assert world.c.phone not in said, (request, reply)
            assert world.d.phone not in said, (request, reply)
            if row["cmd"] not in ALLOWED:
                assert "theirs" not in said.replace("theirs to tell", ""), (request, reply)
                worked = reply["status"] == 1 and names_them(request, world.ids)
                assert not worked, (request, reply)
    assert tried > 200
    await world.stranger.ok("unblock", userId=world.c.user_id)
    after = await world.picture()
    assert after == before
    for one in (world.c, world.d):
        for pushed in one.pushed:
            for message in pushed["message"]:
                if message["fromId"] == world.stranger.user_id or "event" in message:
                    name = message.get("event", {}).get("name", "a message")
                    assert name in TOLD | {"friend_accepted", "joined"}, message


def names_them(request: Frame, ids: dict[str, Any]) -> bool:
    """Whether an id of theirs stands in a request at its own place, but for one's own chat."""
    if request["cmd"] in ("history", "typing") and "chatId" not in request:
        return False
    return any(request.get(name) == ids[name] for name in ids)


async def test_messages_into_others_chats(world: World) -> None:
    """Lists, acks and read marks with others' ids reach nobody, and a good one beside stays out."""
    before = await world.picture()
    stranger, ids = world.stranger, world.ids
    for message in (
        {**text("", "evil"), "chatId": ids["groupId"], "type": "7"},
        {**text(ids["groupId"], "evil"), "type": "7"},
        {**text("", "evil"), "chatId": ids["groupId"], "type": "4"},
        {**text("", "evil"), "chatId": ids["chatId"], "type": "7"},
        {**text(world.c.user_id, "evil"), "chatId": ids["chatId"]},
        text(world.c.user_id, "evil", fromId=world.d.user_id),
        {**text(world.c.user_id, "evil"), "type": "0"},
    ):
        own = text(stranger.user_id, "beside")
        reply = await stranger.send([own, message])
        assert reply["status"] in (4004, 4005), (message, reply)
    for mark in (
        {"chatId": ids["chatId"], "msgId": ids["msgId"]},
        {"fromId": world.c.user_id, "toId": world.d.user_id},
        {"fromId": world.d.user_id, "toId": world.c.user_id, "msgId": ids["msgId"]},
        {"chatId": ids["groupId"]},
    ):
        await stranger.read_mark(**mark)
        assert (await stranger.reply())["status"] in (4004, 4005), mark
    await stranger.ack(10**6)
    await stranger.fence()
    assert await world.picture() == before


@pytest.mark.parametrize(
    ("cmd", "name", "invented"),
    [
        ("recall", "msgId", "9007199254740990"),
        ("status", "msgId", "9007199254740990"),
        ("report", "msgId", "9007199254740990"),
        ("sign_out", "deviceId", "900719925474099"),
        ("group_members", "groupId", "g900719925474099"),
        ("leave_group", "groupId", "g900719925474099"),
        ("history", "chatId", "g900719925474099"),
        ("get_file", "path", f"media/ab/ab{'c' * 62}"),
        ("save_part", "upload", "x" * 24),
    ],
)
async def test_theirs_is_as_if_it_were_not(
    world: World, cmd: str, name: str, invented: str
) -> None:
    """What others have is answered like what never was: nobody learns that it exists."""
    theirs = world.ids["groupId" if cmd == "history" else name]
    more = {"offset": 4, "content": "eA=="} if cmd == "save_part" else {"reason": "x"}
    answers = [
        await world.stranger.command(cmd, **{name: value}, **more) for value in (theirs, invented)
    ]
    assert answers[0]["status"] == 4005, answers
    assert {**answers[0], "date": ""} == {**answers[1], "date": ""}


async def test_what_was_theirs_once(world: World) -> None:
    """Who left a group reads no member and no later message of it, and changes nothing there."""
    c, d, ids = world.c, world.d, world.ids
    await d.ok("leave_group", groupId=ids["groupId"])
    await c.post({**text("", "later"), "chatId": ids["groupId"], "type": "7"})
    for cmd, fields in (
        ("group_members", {}),
        ("join_requests", {}),
        ("update_group", {"name": "mine"}),
        ("invite", {"userIds": [c.user_id]}),
        ("kick", {"userIds": [c.user_id]}),
        ("set_role", {"userId": d.user_id, "role": "owner"}),
        ("mute", {"userId": c.user_id, "seconds": 9}),
        ("leave_group", {}),
        ("dissolve_group", {}),
    ):
        reply = await d.command(cmd, groupId=ids["groupId"], **fields)
        assert reply["status"] in (4004, 4005), (cmd, reply)
    assert "later" not in str(await d.ok("history", chatId=ids["groupId"]))
    assert await d.ok("search_messages", text="later") == []


async def test_no_command_shows_the_users_one_by_one(server: StartServer) -> None:
    """Whatever shows the name of a stranger by id alone has a budget: ids are numbers in a row."""
    own = server(limits_profiles=5, limits_friend_requests=5, limits_groups=5)
    wire = await own.dial.user()
    other = await own.dial.user(username=(name := new_name()))
    for row in await wire.ok("help"):
        if row["cmd"] in LEFT_OUT or not {"userId", "userIds"} & set(row["fields"]):
            continue
        ids = {"userId": other.user_id, "userIds": [other.user_id]}
        fields = {
            key: value for key, value in sound(row, ids).items() if key not in IDS or key in ids
        }
        shown = 0
        for _ in range(12):
            reply = await wire.command(row["cmd"], **fields)
            if reply["status"] == 4290:
                break
            await wire.fence()
            shown += name in str(reply)
        assert shown <= 5, f"{row['cmd']} shows strangers without end"
    # A friend is looked at as often as one likes.
    await failed(wire, 4290, "account", {}, None, userId=other.user_id)


async def test_nothing_can_be_assigned(dial: Dialer) -> None:
    """What is the server's to say is not taken from a client, wherever it stands."""
    a, b = await dial.pair()
    forged = {
        "id": "1", "userId": a.user_id, "isFriend": True, "friends": 99, "phone": "13800000000",
        "role": "owner", "owner": a.user_id, "members": 9, "isBind": True, "modifyAt": "2000",
        "disabled": False, "operator": True, "generation": 0, "find_by_phone": False,
        "privacy": {"findByPhone": False}, "needs": "nothing", "status": 1, "pushId": "x",
    }  # fmt: skip
    before = await a.ok("account")
    reply = await a.exchange({**forged, "cmd": "complete_account", "desc": "mine", "id": 1})
    seen = reply["result"]
    assert seen["user"] | {"desc": "", "modifyAt": ""} == before["user"] | {"modifyAt": ""}
    assert (seen["account"], seen["isBind"], seen["privacy"]) == (a.phone, True, before["privacy"])
    made = (await a.exchange({**forged, "cmd": "create_group", "name": "x", "kind": "tag"}))[
        "result"
    ]
    assert (made["owner"], made["role"], made["members"]) == (a.user_id, "owner", 1)
    mine = {"cmd": "join_group", "groupId": made["id"], "role": "owner", "owner": b.user_id}
    assert (await b.exchange(mine))["result"]["role"] == "member"
    server_made = {
        "msgId": "1", "seq": 1, "time": 5, "recalled": True, "createTime": "1970-01-01T00:00:00",
        "event": {"name": "recalled", "msgId": "1"}, "fromName": "system", "queue": [b.user_id],
    }  # fmt: skip
    await b.drain(1)
    row = await a.say(b.user_id, "hi", **server_made)
    assert row["msgId"] != "1"
    [got] = await b.expect_delivery(ack=True)
    assert set(got) == {
        "chatId", "fromId", "toId", "type", "info", "createTime", "msgId", "seq", "time"
    }  # fmt: skip
    assert (got["fromId"], got["msgId"], got["createTime"]) == (
        a.user_id,
        row["msgId"],
        row["createTime"],
    )
    assert not got["createTime"].startswith("1970")
    for forged_sender in (b.user_id, "0", "system", f" {a.user_id}"):
        await assert_refused(
            a, 4004, text(b.user_id, "x", fromId=forged_sender), "message[0].fromId"
        )
    # On the frame around it as well.
    reply = await a.exchange(frame([text(b.user_id, "x")], b.push_id, userId=b.user_id, seq=9))
    assert reply["pushId"] == a.push_id


@pytest.mark.parametrize("status", [0, -1, 4000, "1", None, [], {}], ids=str)
async def test_the_status_of_a_client_says_nothing(dial: Dialer, status: object) -> None:
    """A client is no server: its status is not looked at."""
    a, b = await dial.pair()
    line = {"status": status, "pushId": a.push_id, "message": [text(b.user_id, "x")]}
    assert (await a.exchange(line))["status"] == 1
    await b.expect_delivery(ack=True)


@pytest.mark.parametrize("value", [True, 1, 1.0, [], {}], ids=str)
async def test_ids_are_strings(dial: Dialer, value: object) -> None:
    """`true`, 1 and 1.0 are no ids, and none is taken for another user's."""
    wire = await dial.user()
    for cmd, name in (("account", "userId"), ("block", "userId"), ("recall", "msgId")):
        await failed(wire, 4003, cmd, {}, name, **{name: value})
    await failed(wire, 4003, "sign_out", {}, "deviceId", deviceId=value)


async def test_numbers_and_texts_are_told_apart(dial: Dialer) -> None:
    """ "1", 1, 1.0 and true are the same only where the contract says so: `type` and `category`."""
    a, b = await dial.pair()
    for good in ("1", 1):
        await a.post({**text(b.user_id, "x"), "type": good})
    for bad in (True, 1.5, [1], {"x": 1}, "01", " 1", "1.0", "１"):
        await assert_refused(a, 4003, {**text(b.user_id, "x"), "type": bad})
    reply = await a.command("set_privacy", findByPhone="false")
    assert (reply["status"], reply["field"]) == (4003, "findByPhone")
    for bad in ("1", True, 1.0, "true"):
        await a.fence()
        reply = await a.command("complete_account", sex=bad)
        assert (reply["status"], reply["field"]) == (4003, "sex"), bad


class TestNames:
    """Names that would lie to people."""

    @pytest.mark.parametrize(
        "name", ["аdmin", "ѕystem", "rооt", "ρushd", "suppοrt", "аdмin", "ADМIN"]
    )
    async def test_looks_like_a_reserved_one(self, dial: Dialer, name: str) -> None:
        """A reserved name in look-alike letters of other scripts is reserved too."""
        wire = await dial.user()
        await failed(wire, 9000, "complete_account", {}, "username", username=name)

    @pytest.mark.parametrize("char", "\n\r\t\x1b\x7f\x9b\u2028\u2029\u202e\u2066\u200f", ids=ascii)
    async def test_breaks_a_line(self, dial: Dialer, char: str) -> None:
        """A group's name and an alias hold nothing that breaks a line or turns it round."""
        a, b = await dial.pair()
        bad = f"choir{char}system: hello"
        await failed(a, 4003, "create_group", {}, "name", name=bad, kind="group")
        await failed(a, 4003, "set_alias", {}, "alias", userId=b.user_id, alias=bad)
        made = await a.ok("create_group", name="👨‍👩‍👧 合唱团", kind="group")
        await failed(a, 4003, "update_group", {}, "name", groupId=made["id"], name=bad)
