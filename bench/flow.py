"""How pairs send and how their delays are read, whatever server they talk to."""

import asyncio
import math
from collections.abc import Sequence

from .load import LoadFailed, Receiver, Sender, now

Pairs = Sequence[tuple[Sender, Receiver]]

SENT_MAX = 10_000_000  # messages of one sender in a run, however long it is


async def send_for(secs: float, pairs: Pairs) -> None:
    """Keep the windows full for so long; return when all of it is confirmed, delivered, acked."""
    for sender, _ in pairs:
        sender.go(SENT_MAX)
    await asyncio.sleep(secs)
    for sender, _ in pairs:
        sender.halt()
    await finish(pairs)


async def send_at_rate(pairs: Pairs, rate: int, secs: float) -> float:
    """Send so many messages a second, the pairs in turn; return how late the latest was (s)."""
    begin, sent, late = now(), 0, 0.0
    count = int(rate * secs)
    while sent < count:
        due = min(count, int((now() - begin) * rate) + 1)
        for number in range(sent, due):
            sender, receiver = pairs[number % len(pairs)]
            at = now()
            late = max(late, at - begin - number / rate)
            sender.due.append(at)
            receiver.due.append(at)
            sender.send_lists(1)
        sent = due
        await asyncio.sleep(0.001)
    return late


async def finish(pairs: Pairs) -> None:
    """Return when all that was sent is confirmed, delivered and acked.

    Raises: LoadFailed when more was delivered.
    """
    # One sender may have many receivers.
    senders = {sender for sender, _ in pairs}
    await asyncio.gather(
        *(sender.reach(sender.sent) for sender in senders),
        *(receiver.reach(sender.sent) for sender, receiver in pairs),
    )
    await asyncio.gather(*(receiver.fence() for _, receiver in pairs))
    if any(receiver.total != sender.sent for sender, receiver in pairs):
        raise LoadFailed("messages were delivered more than once")


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the percentile of sorted seconds, in milliseconds."""
    return ordered[math.ceil(len(ordered) * part) - 1] * 1000
