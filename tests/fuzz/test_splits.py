"""However the bytes are cut, they mean the same: one world gets them whole, another in pieces."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushd.commands import Needs
from tests.fuzz import seeds, targets
from tests.fuzz.core import PASSWORD, PHONES, World, pieces_of
from tests.fuzz.examples import examples, tried

Frame = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def choices() -> list[bytes]:
    """Give the lines that are mixed: all commands, frames and odd lines, but no acks.

    What an ack of packets acks depends on what was sent before it came.
    """
    with World() as world:
        known, push_id = world.known, world.known["pushId"]
    found = [
        seeds.encode({"cmd": row.name, "id": row.name, **seeds.request(row, known)})
        for row in targets.TABLE.values()
        if row.needs is not Needs.OPERATOR and row.name != "export_account"  # it has a date
    ]
    found += [seeds.encode(each) for each in seeds.frames(known) if each["message"] != "ok"]
    login: Frame = {"cmd": "login", "phone": PHONES[0], "password": PASSWORD}
    wrong = {**login, "password": "wrong-password"}
    for frame in (login, login, wrong, {"message": "restart", "pushId": push_id}):
        found.append(seeds.encode(frame))
    found += [line + b"\n" for line in seeds.ODD if b"ok" not in line]
    return [*found, b"\n", b"\r\n", b"\xef\xbb\xbf", b"{", b"\xf0\x9f", b"\r"]


# Made when they are first drawn: a world is no thing to build while tests are collected.
LINES = st.deferred(lambda: st.sampled_from(choices()))
# Anywhere, every few bytes, or near the ends of lines, where mistakes are.
CUTS = st.lists(st.integers(0, 4000), max_size=30) | st.integers(1, 7).map(
    lambda step: list(range(0, 20_000, step))
)
NEAR = st.lists(st.tuples(st.integers(0, 20), st.integers(-3, 3)), max_size=12)


@examples(40)
@given(parts=st.lists(LINES, min_size=1, max_size=12), cuts=CUTS, near=NEAR)
def test_property_any_split(
    parts: list[bytes], cuts: list[int], near: list[tuple[int, int]]
) -> None:
    """The replies are the same and in the same order, and so is all that is delivered."""
    tried("any split of the bytes gives the same replies")
    data = b"".join(parts)
    whole = outcome([data])
    ends = [index + 1 for index, byte in enumerate(data) if byte == 0x0A] or [0]
    cuts = [*cuts, *(ends[line % len(ends)] + offset for line, offset in near)]
    cut = outcome(pieces_of(data, cuts))
    assert replies(cut) == replies(whole)
    assert delivered(cut) == delivered(whole)


def test_every_split_in_three() -> None:
    """Wherever two cuts are, and one byte at a time, the lines are the same."""
    data = b'\xef\xbb\xbf{"cmd":"ping"}\r\n\n\r\n{"x":"\xe4\xba\xba"}\n{"message":""}\nend'
    whole = targets.taken([data])
    assert whole == [
        b'{"cmd":"ping"}',
        b"",
        b"",
        b'{"x":"\xe4\xba\xba"}',
        b'{"message":""}',
        b"end",
    ]
    for cuts in itertools.combinations(range(1, len(data)), 2):
        assert targets.taken(pieces_of(data, cuts)) == whole, cuts
    assert targets.taken(pieces_of(data, range(len(data)))) == whole


def outcome(pieces: list[bytes]) -> list[Frame]:
    """Give what a new world answers."""
    with World() as world:
        found = world.exchange(pieces)
        world.audit()
    return found


def replies(frames: list[Frame]) -> list[Frame]:
    """Give what answers requests, without the random name of the store."""
    found = [each for each in frames if isinstance(each["message"], str) and "event" not in each]
    return [{name: each[name] for name in each if name != "epoch"} for each in found]


def delivered(frames: list[Frame]) -> list[str]:
    """Give the messages that came, in whatever packets."""
    packets = [each["message"] for each in frames if isinstance(each["message"], list)]
    return [json.dumps(message) for packet in packets for message in packet]
