"""Section 1, streams: frames in one packet or many, their order, and how a connection ends."""

import random
from itertools import pairwise

import pytest

from .process import StartServer
from .wire import BOM, PING, Dialer, content, encode, frame, lines, padded, pair_chat, text

BEFORE_LOGIN = 4096


class TestPipelining:
    """Frames pipelined in one packet and frames split over many mean the same."""

    async def test_a_thousand_in_one_packet(self, dial: Dialer) -> None:
        """Replies come in the order of the requests."""
        wire = await dial()
        await wire.send_raw(lines(*({"cmd": "ping", "id": n} for n in range(1000))))
        assert [(await wire.reply())["id"] for _ in range(1000)] == list(range(1000))

    async def test_replies_of_all_kinds_keep_the_order(self, dial: Dialer) -> None:
        """Lists that wait for the disk, commands, heartbeats and errors: one order."""
        a, b = await dial.pair()
        await a.send_raw(
            lines(
                frame([text(b.user_id, "1")], id=0),
                {"cmd": "ping", "id": 1},
                frame("", id=2),
                frame([text(b.user_id, "2")], id=3),
                frame([text(b.user_id, "3")], id=4),
                {"cmd": "no_such", "id": 5},
                frame([text("1", "unknown")], id=6),
                frame("start", id=7),
                frame([text(b.user_id, "4")], id="eight"),
                {"cmd": "history", "userId": b.user_id, "id": 9},
                frame(5, id=10),
            )
        )
        replies = [await a.reply() for _ in range(11)]
        assert [each["id"] for each in replies] == [0, 1, 2, 3, 4, 5, 6, 7, "eight", 9, 10]
        statuses = [each["status"] for each in replies]
        assert statuses == [1, 1, 1, 1, 1, 4002, 6004, 11000, 1, 1, 4003]
        got = await b.take(4)
        assert [content(each) for each in got] == ["1", "2", "3", "4"]

    async def test_a_command_sees_what_was_sent_before_it(self, dial: Dialer) -> None:
        """A client sees its own writes, also within one packet."""
        a, b = await dial.pair()
        chat = pair_chat(a, b)
        sends = [frame([text(b.user_id, f"{n}")]) for n in range(20)]
        await a.send_raw(lines(*sends, {"cmd": "history", "chatId": chat, "limit": 20}))
        rows = [(await a.reply())["result"][0] for _ in range(20)]
        shown = (await a.reply())["result"]
        assert [each["msgId"] for each in shown] == [row["msgId"] for row in rows]

    async def test_nothing_starts_before_a_command_is_finished(self, dial: Dialer) -> None:
        """A message behind a command that changes a right meets the changed right."""
        a, b = await dial.pair()
        await a.send_raw(
            lines(
                frame([text(b.user_id, "before")]),
                {"cmd": "delete_friend", "userId": b.user_id},
                frame([text(b.user_id, "after")]),
            )
        )
        assert [(await a.reply())["status"] for _ in range(3)] == [1, 1, 4004]
        [got] = await b.expect_delivery()
        assert content(got) == "before"
        await b.expect_nothing()

    async def test_a_failed_login_changes_nothing_for_what_is_behind(self, dial: Dialer) -> None:
        """Frames behind a login that fails run without a session."""
        known = await dial.user()
        wire = await dial()
        await wire.send_raw(
            lines(
                {"cmd": "login", "phone": known.phone, "password": "wrong-password", "id": 1},
                frame("start", id=2),
                frame([text(known.user_id, "x")], id=3),
                {"cmd": "ping", "id": 4},
            )
        )
        replies = [await wire.reply() for _ in range(4)]
        assert [each["id"] for each in replies] == [1, 2, 3, 4]
        assert [each["status"] for each in replies] == [10000, 11001, 11001, 1]

    @pytest.mark.parametrize("seed", [None, *range(20)])
    async def test_state_changes_in_one_stream(self, dial: Dialer, seed: int | None) -> None:
        """Login, start, messages, logout, message: the same result however it is split."""
        a, b = await dial.pair()
        wire = await dial()
        stream = lines(
            {"cmd": "login", "phone": a.phone, "password": a.password, "id": 1},
            frame("start", id=2),
            frame([text(b.user_id, "1", clientId=f"c1-{seed}")], id=3),
            frame([text(b.user_id, "2", clientId=f"c2-{seed}")], id=4),
            {"cmd": "logout", "id": 5},
            frame([text(b.user_id, "3", clientId=f"c3-{seed}")], id=6),
            {"cmd": "ping", "id": 7},
        )
        for piece in _pieces(stream, seed):
            await wire.send_raw(piece)
        replies = [await wire.reply() for _ in range(7)]
        assert [each["id"] for each in replies] == [1, 2, 3, 4, 5, 6, 7]
        assert [each["status"] for each in replies] == [1, 1, 1, 1, 1, 11001, 1]
        got = await b.take(2)
        assert [content(each) for each in got] == ["1", "2"]
        await b.expect_nothing()

    async def test_slow_password_checks_hold_the_order(self, server: StartServer) -> None:
        """However long the check takes, what is behind it waits and runs with its outcome."""
        own = server(auth_bcrypt_cost=12)
        a, b = await own.dial.pair()
        right = {"cmd": "login", "phone": a.phone, "password": a.password}
        wrong = {**right, "password": "wrong-password"}
        behind = [{"cmd": "whoami"}, frame("start"), frame([text(b.user_id, "x")])]
        wire = await own.dial()
        await wire.send_raw(lines(wrong, *behind, right, *behind))
        replies = [await wire.reply() for _ in range(8)]
        assert [each["status"] for each in replies] == [10000, 1, 11001, 11001, 1, 1, 1, 1]
        assert replies[1]["result"]["userId"] == ""
        assert replies[5]["result"]["userId"] == a.user_id
        [got] = await b.expect_delivery()
        assert content(got) == "x"
        await b.expect_nothing()


def _pieces(stream: bytes, seed: int | None) -> list[bytes]:
    """Cut a stream at random places; without a seed it is one piece."""
    if seed is None:
        return [stream]
    places = sorted(random.Random(seed).sample(range(1, len(stream)), 12))
    edges = [0, *places, len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


class TestEnds:
    """Everything received is answered and flushed, then the server closes."""

    async def test_unterminated_last_line(self, dial: Dialer) -> None:
        """At EOF an unterminated last line counts as a frame."""
        wire = await dial()
        await wire.send_raw(PING)
        wire.half_close()
        [reply] = await wire.rest()
        assert reply["status"] == 1

    async def test_unterminated_nonsense(self, dial: Dialer) -> None:
        """An unterminated last line that is no frame gets its error."""
        wire = await dial()
        await wire.send_raw(b'{"cmd":')
        wire.half_close()
        [reply] = await wire.rest()
        assert reply["status"] == 4000

    @pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", BOM])
    async def test_nothing_to_answer(self, dial: Dialer, data: bytes) -> None:
        """A connection that said nothing is closed without a word."""
        wire = await dial()
        await wire.send_raw(data)
        wire.half_close()
        assert await wire.rest() == []

    async def test_all_that_was_received_is_answered(self, dial: Dialer) -> None:
        """A half-close behind many frames loses no reply, those that wait for the disk too."""
        a, b = await dial.pair()
        sends = [frame([text(b.user_id, f"{n}")], id=n) for n in range(100)]
        last = encode({"cmd": "whoami", "id": 100})
        await a.send_raw(lines(*sends) + last)
        a.half_close()
        replies = await a.rest()
        assert [each["id"] for each in replies] == list(range(101))
        assert {each["status"] for each in replies} == {1}
        got = await b.take(100)
        assert [content(each) for each in got] == [f"{n}" for n in range(100)]

    async def test_unterminated_list_is_delivered(self, dial: Dialer) -> None:
        """An unterminated last list is confirmed and delivered like any other."""
        a, b = await dial.pair()
        await a.send_raw(encode(frame([text(b.user_id, "last")])))
        a.half_close()
        [reply] = await a.rest()
        assert (reply["status"], reply["message"]) == (1, "ok")
        [got] = await b.expect_delivery()
        assert content(got) == "last"

    async def test_password_check_is_waited_for(self, dial: Dialer) -> None:
        """A login at EOF is answered though its check takes a while."""
        known = await dial.user()
        wire = await dial()
        await wire.send_raw(
            encode({"cmd": "login", "phone": known.phone, "password": known.password})
        )
        wire.half_close()
        [reply] = await wire.rest()
        assert (reply["status"], reply["cmd"]) == (1, "login")

    async def test_limit_of_an_unterminated_line(self, dial: Dialer) -> None:
        """The limit holds for the unterminated last line too, to the byte."""
        wire = await dial()
        await wire.send_raw(padded(PING, BEFORE_LOGIN))
        wire.half_close()
        [reply] = await wire.rest()
        assert reply["status"] == 1
        wire = await dial()
        await wire.send_raw(padded(PING, BEFORE_LOGIN + 1))
        wire.half_close()
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    async def test_a_device_stays_reachable(self, dial: Dialer) -> None:
        """A half-close ends a device's connection; its messages wait for the next one."""
        a, b = await dial.pair()
        b.half_close()
        assert await b.rest() == []
        await a.say(b.user_id, "later")
        again, started = await dial.resume(b.push_id)
        assert started["queued"] == 1
        [got] = await again.expect_delivery()
        assert content(got) == "later"

    @pytest.mark.parametrize("started", [False, True])
    async def test_quit(self, dial: Dialer, started: bool) -> None:
        """`quit` answers and closes; what is behind it is not answered."""
        wire = await dial.user(started=True) if started else await dial()
        await wire.send_raw(lines(PING, {"cmd": "quit", "id": 5}, PING, b"x"))
        first, last = await wire.rest()
        assert first["cmd"] == "ping"
        assert (last["cmd"], last["id"], last["status"], last["result"]) == ("quit", 5, 1, {})

    async def test_quit_over_unread_input(self, dial: Dialer) -> None:
        """The reply of `quit` can be read though much input was never read."""
        wire = await dial.user()
        await wire.send_raw(lines({"cmd": "quit"}) + PING * 20_000)
        [reply] = await wire.rest()
        assert reply["cmd"] == "quit"

    async def test_reset_harms_nobody(self, dial: Dialer) -> None:
        """A client that resets its connection in the middle of a frame harms nobody."""
        a, b = await dial.pair()
        wire = await dial()
        await wire.send_raw(b'{"cmd":"pi')
        wire.abort()
        a.abort()
        await b.fence()
