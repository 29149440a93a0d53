"""What the writer's thread keeps of accounts and queues, and how a message is written down.

Plain records and functions; the journal owns them and keeps them true.
"""

import hashlib
from collections.abc import Iterable
from zlib import crc32

from ..encoding import encode
from ..model import SYSTEM_CHAT, MessageType


class Queue:
    """Where the queue of one device stands, or the line of an account without a device."""

    __slots__ = (
        "account",
        "acked",
        "acked_at",
        "deleted",
        "device",
        "gap",
        "gap_chats",
        "holes",
        "last",
        "mark_due",
        "message",
        "since",
        "waiting",
    )

    def __init__(
        self,
        device: int,
        account: int,
        waiting: bool,
        since: int,
        position: tuple[int, int, int, int],
    ) -> None:
        self.device = device
        self.account = account
        self.waiting = waiting  # it is the line, not a device
        self.since = since  # the newest msgId when it was created
        # As in the table `position`.
        self.last, self.acked, self.message, self.acked_at = position
        self.mark_due = 0  # when an ack is marked next, in ms
        self.deleted = 0  # rows up to this seq are removed
        self.holes = 0  # seqs above `acked` that have no row of their own
        self.gap = 0  # the seq of the open gap, 0 when there is none
        self.gap_chats: set[int] = set()  # the chats that it names already

    @property
    def depth(self) -> int:
        """How many rows wait."""
        return self.last - self.acked - self.holes


class Mailbox:
    """An account as the writer sees it: whether it may act, and its queues."""

    __slots__ = ("account", "devices", "disabled", "generation", "line")

    def __init__(self, account: int, generation: int, disabled: bool, line: Queue) -> None:
        self.account = account
        self.generation = generation  # logins without a device of another one are revoked
        self.disabled = disabled
        self.devices: dict[int, Queue] = {}
        self.line = line  # where messages wait while there is no device

    @property
    def queues(self) -> Iterable[Queue]:
        """The queues that messages for this account go to."""
        return self.devices.values() or (self.line,)


class Route:
    """What holds between a sender and the one they write to; kept until a verb changes it."""

    __slots__ = ("blocked", "chat", "friends", "head", "key", "open", "to")

    def __init__(
        self, chat: int, sender: int, to: int, friends: bool, blocked: bool, open_: bool
    ) -> None:
        self.chat = chat  # 0 until the pair has a chat
        self.key = pair_key(sender, to)  # the chatId
        self.head = message_head(self.key, sender, to, MessageType.NORMAL)
        self.to = to
        self.friends = friends
        self.blocked = blocked  # the one written to blocks the sender
        self.open = open_  # the sender may write plain messages


def pair_key(one: int, other: int) -> str:
    """Give the chatId of two people: both ids, smaller first."""
    return f"{one}-{other}" if one < other else f"{other}-{one}"


def system_key(account: int) -> str:
    """Give the key of the chat in which the server speaks to one account."""
    return f"{SYSTEM_CHAT}/{account}"


def rest_of(number: int, body: bytes, date: str, ms: int) -> bytes:
    """Encode a message once for all: its JSON without the opening brace and the seq."""
    return b'"msgId":"%d",%b%b' % (number, body, tail_of(date, ms))


def whole(seq: int, number: int, body: bytes, date: str, ms: int) -> bytes:
    """Encode a message for one device in one go: `with_seq` of `rest_of`."""
    form = b'{"seq":%d,"msgId":"%d",%b,"createTime":"%b","time":%d}'
    return form % (seq, number, body, date.encode(), ms)


def tail_of(date: str, ms: int) -> bytes:
    """Give the end of a message that was accepted then."""
    return f',"createTime":"{date}","time":{ms}}}'.encode()


def checksum(number: int, chat: int, created: int, body: bytes) -> int:
    """Give what tells a stored message from one whose bytes have changed."""
    return crc32(body, (number ^ chat ^ created) & 0xFFFFFFFF)


def sound(number: int, chat: int, created: int, body: bytes, sum_: int | None) -> bool:
    """Tell whether a stored body is what was written; rows of earlier versions have no sum."""
    if sum_ is None:
        return bool(body) and is_text(body)
    return sum_ == checksum(number, chat, created, body)


def is_text(body: bytes) -> bool:
    """Tell whether bytes are UTF-8."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def digest(body: str) -> bytes:
    """Give what is kept of a recalled message to know a repeat of it."""
    return hashlib.sha256(body.encode()).digest()


def text_infos(text: str) -> str:
    """Give the infos of a message that is one text."""
    return f'[{{"category":"0","content":{encode(text).decode()}}}]'


def message_body(
    key: str, sender: int, to: int | str, kind: int, infos: str, extra: str = ""
) -> str:
    """Give the members of a message that never change."""
    return f"{message_head(key, sender, to, kind)}{infos}{extra}"


def message_head(key: str, sender: int, to: int | str, kind: int) -> str:
    """Give what stands before the infos of a message."""
    return f'"chatId":"{key}","fromId":"{sender}","toId":"{to}","type":"{kind}","info":'
