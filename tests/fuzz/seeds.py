"""What fuzzing starts from: one sound line for each command and frame, made from the table.

A new command, or a new field of an old one, is in here from the day it is in the table: values
are made from the types of the request, or are ids that the world knows under the field's name.
An input is one byte that says who is at the other end (see `WHO`), then lines.
"""

import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec

from pushd.commands import Command, Needs
from pushd.model import Frame as FrameIn
from pushd.model import InfoIn, MessageIn

Frame = dict[str, Any]

# Who is at the other end, by the first byte of an input.
WHO = {b"n": "nobody", b"u": "a user", b"d": "a device", b"o": "an operator"}

PASSWORD = "Zebra-7731"

# Sound values by the name of a field, where the type alone would give nonsense.
WORDS: Frame = {
    "password": PASSWORD,
    "old": PASSWORD,
    "new": PASSWORD + "x",
    "username": "\u00c4rzte \u4eba",
    "kind": "tag",
    "role": "admin",
    "purpose": "message",
    "content": "aGVsbG8=",
    "name": "ping",
    "text": "x",
    "sex": 1,
    "page": 0,
    "size": 3,
    "user": "10002",
    "level": "info",
}

# Lines that break parsers: deep, odd, twice, not finite, not whole.
ODD = (
    b'{"cmd":"ping","x":' + b"[" * 450 + b"]" * 450 + b"}",
    b'{"message":' + b'{"x":[' * 60 + b"1" + b"]}" * 60 + b"}",
    b'{"cmd":"ping","cmd":"logout"}',
    b'[]\n"x"\nnull\n{}\n7\n{"cmd":["ping"]}\n{"cmd":""}\n{"cmd":null}',
    b'{"cmd":"ping","id":{}}\n{"cmd":"ping","id":1.5}\n{"cmd":"ping","id":"x","text":1}',
    b'{"cmd":"ping","x":NaN}\n{"x":1e999}\n{"x":-Infinity}\n{"id":1e400,"message":""}',
    b'\xef\xbb\xbf{"cmd":"ping"}\r\n\r\n \t\n{"cmd":"ping"}',
    b'{"cmd":"ping","text":"\\ud800"}\n{"cmd":"ping","text":"a\\u0000b"}\n{"cmd":"\\u0000"}',
    b'{"cmd":"ping","text":"\xff\xfe"}\n{"cmd":"ping","text":"\xed\xa0\x80"}',
    b'{"cmd":"friends","page":"after:9223372036854775808"}\n{"cmd":"friends","page":"\xc2\xb2"}',
    b'{"message":[{"toId":"\xc2\xb2","type":"1","info":{"content":"x","category":0}}]}',
    b'{"message":[{"type":1},7,{"toId":5},{"info":[null]}]}\n{"message":[]}\n{"message":[null]}',
    b'{"message":"ok","seq":-1}\n{"message":"ok","seq":9007199254740992}\n{"message":"ok"}',
    b'{"message":"start","accept":["ack",1]}\n{"message":"restart","pushId":7}',
    b'{"cmd":"ping","text":"' + b"x" * 900 + b'"}',
)

# What a message is refused for.
ODD_FIELDS: tuple[Frame, ...] = (
    {"fromId": "10002"},
    {"toId": None},
    {"toId": None, "type": "7"},
    {"type": "8"},
    {"clientId": "x" * 65},
    {"replyTo": "x"},
    {"mentions": ["x"]},
    {"expire": 400_000_000},
    {"info": []},
    {"info": [None, None]},
    {"info": {"category": "4", "content": "x"}},
    {"info": {"category": "1", "content": "x" * 300}},
    {"info": {"category": "0"}},
)


def seeds(table: Mapping[str, Command], known: Mapping[str, Any]) -> Iterator[bytes]:
    """Give the inputs that fuzzing starts from."""
    for row in table.values():
        line = encode({"cmd": row.name, "id": 7, **request(row, known)})
        match row.needs:
            case Needs.OPERATOR:
                yield b"o" + line
            case Needs.SESSION:
                yield b"d" + line
            case _:
                yield b"n" + line
    for frame in frames(known):
        yield b"u" + encode(frame)
        yield b"d" + encode(frame)
    for line in ODD:
        yield b"n" + line + b"\n"
        yield b"d" + line + b"\n"


def request(row: Command, known: Mapping[str, Any]) -> Frame:
    """Give a plausible value for every field of a command."""
    fields = msgspec.structs.fields(row.request)
    return {each.encode_name: value_of(each.encode_name, each.type, known) for each in fields}


def value_of(name: str, kind: Any, known: Mapping[str, Any]) -> Any:
    """Give a sound value of a field: what is known under its name, or anything of its type."""
    if name == "userIds":
        return [known["userId"]]
    if name in known:
        return known[name]
    return WORDS[name] if name in WORDS else plain(kind)


def plain(kind: Any) -> Any:
    """Give a value of a type of msgspec's."""
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return plain(typing.get_args(kind)[0])
    if origin in (types.UnionType, typing.Union):
        return plain(typing.get_args(kind)[0])
    if origin is Literal:
        return typing.get_args(kind)[0]
    if origin in (list, tuple):
        return [plain(typing.get_args(kind)[0])]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return {each.encode_name: plain(each.type) for each in fields}
    made: dict[Any, Any] = {bool: True, int: 1, float: 1.5, str: "x", dict: {}}
    return made.get(kind)


def frames(known: Mapping[str, Any]) -> Iterator[Frame]:
    """Give one message_set of each kind, and one list of each type of message."""
    yield {"status": 1, "pushId": "", "message": "", "id": "x"}
    yield {"message": "start", "heartbeat": 60, "device": "x", "accept": ["ack", "typing"]}
    yield {"message": "restart", "pushId": known["pushId"], "accept": ["presence"]}
    yield {"message": "ok"}
    yield {"message": "ok", "seq": 1}
    yield {"message": {"fromId": known["userId"], "toId": "10001", "content": "ok"}}
    yield {"message": {"chatId": known["chatId"], "info": "ok", "msgId": known["msgId"]}}
    for number in range(8):
        group = {"chatId": known["groupId"]} if number > 2 else {"toId": known["userId"]}
        yield {"id": number, "message": [{**message(number), **group}]}
    parts = [{"category": "0", "content": "x"}, {"category": 3, "content": known["path"]}]
    more = {"replyTo": known["msgId"], "mentions": ["10001"], "expire": 60, "clientId": "c-1"}
    full = {**message(1), **more, "toId": known["userId"], "info": parts}
    yield {"message": [full, {**full, "clientId": "c-2"}]}
    yield {"message": [{}] * 101}
    sound = {**message(1), "toId": known["userId"]}
    yield from ({"message": [{**sound, **odd}]} for odd in ODD_FIELDS)


def message(number: int) -> Frame:
    """Give a message of a type, with every field that messages have."""
    made = {each.encode_name: None for each in msgspec.structs.fields(MessageIn)}
    return {**made, "type": str(number), "info": {"category": 0, "content": "hello"}}


def words(table: Mapping[str, Command], known: Mapping[str, Any]) -> Iterator[bytes]:
    """Give what mutations are made of: the names and ids of the contract, and odd letters."""
    structs = (FrameIn, MessageIn, InfoIn, *{row.request for row in table.values()})
    names = {each.encode_name for one in structs for each in msgspec.structs.fields(one)}
    for word in sorted({*names, *table, *map(str, known.values())}):
        yield json.dumps(word).encode()
    yield from (b"\\u0000", b"\\ud800", b"\\u2028", "\u00b2".encode(), "\u0661".encode(), b"1e999")
    yield from (b"9007199254740992", b"-1", b"true", b"null", b"[[[[", b"{}", b'"after:', b"\r\n")


def dictionary(table: Mapping[str, Command], known: Mapping[str, Any]) -> str:
    """Give the words in the form of libFuzzer."""
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in words(table, known))
    return "".join(f'"{word}"\n' for word in escaped)


def encode(frame: Frame) -> bytes:
    """Encode one line with its end."""
    return json.dumps(frame, ensure_ascii=False).encode() + b"\n"
