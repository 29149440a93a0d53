"""Budgets and penalties: who may do what how often, in bounded memory.

`Budget` is GCRA, the token bucket that needs one number a key: the time at which the key would
be wholly free again. A key may spend `count` at once and then one every `seconds / count`.

`Penalties` answers guessing without becoming a weapon. Wrong passwords are counted by account
*and* address, so nobody can lock a stranger out; what all addresses together get wrong only makes
the account slower, and not for an address that has succeeded before.

Every table is bounded. A full one gives up the entry that is closest to being free again, which
loses least: a flood of new keys pushes out its own entries and not the long penalties.

Times are seconds of any clock that does not go back, and are handed in. No I/O, no asyncio. A
check and the count that follows it are two calls: whoever waits in between (for a password's
hash) must let attempts of one key go one after another.
"""

import heapq
import ipaddress
import math
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S")

# Below this a wait is a rounding error of the clock.
_GRAIN = 1e-6


def network(address: str) -> str:
    """Give what an address counts as: of IPv6 the 64 bits that one customer has to himself.

    All of them have as many addresses as they like there, and would have as many budgets. Those of
    one link, which begin alike everywhere, count by themselves.
    """
    if ":" not in address:
        return address
    try:
        whole = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if whole.is_link_local or whole.is_loopback:
        return address
    return f"{ipaddress.IPv6Address(int(whole) >> 64 << 64)}/64"


class _Table(Generic[S]):
    """A bounded table of states, each of which ends at a time that `ends` tells.

    Every key has exactly one entry in a heap. A state's end mostly moves later, so the time in
    the heap is corrected only when it comes to the top; a state that ended early stays until then.
    """

    def __init__(self, size: int, ends: Callable[[S], float]) -> None:
        if size < 1:
            raise ValueError("a table holds at least one key")
        self._size = size  # how many keys it may hold
        self._ends = ends  # when a state means nothing any more
        self._states: dict[Hashable, S] = {}
        self._heap: list[tuple[float, int, Hashable]] = []  # seeming end, number, key
        self._number = 0  # rises with each key, so that keys themselves are never compared

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: Hashable, now: float) -> S | None:
        """Return the key's state, or None if there is none or it has ended."""
        state = self._states.get(key)
        return state if state is not None and self._ends(state) > now else None

    def put(self, key: Hashable, state: S, now: float) -> None:
        """Set the key's state, giving up another key's if the table is full."""
        if key not in self._states:
            self._sweep(now)
            while len(self._states) >= self._size:
                self._drop_first(-math.inf)
            self._number += 1
            heapq.heappush(self._heap, (self._ends(state), self._number, key))
        self._states[key] = state

    def _sweep(self, now: float) -> None:
        # Two out for one in: the table shrinks when it is used less, at a constant cost.
        for _ in range(2):
            if not self._heap or self._heap[0][0] > now:
                return
            self._drop_first(now)

    def _drop_first(self, before: float) -> None:
        """Drop the first entry if it ends as it seemed, or by `before`; else correct its time."""
        seemed, number, key = self._heap[0]
        end = self._ends(self._states[key])
        if end <= max(seemed, before):
            heapq.heappop(self._heap)
            del self._states[key]
        else:
            heapq.heapreplace(self._heap, (end, number, key))


class Budget:
    """How often each key may do one thing: `count` in `seconds`; a `count` of 0 is no limit.

    `keys` bounds how many keys are remembered at once.
    """

    def __init__(self, count: int, seconds: float, keys: int) -> None:
        self.count = count
        self.seconds = seconds
        self.refused = 0  # how often there was none left
        # The state is the time at which the key is wholly free again.
        self._table: _Table[float] = _Table(keys, lambda free_at: free_at)

    def __len__(self) -> int:
        return len(self._table)

    def take(self, key: Hashable, now: float, amount: int = 1) -> int:
        """Spend `amount` if the key has it; return 0, or after how many seconds to try again.

        A refusal spends nothing. More than `count` at once counts as `count`: it needs the whole
        budget, but it is not refused for ever.
        """
        wait = self.peek(key, now, amount)
        if wait:
            self.refused += 1
        elif self.count:
            self._table.put(key, self._free_at(key, now) + self._price(amount), now)
        return wait

    def peek(self, key: Hashable, now: float, amount: int = 1) -> int:
        """Return what `take` would, and spend nothing."""
        if not self.count:
            return 0
        return _whole(self._free_at(key, now) + self._price(amount) - self.seconds - now)

    def _free_at(self, key: Hashable, now: float) -> float:
        free_at = self._table.get(key, now)
        return now if free_at is None else free_at

    def _price(self, amount: int) -> float:
        return self.seconds * min(amount, self.count) / self.count


class _Guesses(NamedTuple):
    """What one account and address got wrong lately."""

    free_at: float  # when all free wrong passwords are there again
    shut_until: float  # no attempt before this
    waits: int  # how many waits there were; the next is twice the last
    forgotten_at: float  # when this record means nothing any more


class _Crowd(NamedTuple):
    """How often an account was guessed at, by this minute and the one before."""

    minute: int  # which minute `failures` are of
    failures: int
    before: int  # the failures of the minute before
    ends_at: float  # when both are over


class Penalties:
    """What wrong passwords cost: waits for one address, slowness for an account.

    A key is an account (or the phone that was tried, whether it exists or not) and an address.
    `count` wrong passwords in `seconds` are free; the last of them, and each further one, makes
    the key wait, right passwords included: `first_wait` seconds, then twice as long each time up
    to `longest_wait`. All is forgotten `memory` seconds after the last wait without a failure.
    A `count` of 0 is no limit.
    """

    def __init__(
        self,
        count: int = 5,
        seconds: float = 60.0,
        keys: int = 100_000,
        *,
        # Waits of one account and address
        first_wait: float = 60.0,
        longest_wait: float = 3600.0,
        memory: float = 3600.0,
        # Slowness of one account
        crowd: int = 20,
        slowest: float = 2.0,
        trust: float = 30 * 86400.0,
    ) -> None:
        self.count = count
        self.seconds = seconds
        self.first_wait = first_wait
        self.longest_wait = longest_wait
        self.memory = memory
        self.crowd = crowd  # failures a minute over all addresses before an account gets slower
        self.slowest = slowest
        self.refused = 0  # attempts that had to wait; counted by whoever refuses
        self.trust = trust  # for how long an address that succeeded is trusted
        self._guesses: _Table[_Guesses] = _Table(keys, lambda guesses: guesses.forgotten_at)
        self._crowds: _Table[_Crowd] = _Table(keys, lambda crowd: crowd.ends_at)
        self._trusted: _Table[float] = _Table(keys, lambda ends_at: ends_at)

    def check(self, key: tuple[Hashable, Hashable], now: float) -> int:
        """Return 0 if this address may try a password of this account, else the wait in seconds.

        To be called before the password is looked at: an answer that differs for the right one
        would let guessing go on during the wait.
        """
        guesses = self._guesses.get(key, now)
        return _whole(guesses.shut_until - now) if guesses else 0

    def failed(self, key: tuple[Hashable, Hashable], now: float) -> None:
        """Count a wrong password, or an unknown account: both cost the same."""
        if not self.count:
            return
        self._guesses.put(key, self._worse(self._guesses.get(key, now), now), now)
        self._crowds.put(key[0], self._larger(self._crowds.get(key[0], now), now), now)

    def succeeded(self, key: tuple[Hashable, Hashable], now: float) -> None:
        """Forget what this address got wrong, and trust it."""
        if self._guesses.get(key, now):
            self._guesses.put(key, _Guesses(now, now, 0, now), now)
        self._trusted.put(key, now + self.trust, now)

    def trusted(self, key: tuple[Hashable, Hashable], now: float) -> bool:
        """Tell whether this address gave the right password not long ago.

        The owner's address is not slowed down while others guess. It is known only as long as
        the process lives.
        """
        return self._trusted.get(key, now) is not None

    def slowdown(self, account: Hashable, now: float) -> float:
        """Return by how many seconds an attempt on this account is to be delayed now.

        0 below `crowd` failures a minute over all addresses, then a tenth of a second more for
        each, up to `slowest`.
        """
        crowd = self._crowds.get(account, now)
        if crowd is None:
            return 0.0
        over = _rate(crowd, now) - self.crowd + 1
        return min(self.slowest, over / 10) if over >= 1 else 0.0

    def _worse(self, old: _Guesses | None, now: float) -> _Guesses:
        each = self.seconds / self.count
        free_at = max(old.free_at if old else now, now) + each
        waits = old.waits if old else 0
        used_up = free_at + each - self.seconds - now > _GRAIN
        if not waits and not used_up:
            return _Guesses(free_at, now, 0, free_at)
        # Past 60 doublings every wait is the longest, and a float would overflow at 1,000.
        wait = min(self.first_wait * 2.0 ** min(waits, 60), self.longest_wait)
        return _Guesses(free_at, now + wait, waits + 1, now + wait + self.memory)

    def _larger(self, old: _Crowd | None, now: float) -> _Crowd:
        minute = int(now // 60)
        ends_at = (minute + 2) * 60.0
        if old is None or old.minute < minute - 1:
            return _Crowd(minute, 1, 0, ends_at)
        if old.minute < minute:
            return _Crowd(minute, 1, old.failures, ends_at)
        return _Crowd(minute, old.failures + 1, old.before, ends_at)


def _rate(crowd: _Crowd, now: float) -> float:
    """Return the failures of the last minute, taking those of a whole minute as evenly spread."""
    gone = now / 60 - crowd.minute
    if gone < 1:
        return crowd.failures + crowd.before * (1 - gone)
    return crowd.failures * max(0.0, 2 - gone)


def _whole(seconds: float) -> int:
    """Return a wait in whole seconds after which it is surely over; 0 if there is none."""
    return max(0, math.ceil(seconds - _GRAIN))
