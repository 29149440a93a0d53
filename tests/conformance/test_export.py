"""People own their data: one archive holds all of it, for them alone."""

import base64
import io
import json
import zipfile

from .people import ONE_LOOP
from .wire import Dialer, Wire, text

pytestmark = ONE_LOOP
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"some picture").decode()


async def fetch(wire: Wire, path: str) -> bytes:
    """Read a stored file piece by piece."""
    whole = b""
    while True:
        got = await wire.ok("get_file", path=path, offset=len(whole))
        whole += base64.b64decode(got["content"])
        if len(whole) == got["size"]:
            return whole


async def test_archive(dial: Dialer) -> None:
    """The archive holds account, friends, groups, messages and files, and no secret."""
    a, b = await dial.pair()
    await a.post(text(b.user_id, "hello from a"))
    await b.post(text(a.user_id, "hello from b"))
    group = await a.ok("create_group", name="Us", kind="group", userIds=[b.user_id])
    saved = await a.ok("save_file", name="cat.png", content=PICTURE)
    path = (await a.ok("export_account"))["path"]
    archive = zipfile.ZipFile(io.BytesIO(await fetch(a, path)))
    assert archive.testzip() is None
    names = set(archive.namelist())
    low, high = sorted([int(a.user_id), int(b.user_id)])
    chat = f"{low}-{high}"
    messages = json.loads(archive.read(f"messages/{chat}/00001.json"))
    assert [each["info"][0]["content"] for each in messages][-2:] == [
        "hello from a",
        "hello from b",
    ]
    assert f"messages/{group['id']}/00001.json" in names
    assert json.loads(archive.read("account.json"))["user"]["id"] == a.user_id
    assert [user["id"] for user in json.loads(archive.read("friends.json"))] == [b.user_id]
    assert [each["name"] for each in json.loads(archive.read("groups.json"))] == ["Us"]
    stored = f"files/{saved['path'].rpartition('/')[2]}"
    assert archive.read(stored) == base64.b64decode(PICTURE)
    assert json.loads(archive.read("files.json"))[stored] == "cat.png"
    everything = b"".join(archive.read(name) for name in names)
    for secret in (b"$2b$", a.push_id.encode()):
        assert secret not in everything


async def test_only_for_oneself(dial: Dialer) -> None:
    """Nobody else can read the archive, a friend neither."""
    a, b = await dial.pair()
    path = (await a.ok("export_account"))["path"]
    refused = await b.command("get_file", path=path)
    assert refused["status"] == 4005
    assert refused["result"] == {}


async def test_again(dial: Dialer) -> None:
    """A second archive holds what has come since, and no archive."""
    a, b = await dial.pair()
    await a.ok("export_account")
    await b.post(text(a.user_id, "later"))
    path = (await a.ok("export_account"))["path"]
    archive = zipfile.ZipFile(io.BytesIO(await fetch(a, path)))
    everything = b"".join(archive.read(name) for name in archive.namelist())
    assert b"later" in everything
    assert not [name for name in archive.namelist() if name.endswith(".zip")]
