"""How long logins take of people who are known, unknown or disabled: whether the time tells.

python -m tests.security.timing --rounds 500      # exits with 1 if the medians differ by 5 %
"""

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.conformance.process import Process
from tests.conformance.wire import Wire, new_phone

WRONG = "Zebra-7732"
ROOM = 0.05  # how far the medians may lie apart


# What keeps guesses from being slowed down.
SETTINGS = {"limits_wrong_passwords": 1_000_000, "limits_wrong_passwords_in_all": 1_000_000}


async def sample(own: Process, rounds: int) -> dict[str, float]:
    """Give the median of a wrong login's time for each kind of people, in seconds."""
    known, disabled = await own.dial.user(), await own.dial.user()
    operator = own.dial.operator(str(own.data / "control.sock"))
    await operator.ok("disable", user=disabled.user_id)
    phones = {"known": known.phone, "unknown": new_phone(), "disabled": disabled.phone}
    wire = await own.dial()
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 3):
        kinds = list(phones)
        random.shuffle(kinds)
        for kind in kinds:
            times[kind].append(await one(wire, phones[kind]))
    # The first ones fill caches.
    return {kind: statistics.median(taken[3:]) for kind, taken in times.items()}


async def one(wire: Wire, phone: str) -> float:
    """Give how long one wrong login takes."""
    began = time.perf_counter()
    reply = await wire.command("login", phone=phone, password=WRONG)
    taken = time.perf_counter() - began
    assert reply["status"] in (10000, 6004), reply
    return taken


async def measure(rounds: int, cost: int, *, hidden: bool) -> dict[str, float]:
    """Sample a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {**SETTINGS, "auth_hide_unknown_users": hidden, "auth_bcrypt_cost": cost}
        own = Process(Path(folder), **settings)
        own.start()
        try:
            return await sample(own, rounds)
        finally:
            own.dial.close()
            own.kill()


def main() -> int:
    """Measure, print, and tell whether the times are alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--cost", type=int, default=10)
    parser.add_argument("--shown", action="store_true", help="the control: without the option")
    chosen = parser.parse_args()
    medians = asyncio.run(measure(chosen.rounds, chosen.cost, hidden=not chosen.shown))
    for kind, median in medians.items():
        print(f"{kind:9} {median * 1000:8.3f} ms")
    apart = max(high / low - 1 for high, low in itertools.permutations(medians.values(), 2))
    print(f"apart     {apart * 100:8.2f} %")
    return 1 if apart > ROOM else 0


if __name__ == "__main__":
    sys.exit(main())
