"""Guessing passwords and pushIds as fast as a server answers, and locking others out by it."""

import asyncio
import collections
import secrets
import time
from collections.abc import Iterable

import pytest

from tests.conformance.people import dial_from
from tests.conformance.process import Process, StartServer
from tests.conformance.wire import PASSWORD, Frame, Wire, frame, lines, new_phone

WRONG = "Zebra-7732"


def guess(phone: str, password: str = WRONG) -> Frame:
    """Return one attempt at a password."""
    return {"cmd": "login", "phone": phone, "password": password}


async def statuses(wire: Wire, frames: Iterable[Frame]) -> collections.Counter[int]:
    """Send frames in one breath and count how they are answered; each 4290 says when to retry."""
    sent = list(frames)
    await wire.send_raw(lines(*sent))
    found: collections.Counter[int] = collections.Counter()
    for _ in sent:
        reply = await wire.reply()
        found[reply["status"]] += 1
        assert (reply["status"] == 4290) == ("retryAfter" in reply)
    return found


async def owner_gets_in(own: Process, owner: Wire, source: str) -> None:
    """Require that the owner logs in from elsewhere, at once or a little later."""
    wire = await dial_from(own, source)
    await wire.login(owner.phone, owner.password)
    wire.close()


async def test_a_thousand_on_one_connection(server: StartServer) -> None:
    """Five of 1,000 guesses are looked at; the owner gets in from elsewhere, not from there."""
    own = server(limits_per_address=True, limits_logins=100_000)
    owner = await own.dial.user()
    wire = await own.dial()
    found = await statuses(wire, [guess(owner.phone)] * 1000)
    assert found == {10000: 5, 4290: 995}
    assert await statuses(wire, [guess(owner.phone, PASSWORD)]) == {4290: 1}
    await owner_gets_in(own, owner, "127.0.0.2")


async def test_a_thousand_over_200_connections(server: StartServer) -> None:
    """New connections are no new guesses."""
    own = server(limits_per_address=True, limits_logins=100_000)
    owner = await own.dial.user()
    wires = [await own.dial() for _ in range(200)]
    found = await asyncio.gather(*(statuses(wire, [guess(owner.phone)] * 5) for wire in wires))
    assert sum(found, collections.Counter()) == {10000: 5, 4290: 995}
    await owner_gets_in(own, owner, "127.0.0.2")


async def test_one_password_over_500_phones(server: StartServer) -> None:
    """One guess at each of many accounts ends at the logins of an address, known phones or not."""
    own = server(limits_per_address=True, limits_logins=100)
    owners = [await own.dial.user() for _ in range(10)]
    phones = [owner.phone for owner in owners] + [new_phone() for _ in range(490)]
    wire = await dial_from(own, "127.0.0.3")
    found = await statuses(wire, map(guess, phones))
    wire.close()
    assert found[4290] >= 395, found
    assert found[10000] + found[6004] <= 105, found
    await owner_gets_in(own, owners[0], "127.0.0.2")


async def test_from_many_addresses(server: StartServer) -> None:
    """A hundred addresses get five guesses each, slowed down; the owner's does not wait."""
    own = server(limits_per_address=True, limits_wrong_passwords_delay=0.2)
    owner = await own.dial.user()
    await owner_gets_in(own, owner, "127.0.0.2")
    wires = [await dial_from(own, f"127.0.1.{n}") for n in range(1, 101)]
    found = await asyncio.gather(*(statuses(wire, [guess(owner.phone)] * 10) for wire in wires))
    assert sum(found, collections.Counter()) == {10000: 500, 4290: 500}
    await owner_gets_in(own, owner, "127.0.0.2")
    for wire in wires:
        wire.close()


async def test_ten_thousand_push_ids(server: StartServer) -> None:
    """Of 10,000 guesses at a pushId sixty are looked at; elsewhere nobody notices."""
    own = server(limits_per_address=True)
    owner = await own.dial.user(started=True)
    owner.close()
    wire = await dial_from(own, "127.0.0.3")
    found: collections.Counter[int] = collections.Counter()
    began = time.monotonic()
    for _ in range(100):
        guesses = [frame("restart", secrets.token_urlsafe(18)) for _ in range(100)]
        found += await statuses(wire, guesses)
    # Sixty at once, then one a second.
    assert found[11001] <= 62 + time.monotonic() - began, found
    assert found[11001] + found[4290] == 10_000
    assert await statuses(wire, [frame("restart", owner.push_id)]) == {4290: 1}
    wire.close()
    again = await dial_from(own, "127.0.0.2")
    await again.restart(owner.push_id)
    again.close()


async def test_a_thousand_registrations(server: StartServer) -> None:
    """An address makes 200 accounts an hour, and others go on making theirs."""
    own = server(limits_per_address=True)
    found: collections.Counter[int] = collections.Counter()
    wire = await own.dial()
    for _ in range(1000):
        reply = await wire.command("register", phone=new_phone(), password=PASSWORD)
        found[reply["status"]] += 1
        if reply["status"] == 1:
            await wire.ok("logout")
    assert 200 <= found[1] <= 202, found  # one more after 18 s
    assert found[1] + found[4290] == 1000
    other = await dial_from(own, "127.0.0.2")
    await other.register()
    other.close()


async def test_one_answer_for_each_wrong_push_id(server: StartServer) -> None:
    """A made-up, dead, foreign, cut, padded or malformed pushId gives one and the same refusal."""
    own = server()
    a, b = await own.dial.user(started=True), await own.dial.user(started=True)
    dead = await own.dial.device(b)
    await dead.ok("logout")
    b.close()
    wire = await own.dial()
    tried = [
        secrets.token_urlsafe(18),
        dead.push_id,
        a.push_id[:-1],
        a.push_id + "A",
        f" {a.push_id}",
        a.push_id.swapcase(),
        "",
        "0",
        "' OR 1=1 --",
        "\ud7ff",
        "x" * 300,
        a.push_id[::-1],
    ]
    told = {str(await wire.refused(11001, frame("restart", each))) for each in tried}
    assert len(told) == 1, told
    # After a login another account's is as unknown as any.
    await wire.login(b.phone)
    assert str(await wire.refused(11001, frame("restart", a.push_id))) in told


@pytest.mark.slow
def test_push_ids_have_no_structure() -> None:
    """10,000 ids of the server's maker: 144 bits, no repeats, each bit set in half of them."""
    from base64 import urlsafe_b64decode

    from pushd.server import new_push_id

    ids = [urlsafe_b64decode(new_push_id()) for _ in range(10_000)]
    assert {len(each) for each in ids} == {18}
    assert len(set(ids)) == len(ids)
    # No two share the first half either, as those of a counter or a clock would.
    assert len({each[:9] for each in ids}) == len({each[9:] for each in ids}) == len(ids)
    numbers = [int.from_bytes(each) for each in ids]
    for bit in range(144):
        count = sum(number >> bit & 1 for number in numbers)
        assert 4700 < count < 5300, f"bit {bit}: {count}"  # six standard deviations


async def test_push_ids_on_the_wire(server: StartServer) -> None:
    """Those that people get are such ids, and a login gives a new one each time."""
    own = server(limits_devices=300)
    user = await own.dial.user()
    found = set()
    for _ in range(100):
        reply = await user.start()
        found.add(reply["pushId"])
        await user.ok("logout")
        await user.login(user.phone)
    assert len(found) == 100
    assert {len(each) for each in found} == {24}
    # The store has none of them, whole or in part.
    for path in own.data.rglob("*"):
        if path.is_file():
            stored = path.read_bytes()
            assert not any(each[:12].encode() in stored for each in found), path
