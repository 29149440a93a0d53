"""Section 3, one's own account and devices, and what a person with netcat asks first."""

from datetime import UTC, datetime
from typing import Any

import pytest

from .people import (
    ACCOUNT,
    USER,
    assert_envelope,
    at_once,
    failed,
    is_date,
    make_friends,
    new_name,
    new_tag,
    users,
)
from .process import StartServer
from .wire import PASSWORD, Dialer, Wire, frame, new_phone, pair_chat

# What names no user: unknown, no number, and other spellings of one.
NOBODY = ["1", "0", "-1", "10000", "9007199254740991", "9" * 30, "abc", "10001-10002", "+10001"]


async def seen(wire: Wire, user: Wire) -> dict[str, Any]:
    """Return an account as another one sees it."""
    found = await wire.ok("account", userId=user.user_id)
    assert isinstance(found, dict)
    return found


class TestAccount:
    """Who sees what of whom."""

    @pytest.mark.parametrize("own", [{}, {"userId": None}, {"userId": ""}, {"userId": "own"}])
    async def test_own(self, dial: Dialer, own: Any) -> None:
        """Without a user, or with one's own id: all of it."""
        wire = await dial.user(username=(name := new_name()))
        if own.get("userId"):
            own = {"userId": wire.user_id}
        reply = await wire.command("account", **own)
        assert_envelope(reply, "account", dict)
        account = reply["result"]
        assert set(account) >= ACCOUNT
        assert set(account["user"]) == USER
        assert account["account"] == account["user"]["phone"] == wire.phone
        assert account["user"]["username"] == name
        assert is_date(account["user"]["modifyAt"])

    async def test_strangers(self, dial: Dialer) -> None:
        """A stranger sees the public side: no phone, no `account`, `isBind` false, no choices."""
        a = await dial.user()
        b = await dial.user(username=(name := new_name()), started=True)
        await b.ok("complete_account", desc="hello", sex=2)
        account = await seen(a, b)
        assert set(account) == ACCOUNT
        assert (account["account"], account["isBind"]) == ("", False)
        user = account["user"]
        assert set(user) == USER
        assert is_date(user.pop("modifyAt"))
        assert user == {
            "id": b.user_id,
            "username": name,
            "phone": "",
            "avatar": "",
            "desc": "hello",
            "sex": 2,
            "alias": "",
            "friends": 0,
            "isFriend": False,
        }

    async def test_friends(self, dial: Dialer) -> None:
        """A friend sees the phone, the number of friends, and the name they gave."""
        a, b, c = await users(dial, 3)
        await make_friends(b, a, c)
        await a.ok("set_alias", userId=b.user_id, alias="Bee")
        account = await seen(a, b)
        assert set(account) == ACCOUNT
        assert account["account"] == account["user"]["phone"] == b.phone
        assert account["isBind"] is False
        assert account["user"]["isFriend"] is True
        assert (account["user"]["alias"], account["user"]["friends"]) == ("Bee", 2)
        assert (await seen(c, b))["user"]["alias"] == ""

    async def test_no_longer_friends(self, dial: Dialer) -> None:
        """When the friendship ends so does what it showed."""
        a, b = await users(dial, 2)
        await make_friends(a, b)
        await a.ok("set_alias", userId=b.user_id, alias="Bee")
        await b.ok("delete_friend", userId=a.user_id)
        account = await seen(a, b)
        user = account["user"]
        assert (account["account"], user["phone"], user["alias"]) == ("", "", "")
        assert (user["isFriend"], user["friends"]) == (False, 0)

    @pytest.mark.parametrize("user", NOBODY)
    async def test_unknown(self, dial: Dialer, user: str) -> None:
        """A user id that is unknown: 6004."""
        await failed(await dial.user(), 6004, "account", {}, "userId", userId=user)


class TestCompleteAccount:
    """What is given is changed; what is absent stays."""

    async def test_all(self, dial: Dialer) -> None:
        """The account with its changes, at once and ever after, for others too."""
        wire, other = await users(dial, 2)
        name = new_name()
        changes = {"username": name, "desc": "我的描述 😀", "sex": 1}
        reply = await wire.command("complete_account", userId=wire.user_id, **changes)
        assert_envelope(reply, "complete_account", dict)
        assert set(reply["result"]) >= ACCOUNT
        for account in (
            reply["result"],
            await wire.ok("account"),
            await seen(other, wire),
            await (await dial()).login(wire.phone),
        ):
            user = account["user"]
            assert {key: user[key] for key in changes} == changes

    @pytest.mark.parametrize("absent", [{}, None, ""])
    async def test_absent_stays(self, dial: Dialer, absent: object) -> None:
        """Absent, null and "" change nothing, but that "" clears `desc`."""
        wire = await dial.user(username=new_name())
        before = await wire.ok("complete_account", desc="keep", sex=2)
        fields = ("userId", "username", "avatar", "sex")
        given: dict[str, object] = {} if absent == {} else dict.fromkeys(fields, absent)
        after = await wire.ok("complete_account", **given)
        assert {**after["user"], "modifyAt": ""} == {**before["user"], "modifyAt": ""}
        if absent is None:
            await wire.ok("complete_account", desc=None)
        assert (await wire.ok("account"))["user"]["desc"] == "keep"

    async def test_desc_is_cleared(self, dial: Dialer) -> None:
        """An empty `desc` is one."""
        wire = await dial.user()
        await wire.ok("complete_account", desc="x", sex=1)
        user = (await wire.ok("complete_account", desc=""))["user"]
        assert (user["desc"], user["sex"]) == ("", 1)

    @pytest.mark.parametrize("sex", [0, 1, 2])
    async def test_sex(self, dial: Dialer, sex: int) -> None:
        """0, 1 and 2 are there."""
        wire = await dial.user()
        await wire.ok("complete_account", sex=1)
        assert (await wire.ok("complete_account", sex=sex))["user"]["sex"] == sex

    @pytest.mark.parametrize(
        ("status", "field", "fields"),
        [
            (4003, "sex", {"sex": 3}),
            (4003, "sex", {"sex": -1}),
            (4003, "sex", {"sex": 1.5}),
            (4003, "sex", {"sex": True}),
            (4003, "sex", {"sex": [1]}),
            (4003, "desc", {"desc": 7}),
            (4003, "desc", {"desc": "a\0"}),
            (4003, "desc", {"desc": "x" * 201}),
            (4003, "username", {"username": {}}),
            (4003, "avatar", {"avatar": 1}),
            (4003, "userId", {"userId": 10001}),
            (6001, "username", {"username": "   "}),
            (6001, "username", {"username": "\u3000"}),
            (8004, "username", {"username": "x" * 16}),
            (9000, "username", {"username": "123"}),
            (9000, "username", {"username": "a\u202eb"}),
            (9000, "username", {"username": "admin"}),
            (8006, "avatar", {"avatar": "media/none"}),
            (8006, "avatar", {"avatar": "../../etc/passwd"}),
        ],
    )
    async def test_refused(self, dial: Dialer, status: int, field: str, fields: Any) -> None:
        """A bad value is refused with its code, and nothing of the request is done."""
        wire = await dial.user(username=(name := new_name()))
        good = {"username": new_name(), "desc": "new", "sex": 1}
        await failed(wire, status, "complete_account", {}, field, **(good | fields))
        user = (await wire.ok("account"))["user"]
        assert (user["username"], user["desc"], user["sex"]) == (name, "", 0)

    async def test_of_another(self, dial: Dialer) -> None:
        """`userId` is one's own or empty: 4004 for another's."""
        a, b = await users(dial, 2)
        await failed(a, 4004, "complete_account", {}, "userId", userId=b.user_id, desc="x")
        assert (await b.ok("account"))["user"]["desc"] == ""

    async def test_taken_names(self, dial: Dialer) -> None:
        """7000 for another's name in any spelling; one's own may be spelled anew."""
        tag = new_tag()
        a = await dial.user(username=f"straße{tag}")
        b = await dial.user(username=new_name())
        await failed(b, 7000, "complete_account", {}, "username", username=f"STRASSE{tag}")
        renamed = await a.ok("complete_account", username=f"STRASSE{tag}")
        assert renamed["user"]["username"] == f"STRASSE{tag}"

    async def test_a_name_becomes_free(self, dial: Dialer) -> None:
        """Whoever takes another name leaves the old one to others."""
        a, b = await users(dial, 2)
        name = new_name()
        await a.ok("complete_account", username=name)
        await a.ok("complete_account", username=new_name())
        await b.ok("complete_account", username=name)

    async def test_race_for_a_name(self, dial: Dialer) -> None:
        """Of many who take one name at once one gets it."""
        wires = await users(dial, 10)
        for _ in range(10):
            line = {"cmd": "complete_account", "username": new_name()}
            replies = await at_once(*((wire, line) for wire in wires))
            assert sorted(reply["status"] for reply in replies) == [1] + [7000] * 9

    async def test_without_a_name_others_are_not_in_the_way(self, dial: Dialer) -> None:
        """Accounts without a name complete the rest."""
        for wire in await users(dial, 2):
            assert (await wire.ok("complete_account", sex=2))["user"]["username"] == ""


class TestPrivacy:
    """Three choices, all true at first."""

    async def test_shown_to_oneself(self, dial: Dialer) -> None:
        """The account comes back, with the choices; what is absent, null or "" stays."""
        wire = await dial.user()
        names = ("findByPhone", "showPresence", "readReceipts")
        expected = dict.fromkeys(names, True)
        assert (await wire.ok("account"))["privacy"] == expected
        for name in names:
            reply = await wire.command("set_privacy", **{name: False})
            assert_envelope(reply, "set_privacy", dict)
            expected[name] = False
            assert reply["result"]["privacy"] == expected
        for absent in (None, ""):
            account = await wire.ok("set_privacy", **dict.fromkeys(names, absent))
            assert account["privacy"] == expected
        assert (await wire.ok("set_privacy"))["privacy"] == expected
        account = await wire.ok("set_privacy", **dict.fromkeys(names, True))
        assert account["privacy"] == dict.fromkeys(names, True)

    @pytest.mark.parametrize("value", [0, 1, "false", [], {}])
    async def test_booleans_only(self, dial: Dialer, value: object) -> None:
        """Anything but true and false: 4003."""
        wire = await dial.user()
        await failed(wire, 4003, "set_privacy", {}, "findByPhone", findByPhone=value)
        assert (await wire.ok("account"))["privacy"]["findByPhone"] is True

    async def test_find_by_phone(self, dial: Dialer) -> None:
        """Who does not want it is found by phone by nobody else, and still by name."""
        a = await dial.user(username=(name := new_name()))
        b = await dial.user()
        await a.ok("set_privacy", findByPhone=False)
        await failed_search(b, phone=a.phone)
        assert (await a.ok("search", phone=a.phone))[0]["id"] == a.user_id
        assert (await b.ok("search", username=name))[0]["id"] == a.user_id
        await a.ok("set_privacy", findByPhone=True)
        assert (await b.ok("search", phone=a.phone))[0]["id"] == a.user_id

    async def test_show_presence(self, dial: Dialer) -> None:
        """Who does not show it seems offline to friends, without a time."""
        a, b = await dial.pair()
        await a.ok("set_privacy", showPresence=False)
        [shown] = await b.ok("presence", userIds=[a.user_id])
        assert shown == {"userId": a.user_id, "online": False, "lastSeen": ""}
        await a.ok("set_privacy", showPresence=True)
        [shown] = await b.ok("presence", userIds=[a.user_id])
        assert shown["online"] is True

    async def test_read_receipts(self, dial: Dialer) -> None:
        """Who does not give them is not shown as having read, in `chats` and `status`."""
        a, b = await dial.pair()
        row = await a.say(b.user_id, "read me")
        await b.expect_delivery(ack=True)
        await b.read_mark(chatId=pair_chat(a, b))
        await b.fence()
        for receipts in (True, False):
            await b.ok("set_privacy", readReceipts=receipts)
            [chat] = [chat for chat in await a.ok("chats") if chat["chatId"] == pair_chat(a, b)]
            assert chat["peerRead"] == (row["msgId"] if receipts else "0")
            assert (await a.ok("status", msgId=row["msgId"]))["read"] == receipts

    async def test_durable(self, server: StartServer) -> None:
        """Choices and profile outlive a crash."""
        own = server()
        wire = await own.dial.user()
        await wire.ok("set_privacy", showPresence=False)
        before = await wire.ok("complete_account", username=new_name(), desc="d", sex=1)
        own.restart()
        assert await (await own.dial()).login(wire.phone) == before


async def failed_search(wire: Wire, **fields: object) -> None:
    """Require that a search finds nobody."""
    reply = await wire.command("search", **fields)
    assert (reply["status"], reply["result"], reply["message"]) == (0, [], "ok")


class TestDevices:
    """The devices of an account, by names that are no secrets."""

    async def test_list(self, dial: Dialer) -> None:
        """Number, name, when last seen, online, and which is the caller's; never a pushId."""
        owner = await dial.user()
        assert await owner.ok("devices") == []
        await owner.start(device="Pixel")
        other = await dial.device(owner, device="平板")
        away = await dial.device(owner)
        away.close()
        bare = await dial()
        await bare.login(owner.phone)
        reply = await owner.command("devices")
        assert_envelope(reply, "devices", list)
        one, two, three = reply["result"]
        for device in (one, two, three):
            assert set(device) == {"deviceId", "name", "lastSeen", "online", "current"}
            assert device["deviceId"].isdecimal()
            assert is_date(device["lastSeen"])
        assert [device["name"] for device in (one, two, three)] == ["Pixel", "平板", ""]
        assert [device["current"] for device in (one, two, three)] == [True, False, False]
        assert (one["online"], two["online"]) == (True, True)
        assert one["deviceId"] == (await owner.ok("whoami"))["deviceId"]
        for wire in (owner, other, away):
            assert wire.push_id not in str(reply)
        assert [device["current"] for device in await bare.ok("devices")] == [False] * 3

    async def test_away(self, dial: Dialer) -> None:
        """A device whose connection has ended is listed as offline."""
        owner = await dial.user(started=True)
        other = await dial.device(owner)
        await other.send_line({"cmd": "quit"})
        await other.rest()
        states = [device["online"] for device in await owner.ok("devices")]
        assert states == [True, False]

    async def test_sign_out(self, dial: Dialer) -> None:
        """An empty object; the device is gone, a second time is 4005."""
        owner = await dial.user(started=True)
        other = await dial.device(owner)
        device = (await other.ok("whoami"))["deviceId"]
        reply = await owner.command("sign_out", deviceId=device)
        assert_envelope(reply, "sign_out", dict)
        assert (reply["status"], reply["result"]) == (1, {})
        assert len(await owner.ok("devices")) == 1
        await failed(owner, 4005, "sign_out", {}, "deviceId", deviceId=device)

    @pytest.mark.parametrize("device", ["0", "1", "-1", "999999999", "9" * 40, "abc", "１"])
    async def test_unknown(self, dial: Dialer, device: str) -> None:
        """A device that does not exist, or is another's: 4005."""
        await dial.user(started=True)
        wire = await dial.user(started=True)
        await failed(wire, 4005, "sign_out", {}, "deviceId", deviceId=device)

    async def test_of_another_account(self, dial: Dialer) -> None:
        """Somebody else's device is not found, and goes on."""
        a, b = await users(dial, 2, started=True)
        device = (await b.ok("whoami"))["deviceId"]
        await failed(a, 4005, "sign_out", {}, "deviceId", deviceId=device)
        await b.fence()

    @pytest.mark.parametrize("device", [{}, {"deviceId": None}, {"deviceId": ""}])
    async def test_none_named(self, dial: Dialer, device: Any) -> None:
        """Without a device: 4003."""
        await failed(await dial.user(), 4003, "sign_out", {}, "deviceId", **device)


class TestTerminal:
    """`whoami`, `ping`, `help` and `quit` work for everybody."""

    async def test_whoami(self, dial: Dialer) -> None:
        """Empty without a session; then the user, and the device once it is started."""
        wire = await dial()
        reply = await wire.command("whoami")
        assert_envelope(reply, "whoami", dict)
        who = reply["result"]
        assert set(who) == {"userId", "username", "deviceId", "connection"}
        assert (who["userId"], who["username"], who["deviceId"]) == ("", "", "")
        assert who["connection"]
        await wire.register(username=(name := new_name()))
        then = await wire.ok("whoami")
        assert then == {**who, "userId": wire.user_id, "username": name}
        await wire.start()
        assert (await wire.ok("whoami"))["deviceId"].isdecimal()

    async def test_connections_differ(self, dial: Dialer) -> None:
        """Each connection has a name of its own."""
        one, two = await dial(), await dial()
        assert (await one.ok("whoami"))["connection"] != (await two.ok("whoami"))["connection"]

    @pytest.mark.parametrize("words", ["", "x", '国人 😀 \u2028\n\t"\\', "y" * 3000])
    async def test_ping(self, dial: Dialer, words: str) -> None:
        """The text comes back, before login and after."""
        wire = await dial()
        for _ in range(2):
            reply = await wire.command("ping", text=words)
            if reply["result"]["text"] == "":
                assert_envelope(await wire.command("ping"), "ping", dict)
                assert await wire.ok("ping", text=None) == {"text": ""}
            assert reply["result"] == {"text": words}
            if not wire.user_id:
                await wire.register()

    async def test_help(self, dial: Dialer) -> None:
        """Every command with its fields and what it needs; no operator's command."""
        reply = await (await dial()).command("help")
        assert_envelope(reply, "help", list)
        for row in reply["result"]:
            assert set(row) == {"cmd", "fields", "needs"}
        names = [row["cmd"] for row in reply["result"]]
        assert len(names) == len(set(names))
        assert {"register", "login", "complete_account", "search", "friends", "add_friend"} <= set(
            names
        )
        assert not {"broadcast", "reset_password", "disable", "backup", "reload"} & set(names)

    async def test_help_of_one(self, dial: Dialer) -> None:
        """With a name only that one; absent, null and "" are no name."""
        wire = await dial()
        everything = await wire.ok("help")
        [row] = await wire.ok("help", name="login")
        assert row in everything
        assert (row["cmd"], set(row["fields"])) == ("login", {"phone", "password"})
        for absent in (None, ""):
            assert await wire.ok("help", name=absent) == everything
        await failed(wire, 4002, "help", [], "name", name="no_such_command")

    async def test_quit(self, dial: Dialer) -> None:
        """The reply, then the end; what is pipelined behind it is not answered."""
        wire = await dial.user(started=True)
        await wire.send_raw(b'{"cmd":"quit","id":1}\n{"cmd":"ping"}\n')
        [reply] = await wire.rest()
        assert_envelope(reply, "quit", dict, "id")
        assert (reply["status"], reply["result"]) == (1, {})
        await dial.resume(wire.push_id)

    async def test_dates(self, server: StartServer) -> None:
        """All dates are in the configured zone."""
        for zone, hour in (("UTC", 0), ("Asia/Kolkata", 5.5)):
            own = server(server_zone=zone)
            wire = await own.dial.user()
            a, b = await own.dial.pair()
            row = await a.say(b.user_id, "x")
            [got] = await b.expect_delivery()
            shown = _seconds(row["createTime"])
            assert row["createTime"] == got["createTime"]
            assert shown == got["time"] // 1000 + hour * 3600
            for date in (
                (await wire.command("ping"))["date"],
                (await wire.ok("account"))["user"]["modifyAt"],
            ):
                assert abs(_seconds(date) - shown) < 60


async def test_restart_keeps_who(dial: Dialer) -> None:
    """`restart` logs in without a password: the same account, and its commands work."""
    owner = await dial.user(started=True)
    wire = await dial()
    await failed(wire, 11001, "account", {})
    await wire.exchange(frame("restart", owner.push_id))
    assert (await wire.ok("account"))["account"] == owner.phone
    await failed(wire, 11000, "register", {}, phone=new_phone(), password=PASSWORD)


def _seconds(date: str) -> float:
    return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()
