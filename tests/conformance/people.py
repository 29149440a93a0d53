"""What the tests of commands need beside a `Wire`: names, pages, other addresses, and races.

name = new_name()                                # a username that nobody has
everybody = await all_pages(a, "friends")        # by `next`, until there is none
replies = await at_once((a, line), (b, line))    # both sent in one breath
c = await dial_from(own, "127.0.0.2")            # as if from another machine
"""

import asyncio
import itertools
import os
import re
import socket
from collections.abc import Mapping
from typing import Any

import pytest

from .conftest import ADDRESS, LOOPS
from .wire import Dialer, Frame, HasAddress, Wire, lines

USER = {
    "id",
    "username",
    "phone",
    "avatar",
    "desc",
    "sex",
    "alias",
    "friends",
    "isFriend",
    "modifyAt",
}
ACCOUNT = {"user", "account", "isBind"}

# What the wire calls a date, in every place where it has one.
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")

# How often a race is run; a server with the default budgets allows no more than 100 requests.
ROUNDS = 50 if ADDRESS else 200

# For tests of commands alone, which do not know what loop they run on: one is enough.
ONE_LOOP = pytest.mark.parametrize("common_server", LOOPS[:1], indirect=True)

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_draw = itertools.count(int.from_bytes(os.urandom(4), "big"))


def new_tag() -> str:
    """Return seven letters that occur in no other name or text."""
    number, letters = next(_draw), ""
    for _ in range(7):
        number, rest = divmod(number, 26)
        letters += _LETTERS[rest]
    return letters


def new_name() -> str:
    """Return a username that nobody has."""
    return f"N {new_tag()}"


def is_date(value: object) -> bool:
    """Tell whether a value is a date as the wire writes them."""
    return isinstance(value, str) and DATE.fullmatch(value) is not None


def assert_envelope(reply: Frame, cmd: str, result: type, *more: str) -> None:
    """Require the public envelope, with the members in `more` and nothing else."""
    assert set(reply) == {"cmd", "status", "result", "message", "date", *more}, reply
    assert reply["cmd"] == cmd
    assert type(reply["result"]) is result, reply
    assert is_date(reply["date"]), reply


async def failed(
    wire: Wire,
    status: int,
    cmd: str,
    result: object,
    field: str | None = None,
    /,
    **fields: object,
) -> Frame:
    """Require that a command fails with this status and an empty result of its own type."""
    reply = await wire.refused(status, {"cmd": cmd, **fields})
    more = [name for name in ("field", "retryAfter", "id") if name in reply]
    assert_envelope(reply, cmd, type(result), *more)
    assert reply["result"] == result, reply
    if field is not None:
        assert reply.get("field") == field, reply
    return reply


async def limited(wire: Wire, cmd: str, result: object, /, **fields: object) -> int:
    """Require that a command is over its budget; return the seconds to wait."""
    reply = await failed(wire, 4290, cmd, result, None, **fields)
    wait = reply["retryAfter"]
    assert isinstance(wait, int), reply
    assert wait >= 1, reply
    return wait


async def all_pages(wire: Wire, cmd: str, /, **fields: object) -> list[Any]:
    """Read a list by `next` until there is none; no page but the last may be short or empty."""
    found: list[Any] = []
    size = fields.get("size", 10)
    while True:
        reply = await wire.command(cmd, **fields)
        assert reply["status"] == 1, reply
        found += reply["result"]
        if "next" not in reply:
            return found
        assert isinstance(reply["next"], str), reply
        assert reply["next"], reply
        assert len(reply["result"]) == size, reply
        fields["page"] = reply["next"]


async def at_once(*requests: tuple[Wire, Mapping[str, Any]]) -> list[Frame]:
    """Send one frame on each connection within a fraction of a millisecond; return the replies."""
    prepared = [(wire, lines(line)) for wire, line in requests]
    for wire, data in prepared:
        # A blocking loop on purpose: nothing else of the test may run in between.
        assert wire.sock.send(data) == len(data)
    return list(await asyncio.gather(*(wire.reply() for wire, _ in prepared)))


async def dial_from(server: HasAddress, source: str) -> Wire:
    """Open a connection whose peer address is `source`, one of the loopback's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(sock, server.address)
    return Wire(sock)


async def users(dial: Dialer, count: int, **fields: Any) -> list[Wire]:
    """Open this many connections, each with an account of its own, in the order of their ids."""
    return [await dial.user(**fields) for _ in range(count)]


async def make_friends(one: Wire, *others: Wire) -> None:
    """Make one account the friend of each of the others; no notices are taken off."""
    for other in others:
        await other.ok("add_friend", userId=one.user_id)
        await one.ok("accept_friend", userId=other.user_id)


def ids(found: list[Frame]) -> list[str]:
    """Return the ids of users, or of what holds a user."""
    return [entry.get("user", entry)["id"] for entry in found]
