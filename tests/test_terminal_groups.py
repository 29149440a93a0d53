"""People and groups at the terminal: commands, lists, and what is told of them."""

import pytest

from tests.fake_server import ACCOUNT, FakeServer, Frame, message
from tests.sitting import BOB, EVE, LOGIN, people, script, sitting

TEAM = {"id": "g1", "name": "team", "kind": "tag", "members": 2, "role": "owner"}
CLUB = {"id": "g2", "name": "book\x07club", "kind": "group", "members": 1, "role": "admin"}


def crowd() -> FakeServer:
    """Give a server with two groups, whose members are alice, bob and eve."""
    server = people()
    server.answer("my_groups", [TEAM, CLUB])
    rows = [(ACCOUNT["user"], "owner"), (BOB, "member"), (EVE, "member")]
    server.answer("group_members", [{"user": user, "role": role} for user, role in rows])
    return server


@pytest.mark.parametrize(
    ("line", "cmd", "fields"),
    [
        ("/group trip", "create_group", {"name": "trip", "kind": "group"}),
        ("/group summer trip tag", "create_group", {"name": "summer trip", "kind": "tag"}),
        ('/group "hash tag" link', "create_group", {"name": "hash tag", "kind": "link"}),
        ("/group tag", "create_group", {"name": "tag", "kind": "group"}),
        ("/join g7 let me in", "join_group", {"groupId": "g7", "description": "let me in"}),
        ("/join g7x_-", "join_group", {"code": "g7x_-"}),
        ("/find book", "search_group", {"name": "book"}),
        ("/invite team bob 10003", "invite", {"groupId": "g1", "userIds": ["10002", "10003"]}),
        ("/kick team e\x1b[31mve", "kick", {"groupId": "g1", "userIds": ["10003"]}),
        ("/role g1 bob admin", "set_role", {"groupId": "g1", "userId": "10002", "role": "admin"}),
        ("/mute g1 bob 60", "mute", {"groupId": "g1", "userId": "10002", "seconds": 60}),
        ("/rename team the crew", "update_group", {"groupId": "g1", "name": "the crew"}),
        ("/notice team be nice", "update_group", {"groupId": "g1", "notice": "be nice"}),
        ("/notice team", "update_group", {"groupId": "g1", "notice": ""}),
        ("/leave team", "leave_group", {"groupId": "g1"}),
        ("/dissolve TEAM", "dissolve_group", {"groupId": "g1"}),
        ("/accept team 10003", "accept_join", {"groupId": "g1", "userId": "10003"}),
        ("/reject team 10003", "reject_join", {"groupId": "g1", "userId": "10003"}),
        ("/reject 10003", "reject_friend", {"userId": "10003"}),
        ("/alias bob my bro", "set_alias", {"userId": "10002", "alias": "my bro"}),
        ("/unfriend bob", "delete_friend", {"userId": "10002"}),
        ("/block bob", "block", {"userId": "10002"}),
        ("/unblock e\x1b[31mve", "unblock", {"userId": "10003"}),
        ("/recall 17", "recall", {"msgId": "17"}),
    ],
)
async def test_commands_of_people_and_groups(line: str, cmd: str, fields: Frame) -> None:
    """Names become ids, and words in quotes or at the end of a line stay together."""
    server = crowd()
    server.answer("search_group", [])
    server.answer("blocked", [EVE])
    for each in ("create_group", "join_group"):
        server.answer(each, TEAM)
    for each in ("set_alias", "delete_friend", "block", "unblock"):
        server.answer(each, BOB)
    code, shown = await script(server, f"{LOGIN}{line}\n")
    assert code == 0
    [frame] = server.frames(cmd)
    assert {key: frame.get(key) for key in fields} == fields
    assert "!" not in shown


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/group", "usage: /group NAME [KIND]"),
        ("/join", "usage: /join ID|CODE [TEXT]"),
        ("/invite team", "usage: /invite GROUP USER..."),
        ("/invite nowhere bob", "no group of yours is called nowhere"),
        ("/invite team zoe", "no friend is called zoe"),
        ("/kick team zoe", "nobody in this group is called zoe"),
        ("/role team bob king", "usage: /role GROUP USER ROLE"),
        ("/mute team bob soon", "usage: /mute GROUP USER SECONDS"),
        ("/members", "which group? say its NAME or ID"),
        ("/announce hi", "in which group? /to NAME"),
        ("/accept team zoe", "nobody who asks is called zoe"),
        ('/kick "team bob', 'a " has no other one'),
        ("/recall", "nothing was sent from here yet; /recall MSG"),
        ("/dissolve", "usage: /dissolve GROUP"),
    ],
)
async def test_mistakes_with_groups(line: str, problem: str) -> None:
    """What cannot be done is one line, and nothing is changed."""
    server = crowd()
    server.answer("join_requests", [])
    _, shown = await script(server, f"{LOGIN}{line}\n")
    assert f"! {problem}\n" in shown
    changing = {"create_group", "join_group", "invite", "kick", "set_role", "mute", "recall"}
    assert not changing & {kind for kind, _ in server.received}


async def test_lists_of_groups_and_members() -> None:
    """Groups are listed with what one needs to name them; members with their roles."""
    server = crowd()
    server.answer("my_groups", [{**TEAM, "code": "c0de", "notice": "be\nnice"}, CLUB])
    _, shown = await script(server, f"{LOGIN}/groups\n/members g1\n")
    assert "  team (g1), code c0de, tag of 2, owner: be\\nnice\n" in shown
    assert "  book\\x07club (g2), group of 1, admin\n" in shown
    assert "  alice (10001) owner\n  bob (10002) member\n  e\\x1b[31mve (10003) member\n" in shown


async def test_one_name_for_two() -> None:
    """A name that a friend and a group share is not guessed at; an id is clear."""
    server = crowd()
    server.answer("my_groups", [{**TEAM, "name": "bob"}])
    _, shown = await script(server, f"{LOGIN}/to bob\n/to g1\n")
    assert "  bob (10002)\n  bob (g1)\n! 2 are called bob; say the ID\n" in shown
    assert "* talking in bob (g1)\n" in shown


async def test_leaving_the_group_one_talks_in() -> None:
    """Plain lines go nowhere after one has left the group."""
    server = crowd()
    _, shown = await script(server, f"{LOGIN}/to team\n/leave\nhello?\n")
    assert server.frames("leave_group")[0]["groupId"] == "g1"
    assert "! to whom? /to NAME\n" in shown
    assert not server.stored


async def test_requests_of_both_kinds() -> None:
    """/requests lists who wants to be friends, and who wants to join a group that one leads."""
    server = crowd()
    server.answer("friend_requests", [{"user": BOB, "description": "me"}])
    server.answer("join_requests", [{"user": EVE, "description": "too"}])
    _, shown = await script(server, f"{LOGIN}/requests\n/accept club E\x1b[31mVE\n")
    assert "  bob (10002): me\n  in book\\x07club (g2): e\\x1b[31mve (10003): too\n" in shown
    assert [frame["groupId"] for frame in server.frames("join_requests")] == ["g2"]


async def test_announcement() -> None:
    """/announce goes to the group as type 4, and one that comes is told as such."""
    async with sitting() as chat:
        chat.keys.type("/to team")
        chat.keys.type("/announce we meet at 5")
        await chat.server.wait_received("list")
        assert (chat.server.stored[0]["type"], chat.server.stored[0]["chatId"]) == ("4", "g1")
        chat.server.deliver(message(1, "at 6", chatId="g1", type="4"))
        await chat.screen.wait_shows("] bob in team announces: at 6\n")


EVENTS: list[tuple[Frame, Frame, str]] = [
    (
        {"name": "join_request", "groupId": "g1", "userId": "10003", "description": "a\nb"},
        {"type": "2", "fromId": "10003", "chatId": "g1"},
        "* e\\x1b[31mve asks to join team: a\\nb (/accept g1 10003)",
    ),
    (
        {"name": "joined", "groupId": "g1", "userIds": ["10002"], "by": "10002"},
        {"type": "0", "fromId": "", "chatId": "g1"},
        "* in team: words of\\x1b the server",
    ),
    (
        {
            "name": "group_updated",
            "groupId": "g1",
            "by": "10002",
            "changed": {"name": "cr\x1bew", "notice": "", "muteAll": True},
        },
        {"type": "0", "fromId": "", "chatId": "g1"},
        "* bob changed team: name cr\\x1bew, notice (none), owner and admins may write",
    ),
    (
        {"name": "recalled", "chatId": "g1", "msgId": "12", "by": "10002"},
        {"type": "0", "fromId": "", "chatId": "g1"},
        "* bob took back message 12 in team",
    ),
    (
        {"name": "recalled", "chatId": "10001-10002", "msgId": "12", "by": "10002"},
        {"type": "0", "fromId": "", "chatId": "system"},
        "* bob took back message 12",
    ),
    (
        {"name": "friend_request", "userId": "10001", "description": "it is me"},
        {"type": "2", "fromId": "10001", "toId": "10002"},
        "* you asked bob to be friends: it is me",
    ),
    (
        {"name": "group_updated", "groupId": 7, "by": None, "changed": []},
        {"type": "0", "fromId": "", "chatId": "g1"},
        "*  changed : ",
    ),
]


@pytest.mark.parametrize(("event", "fields", "line"), EVENTS)
async def test_events_are_readable(event: Frame, fields: Frame, line: str) -> None:
    """What happens in groups is told in words, with names, and never trusted."""
    async with sitting() as chat:
        chat.server.deliver(message(1, "words of\x1b the server", **fields, event=event))
        chat.server.deliver(message(2, "the end"))
        await chat.screen.wait_shows("the end")
        assert f"] {line}\n" in chat.screen.getvalue()


async def test_a_renamed_group_has_its_new_name() -> None:
    """After a rename messages stand in the group of the new name."""
    event = {"name": "group_updated", "groupId": "g1", "by": "10002", "changed": {"name": "crew"}}
    async with sitting() as chat:
        chat.server.deliver(
            message(1, "x", type="0", fromId="", chatId="g1", event=event),
            message(2, "hi", type="3", chatId="g1"),
        )
        await chat.screen.wait_shows("] bob in crew: hi\n")
