"""Files at the terminal: sent to a chat, and fetched under a safe name."""

import asyncio
import base64
import gc
import hashlib
import os
from pathlib import Path

import pytest

from pushd.terminal import chat as chat_module
from pushd.terminal.lines import local_name
from tests.fake_server import Frame, message
from tests.sitting import LOGIN, Keys, Screen, Sitting, people, script, sitting


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(each.name for each in folder.iterdir())


async def test_a_file_is_sent(tmp_path: Path) -> None:
    """/file uploads a file, and sends one message of its kind with the path to the chat."""
    (tmp_path / "my cake.png").write_bytes(b"cake")
    server = people()
    server.answer("save_file", {"path": "media/ab/cake.png"})
    lines = f'/to team\n/file "{tmp_path}/my cake.png"\n/recall\n'
    _, shown = await script(server, LOGIN + lines)
    [sent] = server.stored
    assert (sent["chatId"], sent["type"]) == ("g1", "3")
    assert sent["info"] == [{"category": "1", "content": "media/ab/cake.png"}]
    assert "* sent my cake.png as picture in message 1\n" in shown
    assert server.frames("recall")[0]["msgId"] == "1"


async def test_files_that_cannot_be_sent(tmp_path: Path) -> None:
    """What cannot be read or is not allowed is one line, and no message is sent."""
    (tmp_path / "empty").touch()
    server = people()
    lines = f"/file x\n/to bob\n/file {tmp_path}/no\x1bthing\n/file {tmp_path}\n"
    lines += f"/file {tmp_path}/empty\n/file {tmp_path}/nu\0l\n/file ~nobody_here/x\n"
    _, shown = await script(server, LOGIN + lines)
    assert "! to whom? /to NAME\n" in shown
    assert "/no\\x1bthing: No such file or directory\n" in shown
    assert f"! {tmp_path.name} is a folder\n" in shown
    assert "! empty is empty\n" in shown
    assert "embedded null byte\n" in shown
    assert "! ~nobody_here/x: there is no such home\n" in shown
    assert not server.stored


async def test_refused_upload(tmp_path: Path) -> None:
    """A refused file is one line, and no message is sent."""
    (tmp_path / "cake").write_bytes(b"cake")
    server = people()
    server.refuse("save_file", 4006, "too many files")
    _, shown = await script(server, f"{LOGIN}/to bob\n/file {tmp_path}/cake\n")
    assert "! 4006 too many files\n" in shown
    assert not server.stored


async def fetch(lines: str, *contents: str) -> str:
    """Give what is shown when files are fetched that came in message 3."""
    server = people()
    data = base64.b64encode(b"cake").decode()
    md5 = hashlib.md5(b"cake", usedforsecurity=False).hexdigest()
    server.answer("get_file", {"content": data, "size": 4, "md5": md5, "mime": ""})
    infos = [{"category": "1", "content": content} for content in contents]
    server.answer("history", [message(3, info=infos)])
    _, shown = await script(server, f"{LOGIN}/to bob\n/history\n{lines}")
    return shown


async def test_a_file_is_fetched(tmp_path: Path) -> None:
    """/get writes the file of a message: into a folder by a short name, or where one says."""
    path = f"media/ab/{'ab' * 32}.png"
    shown = await fetch(f'/get 3 {tmp_path}\n/get {path} "{tmp_path}/my cake"\n', path)
    assert f"[picture {'ab' * 6}.png, /get 3]" in shown
    assert (tmp_path / f"{'ab' * 6}.png").read_bytes() == b"cake"
    assert (tmp_path / "my cake").read_bytes() == b"cake"
    assert f"* wrote 4 bytes to {tmp_path}/my cake\n" in shown


async def test_fetching_never_overwrites_unasked(tmp_path: Path) -> None:
    """A file that is there stays, and so does what a link points to; -f writes over a file."""
    (tmp_path / "old").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    lines = f"/get 3 {tmp_path}/old\n/get 3 {tmp_path}/link\n"
    shown = await fetch(lines, "media/ab/x.png")
    assert f"! {tmp_path}/old exists; /get -f writes over it\n" in shown
    assert f"! {tmp_path}/link exists; /get -f writes over it\n" in shown
    assert (tmp_path / "old").read_bytes() == b"mine"
    await fetch(f"/get -f 3 {tmp_path}/old\n", "media/ab/x.png")
    assert (tmp_path / "old").read_bytes() == b"cake"
    assert names(tmp_path) == ["link", "old"]


async def test_fetching_over_what_is_no_file(tmp_path: Path) -> None:
    """Not even -f replaces a device or a pipe."""
    os.mkfifo(tmp_path / "pipe")
    shown = await fetch(f"/get -f 3 {tmp_path}/pipe\n", "media/ab/x.png")
    assert f"! {tmp_path}/pipe: is no regular file\n" in shown
    assert (tmp_path / "pipe").is_fifo()


async def test_several_files_need_a_folder(tmp_path: Path) -> None:
    """A message with two files is fetched into a folder, and not into one file."""
    paths = ("media/ab/x.png", "media/ab/y.png")
    shown = await fetch(f"/get 3 {tmp_path}/one\n/get 3 {tmp_path}\n", *paths)
    assert "! message 3 has 2 files; say a folder for them\n" in shown
    assert names(tmp_path) == ["x.png", "y.png"]


async def test_fetching_nothing() -> None:
    """A message without a file that was shown is one line."""
    shown = await fetch("/get 3\n/get\n")
    assert "! no file was shown in message 3; /history shows older ones\n" in shown
    assert "! usage: /get [-f] MSG|PATH [TO]\n" in shown


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"media/ab/{'ab' * 32}-256.jpg", f"{'ab' * 6}.jpg"),
        ("media/../../etc/passwd", "passwd"),
        ("..", "file"),
        ("/", "file"),
        ("a/.bashrc", "bashrc"),
        ("a/\x1b[2J;rm -rf.png", "__2J_rm_-rf.png"),
        ("a/x." + "y" * 300, "x." + "y" * 12),
        ("媒", "_"),
    ],
)
def test_local_name(path: str, name: str) -> None:
    """A local name has no folder, no leading dot, no odd characters and no great length."""
    assert local_name(path) == name


async def test_a_long_upload_does_not_hold_the_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes long goes on beside other lines, and /quit waits for it."""
    monkeypatch.setattr(chat_module, "PATIENCE", 0.01)
    (tmp_path / "cake").write_bytes(b"cake")
    async with sitting() as chat:
        chat.server.answer("save_file", {"path": "media/ab/cake.png"})
        chat.keys.type("/to bob")
        await chat.screen.wait_shows("talking to bob")
        chat.server.hold_replies()
        chat.keys.type(f"/file {tmp_path}/cake")
        await chat.screen.wait_shows("* cake is on its way; go on meanwhile\n")
        monkeypatch.setattr(chat_module, "PATIENCE", 5)
        chat.keys.type("/quit")
        await chat.screen.wait_shows("* waiting for files on their way; ^C leaves without them\n")
        chat.server.release_replies()
        assert await chat.task == 0
        assert len(chat.server.stored) == 1


async def test_quit_does_not_wait_for_a_server_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/quit gives a file up when the connection does not come back."""
    monkeypatch.setattr(chat_module, "PATIENCE", 0.01)
    (tmp_path / "cake").write_bytes(b"cake")
    async with sitting() as chat:
        chat.keys.type("/to bob")
        await chat.screen.wait_shows("talking to bob")
        chat.server.hold_replies()
        chat.keys.type(f"/file {tmp_path}/cake")
        await chat.screen.wait_shows("on its way")
        chat.server.refuse_connections(100)
        chat.server.cut()
        await chat.screen.wait_shows("the connection was lost")
        chat.keys.type("/quit")
        await chat.task
        assert "! the files were given up: there is no connection\n" in chat.screen.getvalue()


async def test_leaving_in_an_upload_is_quiet(tmp_path: Path) -> None:
    """Who breaks off while a file is on its way leaves no task behind that complains."""
    (tmp_path / "cake").write_bytes(b"cake")
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
    async with people() as server:
        chat = Sitting(server, Keys(), Screen())
        for line in (LOGIN + "/to bob").splitlines():
            chat.keys.type(line)
        await chat.screen.wait_shows("talking to bob")
        server.hold_replies()
        chat.keys.type(f"/file {tmp_path}/cake")
        await server.wait_received("save_file")
        chat.task.cancel()
        await asyncio.wait({chat.task})
        assert chat.task.cancelled()
        chat.keys.end()
        del chat  # Its traceback holds what a task has left.
    gc.collect()
    assert not complaints


async def test_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """A file is not fetched where one is, nor written over one that came while it was fetched."""
    local = tmp_path / "cake"
    server = people()

    def answer(_: Frame) -> Frame:
        local.write_bytes(b"mine")
        md5 = hashlib.md5(b"cake", usedforsecurity=False).hexdigest()
        return {"result": {"content": "Y2FrZQ==", "size": 4, "md5": md5, "mime": ""}}

    server.answer("get_file", answer)
    _, shown = await script(server, LOGIN + f"/get media/x {local}\n" * 2)
    assert shown.count(f"! {local} exists; /get -f writes over it\n") == 2
    assert local.read_bytes() == b"mine"
    assert len(server.frames("get_file")) == 1
