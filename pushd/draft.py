"""What a client's message becomes before it is stored: checked and normalised; no I/O.

A draft holds nothing that only the commit can decide (friendship, membership, the chat): those
are checked at one point in commit order. A list is all or nothing, so every message of it is
looked at and every failure is told.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import NoReturn

from .config import Limits
from .encoding import encode
from .errors import BadField, PushdError, Refusal
from .model import MAX_INT, Failed, InfoIn, MessageIn, MessageType
from .names import fold
from .protocol import text_of
from .status import Status

# What a client may send for a type or a category, as a string or as a number.
TYPES: dict[str | int | None, int] = {
    form: number for number in range(8) for form in (number, str(number))
}
CATEGORIES: dict[str | int | None, str] = {
    form: str(number) for number in range(4) for form in (number, str(number))
}
TEXT = ("0", 0)
# Copied for each key, which is cheaper than a new one.
EIGHT_BYTES = blake2b(digest_size=8)
SIGNED = Struct("<q")
# An `expire` beyond ten years is a mistake of the client's.
LONGEST_EXPIRE = 10 * 365 * 86400
# The longest path of a stored file.
LONGEST_PATH = 255
# For these `toId` alone decides.
PAIR_ONLY = (MessageType.NORMAL, MessageType.REQUEST)


class Draft:
    """A client's message, checked and normalised; its chat is resolved when it is committed."""

    # What few messages have stays as the class has it, for a draft is made for each message.
    to: int = 0  # the user it goes to, 0 when toId is none
    chat: tuple[str, ...] = ()  # chatId and toId as they came, where both may name a group
    extra: str = ""  # replyTo, mentions and expire as JSON members, each behind a comma
    client_id: str = ""
    client_key: int = 0  # by which the store finds the clientId, 0 without one
    reply_to: int = 0
    mentions: tuple[int, ...] = ()
    expire: int = 0  # seconds, 0 for never
    paths: tuple[str, ...] = ()  # the stored files it names
    description: str = ""  # the plain text of a request

    def __init__(self, type_: int, infos: str, text: str) -> None:
        self.type = type_
        self.infos = infos  # as JSON
        self.text = text  # its texts as search folds them


def drafts(messages: Sequence[MessageIn], sender: int, limits: Limits) -> list[Draft | Failed]:
    """Check the messages of one frame: a draft for each, or why it is refused.

    The good ones of a refused list go on as well, for the commit to tell what else is wrong.
    Raises BadField for their number.
    """
    if not 1 <= len(messages) <= limits.messages_per_frame:
        raise BadField("message", f"a frame holds 1 to {limits.messages_per_frame} messages")
    made: list[Draft | Failed] = []
    for index, message in enumerate(messages):
        try:
            made.append(draft(message, sender, limits))
        except Refusal as problem:
            made.append(failure(index, problem))
    return made


def failure(index: int, problem: PushdError) -> Failed:
    """Tell why one message of a list is refused, with its field counted from the frame."""
    field = problem.field if isinstance(problem, Refusal) else ""
    if field:
        field = f"message[{index}].{field}"
    return Failed(index, int(problem.status), text_of(problem), field)


def draft(message: MessageIn, sender: int, limits: Limits) -> Draft:
    """Check one message; raises Refusal with the field counted from the message."""
    if message.from_id and message.from_id != str(sender):
        raise Refusal(Status.NOT_ALLOWED, "fromId is empty or your own id", field="fromId")
    kind = TYPES.get(message.type) or _refuse_type(message.type)
    infos = message.info
    if isinstance(infos, list) and len(infos) == 1:
        infos = infos[0]
    if isinstance(infos, InfoIn) and infos.category in TEXT:
        # What nearly all messages are: one text.
        text = infos.content or ""
        if not 0 < len(text) <= limits.text:
            _content(infos, 0, limits.text)
        made = Draft(kind, f'[{{"category":"0","content":{encode(text).decode()}}}]', fold(text))
    else:
        text, made = _many_infos(infos, kind, limits)
    if kind in PAIR_ONLY:
        if not message.to_id:
            raise BadField("toId", "toId is empty")
    elif message.chat_id or message.to_id:
        made.chat = (message.chat_id or "", message.to_id or "")
    else:
        raise Refusal(Status.NOT_FOUND, "chatId and toId are empty", field="chatId")
    made.to = user_number(message.to_id)
    if message.client_id:
        if len(message.client_id) > 64:
            raise BadField("clientId", "a clientId has at most 64 characters")
        made.client_id = message.client_id
        made.client_key = client_key(sender, message.client_id)
    if kind == MessageType.REQUEST:
        made.description = text
    if message.reply_to or message.mentions or message.expire:
        _extras(made, message, limits)
    return made


def notice(infos: list[InfoIn] | InfoIn, expire: int, limits: Limits) -> Draft:
    """Check what the server is to say itself, as a message of a client's is checked."""
    _, made = _many_infos(infos, MessageType.SYSTEM, limits)
    if expire:
        _extras(made, MessageIn(expire=expire), limits)
    return made


def client_key(sender: int, client_id: str) -> int:
    """Give the 64 bits by which the store finds a sender's clientId, never 0; two may share one."""
    made = EIGHT_BYTES.copy()
    made.update(f"{sender} {client_id}".encode())
    return SIGNED.unpack(made.digest())[0] or 1


@lru_cache(maxsize=4096)
def user_number(text: str | None) -> int:
    """Give the number of a user id; 0 for what cannot be one."""
    if text and text.isascii() and text.isdigit() and len(text) <= 16 and text[0] != "0":
        return int(text)
    return 0


def _refuse_type(value: str | int | None) -> NoReturn:
    if TYPES.get(value) == MessageType.SYSTEM:
        raise Refusal(Status.NOT_ALLOWED, "type 0 is the server's", field="type")
    raise BadField("type", "type is 0 to 7")


def _many_infos(
    infos: list[InfoIn] | InfoIn | None, kind: int, limits: Limits
) -> tuple[str, Draft]:
    """Check any number of infos of any category; gives their texts, and the draft begun."""
    listed = infos if isinstance(infos, list) else [infos]
    if not 1 <= len(listed) <= limits.infos_per_message:
        raise BadField("info", f"a message holds 1 to {limits.infos_per_message} infos")
    parts: list[str] = []
    texts: list[str] = []
    paths: list[str] = []
    for index, info in enumerate(listed):
        if info is None:
            raise BadField("info", "a message needs an info")
        category = CATEGORIES.get(info.category)
        if category is None:
            raise BadField(f"info[{index}].category", "category is 0 to 3")
        is_text = category == "0"
        content = _content(info, index, limits.text if is_text else LONGEST_PATH)
        (texts if is_text else paths).append(content)
        parts.append(f'{{"category":"{category}","content":{encode(content).decode()}}}')
    text = "\n".join(texts)
    made = Draft(kind, f"[{','.join(parts)}]", fold(text))
    if paths:
        made.paths = tuple(paths)
    return text, made


def _content(info: InfoIn, index: int, longest: int) -> str:
    content = info.content
    if not content:
        raise BadField(f"info[{index}].content", "content is empty")
    if len(content) > longest:
        raise BadField(f"info[{index}].content", f"content has at most {longest} characters")
    return content


def _extras(made: Draft, message: MessageIn, limits: Limits) -> None:
    if message.reply_to:
        made.reply_to = user_number(message.reply_to)
        if not 0 < made.reply_to <= MAX_INT:
            raise Refusal(Status.NOT_FOUND, "no such message", field="replyTo")
        made.extra += f',"replyTo":"{made.reply_to}"'
    if message.mentions:
        if len(message.mentions) > limits.mentions:
            raise BadField("mentions", f"a message mentions at most {limits.mentions} users")
        made.mentions = tuple(dict.fromkeys(user_number(user) for user in message.mentions))
        if 0 in made.mentions:
            raise Refusal(Status.NULL_USER, field="mentions")
        made.extra += f',"mentions":{encode([str(user) for user in made.mentions]).decode()}'
    if message.expire:
        if message.expire > LONGEST_EXPIRE:
            raise BadField("expire", f"expire is at most {LONGEST_EXPIRE} seconds")
        made.expire = message.expire
        made.extra += f',"expire":{made.expire}'
