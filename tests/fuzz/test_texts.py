"""What people wrote comes back as they wrote it, letter for letter, from a real server."""

import asyncio
import itertools
import json
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushd.errors import Refusal
from pushd.names import check_label, check_username
from tests.conformance.process import Process
from tests.conformance.wire import Frame, Wire, frame, text
from tests.fuzz import values
from tests.fuzz.examples import examples, tried

R = TypeVar("R")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

written = st.text(values.letters.filter(lambda letter: letter != "\0"), max_size=60)
words = written | values.long_texts.map(lambda long: long.replace("\0", "0")[:9000])
sound = words.filter(lambda each: each.strip() != "")
short = written.filter(lambda each: each.strip() != "")


class Pair:
    """Two friends on a server, who write, and two more, who have a group and change names."""

    def __init__(self, server: Process) -> None:
        self.runner = asyncio.Runner()
        self.server = server
        self.numbers = itertools.count()
        self.run(self._settle())

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Do something, while the server goes on."""
        return self.runner.run(work)

    async def _settle(self) -> None:
        self.a, self.b = await self.server.dial.pair()
        self.c, self.d = await self.server.dial.pair()
        group = await self.c.ok(
            "create_group", name="g", kind="group", userIds=[self.d.user_id], desc="d"
        )
        self.group: str = group["id"]

    async def ask(self, wire: Wire, fields: Frame, *, escaped: bool) -> Frame:
        """Send a frame with letters as they are or as escapes; give the answer."""
        data = json.dumps(fields, ensure_ascii=escaped)
        return await wire.exchange(data.encode())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two friends."""
    server = Process(tmp_path_factory.mktemp("own"))
    server.start()
    found = Pair(server)
    yield found
    server.dial.close()
    found.runner.close()
    assert server.stop() == 0
    assert "Traceback" not in server.log_text()


@examples(60)
@given(first=sound, second=sound, key=short, escaped=st.booleans())
def test_property_messages(pair: Pair, first: str, second: str, key: str, escaped: bool) -> None:
    """A message arrives, and stands in the history, as it was sent; its clientId and id too."""
    tried("texts of messages come back as sent")

    async def work() -> None:
        infos = [{"category": "0", "content": each} for each in (first, second)]
        client_id = f"{key[:40]} {next(pair.numbers)}"
        message = {**text(pair.b.user_id, ""), "info": infos, "clientId": client_id}
        reply = await pair.ask(pair.a, frame([message], id=key), escaped=escaped)
        assert (reply["id"], reply["status"]) == (key, 1), reply
        [got] = await pair.b.expect_delivery(ack=True)
        [kept] = await pair.a.ok("history", userId=pair.b.user_id, limit=1)
        for each in (got, kept):
            assert [info["content"] for info in each["info"]] == [first, second]
        assert kept["clientId"] == client_id

    pair.run(work())


def is_label(label: str) -> bool:
    """Tell whether a text may be the name of a group, or an alias."""
    try:
        return bool(check_label(label, "name"))
    except Refusal:
        return False


@examples(30)
@given(given_texts=st.lists(short, min_size=7, max_size=7), escaped=st.booleans())
def test_property_names(pair: Pair, given_texts: list[str], escaped: bool) -> None:
    """Names, descriptions and notices are shown as given; names without the blanks around them."""
    tried("names and descriptions come back as sent")
    name, desc, notice, alias, about, device, word = given_texts
    # Refused for breaks and marks; how is tested with the names.
    name, alias = (each if is_label(each) else "plain" for each in (name, alias))

    async def work() -> None:
        a, b = pair.c, pair.d
        asked: Frame = {"cmd": "update_group", "groupId": pair.group}
        asked |= {"name": name, "desc": desc, "notice": notice}
        changed = await pair.ask(a, asked, escaped=escaped)
        [group] = await b.ok("my_groups")
        for shown in (group, changed["result"]):
            assert (shown["name"], shown["desc"]) == (name.strip(), desc)
            assert shown["notice"] == notice
        asked = {"cmd": "set_alias", "userId": b.user_id, "alias": alias}
        assert (await pair.ask(a, asked, escaped=escaped))["result"]["alias"] == alias.strip()
        [friend] = await a.ok("friends")
        assert friend["alias"] == alias.strip()
        await pair.ask(b, {"cmd": "complete_account", "desc": about}, escaped=escaped)
        assert (await a.ok("account", userId=b.user_id))["user"]["desc"] == about
        assert (await pair.ask(a, {"cmd": "ping", "text": word}, escaped=escaped))["result"] == {
            "text": word
        }
        pair.c, _ = await pair.server.dial.resume(a.push_id, device=device)
        a.close()
        assert device in [each["name"] for each in await pair.c.ok("devices")]

    pair.run(work())


@examples(60)
@given(name=sound.map(lambda each: each[:20]), escaped=st.booleans())
def test_property_usernames(pair: Pair, name: str, escaped: bool) -> None:
    """A username is refused, or shown in its normal form."""
    tried("usernames come back in their normal form")

    async def work() -> None:
        asked = {"cmd": "complete_account", "username": name}
        reply = await pair.ask(pair.d, asked, escaped=escaped)
        try:
            normal = check_username(name, ("system",))
        except Refusal as problem:
            assert reply["status"] == problem.status, (reply, name)
            return
        if not normal:
            assert reply["status"] == 6001, reply
        elif reply["status"] != 9000:
            assert reply["status"] == 1, reply
            seen = await pair.c.ok("account", userId=pair.d.user_id)
            assert seen["user"]["username"] == normal

    pair.run(work())


@examples(40)
@given(
    before=written,
    behind=written,
    bad=values.HALVES | st.just("\0"),
    field=st.sampled_from(["text", "content", "name", "clientId"]),
)
def test_property_what_is_no_text(
    pair: Pair, before: str, behind: str, bad: str, field: str
) -> None:
    """Half a character is no JSON (4000), U+0000 a bad field (4003); nothing of it is stored."""
    tried("half characters and U+0000 are refused")
    value = f"{before}x{bad}x{behind}"[-60:]
    if bad not in value:
        value += f"x{bad}x"

    async def work() -> None:
        if field == "text":
            asked: Frame = {"cmd": "ping", "text": value}
        elif field == "name":
            asked = {"cmd": "create_group", "kind": "tag", "name": value}
        else:
            said = value if field == "content" else "x"
            message = text(pair.b.user_id, said)
            more = {"clientId": value} if field == "clientId" else {}
            asked = frame([{**message, **more}])
        reply = await pair.ask(pair.a, asked, escaped=True)
        # Of both, the line that is no JSON comes first.
        assert reply["status"] == (4003 if bad == "\0" else 4000), reply
        if bad == "\0":
            assert field in reply["field"], reply
        await pair.a.fence()

    pair.run(work())
