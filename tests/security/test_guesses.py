"""Guessing passwords and pushIds as fast as a server answers, and locking others out by it."""

import asyncio
import collections
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import ADDRESS
from tests.conformance.people import dial_from
from tests.conformance.process import Process, StartServer
from tests.conformance.wire import (
    PASSWORD,
    Dialer,
    Frame,
    HasAddress,
    Wire,
    frame,
    lines,
    new_phone,
)

WRONG = "Zebra-7732"
Opener = Callable[..., Awaitable[Wire]]


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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with budgets per address, for all of these; each test has addresses of its own."""
    if ADDRESS:
        pytest.skip("needs a server of its own")
    settings = {"limits_logins": 100_000, "limits_wrong_passwords_delay": 0.2}
    process = Process(tmp_path_factory.mktemp("own"), **settings, limits_per_address=True)
    process.start()
    yield process
    process.dial.close()
    assert process.stop() == 0
    process.assert_no_traceback()


@pytest.fixture
def dialled(guarded: Process) -> Iterator[Opener]:
    """Open connections to it from an address; they are closed after the test."""
    opened: list[Wire] = []

    async def open_from(source: str) -> Wire:
        opened.append(await dial_from(guarded, source))
        return opened[-1]

    yield open_from
    for wire in opened:
        wire.close()


async def owner_gets_in(own: Process, owner: Wire, source: str) -> None:
    """Require that the owner logs in from elsewhere, at once or a little later."""
    wire = await dial_from(own, source)
    await wire.login(owner.phone, owner.password)
    wire.close()


@pytest.mark.slow
async def test_a_thousand_on_one_connection(guarded: Process, dialled: Opener) -> None:
    """Five of 1,000 guesses are looked at; the owner gets in from elsewhere, not from there."""
    owner, wire = await guarded.dial.user(), await dialled("127.0.3.1")
    found = await statuses(wire, [guess(owner.phone)] * 1000)
    assert found == {10000: 5, 4290: 995}
    assert await statuses(wire, [guess(owner.phone, PASSWORD)]) == {4290: 1}
    await owner_gets_in(guarded, owner, "127.0.0.2")


@pytest.mark.slow
async def test_a_thousand_over_200_connections(guarded: Process, dialled: Opener) -> None:
    """New connections are no new guesses."""
    owner = await guarded.dial.user()
    wires = [await dialled("127.0.3.2") for _ in range(200)]
    found = await asyncio.gather(*(statuses(wire, [guess(owner.phone)] * 5) for wire in wires))
    assert sum(found, collections.Counter()) == {10000: 5, 4290: 995}
    await owner_gets_in(guarded, owner, "127.0.0.2")


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


@pytest.mark.slow
async def test_from_many_addresses(guarded: Process, dialled: Opener) -> None:
    """A hundred addresses get five guesses each, slowed down; the owner's does not wait."""
    owner = await guarded.dial.user()
    await owner_gets_in(guarded, owner, "127.0.0.2")
    wires = [await dialled(f"127.0.1.{n}") for n in range(1, 101)]
    found = await asyncio.gather(*(statuses(wire, [guess(owner.phone)] * 10) for wire in wires))
    assert sum(found, collections.Counter()) == {10000: 500, 4290: 500}
    await owner_gets_in(guarded, owner, "127.0.0.2")


@pytest.mark.slow
async def test_ten_thousand_push_ids(guarded: Process, dialled: Opener) -> None:
    """Of 10,000 guesses at a pushId sixty are looked at; elsewhere nobody notices."""
    owner = await guarded.dial.user(started=True)
    owner.close()
    wire = await dialled("127.0.3.3")
    found: collections.Counter[int] = collections.Counter()
    began = time.monotonic()
    for _ in range(100):
        guesses = [frame("restart", secrets.token_urlsafe(18)) for _ in range(100)]
        found += await statuses(wire, guesses)
    # Sixty at once, then one a second.
    assert found[11001] <= 62 + time.monotonic() - began, found
    assert found[11001] + found[4290] == 10_000
    assert await statuses(wire, [frame("restart", owner.push_id)]) == {4290: 1}
    await (await dialled("127.0.0.2")).restart(owner.push_id)


@pytest.mark.slow
async def test_a_thousand_registrations(dialled: Opener) -> None:
    """An address makes 200 accounts an hour, and others go on making theirs."""
    found: collections.Counter[int] = collections.Counter()
    wire = await dialled("127.0.3.4")
    for _ in range(1000):
        reply = await wire.command("register", phone=new_phone(), password=PASSWORD)
        found[reply["status"]] += 1
        if reply["status"] == 1:
            await wire.ok("logout")
    assert 200 <= found[1] <= 204, found  # one more after each 18 s
    assert found[1] + found[4290] == 1000
    await (await dialled("127.0.0.2")).register()


async def test_one_answer_for_each_wrong_push_id(dial: Dialer) -> None:
    """A made-up, dead, foreign, cut, padded or malformed pushId gives one and the same refusal."""
    a, b = await dial.user(started=True), await dial.user(started=True)
    dead = await dial.device(b)
    await dead.ok("logout")
    b.close()
    wire = await dial()
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


async def test_push_ids_on_the_wire(dial: Dialer, common_server: HasAddress) -> None:
    """Those that people get are such ids, and a login gives a new one each time."""
    user = await dial.user()
    found = set()
    for _ in range(100):
        reply = await user.start()
        found.add(reply["pushId"])
        await user.ok("logout")
        await user.login(user.phone)
    assert len(found) == 100
    assert {len(each) for each in found} == {24}
    # The store has none of them, whole or in part.
    if isinstance(common_server, Process):
        for path in filter(Path.is_file, common_server.data.rglob("*")):
            stored = path.read_bytes()
            assert not any(each[:12].encode() in stored for each in found), path
