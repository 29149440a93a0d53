"""Section 3, `chats`, for who was away: many chats, what is unread in each, in bounded time.

The counts are compared with what was said, message by message: own ones and recalled ones are
never unread, expired ones neither, and what was read before is not.
"""

import asyncio
import time

import pytest

from .crowd import note
from .people import make_friends, users
from .process import StartServer
from .wire import Dialer, Frame, Wire, client_id, text

PAIRS = 40
GROUPS = 10
EACH = 100  # messages of a chat
SIZE = 20  # entries of a page
# Of one page, in seconds, on a machine that does other things as well.
PATIENCE = 2.0


class Told:
    """What was said in a chat: who said it, and whether it still counts."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, bool]] = []  # msgId, and whether it counts as unread

    def unread(self, read: int) -> int:
        """Count what stands behind a read mark."""
        return sum(counts for number, counts in self.rows if number > read)

    @property
    def last(self) -> int:
        """The newest msgId."""
        return max(number for number, _ in self.rows)


async def say(wire: Wire, messages: list[Frame], told: Told, counts: bool = True) -> list[Frame]:
    """Say something, and note it."""
    rows = await wire.post(*({**message, "clientId": client_id()} for message in messages))
    told.rows += [(int(row["msgId"]), counts) for row in rows]
    return rows


async def fill(owner: Wire, wire: Wire, chat: str, told: Told, number: int) -> None:
    """Say a hundred things in one chat: some by the owner, some recalled, some soon expired."""
    pair = not chat.startswith("g")
    to = owner.user_id if pair else chat
    theirs = [text(to, f"{n}") if pair else note(to, f"{n}") for n in range(EACH - 8)]
    own = text(wire.user_id, "mine") if pair else note(chat, "mine")
    first = await say(wire, theirs[: 20 + number], told)
    if number % 3 == 0:
        # Read up to the tenth of them, before anything else is said.
        await owner.read_mark(chatId=first[0]["chatId"], msgId=first[9]["msgId"])
        await owner.fence()
    await say(owner, [own] * 3, told, counts=False)
    rows = await say(wire, theirs[20 + number :], told)
    await say(wire, [{**theirs[0], "expire": 1}] * 2, told, counts=False)
    for row in rows[-2 - number % 2 :]:
        await wire.ok("recall", msgId=row["msgId"])
        told.rows.remove((int(row["msgId"]), True))
        told.rows.append((int(row["msgId"]), False))


@pytest.mark.timeout(180)
async def test_away_for_long(server: StartServer) -> None:
    """Each page comes in bounded time, and each count is exact."""
    dial = server(limits_friend_requests=1000, queue_messages=1000).dial
    owner, others, groups = await scene(dial)
    told: dict[str, Told] = {}
    for number, wire in enumerate(others[: PAIRS + GROUPS]):
        chat = groups[number - PAIRS] if number >= PAIRS else "pair"
        found = Told()
        await fill(owner, wire, chat, found, number)
        key = chat if chat != "pair" else pair_key(owner, wire)
        told[key] = found
    # Time itself is waited for: all that expires has.
    await asyncio.sleep(1.1)
    entries, longest = await pages(owner)
    shown = {entry["chatId"]: entry for entry in entries if entry["chatId"] in told}
    assert shown.keys() == told.keys()
    assert len(entries) == len({entry["chatId"] for entry in entries})
    newest = [int(entry["last"]["msgId"]) for entry in entries]
    assert newest == sorted(newest, reverse=True)
    for key, found in told.items():
        entry = shown[key]
        # A group's recalls are told there, and its making: by the server, and to be read too.
        notices = await notices_after(owner, key, int(entry["read"]))
        assert entry["unread"] == found.unread(int(entry["read"])) + notices, key
    assert longest < PATIENCE


async def scene(dial: Dialer) -> tuple[Wire, list[Wire], list[str]]:
    """Make somebody with friends and groups, read up to now; nobody has a device."""
    owner, *others = await users(dial, 1 + PAIRS + GROUPS)
    await make_friends(owner, *others)
    groups = []
    for number in range(GROUPS):
        member = others[PAIRS + number]
        made = await owner.ok("create_group", name="x", kind="group", userIds=[member.user_id])
        groups.append(made["id"])
    return owner, others, groups


def pair_key(one: Wire, other: Wire) -> str:
    """Give the chatId of two people."""
    return "-".join(sorted((one.user_id, other.user_id), key=int))


async def pages(wire: Wire) -> tuple[list[Frame], float]:
    """Read all chats; return them, and how long the slowest page took, in seconds."""
    entries: list[Frame] = []
    longest, page = 0.0, ""
    while True:
        begin = time.monotonic()
        reply = await wire.command("chats", size=SIZE, page=page)
        longest = max(longest, time.monotonic() - begin)
        assert reply["status"] == 1
        entries += reply["result"]
        if "next" not in reply:
            return entries, longest
        assert len(reply["result"]) == SIZE
        page = reply["next"]


async def notices_after(wire: Wire, chat: str, read: int) -> int:
    """Count what the server itself, and requests for friendship, said behind a read mark."""
    found: list[Frame] = []
    after = str(read)
    while True:
        reply = await wire.command("history", chatId=chat, after=after, limit=100)
        found += reply["result"]
        if "next" not in reply:
            break
        after = reply["next"]
    return sum("event" in message and message["fromId"] != wire.user_id for message in found)
