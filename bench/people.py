"""The accounts of a workload: registered, befriended and started, with nothing waiting for them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from .load import Address, Connection, Receiver, Sender, dial, in_turns, resume

PASSWORD = "bench-password"

AT_ONCE = 20


@dataclass(frozen=True)
class Person:
    """One account with one device."""

    phone: str
    user_id: str
    push_id: str


async def make_people(address: Address, count: int, *, first: int = 0) -> list[Person]:
    """Make accounts that know nobody; `first` keeps the phones of several calls apart."""
    numbers = range(first, first + count)
    return await in_turns([partial(_make, address, n) for n in numbers], at_once=AT_ONCE)


async def make_pairs(
    address: Address, count: int, *, first: int = 0
) -> list[tuple[Person, Person]]:
    """Make pairs of friends."""
    numbers = range(first, first + 2 * count, 2)
    return await in_turns([partial(_make_pair, address, n) for n in numbers], at_once=AT_ONCE // 2)


async def make_groups(
    address: Address, sizes: Sequence[int], *, online: int, first: int = 0
) -> tuple[list[str], list[Person]]:
    """Make groups of these sizes that one account owns; return their ids, and the people.

    The owner comes first. For the `online` others behind it nothing waits; for the rest notices do.
    """
    connection = await dial(address, Receiver)
    owner, members = await _make_friends(address, connection, max(sizes) - 1, first)
    groups = []
    for size in sizes:
        ids = [member.user_id for member in members[: size - 1]]
        line = {"cmd": "create_group", "name": f"{size}", "kind": "group", "userIds": ids}
        reply = await connection.ask(json.dumps(line).encode() + b"\n")
        groups.append(str(reply["result"]["id"]))
    owner = await _start(connection, owner)
    connection.close()
    emptied = [partial(_empty, address, member) for member in members[:online]]
    await in_turns(emptied, at_once=AT_ONCE)
    return groups, [owner, *members]


async def make_away(address: Address, chats: int, each: int) -> Person:
    """Make an account without a device that many friends wrote to, in lists; return it."""
    connection = await dial(address, Receiver)
    owner, friends = await _make_friends(address, connection, chats, 0)
    connection.close()

    async def write(friend: Person) -> None:
        await _empty(address, friend)
        sender = await dial(address, partial(Sender, size=each, window=each))
        await resume(sender, friend.push_id)
        sender.aim(owner.user_id)
        sender.go(each)
        await sender.reach(each)
        sender.close()

    await in_turns([partial(write, friend) for friend in friends], at_once=AT_ONCE)
    return owner


async def log_in(address: Address, person: Person) -> Connection:
    """Log in by the password, on a new connection."""
    connection = await dial(address, Connection)
    await connection.ask(_command("login", phone=person.phone, password=PASSWORD))
    return connection


async def _make(address: Address, number: int) -> Person:
    connection = await dial(address, Receiver)
    person = await _start(connection, await _register(connection, number))
    connection.close()
    return person


async def _make_friends(
    address: Address, connection: Connection, count: int, first: int
) -> tuple[Person, list[Person]]:
    """Register an account on a connection, and so many friends of it elsewhere."""
    owner = await _register(connection, first)
    numbers = range(first + 1, first + 1 + count)
    friends = await in_turns([partial(_ask, address, n, owner) for n in numbers], at_once=AT_ONCE)
    for friend in friends:
        await connection.ask(_command("accept_friend", userId=friend.user_id))
    return owner, friends


async def _ask(address: Address, number: int, friend: Person) -> Person:
    """Make an account that asks to be somebody's friend."""
    connection = await dial(address, Receiver)
    person = await _start(connection, await _register(connection, number))
    await connection.ask(_command("add_friend", userId=friend.user_id))
    connection.close()
    return person


async def _empty(address: Address, person: Person) -> None:
    """Take what waits for a device."""
    connection = await dial(address, Receiver)
    await connection.reach(await resume(connection, person.push_id))
    await connection.fence()
    connection.close()


async def _make_pair(address: Address, number: int) -> tuple[Person, Person]:
    ones = [await dial(address, Receiver) for _ in range(2)]
    a, b = [await _register(one, number + i) for i, one in enumerate(ones)]
    for one, friend in zip(ones, (b, a), strict=True):
        await one.ask(_command("add_friend", userId=friend.user_id))
    left, right = [await _start(one, who) for one, who in zip(ones, (a, b), strict=True)]
    for one in ones:
        one.close()
    return left, right


async def _register(connection: Connection, number: int) -> Person:
    phone = f"138{number:08d}"
    reply = await connection.ask(_command("register", phone=phone, password=PASSWORD))
    return Person(phone, reply["result"]["user"]["id"], "")


async def _start(connection: Receiver, person: Person) -> Person:
    """Bind a new device, and take what waited for it, such as the friend's request."""
    reply = await connection.ask(b'{"status":1,"pushId":"","message":"start"}\n')
    await connection.reach(reply["queued"])
    await connection.fence()
    return Person(person.phone, person.user_id, reply["pushId"])


def _command(name: str, **fields: str) -> bytes:
    # No value here needs an escape.
    flat = "".join(f',"{key}":"{value}"' for key, value in fields.items())
    return f'{{"cmd":"{name}"{flat}}}\n'.encode()
