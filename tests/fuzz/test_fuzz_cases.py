"""Reports of what broke comparable servers, tried on this one as they were written."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz.core import PASSWORD, PHONES, World, pieces_of

Frame = dict[str, Any]

LOGIN: Frame = {"cmd": "login", "phone": PHONES[0], "password": PASSWORD}
START: Frame = {"message": "start", "pushId": ""}
AFTER_LOGIN = 1_048_576


@pytest.fixture
def world() -> Iterator[World]:
    """A server in this thread."""
    with World() as found:
        yield found


def lines(*frames: Frame | bytes) -> bytes:
    """Put frames into one packet."""
    made = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in frames]
    return b"".join(line + b"\n" for line in made)


def ask(world: World, *frames: Frame | bytes, login: Frame = LOGIN) -> list[Frame]:
    """Log in, send frames, and give the answers to them."""
    return world.exchange([lines(login, *frames)])[1:]


def say(text: str, client_id: str) -> Frame:
    """Make a list of one text to the second person."""
    info = [{"category": "0", "content": text}]
    message = {"toId": "10002", "type": "1", "info": info, "clientId": client_id}
    return {"message": [message], "id": client_id}


def texts(world: World) -> list[str]:
    """Give what the second person reads in the chat with the first."""
    login = {**LOGIN, "phone": PHONES[1]}
    [reply] = ask(world, {"cmd": "history", "userId": "10001"}, login=login)
    return [each["info"][0]["content"] for each in reply["result"] if "event" not in each]


@pytest.mark.slow
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_at_every_limit(world: World, end: bytes) -> None:
    """The limits count bytes, whatever letter lies on them and however the line comes."""
    for size, step in (
        (65_536, 1),
        (65_537, 1),
        (AFTER_LOGIN - 1, 4093),
        (AFTER_LOGIN, 4093),
        (AFTER_LOGIN + 1, 4093),
    ):
        for lead in range(4 if step > 1 else 1):
            head = b'{"cmd":"ping","x":"' + b"." * lead
            room = size - len(head) - 2
            filler = "\U0001f600".encode() * (room // 4)
            line = head + filler + b"." * (room - len(filler)) + b'"}'
            assert len(line) == size
            data = line + end
            pieces = [data[at : at + step] for at in range(0, len(data), step)]
            replies = world.exchange([lines(LOGIN), *pieces])[1:]
            assert [each["status"] for each in replies] == [1 if size <= AFTER_LOGIN else 4001]


def test_bad_frames_in_a_row(world: World) -> None:
    """Nine, a good one and nine more are answered one by one; the tenth running is the last."""
    bad = [b"[]", b'"x"', b"null", b'{"cmd":["ping"]}', b'{"cmd":"ping","id":{}}', b"{"]
    bad += [b'{"cmd":"ping","x":NaN}', b"[" * 4000, b'{"message":7}']
    replies = world.exchange([lines(*bad, {"cmd": "ping"}, *bad, b"{}", *bad, b"[]", b"null")])
    statuses = [each["status"] for each in replies]
    assert statuses[9] == statuses[19] == 1
    assert len(statuses) == 30
    assert set(statuses[:9] + statuses[10:19] + statuses[20:]) == {4000, 4003}


def test_duplicate_keys(world: World) -> None:
    """The last one counts."""
    [reply] = ask(world, b'{"cmd":"ping","cmd":"logout"}')
    assert (reply["cmd"], reply["status"]) == ("logout", 1)


@pytest.mark.slow
def test_nothing_crosses_a_change_of_state() -> None:
    """What is pipelined behind a failed login or a logout counts as what it is, for any split."""
    wrong = {**LOGIN, "password": "wrong-password"}
    sent = [wrong, START, say("0", "c0"), {"cmd": "ping"}, LOGIN, START, say("1", "c1")]
    sent += [say("2", "c2"), {"cmd": "logout"}, say("3", "c3")]
    data = lines(*sent)
    for seed in range(30):
        dice = random.Random(seed)
        cuts = [dice.randrange(len(data)) for _ in range(dice.randrange(60))]
        with World() as world:
            found = world.exchange(pieces_of(data, cuts))
            replies = [each for each in found if isinstance(each["message"], str)]
            statuses = [each["status"] for each in replies]
            assert statuses == [10000, 11001, 11001, 1, 1, 1, 1, 1, 1, 11001]
            assert [each["id"] for each in replies if "id" in each] == ["c0", "c1", "c2", "c3"]
            assert texts(world) == ["x", "1", "2"]


def test_spellings_of_a_phone(world: World) -> None:
    """Each spelling is the one account, or refused; number and string agree."""
    account = {"cmd": "register", "phone": 18870742138, "password": PASSWORD}
    [made] = world.exchange([lines(account)])
    number = made["result"]["user"]["id"]
    spellings = ['"18870742138"', "18870742138", '"+8618870742138"', '"008618870742138"']
    spellings += ['"86 188-7074-2138"', '"１８８７０７４２１３８"', '" 18870742138"', "true"]
    spellings += ['"18870742138 "', "1.8870742138e10", "18870742138.0", '"018870742138"']
    outcomes = {}
    for each in spellings:
        for cmd in ("login", "register"):
            line = f'{{"cmd":"{cmd}","phone":{each},"password":"{PASSWORD}"}}'.encode()
            [reply] = world.exchange([line])
            if reply["status"] == 1:
                assert (cmd, reply["result"]["user"]["id"]) == ("login", number), (each, reply)
            else:
                assert reply["status"] in (7001, 8000, 8001, 4003), (each, reply)
            outcomes[each, cmd] = reply["status"]
        line = f'{{"cmd":"search","phone":{each}}}'.encode()
        [found] = ask(world, line)
        assert found["status"] in (0, 1, 4003), (each, found)
        assert {user["id"] for user in found["result"]} <= {number}
        assert (found["status"] == 1) == (outcomes[each, "login"] == 1), each
    assert outcomes['"18870742138"', "login"] == outcomes["18870742138", "login"] == 1


def test_searched_parts_of_names(world: World) -> None:
    """Matching is folded and literal: case, composition, wildcards, Chinese, one letter."""
    names = ["Ärzte", "中国人民", "İstanbul", "ſtraße", "a_b", "axb", "100%", "a\\b", "'; --"]
    for number, name in enumerate(names):
        phone = f"1390000{number:04}"
        fields = {"phone": phone, "password": PASSWORD, "username": name}
        [reply] = world.exchange([lines({"cmd": "register", **fields})])
        assert reply["status"] == 1, reply
    for twin in ("ärzte", "ÄRZTE", "A\u0308RZTE"):
        fields = {"phone": "13900009999", "password": PASSWORD, "username": twin}
        [reply] = world.exchange([lines({"cmd": "register", **fields})])
        assert reply["status"] == 7000, twin
    wanted = {
        "国人": ["中国人民"],
        "_": ["a_b"],
        "%": ["100%"],
        "\\": ["a\\b"],
        "ä": ["Ärzte"],
        "A\u0308R": ["Ärzte"],
        "STRASSE": ["straße"],  # its normal form
        "'; --": ["'; --"],
        "x": ["axb"],
        "": [],
        "x" * 300: [],
    }
    for part, found in wanted.items():
        [reply] = ask(world, {"cmd": "search", "username": part})
        assert [user["username"] for user in reply["result"]] == found, part
        assert reply["status"] == (1 if found else 0)
        assert reply["message"] == "ok"


def test_history_of_one_moment(world: World) -> None:
    """Messages of one and the same time are paged each once while new ones arrive."""
    ask(world, *(say(f"m{n}", f"m{n}") for n in range(45)))
    seen: list[str] = []
    before: Frame = {}
    new = 0
    while True:
        asked = {"cmd": "history", "userId": "10002", "limit": 10, **before}
        reply = ask(world, asked, *(say("new", f"n{new + k}") for k in range(3)))[0]
        new += 3
        seen[:0] = [each["msgId"] for each in reply["result"]]
        if "next" not in reply:
            break
        before = {"before": reply["next"]}
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen, key=int)
    assert len(seen) >= 46


@pytest.mark.parametrize("page", [0, 1, 2, 99, "0", "2", "99"])
def test_pages_that_are(world: World, page: int | str) -> None:
    """Page 0 is the first, and there is nothing behind the last."""
    [reply] = ask(world, {"cmd": "friends", "page": page})
    assert reply["status"] == 1
    assert len(reply["result"]) == (1 if str(page) == "0" else 0)


@pytest.mark.parametrize("page", [-1, "-1", "x", 1.5, True, [], "2.0", "²", 10**40])
def test_pages_that_are_not(world: World, page: object) -> None:
    """Anything else is 4003."""
    [reply] = ask(world, {"cmd": "friends", "page": page})
    assert (reply["status"], reply["field"]) == (4003, "page")


def test_places_in_a_history(world: World) -> None:
    """Foreign and invented ids, and both at once, show nothing of others."""
    foreign = world.foreign["msgId"]
    for fields, statuses in (
        ({"userId": "10002", "before": foreign}, {1}),
        ({"userId": "10002", "before": "999999"}, {1}),
        ({"userId": "10002", "before": "x"}, {4003, 4005}),
        ({"userId": "10002", "before": foreign, "after": foreign}, {4003}),
        ({"chatId": world.foreign["chatId"]}, {4004, 4005}),
        ({"chatId": world.foreign["groupId"]}, {4004, 4005}),
    ):
        [reply] = ask(world, {"cmd": "history", **fields})
        assert reply["status"] in statuses, (fields, reply)
        assert '"y"' not in json.dumps(reply)


NAMES = ["../../x", "/etc/x", "a\\..\\b", "C:\\x", ".", "", "con", "x.png\n", "media/aa/x", "..."]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_are_labels(world: World, name: str) -> None:
    """No name leads out of the folder, or is part of a path at all."""
    before = {path for path in world.folder.rglob("*") if path.is_file()}
    asked = {"cmd": "save_file", "name": name, "content": "PGh0bWw+PC9odG1sPg=="}
    save, get = ask(world, asked, {"cmd": "get_file", "path": "media/../pushd.db"})
    assert save["status"] == 1
    assert get["status"] == 4005
    path = save["result"]["path"]
    made = {path for path in world.folder.rglob("*") if path.is_file()} - before
    assert {str(each.relative_to(world.folder)) for each in made} == {path}
    [read] = ask(world, {"cmd": "get_file", "path": path})
    assert read["result"]["mime"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "a" * 300}, 4003),
        ({"name": "a\0b"}, 4003),
        ({"content": ""}, 8005),
        ({"content": "*"}, 8005),
        ({"content": "aGVs bG8="}, 1),
        ({"md5": "5d41402abc4b2a76b9719d911017c592"}, 1),
        ({"md5": "5D41402ABC4B2A76B9719D911017C592"}, 1),
        ({"md5": "00000000000000000000000000000000"}, 8005),
        ({"content": "A" * 4 * (700 * 1024 // 3 + 1)}, 8005),
    ],
)
def test_contents_of_files(world: World, fields: Frame, status: int) -> None:
    """What is no content, too large or of another md5 is refused, and nothing is stored."""
    before = sorted(world.folder.rglob("media/??/*"))
    [reply] = ask(world, {"cmd": "save_file", "name": "x", "content": "aGVsbG8=", **fields})
    assert reply["status"] == status, reply
    if status != 1:
        assert sorted(world.folder.rglob("media/??/*")) == before


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"offset": -1}, 4003),
        ({"offset": 6}, 4003),
        ({"offset": 5}, 1),
        ({"length": 2**31}, 4003),
        ({"length": 0}, 4003),
        ({"path": "foreign"}, 4005),
        ({"path": "media/../pushd.db"}, 4005),
        ({"path": "/etc/passwd"}, 4005),
    ],
)
def test_pieces_of_files(world: World, fields: Frame, status: int) -> None:
    """Only pieces that there are, and only of files that one may read."""
    if fields.get("path") == "foreign":
        fields = {"path": world.foreign["path"]}
    [reply] = ask(world, {"cmd": "get_file", "path": world.known["path"], **fields})
    assert reply["status"] == status, reply
