"""Every command with anything in its fields: types are told apart, and nothing of others shows."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushd.commands import Command, Needs
from pushd.handlers.terminal import fields_of
from pushd.model import AckIn, InfoIn, MessageIn
from pushd.model import Frame as FrameIn
from tests.fuzz import seeds, targets, values
from tests.fuzz.core import PHONES, World
from tests.fuzz.examples import examples, tried

Frame = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = [row for row in targets.TABLE.values() if row.needs is not Needs.OPERATOR]
# What only strangers have, and what the ids of their things may not bring to light.
SECRETS = ('"hidden"', "c2VjcmV0", PHONES[3])
LIVES = 300


class Place:
    """A world in which the first person asks; a new one when they have gone."""

    def __init__(self) -> None:
        self.world = World().__enter__()
        self.lives = 0

    def ask(self, lines: list[Frame], *, device: bool = False) -> list[Frame]:
        """Send frames as the first person, and give the answers to them."""
        for _ in range(2):
            self.lives += 1
            first = targets.before(self.world, "a device" if device else "a user")
            data = b"".join(seeds.encode(each) for each in lines)
            found = self.world.exchange([first, data])
            if found[0]["status"] == 1 and self.lives < LIVES:
                break
            self.renew()
        return [each for each in found[1:] if isinstance(each["message"], str)]

    def renew(self) -> None:
        """Make the world anew."""
        self.world.audit()
        self.world.__exit__(None, None, None)
        self.world, self.lives = World().__enter__(), 0


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A world to ask in."""
    found = Place()
    yield found
    found.world.__exit__(None, None, None)


@examples(150)
@given(data=st.data(), row=st.sampled_from(ROWS))
def test_property_any_request(place: Place, data: st.DataObject, row: Command) -> None:
    """A wrong type or U+0000 is 4003 with a field; and others' things never show."""
    tried("any value in any field of any command")
    request = data.draw(values.requests(place.world, row))
    asked = {**request, "cmd": row.name}
    nul = any("\0" in text for text in texts_of(request))
    answer = place.ask([asked])[0]
    if nul or values.wrong_types(row, request):
        # Who is logged in is told so before the fields are looked at.
        assert answer["status"] in (4003, 11000), (asked, answer)
    if answer["status"] == 4003:
        assert re.split(r"[.\[]", answer["field"])[0] in {*request, *fields_of(row)}, answer
    shown = str(answer.get("result"))
    assert not any(each in shown and each not in str(asked) for each in SECRETS), answer


def texts_of(value: object) -> Iterator[str]:
    """Give all texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)


NAMES = [each.encode_name for each in seeds.msgspec.structs.fields(MessageIn)]


@examples(150)
@given(data=st.data(), count=st.integers(1, 3))
def test_property_any_list(place: Place, data: st.DataObject, count: int) -> None:
    """A list is confirmed whole or refused whole, and each bad message is told by its number."""
    tried("any value in any field of any message")
    others = values.ids(place.world)
    odd = others | values.anything | values.texts
    sound = st.just(None)
    fields: dict[str, Any] = dict.fromkeys(NAMES, sound | sound | sound | odd)
    fields["toId"] = st.just(place.world.known["userId"]) | others
    fields["type"] = st.sampled_from([1, "1", "1", 2, 5, "7", 0, "8", True, 1.0]) | values.scalars
    info = st.fixed_dictionaries({"category": st.sampled_from([0, "0", "3"]), "content": odd})
    fields["info"] = info | st.lists(info, max_size=3) | values.anything
    messages = [data.draw(st.fixed_dictionaries(fields)) for _ in range(count)]
    [answer] = place.ask([{"message": messages, "id": 7}], device=data.draw(st.booleans()))
    known = {1, 4003, 4004, 4005, 4006, 4290, 6004, 12000}
    assert answer["status"] in known, (messages, answer)
    if answer["status"] == 1:
        assert len(answer["result"]) == count
        assert answer["message"] == "ok"
    elif "failed" in answer:
        numbers = [each["index"] for each in answer["failed"]]
        assert numbers == sorted(set(numbers))
        assert set(numbers) <= set(range(count))
        assert answer["failed"][0]["status"] == answer["status"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_field(place: Place, row: Command) -> None:
    """Missing, null, empty, of each other type, as long as allowed, and longer: each is told so.

    What the type does not take is 4003 with the field's name; all else is no mistake of its type.
    """
    sound = {"cmd": row.name, **seeds.request(row, place.world.known)}
    for name, what, request in changed(sound, row.request):
        answer = place.ask([request])[0]
        if row.needs is Needs.STRANGER and answer["status"] == 11000:
            continue  # who is logged in is told so before the fields are looked at
        told(answer, what, name, request)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_field_with_what_is_not_theirs(place: Place, row: Command) -> None:
    """Ids of strangers' things, one after the other in each field, show nothing of them."""
    sound = {"cmd": row.name, **seeds.request(row, place.world.known)}
    for each in msgspec.structs.fields(row.request):
        for theirs in place.world.foreign.values():
            for others in (sound, {"cmd": row.name}):
                asked = {**others, each.encode_name: theirs}
                shown = str(place.ask([asked])[0].get("result"))
                assert not any(one in shown and one not in str(asked) for one in SECRETS), asked


def test_every_field_of_a_frame(place: Place) -> None:
    """The same for `start` and its like, for messages, and for their parts."""
    info = {"category": "0", "content": "x"}
    message = {"toId": place.world.known["userId"], "type": "1", "info": info}
    ack = {"fromId": place.world.known["userId"], "toId": "10001", "content": "ok"}
    for name, what, frame in changed(
        {"message": "start", "id": 1}, FrameIn, "cmd", "message", "seq"
    ):
        told(place.ask([frame])[0], what, name, frame)
    for name, what, frame in changed({"message": "ok", "id": 1}, FrameIn, *UNREAD):
        answers = place.ask([{"message": "start"}, frame, {"cmd": "ping"}])
        told(answers[1], what, name, frame)
    for name, what, item in changed(message, MessageIn, "info"):
        told(place.ask([{"message": [item]}])[0], what, f"message[0].{name}", item)
    for name, what, part in changed(info, InfoIn):
        answer = place.ask([{"message": [{**message, "info": [part]}]}])[0]
        told(answer, what, f"message[0].info[0].{name}", part)
    for name, what, item in changed(ack, AckIn):
        # A sound one has no answer of its own.
        answers = place.ask([{"message": item}, {"cmd": "ping"}])
        told(answers[0], what, f"message.{name}", item)


# What is not looked at in an "ok".
UNREAD = ("cmd", "message", "pushId", "heartbeat", "device", "accept")


def changed(
    sound: Frame, kind: type[msgspec.Struct], *but: str
) -> Iterator[tuple[str, str, Frame]]:
    """Give an object with one field after the other of another value, and what that is."""
    for each in msgspec.structs.fields(kind):
        for what, value in () if each.encode_name in but else values.each_of(each.type):
            other = {**sound, each.encode_name: value}
            if value is values.MISSING:
                del other[each.encode_name]
            yield each.encode_name, what, other


def told(answer: Frame, what: str, field: str, asked: Frame) -> None:
    """Require that an answer says what is wrong with a field, or nothing."""
    if what in values.REFUSED:
        assert answer["status"] == 4003, (what, asked, answer)
        assert answer["field"].startswith(field), (what, asked, answer)
    elif what in values.TAKEN and answer["status"] == 4003 and answer["field"] == field:
        assert not answer["message"].startswith("Expected `"), (what, asked, answer)


# One value in the forms that JSON has for it.
FORMS: list[tuple[Any, ...]] = [(1, "1", 1.0, True), (0, "0", 0.0, False, "", None)]


@examples(60)
@given(row=st.sampled_from(ROWS), data=st.data(), forms=st.sampled_from(FORMS))
def test_property_forms(
    place: Place, row: Command, data: st.DataObject, forms: tuple[Any, ...]
) -> None:
    """1, 1.0, "1" and true in one field: 4003 for a type that the table does not name."""
    tried("number and string forms are told apart")
    names = sorted(seeds.request(row, place.world.known))
    if not names or row.needs is Needs.STRANGER:
        return
    name, value = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(forms))
    request = {**seeds.request(row, place.world.known), name: value}
    answer = place.ask([{"cmd": row.name, **request}])[0]
    if values.wrong_types(row, request):
        assert (answer["status"], answer["field"]) == (4003, name), (request, answer)
    elif answer["status"] == 4003 and answer["field"] == name and type(value) is not float:
        # 1.0 may be an integer, and need not.
        assert not answer["message"].startswith("Expected `"), (request, answer)
