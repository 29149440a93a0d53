"""Messages that a client sends: drafts, how they are cut into frames, and what they got.

A draft gets its `clientId` when it is encoded, so that whatever repeats the frame repeats the
id. It must not know of connections.
"""

import uuid
from collections.abc import Iterable, Iterator

import msgspec

from .errors import LineTooLong
from .inbox import Info

# Limits of the contract
MAX_LINE = 1024 * 1024
MAX_LIST = 100
# What stands around the messages of a frame.
FRAME_ROOM = 256

_encode = msgspec.json.Encoder().encode


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be sent; `text`, if any, goes before `infos`.

    Without a `client_id` each sending is a message of its own.
    """

    user_id: str = ""
    text: str = ""
    client_id: str = ""
    chat_id: str = ""
    type: str = "1"
    infos: tuple[Info, ...] = ()
    reply_to: str = ""
    mentions: tuple[str, ...] = ()
    expire: int = 0

    def __repr__(self) -> str:
        return f"Draft(user_id={self.user_id!r}, client_id={self.client_id!r})"


class _Wire(msgspec.Struct, rename="camel", omit_defaults=True):
    """A draft as the contract has it."""

    type: str
    info: list[Info]
    client_id: str
    to_id: str = ""
    chat_id: str = ""
    reply_to: str = ""
    mentions: tuple[str, ...] = ()
    expire: int = 0


class _Receipt(msgspec.Struct, rename="camel"):
    """What a confirmed message got."""

    msg_id: str


_decode_receipts = msgspec.json.Decoder(list[_Receipt]).decode


def encode_draft(draft: Draft) -> bytes:
    """Encode one draft; raises LineTooLong if no frame could hold it."""
    text = [Info("0", draft.text)] if draft.text else []
    body = _encode(
        _Wire(
            type=draft.type,
            info=[*text, *draft.infos],
            client_id=draft.client_id or str(uuid.uuid4()),
            to_id=draft.user_id,
            chat_id=draft.chat_id,
            reply_to=draft.reply_to,
            mentions=draft.mentions,
            expire=draft.expire,
        )
    )
    if len(body) > MAX_LINE - FRAME_ROOM:
        raise LineTooLong(MAX_LINE)
    return body


def cut_into_frames(drafts: Iterable[Draft]) -> Iterator[list[bytes]]:
    """Yield encoded drafts in lists that one frame can hold, in order."""
    frame: list[bytes] = []
    size = 0
    for draft in drafts:
        body = encode_draft(draft)
        size += len(body) + 1
        if frame and (len(frame) == MAX_LIST or size > MAX_LINE - FRAME_ROOM):
            yield frame
            frame, size = [], len(body) + 1
        frame.append(body)
    if frame:
        yield frame


def decode_ids(result: bytes | msgspec.Raw) -> list[str]:
    """Give the msgIds in the `result` of a confirmed frame, in order."""
    return [receipt.msg_id for receipt in _decode_receipts(result)]
