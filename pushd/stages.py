"""The ways down, each in stages; a peer that hangs is cut when its time is up.

Shutting down: no new work (5030 to what is not handed in yet), then what was handed in is
committed and answered and outboxes are written as far as peers take them, then every connection
gets its last frame.

Lame duck: the same, but one connection after the other over a longer time, in a random order, so
that the clients of a server that is taken away do not all knock at the next one at once.
"""

import math
import random
from collections.abc import Callable

import structlog

from .clock import Clock
from .service import Peer, Service

log = structlog.get_logger("pushd.stages")

# Seconds of a shutdown that stay for the last frames.
LAST_FRAMES = 2.0
# Seconds between two looks at who may go, and for one to take what it is owed.
STEP = 0.1
OWED = 5.0


async def shut_down(service: Service, clock: Clock, seconds: float) -> None:
    """Let what was read be answered, then say goodbye; takes `seconds` at most."""
    log.info("stopping", connections=len(service.connections))
    deadline = clock.now() + seconds
    service.refuse_new_work()
    await _until(lambda: service.finished, clock, deadline - LAST_FRAMES)
    service.shut_down()
    await _until(lambda: not service.connections, clock, deadline)


async def lame_duck(service: Service, clock: Clock, seconds: float) -> None:
    """Send everybody away within `seconds`, evenly and in a random order."""
    service.lame = True
    peers = [peer for peer in service.connections if not peer.session.operator]
    random.shuffle(peers)
    log.info("lame duck: clients are sent away", connections=len(peers), seconds=seconds)
    begin, total = clock.now(), len(peers)
    leaving: list[tuple[float, Peer]] = []
    while peers or leaving:
        now = clock.now()
        share = min((now - begin + STEP) / seconds, 1.0) if seconds else 1.0
        gone = total - len(peers)
        for _ in range(math.ceil(total * share) - gone):
            peer = peers.pop()
            peer.refuse_new_work()
            leaving.append((now + OWED, peer))
        leaving = [entry for entry in leaving if not _sent_away(entry, now)]
        await clock.sleep(STEP)


def _sent_away(entry: tuple[float, Peer], now: float) -> bool:
    """Give a peer its last frame once it has what it is owed, or has had its time."""
    until, peer = entry
    if not peer.finished and now < until:
        return False
    peer.shut_down()
    return True


async def _until(condition: Callable[[], bool], clock: Clock, deadline: float) -> None:
    while not condition() and clock.now() < deadline:
        await clock.sleep(0.01)
