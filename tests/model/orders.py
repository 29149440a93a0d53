"""Orders that hold over a whole log, and what stands in it without a cause."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping

from tests.model.entries import RECALLED
from tests.model.memory import Device, Fact, Message, chat_of


def falling(facts: Mapping[int, Fact], device: Device) -> Iterator[str]:
    """Find where msgIds do not rise within a chat of a device."""
    newest: dict[str, int] = {}
    for seq in sorted(device.seqs.keys() - device.gaps.keys()):
        number = device.seqs[seq]
        chat = chat_of(facts[number], device.user)
        if newest.get(chat, 0) >= number:
            yield f"{number} behind {newest[chat]}"
        newest[chat] = number


def out_of_order(messages: Iterable[tuple[tuple[str, str], Message]]) -> Iterator[str]:
    """Find messages of one sender to one chat that were stored in another order than sent."""
    listed = list(messages)
    newest: dict[tuple[str, str], int] = {}
    # Who never heard of it may have been refused too, where there are refusals.
    doubt = any(message.refused for _, message in listed)
    for key, message in listed:
        # One that was refused at first has its place where it was accepted, and one that
        # several devices sent where the first of them came.
        late = message.refused or (doubt and message.unknown)
        if not message.msg_id or late or len(set(message.devices)) > 1:
            continue
        way = (message.devices[0], message.fact[1])
        if message.msg_id <= newest.get(way, 0):
            yield f"{key} is {message.msg_id}, behind {newest[way]}"
        newest[way] = message.msg_id


def made_up(
    facts: Mapping[int, Fact], owners: Container[int], messages: Iterable[Message]
) -> Iterator[str]:
    """Match what arrived unconfirmed with what was sent and never answered."""
    lost = [one for one in messages if one.unknown and not one.msg_id]
    unanswered = Counter(message.fact for message in lost)
    for number, fact in facts.items():
        if number in owners or fact[3] is not None or fact[2] == RECALLED:
            continue
        if not unanswered[fact]:
            yield f"{number} arrived, but nobody sent {fact} or it was refused"
        unanswered[fact] -= 1
