"""Section 1, lines: what is a frame, what is refused, what ends a connection, in which order."""

import json
import re

import pytest

from .wire import (
    BOM,
    PING,
    Dialer,
    Wire,
    content,
    encode,
    frame,
    lines,
    new_phone,
    padded,
    text,
)

BEFORE_LOGIN = 4096
AFTER_LOGIN = 1_048_576

NOT_ONE_OBJECT = {
    "word": b"hello",
    "blanks": b"   x",
    "open": b"{",
    "close": b"}",
    "cut": b'{"cmd":"ping"',
    "cut in a string": b'{"cmd":"pi',
    "text behind": b'{"cmd":"ping"} x',
    "two objects": b'{"cmd":"ping"}{"cmd":"ping"}',
    "array": b"[]",
    "array of an object": b'[{"cmd":"ping"}]',
    "string": b'"ping"',
    "null": b"null",
    "number": b"1",
    "true": b"true",
    "NaN": b'{"cmd":"ping","text":NaN}',
    "Infinity": b'{"cmd":"ping","x":Infinity}',
    "-Infinity": b'{"cmd":"ping","x":[-Infinity]}',
    "bare NaN": b"NaN",
    "lone high surrogate": b'{"cmd":"ping","text":"\\ud83d"}',
    "lone low surrogate": b'{"cmd":"ping","text":"\\ude00"}',
    "surrogates swapped": b'{"cmd":"ping","text":"\\ude00\\ud83d"}',
    "surrogate as bytes": b'{"cmd":"ping","text":"\xed\xa0\xbd"}',
    "no UTF-8": b'{"cmd":"ping","text":"\xff"}',
    "cut UTF-8": b'{"cmd":"ping","text":"\xf0\x9f\x98"}',
    "overlong UTF-8": b'{"cmd":"ping","text":"\xc0\xaf"}',
    "beyond U+10FFFF": b'{"cmd":"ping","text":"\xf4\x90\x80\x80"}',
    "Latin-1": '{"cmd":"ping","text":"é"}'.encode("latin-1"),
    "single quotes": b"{'cmd':'ping'}",
    "comma behind": b'{"cmd":"ping",}',
    "comment": b'{"cmd":"ping"/* x */}',
    "raw control character": b'{"cmd":"ping","text":"a\tb"}',
    "raw NUL": b'{"cmd":"ping","text":"a\x00b"}',
    "NUL behind": b'{"cmd":"ping"}\x00',
    "bad escape": b'{"cmd":"ping","text":"\\x41"}',
    "short escape": b'{"cmd":"ping","text":"\\u12"}',
    "leading zero": b'{"cmd":"ping","x":01}',
    "plus": b'{"cmd":"ping","x":+1}',
    "bare point": b'{"cmd":"ping","x":.5}',
    "hexadecimal": b'{"cmd":"ping","x":0x10}',
    "key without quotes": b'{cmd:"ping"}',
    "key that is a number": b'{1:"ping"}',
    "no colon": b'{"cmd" "ping"}',
    "unsound unknown field": b'{"cmd":"ping","x":{"y":[tru]}}',
    "cut behind a huge number": b'{"id":1e999,"mess',
    "HTTP": b"GET / HTTP/1.1",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


async def assert_usable(wire: Wire) -> None:
    """Require that the connection still answers."""
    await wire.fence()


class TestNotAnObject:
    """4000 is the answer to a line that is not one JSON object."""

    @pytest.mark.parametrize("line", NOT_ONE_OBJECT.values(), ids=NOT_ONE_OBJECT.keys())
    async def test_refused(self, dial: Dialer, line: bytes) -> None:
        """Not decodable as one JSON object: 4000 in the message_set family; it stays usable."""
        wire = await dial()
        reply = await wire.refused(4000, line)
        assert reply["pushId"] == ""
        await assert_usable(wire)

    async def test_depth_100_000(self, dial: Dialer) -> None:
        """Absurd depth is 4000 and never an internal error, open or closed, array or object."""
        wire = await dial.user()
        deep = 100_000
        await wire.refused(4000, b'{"cmd":"ping","x":' + b"[" * deep)
        await wire.refused(4000, b'{"cmd":"ping","x":' + b"[" * deep + b"]" * deep + b"}")
        await wire.refused(4000, b'{"x":' * deep + b"1" + b"}" * deep)
        await wire.refused(4000, b"[" * deep)
        await wire.refused(4000, b'{"message":' + b"[" * deep + b"]" * deep + b"}")
        await assert_usable(wire)

    async def test_depth_before_login(self, dial: Dialer) -> None:
        """Depth in an unknown field is ignored or absurd: an answer, never an internal error."""
        wire = await dial()
        for deep in (10, 100, 1_000, 1_900):
            line = b'{"cmd":"ping","x":' + b"[" * deep + b"]" * deep + b"}"
            reply = await wire.exchange(line)
            assert reply["status"] in (1, 4000), reply
        await wire.fence()
        reply = await wire.exchange(b'{"cmd":"ping","x":[[[[[[[[[[]]]]]]]]]]}')
        assert reply["status"] == 1

    async def test_after_start_it_carries_the_push_id(self, dial: Dialer) -> None:
        """Frames of the server carry this connection's pushId, errors too."""
        wire = await dial.user(started=True)
        reply = await wire.refused(4000, b"nonsense")
        assert reply["pushId"] == wire.push_id


class TestBadField:
    """4003 is the answer to an object with a bad field, and `field` names it."""

    @pytest.mark.parametrize(
        ("line", "field"),
        [
            (b'{"cmd":["ping"]}', "cmd"),
            (b'{"cmd":5}', "cmd"),
            (b'{"cmd":true}', "cmd"),
            (b'{"cmd":{}}', "cmd"),
            (b'{"cmd":""}', "cmd"),
            (b'{"cmd":null}', "cmd"),
            (b'{"cmd":"ping","id":{}}', "id"),
            (b'{"cmd":"ping","id":[1]}', "id"),
            (b'{"cmd":"ping","id":true}', "id"),
            (b'{"cmd":"ping","id":1.5}', "id"),
            (b'{"cmd":"ping","id":9007199254740992}', "id"),
            (b'{"cmd":"ping","id":-9007199254740992}', "id"),
            (b'{"cmd":"ping","id":123456789012345678901234567890}', "id"),
            (b'{"cmd":"ping","id":1e999}', "id"),
            (b'{"cmd":"ping","text":[1e999]}', "text"),
            (b'{"cmd":"ping","zzz":1e999,"text":5}', "text"),
            (b'{"cmd":"ping","id":"a\\u0000"}', "id"),
            (b'{"cmd":"ping","text":5}', "text"),
            (b'{"cmd":"ping","text":["x"]}', "text"),
            (b'{"cmd":"ping","text":"a\\u0000b"}', "text"),
            (b'{"message":5}', "message"),
            (b'{"message":true}', "message"),
            (b'{"message":"hello"}', "message"),
            (b'{"message":"START"}', "message"),
            (b'{"message":"","id":{}}', "id"),
            (b'{"message":[{"toId":"1","expire":-1e999}],"seq":1e999}', "message[0].expire"),
            (b'{"message":"restart","pushId":5}', "pushId"),
            (b'{"message":"restart","pushId":"a\\u0000"}', "pushId"),
        ],
    )
    async def test_named(self, dial: Dialer, line: bytes, field: str) -> None:
        """A wrong type, U+0000, an integer beyond 2^53-1, a bad `cmd`: 4003 with its `field`."""
        wire = await dial()
        reply = await wire.refused(4003, line)
        assert reply["field"] == field
        await assert_usable(wire)

    @pytest.mark.parametrize(
        ("line", "field"),
        [
            (b'{"message":[]}', "message"),
            (b'{"message":[5]}', "message[0]"),
            (b'{"message":[[]]}', "message[0]"),
            (b'{"message":[{"toId":{},"type":"1","info":[]}]}', "message[0].toId"),
            (b'{"cmd":"friends","page":9007199254740992}', "page"),
            (b'{"cmd":"friends","page":[]}', "page"),
            (b'{"cmd":"friends","field":"\\u0000"}', "field"),
            (b'{"cmd":"add_friend","userId":{}}', "userId"),
            (b'{"message":"start","heartbeat":"soon"}', "heartbeat"),
            (b'{"message":"start","heartbeat":9007199254740992}', "heartbeat"),
            (b'{"message":"start","accept":"ack"}', "accept"),
            (b'{"message":"start","accept":[5]}', "accept[0]"),
            (b'{"message":"start","device":5}', "device"),
            (b'{"message":"start","device":"a\\u0000"}', "device"),
        ],
    )
    async def test_named_with_a_session(self, dial: Dialer, line: bytes, field: str) -> None:
        """The path of the bad field is given, indexes included."""
        wire = await dial.user()
        reply = await wire.refused(4003, line)
        assert reply["field"] == field
        await assert_usable(wire)

    async def test_path_into_a_list(self, dial: Dialer) -> None:
        """`field` points into nested lists: `message[1].info[2].content`."""
        wire = await dial.user()
        good = text("10001", "x")
        bad = text("10001", "x")
        bad["info"] = [*good["info"], *good["info"], {"category": "0", "content": 5}]
        reply = await wire.refused(4003, frame([good, bad]))
        assert reply["field"] == "message[1].info[2].content"

    @pytest.mark.parametrize("unit", [b"1", b"{}", b'{"toId":1}', b'{"toId":"\\u0000"}'])
    async def test_a_line_full_of_bad_messages(self, dial: Dialer, unit: bytes) -> None:
        """A list of more messages than a frame holds is refused in a few words, however bad."""
        wire = await dial.user()
        line = b'{"message":[%b]}' % b",".join([unit] * (AFTER_LOGIN // (len(unit) + 2)))
        reply = await wire.refused(4003, line)
        assert reply["field"] == "message"
        assert "failed" not in reply

    @pytest.mark.parametrize(
        "shown",
        [
            {},
            {"content": "ok"},
            {"fromId": "10001", "content": "no"},
            {"fromId": "10001", "toId": "10002"},
            {"fromId": "10001", "toId": "10002", "content": 5},
            {"fromId": [], "toId": "10002", "content": "ok"},
            {"fromId": "10001", "toId": {}, "content": "ok"},
            {"chatId": 5.5, "content": "ok"},
        ],
    )
    async def test_bad_ack_object(self, dial: Dialer, shown: dict[str, object]) -> None:
        """A bad or incomplete ack object: 4003 with `field`."""
        wire = await dial.user(started=True)
        reply = await wire.refused(4003, frame(shown))
        assert reply["field"].startswith("message")
        await assert_usable(wire)

    async def test_largest_integers(self, dial: Dialer) -> None:
        """2^53-1 is an integer like others, on both sides of zero."""
        wire = await dial()
        for number in (9007199254740991, -9007199254740991, 0):
            reply = await wire.exchange({"cmd": "ping", "id": number})
            assert (reply["status"], reply["id"]) == (1, number)

    async def test_last_duplicate_key_counts(self, dial: Dialer) -> None:
        """Of duplicate keys the last one counts."""
        wire = await dial()
        reply = await wire.exchange(b'{"cmd":"whoami","cmd":"ping","text":5,"text":"b"}')
        assert (reply["status"], reply["cmd"], reply["result"]) == (1, "ping", {"text": "b"})
        reply = await wire.exchange(b'{"message":"start","message":""}')
        assert (reply["status"], reply["message"]) == (1, "")
        # Inside messages and infos too, also when the first one is bad: what is left is no login.
        info = b'{"category":[],"category":"0","content":5,"content":"x"}'
        for infos in (info, b"[%b]" % info):
            line = b'{"message":[{"type":{},"type":"1","toId":"10001","info":%b}]}' % infos
            assert (await wire.exchange(line))["status"] == 11001

    async def test_infos_that_are_none(self, dial: Dialer) -> None:
        """What is no info is a bad field with its place, between sound ones too."""
        wire = await dial()
        for bad in (b"5", b'"a"', b"null", b"[]"):
            line = b'{"message":[{"type":"1","info":[{"content":"x"},%b]}]}' % bad
            assert (await wire.refused(4003, line))["field"] == "message[0].info[1]"
        await assert_usable(wire)

    async def test_nesting_at_the_edge(self, dial: Dialer) -> None:
        """However deep a line is nested, it gets an answer."""
        for depth in range(880, 1010):
            wire = await dial()
            deep = b"[" * depth + b"]" * depth
            line = b'{"id":"x","message":{"x":%b,"content":5}}' % deep
            assert (await wire.exchange(line))["status"] in (4000, 4003)
            wire.close()

    async def test_unknown_fields_are_ignored(self, dial: Dialer) -> None:
        """Unknown fields must only be sound JSON: no type, size or character of them matters."""
        wire = await dial()
        junk = b'"a":null,"b":[1,{"c":[]}],"d":9007199254740993,"e":"\\u0000","f":1.5e300,"":0,'
        reply = await wire.exchange(b"{" + junk + b'"cmd":"ping"}')
        assert reply["status"] == 1
        reply = await wire.exchange(b"{" + junk + b'"message":""}')
        assert (reply["status"], reply["message"]) == (1, "")

    async def test_absent_null_and_empty_are_the_same(self, dial: Dialer) -> None:
        """`null` and `""` in an optional field mean that it is absent."""
        wire = await dial()
        for value in (b"null", b'""'):
            reply = await wire.exchange(b'{"cmd":"ping","id":%s,"text":%s}' % (value, value))
            assert reply["status"] == 1
            assert "id" not in reply
        reply = await wire.exchange(b'{"status":null,"pushId":null,"message":null,"id":null}')
        assert (reply["status"], reply["message"]) == (1, "")
        assert "id" not in reply


class TestTenBadLines:
    """Ten lines in a row answered 4000 or 4003 close a connection."""

    async def test_the_tenth_closes(self, dial: Dialer) -> None:
        """The tenth gets its error like the others, then no further frame."""
        wire = await dial()
        bad = [b"x", b'{"cmd":5}'] * 5
        await wire.send_raw(lines(*bad, PING, b"x", PING))
        replies = await wire.rest()
        assert [each["status"] for each in replies] == [4000, 4003] * 5

    async def test_closed_cleanly_over_unread_input(self, dial: Dialer) -> None:
        """A closing error can be read to its end though much input was never read."""
        wire = await dial()
        await wire.send_raw(b"x\n" * 10 + PING * 20_000)
        replies = await wire.rest()
        assert [each["status"] for each in replies] == [4000] * 10

    @pytest.mark.parametrize(
        "good", [PING, b'{"message":""}', b'{"cmd":"no_such"}', b'{"cmd":"friends"}']
    )
    async def test_any_other_line_resets(self, dial: Dialer, good: bytes) -> None:
        """Any other line resets the count, one refused with another status too."""
        wire = await dial()
        for _ in range(2):
            for _ in range(9):
                await wire.refused(4000, b"x")
            reply = await wire.exchange(good)
            assert reply["status"] not in (4000, 4003)
        await assert_usable(wire)

    @pytest.mark.parametrize("blank", [b"\n", b"\r\n"])
    async def test_a_blank_line_resets(self, dial: Dialer, blank: bytes) -> None:
        """A blank line resets the count too."""
        wire = await dial()
        await wire.send_raw((b"x\n" * 9 + blank) * 3)
        for _ in range(27):
            assert (await wire.reply())["status"] == 4000
        await assert_usable(wire)

    async def test_other_connections_are_untouched(self, dial: Dialer) -> None:
        """Nobody else's connection is closed, the same account's neither."""
        a = await dial.user(started=True)
        b = await dial()
        await b.login(a.phone)
        await b.send_raw(b"x\n" * 10)
        assert len(await b.rest()) == 10
        await assert_usable(a)


class TestLimits:
    """The limits count the bytes before the line end: 4 KiB before login, 1 MiB after."""

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    @pytest.mark.parametrize("size", [BEFORE_LOGIN - 1, BEFORE_LOGIN])
    async def test_before_login_up_to_the_limit(self, dial: Dialer, size: int, end: bytes) -> None:
        """A line of 4,096 bytes before its `\\n` or `\\r\\n` is answered."""
        wire = await dial()
        await wire.send_raw(padded(PING, size) + end)
        assert (await wire.reply())["status"] == 1
        await assert_usable(wire)

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    async def test_before_login_one_more(self, dial: Dialer, end: bytes) -> None:
        """A line of 4,097 bytes is answered with 4001, and the connection is closed."""
        wire = await dial()
        await wire.send_raw(padded(PING, BEFORE_LOGIN + 1) + end + PING + b"\n")
        [reply] = await wire.rest()
        assert reply["status"] == 4001
        assert reply["message"] not in ("", "ok")
        assert reply["pushId"] == ""

    async def test_carriage_return_inside_counts(self, dial: Dialer) -> None:
        """Only a carriage return right before the `\\n` belongs to the line end."""
        wire = await dial()
        await wire.send_raw(padded(PING, BEFORE_LOGIN) + b"\r\r\n")
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    async def test_byte_by_byte(self, dial: Dialer, end: bytes) -> None:
        """Where the packets are cut makes no difference to the limit."""
        wire = await dial()
        await wire.send_pieces(padded(PING, BEFORE_LOGIN, "😀") + end)
        assert (await wire.reply())["status"] == 1
        await wire.send_pieces(padded(PING, BEFORE_LOGIN + 1, "😀")[: BEFORE_LOGIN + 1])
        await wire.send_raw(end)
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    async def test_no_line_end_at_all(self, dial: Dialer) -> None:
        """An endless line is refused without waiting for its end, and read as a clean close."""
        wire = await dial()
        await wire.send_raw(b"x" * 400_000)
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    async def test_no_line_end_just_over(self, dial: Dialer) -> None:
        """Two bytes over, a carriage return cannot save it: the answer comes at once."""
        wire = await dial()
        await wire.send_raw(b"x" * (BEFORE_LOGIN + 2))
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    async def test_frames_before_it_are_answered(self, dial: Dialer) -> None:
        """What came before the long line is answered first, in order."""
        wire = await dial()
        await wire.send_raw(lines(PING, b'{"message":""}') + b"x" * 5000 + b"\n")
        replies = await wire.rest()
        assert [each["status"] for each in replies] == [1, 1, 4001]

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    @pytest.mark.parametrize("size", [65_535, 65_536, 65_537, AFTER_LOGIN - 1, AFTER_LOGIN])
    async def test_after_login_up_to_the_limit(self, dial: Dialer, size: int, end: bytes) -> None:
        """A line of 1,048,576 bytes is answered, and no library's own limit bites below."""
        wire = await dial.user()
        await wire.send_raw(padded(PING, size) + end)
        assert (await wire.reply())["status"] == 1
        await assert_usable(wire)

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    async def test_after_login_one_more(self, dial: Dialer, end: bytes) -> None:
        """A line of 1,048,577 bytes is answered with 4001 and the connection closed."""
        wire = await dial.user(started=True)
        await wire.send_raw(padded(PING, AFTER_LOGIN + 1) + end)
        [reply] = await wire.rest()
        assert reply["status"] == 4001
        assert reply["pushId"] == wire.push_id

    @pytest.mark.parametrize("lead", [0, 1, 2, 3])
    async def test_the_limit_falls_inside_a_character(self, dial: Dialer, lead: int) -> None:
        """The limit counts bytes: on which byte of an emoji it falls makes no difference."""
        wire = await dial.user()
        head = b'{"cmd":"ping","pad":"' + b"." * lead
        body = "😀".encode() * ((AFTER_LOGIN - len(head) - 2) // 4)
        line = head + body + b'"}'
        assert AFTER_LOGIN - 4 < len(line) <= AFTER_LOGIN
        await wire.send_raw(line + b"\n")
        assert (await wire.reply())["status"] == 1
        await wire.send_raw(head + body + "😀".encode() + b'"}\n')
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    async def test_split_inside_every_emoji(self, dial: Dialer) -> None:
        """Packets that end inside characters carry the same frame."""
        a, b = await dial.pair()
        words = "😀" * 2_000
        line = encode(frame([text(b.user_id, words)], a.push_id)) + b"\n"
        for size in (3, 5, 7):
            await a.send_pieces(line, size)
            assert (await a.reply())["status"] == 1
            [got] = await b.expect_delivery(ack=True)
            assert content(got) == words

    @pytest.mark.slow
    async def test_the_largest_frame_arrives_whole(self, dial: Dialer) -> None:
        """A list that fills the limit to the byte is delivered, every character the same."""
        a, b = await dial.pair()
        words = ["😀" * 10_000 for _ in range(26)]
        line = encode(frame([text(b.user_id, each) for each in words], a.push_id))
        await a.send_pieces(padded(line, AFTER_LOGIN) + b"\n", 4093)
        reply = await a.reply()
        assert reply["status"] == 1
        got = await b.take(26)
        assert [content(each) for each in got] == words
        assert [each["msgId"] for each in got] == [row["msgId"] for row in reply["result"]]

    async def test_an_error_of_the_sender_does_not_reach_the_receiver(self, dial: Dialer) -> None:
        """The receiver's connection is never touched by the sender's error."""
        a, b = await dial.pair()
        line = encode(frame([text(b.user_id, "x")], a.push_id))
        await a.send_raw(padded(line, AFTER_LOGIN + 1) + b"\n")
        [reply] = await a.rest()
        assert reply["status"] == 4001
        await b.expect_nothing()

    async def test_register_raises_the_limit_for_what_follows(self, dial: Dialer) -> None:
        """Bytes behind an unfinished `register` are split by the limit that then holds."""
        wire = await dial()
        big = padded(PING, 300_000)
        request = {"cmd": "register", "phone": new_phone(), "password": "Zebra-7731"}
        await wire.send_raw(lines(request, big, PING))
        assert [(await wire.reply())["status"] for _ in range(3)] == [1, 1, 1]

    async def test_login_and_restart_raise_it_too(self, dial: Dialer) -> None:
        """The same holds behind `login` and `restart`."""
        known = await dial.user(started=True)
        big = padded(PING, 300_000)
        wire = await dial()
        request = {"cmd": "login", "phone": known.phone, "password": known.password}
        await wire.send_raw(lines(request, big, PING))
        assert [(await wire.reply())["status"] for _ in range(3)] == [1, 1, 1]
        wire = await dial()
        await wire.send_raw(lines(frame("restart", known.push_id), big, PING))
        assert [(await wire.reply())["status"] for _ in range(3)] == [1, 1, 1]

    async def test_a_failed_login_leaves_the_limit(self, dial: Dialer) -> None:
        """Behind a login that fails the limit is still 4 KiB: its error, then 4001."""
        known = await dial.user()
        wire = await dial()
        request = {"cmd": "login", "phone": known.phone, "password": "wrong-password"}
        await wire.send_raw(lines(request, padded(PING, BEFORE_LOGIN), padded(PING, 5000), PING))
        replies = await wire.rest()
        assert [each["status"] for each in replies] == [10000, 1, 4001]
        wire = await dial()
        await wire.send_raw(lines(frame("restart", "nobody"), padded(PING, 5000), PING))
        replies = await wire.rest()
        assert [each["status"] for each in replies] == [11001, 4001]

    async def test_logout_lowers_it(self, dial: Dialer) -> None:
        """After `logout` the connection is as before login, its limit too."""
        wire = await dial.user()
        await wire.ok("logout")
        await wire.send_raw(padded(PING, BEFORE_LOGIN + 1) + b"\n")
        [reply] = await wire.rest()
        assert reply["status"] == 4001

    async def test_logout_lowers_it_for_what_is_pipelined(self, dial: Dialer) -> None:
        """A line behind a `logout` has the lower limit too: it came when there was a login."""
        wire = await dial.user(started=True)
        await wire.send_raw(lines({"cmd": "logout"}, padded(PING, BEFORE_LOGIN + 1), PING))
        replies = await wire.rest()
        assert [each["status"] for each in replies] == [1, 4001]


class TestLineEnds:
    """Bytes are split at 0x0A only; a blank line has no answer; one BOM is dropped."""

    async def test_blank_lines_have_no_answer(self, dial: Dialer) -> None:
        """A blank line is a sign of life and has no answer."""
        wire = await dial()
        await wire.send_raw(b"\n\r\n\n\n\r\n")
        assert (await wire.command("ping", id=1))["id"] == 1

    async def test_crlf_is_accepted_and_lf_sent(self, dial: Dialer) -> None:
        """`\\r\\n` is accepted, and `\\n` alone is always sent."""
        wire = await dial()
        await wire.send_raw(PING + b"\r\n" + PING + b"\n" + b"x\r\n")
        for _ in range(3):
            line = await wire.recv_line()
            assert line.startswith(b"{")
            assert line.endswith(b"}")
            assert b"\r" not in line

    @pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u001c"])
    async def test_other_line_ends_do_not_split(self, dial: Dialer, mark: str) -> None:
        """Only 0x0A ends a line: not U+2028, NEL or what else some libraries split at."""
        wire = await dial()
        shown = mark if ord(mark) > 31 else f"\\u{ord(mark):04x}"
        await wire.send_raw(f'{{"cmd":"ping","text":"a{shown}b"}}\n'.encode())
        assert (await wire.reply())["result"] == {"text": f"a{mark}b"}

    async def test_u2028_and_u2029_are_escaped(self, dial: Dialer) -> None:
        """U+2028 and U+2029 leave the server escaped, in replies and in deliveries."""
        a, b = await dial.pair()
        await a.send_line({"cmd": "ping", "text": "a\u2028b\u2029c"})
        line = await a.recv_line()
        assert b"a\\u2028b\\u2029c" in line
        await a.say(b.user_id, "x\u2028y\u2029z")
        line = await b.recv_line()
        assert b"x\\u2028y\\u2029z" in line
        assert content(json.loads(line)["message"][0]) == "x\u2028y\u2029z"

    async def test_one_bom_is_dropped(self, dial: Dialer) -> None:
        """One BOM at the start of a connection is dropped, whole or byte by byte."""
        wire = await dial()
        await wire.send_raw(BOM + PING + b"\n")
        assert (await wire.reply())["status"] == 1
        wire = await dial()
        await wire.send_pieces(BOM + PING + b"\n")
        assert (await wire.reply())["status"] == 1

    async def test_a_bom_alone_is_a_blank_line(self, dial: Dialer) -> None:
        """A first line of nothing but the BOM is blank."""
        wire = await dial()
        await wire.send_raw(BOM + b"\n" + PING + b"\n")
        assert (await wire.reply())["status"] == 1

    async def test_no_other_bom_is_dropped(self, dial: Dialer) -> None:
        """A second BOM, or one on a later line, is not JSON."""
        wire = await dial()
        await wire.send_raw(BOM + BOM + PING + b"\n")
        assert (await wire.reply())["status"] == 4000
        wire = await dial()
        await wire.fence()
        await wire.refused(4000, BOM + PING)

    async def test_the_bom_does_not_count(self, dial: Dialer) -> None:
        """The dropped BOM takes nothing off the first line's limit."""
        wire = await dial()
        await wire.send_raw(BOM + padded(PING, BEFORE_LOGIN) + b"\n")
        assert (await wire.reply())["status"] == 1

    async def test_blanks_inside_json(self, dial: Dialer) -> None:
        """Blanks where JSON allows them are no matter."""
        wire = await dial()
        reply = await wire.exchange(b' \t{ "cmd" : "ping" ,\t"text" : "a" } ')
        assert reply["result"] == {"text": "a"}


class TestEnvelopes:
    """Errors and replies have one shape each, and carry the `id` of the request."""

    @pytest.mark.parametrize("mark", [7, "seven", 0, -1, "a" * 64, "数"])
    async def test_id_is_echoed(self, dial: Dialer, mark: int | str) -> None:
        """The reply carries the request's `id`, string or integer, errors too."""
        wire = await dial()
        requests: list[dict[str, object]] = [
            {"cmd": "ping", "id": mark},
            {"cmd": "friends", "id": mark},
            {"cmd": "no_such", "id": mark},
            {"cmd": "ping", "text": 5, "id": mark},
            {"cmd": 5, "id": mark},
            {"message": "", "id": mark},
            {"message": 5, "id": mark},
            {"message": "start", "id": mark},
            {"message": [text("10001", "x")], "id": mark},
        ]
        for request in requests:
            reply = await wire.exchange(request)
            assert reply["id"] == mark, request
            assert type(reply["id"]) is type(mark)

    async def test_no_id_no_echo(self, dial: Dialer) -> None:
        """Without an `id` the reply has none: the given shape."""
        wire = await dial()
        for request in ({"cmd": "ping"}, frame(""), frame("start"), {"cmd": "friends"}):
            assert "id" not in await wire.exchange(request)

    async def test_public_envelope(self, dial: Dialer) -> None:
        """A command's reply is the given envelope with `cmd`: status, result, message, date."""
        wire = await dial()
        reply = await wire.command("ping", text="x")
        assert set(reply) == {"cmd", "status", "result", "message", "date"}
        assert (reply["cmd"], reply["status"], reply["message"]) == ("ping", 1, "ok")
        assert reply["result"] == {"text": "x"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", reply["date"])

    async def test_failed_envelope(self, dial: Dialer) -> None:
        """On failure `message` says why, and `result` keeps its JSON type."""
        wire = await dial()
        reply = await wire.refused(11001, {"cmd": "friends"})
        assert (reply["cmd"], reply["result"]) == ("friends", [])
        reply = await wire.refused(11001, {"cmd": "account"})
        assert (reply["cmd"], reply["result"]) == ("account", {})
        reply = await wire.refused(4003, {"cmd": "ping", "text": 5})
        assert (reply["cmd"], reply["result"], reply["field"]) == ("ping", {}, "text")

    async def test_unknown_command(self, dial: Dialer) -> None:
        """An unknown command: 4002 without a session and with one; it stays usable."""
        wire = await dial()
        await wire.refused(4002, {"cmd": "no_such"})
        await wire.register()
        for name in ("no_such", "PING", "ping ", "__class__", "😀"):
            await wire.refused(4002, {"cmd": name})
        await assert_usable(wire)

    async def test_message_set_error(self, dial: Dialer) -> None:
        """An error frame has status, pushId and a text that is neither empty nor ok."""
        wire = await dial()
        reply = await wire.refused(11001, frame("start"))
        assert set(reply) == {"status", "pushId", "message"}
        assert reply["pushId"] == ""

    async def test_whoever_has_cmd_is_a_command(self, dial: Dialer) -> None:
        """A line with `cmd` is a command, whatever else it holds."""
        wire = await dial()
        reply = await wire.exchange({"cmd": "ping", "message": "start", "pushId": "x"})
        assert (reply["cmd"], reply["status"]) == ("ping", 1)

    async def test_any_other_object_is_a_message_set(self, dial: Dialer) -> None:
        """Without `message` it is a heartbeat, `{}` too."""
        wire = await dial()
        for line in (b"{}", b'{"x":1}', b'{"status":1,"pushId":""}', b'{"message":null}'):
            reply = await wire.exchange(line)
            assert reply == {"status": 1, "pushId": "", "message": ""}
