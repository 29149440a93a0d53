"""Uploads and downloads of the client, against a scripted server and a real one."""

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pushd.client import Client, CommandError, Disconnected, TransferError, info_of
from pushd.link import Frame as Reply
from pushd.transfer import MAX_FILE, MAX_TRIES, PART
from tests.conformance.process import Process
from tests.conformance.wire import PASSWORD, new_phone
from tests.fake_server import FakeServer, Frame, VirtualTime

PATH = "media/ab/abcd.png"


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Storage(FakeServer):
    """A server that keeps one upload, and has one file."""

    def __init__(self, content: bytes = b"", piece: int = 1000) -> None:
        super().__init__()
        self.saved = bytearray()  # what came in parts
        self.told: Frame = {"size": len(content), "md5": md5(content), "mime": "image/png"}
        self.content = content
        self.piece = piece
        self.answer("save_file", {"path": PATH})
        self.answer("save_part", self._save)
        self.answer("get_file", self._read)

    def _save(self, frame: Frame) -> Frame:
        data, offset = base64.b64decode(frame["content"]), frame["offset"]
        self.saved[offset : offset + len(data)] = data
        if frame.get("done"):
            return {"result": {"path": PATH}}
        return {"result": {"upload": "u1", "offset": offset + len(data)}}

    def _read(self, frame: Frame) -> Frame:
        piece = self.content[frame["offset"] :][: self.piece]
        return {"result": {"content": base64.b64encode(piece).decode(), **self.told}}


@contextlib.asynccontextmanager
async def connected(server: Storage, **options: Any) -> AsyncIterator[Client]:
    """Give a client of a server; its waiting takes no time."""
    time = VirtualTime()
    settings: dict[str, Any] = {"push_id": "known", "clock": time.clock, "sleep": time.sleep}
    async with server, Client.connect("127.0.0.1", server.port, **(settings | options)) as client:
        yield client


async def test_small_file_goes_at_once(tmp_path: Path) -> None:
    """A file of up to 700 KiB is one `save_file` with its md5, and its local name as a label."""
    file = tmp_path / "cake.png"
    data = os.urandom(PART)
    file.write_bytes(data)
    server = Storage()
    async with connected(server) as client:
        assert await client.upload(file) == PATH
    [frame] = server.frames("save_file")
    assert base64.b64decode(frame["content"]) == data
    assert (frame["md5"], frame["name"]) == (md5(data), "cake.png")
    assert frame["purpose"] == "message"


async def test_content_name_and_purpose() -> None:
    """Bytes need no file; name and purpose are passed on."""
    server = Storage()
    async with connected(server) as client:
        await client.upload(b"x", name="me.png", purpose="avatar")
    [frame] = server.frames("save_file")
    assert (frame["name"], frame["purpose"]) == ("me.png", "avatar")


async def test_large_file_goes_in_parts() -> None:
    """A larger file goes in parts; the last one has the md5 of all and the name."""
    data = os.urandom(2 * PART + 1)
    server = Storage()
    async with connected(server) as client:
        assert await client.upload(data, name="film") == PATH
    assert server.saved == data
    first, second, last = server.frames("save_part")
    assert "upload" not in first
    assert second["upload"] == last["upload"] == "u1"
    assert [each["offset"] for each in (first, second, last)] == [0, PART, 2 * PART]
    assert "done" not in second
    assert (last["done"], last["md5"], last["name"]) == (True, md5(data), "film")


async def test_upload_goes_on_over_a_break() -> None:
    """A part whose answer got lost is sent again as it was, and the upload goes on."""
    data = os.urandom(2 * PART + 1)
    server = Storage()
    save = server.results["save_part"]

    def lose_the_second(frame: Frame) -> Frame:
        if len(server.frames("save_part")) == 2:
            server.cut()
        answer: Frame = save(frame)
        return answer

    server.answer("save_part", lose_the_second)
    async with connected(server) as client:
        assert await client.upload(data) == PATH
    assert server.saved == data
    assert [each["offset"] for each in server.frames("save_part")] == [0, PART, PART, 2 * PART]


async def test_upload_outlives_a_restart() -> None:
    """A server that says that it restarts is asked again."""
    server = Storage()
    server.refuse("save_file", 5030, "restarting", retryAfter=3)
    async with connected(server) as client:
        assert await client.upload(b"x") == PATH
    assert len(server.frames("save_file")) == 2


async def test_upload_gives_up() -> None:
    """Ten breaks in a row without an answer raise Disconnected."""
    server = Storage()

    def cut(_: Frame) -> Frame:
        server.cut()
        return {}

    server.answer("save_file", cut)
    async with connected(server) as client:
        with pytest.raises(Disconnected):
            await client.upload(b"x")
    assert len(server.frames("save_file")) == MAX_TRIES


async def test_upload_refused() -> None:
    """A refusal raises at once."""
    server = Storage()
    server.refuse("save_part", 4006, "too many files")
    async with connected(server) as client:
        with pytest.raises(CommandError, match="4006"):
            await client.upload(bytes(PART + 1))
    assert len(server.frames("save_part")) == 1


async def test_lost_upload() -> None:
    """A server that has lost a part ends the upload, for nobody knows what it has."""
    server = Storage()
    server.answer("save_part", {"upload": "u1", "offset": 7})
    async with connected(server) as client:
        with pytest.raises(TransferError, match="lost a part"):
            await client.upload(bytes(2 * PART + 1))


@pytest.mark.parametrize(
    ("size", "purpose", "problem"),
    [
        (0, "message", "it is empty"),
        (MAX_FILE + 1, "message", "it has 16777217 bytes, and 16777216 are allowed"),
        (PART + 1, "avatar", "it has 716801 bytes, and 716800 are allowed"),
    ],
)
async def test_size_is_checked_first(size: int, purpose: str, problem: str) -> None:
    """What is empty or too large is not sent at all."""
    server = Storage()
    async with connected(server) as client:
        with pytest.raises(TransferError, match=problem):
            await client.upload(bytes(size), name="it", purpose=purpose)
    assert [kind for kind, _ in server.received] == ["restart", "quit"]


async def test_only_regular_files(tmp_path: Path) -> None:
    """A folder or a pipe is refused without waiting for anybody; what is missing is an OSError."""
    os.mkfifo(tmp_path / "pipe")
    async with connected(Storage()) as client:
        with pytest.raises(TransferError, match="is a folder"):
            await client.upload(tmp_path)
        with pytest.raises(TransferError, match="pipe is no regular file"):
            await client.upload(tmp_path / "pipe")
        with pytest.raises(FileNotFoundError):
            await client.upload(tmp_path / "nothing")


async def test_local_name_need_not_be_text(tmp_path: Path) -> None:
    """A local name that is no UTF-8, or too long, becomes a label all the same."""
    file = tmp_path / os.fsdecode(b"caf\xe9")
    file.write_bytes(b"x")
    server = Storage()
    async with connected(server) as client:
        await client.upload(file)
        await client.upload(b"x", name="n" * 300)
    assert [each["name"] for each in server.frames("save_file")] == ["caf\ufffd", "n" * 255]


async def test_download_in_pieces() -> None:
    """A file is read piece by piece from where the last one ended."""
    content = os.urandom(2500)
    server = Storage(content)
    async with connected(server) as client:
        assert await client.download(PATH) == content
    assert [(each["path"], each["offset"]) for each in server.frames("get_file")] == [
        (PATH, 0),
        (PATH, 1000),
        (PATH, 2000),
    ]


async def test_download_goes_on_over_a_break() -> None:
    """A piece that got lost is asked for again."""
    content = os.urandom(2500)
    server = Storage(content)
    read = server.results["get_file"]

    def lose_the_second(frame: Frame) -> Frame:
        if len(server.frames("get_file")) == 2:
            server.cut()
        answer: Frame = read(frame)
        return answer

    server.answer("get_file", lose_the_second)
    async with connected(server) as client:
        assert await client.download(PATH) == content
    assert len(server.frames("get_file")) == 4


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"md5": md5(b"other")}, "its md5 is another one"),
        ({"size": MAX_FILE + 1}, "are allowed"),
        ({"size": 6}, "no part of the file"),
        ({"size": 4}, "no part of the file"),
        ({"size": "5"}, "no part of the file"),
        ({"content": "*"}, "no part of the file"),
        ({"content": None}, "no part of the file"),
    ],
)
async def test_download_of_something_else(told: Frame, problem: str) -> None:
    """What is not the file that was told of is an error, and never a content."""
    server = Storage(b"12345")
    server.told |= told
    async with connected(server) as client:
        with pytest.raises(TransferError, match=problem):
            await client.download(PATH)


@pytest.mark.parametrize(
    ("path", "category"),
    [("media/ab/x.png", "1"), ("media/ab/x.amr", "2"), ("media/ab/x", "3"), ("png", "3")],
)
def test_category(path: str, category: str) -> None:
    """The ending of the server's path says what a file is."""
    assert (info_of(path).category, info_of(path).content) == (category, path)


class Killing(Client):
    """A client whose server is killed while its third part is on the way."""

    own: Process
    parts = 0

    async def _call(self, cmd: str, fields: dict[str, Any]) -> Reply:
        self.parts += cmd == "save_part"
        if cmd != "save_part" or self.parts != 3:
            return await super()._call(cmd, fields)
        call = asyncio.create_task(super()._call(cmd, fields))
        for _ in range(5):
            await asyncio.sleep(0)  # The part leaves; whether it was saved or not, both must do.
        self.own.restart()
        self.port = self.own.address[1]
        return await call


@pytest.mark.slow
async def test_real_server_killed_in_an_upload(tmp_path: Path) -> None:
    """An upload goes on where it was when the server is killed and started again."""
    own = Process(tmp_path)
    own.start()
    data = b"\x89PNG\r\n\x1a\n" + os.urandom(4 * PART)
    try:
        async with Killing.connect(*own.address) as client:
            client.own = own
            await client.register(new_phone(), PASSWORD)
            await client.start()
            path = await client.upload(data, name="large.png")
            assert info_of(path).category == "1"
            assert await client.download(path) == data
            assert client.parts == 6
    finally:
        own.kill()


@pytest.mark.slow
async def test_real_server_and_its_limits(tmp_path: Path) -> None:
    """16 MiB are taken; a byte more is the server's refusal where the caller allows it."""
    own = Process(tmp_path)
    own.start()
    data = os.urandom(MAX_FILE)
    try:
        async with Client.connect(*own.address) as client:
            await client.register(new_phone(), PASSWORD)
            assert await client.download(await client.upload(data)) == data
            with pytest.raises(CommandError, match="8005 a file has at most 16777216 bytes"):
                await client.upload(data + b"x", most=MAX_FILE + 1)
            with pytest.raises(CommandError, match="4005"):
                await client.download("media/../../etc/passwd")
    finally:
        own.kill()
