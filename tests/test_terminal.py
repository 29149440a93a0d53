"""The terminal client, typed into by a script, against a scripted server."""

import io
from typing import Any

import pytest

from pushd.terminal import COMMANDS, escape, run_chat
from pushd.terminal import chat as chat_module
from tests.fake_server import FakeServer, Frame, message
from tests.sitting import BOB, EVE, LOGIN, Keys, Screen, Sitting, people, script, sitting


async def test_login_and_quit() -> None:
    """A login tells who one is; /quit logs out, so that no device stays behind."""
    server = people()
    code, shown = await script(server, LOGIN + "/quit\nnever read\n")
    assert code == 0
    assert "you are alice (10001)" in shown
    kinds = [kind for kind, _ in server.received]
    assert kinds == ["login", "start", "logout", "quit"]
    assert "secret-word" not in shown


async def test_register() -> None:
    """Registering asks for a name too."""
    server = people()
    code, _ = await script(server, "r\n18870742138\nsecret-word\nalice\n")
    assert code == 0
    [frame] = server.frames("register")
    assert (frame["phone"], frame["username"]) == ("18870742138", "alice")


async def test_login_refused() -> None:
    """A refused login is one line, and may be tried three times."""
    server = people()
    for _ in range(3):
        server.refuse("login", 10000, "wrong password")
    code, shown = await script(server, LOGIN * 4)
    assert code == 1
    assert shown.count("! 10000 wrong password\n") == 3
    assert len(server.frames("login")) == 3


async def test_input_ends_before_the_login() -> None:
    """Without a login the exit code tells failure."""
    code, _ = await script(people(), "l\n")
    assert code == 1


async def test_unreachable() -> None:
    """A server that is not there is one line and exit code 3."""
    async with FakeServer() as server:
        pass
    screen = io.StringIO()
    code = await run_chat("127.0.0.1", server.port, stdin=io.StringIO(), stdout=screen)
    assert code == 3
    assert screen.getvalue().startswith("! cannot reach 127.0.0.1:")
    assert screen.getvalue().count("\n") == 1


async def test_password_is_not_echoed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the password is read without echo."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    prompts: list[str] = []

    def read(prompt: str) -> str:
        prompts.append(prompt)
        return "hidden-word"

    monkeypatch.setattr("getpass.getpass", read)
    async with people() as server:
        lines = Terminal("l\n18870742138\n/quit\n")
        await run_chat("127.0.0.1", server.port, stdin=lines, stdout=io.StringIO())
        assert server.frames("login")[0]["password"] == "hidden-word"
    assert prompts == ["password: "]


@pytest.mark.parametrize("who", ["bob", "BOB", "10002", "18870742139"])
async def test_plain_lines_go_to_the_peer(who: str) -> None:
    """After /to plain lines are sent there; a doubled slash sends a slash."""
    server = people()
    _, shown = await script(server, f"{LOGIN}/to {who}\nhi there\n//path\n\n")
    assert "talking to bob (10002)" in shown
    assert [each["toId"] for each in server.stored] == ["10002", "10002"]
    assert [each["info"][0]["content"] for each in server.stored] == ["hi there", "/path"]


async def test_to_a_group() -> None:
    """A group gets the message type of its kind."""
    server = people()
    server.answer("history", [])
    _, shown = await script(server, f"{LOGIN}/to team\nhi\n/history\n")
    assert "talking in team" in shown
    assert (server.stored[0]["chatId"], server.stored[0]["type"]) == ("g1", "3")
    assert server.frames("history")[0]["chatId"] == "g1"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hi", "! to whom? /to NAME"),
        ("/to nobody", "! no friend and no group is called nobody"),
        ("/to 10099", "! 6004 no such user"),
        ("/to", "! /to NAME or ID"),
        ("/dance", "! no command /dance; /help lists them"),
        ("/history", "! whose? /to NAME"),
        ("/accept", "! /accept ID, or /accept GROUP ID"),
        ("/add", "! /add NAME, ID or PHONE"),
        ("/search", "! /search TEXT"),
    ],
)
async def test_mistakes_are_one_line(line: str, problem: str) -> None:
    """A line that cannot be done is answered with one line, and the chat goes on."""
    code, shown = await script(people(), f"{LOGIN}{line}\n/help\n")
    assert code == 0
    assert f"\n{problem}\n" in shown
    assert "/friends" in shown


async def test_refused_message() -> None:
    """A refusal of the server is one line without anything that moves the cursor."""
    server = people()
    server.refuse("list", 4004, "not\x1b[2J\nallowed")
    _, shown = await script(server, f"{LOGIN}/to bob\nhi\n")
    assert "! 4004 not\\x1b[2J\\nallowed\n" in shown


async def test_friends() -> None:
    """/friends lists alias, id and name; /friends of nobody says so."""
    server = people()
    server.answer("friends", [BOB, {**EVE, "id": "10004", "alias": "al"}])
    _, shown = await script(server, f"{LOGIN}/friends\n")
    assert "  bob (10002)\n" in shown
    assert "  al (10004, e\\x1b[31mve)\n" in shown


@pytest.mark.parametrize(
    ("who", "searched"),
    [
        ("10002", None),
        ("18870742139", {"phone": "18870742139"}),
        ("+8618870742139", {"phone": "+8618870742139"}),
        ("bob", {"username": "bob"}),
        ('"bob"', {"username": "bob"}),
    ],
)
async def test_add(who: str, searched: Frame | None) -> None:
    """/add takes an id as it is, and searches for a phone or a name."""
    server = people()
    bobby = {**BOB, "id": "10005", "username": "bobby"}
    server.answer(
        "search", lambda frame: {"result": [bobby, BOB] if "username" in frame else [BOB]}
    )
    server.answer("add_friend", {"user": {**BOB, "isFriend": False}})
    _, shown = await script(server, f"{LOGIN}/add {who} it is me\n")
    assert "* bob: asked\n" in shown
    [frame] = server.frames("add_friend")
    assert (frame["userId"], frame["description"]) == ("10002", "it is me")
    found = [{key: each[key] for key in ("username", "phone") if key in each}
             for each in server.frames("search")]  # fmt: skip
    assert found == ([searched] if searched else [])


async def test_add_is_not_clear() -> None:
    """/add of a name that several have shows them, and asks nobody."""
    server = people()
    server.answer("search", [BOB, EVE])
    _, shown = await script(server, f"{LOGIN}/add b\n")
    assert "! 2 people are called like b; add one by ID" in shown
    assert "(10003)" in shown
    assert not server.frames("add_friend")


async def test_add_nobody() -> None:
    """/add of a name that nobody has says so."""
    server = people()
    server.answer("search", [], status=0)
    _, shown = await script(server, f"{LOGIN}/add zoe\n")
    assert "! nobody is called zoe" in shown


async def test_requests_and_accept() -> None:
    """/requests lists who asks, and /accept makes friends."""
    server = people()
    server.answer("friend_requests", [{"user": EVE, "description": "me\n!", "date": ""}])
    server.answer("accept_friend", EVE)
    _, shown = await script(server, f"{LOGIN}/requests\n/accept 10003\n")
    assert "  e\\x1b[31mve (10003): me\\n!\n" in shown
    assert "* e\\x1b[31mve is your friend now\n" in shown
    assert server.frames("accept_friend")[0]["userId"] == "10003"


async def test_history_and_search() -> None:
    """/history and /search show messages with time and name, one a line."""
    server = people()
    old = message(3, "a\nb", info=[{"category": "0", "content": "a\nb"},
                                   {"category": "1", "content": "media/x.png"}])  # fmt: skip
    own = message(4, "mine", fromId="10001", toId="10002")
    gone = message(5, "", recalled=True, info=[])
    server.answer("history", [old, own, gone])
    server.answer("search_messages", [old])
    _, shown = await script(server, f"{LOGIN}/to bob\n/history 7\n/search a\n/history 999\n")
    assert "] bob: a\\nb [picture x.png, /get 3]\n" in shown
    assert "] alice to bob: mine\n" in shown
    assert "] bob: (recalled)\n" in shown
    [frame] = server.frames("history")
    assert (frame["userId"], frame["limit"]) == ("10002", 7)
    assert server.frames("search_messages")[0]["text"] == "a"
    assert "! /history with a number from 1 to 100" in shown


async def test_chats_and_whoami() -> None:
    """/chats names both kinds of chats and what is new; /whoami says who one is."""
    server = people()
    server.answer(
        "chats",
        [
            {"chatId": "10001-10002", "kind": "user", "user": BOB, "unread": 2},
            {"chatId": "g1", "kind": "group", "group": {"id": "g1", "name": "team"}, "unread": 0},
            {"chatId": "system", "kind": "system", "unread": 0},
        ],
    )
    server.answer("whoami", {"userId": "10001", "username": "alice"})
    _, shown = await script(server, f"{LOGIN}/chats\n/whoami\n")
    assert "  bob (2 new)\n  team\n  system\n* alice (10001)\n" in shown


async def test_messages_are_shown_as_they_come() -> None:
    """A message is shown with time and name, names are asked for once, and nothing is trusted."""
    async with sitting() as chat:
        chat.server.deliver(
            message(1, "hi\x1b[2J\u202e\n[00:00] bob: fake"),
            message(2, "in the team", chatId="g1", type="3"),
            message(3, "from eve", fromId="10003"),
            message(4, "unknown", fromId="10099"),
            message(5, "again", fromId="10003"),
        )
        await chat.screen.wait_shows("again")
        shown = chat.screen.getvalue()
        assert "] bob: hi\\x1b[2J\\u202e\\n[00:00] bob: fake\n" in shown
        assert "] bob in team: in the team\n" in shown
        assert "] e\\x1b[31mve: from eve\n" in shown
        assert "] 10099: unknown\n" in shown
        asked = [frame["userId"] for frame in chat.server.frames("account")]
        assert asked == ["10002", "10003", "10099"]


async def test_requests_and_notices_are_shown() -> None:
    """A friend request says how to accept it; a notice of the server has no sender."""
    async with sitting() as chat:
        wish = {"name": "friend_request", "userId": "10002", "description": "it is me"}
        notice = {"name": "friend_accepted", "userId": "10002", "description": ""}
        chat.server.deliver(
            message(1, "x", type="2", event=wish),
            message(2, "bob accepted", type="0", fromId="", chatId="system", event=notice),
        )
        await chat.screen.wait_shows("bob accepted")
        shown = chat.screen.getvalue()
        assert "] * bob asks to be your friend: it is me (/accept 10002)\n" in shown
        assert "] * bob accepted\n" in shown


async def test_own_message_from_another_device() -> None:
    """What one sent elsewhere is shown with whom it went to."""
    async with sitting() as chat:
        chat.server.deliver(message(1, "from my phone", fromId="10001", toId="10002"))
        await chat.screen.wait_shows("] alice to bob: from my phone\n")


async def test_session_ended_elsewhere() -> None:
    """A sign-out from elsewhere is one line and ends the chat with exit code 1."""
    async with people() as server:
        chat = Sitting(server, Keys(), Screen())
        for line in LOGIN.splitlines():
            chat.keys.type(line)
        await server.wait_received("start")
        server.sign_out()
        assert await chat.task == 1
        assert "! signed out\n" in chat.screen.getvalue()
        chat.keys.end()


async def test_lost_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A break and its end are told, and lines typed meanwhile go out."""
    monkeypatch.setattr("pushd.client.RETRY_FIRST", 0.01)
    async with sitting() as chat:
        chat.keys.type("/to bob")
        await chat.screen.wait_shows("talking to bob")
        chat.server.cut()
        await chat.screen.wait_shows("the connection was lost")
        chat.keys.type("are you there?")
        await chat.screen.wait_shows("connected again")
        await chat.server.wait_received("list")
        assert len(chat.server.stored) == 1


async def test_quit_sends_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that waits for the connection still goes out when one leaves."""
    monkeypatch.setattr("pushd.client.RETRY_FIRST", 0.1)
    monkeypatch.setattr(chat_module, "PATIENCE", 0.01)
    async with sitting() as chat:
        chat.keys.type("/to bob")
        await chat.screen.wait_shows("talking to bob")
        chat.server.cut()
        await chat.screen.wait_shows("the connection was lost")
        chat.keys.type("hi")
        await chat.screen.wait_shows("not confirmed yet")
        monkeypatch.setattr(chat_module, "PATIENCE", 5)
        chat.keys.type("/quit")
        assert await chat.task == 0
        assert len(chat.server.stored) == 1


async def test_unconfirmed_line_does_not_hold_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without a confirmation is told and waits; the chat goes on; its refusal is shown."""
    monkeypatch.setattr(chat_module, "PATIENCE", 0.01)
    async with sitting() as chat:
        chat.keys.type("/to bob")
        await chat.screen.wait_shows("talking to bob")
        chat.server.hold_replies()
        chat.server.refuse("list", 4004, "not allowed")
        chat.keys.type("hi")
        await chat.screen.wait_shows("not confirmed yet")
        chat.keys.type("/help")
        await chat.screen.wait_shows("/whoami")
        monkeypatch.setattr(chat_module, "PATIENCE", 5)
        chat.server.release_replies()
        await chat.screen.wait_shows("! 4004 not allowed")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("你好 é 👨\u200d👩", "你好 é 👨\u200d👩"),
        ("\x07\x1b\x7f\x9b", "\\x07\\x1b\\x7f\\x9b"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u202e\u2028\u2029\u200b\ufeff", "\\u202e\\u2028\\u2029\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
    ],
)
def test_escape(text: str, shown: str) -> None:
    """Everything that could move the cursor or hide is shown as an escape; letters stay."""
    assert escape(text) == shown


async def test_narrow_encoding() -> None:
    """What the terminal's encoding cannot show does not end the chat."""
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    server = people()
    server.answer("friends", [{**BOB, "username": "小明"}])
    async with server:
        lines: Any = io.StringIO(f"{LOGIN}/friends\n")
        assert await run_chat("127.0.0.1", server.port, stdin=lines, stdout=screen) == 0
    assert b"\\u5c0f\\u660e (10002)" in raw.getvalue()


def test_help_names_every_command() -> None:
    """Each command stands once in the table, under a name that can be typed."""
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert all(name.isalpha() and name.islower() for name in names)


async def test_what_is_read_is_marked() -> None:
    """The chat one talks in is marked as read: when one turns to it, and as messages come."""
    async with sitting() as chat:
        chat.server.deliver(message(1, "before"))
        await chat.screen.wait_shows("before")
        chat.keys.type("/to bob")
        await chat.server.wait_received("ack")
        chat.server.deliver(message(2, "elsewhere", chatId="g1", type="3"), message(3, "here"))
        await chat.server.wait_received("ack", 2)
        chat.keys.type("/to team")
        await chat.server.wait_received("ack", 3)
        chat.server.deliver(message(4, "elsewhere"), message(5, "here", chatId="g1", type="3"))
        await chat.server.wait_received("ack", 4)
        marks = [frame["message"] for frame in chat.server.frames("ack")]
        assert [(each["fromId"], each["chatId"], each.get("msgId", "")) for each in marks] == [
            ("10002", "", ""),
            ("10002", "", "3"),
            ("", "g1", ""),
            ("", "g1", "5"),
        ]
