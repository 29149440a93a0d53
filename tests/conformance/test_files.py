"""Files on the wire: `save_file`, `save_part`, `get_file`, pictures in messages, avatars."""

import asyncio
import base64
import hashlib
import os
import random

import pytest

from .people import failed, limited, make_friends, new_name
from .process import StartServer
from .wire import Dialer, Frame, Wire, assert_refused, frame, pair_chat, text

KIB = 1024
INLINE = 700 * KIB
PIECE = 256 * KIB
LARGEST = 16 * KIB * KIB
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><script>alert(1)</script>"
PATH = r"media/[0-9a-f]{2}/[0-9a-f]{64}"


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def fresh(size: int = 100, head: bytes = b"") -> bytes:
    """A content that nobody else has saved."""
    return head + os.urandom(size - len(head))


def path_of(data: bytes, ending: str = "") -> str:
    name = hashlib.sha256(data).hexdigest()
    return f"media/{name[:2]}/{name}{ending}"


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def picture(to: str, path: str, **fields: object) -> Frame:
    """A message of one picture."""
    return text(to, "", **{"info": [{"category": "1", "content": path}], **fields})


async def save(wire: Wire, data: bytes, **fields: object) -> str:
    """Save a file; return its path."""
    result = await wire.ok("save_file", content=coded(data), **fields)
    assert set(result) - {"thumbnail"} == {"path"}
    path = result["path"]
    assert isinstance(path, str)
    return path


async def read(wire: Wire, path: str) -> bytes:
    """Read a whole file, piece by piece, and check what is said of it."""
    found = b""
    while True:
        piece = await wire.ok("get_file", path=path, offset=len(found))
        assert set(piece) == {"content", "size", "md5", "mime"}
        found += base64.b64decode(piece["content"], validate=True)
        if len(found) >= piece["size"]:
            assert (len(found), md5(found)) == (piece["size"], piece["md5"])
            return found


async def unreadable(wire: Wire, path: str) -> None:
    """Require that a file is as if it were not there."""
    await failed(wire, 4005, "get_file", {}, "path", path=path)


# save_file


async def test_a_saved_file_can_be_read(dial: Dialer) -> None:
    """The path is the server's own; what is read is what was saved."""
    a = await dial.user()
    data = fresh()
    for digest in (md5(data), md5(data).upper(), ""):
        result = await a.ok("save_file", name="notes.txt", content=coded(data), md5=digest)
        assert result == {"path": path_of(data)}
    got = await a.ok("get_file", path=result["path"])
    assert got == {
        "content": coded(data),
        "size": len(data),
        "md5": md5(data),
        "mime": "application/octet-stream",
    }


@pytest.mark.parametrize(
    "name",
    [
        "../../x", "/etc/x", "a\\..\\b", "C:\\x", ".", "..", "", None, "a" * 255, "con", "x.png\n",
        "x/../media/y", "…/media/…",
        "/var/lib/pushd/media/ab/x", "nul\u2028", "\u202egnp.exe", "图片.png", "\x01", "%2e%2e%2f",
        "~root",
    ],
)  # fmt: skip
async def test_a_name_is_only_a_label(dial: Dialer, name: str | None) -> None:
    """Whatever it is called, the file lies where the server puts it, by its content."""
    a = await dial.user()
    data = fresh()
    assert await save(a, data, name=name) == path_of(data)
    assert await read(a, path_of(data)) == data


@pytest.mark.parametrize("name", ["a" * 256, "a" * 300, "a\0b", 7, ["x"]])
async def test_a_label_has_a_form(dial: Dialer, name: object) -> None:
    """At most 255 characters, none of them U+0000; otherwise nothing is stored."""
    a = await dial.user()
    data = fresh()
    await failed(a, 4003, "save_file", {}, "name", name=name, content=coded(data))
    await unreadable(a, path_of(data))


@pytest.mark.parametrize(
    "content", ["", None, " \n", "aGVsbG8", "a*b=", "aGVsbG8=\\", "data:;base64,aGVsbG8=", "é"]
)
async def test_what_is_no_content(dial: Dialer, content: str | None) -> None:
    """Nothing, or what is not base64, is 8005."""
    a = await dial.user()
    await failed(a, 8005, "save_file", {}, "content", content=content)
    await failed(a, 8005, "save_part", {}, "content", content=content)
    await failed(a, 4003, "save_file", {}, "content", content=7)


async def test_base64_may_have_line_breaks(dial: Dialer) -> None:
    """Encoders break lines, with or without a carriage return, and people put blanks."""
    a = await dial.user()
    data = fresh(300)
    lines = base64.encodebytes(data).decode()
    for content in (lines, lines.replace("\n", "\r\n"), " ".join(coded(data))):
        result = await a.ok("save_file", content=content)
        assert result == {"path": path_of(data)}
    assert await read(a, path_of(data)) == data


async def test_the_limit_is_exact(dial: Dialer) -> None:
    """700 KiB are saved at once, also in broken lines; one byte more is 8005."""
    a = await dial.user()
    data = fresh(INLINE)
    result = await a.ok("save_file", content=base64.encodebytes(data).decode())
    assert await read(a, result["path"]) == data
    reply = await failed(a, 8005, "save_file", {}, "content", content=coded(data + b"x"))
    assert str(INLINE) in reply["message"]
    await failed(a, 8005, "save_part", {}, "content", content=coded(data + b"x"))


@pytest.mark.parametrize(
    "wrong",
    ["0" * 32, "x", "d41d8cd98f00b204e9800998ecf8427e", "D41D8CD98F00B204E9800998ECF8427E"],
)
async def test_another_md5_stores_nothing(dial: Dialer, wrong: str) -> None:
    """What arrived is not what was sent."""
    a = await dial.user()
    data = fresh()
    await failed(a, 8005, "save_file", {}, "md5", content=coded(data), md5=wrong)
    await unreadable(a, path_of(data))


@pytest.mark.parametrize(
    ("data", "ending", "mime"),
    [
        (PNG, ".png", "image/png"),
        (JPEG, ".jpg", "image/jpeg"),
        (b"GIF89a", ".gif", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBP", ".webp", "image/webp"),
        (b"#!AMR\n", ".amr", "audio/amr"),
        (b"OggS\x00", ".ogg", "audio/ogg"),
        (SVG, "", "application/octet-stream"),
        (HTML, "", "application/octet-stream"),
    ],
)
async def test_the_type_comes_from_the_content(
    dial: Dialer, data: bytes, ending: str, mime: str
) -> None:
    """A name or a claim of the client's says nothing: HTML named a.png is no picture."""
    a = await dial.user()
    data = fresh(200, data)
    path = await save(a, data, name="a.png", mime="image/png")
    assert path == path_of(data, ending)
    assert (await a.ok("get_file", path=path))["mime"] == mime


async def test_a_purpose_is_one_of_two(dial: Dialer) -> None:
    """Absent, null and "" mean a message; what else there is not is refused."""
    a = await dial.user()
    for purpose in ("message", "", None):
        await save(a, fresh(), purpose=purpose)
    for bad in ("x", "Avatar", 1):
        await failed(a, 4003, "save_file", {}, "purpose", content=coded(fresh()), purpose=bad)
    for data in (SVG, HTML, b"hello", b"#!AMR\n"):
        await failed(a, 8006, "save_file", {}, "content", content=coded(data), purpose="avatar")


@pytest.mark.parametrize("cmd", ["save_file", "save_part", "get_file"])
async def test_files_need_a_session(dial: Dialer, cmd: str) -> None:
    """Without a login there are no files."""
    a = await dial()
    await failed(a, 11001, cmd, {}, content=coded(b"x"), path="media/x")


# get_file


@pytest.mark.parametrize(
    "path",
    [
        "media/../pushd.db", "media/../db", "../pushd.db", "/etc/passwd", "media/", "media", ".",
        "media/parts", "media/tmp", "media/%2e%2e/pushd.db", "pushd.db", "media/ab/\u2028",
        path_of(b"nobody saved this"), "x" * 5000,
    ],
)  # fmt: skip
async def test_only_stored_paths_are_files(dial: Dialer, path: str) -> None:
    """No other path leads anywhere, inside the folder or out of it."""
    a, b = await dial.pair()
    await unreadable(a, path)
    if len(path) < 256:
        await assert_refused(a, 4005, picture(b.user_id, path), "message[0].info")
        await failed(a, 8006, "complete_account", {}, "avatar", avatar=path)


async def test_near_paths_are_no_paths(dial: Dialer) -> None:
    """A path is exactly what `save_file` gave."""
    a = await dial.user()
    path = await save(a, fresh(100, PNG))
    for near in (path.upper(), path + "\n", path + "/", "/" + path, "./" + path, path[:-4]):
        await unreadable(a, near)


async def test_a_piece_of_a_file(dial: Dialer) -> None:
    """`offset` and `length` say which piece; at most 256 KiB come at a time, and by default."""
    a = await dial.user()
    data = fresh(PIECE + 10)
    path = await save(a, data)

    async def piece(**fields: object) -> bytes:
        got = await a.ok("get_file", path=path, **fields)
        assert (got["size"], got["md5"]) == (len(data), md5(data))
        return base64.b64decode(got["content"], validate=True)

    assert await piece() == data[:PIECE]
    assert await piece(offset="", length=None) == data[:PIECE]
    assert await piece(offset=PIECE) == data[PIECE:]
    assert await piece(offset=3, length=4) == data[3:7]
    assert await piece(offset=len(data) - 1, length=PIECE) == data[-1:]
    assert await piece(offset=len(data)) == b""


async def test_pieces_that_are_none(dial: Dialer) -> None:
    """Negative, beyond the end, empty or too large: 4003 with the field."""
    a = await dial.user()
    path = await save(a, fresh(10))
    for offset in (-1, 11, 2**31, 2**53, 1.5, "1"):
        await failed(a, 4003, "get_file", {}, "offset", path=path, offset=offset)
    await a.fence()  # ten bad lines in a row would close
    for length in (-1, 0, PIECE + 1, 2**31, 2**63, True):
        await failed(a, 4003, "get_file", {}, "length", path=path, length=length)
    for none in ("", None, 7):
        await failed(a, 4003, "get_file", {}, "path", path=none)


# Messages


async def test_a_picture_in_a_message(dial: Dialer) -> None:
    """Who gets the message can read the file, and nobody else."""
    a, b = await dial.pair()
    stranger = await dial.user()
    data = fresh(100, PNG)
    path = await save(a, data)
    await unreadable(b, path)
    [row] = await a.post(picture(b.user_id, path))
    [got] = await b.expect_delivery(ack=True)
    assert got["msgId"] == row["msgId"]
    assert got["info"] == [{"category": "1", "content": path}]
    assert await read(b, path) == data
    await unreadable(stranger, path)
    history = await b.ok("history", userId=a.user_id)
    assert history[-1]["info"] == got["info"]


async def test_another_s_file_cannot_be_sent(dial: Dialer) -> None:
    """4005 for the message, and none of its list is accepted."""
    a, b = await dial.pair()
    stranger = await dial.user()
    mine, theirs = await save(a, fresh()), await save(stranger, fresh())
    messages = [picture(b.user_id, mine), picture(b.user_id, theirs)]
    reply = await a.refused(4005, frame(messages, a.push_id))
    [row] = reply["failed"]
    assert (row["index"], row["status"], row["field"]) == (1, 4005, "message[1].info")
    await b.expect_nothing()
    await unreadable(b, mine)
    await unreadable(a, theirs)


async def test_what_one_was_sent_one_may_pass_on(dial: Dialer) -> None:
    """A forwarded file can be read by those who get it."""
    a, b = await dial.pair()
    c = await dial.user()
    await make_friends(b, c)
    path = await save(a, fresh())
    await a.post(picture(b.user_id, path))
    await b.post(picture(c.user_id, path))
    assert await read(c, path)


async def test_one_content_of_two_people(dial: Dialer) -> None:
    """Both have the same path, and each may read it for themselves."""
    a, b = await dial.user(), await dial.user()
    data = fresh()
    assert await save(a, data) == await save(b, data)
    assert await read(a, path_of(data)) == await read(b, path_of(data)) == data


async def test_a_recalled_picture_is_gone(dial: Dialer) -> None:
    """Nobody but its owner can read the file of a message that was recalled."""
    a, b = await dial.pair()
    path = await save(a, fresh())
    [row] = await a.post(picture(b.user_id, path))
    await a.ok("recall", msgId=row["msgId"])
    await unreadable(b, path)
    assert await read(a, path)


async def test_a_group_reads_what_was_sent_to_it(dial: Dialer) -> None:
    """Members while they are in; who was kicked keeps what came before and gets no more."""
    a, b = await dial.pair()
    c = await dial.user()
    await make_friends(a, c)
    group = (await a.ok("create_group", name=new_name(), kind="group", userIds=[b.user_id]))["id"]
    early, middle, late = await save(a, fresh()), await save(a, fresh()), await save(a, fresh())
    send = {"type": "7", "chatId": group}
    await a.post(picture("", early, **send))
    await a.ok("invite", groupId=group, userIds=[c.user_id])
    await a.post(picture("", middle, **send))
    await a.ok("kick", groupId=group, userIds=[b.user_id])
    await a.post(picture("", late, **send))
    for path in (early, middle):
        assert await read(b, path)
    await unreadable(b, late)
    await unreadable(c, early)
    for path in (middle, late):
        assert await read(c, path)


# Avatars


async def test_an_avatar_is_for_all(dial: Dialer) -> None:
    """Everybody can read a picture that is somebody's avatar."""
    a, stranger = await dial.user(), await dial.user()
    data = fresh(100, JPEG)
    path = await save(a, data)
    await unreadable(stranger, path)
    account = await a.ok("complete_account", avatar=path)
    assert account["user"]["avatar"] == path
    seen = await stranger.ok("account", userId=a.user_id)
    assert seen["user"]["avatar"] == path
    assert await read(stranger, path) == data


async def test_what_is_no_avatar(dial: Dialer) -> None:
    """A plain file, another's picture or no path at all: 8006, and nothing of the account changes.

    What is absent or empty stays as it is.
    """
    a, b = await dial.pair()
    plain, theirs = await save(a, fresh()), await save(b, fresh(100, PNG))
    await b.post(picture(a.user_id, theirs))
    for avatar in (plain, theirs, "x", "media/../pushd.db"):
        await failed(a, 8006, "complete_account", {}, "avatar", avatar=avatar, username=new_name())
    path = await save(a, fresh(100, PNG))
    await a.ok("complete_account", avatar=path)
    for avatar in ("", None):
        account = await a.ok("complete_account", avatar=avatar)
        assert account["user"]["avatar"] == path
    assert account["user"]["username"] == ""


# save_part


async def upload(wire: Wire, data: bytes, size: int, **fields: object) -> Frame:
    """Save a file in parts of this size; return the last result."""
    name = ""
    for offset in range(0, len(data), size):
        part = data[offset : offset + size]
        more = fields if offset + size >= len(data) else {}
        result: Frame = await wire.ok(
            "save_part", upload=name, offset=offset, content=coded(part), **more
        )
        if not more:
            assert set(result) == {"upload", "offset"}
            assert result["offset"] == offset + len(part)
            assert name in ("", result["upload"])
            name = result["upload"]
    return result


async def test_a_file_in_parts(dial: Dialer) -> None:
    """Part after part, and the last one gives the path."""
    a = await dial.user()
    data = fresh(3 * 1000 + 1, PNG)
    result = await upload(a, data, 1000, name="big.png", md5=md5(data), done=True)
    assert result == {"path": path_of(data, ".png")}
    assert await read(a, result["path"]) == data


@pytest.mark.slow
async def test_the_largest_file(dial: Dialer) -> None:
    """16 MiB go in parts, and not one byte more."""
    a = await dial.user()
    data = random.Random(os.urandom(8)).randbytes(LARGEST)
    result = await upload(a, data, INLINE, md5=md5(data), done=True)
    assert await read(a, result["path"]) == data
    name = (await a.ok("save_part", content=coded(b"x")))["upload"]
    reply = await failed(
        a, 8005, "save_part", {}, "content", upload=name, offset=LARGEST, content=coded(b"x")
    )
    assert str(LARGEST) in reply["message"]


async def test_a_part_in_a_wrong_place(dial: Dialer) -> None:
    """4003 names the offset and says the right one; an empty part asks for it."""
    a = await dial.user()
    name = (await a.ok("save_part", content=coded(b"01234")))["upload"]
    for offset in (0, 4, 6):
        reply = await failed(
            a, 4003, "save_part", {}, "offset", upload=name, offset=offset, content=coded(b"x")
        )
        assert "5" in reply["message"]
    await failed(a, 4003, "save_part", {}, "offset", offset=1, content=coded(b"x"))
    await failed(a, 4003, "save_part", {}, "offset", upload=name, offset=-1, content=coded(b"x"))
    assert await a.ok("save_part", upload=name) == {"upload": name, "offset": 5}


async def test_an_upload_goes_on_elsewhere(dial: Dialer) -> None:
    """A broken connection costs the part that was under way at most."""
    a = await dial.user()
    name = (await a.ok("save_part", content=coded(b"01234")))["upload"]
    a.abort()
    b = await dial()
    await b.login(a.phone)
    assert await b.ok("save_part", upload=name) == {"upload": name, "offset": 5}
    again = await b.ok("save_part", upload=name, offset=0, content=coded(b"01234"))
    assert again == {"upload": name, "offset": 5}
    last = {"upload": name, "offset": 5, "content": coded(b"5"), "done": True}
    result = await b.ok("save_part", **last)
    assert result == {"path": path_of(b"012345")}
    assert await b.ok("save_part", **last) == result
    assert await read(b, result["path"]) == b"012345"


async def test_an_unfinished_upload_is_nobody_s_file(dial: Dialer) -> None:
    """It has no path, and to others it does not exist."""
    a, b = await dial.user(), await dial.user()
    data = fresh()
    name = (await a.ok("save_part", content=coded(data)))["upload"]
    for path in (path_of(data), f"media/parts/{name}", name):
        await unreadable(a, path)
    for fields in ({}, {"offset": 100, "content": coded(b"x")}, {"offset": 100, "done": True}):
        await failed(b, 4005, "save_part", {}, "upload", upload=name, **fields)
    for wrong in ("x", "..", name + "x", name.swapcase()):
        await failed(a, 4005, "save_part", {}, "upload", upload=wrong)
    await failed(a, 4003, "save_part", {}, "upload", upload="x" * 65)


async def test_another_md5_ends_an_upload(dial: Dialer) -> None:
    """Nothing is stored, and the client begins anew."""
    a = await dial.user()
    data = fresh()
    name = (await a.ok("save_part", content=coded(data)))["upload"]
    end = {"upload": name, "offset": len(data), "done": True}
    await failed(a, 8005, "save_part", {}, "md5", **end, md5="0" * 32)
    await failed(a, 4005, "save_part", {}, "upload", **end, md5=md5(data))
    await unreadable(a, path_of(data))


async def test_messages_pass_while_a_file_is_saved(dial: Dialer) -> None:
    """Lists and deliveries go on between the parts, in their order, on the same connection."""
    a, b = await dial.pair()
    await a.ok("ping")
    data = fresh(5 * 10_000)
    name = ""
    for number, offset in enumerate(range(0, len(data), 10_000)):
        part = {"upload": name, "offset": offset, "content": coded(data[offset : offset + 10_000])}
        await a.send_line({"cmd": "save_part", **part})
        await a.send_line(frame([text(b.user_id, str(number))], a.push_id))
        name = (await a.reply())["result"]["upload"]
        assert (await a.reply())["message"] == "ok"
    got = await b.expect_delivery(5, ack=True)
    assert [message["info"][0]["content"] for message in got] == list("01234")
    assert {message["chatId"] for message in got} == {pair_chat(a, b)}


# Servers of their own


async def test_an_upload_survives_a_crash(server: StartServer) -> None:
    """What was confirmed of an upload is there after a kill, and so is a saved file."""
    own = server()
    a = await own.dial.user()
    kept = await save(a, b"kept")
    data = fresh(INLINE + 10)
    name = (await a.ok("save_part", content=coded(data[:INLINE])))["upload"]
    own.restart()
    b = await own.dial()
    await b.login(a.phone)
    assert await b.ok("save_part", upload=name) == {"upload": name, "offset": INLINE}
    result = await b.ok(
        "save_part", upload=name, offset=INLINE, content=coded(data[INLINE:]), done=True
    )
    assert await read(b, result["path"]) == data
    assert await read(b, kept) == b"kept"
    assert {path.name for path in (own.data / "media").rglob("*") if path.is_file()} == {
        kept.rpartition("/")[2],
        result["path"].rpartition("/")[2],
    }


async def test_what_a_crash_left_half_written_is_removed(server: StartServer) -> None:
    """Bytes without a row are no file, before and after the start that removes them."""
    own = server()
    a = await own.dial.user()
    own.kill()
    left = own.data / "media" / "tmp" / "left"
    left.write_bytes(b"half")
    stray = own.data / path_of(b"stray")
    stray.parent.mkdir()
    stray.write_bytes(b"stray")
    own.start()
    b = await own.dial()
    await b.login(a.phone)
    assert not left.exists()
    await unreadable(b, path_of(b"stray"))


async def test_files_are_for_the_server_s_user_alone(server: StartServer) -> None:
    """Nobody else on the machine can read what people sent each other."""
    own = server()
    a = await own.dial.user()
    await save(a, fresh())
    await a.ok("save_part", content=coded(fresh()))
    for path in (own.data / "media").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


async def test_quotas_are_per_account(server: StartServer) -> None:
    """4006 when an account has as many bytes or files as it may; others save on."""
    own = server(media_quota_bytes=2 * KIB, media_part_max=KIB, media_inline_max=KIB)
    a, b = await own.dial.user(), await own.dial.user()
    paths = [await save(a, fresh(KIB)) for _ in range(2)]
    await failed(a, 4006, "save_file", {}, content=coded(b"x"))
    await failed(a, 4006, "save_part", {}, content=coded(b"x"))
    assert await read(a, paths[0])
    await save(b, b"x")
    own = server(media_quota_count=1)
    c = await own.dial.user()
    await save(c, b"1")
    await save(c, b"1")
    await failed(c, 4006, "save_file", {}, content=coded(b"2"))


async def test_many_at_once_share_a_quota(server: StartServer) -> None:
    """Twenty connections that save at once get no more than one would."""
    own = server(media_quota_count=5)
    a = await own.dial.user()
    wires = [await own.dial() for _ in range(20)]
    for wire in wires:
        await wire.login(a.phone)
    lines = [{"cmd": "save_file", "content": coded(fresh())} for _ in wires]
    replies = await asyncio.gather(
        *(wire.exchange(line) for wire, line in zip(wires, lines, strict=True))
    )
    statuses = sorted(reply["status"] for reply in replies)
    assert statuses == [1] * 5 + [4006] * 15
    assert len([path for path in (own.data / "media").rglob("*") if path.is_file()]) == 5


async def test_saving_has_a_budget(server: StartServer) -> None:
    """So many files an hour for an account, an upload counting once; reading is free."""
    own = server(limits_files=3)
    a, other = await own.dial.user(), await own.dial.user()
    path = await save(a, fresh())
    name = (await a.ok("save_part", content=coded(b"0")))["upload"]
    await save(a, fresh())
    await limited(a, "save_file", {}, content=coded(fresh()))
    await limited(a, "save_part", {}, content=coded(b"0"))
    await a.ok("save_part", upload=name, offset=1, content=coded(b"1"), done=True)
    assert await read(a, path)
    await save(other, fresh())


async def test_a_folder_that_cannot_be_used_stops_the_start(server: StartServer) -> None:
    """The start fails in one line that names the folder."""
    own = server()
    own.kill()
    for path in sorted((own.data / "media").rglob("*"), reverse=True):
        path.rmdir()
    (own.data / "media").rmdir()
    (own.data / "media").write_text("a file")
    with pytest.raises(RuntimeError, match="media: cannot be used"):
        own.start()
    (own.data / "media").unlink()
    own.start()
