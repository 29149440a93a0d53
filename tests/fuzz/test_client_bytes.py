"""A server may say anything: the client raises what is declared, hangs nowhere, leaves nothing."""

import asyncio
import gc
import json
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushd.client import Client
from pushd.errors import PushdError
from pushd.inbox import Message
from pushd.link import Frame as Said
from tests.fuzz import values
from tests.fuzz.examples import examples, tried

Frame = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PATIENCE = 10.0
SILENCE = 0.02  # seconds after which a server that said nothing hangs up
# Stands in a frame for the id of the line that is answered.
ECHO = "<the id>"

FIELDS = dict.fromkeys(("result", "event", "failed", "field", "next"), values.anything)
FIELDS["status"] = st.sampled_from([1, 0, 4003, 4290, 5030, 11000, 11001, 5000]) | values.scalars
FIELDS["id"] = st.just(ECHO) | st.just(ECHO) | values.scalars
FIELDS["cmd"] = st.sampled_from(["login", "ping", None]) | values.scalars
for name in ("pushId", "userId", "retryAfter", "heartbeat", "epoch"):
    FIELDS[name] = values.scalars

INFO = st.fixed_dictionaries({"category": values.scalars, "content": values.scalars})
MESSAGE = st.fixed_dictionaries(
    {"msgId": st.sampled_from(["1", "2", ""]) | values.scalars, "seq": values.scalars},
    optional={
        name: values.anything | st.lists(INFO, max_size=2)
        for name in ("chatId", "fromId", "info", "event", "mentions", "recalled", "time")
    },
)
SOUND_MESSAGE = st.builds(
    lambda seq, text: {"msgId": str(seq), "seq": seq, "info": [{"category": "0", "content": text}]},
    st.integers(-1, 2**53),
    values.texts,
)
RESULTS = st.sampled_from(
    [
        {"user": {"id": "10001"}},
        [{"msgId": "1", "chatId": "c"}],
        {"content": "aGVsbG8=", "size": 5, "md5": "5d41402abc4b2a76b9719d911017c592"},
        {"content": "!", "size": 10**30, "md5": ""},
        {"path": "media/x"},
        {"text": "x"},
    ]
)
BODY = (
    st.sampled_from(["ok", "", "refused", "restarting"])
    | st.lists(SOUND_MESSAGE | MESSAGE, max_size=3)
    | st.fixed_dictionaries({"fromId": values.scalars, "msgId": values.scalars})
    | values.anything
)
SOUND = st.fixed_dictionaries(
    {"status": st.just(1), "id": st.just(ECHO), "message": st.just("ok"), "result": RESULTS},
    optional={"pushId": st.just("p1"), "epoch": st.sampled_from("ab"), "heartbeat": st.just(30)},
)
ODD = st.fixed_dictionaries({"message": BODY}, optional=FIELDS)
EVENTS = st.sampled_from(["replaced", "signed_out", "shutdown", "presence", "typing", "zzz"])
EVENT = st.fixed_dictionaries(
    {"message": st.just("x"), "event": st.fixed_dictionaries({"name": EVENTS | values.scalars})},
    optional={"status": FIELDS["status"], "retryAfter": values.scalars},
)
RAW = st.binary(max_size=40) | st.sampled_from(
    [
        b"[" * 5000,
        b"\xff\n",
        b'{"message":"ok","result":1e999}\n',
        b'{"id":1,"message":"ok","result":{"user":1e999}}\n',
        b'{"message":"ok","result":[{"msgId":"\\ud800"}]}\n',
        b'{"message":"","event":{"name":1e999}}\n',
        b"\n\n\r\n",
    ]
)
ACT = st.lists(SOUND | SOUND | ODD | EVENT | RAW, min_size=0, max_size=3)


class Hostile(asyncio.Protocol):
    """Answers each line with what was drawn, and hangs up when nothing is left."""

    def __init__(self, acts: list[list[Frame | bytes]]) -> None:
        self._acts = acts
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            act = self._acts.pop(0) if self._acts else []
            for said in act:
                self._transport.write(said if isinstance(said, bytes) else frame(said, asked))
            if not act:
                asyncio.get_running_loop().call_later(SILENCE, self._transport.abort)


def frame(said: Frame, asked: Frame) -> bytes:
    """Encode a frame, with the id of what was asked where it is wanted."""
    made = {**said, "id": asked.get("id")} if said.get("id") == ECHO else said
    return json.dumps(made).encode() + b"\n"


async def nap(_seconds: float) -> None:
    """Let no time pass."""
    await asyncio.sleep(0.001)


async def declared(work: Awaitable[object]) -> None:
    """Do something that may fail as it is documented."""
    try:
        await work
    except (PushdError, OSError):
        return


async def read(client: Client) -> None:
    """Read a few messages, as an application does."""
    count = 0
    async for message in client.messages():
        assert isinstance(message, Message)
        assert isinstance(message.text, str)
        count += 1
        if count == 5:
            break


async def leaf(client: Client) -> None:
    """Turn some pages."""
    count = 0
    async for _ in client.pages("friends"):
        count += 1
        if count == 5:
            break


async def meet(acts: list[list[Frame | bytes]], *, reconnect: bool) -> list[str]:
    """Let a client and a hostile server meet; give what went wrong that nobody saw."""
    loop = asyncio.get_running_loop()
    unseen: list[str] = []
    loop.set_exception_handler(
        lambda _, context: unseen.append(f"{context['message']}: {context.get('exception')!r}")
    )
    server = await loop.create_server(lambda: Hostile(acts), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server, asyncio.timeout(PATIENCE):
        client = Client(host, port, reconnect=reconnect, sleep=nap, accept=["ack", "presence"])
        await client.open()
        calls = (
            client.login("13800000001", "Zebra-7731", start=True),
            read(client),
            client.send("10002", "x"),
            client.command("friends"),
            client.history("c"),
            client.ping("x"),
            client.add_friend("10002"),
            client.download("media/x"),
            client.upload(b"x", name="x"),
            leaf(client),
        )
        tasks = [asyncio.create_task(declared(call)) for call in calls]
        await asyncio.wait(tasks, timeout=SILENCE * 20)
        await client.close()
        await asyncio.gather(*tasks)
        await declared(client.ping())
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    unseen += [f"left behind: {task}" for task in left]
    del tasks, client
    gc.collect()
    return unseen


@examples(25)
@given(acts=st.lists(ACT, max_size=8), reconnect=st.booleans())
def test_property_hostile_server(acts: list[list[Frame | bytes]], reconnect: bool) -> None:
    """Whatever is said: no hang, no task left, nothing raised but what is declared."""
    tried("a hostile server against the client")
    with asyncio.Runner() as runner:
        assert runner.run(meet(list(acts), reconnect=reconnect)) == []


@pytest.mark.parametrize(
    "said",
    [
        b'{"message":"ok","result":1e999}\n',
        b'{"message":"ok","result":{"user":1e999}}\n',
        # Nested too deeply, where the client reads it and where it only passes it over.
        b'{"message":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        b'{"message":"ok","x":' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        b'{"message":"ok","result":[{"msgId":7}]}\n',
        b'{"message":"ok","result":"\xff"}\n',
        b'{"message":"ok","result":{"content":"\xc3\xa9","size":1,"md5":""}}\n',
        b'{"message":"ok","heartbeat":-5}\n',
    ],
)
def test_answers_that_make_no_sense(said: bytes) -> None:
    """They end the call that they answer, and neither the client nor its other calls."""
    with asyncio.Runner() as runner:
        assert runner.run(meet([[said]] * 12, reconnect=False)) == []


def test_frames_hide_their_content() -> None:
    """What is shown of a frame in an error is no content."""
    assert "secret" not in repr(Said(message="secret", push_id="secret"))
