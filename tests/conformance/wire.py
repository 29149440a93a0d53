"""A client that speaks the wire and nothing else: what the conformance tests hold in their hands.

A `Wire` is one TCP connection on a plain non-blocking socket, so a test decides about every byte,
every half-close and every reset. It knows the shape of frames, not the server's code.

    a, b = await dial.pair()                    # two started friends, their queues empty
    row = await a.say(b.user_id, "hi")          # one message; its row of `result`
    [got] = await b.expect_delivery()           # one message, whatever the packets are
    await b.ack(got["seq"])                     # never answered, so:
    await b.fence()                             # a ping: everything before it has been handled

    reply = await a.command("friends", page=0)  # the envelope, ok or not
    users = await a.ok("friends")               # its result; anything but status 1 fails
    reply = await a.exchange({"cmd": "ping"})   # any frame (a mapping or bytes), and its reply
    assert (await a.refused(4003, {"cmd": "ping", "text": 1}))["field"] == "text"

Frames come in two kinds. A *push* (a delivery, an ack, an event) comes by itself; everything
else answers a request. `recv()` returns frames as they came, of both kinds. `reply()`, and all
that is built on it, sets pushes that come first aside in `pushed`; `recv()`, `packet()` and
`expect_delivery()` look there first. So nothing is ever lost or reordered within its kind.

Every wait has a time-out (`PATIENCE`), every reply of status 5000 fails the test at once, and a
reset raises `ConnectionResetError` where the contract promises a readable end.
"""

import asyncio
import itertools
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

Frame = dict[str, Any]
Address = tuple[str, int]

# How long a test waits for a frame before it fails, in seconds.
PATIENCE = 15.0

PASSWORD = "Zebra-7731"

_TCP_REPAIR = 19

BOM = b"\xef\xbb\xbf"
PING = b'{"cmd":"ping"}'

# A block of phones that no other process is likely to draw: 1, then 3 to 9, then nine digits.
_phones = itertools.count(13_000_000_000 + int.from_bytes(os.urandom(6), "big") % 6_990_000_000)


def new_phone() -> str:
    """Return a fictional mainland phone that nobody has used yet."""
    return str(next(_phones))


def text(to: str, content: str, **fields: object) -> Frame:
    """Return one message of type 1 to the user `to`, with more fields on request."""
    return {
        "chatId": "",
        "fromId": "",
        "toId": to,
        "type": "1",
        "info": [{"category": "0", "content": content}],
        "createTime": "",
        **fields,
    }


def frame(message: object, push_id: str = "", **fields: object) -> Frame:
    """Return a message_set frame as a client of the interface document sends it."""
    return {"status": 1, "pushId": push_id, "message": message, **fields}


def encode(line: bytes | Mapping[str, Any]) -> bytes:
    """Return the bytes of a frame without its line end; bytes are taken as they are."""
    if isinstance(line, bytes):
        return line
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()


def lines(*frames: bytes | Mapping[str, Any]) -> bytes:
    """Return frames as one packet of complete lines."""
    return b"".join(encode(each) + b"\n" for each in frames)


def padded(line: bytes, size: int, filler: str = "x") -> bytes:
    """Return a JSON object of exactly `size` bytes: `line` with an unknown field behind."""
    head = line[:-1] + b',"pad":"'
    room = size - len(head) - 2
    unit = filler.encode()
    body = unit * (room // len(unit))
    return head + b"." * (room - len(body)) + body + b'"}'


def is_push(received: Frame) -> bool:
    """Tell whether a frame comes by itself rather than in answer to a request."""
    return isinstance(received.get("message"), list | dict) or "event" in received


def content(message: Frame) -> str:
    """Return the text of a delivered message's first info."""
    found = message["info"][0]["content"]
    assert isinstance(found, str)
    return found


def pair_chat(a: "Wire", b: "Wire") -> str:
    """Return the chatId of two users: both ids, smaller first."""
    return "-".join(sorted((a.user_id, b.user_id), key=int))


def client_id() -> str:
    """Return a `clientId` that has not been used."""
    return f"c-{os.urandom(9).hex()}"


class Closed(EOFError):
    """The server closed the connection cleanly; `pushed` holds what came before."""

    def __init__(self, pushed: Iterable[Frame] = (), rest: bytes = b"") -> None:
        self.pushed = list(pushed)
        self.rest = rest
        super().__init__(f"closed by the server; set aside: {self.pushed}; partial: {rest!r}")


class Wire:
    """One connection to the server under test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()  # received bytes that are no complete line yet
        self.ready: deque[bytes] = deque()  # received lines that nobody has read
        self.pushed: deque[Frame] = deque()  # pushes that `reply` set aside
        self.user_id = ""  # set by `register` and `login`
        self.phone = ""  # set by `register` and `login`
        self.password = PASSWORD  # what `register` and `login` use unless told otherwise
        self.push_id = ""  # set by `start` and `restart`

    @classmethod
    async def connect(cls, address: Address, *, receive_buffer: int = 0) -> Self:
        """Connect; `receive_buffer` sets SO_RCVBUF before, for a reader that is slow."""
        host, _ = address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    # Bytes

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, in one write as far as the socket takes them."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def send_pieces(self, data: bytes, size: int = 1) -> None:
        """Send bytes in writes of `size` each: by default byte by byte."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(4 * PATIENCE):
            for at in range(0, len(data), size):
                await loop.sock_sendall(self.sock, data[at : at + size])

    async def send_line(self, line: bytes | Mapping[str, Any]) -> None:
        """Send one frame and its line end."""
        await self.send_raw(encode(line) + b"\n")

    async def recv_line(self, patience: float = PATIENCE) -> bytes:
        """Return the next line without its end; every line of the server ends in one 0x0A.

        Raises: Closed at a clean end, ConnectionResetError at a reset, TimeoutError.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(patience):
            while not self.ready:
                data = await loop.sock_recv(self.sock, 262_144)
                if not data:
                    raise Closed(self.pushed, bytes(self.buffer))
                self._split(data)
        return self.ready.popleft()

    def _split(self, data: bytes) -> None:
        first, *more = data.split(b"\n")
        self.buffer += first
        for each in more:
            self.ready.append(bytes(self.buffer))
            self.buffer = bytearray(each)

    # Frames

    async def recv(self, patience: float = PATIENCE) -> Frame:
        """Return the next frame of either kind, those that were set aside first."""
        if self.pushed:
            return self.pushed.popleft()
        return await self._read(patience)

    async def _read(self, patience: float = PATIENCE) -> Frame:
        line = await self.recv_line(patience)
        received = json.loads(line)
        assert isinstance(received, dict), f"a frame is an object: {line!r}"
        assert received.get("status") != 5000, f"an internal error: {received}"
        return received

    async def reply(self, patience: float = PATIENCE) -> Frame:
        """Return the next frame that answers a request; pushes before it are set aside."""
        while True:
            received = await self._read(patience)
            if not is_push(received):
                return received
            self.pushed.append(received)

    async def exchange(self, line: bytes | Mapping[str, Any]) -> Frame:
        """Send one frame that has an answer, and return the answer."""
        await self.send_line(line)
        return await self.reply()

    async def refused(self, status: int, line: bytes | Mapping[str, Any]) -> Frame:
        """Send one frame, require this status and a text in the answer, and return it."""
        received = await self.exchange(line)
        assert received["status"] == status, f"{status} expected: {received}"
        assert received["message"] not in ("", "ok"), received
        return received

    async def rest(self, patience: float = PATIENCE) -> list[Frame]:
        """Return all frames up to the server's close, which must be clean."""
        found: list[Frame] = []
        while True:
            try:
                found.append(await self.recv(patience))
            except Closed as closed:
                assert not closed.rest, f"half a line at the end: {closed.rest!r}"
                return found

    # Commands

    async def command(self, cmd: str, **fields: object) -> Frame:
        """Run a command and return its envelope, whatever its status."""
        return await self.exchange({"cmd": cmd, **fields})

    async def ok(self, cmd: str, **fields: object) -> Any:
        """Run a command that must succeed and return its result."""
        received = await self.command(cmd, **fields)
        assert received["status"] == 1, f"{cmd}: {received}"
        assert received["message"] == "ok", received
        return received["result"]

    async def fence(self) -> None:
        """Ping: when it is answered, everything sent before has been handled."""
        mark = os.urandom(6).hex()
        received = await self.command("ping", text=mark)
        assert received["status"] == 1, received
        assert received["result"] == {"text": mark}, received

    async def register(self, phone: str = "", password: str = "", **fields: Any) -> Frame:
        """Register a new account, by default under a new phone, and return it."""
        self.phone = phone or new_phone()
        self.password = password or self.password
        found: Frame = await self.ok("register", phone=self.phone, password=self.password, **fields)
        self.user_id = found["user"]["id"]
        return found

    async def login(self, phone: str, password: str = "") -> Frame:
        """Log in and return the account."""
        self.phone = phone
        self.password = password or self.password
        found: Frame = await self.ok("login", phone=self.phone, password=self.password)
        self.user_id = found["user"]["id"]
        return found

    # Devices

    async def start(self, push_id: str = "", /, **fields: object) -> Frame:
        """Bind this connection to a device, by default a new one; return the reply."""
        received = await self.exchange(frame("start", push_id, **fields))
        return self._bound(received)

    async def restart(self, push_id: str = "", /, **fields: object) -> Frame:
        """Take a device up again, by default the one started here before; return the reply."""
        received = await self.exchange(frame("restart", push_id or self.push_id, **fields))
        return self._bound(received)

    def _bound(self, received: Frame) -> Frame:
        assert received["status"] == 1, received
        assert received["message"] == "ok", received
        self.push_id = received["pushId"]
        self.user_id = received["userId"]
        return received

    async def drain(self, queued: int) -> list[Frame]:
        """Take the `queued` messages of a start's reply, ack them, and wait for that."""
        found = await self.take(queued)
        await self.fence()
        return found

    # Messages

    async def send(self, messages: Sequence[Frame], **fields: object) -> Frame:
        """Send a list of messages and return the reply, whatever its status."""
        return await self.exchange(frame(list(messages), self.push_id, **fields))

    async def post(self, *messages: Frame) -> list[Frame]:
        """Send messages that must be accepted and return the rows of `result`."""
        received = await self.send(messages)
        assert received["status"] == 1, received
        assert received["message"] == "ok", received
        found: list[Frame] = received["result"]
        assert len(found) == len(messages), received
        return found

    async def say(self, to: str, words: str, **fields: object) -> Frame:
        """Send one text to a user and return its row of `result`."""
        [row] = await self.post(text(to, words, **fields))
        return row

    async def packet(self, patience: float = PATIENCE) -> Frame:
        """Return the next frame, which must be a delivered packet."""
        received = await self.recv(patience)
        assert isinstance(received["message"], list), f"a delivery expected: {received}"
        assert received["message"], f"an empty packet: {received}"
        return received

    async def expect_delivery(self, count: int = 1, *, ack: bool = False) -> list[Frame]:
        """Return exactly `count` messages from as many packets as they come in."""
        found: list[Frame] = []
        while len(found) < count:
            found += (await self.packet())["message"]
        assert len(found) == count, f"{count} expected: {found}"
        if ack:
            await self.ack(found[-1]["seq"])
        return found

    async def take(self, count: int) -> list[Frame]:
        """Receive `count` messages and ack each packet as it comes, as a client that keeps up."""
        found: list[Frame] = []
        while len(found) < count:
            found += (await self.packet())["message"]
            await self.ack()
        assert len(found) == count, f"{count} expected, {len(found)} came: {found[-1]}"
        return found

    async def ack(self, seq: object = None, **fields: object) -> None:
        """Ack the oldest packet, or all up to `seq`. There is no answer: use `fence`."""
        if seq is not None:
            fields["seq"] = seq
        await self.send_line(frame("ok", self.push_id, **fields))

    async def read_mark(self, **fields: object) -> None:
        """Tell that a conversation has been read; without `content` it is "ok"."""
        shown = {"fromId": "", "toId": "", "chatId": "", "content": "ok", **fields}
        await self.send_line(frame(shown, self.push_id))

    async def expect_nothing(self) -> None:
        """Require that a fence comes back and no push came before it."""
        await self.fence()
        assert not self.pushed, f"nothing expected: {list(self.pushed)}"

    async def heartbeat(self) -> Frame:
        """Send a heartbeat and return its answer."""
        return await self.exchange(frame("", self.push_id))

    # Ends

    def half_close(self) -> None:
        """Say that nothing more will be sent; replies can still be read."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close with a FIN; harmless when closed already."""
        self.sock.close()

    def abort(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def vanish(self) -> None:
        """Close without a FIN or a reset, as a phone that lost its network.

        Raises: PermissionError where the system does not allow it.
        """
        # What was received is acknowledged first: the server's TCP would send it again, and this
        # machine answer that with a reset.
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        self.sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        self.sock.close()


async def assert_refused(
    wire: Wire, status: int, message: Frame, field: str | None = None
) -> Frame:
    """Require that a list of this one message is refused, and says so in `failed` as well."""
    reply = await wire.refused(status, frame([message], wire.push_id))
    assert "result" not in reply
    [row] = reply["failed"]
    assert set(row) == {"index", "status", "message", "field"}
    assert (row["index"], row["status"]) == (0, status)
    assert row["message"] not in ("", "ok")
    if field is not None:
        assert reply["field"] == field
        assert row["field"] == field
    return reply


async def befriend(a: Wire, b: Wire) -> None:
    """Make two registered accounts friends, and take the notices off started devices.

    `b` gets a `friend_request` and `a` a `friend_accepted`; where a wire is not started they
    wait in that account's queue.
    """
    await a.ok("add_friend", userId=b.user_id)
    await b.ok("accept_friend", userId=a.user_id)
    for each, name in ((b, "friend_request"), (a, "friend_accepted")):
        if each.push_id:
            [notice] = await each.expect_delivery(ack=True)
            assert notice["event"]["name"] == name, notice
            await each.fence()


class Dialer:
    """Opens wires to one server; whoever made it closes them all with `close`."""

    def __init__(self, server: "HasAddress") -> None:
        self._server = server
        self._wires: list[Wire] = []

    async def __call__(self, *, receive_buffer: int = 0) -> Wire:
        """Open a connection."""
        wire = await Wire.connect(self._server.address, receive_buffer=receive_buffer)
        self._wires.append(wire)
        return wire

    def operator(self, path: str) -> Wire:
        """Open a connection by a control socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        wire = Wire(sock)
        self._wires.append(wire)
        return wire

    async def user(self, *, started: bool = False, **fields: Any) -> Wire:
        """Open a connection with a new account; `fields` go to `register`."""
        wire = await self()
        await wire.register(**fields)
        if started:
            await wire.start()
        return wire

    async def device(self, owner: Wire, **fields: object) -> Wire:
        """Open another connection of `owner`'s account, with a new device of its own."""
        wire = await self()
        await wire.login(owner.phone, owner.password)
        await wire.start(**fields)
        return wire

    async def resume(self, push_id: str, /, **fields: object) -> tuple[Wire, Frame]:
        """Open a connection that takes a device up again; return it and the reply."""
        wire = await self()
        return wire, await wire.restart(push_id, **fields)

    async def pair(self, **fields: object) -> tuple[Wire, Wire]:
        """Open two started friends whose queues are empty; `fields` go to both `start`s."""
        a, b = await self.user(), await self.user()
        await befriend(a, b)
        for each in (a, b):
            started = await each.start(**fields)
            await each.drain(started["queued"])
        return a, b

    def close(self) -> None:
        """Close every connection that was opened."""
        while self._wires:
            self._wires.pop().close()


class HasAddress:
    """Whatever a dialer can dial: its `address` may change when a server is restarted."""

    address: Address
