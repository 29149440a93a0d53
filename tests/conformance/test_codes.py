"""Sections 3 and 4 as two tables: the commands with their fields, and the codes they give."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from .people import ONE_LOOP, make_friends, new_name, users
from .wire import PASSWORD, Dialer, Frame, Wire, frame, new_phone, text

pytestmark = ONE_LOOP

# The commands of the contract that are built: fields, and the type of the result.
COMMANDS: dict[str, tuple[set[str], type]] = {
    "register": ({"phone", "password", "username"}, dict),
    "login": ({"phone", "password"}, dict),
    "logout": (set(), dict),
    "account": ({"userId"}, dict),
    "complete_account": ({"userId", "avatar", "username", "desc", "sex"}, dict),
    "change_password": ({"old", "new"}, dict),
    "devices": (set(), list),
    "sign_out": ({"deviceId"}, dict),
    "search": ({"username", "phone", "field", "page"}, list),
    "friends": ({"field", "page"}, list),
    "add_friend": ({"userId", "description"}, dict),
    "accept_friend": ({"userId"}, dict),
    "reject_friend": ({"userId"}, dict),
    "delete_friend": ({"userId"}, dict),
    "friend_requests": ({"page"}, list),
    "set_alias": ({"userId", "alias"}, dict),
    "block": ({"userId"}, dict),
    "unblock": ({"userId"}, dict),
    "blocked": ({"page"}, list),
    "chats": ({"page"}, list),
    "history": ({"chatId", "userId", "before", "after", "limit"}, list),
    "search_messages": ({"text", "chatId", "page"}, list),
    "recall": ({"msgId"}, dict),
    "status": ({"msgId"}, dict),
    "presence": ({"userIds"}, list),
    "typing": ({"chatId", "userId"}, dict),
    "set_privacy": ({"findByPhone", "showPresence", "readReceipts"}, dict),
    "whoami": (set(), dict),
    "ping": ({"text"}, dict),
    "help": ({"name"}, list),
    "quit": (set(), dict),
}


@pytest.mark.parametrize("cmd", COMMANDS)
async def test_command(dial: Dialer, cmd: str) -> None:
    """`help` names every field; the result has its type before login and after, ok or not."""
    fields, shape = COMMANDS[cmd]
    wire = await dial()
    [row] = await wire.ok("help", name=cmd)
    assert set(row["fields"]) >= fields
    if "page" in fields:
        assert "size" in row["fields"]
    strange = await wire.command(cmd)
    assert type(strange["result"]) is shape
    if cmd != "quit":
        await wire.register()
        # Wrong in every field.
        reply = await wire.command(cmd, **{key: {"x": 1} for key in row["fields"]})
        assert type(reply["result"]) is shape
        assert (reply["status"] in (1, 11000)) == (not fields or cmd in ("register", "login"))


# A request that gets each code: from a stranger's or a user's connection.
Case = Callable[[Wire, Wire], Awaitable[dict[str, Any]]]


async def _friends(a: Wire, b: Wire) -> dict[str, Any]:
    await make_friends(a, b)
    return {"cmd": "add_friend", "userId": b.user_id}


async def _named(a: Wire, b: Wire) -> dict[str, Any]:
    name = new_name()
    await b.ok("complete_account", username=name)
    return {"cmd": "complete_account", "username": name}


async def _stranger(a: Wire, b: Wire) -> dict[str, Any]:
    return frame([text(b.user_id, "x")])


def _plain(**request: Any) -> Case:
    async def case(a: Wire, b: Wire) -> dict[str, Any]:
        return request

    return case


AS_USER: dict[int, Case] = {
    1: _plain(cmd="ping"),
    0: _plain(cmd="search", username="nobody has this one"),
    6000: _plain(cmd="change_password", old="", new=""),
    6001: _plain(cmd="complete_account", username=" "),
    6004: _plain(cmd="add_friend", userId="1"),
    7000: _named,
    8002: _plain(cmd="change_password", old=PASSWORD, new="\n" * 6),
    8003: _plain(cmd="change_password", old=PASSWORD, new="x"),
    8004: _plain(cmd="complete_account", username="x" * 16),
    8006: _plain(cmd="complete_account", avatar="x"),
    9000: _plain(cmd="complete_account", username="admin"),
    10000: _plain(cmd="change_password", old="wrong one", new=PASSWORD),
    11000: _plain(cmd="login"),
    12000: _friends,
    4002: _plain(cmd="no such command"),
    4003: _plain(cmd="account", userId=5),
    4004: _stranger,
    4005: _plain(cmd="recall", msgId="9007199254740991"),
}

AS_STRANGER: dict[int, dict[str, Any]] = {
    6000: {"cmd": "login"},
    6003: {"cmd": "login", "password": PASSWORD},
    6004: {"cmd": "login", "password": PASSWORD, "phone": "known to nobody"},
    7001: {"cmd": "register", "password": PASSWORD, "phone": "taken"},
    8000: {"cmd": "login", "password": PASSWORD, "phone": "12345678901"},
    8001: {"cmd": "login", "password": PASSWORD, "phone": "1"},
    8002: {"cmd": "login", "password": " " * 6},
    8003: {"cmd": "login", "password": "x"},
    8004: {
        "cmd": "register",
        "password": PASSWORD,
        "phone": "known to nobody",
        "username": "x" * 16,
    },
    9000: {"cmd": "register", "password": PASSWORD, "phone": "known to nobody", "username": "1"},
    10000: {"cmd": "login", "password": "wrong one", "phone": "taken"},
    11001: {"cmd": "friends"},
}


@pytest.mark.parametrize("status", AS_USER)
async def test_code(dial: Dialer, status: int) -> None:
    """The code, a text for people that is never empty, and a connection that goes on."""
    a, b = await users(dial, 2)
    request = await AS_USER[status](a, b)
    reply = await a.exchange(request)
    _check(reply, status)
    await a.fence()


@pytest.mark.parametrize("status", AS_STRANGER)
async def test_code_without_a_session(dial: Dialer, status: int) -> None:
    """The code, a text for people that is never empty, and a connection that goes on."""
    owner = await dial.user()
    phones = {"taken": owner.phone, "known to nobody": new_phone()}
    request = dict(AS_STRANGER[status])
    if request.get("phone") in phones:
        request["phone"] = phones[request["phone"]]
    wire = await dial()
    _check(await wire.exchange(request), status)
    await wire.fence()


def _check(reply: Frame, status: int) -> None:
    assert reply["status"] == status, reply
    assert isinstance(reply["message"], str)
    assert reply["message"], reply
    assert (reply["message"] == "ok") == (status in (0, 1)), reply
    # What is wrong is named wherever a field is to blame.
    blameless = {0, 1, 4002, 11000, 11001}
    assert status in blameless or reply.get("field"), reply
