"""An account ends while somebody acts with it, two hundred times each.

Everything of the account counts up to one point, and nothing behind it: what was confirmed before
stays delivered, what comes later is refused, and no group is left without an owner.
"""

import time

import pytest

from .crowd import note, one_owner, roles, talk
from .people import ONE_LOOP, ROUNDS, make_friends, users
from .wire import Closed, Dialer, Frame, Wire, content, frame, lines, pair_chat, text

# By how much later the other one acts from round to round, in seconds.
STEP = 0.0001
# What a group hears: the message before the leave, or the leave alone.
IN, OUT = ["x", "left"], ["left"]


async def ending(dial: Dialer, friend: Wire) -> tuple[Wire, Wire]:
    """Make an account that is a friend's friend, with two connections."""
    wire = await dial.user()
    await friend.ok("add_friend", userId=wire.user_id)
    await wire.ok("accept_friend", userId=friend.user_id)
    other = await dial()
    await other.login(wire.phone)
    return wire, other


def goodbye(wire: Wire) -> tuple[Wire, Frame]:
    """Make the request that ends an account."""
    return wire, {"cmd": "delete_account", "password": wire.password}


async def race(number: int, end: tuple[Wire, Frame], act: tuple[Wire, Frame]) -> int:
    """Let an account end while something is done; return the status of that.

    The password is checked before the end, so the other one acts a little later from round to
    round. A connection of the account may be closed without an answer: 0, which is unknown.
    """
    _send_apart(end, act, number % 40 * STEP)
    ended = await end[0].reply()
    assert ended["status"] == 1
    try:
        reply = await act[0].reply()
    except Closed as closed:
        assert closed.pushed[-1]["event"]["name"] == "signed_out"
        return 0
    status: int = reply["status"]
    return status


def _send_apart(one: tuple[Wire, Frame], other: tuple[Wire, Frame], seconds: float) -> None:
    """Send two requests, blocking in between on purpose: nothing else of the test may run."""
    for wire, line in (one, other):
        data = lines(line)
        assert wire.sock.send(data) == len(data)
        time.sleep(seconds)


@ONE_LOOP
@pytest.mark.slow
class TestEnds:
    """`delete_account` and something else at once."""

    async def test_it_sends(self, dial: Dialer) -> None:
        """Its message comes before the end and stays, or is refused with 11001."""
        b = await dial.user()
        seen = set()
        for number in range(ROUNDS):
            a, other = await ending(dial, b)
            line = frame([text(b.user_id, "x")])
            sent = await race(number, goodbye(other), (a, line))
            assert sent in (0, 1, 11001)
            seen.add(sent == 1)
            shown = await b.ok("history", chatId=pair_chat(a, b))
            said = [content(each) for each in shown if each["type"] == "1"]
            assert said in {0: ([], ["x"]), 1: (["x"],), 11001: ([],)}[sent]
            assert (await b.ok("friends")) == []
            for wire in (a, other):
                wire.close()
        assert seen == {True, False}

    async def test_it_is_sent_to(self, dial: Dialer) -> None:
        """A message to it is confirmed before the end, or there is no such user: 6004."""
        b = await dial.user()
        seen = set()
        for number in range(ROUNDS):
            a, other = await ending(dial, b)
            line = frame([text(a.user_id, "x")])
            sent = await race(number, goodbye(a), (b, line))
            assert sent in (1, 6004), sent
            seen.add(sent)
            assert (await b.send([text(a.user_id, "y")]))["status"] == 6004
            assert (await b.ok("account"))["user"]["friends"] == 0
            for wire in (a, other):
                wire.close()
        assert seen == {1, 6004}

    async def test_it_is_accepted(self, dial: Dialer) -> None:
        """Who accepts its request is its friend for a moment, or told that it is gone: 6004."""
        b = await dial.user()
        for number in range(ROUNDS // 4):
            a = await dial.user()
            await a.ok("add_friend", userId=b.user_id)
            line = {"cmd": "accept_friend", "userId": a.user_id}
            accepted = await race(number, goodbye(a), (b, line))
            assert accepted in (1, 6004), accepted
            assert await b.ok("friend_requests") == []
            assert await b.ok("friends") == []
            assert (await b.ok("account"))["user"]["friends"] == 0
            a.close()

    async def test_its_heir_leaves(self, dial: Dialer) -> None:
        """Its groups get an owner from those who stay, also when the first heir goes at once."""
        b, c = await users(dial, 2)
        seen = set()
        for number in range(ROUNDS // 4):
            a = await dial.user()
            await make_friends(a, b, c)
            ids = [b.user_id, c.user_id]
            group = (await a.ok("create_group", name="x", kind="group", userIds=ids))["id"]
            await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
            line = {"cmd": "leave_group", "groupId": group}
            left = await race(number, goodbye(a), (b, line))
            # The heir is the owner by then, who must hand over first.
            assert left in (1, 4004), left
            seen.add(left)
            found = await roles(c, group)
            owner = c if left == 1 else b
            assert one_owner(found) == owner.user_id
            assert set(found) == {owner.user_id, c.user_id}
            await owner.ok("dissolve_group", groupId=group)
            a.close()
        assert seen == {1, 4004}

    async def test_its_group_hears(self, dial: Dialer) -> None:
        """Its message to a group stands before its leave, or is refused with 11001."""
        b = await dial.user()
        seen = set()
        for number in range(ROUNDS // 4):
            a, other = await ending(dial, b)
            made = await b.ok("create_group", name="x", kind="group", userIds=[a.user_id])
            line = frame([note(made["id"], "x")])
            sent = await race(number, goodbye(other), (a, line))
            assert sent in (0, 1, 11001)
            seen.add(sent == 1)
            said = (await talk(b, made["id"]))[1:]
            assert said in {0: (OUT, IN), 1: (IN,), 11001: (OUT,)}[sent]
            assert set(await roles(b, made["id"])) == {b.user_id}
            await b.ok("dissolve_group", groupId=made["id"])
            for wire in (a, other):
                wire.close()
        assert seen == {True, False}
