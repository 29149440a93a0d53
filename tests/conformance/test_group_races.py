"""Two people act on one group within a fraction of a millisecond, two hundred times each.

One of them comes first. What the other one is told, what is true then, what history shows and
what everybody sees must be one story; there is never an internal error, and always one owner.
"""

from typing import Any

import pytest

from .crowd import asked, chat_of, founded, note, numbers, one_owner, roles, started, talk, view
from .people import ONE_LOOP, ROUNDS, at_once, users
from .wire import Dialer, Frame, Wire, frame


async def again(dial: Dialer, wire: Wire) -> Wire:
    """Open one more connection of an account, without a device."""
    found = await dial()
    await found.login(wire.phone)
    return found


def both(number: int, first: Any, second: Any) -> tuple[Any, Any]:
    """Put two in an order that changes from round to round."""
    return (second, first) if number % 2 else (first, second)


async def race(number: int, first: Any, second: Any) -> list[int]:
    """Run two requests in one moment, in an order that changes; return their statuses."""
    replies = await at_once(*both(number, first, second))
    one, other = both(number, *replies)
    return [one["status"], other["status"]]


def request(wire: Wire, cmd: str, group: str, **fields: object) -> tuple[Wire, Frame]:
    """Make a request about a group."""
    return wire, {"cmd": cmd, "groupId": group, **fields}


async def same_counts(wire: Wire, group: str, members: set[str]) -> None:
    """Require these members, in the list and in the count, and one owner."""
    found = await roles(wire, group)
    assert set(found) == members
    one_owner(found)
    assert (await view(wire, group))["members"] == len(members)


@ONE_LOOP
@pytest.mark.slow
class TestRaces:
    """The list of what may happen at once."""

    async def test_join_twice(self, dial: Dialer) -> None:
        """Two joins of one person: both are told that they are in; they are in once."""
        group, (a,) = await founded(dial, 1, "tag")
        b = await dial.user()
        b2 = await again(dial, b)
        for number in range(ROUNDS):
            join = (request(b, "join_group", group), request(b2, "join_group", group))
            assert await race(number, *join) == [1, 1]
            await same_counts(a, group, {a.user_id, b.user_id})
            assert await talk(b, group) == ["joined"]
            await b.ok("leave_group", groupId=group)

    async def test_ask_twice(self, dial: Dialer) -> None:
        """Two requests of one person: one waits, and the owner is asked once."""
        group, (a,) = await founded(dial, 1)
        await started(a)
        b = await dial.user()
        b2 = await again(dial, b)
        for number in range(ROUNDS):
            join = (request(b, "join_group", group), request(b2, "join_group", group))
            assert await race(number, *join) == [1, 1]
            [got] = await a.expect_delivery(ack=True)
            assert got["event"]["name"] == "join_request"
            assert await asked(a, group) == [b.user_id]
            await a.ok("reject_join", groupId=group, userId=b.user_id)
            await a.expect_nothing()

    async def test_join_and_kick(self, dial: Dialer) -> None:
        """Somebody comes while they are put out: in, or in and out again."""
        group, (a,) = await founded(dial, 1, "tag")
        b = await dial.user()
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(b, "join_group", group),
                request(a, "kick", group, userIds=[b.user_id]),
            )
            assert statuses in ([1, 1], [1, 4005])
            inside = {b.user_id} if statuses[1] == 4005 else set()
            await same_counts(a, group, {a.user_id} | inside)
            assert await talk(b, group) == (["joined"] if inside else ["joined", "kicked"])
            assert (await b.send([note(group, "x")]))["status"] == (1 if inside else 4005)
            if inside:
                await b.ok("leave_group", groupId=group)

    async def test_leave_and_kick(self, dial: Dialer) -> None:
        """Somebody goes and is put out: one of the two counts, the other is 4005."""
        group, (a, b) = await founded(dial, 2)
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(b, "leave_group", group),
                request(a, "kick", group, userIds=[b.user_id]),
            )
            assert sorted(statuses) == [1, 4005]
            await same_counts(a, group, {a.user_id})
            assert await talk(b, group) == ["joined", "left" if statuses[0] == 1 else "kicked"]
            await a.ok("invite", groupId=group, userIds=[b.user_id])

    async def test_leave_and_hand_over(self, dial: Dialer) -> None:
        """The heir goes while they become owner: the group keeps the one or gets the other."""
        group, (a, b) = await founded(dial, 2)
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(b, "leave_group", group),
                request(a, "set_role", group, userId=b.user_id, role="owner"),
            )
            assert statuses in ([1, 4005], [4004, 1])
            if statuses[0] == 1:
                await same_counts(a, group, {a.user_id})
                await a.ok("invite", groupId=group, userIds=[b.user_id])
            else:
                assert await roles(a, group) == {a.user_id: "admin", b.user_id: "owner"}
                await b.ok("set_role", groupId=group, userId=a.user_id, role="owner")
                await a.ok("set_role", groupId=group, userId=b.user_id, role="member")

    async def test_leave_and_promote(self, dial: Dialer) -> None:
        """Somebody goes while they become admin: they are gone, whatever they were before."""
        group, (a, b) = await founded(dial, 2)
        seen = set()
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(b, "leave_group", group),
                request(a, "set_role", group, userId=b.user_id, role="admin"),
            )
            assert statuses in ([1, 1], [1, 4005])
            seen.add(statuses[1])
            await same_counts(a, group, {a.user_id})
            # An admin might: no right outlives the leave.
            assert (await b.command("kick", groupId=group, userIds=[a.user_id]))["status"] == 4005
            await a.ok("invite", groupId=group, userIds=[b.user_id])
            assert (await roles(a, group))[b.user_id] == "member"
        assert len(seen) == 2

    async def test_invite_and_leave(self, dial: Dialer) -> None:
        """Somebody is invited while they go: out, or out and in again; one notice for each."""
        group, (a, b) = await founded(dial, 2)
        seen = set()
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(b, "leave_group", group),
                request(a, "invite", group, userIds=[b.user_id]),
            )
            assert statuses == [1, 1]
            inside = b.user_id in await roles(a, group)
            await same_counts(a, group, {a.user_id} | ({b.user_id} if inside else set()))
            last = (await talk(a, group))[-2:]
            assert last[-1] == ("joined" if inside else "left")
            assert last == ["left", "joined"] if inside else last == ["joined", "left"]
            assert (await b.send([note(group, "x")]))["status"] == (1 if inside else 4005)
            seen.add(inside)
            if inside:
                await b.ok("leave_group", groupId=group)
            await a.ok("invite", groupId=group, userIds=[b.user_id])
        assert len(seen) == 2

    async def test_the_owner_goes(self, dial: Dialer) -> None:
        """An owner goes while they hand over: 4004 before it, gone behind it."""
        group, (a, b) = await founded(dial, 2)
        a2 = await again(dial, a)
        seen = set()
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(a, "leave_group", group),
                request(a2, "set_role", group, userId=b.user_id, role="owner"),
            )
            assert statuses in ([1, 1], [4004, 1])
            seen.add(statuses[0])
            assert one_owner(await roles(b, group)) == b.user_id
            if statuses[0] == 1:
                await same_counts(b, group, {b.user_id})
                await b.ok("invite", groupId=group, userIds=[a.user_id])
            await b.ok("set_role", groupId=group, userId=a.user_id, role="owner")
            await a.ok("set_role", groupId=group, userId=b.user_id, role="member")
        assert len(seen) == 2

    async def test_two_heirs(self, dial: Dialer) -> None:
        """An owner hands over to two at once: one is owner, the other request is 4004."""
        group, (a, b, c) = await founded(dial, 3)
        a2 = await again(dial, a)
        people = {each.user_id: each for each in (a, b, c)}
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(a, "set_role", group, userId=b.user_id, role="owner"),
                request(a2, "set_role", group, userId=c.user_id, role="owner"),
            )
            assert sorted(statuses) == [1, 4004]
            owner = one_owner(await roles(a, group))
            assert owner == (b.user_id if statuses[0] == 1 else c.user_id)
            await people[owner].ok("set_role", groupId=group, userId=a.user_id, role="owner")

    async def test_last_admins_leave(self, dial: Dialer) -> None:
        """The last two leaders go: the owner stays, whatever the order."""
        group, (a, b, c) = await founded(dial, 3)
        for number in range(ROUNDS):
            for each in (b, c):
                await a.ok("set_role", groupId=group, userId=each.user_id, role="admin")
            if number % 5:
                leave = (request(b, "leave_group", group), request(c, "leave_group", group))
                assert await race(number, *leave) == [1, 1]
                expected = {a.user_id}
            else:
                # The owner wants to go as well, having handed over to one who is going.
                replies = await at_once(
                    request(c, "leave_group", group),
                    request(a, "set_role", group, userId=b.user_id, role="owner"),
                    request(b, "leave_group", group),
                )
                assert replies[0]["status"] == 1
                assert sorted(each["status"] for each in replies[1:]) in ([1, 4004], [1, 4005])
                left = replies[2]["status"] == 1
                expected = {a.user_id} if left else {a.user_id, b.user_id}
            await same_counts(a, group, expected)
            if (await roles(a, group))[a.user_id] != "owner":
                await b.ok("set_role", groupId=group, userId=a.user_id, role="owner")
            await a.ok("invite", groupId=group, userIds=[b.user_id, c.user_id])

    async def test_dissolve_and_send(self, dial: Dialer) -> None:
        """A message meets the end: before it, or 4005; never behind it, never half of a list."""
        a, b, c = await users(dial, 3)
        for number in range(ROUNDS):
            made = await a.ok("create_group", name="x", kind="tag")
            group = made["id"]
            for each in (b, c):
                await each.ok("join_group", groupId=group)
            notes = [note(group, f"{n}", "3") for n in range(3)]
            statuses = await race(number, request(a, "dissolve_group", group), (b, frame(notes)))
            assert statuses in ([1, 1], [1, 4005])
            said = ["0", "1", "2"] if statuses[1] == 1 else []
            for each in (b, c):
                assert (await talk(each, group))[-len(said) - 1 :] == [*said, "dissolved"]
                assert await each.ok("my_groups") == []

    async def test_accept_and_reject(self, dial: Dialer) -> None:
        """Two leaders answer one request: one answer counts, the other is 4005 or says it is in."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        c = await dial.user()
        for number in range(ROUNDS):
            await c.ok("join_group", groupId=group)
            statuses = await race(
                number,
                request(a, "accept_join", group, userId=c.user_id),
                request(b, "reject_join", group, userId=c.user_id),
            )
            assert sorted(statuses) == [1, 4005]
            assert await asked(a, group) == []
            inside = {c.user_id} if statuses[0] == 1 else set()
            await same_counts(a, group, {a.user_id, b.user_id} | inside)
            if inside:
                await c.ok("leave_group", groupId=group)

    async def test_accept_twice(self, dial: Dialer) -> None:
        """Two leaders let one person in: both succeed, and they join once."""
        group, (a, b) = await founded(dial, 2)
        await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
        c = await dial.user()
        for number in range(ROUNDS):
            await c.ok("join_group", groupId=group)
            accept = [request(each, "accept_join", group, userId=c.user_id) for each in (a, b)]
            assert await race(number, *accept) == [1, 1]
            await same_counts(a, group, {a.user_id, b.user_id, c.user_id})
            assert await talk(c, group) == ["joined"]
            await c.ok("leave_group", groupId=group)

    async def test_two_join(self, dial: Dialer) -> None:
        """Two people join at once: both are in, and all see them come in one order."""
        group, (a, b) = await founded(dial, 2, "tag")
        c, d = await users(dial, 2)
        for number in range(ROUNDS):
            join = (request(c, "join_group", group), request(d, "join_group", group))
            assert await race(number, *join) == [1, 1]
            everybody = {each.user_id for each in (a, b, c, d)}
            await same_counts(a, group, everybody)
            seen = [await b.ok("history", chatId=group, limit=2) for _ in (1, 2)]
            assert numbers(seen[0]) == sorted(numbers(seen[0]))
            assert {each["event"]["userIds"][0] for each in seen[0]} == {c.user_id, d.user_id}
            for each in (c, d):
                await each.ok("leave_group", groupId=group)

    async def test_mute_and_send(self, dial: Dialer) -> None:
        """A message meets a mute: before it, or 4004; and never behind its notice."""
        group, (a, b) = await founded(dial, 2)
        for number in range(ROUNDS):
            statuses = await race(
                number,
                request(a, "mute", group, userId=b.user_id, seconds=60),
                (b, frame([note(group, f"{number}")])),
            )
            assert statuses in ([1, 1], [1, 4004])
            last = (await talk(a, group))[-2:]
            assert last[-1] == "muted"
            assert (f"{number}" in last) == (statuses[1] == 1)
            await a.ok("mute", groupId=group, userId=b.user_id, seconds=0)

    async def test_kick_and_recall(self, dial: Dialer) -> None:
        """An admin recalls while they are put out: done before it, or 4004 and nothing is done."""
        group, (a, b) = await founded(dial, 2)
        for number in range(ROUNDS):
            await a.ok("set_role", groupId=group, userId=b.user_id, role="admin")
            [row] = await a.post(note(group, "x"))
            statuses = await race(
                number,
                request(a, "kick", group, userIds=[b.user_id]),
                (b, {"cmd": "recall", "msgId": row["msgId"]}),
            )
            assert statuses in ([1, 1], [1, 4004])
            last = (await talk(a, group))[-2:]
            assert last == (["recalled", "kicked"] if statuses[1] == 1 else ["x", "kicked"])
            assert (await chat_of(b, group))["last"]["event"]["name"] == "kicked"
            await a.ok("invite", groupId=group, userIds=[b.user_id])
