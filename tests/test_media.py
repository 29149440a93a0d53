"""Files on the disk: what is taken in, what is believed of it, and what a crash leaves."""

import asyncio
import base64
import errno
import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pushd import media as module
from pushd.errors import Refusal, StoreRefused
from pushd.media import PATH, Fresh, Media, key_of, sniff
from pushd.status import Status

KIB = 1024
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><script>alert(1)</script>"
UPLOAD = "an-upload-of-somebody"


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def path_of(data: bytes, ending: str = "") -> str:
    name = hashlib.sha256(data).hexdigest()
    return f"media/{name[:2]}/{name}{ending}"


def files_in(folder: Path) -> list[str]:
    """All files below the media folder."""
    return sorted(
        str(path.relative_to(folder)) for path in (folder / "media").rglob("*") if path.is_file()
    )


@pytest_asyncio.fixture
async def media(tmp_path: Path) -> AsyncIterator[Media]:
    """An open folder of files."""
    opened = Media(tmp_path, picture_pixels=1_000_000)
    opened.open()
    yield opened
    opened.close()


async def refused(status: Status, work: Any, field: str = "content") -> str:
    """Await what must be refused; gives its text."""
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.status == status
    assert caught.value.field == field
    return caught.value.message


async def stored(media: Media, data: bytes, **options: Any) -> Fresh:
    """Take a file in and give it its path."""
    fresh = await media.receive(coded(data), most=1 << 20, **options)
    await media.publish(fresh)
    return fresh


# Base64


@pytest.mark.parametrize(
    "text",
    ["aGVsbG8=", "aGVs\nbG8=\n", "aGVs\r\nbG8=", " a G V s\tb G 8 = "],
)
async def test_blanks_and_line_ends_do_not_count(media: Media, text: str) -> None:
    """Base64 may be broken into lines, as encoders do."""
    fresh = await media.receive(text, most=5)
    assert fresh.file.path == path_of(b"hello")
    assert fresh.file.size == 5
    assert fresh.file.md5 == hashlib.md5(b"hello").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "aGVsbG8", "aGVsbG8==", "=aGVsbG8", "aGVs*G8=", "aGVsbG8=aGVs", "aGVs_-8=", "a", "====",
        "aGVsbG8=\v", "aGVsbG8=\u00a0", "ａGVsbG8=", "\ud800", "data:image/png;base64,aGVsbG8=",
    ],
)  # fmt: skip
async def test_what_is_not_base64_is_refused(media: Media, text: str) -> None:
    """Anything but the alphabet and its padding is refused, and nothing is guessed."""
    await refused(Status.FORMAT_ERROR_FILE, media.receive(text, most=100))
    await refused(Status.FORMAT_ERROR_FILE, media.decode(text, most=100))


@pytest.mark.parametrize("text", ["", " \n"])
async def test_an_empty_file_is_refused(media: Media, text: str, tmp_path: Path) -> None:
    """A file has at least one byte; a part may have none."""
    await refused(Status.FORMAT_ERROR_FILE, media.receive(text, most=100))
    assert (await media.decode(text, most=100)).data == b""
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 100])
async def test_the_limit_is_exact(media: Media, tmp_path: Path, most: int) -> None:
    """As many bytes as allowed are taken, one more is not, whatever the padding."""
    assert (await media.receive(coded(b"x" * most), most=most)).file.size == most
    before = files_in(tmp_path)
    text = await refused(
        Status.FORMAT_ERROR_FILE, media.receive(coded(b"x" * (most + 1)), most=most)
    )
    assert str(most) in text
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("change", [str.lower, str.upper])
async def test_the_right_md5_in_either_case(media: Media, change: Callable[[str], str]) -> None:
    """The md5 is hexadecimal, upper or lower case."""
    md5 = change(hashlib.md5(b"hello").hexdigest())
    assert (await media.receive(coded(b"hello"), most=5, md5=md5)).file.size == 5


@pytest.mark.parametrize("md5", ["0" * 32, "x", hashlib.md5(b"hello").hexdigest() + "0", "é"])
async def test_another_md5_stores_nothing(media: Media, tmp_path: Path, md5: str) -> None:
    """What arrives is not what was sent: it is refused and leaves nothing."""
    await refused(Status.FORMAT_ERROR_FILE, media.receive(coded(b"hello"), most=5, md5=md5), "md5")
    assert files_in(tmp_path) == []


# Types


@pytest.mark.parametrize(
    ("head", "ending", "mime"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", ".jpg", "image/jpeg"),
        (PNG, ".png", "image/png"),
        (b"GIF89a\x01\x00", ".gif", "image/gif"),
        (b"GIF87a\x01\x00", ".gif", "image/gif"),
        (b"RIFF\n\n\n\nWEBPVP8 ", ".webp", "image/webp"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", ".heic", "image/heic"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1heic", ".heic", "image/heic"),
        (b"#!AMR\n\x3c", ".amr", "audio/amr"),
        (b"#!AMR-WB\n\x3c", ".awb", "audio/amr-wb"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00", ".m4a", "audio/mp4"),
        (b"\xff\xf1\x50\x80", ".aac", "audio/aac"),
        (b"OggS\x00\x02" + b"\x00" * 22 + b"OpusHead", ".ogg", "audio/ogg"),
        (b"ID3\x03\x00", ".mp3", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", ".mp3", "audio/mpeg"),
        (b"\xff\xf3\x40\xc0", ".mp3", "audio/mpeg"),
    ],
)
def test_the_type_is_read_from_the_content(head: bytes, ending: str, mime: str) -> None:
    """Pictures and voices are known by their first bytes."""
    assert sniff(head + b"\x00" * 100) == (ending, mime)


@pytest.mark.parametrize(
    "head",
    [
        SVG, HTML, b"<?xml version='1.0'?>" + SVG, b"", b"\xff", b"\xff\xd8", b"GIF88a", b"%PDF",
        b"\x7fELF", b"#!/bin/sh\n", b"\xff\xfeh\x00i\x00", b"\xff\xff\xff\xff", b"\xff\xfb\xf0\x00",
        b"\xff\xfb\x00\x00", b"\xff\xfb\x9c\x00", b"\xff\xf1\x3c\x00", b"RIFF\n\n\n\nWAVE",
        b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00", b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00",
        b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1avif", b" \xff\xd8\xff", b"ID3\x09",
        b"\n\x89PNG\r\n\x1a\n", b"#!AMR", b"x" * 64 + PNG,
    ],
)  # fmt: skip
def test_all_else_is_a_plain_file(head: bytes) -> None:
    """SVG and HTML run scripts where they are shown: they are never pictures."""
    assert sniff(head) == ("", "application/octet-stream")


@pytest.mark.parametrize("data", [SVG, HTML, b"hello", b"#!AMR\n", b"OggS\x00"])
async def test_an_avatar_is_a_picture(media: Media, tmp_path: Path, data: bytes) -> None:
    """What is no picture by its content is no avatar, and nothing of it stays."""
    await refused(Status.FORMAT_ERROR_AVATAR, media.receive(coded(data), most=1000, avatar=True))
    assert files_in(tmp_path) == []
    assert (await media.receive(coded(data), most=1000)).file.size == len(data)


# Paths


async def test_a_file_lies_under_its_hash(media: Media, tmp_path: Path) -> None:
    """The path is the server's: the hash of the content and an ending by its type."""
    fresh = await stored(media, PNG)
    assert fresh.file == (path_of(PNG, ".png"), len(PNG), hashlib.md5(PNG).hexdigest(), "image/png")
    assert PATH.fullmatch(fresh.file.path)
    assert (tmp_path / fresh.file.path).read_bytes() == PNG
    assert files_in(tmp_path) == [fresh.file.path]


async def test_before_it_is_published_a_file_has_no_path(media: Media, tmp_path: Path) -> None:
    """Until then its bytes lie aside, and a discarded one leaves nothing."""
    fresh = await media.receive(coded(b"hello"), most=5)
    assert not (tmp_path / fresh.file.path).exists()
    await media.discard(fresh)
    assert files_in(tmp_path) == []


async def test_one_content_is_one_file(media: Media, tmp_path: Path) -> None:
    """Saved twice it is stored once, and a damaged one is whole again."""
    path = tmp_path / (await stored(media, b"hello")).file.path
    path.write_bytes(b"hexxo")
    await stored(media, b"hello")
    assert path.read_bytes() == b"hello"
    assert files_in(tmp_path) == [path_of(b"hello")]


@pytest.mark.parametrize(
    "path",
    [
        "media/../pushd.db", "media/ab/../../x", "/etc/passwd", "media/parts/" + UPLOAD, "",
        path_of(b"a") + "\n", path_of(b"a").upper(), path_of(b"a", "/x"), "x" + path_of(b"a"),
        "media/zz/" + "z" * 64, path_of(b"a", ".jpg.exe"), f"media/00/{'1' * 64}",
    ],
)  # fmt: skip
async def test_only_paths_of_our_own_making_are_opened(media: Media, path: str) -> None:
    """A path from a client that got this far would be our mistake: nothing is opened."""
    for work in (media.read(path, 0, 1, 1), media.remove(path)):
        with pytest.raises(AssertionError, match="never from a client"):
            await work
    with pytest.raises(AssertionError, match="never from a client"):
        key_of(path)


@pytest.mark.parametrize("upload", ["", "..", "../tmp/x", "a/b", "short", "x" * 65, UPLOAD + "\n"])
async def test_only_uploads_of_our_own_making_are_opened(media: Media, upload: str) -> None:
    """The name of an upload is a file's name: it comes from the store alone."""
    for work in (
        media.write_part(upload, 0, b"x"),
        media.gather(upload, size=1),
        media.remove_upload(upload),
    ):
        with pytest.raises(AssertionError, match="never from a client"):
            await work


# Reading


@pytest.mark.parametrize(
    ("offset", "length", "data"),
    [(0, 100, b"0123456789"), (0, 4, b"0123"), (4, 4, b"4567"), (8, 4, b"89"), (10, 4, b"")],
)
async def test_a_piece_is_read(media: Media, offset: int, length: int, data: bytes) -> None:
    """From an offset come as many bytes as asked for, or as there are."""
    path = (await stored(media, b"0123456789")).file.path
    assert await media.read(path, offset, length, 10) == coded(data)


async def test_a_file_that_the_disk_lost_is_not_found(media: Media, tmp_path: Path) -> None:
    """A missing or cut file is 4005, not a shorter content that looks whole."""
    path = (await stored(media, b"0123456789")).file.path
    (tmp_path / path).write_bytes(b"0123")
    assert await media.read(path, 0, 4, 10) == coded(b"0123")
    await refused(Status.NOT_FOUND, media.read(path, 0, 10, 10), "path")
    await media.remove(path)
    await refused(Status.NOT_FOUND, media.read(path, 0, 4, 10), "path")
    await media.remove(path)


async def test_what_is_there_can_be_listed(media: Media) -> None:
    """Files are listed by folder, uploads all together; what is not ours is left alone."""
    path = (await stored(media, b"hello")).file.path
    await media.write_part(UPLOAD, 0, b"x")
    folder = int(path[6:8], 16)
    (media._data / path).with_name("notes.txt").write_text("x")
    (media._parts / "notes.txt").write_text("x")
    assert await media.paths(folder) == [path]
    assert await media.paths((folder + 1) % 256) == []
    assert await media.uploads() == [UPLOAD]


# Uploads


async def test_an_upload_grows_part_by_part(media: Media, tmp_path: Path) -> None:
    """The parts together are the file; the upload's bytes go when its caller says so."""
    await media.write_part(UPLOAD, 0, PNG[:10])
    await media.write_part(UPLOAD, 10, PNG[10:])
    fresh = await media.gather(UPLOAD, size=len(PNG), md5=hashlib.md5(PNG).hexdigest().upper())
    assert fresh.file == (path_of(PNG, ".png"), len(PNG), hashlib.md5(PNG).hexdigest(), "image/png")
    await media.publish(fresh)
    await media.remove_upload(UPLOAD)
    assert files_in(tmp_path) == [fresh.file.path]
    assert (tmp_path / fresh.file.path).read_bytes() == PNG


async def test_what_was_not_noted_is_written_over(media: Media) -> None:
    """Bytes that a crash left behind the noted end do not count, not even longer ones."""
    await media.write_part(UPLOAD, 0, b"01234")
    await media.write_part(UPLOAD, 5, b"xxxxxxxxxx")
    await media.write_part(UPLOAD, 5, b"567")
    assert (await media.gather(UPLOAD, size=8)).file.path == path_of(b"01234567")
    for more in (b"5", b"xxxxxxxxxx"):
        await media.write_part(UPLOAD, 5, more)
        assert (await media.gather(UPLOAD, size=5)).file.path == path_of(b"01234")
    other = UPLOAD[::-1]
    await media.write_part(other, 0, b"01234")
    await media.write_part(other, 5, b"xxx")
    assert (await media.gather(other, size=5)).file.path == path_of(b"01234")


async def test_hashes_go_on_from_part_to_part(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a large upload takes no longer than a part; where they are lost, it is read."""
    monkeypatch.setattr(module, "HASHED", 2)
    uploads = [f"{UPLOAD}-{number}" for number in range(3)]
    for upload in uploads:
        await media.write_part(upload, 0, b"01234")
        await media.write_part(upload, 5, b"567")
    assert list(media._hashes) == uploads[1:]
    again = Media(tmp_path, picture_pixels=1)
    again.open()
    for upload in uploads:
        for each in (media, again):
            fresh = await each.gather(upload, size=8)
            assert fresh.file.path == path_of(b"01234567")
        await media.remove_upload(upload)
    assert media._hashes == {}
    again.close()


async def test_lost_bytes_of_an_upload_are_not_made_up(media: Media) -> None:
    """An upload that is shorter than what was confirmed is no upload any more."""
    await refused(Status.NOT_FOUND, media.write_part(UPLOAD, 5, b"x"), "upload")
    await refused(Status.NOT_FOUND, media.gather(UPLOAD, size=5), "upload")
    await media.write_part(UPLOAD, 0, b"0123")
    await refused(Status.NOT_FOUND, media.write_part(UPLOAD, 5, b"x"), "upload")
    await refused(Status.NOT_FOUND, media.gather(UPLOAD, size=5), "upload")


async def test_another_md5_of_an_upload_makes_no_file(media: Media, tmp_path: Path) -> None:
    """The whole is compared; the upload itself is its caller's to end."""
    await media.write_part(UPLOAD, 0, b"hello")
    await refused(Status.FORMAT_ERROR_FILE, media.gather(UPLOAD, size=5, md5="0" * 32), "md5")
    assert files_in(tmp_path) == [f"media/parts/{UPLOAD}"]


@pytest.mark.parametrize("links", [True, False])
async def test_an_upload_never_changes_a_published_file(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """After a crash between file and row the upload goes on, and the file stays what it is."""
    if not links:
        monkeypatch.setattr(os, "link", Raise(OSError(errno.EPERM, "no links here")))
    await media.write_part(UPLOAD, 0, b"01234")
    await media.write_part(UPLOAD, 5, b"567")
    await media.publish(await media.gather(UPLOAD, size=8))
    media.open()
    await media.write_part(UPLOAD, 5, b"xyz")
    await media.publish(await media.gather(UPLOAD, size=8))
    assert (tmp_path / path_of(b"01234567")).read_bytes() == b"01234567"
    assert (tmp_path / path_of(b"01234xyz")).read_bytes() == b"01234xyz"
    await media.publish(await media.gather(UPLOAD, size=8))
    assert len(files_in(tmp_path)) == 3


# Crashes and full disks


class Raise:
    """Stand in for a function of the system that fails, from the call after `good` on."""

    def __init__(self, problem: BaseException, good: int = 0, real: Any = None) -> None:
        self.problem = problem
        self.good = good
        self.real = real

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self.good > 0:
            self.good -= 1
            return self.real(*args, **kw)
        raise self.problem


async def test_the_order_in_which_a_crash_loses_nothing(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are synced before the rename and the folders after it, a new one first."""
    did: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        did.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        did.append(f"rename {source.name} {target.name[:4]}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    fresh = await stored(media, b"hello")
    temp, name = fresh.written[0][0].name, hashlib.sha256(b"hello").hexdigest()
    assert did == [f"sync {temp}", "sync media", f"rename {temp} {name[:4]}", f"sync {name[:2]}"]
    did.clear()
    await media.write_part(UPLOAD, 0, b"01")
    await media.write_part(UPLOAD, 2, b"23")
    assert did == [f"sync {UPLOAD}", "sync parts", f"sync {UPLOAD}"]


@pytest.mark.parametrize("name", ["fsync", "replace"])
async def test_a_crash_before_the_path_leaves_no_path(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever is broken off, behind the path is nothing, and the next start removes the rest."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, name, Raise(KeyboardInterrupt()))
        await stored(media, b"hello")
    assert not (tmp_path / path_of(b"hello")).exists()
    (tmp_path / "media" / "tmp" / "left by a crash").write_bytes(b"hel")
    media.open()
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("problem", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("good", [0, 1, 2])
async def test_a_full_disk_is_told_and_leaves_nothing(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: int, good: int
) -> None:
    """4007 wherever it happens; once there is space again, it works."""
    full = Raise(OSError(problem, "full"), good, os.fsync)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        fresh = None
        with pytest.raises(Refusal) as caught:
            fresh = await media.receive(coded(b"hello"), most=5)
            await media.publish(fresh)
        assert caught.value.status == Status.DISK_FULL
    if fresh is not None:
        await media.discard(fresh)
    # A rename whose folder could not be synced may have happened: its caller has no row for it.
    assert set(files_in(tmp_path)) <= ({path_of(b"hello")} if good == 2 else set())
    await stored(media, b"hello")
    assert files_in(tmp_path) == [path_of(b"hello")]


async def test_a_full_disk_leaves_no_first_part(
    media: Media, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was told of that upload, so nothing of it stays."""
    monkeypatch.setattr(os, "fsync", Raise(OSError(errno.ENOSPC, "full")))
    await refused(Status.DISK_FULL, media.write_part(UPLOAD, 0, b"x"), "")
    assert files_in(tmp_path) == []


async def test_another_failure_is_no_refusal(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is an internal error and not the client's fault."""
    monkeypatch.setattr(os, "fsync", Raise(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        await media.receive(coded(b"hello"), most=5)


def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    """The start fails in one line, not the first upload."""
    (tmp_path / "media").write_text("a file")
    with pytest.raises(StoreRefused, match=r"media: cannot be used: "):
        Media(tmp_path, picture_pixels=1).open()


# Threads


async def test_the_loop_goes_on_meanwhile(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    """All work on files is beside the loop, which goes on while the disk does not."""
    begun, go_on, threads = threading.Event(), threading.Event(), set()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        threads.add(threading.current_thread())
        begun.set()
        assert go_on.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    task = asyncio.ensure_future(media.receive(coded(b"hello"), most=5))
    assert await asyncio.to_thread(begun.wait, 10)
    # This line runs, so the loop is free.
    assert not task.done()
    go_on.set()
    assert (await task).file.size == 5
    assert threading.current_thread() not in threads


async def test_who_is_cancelled_waits_for_the_thread(
    media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that the caller holds is kept until the work is really over."""
    begun, go_on, over = threading.Event(), threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        begun.set()
        assert go_on.wait(10)
        over.set()

    monkeypatch.setattr(os, "fsync", slow)
    task = asyncio.ensure_future(media.write_part(UPLOAD, 0, b"x"))
    assert await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()


# Thumbnails


async def test_without_pillow_avatars_are_only_sniffed(
    media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is not needed: a picture is taken for what its first bytes say."""
    monkeypatch.setattr(module, "_pillow", lambda: None)
    fresh = await media.receive(coded(b"\x89PNG\r\n\x1a\nbroken"), most=100, avatar=True)
    assert fresh.file.mime == "image/png"
    assert fresh.thumbnail is None


def drawn(width: int, height: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A picture of one colour."""
    image = pytest.importorskip("PIL.Image", reason="needs pushd[media]")
    out = io.BytesIO()
    image.new(mode, (width, height)).save(out, kind, **options)
    return out.getvalue()


def size_of(path: Path) -> tuple[int, int]:
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as opened:
        assert opened.format == "JPEG"
        size: tuple[int, int] = opened.size
        return size


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "1"),
        ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("GIF", "P"), ("WEBP", "RGBA"),
    ],
)  # fmt: skip
async def test_an_avatar_gets_a_thumbnail(
    media: Media, tmp_path: Path, kind: str, mode: str
) -> None:
    """A JPEG of 256 pixels beside the picture, with the same proportions, whatever the picture."""
    fresh = await stored(media, drawn(1000, 500, kind, mode), avatar=True)
    small = fresh.thumbnail
    assert small is not None
    assert small.path == f"{fresh.file.path.partition('.')[0]}-256.jpg"
    assert PATH.fullmatch(small.path)
    assert key_of(small.path) == key_of(fresh.file.path)
    content = (tmp_path / small.path).read_bytes()
    assert small[1:] == (len(content), hashlib.md5(content).hexdigest(), "image/jpeg")
    assert size_of(tmp_path / small.path) == (256, 128)


async def test_a_thumbnail_stands_upright_and_tells_nothing(media: Media, tmp_path: Path) -> None:
    """It is turned as the camera noted, and has none of the camera's notes, as the place."""
    image = pytest.importorskip("PIL.Image", reason="needs pushd[media]")
    exif = image.Exif()
    exif[0x0112] = 6  # turn it by a quarter
    exif[0x010E] = "at home"
    fresh = await stored(media, drawn(1000, 500, "JPEG", exif=exif), avatar=True)
    assert fresh.thumbnail is not None
    assert size_of(tmp_path / fresh.thumbnail.path) == (128, 256)
    assert b"at home" not in (tmp_path / fresh.thumbnail.path).read_bytes()


async def test_a_small_picture_is_not_made_larger(media: Media, tmp_path: Path) -> None:
    """What is smaller than a thumbnail stays so."""
    fresh = await stored(media, drawn(20, 10, "PNG"), avatar=True)
    assert fresh.thumbnail is not None
    assert size_of(tmp_path / fresh.thumbnail.path) == (20, 10)


async def test_a_picture_has_a_limit_of_pixels(media: Media, tmp_path: Path) -> None:
    """A few bytes can say they are thousands of megabytes: they are refused before that."""
    assert (await media.receive(coded(drawn(1000, 1000, "PNG")), most=1 << 20, avatar=True)).file
    before = files_in(tmp_path)
    bomb = coded(drawn(1001, 1000, "PNG"))
    text = await refused(Status.FORMAT_ERROR_AVATAR, media.receive(bomb, most=1 << 20, avatar=True))
    assert "1000000 pixels" in text
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("cut", [20, 40, 60, 80])
async def test_a_broken_picture_is_no_avatar(media: Media, tmp_path: Path, cut: int) -> None:
    """What begins like a picture and cannot be decoded is refused."""
    data = drawn(300, 300, "PNG")[:cut]
    await refused(Status.FORMAT_ERROR_AVATAR, media.receive(coded(data), most=1 << 20, avatar=True))
    assert files_in(tmp_path) == []


async def test_a_picture_that_is_not_decoded_has_no_thumbnail(media: Media) -> None:
    """HEIC is a picture, but not one that is decoded here."""
    data = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic"
    fresh = await media.receive(coded(data), most=100, avatar=True)
    assert fresh.file.mime == "image/heic"
    assert fresh.thumbnail is None
