"""Password hashes, computed beside the event loop, in a bounded line.

bcrypt takes tens of milliseconds and releases the GIL, so it runs in a few threads. Behind them
at most `waiting` jobs wait; one more is refused at once, because a line that grows with an attack
helps only the attack. A caller that is cancelled leaves the line.

Every check costs the same, whether the account exists, its hash is sound or the password fits in
72 bytes (where bcrypt itself raises): the time of an answer must not tell strangers which phones
are registered.

Passwords are bytes, and are in no attribute, message or exception of this module.
"""

import asyncio
import math
import re
import threading
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

import bcrypt

from .errors import TooMany

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST = 72
_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

_LOWEST_COST = 4
# A cost beyond this in a stored hash is damage: each step doubles the time, and 31 takes a day.
_HIGHEST_COST = 18

# How long one check takes at cost 10 on a slow core; only for telling when to come back.
_SECONDS_AT_10 = 0.06


class Hasher:
    """Hashes and checks passwords in `threads` threads, with `waiting` jobs behind them.

    A check against a hash of another cost takes that cost's time; see `outdated`.
    """

    def __init__(self, cost: int, threads: int, waiting: int) -> None:
        if not _LOWEST_COST <= cost <= _HIGHEST_COST:
            raise ValueError(f"a cost is {_LOWEST_COST} to {_HIGHEST_COST}")
        self.cost = cost
        self._threads = threads
        self._room = threads + waiting  # how many jobs may run or wait at once
        self._jobs = 0  # how many do; counted under the lock, for threads count down
        self._lock = threading.Lock()
        self._closed = False
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="password")
        # Sound, and the hash of nothing: as dear to check as a real one, and never right.
        self._dummy = bcrypt.gensalt(cost) + b"." * 31

    @property
    def jobs(self) -> int:
        """How many passwords are being hashed or wait for that."""
        return self._jobs

    async def hash(self, password: bytes) -> bytes:
        """Return a new hash of a password of at most 72 bytes.

        Raises: TooMany when too many jobs wait or the hasher is closed.
        """
        if len(password) > _LONGEST:
            raise ValueError("a password to be hashed has at most 72 bytes")
        return await self._run(_hash, password, self.cost)

    async def check(self, password: bytes, stored: bytes | None) -> bool:
        """Tell whether the password is the stored one; never if there is none or it is damaged.

        Raises: TooMany when too many jobs wait or the hasher is closed.
        """
        sound = stored is not None and _cost(stored) is not None
        against = stored if stored is not None and sound else self._dummy
        right = await self._run(_check, password[:_LONGEST], against)
        return right and sound and len(password) <= _LONGEST

    def outdated(self, stored: bytes) -> bool:
        """Tell whether a stored hash has another cost than new ones get."""
        return _cost(stored) != self.cost

    def close(self) -> None:
        """Take no more jobs and drop those that wait; idempotent, and does not wait itself."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        job = self._submit(work, *args, **kwargs)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            # Dropped by close(), which is no cancellation of the caller.
            task = asyncio.current_task()
            if self._closed and job.cancelled() and not (task and task.cancelling()):
                raise self._refusal() from None
            raise

    def _submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        with self._lock:
            if self._closed or self._jobs >= self._room:
                raise self._refusal()
            self._jobs += 1
        job = self._executor.submit(work, *args, **kwargs)
        # Called when the job has really ended, also when its caller has long been gone.
        job.add_done_callback(self._count_down)
        return job

    def _count_down(self, job: object) -> None:
        with self._lock:
            self._jobs -= 1

    def _refusal(self) -> TooMany:
        seconds = _SECONDS_AT_10 * 2.0 ** (self.cost - 10) * self._jobs / self._threads
        return TooMany(max(1, math.ceil(seconds)), "too many passwords wait to be checked")


class Turns:
    """Lets attempts of one key go one after another, in the order in which they came.

    Guesses that are sent at once must be counted one by one: all would pass a check that is made
    before the first of them has failed.
    """

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}  # with how many use it

    def __len__(self) -> int:
        return len(self._locks)

    @asynccontextmanager
    async def of(self, key: Hashable) -> AsyncIterator[None]:
        """Wait until no other attempt of this key is under way, and hold the key meanwhile."""
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, users - 1


def _cost(stored: bytes) -> int | None:
    """Return the cost of a hash, or None if it is none that can be checked."""
    match = _HASH.fullmatch(stored)
    cost = int(match[1]) if match else 0
    return cost if _LOWEST_COST <= cost <= _HIGHEST_COST else None


def _hash(password: bytes, cost: int) -> bytes:
    return bcrypt.hashpw(password, bcrypt.gensalt(cost))


def _check(password: bytes, stored: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, stored)
    except ValueError:
        # Such as salt bits that bcrypt does not take; its text would show the hash in a log.
        return False
