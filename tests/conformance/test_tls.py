"""Section 5: TLS on a listener of its own, its certificate, and those who never shake hands."""

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pushd.client import Client, Message

from .authority import NAME, Authority, ask, descriptors, dial, has_ended, reload
from .process import Process, StartServer
from .test_shutdown import SHUTDOWN
from .wire import new_phone

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
PING = b'{"cmd":"ping"}\n'
PUSHCTL = [sys.executable, "-c", "from pushd.cli import pushctl; pushctl()"]
RENEWED, NOT_RENEWED = "event=reloaded", "bad setting"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files lie in a folder of this test."""
    return Authority(tmp_path)


def url(own: Process) -> str:
    """Return the address of the listener for TLS, by the name in the certificate."""
    return f"tls://{NAME}:{own.addresses[-1][1]}"


async def first(client: Client) -> Message:
    """Return the next message that is not the system's."""
    async for message in client.messages():
        if message.from_id:
            return message
    raise AssertionError("the client has ended")


class TestHandshake:
    """TLS 1.2 and 1.3, verified by the client."""

    @LOOPS
    async def test_chat(self, server: StartServer, authority: Authority, loop: str) -> None:
        """Two clients become friends and write to each other, one by TLS and one in clear."""
        own = authority.start(server, loop=loop)
        plain = await own.dial.user(started=True)
        async with Client.connect(url(own), ssl=authority.context()) as client:
            account = await client.register(new_phone(), "secret66")
            user_id = account["user"]["id"]
            await client.command("add_friend", userId=plain.user_id)
            await plain.ok("accept_friend", userId=user_id)
            await client.send(plain.user_id, "x" * 9_000 + "密")
            got = [m for m in (await plain.take(2)) if m["fromId"] == user_id]
            assert got[-1]["info"][0]["content"] == "x" * 9_000 + "密"
            await plain.say(user_id, "back")
            assert (await asyncio.wait_for(first(client), 15)).text == "back"

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_versions(
        self, server: StartServer, authority: Authority, version: ssl.TLSVersion
    ) -> None:
        """Both are spoken, with forward secrecy and without compression."""
        own = authority.start(server)
        context = authority.context()
        context.minimum_version = context.maximum_version = version
        with authority.connect(own, context) as wire:
            cipher = wire.cipher()
            assert cipher is not None
            assert cipher[0].startswith(("TLS_", "ECDHE-"))
            assert wire.compression() is None
            assert json.loads(ask(wire))["status"] == 1

    def test_old_versions_are_refused(self, server: StartServer, authority: Authority) -> None:
        """TLS 1.1 gets no connection, and the server goes on."""
        own = authority.start(server)
        context = authority.context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            authority.connect(own, context)
        with authority.connect(own) as wire:
            ask(wire)

    def test_plain_frames_before_the_handshake(
        self, server: StartServer, authority: Authority
    ) -> None:
        """What is sent in clear to that listener is never handled, and ends the connection."""
        own = authority.start(server)
        with socket.create_connection(own.addresses[-1], 10) as sock:
            sock.sendall(PING + PING)
            received = b""
            while data := sock.recv(4096):
                received += data
        assert b"cmd" not in received

    @LOOPS
    def test_a_pipelined_end(self, server: StartServer, authority: Authority, loop: str) -> None:
        """`quit` answers all before it and closes cleanly; no half-close is needed."""
        own = authority.start(server, loop=loop)
        with authority.connect(own) as wire:
            wire.sendall(PING * 3 + b'{"cmd":"quit"}\n')
            received = b""
            while data := wire.recv(65536):
                received += data
        assert [json.loads(line)["cmd"] for line in received.splitlines()] == [
            *["ping"] * 3,
            "quit",
        ]
        assert "level=warning" not in own.log_text()

    @LOOPS
    def test_the_last_frame(self, server: StartServer, authority: Authority, loop: str) -> None:
        """At a shutdown clients get it by TLS too, and nobody in a handshake holds that up."""
        own = authority.start(server, loop=loop)
        silent = [dial(own.addresses[-1]) for _ in range(20)]
        with authority.connect(own) as wire:
            ask(wire)
            began = time.monotonic()
            own.signal(signal.SIGTERM)
            received = b""
            while data := wire.recv(65536):
                received += data
        assert json.loads(received) == SHUTDOWN
        assert own.process is not None
        assert own.process.wait(10) == 0
        assert time.monotonic() - began < 5
        for sock in silent:
            sock.close()


class TestCertificate:
    """Renewed while the server runs, and never replaced by a broken one."""

    @LOOPS
    def test_renewal(self, server: StartServer, authority: Authority, loop: str) -> None:
        """After a reload new connections see the new certificate, and old ones go on."""
        own = authority.start(server, loop=loop)
        with authority.connect(own) as wire:
            old = authority.served(own)
            authority.issue()
            assert authority.served(own) == old
            reload(own, RENEWED)
            assert authority.served(own) != old
            assert json.loads(ask(wire))["status"] == 1

    @pytest.mark.parametrize("damage", ["garbage", "other key", "missing", "half"])
    def test_a_broken_one(self, server: StartServer, authority: Authority, damage: str) -> None:
        """It changes nothing, is told in one line, and a good one is taken afterwards."""
        own = authority.start(server)
        old = authority.served(own)
        _damage(authority, damage)
        line = reload(own, NOT_RENEWED)
        assert str(authority.certificate) in line
        assert authority.served(own) == old
        authority.issue()
        reload(own, RENEWED)
        assert authority.served(own) != old

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            ("garbage", "not a PEM certificate with its key"),
            ("other key", "the key is not that of"),
            ("missing", "No such file or directory"),
            ("encrypted", "the key is encrypted"),
        ],
    )
    @pytest.mark.parametrize("check", [[], ["--check-config"]])
    @pytest.mark.slow
    def test_a_broken_one_at_the_start(
        self, tmp_path: Path, authority: Authority, damage: str, words: str, check: list[str]
    ) -> None:
        """Nothing is started: exit code 78, one line that names the file."""
        _damage(authority, damage)
        settings = {
            "PUSHD_TLS_LISTEN": "127.0.0.1:0",
            "PUSHD_TLS_CERTIFICATE": str(authority.certificate),
            "PUSHD_TLS_KEY": str(authority.key),
        }
        done = subprocess.run(
            [sys.executable, "-m", "pushd", "--data", str(tmp_path / "data"), *check],
            env={"PATH": "", "PYTHONPATH": str(Path.cwd()), **settings},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 78, done
        [line] = done.stderr.splitlines()
        assert line.startswith("PUSHD_TLS_CERTIFICATE: tls.certificate: ")
        assert words in line
        assert str(tmp_path) in line
        assert not (tmp_path / "data").exists()


def _damage(authority: Authority, how: str) -> None:
    match how:
        case "garbage":
            authority.certificate.write_text("no certificate")
        case "half":
            whole = authority.certificate.read_bytes()
            authority.certificate.write_bytes(whole[: len(whole) // 3])
        case "other key":
            key = authority.key.read_bytes()
            authority.issue()
            authority.key.write_bytes(key)
        case "missing":
            authority.certificate.unlink()
        case "encrypted":
            from cryptography.hazmat.primitives import serialization as pem

            key = pem.load_pem_private_key(authority.key.read_bytes(), None)
            locked = pem.BestAvailableEncryption(b"secret")
            form = (pem.Encoding.PEM, pem.PrivateFormat.PKCS8, locked)
            authority.key.write_bytes(key.private_bytes(*form))


class TestNeverFinished:
    """Handshakes that do not end hold nothing beyond their time."""

    @LOOPS
    @pytest.mark.parametrize("first", [b"", b"\x16", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
    async def test_flood(
        self, server: StartServer, authority: Authority, loop: str, first: bytes
    ) -> None:
        """A hundred silent, slow or wrong ones are gone after it; others notice nothing."""
        own = authority.start(server, loop=loop, tls_handshake_seconds=1)
        wire = await own.dial()
        await wire.fence()
        before = descriptors(own)
        began = time.monotonic()
        flood = [dial(own.addresses[-1], first) for _ in range(100)]
        waits = []
        while not all(map(has_ended, flood)):
            assert time.monotonic() - began < 4, "handshakes go on"
            for sock in flood if first else ():
                _drip(sock)
            asked = time.monotonic()
            await wire.fence()
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.05)
        assert max(waits) < 0.5
        for sock in flood:
            sock.close()
        await wire.fence()
        # The store may have opened a file of its own meanwhile.
        assert descriptors(own) < before + 10
        await asyncio.to_thread(authority.served, own)

    async def test_they_count(self, server: StartServer, authority: Authority) -> None:
        """A handshake takes a place of its address, and gives it back when it ends."""
        own = authority.start(
            server,
            limits_per_address=True,
            limits_connections_per_address=3,
            tls_handshake_seconds=2,
        )
        silent = [dial(own.addresses[-1]) for _ in range(3)]
        late = dial(own.addresses[-1])
        await ended(late)
        assert not any(map(has_ended, silent))
        plain = await own.dial()
        assert [frame["status"] for frame in await plain.rest()] == [4290]
        await ended(*silent)
        for sock in (*silent, late):
            sock.close()
        wires = [await asyncio.to_thread(authority.connect, own) for _ in range(3)]
        for wire in wires:
            await asyncio.to_thread(ask, wire)
            wire.close()


async def ended(*sockets: socket.socket) -> None:
    """Wait until the server has closed all of them."""
    async with asyncio.timeout(10):
        while not all(map(has_ended, sockets)):  # noqa: ASYNC110 # the other side decides
            await asyncio.sleep(0.02)


def _drip(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.send(b"\x00")


@pytest.fixture
def own(server: StartServer, authority: Authority) -> Iterator[Process]:
    """A server with TLS."""
    yield authority.start(server)


class TestVerification:
    """A client trusts only whom it was told to trust, and says what is wrong."""

    def ping(self, address: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PUSHCTL, "ping", "-s", address, *more], capture_output=True, text=True, timeout=30
        )

    def test_ping(self, own: Process, authority: Authority) -> None:
        """`pushctl ping` succeeds with the authority named."""
        done = self.ping(url(own), "--cafile", str(authority.cafile))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{url(own)} answered in ")

    def test_an_unknown_authority(self, own: Process) -> None:
        """Without it the certificate is not trusted: exit code 3, one line, why."""
        done = self.ping(url(own))
        assert done.returncode == 3
        [line] = done.stderr.splitlines()
        assert line.startswith(f"{url(own)}: its certificate is not trusted: ")

    def test_another_name(self, own: Process, authority: Authority) -> None:
        """A certificate for another name is not trusted either."""
        address = f"tls://127.0.0.2:{own.addresses[-1][1]}"
        done = self.ping(address, "--cafile", str(authority.cafile))
        assert done.returncode == 3
        assert "its certificate is not trusted: IP address mismatch" in done.stderr

    def test_no_tls_there(self, own: Process, authority: Authority) -> None:
        """A plain listener asked for TLS: exit code 3, and one line says so."""
        address = f"tls://{NAME}:{own.addresses[0][1]}"
        done = self.ping(address, "--cafile", str(authority.cafile), "--timeout", "3")
        assert done.returncode == 3
        [line] = done.stderr.splitlines()
        assert "no TLS is possible there" in line

    def test_a_cafile_that_is_none(self, own: Process, tmp_path: Path) -> None:
        """A file without a certificate is a usage error that names it."""
        file = tmp_path / "empty.pem"
        for text in (None, "nothing"):
            if text:
                file.write_text(text)
            done = self.ping(url(own), "--cafile", str(file))
            assert done.returncode == 2
            assert str(file) in done.stderr

    def test_chat(self, own: Process, authority: Authority) -> None:
        """`pushctl chat` goes by TLS, and tells why it cannot."""
        lines = f"r\n{new_phone()}\nsecret66\nAnn\n/whoami\n/quit\n"
        for more, code, words in (
            (["--cafile", str(authority.cafile)], 0, "Ann"),
            ([], 3, "its certificate is not trusted"),
        ):
            done = subprocess.run(
                [*PUSHCTL, "chat", "-s", url(own), *more],
                input=lines,
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert done.returncode == code, done
            assert words in done.stdout

    async def test_client(self, own: Process) -> None:
        """The client raises what says so, and does not connect."""
        with pytest.raises(ssl.SSLCertVerificationError):
            async with Client.connect(url(own)):
                pass
