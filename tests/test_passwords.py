"""Password hashes: to the last byte, in a bounded line, and without telling who exists."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import bcrypt
import pytest

from pushd.errors import TooMany
from pushd.passwords import Hasher, Turns

PASSWORD = b"Zebra-7731"


@pytest.fixture
def hasher() -> Iterator[Hasher]:
    """A hasher as cheap as bcrypt allows."""
    hasher = Hasher(4, 2, 100)
    yield hasher
    hasher.close()


async def test_hash_and_check(hasher: Hasher) -> None:
    """A password checks against its own hash only, and hashes of it differ."""
    one, other = await hasher.hash(PASSWORD), await hasher.hash(PASSWORD)
    assert one != other and PASSWORD not in one
    assert await hasher.check(PASSWORD, one) is True
    assert await hasher.check(PASSWORD, other) is True
    assert await hasher.check(b"Zebra-7732", one) is False


@pytest.mark.parametrize("length", [71, 72])
async def test_last_byte_counts(hasher: Hasher, length: int) -> None:
    """Every byte up to the 72nd is significant."""
    stored = await hasher.hash(b"a" * length)
    assert await hasher.check(b"a" * length, stored)
    assert not await hasher.check(b"a" * (length - 1) + b"b", stored)


@pytest.mark.parametrize("length", [73, 200, 100_000])
async def test_too_long(hasher: Hasher, length: int) -> None:
    """A longer password is never right, not even where it begins like the right one."""
    stored = await hasher.hash(b"a" * 72)
    assert await hasher.check(b"a" * length, stored) is False
    assert await hasher.check(b"a" * length, None) is False
    with pytest.raises(ValueError) as caught:
        await hasher.hash(b"a" * length)
    assert "aaaa" not in repr(caught.value)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        b"",
        b"x",
        b"$2b$",
        b"$2b$04$" + b"!" * 53,
        b"$2b$99$" + b"." * 53,
        b"$2b$31$" + b"." * 53,  # sound, but would take a day
        b"$2b$03$" + b"." * 53,
        b"$2b$04$" + b"." * 52,
        b"$2b$04$" + b"." * 54,
        b"$2b$04$" + b"." * 53 + b"\n",
        b"$2x$04$" + b"." * 53,
        b"\xff" * 60,
        PASSWORD,
    ],
)
async def test_unknown_or_damaged(
    hasher: Hasher, stored: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a sound hash the answer is no, never an error, and costs one check of that cost."""
    costs: list[bytes] = []

    def checkpw(password: bytes, against: bytes) -> bool:
        right = real(password, against)
        costs.append(against[4:6])  # not if bcrypt refuses, which takes no time
        return right

    real = bcrypt.checkpw
    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    assert await hasher.check(PASSWORD, stored) is False
    assert await hasher.check(b"a" * 73, stored) is False
    assert costs == [b"04", b"04"]


async def test_dummy_is_never_right(hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown account is refused even if bcrypt should find the dummy to match."""
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, stored: True)
    assert await hasher.check(PASSWORD, None) is False
    assert await hasher.check(PASSWORD, b"damaged") is False


def test_outdated(hasher: Hasher) -> None:
    """A hash of another cost, or none, is to be made anew."""
    assert not hasher.outdated(bcrypt.hashpw(PASSWORD, bcrypt.gensalt(4)))
    assert hasher.outdated(bcrypt.hashpw(PASSWORD, bcrypt.gensalt(5)))
    assert hasher.outdated(b"damaged")


@pytest.mark.parametrize("cost", [3, 19, 31])
def test_cost_is_bounded(cost: int) -> None:
    """A cost whose hashes could not be checked later is refused at once."""
    with pytest.raises(ValueError):
        Hasher(cost, 1, 1)


class Gate:
    """Stands in for bcrypt: holds the threads until it is opened."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []  # the passwords whose checks began
        self._open = threading.Event()
        self._begun = threading.Semaphore(0)

    def checkpw(self, password: bytes, stored: bytes) -> bool:
        self.calls.append(password)
        self._begun.release()
        assert self._open.wait(10)
        return True

    async def wait_begun(self) -> None:
        """Wait until one more check has begun."""
        assert await asyncio.to_thread(self._begun.acquire, timeout=10)

    def open(self) -> None:
        """Let all checks end."""
        self._open.set()


@asynccontextmanager
async def gated(
    monkeypatch: pytest.MonkeyPatch, waiting: int
) -> AsyncIterator[tuple[Hasher, Gate]]:
    """A hasher of one thread, which a first check holds until the gate is opened."""
    gate, hasher = Gate(), Hasher(4, 1, waiting)
    monkeypatch.setattr(bcrypt, "checkpw", gate.checkpw)
    first = asyncio.create_task(hasher.check(b"first", SOUND))
    try:
        await gate.wait_begun()
        yield hasher, gate
    finally:
        gate.open()
        assert await first is True
        hasher.close()


SOUND = b"$2b$04$" + b"." * 53


async def queued(hasher: Hasher, *names: bytes) -> list[asyncio.Task[bool]]:
    """Start checks that wait in the line."""
    tasks = [asyncio.create_task(hasher.check(name, SOUND)) for name in names]
    await asyncio.gather(asyncio.create_task(asyncio.sleep(0)))
    return tasks


async def test_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the waiting line a job is refused at once; when the line moves there is room again."""
    async with gated(monkeypatch, 2) as (hasher, gate):
        tasks = await queued(hasher, b"second", b"third")
        for refused in (hasher.check(b"fourth", None), hasher.hash(b"fourth")):
            with pytest.raises(TooMany) as caught:
                await refused
            assert caught.value.retry_after >= 1
            assert "fourth" not in repr(caught.value)
        gate.open()
        assert await asyncio.gather(*tasks) == [True, True]
        assert await hasher.check(b"fourth", SOUND)
    assert gate.calls == [b"first", b"second", b"third", b"fourth"]


async def test_cancelled_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hangs up gives the place to another, and his password is not looked at."""
    async with gated(monkeypatch, 1) as (hasher, gate):
        (task,) = await queued(hasher, b"second")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (other,) = await queued(hasher, b"third")
        gate.open()
        assert await other
    assert gate.calls == [b"first", b"third"]


async def test_running_job_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled check that has begun still takes a thread, and so counts until it ends."""
    gate, hasher = Gate(), Hasher(4, 1, 0)
    monkeypatch.setattr(bcrypt, "checkpw", gate.checkpw)
    task = asyncio.create_task(hasher.check(b"first", SOUND))
    await gate.wait_begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TooMany):
        await hasher.check(b"second", SOUND)
    gate.open()
    hasher.close()


async def test_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing refuses those who wait and those who come, lets the running one end, and repeats."""
    async with gated(monkeypatch, 5) as (hasher, gate):
        (task,) = await queued(hasher, b"second")
        hasher.close()
        hasher.close()
        with pytest.raises(TooMany):
            await task
        with pytest.raises(TooMany):
            await hasher.check(b"third", SOUND)
    assert gate.calls == [b"first"]


async def test_no_password_in_repr(hasher: Hasher) -> None:
    """Nothing that the hasher shows holds a password."""
    await hasher.hash(PASSWORD)
    assert PASSWORD.decode() not in f"{hasher!r} {vars(hasher)!r}"


async def test_turns() -> None:
    """Attempts of one key go one after another in order; other keys do not wait for them."""
    turns, log = Turns(), []
    held, go = asyncio.Event(), asyncio.Event()

    async def attempt(name: str) -> None:
        async with turns.of("key"):
            log.append(f"+{name}")
            held.set()
            await go.wait()
            log.append(f"-{name}")

    tasks = [asyncio.create_task(attempt(name)) for name in "abc"]
    await held.wait()
    async with turns.of("other"):
        assert log == ["+a"]
    go.set()
    await asyncio.gather(*tasks)
    assert log == ["+a", "-a", "+b", "-b", "+c", "-c"]
    assert len(turns) == 0


async def test_turns_survive_cancelling() -> None:
    """Whoever gives up while waiting or holding leaves nothing behind."""
    turns, held, never = Turns(), asyncio.Event(), asyncio.Event()

    async def attempt() -> None:
        async with turns.of("key"):
            held.set()
            await never.wait()

    tasks = [asyncio.create_task(attempt()) for _ in range(3)]
    await held.wait()
    for task in (tasks[1], tasks[0], tasks[2]):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(turns) == 0
    async with turns.of("key"):
        assert len(turns) == 1
