"""How long logins take of people who are known, unknown or disabled: whether the time tells.

python -m tests.security.timing --rounds 500      # exits with 1 if the medians differ by 5 %
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from tests.conformance.process import Process
from tests.conformance.wire import Wire, new_phone
from tests.model.record import record

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


def apart(medians: dict[str, float]) -> float:
    """Give how far the slowest median lies above the fastest."""
    return max(medians.values()) / min(medians.values()) - 1


def main() -> int:
    """Measure, then once more without the option, print, and tell whether the times are alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--cost", type=int, default=10)
    chosen = parser.parse_args()
    hidden = asyncio.run(measure(chosen.rounds, chosen.cost, hidden=True))
    shown = asyncio.run(measure(max(chosen.rounds // 20, 5), chosen.cost, hidden=False))
    figures: dict[str, str | int | float] = {"logins of each kind": chosen.rounds}
    for kind, median in hidden.items():
        figures[f"{kind}: median"] = f"{median * 1000:.2f} ms"
    figures["medians apart"] = f"{apart(hidden):.2%}"
    violations = [f"the medians are {apart(hidden):.1%} apart"] if apart(hidden) > ROOM else []
    told = apart(shown) > ROOM
    control = f"{'caught' if told else 'NOT caught'}: {apart(shown):.0%} apart"
    record("timing", figures, violations, {"hide_unknown_users = false": control})
    for name, value in {**figures, "without the option": control}.items():
        print(f"{name:22} {value}")
    return 1 if violations or not told else 0


if __name__ == "__main__":
    sys.exit(main())
