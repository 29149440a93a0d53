"""W1 to W6 as a peer can do them; the names of the figures are those of `bench.report`."""

import asyncio
from collections.abc import Callable, Coroutine

from ..flow import Pairs, finish, percentile, send_at_rate, send_for
from ..load import LoadFailed, now
from ..workloads import GROUP, IDLE, PAIRS, RATE, SETTLE, WAITING, WARM, Figures, Meter
from .peer import Peer
from .servers import PeerServer

# Users: pairs first, then those of W4, then members and idle ones
AWAY, MEMBERS = 2 * PAIRS, 1000
USERS = range(MEMBERS + IDLE)
AT_ONCE = 10
GROUP_MESSAGES, GROUP_AHEAD = 200, 4  # in W5
LOGINS = 500  # in W6


async def _pairs(peer: Peer) -> Pairs:
    made = []
    for number in range(PAIRS):
        receiver = await peer.receiver(2 * number + 1)
        made.append((await peer.sender(2 * number, 2 * number + 1), receiver))
    return made


async def _close(pairs: Pairs) -> None:
    for pair in pairs:
        for connection in pair:
            connection.close()
    await asyncio.sleep(0.5)


async def throughput(peer: Peer, server: PeerServer, secs: float) -> Figures:
    """Send as much as the windows allow."""
    pairs = await _pairs(peer)
    meter = Meter(server)
    await send_for(secs, pairs)
    count = sum(sender.total for sender, _ in pairs)
    figures = {"messages_s": count / meter.seconds, **meter.costs(count)}
    await _close(pairs)
    return figures


async def latency(peer: Peer, server: PeerServer, secs: float) -> Figures:
    """Send at a fixed rate, whatever comes back."""
    pairs = await _pairs(peer)
    meter = Meter(server)
    late = await send_at_rate(pairs, RATE, secs)
    await finish(pairs)
    received = sorted(delay for _, receiver in pairs for delay in receiver.delays)
    figures = {
        "p50_ms": percentile(received, 0.5),
        "p99_ms": percentile(received, 0.99),
        "late_ms": late * 1000,
        **meter.costs(len(received)),
    }
    await _close(pairs)
    return figures


async def idle(peer: Peer, server: PeerServer, secs: float) -> Figures:
    """Hold connections that do nothing."""
    users = range(MEMBERS, MEMBERS + IDLE)
    warm = [await peer.idle(user) for user in users[:WARM]]
    for connection in warm:
        connection.close()
    await asyncio.sleep(SETTLE)
    before = server.memory()
    held = [await peer.idle(user) for user in users]
    await asyncio.sleep(SETTLE)
    after = server.memory()
    if not all(connection.usable for connection in held):
        raise LoadFailed("the peer did not keep all connections")
    for connection in held:
        connection.close()
    await asyncio.sleep(SETTLE)
    return {"kib_each": (after - before) / len(held), "base_mib": before / 1024}


async def replay(peer: Peer, server: PeerServer, secs: float) -> Figures:
    """Come back to what waited."""
    away = await peer.receiver(AWAY)
    await peer.leave(away)
    sender = await peer.sender(AWAY + 1, AWAY)
    filling = now()
    sender.go(WAITING)
    await sender.reach(WAITING)
    filled = WAITING / (now() - filling)
    await asyncio.sleep(SETTLE)
    begin = now()
    back = await peer.receiver(AWAY)
    await back.reach(WAITING)
    seconds = now() - begin
    await asyncio.sleep(0.5)
    back.close()
    sender.close()
    return {"seconds": seconds, "messages_s": WAITING / seconds, "filling_s": filled}


async def fan_out(peer: Peer, server: PeerServer, secs: float) -> Figures:
    """Write to a group whose members are all online."""
    writer, data, members = await peer.group(MEMBERS - 1, range(MEMBERS, MEMBERS + GROUP))
    meter = Meter(server)
    for number in range(1, GROUP_MESSAGES + 1):
        writer.write(data)
        behind = number - GROUP_AHEAD
        if behind > 0:
            await asyncio.gather(*(member.reach(behind) for member in members))
    await asyncio.gather(*(member.reach(GROUP_MESSAGES) for member in members))
    count = GROUP_MESSAGES * len(members)
    figures = {"deliveries_s": count / meter.seconds, **meter.costs(count)}
    for connection in (writer, *members):
        connection.close()
    await asyncio.sleep(1.0)
    return figures


async def connections(peer: Peer, server: PeerServer, secs: float) -> Figures:
    """Connect, log in, be ready, and go, a few at a time."""
    users = iter(range(MEMBERS, MEMBERS + LOGINS))

    async def one_by_one() -> None:
        for user in users:
            (await peer.idle(user)).close()

    meter = Meter(server)
    await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))
    return {"restarts_s": LOGINS / meter.seconds, **meter.costs(LOGINS)}


Run = Callable[[Peer, PeerServer, float], Coroutine[None, None, Figures]]

WORKLOADS: dict[str, Run] = {
    "W1": throughput,
    "W2": latency,
    "W3": idle,
    "W4": replay,
    "W5": fan_out,
    "W6": connections,
}
