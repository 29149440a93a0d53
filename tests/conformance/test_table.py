"""Every command, every field, and every kind of value that a client can get wrong.

The table of commands is asked of the server by `help`, so a new command is tested from the day
it is there. Whatever is sent: no 5000, the reply has its shape, and the connection goes on.
"""

from typing import Any

import pytest

from .people import ONE_LOOP, failed, is_date, make_friends, new_name
from .wire import PASSWORD, Dialer, Frame, Wire, new_phone, pair_chat

pytestmark = ONE_LOOP

# What works without a session.
OPEN = {"register", "login", "ping", "help", "whoami", "quit"}

# The codes of the contract.
CODES = {
    *(0, 1, 6000, 6001, 6002, 6003, 6004, 7000, 7001, 8000, 8001, 8002, 8003, 8004, 8005, 8006),
    *(9000, 10000, 11000, 11001, 12000),
    *(4000, 4001, 4002, 4003, 4004, 4005, 4006, 4007, 4290, 5030),
}

# What an empty text does, where it is not the same as nothing.
CLEARED_BY_EMPTY = {"desc", "alias", "notice"}

# What ends something that later requests need.
ENDING = {"leave_group", "dissolve_group", "delete_account"}

# A value for each type that `help` names, and values of every other type.
PLAIN: dict[str, Any] = {"string": "x", "integer": 1, "boolean": True, "array": [], "object": {}}
TYPED: dict[str, list[Any]] = {
    "string": ["x"],
    "integer": [5, -5],
    "number": [1.5, -0.0, 1e300],
    "boolean": [True, False],
    "array": [[], ["x"], [None], [[[]]]],
    "object": [{}, {"x": 1}],
}

TEXTS = [
    " ",
    "\t\n",
    "0",
    "-1",
    "1.5",
    "１",
    "x" * 64,
    "x" * 65,
    "x" * 200,
    "x" * 201,
    "x" * 300,
    "x" * 301,
    "😀" * 900,
    "9" * 16,
    "9" * 17,
    "9" * 400,
    "a\0b",
    "\u2028\u202e\ufeff\x7f\x1b[2J",
    "'; DROP TABLE account; --",
    "%_\\*?[",
    "../../etc/passwd",
    "after:1",
    "after:1.2",
    "after:9223372036854775808",
    "after:9223372036854775808.9223372036854775808",
    "system",
    "media/x",
]
NUMBERS = [0, -1, 3, 100, 101, 2**31, 2**53 - 1, 2**53, -(2**53), 2**63, 2**64, 10**40]


class Place:
    """Three people: the one who asks, a friend, and two strangers who are friends."""

    def __init__(self, dial: Dialer) -> None:
        self.dial = dial
        self.wire: Wire
        self.known: dict[str, Any] = {}  # a sound value for a field, by its name
        self.foreign: list[str] = []  # ids of others' users, chats, messages, devices and groups
        self.used_up = False  # what was made has ended

    async def settle(self) -> None:
        """Make everybody anew."""
        self.wire, friend = await self.dial.user(started=True), await self.dial.user()
        c, d = await self.dial.user(started=True), await self.dial.user()
        for one, other in ((self.wire, friend), (c, d)):
            await make_friends(one, other)
        mine = await self.wire.say(friend.user_id, "mine")
        theirs = await c.say(d.user_id, "theirs")
        groups = [
            await owner.ok("create_group", name=name, kind="group", userIds=[member.user_id])
            for owner, member, name in ((self.wire, friend, "one"), (c, d, "other"))
        ]
        self.known = {
            "phone": friend.phone,
            "password": PASSWORD,
            "old": PASSWORD,
            "new": PASSWORD,
            "userId": friend.user_id,
            "userIds": [friend.user_id],
            "chatId": pair_chat(self.wire, friend),
            "msgId": mine["msgId"],
            "deviceId": (await self.wire.ok("whoami"))["deviceId"],
            "groupId": groups[0]["id"],
            "kind": "group",
            "role": "member",
            "code": "",
            "page": 0,
            "size": 1,
            "limit": 1,
            "sex": 1,
            "name": "login",
            "before": mine["msgId"],
            "after": "",
            "avatar": "",
            "purpose": "message",
            "offset": 0,
        }
        self.foreign = [
            c.user_id,
            theirs["chatId"],
            theirs["msgId"],
            (await c.ok("whoami"))["deviceId"],
            groups[1]["id"],
            f"{self.wire.user_id}-{'9' * 16}",
            f"{self.wire.user_id}-{'9' * 40}",
        ]

    async def ready(self, row: Frame) -> None:
        """Bring the connection into the state that the command needs."""
        if self.used_up:
            self.used_up = False
            await self.settle()
        # This is also the proof that the request before has left the connection usable.
        logged_in = (await self.wire.ok("whoami"))["userId"] != ""
        if row["cmd"] in ("register", "login"):
            if logged_in:
                await self.wire.ok("logout")
        elif not logged_in:
            await self.settle()

    async def exchange(self, row: Frame, request: dict[str, Any]) -> Frame:
        """Send a request and return the reply; `ready` comes before the next one."""
        reply = await self.wire.exchange(request)
        self.used_up = row["cmd"] in ENDING and reply["status"] == 1
        return reply

    def request(self, row: Frame) -> dict[str, Any]:
        """Give a request with a plausible value in every field."""
        own = {"phone": new_phone()} if row["cmd"] == "register" else {}
        if row["cmd"] == "complete_account":
            own = {"userId": self.wire.user_id}
        plain = {name: PLAIN[kind.split(" or ")[0]] for name, kind in row["fields"].items()}
        known = {name: self.known[name] for name in plain if name in self.known}
        if "username" in plain:
            plain["username"] = new_name()
        return {"cmd": row["cmd"], **plain, **known, **own}


@pytest.fixture
async def place(dial: Dialer) -> Place:
    """A friend, strangers, and something said between them."""
    found = Place(dial)
    await found.settle()
    return found


def check(row: Frame, reply: Frame, shape: type) -> None:
    """Require what holds for every reply to a command."""
    assert reply["cmd"] == row["cmd"], reply
    assert reply["status"] in CODES, reply
    assert type(reply["result"]) is shape, reply
    assert isinstance(reply["message"], str), reply
    assert reply["message"], reply
    assert (reply["message"] == "ok") == (reply["status"] in (0, 1)), reply
    assert is_date(reply["date"]), reply
    if reply["status"] != 1:
        assert reply["result"] in ([], {}), reply
        assert "next" not in reply, reply
    if reply["status"] == 4003:
        assert reply["field"], reply
    assert ("retryAfter" in reply) == (reply["status"] in (4290, 5030)), reply


async def rows_of(wire: Wire) -> list[Frame]:
    """Return the table of commands; `quit` only ends connections and stands elsewhere."""
    found = await wire.ok("help")
    assert len(found) > 20
    return [row for row in found if row["cmd"] != "quit"]


async def shape_of(wire: Wire, row: Frame) -> type:
    """Return whether a command answers with a list or an object, as its refusal shows."""
    reply = await wire.command(row["cmd"])
    return type(reply["result"])


async def attempts(place: Place, row: Frame, values: dict[str, list[Any]]) -> None:
    """Send every value in its field, all other fields being sound, and check each reply."""
    shape = await shape_of(await place.dial(), row)
    for name, tried in values.items():
        for value in tried:
            await place.ready(row)
            request = {**place.request(row), name: value}
            reply = await place.exchange(row, request)
            check(row, reply, shape)


class TestEveryField:
    """One wrong field at a time, in an otherwise sound request."""

    async def test_sound(self, place: Place) -> None:
        """The requests that the others start from are no nonsense: none is a bad line."""
        for row in await rows_of(place.wire):
            shape = await shape_of(await place.dial(), row)
            await place.ready(row)
            reply = await place.exchange(row, place.request(row))
            check(row, reply, shape)

    async def test_wrong_types(self, place: Place) -> None:
        """A value of a type that `help` does not name: 4003 with the field."""
        for row in await rows_of(place.wire):
            shape = await shape_of(await place.dial(), row)
            for name, kind in row["fields"].items():
                named = set(kind.split(" or "))
                wrong = [each for other in TYPED if other not in named for each in TYPED[other]]
                if "integer" in named:
                    wrong = [each for each in wrong if type(each) is not float]
                for value in wrong:
                    await place.ready(row)
                    reply = await place.exchange(row, {**place.request(row), name: value})
                    check(row, reply, shape)
                    where = f"{row['cmd']}.{name} = {value!r}: {reply}"
                    assert reply["status"] == 4003, where
                    assert reply["field"].split("[")[0] == name, where

    async def test_nothing(self, place: Place) -> None:
        """Absent, null and "" are the same, but where "" clears something."""
        for row in await rows_of(place.wire):
            shape = await shape_of(await place.dial(), row)
            for name in row["fields"]:
                found = []
                for absent in ("absent", None, ""):
                    if absent == "" and name in CLEARED_BY_EMPTY:
                        continue
                    await place.ready(row)
                    request = {**place.request(row), name: absent}
                    if absent == "absent":
                        del request[name]
                    reply = await place.exchange(row, request)
                    check(row, reply, shape)
                    found.append((reply["status"], reply.get("field"), reply["message"]))
                assert len(set(found)) == 1, f"{row['cmd']}.{name}: {found}"

    async def test_texts(self, place: Place) -> None:
        """Long, strange and hostile texts in every field."""
        for row in await rows_of(place.wire):
            await attempts(place, row, dict.fromkeys(row["fields"], TEXTS))

    async def test_numbers(self, place: Place) -> None:
        """Small, negative and huge numbers in every field."""
        for row in await rows_of(place.wire):
            await attempts(place, row, dict.fromkeys(row["fields"], NUMBERS))

    async def test_foreign_ids(self, place: Place) -> None:
        """Others' users, chats, messages and devices in every field; nothing of them is shown."""
        for row in await rows_of(place.wire):
            shape = await shape_of(await place.dial(), row)
            for name, kind in row["fields"].items():
                for value in place.foreign:
                    await place.ready(row)
                    given: Any = [value] if kind == "array" else value
                    reply = await place.exchange(row, {**place.request(row), name: given})
                    check(row, reply, shape)
                    if row["cmd"] not in ("ping", "help"):
                        assert "theirs" not in str(reply), reply

    async def test_unknown_fields(self, place: Place) -> None:
        """Fields that no version knows change nothing."""
        more = {"isBind": {"x": [1]}, "zzz": None, "fields": 7, "": "", "status": -1, "result": []}
        for row in await rows_of(place.wire):
            shape = await shape_of(await place.dial(), row)
            await place.ready(row)
            reply = await place.exchange(row, {**more, **place.request(row)})
            check(row, reply, shape)
            assert reply["status"] != 4003, reply


class TestDoors:
    """Who may run what."""

    async def test_without_a_session(self, dial: Dialer) -> None:
        """11001 for everything but the open ones, before any field is looked at."""
        wire = await dial()
        found = await wire.ok("help")
        for row in found:
            if row["cmd"] in OPEN:
                continue
            for fields in (
                {},
                {key: {} for key in row["fields"]},
                dict.fromkeys(row["fields"], ""),
            ):
                reply = await wire.refused(11001, {"cmd": row["cmd"], **fields})
                check(row, reply, type(reply["result"]))
        assert {row["cmd"] for row in found} >= OPEN

    async def test_open_ones(self, dial: Dialer) -> None:
        """What is open never answers 11001."""
        wire = await dial()
        for cmd in OPEN - {"quit"}:
            assert (await wire.command(cmd))["status"] != 11001

    @pytest.mark.parametrize(
        "cmd",
        [
            "nothing",
            "LOGIN",
            "login ",
            " login",
            "log\nin",
            "__class__",
            "start",
            "restart",
            "ok",
            "x" * 3000,
            "登录",
            "\u202enigol",
            "' OR 1=1",
        ],
    )
    async def test_unknown(self, dial: Dialer, cmd: str) -> None:
        """A command that nobody knows: 4002; the connection goes on."""
        wire = await dial.user()
        reply = await wire.refused(4002, {"cmd": cmd, "id": 7})
        assert reply["id"] == 7
        assert reply["cmd"] == cmd[: len(reply["cmd"])]
        assert reply["result"] == {}
        await wire.fence()

    @pytest.mark.parametrize(
        "cmd",
        [
            "push",
            "broadcast",
            "stats",
            "sessions",
            "trace",
            "disable",
            "enable",
            "reset_password",
            "audit",
            "backup",
            "reload",
            "stop",
            "kick_user",
        ],
    )
    async def test_operators_only(self, dial: Dialer, cmd: str) -> None:
        """What only an operator may do is refused here, with a session and without."""
        wire = await dial()
        reply = await wire.command(cmd, userId="10001", text="x", phone=new_phone())
        assert reply["status"] in (4002, 4004, 11001), reply
        await wire.register()
        reply = await wire.command(cmd, userId="10001", text="x", phone=new_phone())
        assert reply["status"] in (4002, 4004), reply
        assert reply["result"] in ([], {})
        assert cmd not in [row["cmd"] for row in await wire.ok("help")]

    async def test_help_is_whole(self, dial: Dialer) -> None:
        """Each command that `help` names is there, and by itself described the same."""
        wire = await dial.user()
        for row in await wire.ok("help"):
            assert await wire.ok("help", name=row["cmd"]) == [row]
            assert isinstance(row["fields"], dict)
            assert isinstance(row["needs"], str)
        await failed(wire, 4002, "help", [], "name", name="broadcast!")
