"""Which line holds the loop longest: `python -m tests.fuzz.heavy`.

Lines as long as the limits allow, of somebody who is logged in: full of arrays, keys, numbers, bad
messages, in fields that are known and in others. Each goes through the whole server of `core.py`;
what it takes from its last byte to the answer is the upper bound of how long everybody else waits.
The best of some tries counts, for others share the machine.
"""

import argparse
import sys
import time
from collections.abc import Iterator

from pushd import config
from tests.model.record import conclude

from . import targets
from .core import World

SIZE = config.Limits().line
MOST = config.Limits().messages_per_frame
# Milliseconds that one line may hold up everybody else.
ALLOWED = 100.0

# What a line can be full of.
UNITS = {
    "arrays": b"[]",
    "nested arrays": b"[" * 200 + b"]" * 200,
    "objects": b"{}",
    "integers": b"1",
    "fractions": b"1.5",
    "texts": b'"1"',
    "parts": b'{"category":"0","content":"x"}',
}
# Where it stands, in a line that is sound otherwise, is bad elsewhere, or has a U+0000 elsewhere.
PLACES = {
    "an unknown field": b'{"message":"","x":[%b]}',
    "an unknown field, with a bad one": b'{"message":7,"x":[%b]}',
    "an unknown field, with U+0000": b'{"message":"\\u0000","x":[%b]}',
    "an unknown field behind a huge number": b'{"message":"","id":1e999,"x":[%b]}',
    "id": b'{"message":"","id":[%b]}',
    "message": b'{"message":[%b]}',
    "accept": b'{"message":"start","accept":[%b]}',
    "accept, with U+0000": b'{"message":"start","device":"\\u0000","accept":[%b]}',
    "info": b'{"message":[{"toId":"10002","type":"1","info":[%b]}]}',
    "mentions": b'{"message":[{"toId":"10002","type":"1","mentions":[%b],"info":[]}]}',
    "mentions, the last one bad": b'{"message":[{"mentions":[%b,{}]}]}',
    "mentions, with U+0000": b'{"message":[{"toId":"\\u0000","mentions":[%b]}]}',
    "userIds": b'{"cmd":"create_group","name":"x","userIds":[%b]}',
    "userIds, the last one bad": b'{"cmd":"create_group","name":"x","userIds":[%b,7.5]}',
    "userIds, with U+0000": b'{"cmd":"create_group","name":"\\u0000","userIds":[%b]}',
    "no field, for it does not end": b'{"cmd":"ping","x":[%b]',
}


def full(place: bytes, unit: bytes, size: int) -> bytes:
    """Fill a place with as many of something as fit into a line."""
    count = (size - len(place)) // (len(unit) + 1)
    return place % b",".join([unit] * count)


def lines(size: int = SIZE) -> Iterator[tuple[str, bytes]]:
    """Give all lines, each with what it is."""
    for where, place in PLACES.items():
        for what, unit in UNITS.items():
            yield f"{what} in {where}", full(place, unit, size)
    keys = b",".join(b'"%x":1' % number for number in range(size // 12))
    yield "keys, with a bad field", b'{"message":7,%b}' % keys
    yield "keys behind a huge number", b'{"id":1e999,%b}' % keys
    yield "one key again and again", full(b'{"message":7,%b}', b'"id":7', size)
    yield "escapes", b'{"cmd":"ping","text":"%b"}' % (b"\\u00e9" * ((size - 30) // 6))
    yield "digits", b'{"cmd":"ping","id":%b}' % (b"9" * (size - 30))
    yield "digits behind the point", b'{"cmd":"ping","id":0.%b}' % (b"9" * (size - 30))
    for name, start in (("bad", b'{"toId":7'), ("sound", b'{"toId":"10002","type":"1"')):
        room = size // MOST - 80
        for what, unit in UNITS.items():
            item = full(start + b',"info":[%b]}', unit, room)
            yield f"{MOST} {name} messages of {what}", many(item)
        mixed = full(start + b',"info":[{},%b]}', b"1", room)
        yield f"{MOST} {name} messages of integers behind an object", many(mixed)


def many(item: bytes) -> bytes:
    """Make a list of as many messages as a frame may hold."""
    return b'{"message":[%b]}' % b",".join([item] * MOST)


def taken(world: World, line: bytes, tries: int) -> float:
    """Give how long a line takes at best, in milliseconds."""
    first = targets.before(world, "a user")
    best = float("inf")
    for _ in range(tries):
        without = time.perf_counter()
        world.exchange([first])
        begin = time.perf_counter()
        world.exchange([first, line + b"\n"])
        best = min(best, time.perf_counter() - begin - (begin - without))
    return 1000 * best


def main() -> int:
    """Try all lines, print the longest ones, and leave the figures for the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.heavy", description=__doc__)
    parser.add_argument("--tries", type=int, default=10)
    options = parser.parse_args()
    with World() as world:
        found = {name: taken(world, line, options.tries) for name, line in lines()}
    ranked = sorted(found.items(), key=lambda pair: -pair[1])
    figures: dict[str, str | int | float] = {"lines of a megabyte": len(found)}
    figures |= {f"ms: {name}": round(spent, 1) for name, spent in ranked[:5]}
    late = [f"{name}: {spent:.0f} ms" for name, spent in ranked if spent > ALLOWED]
    return conclude("heavy", figures, late)


if __name__ == "__main__":
    sys.exit(main())
