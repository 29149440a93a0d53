"""What the tests of groups need beside `people`: groups that are there, and what is said in them.

group, (a, b, c) = await gathered(dial, 3)       # started, their queues empty; `a` owns it
await a.post(note(group, "hi"))                  # a text; its type is that of the group's kind
await spread([b, c], "hi")                       # each of them gets this text, and nothing else
await told([a, b, c], group, "left", by=..)      # each gets this notice of the server's own
assert await roles(a, group) == {a.user_id: "owner", ...}
"""

from collections.abc import Iterable, Sequence
from typing import Any

from .people import all_pages, make_friends, users
from .wire import Dialer, Frame, Wire, content

# What a group has, as the caller may see it; a link has its `code` besides.
GROUP = {
    "id",
    "name",
    "kind",
    "desc",
    "avatar",
    "notice",
    "owner",
    "role",
    "members",
    "muteAll",
    "modifyAt",
}

# The kinds, and the type of what is said there.
KINDS = {"group": "7", "tag": "3", "link": "6"}


class Place(str):
    """A group's id, and how people call the group and its kind."""

    kind: str
    name: str
    code: str

    @classmethod
    def of(cls, group: Frame) -> "Place":
        """Make one of a group as the server shows it."""
        made = cls(group["id"])
        made.kind, made.name = group["kind"], group["name"]
        made.code = group.get("code", "")
        return made


async def founded(
    dial: Dialer, count: int, kind: str = "group", **fields: Any
) -> tuple[Place, list[Wire]]:
    """Make a group of `count` new accounts without devices: the owner first, friends of all."""
    people = await users(dial, count)
    owner, *others = people
    await make_friends(owner, *others)
    ids = [each.user_id for each in others]
    made = await owner.ok("create_group", **{"name": "G", "kind": kind, "userIds": ids, **fields})
    return Place.of(made), people


async def gathered(
    dial: Dialer, count: int, kind: str = "group", **fields: Any
) -> tuple[Place, list[Wire]]:
    """Make a group of `count` new accounts, each with a started device whose queue is empty."""
    group, people = await founded(dial, count, kind, **fields)
    await started(*people)
    return group, people


async def started(*people: Wire, **fields: object) -> None:
    """Start a device for each, and take off what waits."""
    for each in people:
        queued = (await each.start(**fields))["queued"]
        if queued:
            await each.take(queued)
        await each.fence()


async def another(dial: Dialer, owner: Wire, **fields: object) -> Wire:
    """Start one more device of an account; its queue is empty."""
    wire = await dial()
    await wire.login(owner.phone, owner.password)
    await started(wire, **fields)
    return wire


def note(group: str, words: str, kind: str = "", **fields: object) -> Frame:
    """Return a text to a group, by default of the type that goes to its kind."""
    if not kind:
        kind = KINDS[group.kind] if isinstance(group, Place) else "7"
    return {
        "chatId": group,
        "fromId": "",
        "toId": "",
        "type": kind,
        "info": [{"category": "0", "content": words}],
        "createTime": "",
        **fields,
    }


async def spread(people: Iterable[Wire], *words: str) -> list[Frame]:
    """Require that these texts, in this order, come to each, and ack; return the last ones."""
    found: list[Frame] = []
    for each in people:
        found = await each.expect_delivery(len(words), ack=True)
        assert [content(message) for message in found] == list(words), found
    return found


async def told(people: Iterable[Wire], group: str, name: str, **event: object) -> Frame:
    """Require that each gets this notice of the group's, and acks it; return the last one."""
    found: Frame = {}
    for each in people:
        [found] = await each.expect_delivery(ack=True)
        check_notice(found, group, name, **event)
    return found


def check_notice(message: Frame, group: str, name: str, **event: object) -> None:
    """Require a message of the server's own to a group: readable, with this event."""
    assert message["event"] == {"name": name, "groupId": group, **event}, message
    assert message["chatId"] == message["toId"] == group
    assert (message["fromId"], message["type"]) == ("", "0")
    [info] = message["info"]
    assert info["category"] == "0"
    assert len(info["content"].split()) >= 2, f"not readable: {info}"


async def silent(*people: Wire) -> None:
    """Require that nothing has come to any of them."""
    for each in people:
        await each.expect_nothing()


async def roles(wire: Wire, group: str) -> dict[str, str]:
    """Return who is in a group, with their roles, as one member sees it."""
    found = await all_pages(wire, "group_members", groupId=group, size=100)
    return {entry["user"]["id"]: entry["role"] for entry in found}


def one_owner(found: dict[str, str]) -> str:
    """Require exactly one owner; return who it is."""
    owners = [user for user, role in found.items() if role == "owner"]
    assert len(owners) == 1, found
    return owners[0]


async def asked(wire: Wire, group: str) -> list[str]:
    """Return who asked to join, as a leader sees it."""
    found = await all_pages(wire, "join_requests", groupId=group)
    return [entry["user"]["id"] for entry in found]


async def view(wire: Wire, group: str) -> Frame:
    """Return a group as one who is in it sees it."""
    found = await all_pages(wire, "my_groups", size=100)
    [mine] = [each for each in found if each["id"] == group]
    assert isinstance(mine, dict)
    return mine


async def chat_of(wire: Wire, chat: str) -> Frame:
    """Return one's entry of a chat."""
    [found] = [each for each in await all_pages(wire, "chats") if each["chatId"] == chat]
    assert isinstance(found, dict)
    return found


async def talk(wire: Wire, group: str, **fields: object) -> list[str]:
    """Return what history shows of a group: texts, and the names of events."""
    found = await wire.ok("history", **{"chatId": group, "limit": 100, **fields})
    return [each["event"]["name"] if "event" in each else content(each) for each in found]


def numbers(messages: Sequence[Frame]) -> list[int]:
    """Return the msgIds of messages."""
    return [int(each["msgId"]) for each in messages]
