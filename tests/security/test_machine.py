"""What lies on the disk, what listens, and what the settings let through."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from pushd import config
from pushd.config import SETTINGS
from pushd.errors import ConfigError
from tests.conformance.authority import Authority, ask
from tests.conformance.operated import Operated
from tests.conformance.process import Process, StartServer
from tests.conformance.scrape import METRICS, address
from tests.conformance.wire import Dialer, new_phone

Operate = Callable[..., Operated]
OPENSSL = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


class Careless(Process):
    """A server that is started with a umask of 0, its data in an open folder, links in its way."""

    def start(self) -> None:
        """Start it so."""
        self.data.mkdir(exist_ok=True)
        self.data.chmod(0o755)
        (self.folder / "precious").write_text("precious")
        (self.folder / "ports.new").symlink_to(self.folder / "precious")
        before = os.umask(0)
        try:
            super().start()
        finally:
            os.umask(before)


async def test_nothing_that_is_written_is_for_others(server: StartServer) -> None:
    """Whatever umask and folder it was given: each file of the data is its user's own."""
    own = server(kind=Careless)
    a, b = await own.dial.pair()
    content = b64encode(os.urandom(1000)).decode()
    saved = await a.ok("save_file", name="x", content=content)
    await a.post({"chatId": "", "toId": b.user_id, "type": "1",
                  "info": [{"category": "3", "content": saved["path"]}]})  # fmt: skip
    await a.ok("save_part", offset=0, content=content)
    await a.ok("export_account")
    operator = own.dial.operator(str(own.data / "control.sock"))
    shelf = own.folder / "shelf"
    shelf.mkdir()
    job = await operator.ok("backup", file=str(shelf / "backup.tar"))
    while job["state"] == "running":
        job = await operator.ok("job")
    assert job["state"] == "done", job
    own.signal()
    await own.ended()
    paths = [path for folder in (own.data, shelf) for path in folder.rglob("*")]
    names = {path.name for path in paths}
    assert {"pushd.db", "backup.tar", "media"} <= names
    assert len(names) > 8
    for path in [*paths, own.folder / "ports"]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode & 0o077 == 0, f"{path.name}: {mode:o}"
    assert (own.folder / "precious").read_text() == "precious", "a link was followed"


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files lie in a folder of this test."""
    return Authority(tmp_path)


def s_client(own: Process, *options: str, data: bytes = b"") -> str:
    """What openssl tells of a handshake with the listener for TLS."""
    host, port = "127.0.0.1", own.addresses[-1][1]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", *options],
        input=data,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return (done.stdout + done.stderr).decode(errors="replace")


@OPENSSL
def test_what_tls_is_spoken(server: StartServer, authority: Authority) -> None:
    """TLS 1.3 is chosen, 1.2 has only ciphers of today, and what is older or weaker is refused."""
    own = authority.start(server)
    assert "New, TLSv1.3" in s_client(own)
    assert "New, TLSv1.2" in s_client(own, "-tls1_2") or "TLSv1.2" in s_client(own, "-tls1_2")
    weak = "ALL:@SECLEVEL=0"
    for version in ("-tls1_1", "-tls1"):
        assert "Cipher is (NONE)" in s_client(own, version, "-cipher", weak), version
    for cipher in (
        "AES128-SHA",
        "AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-SHA",
        "DHE-RSA-AES128-SHA",
        "NULL-SHA256",
        "ECDHE-ECDSA-AES128-SHA",
        "DES-CBC3-SHA",
        "AECDH-NULL-SHA",
    ):
        told = s_client(own, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
        assert "Cipher is (NONE)" in told or "no cipher match" in told, cipher
    told = s_client(own, "-tls1_2")
    assert "Compression: NONE" in told
    assert "Cipher is ECDHE-" in told
    # In the middle of a connection there are no new keys.
    told = s_client(own, "-tls1_2", data=b"R\n")
    assert "RENEGOTIATING" in told
    assert "no renegotiation" in told or "handshake failure" in told or "closed" in told, told
    with authority.connect(own) as wire:
        ask(wire)


def test_a_key_that_everybody_can_read(operated: Operate, authority: Authority) -> None:
    """It is told at the start, by --check-config and at a reload; one of one's own is not."""
    text = f"[tls]\nlisten = ['127.0.0.1:0']\ncertificate = '{authority.certificate}'\n"
    text += f"key = '{authority.key}'\n"
    authority.key.chmod(0o644)
    own = operated(text)
    assert str(authority.key) in own.lines("the key is no secret")[0]["problem"]
    told = check_config(own.file)
    assert told.returncode == 0
    assert "everybody on this machine can read the key" in told.stderr
    authority.key.chmod(0o640)
    assert check_config(own.file).stderr == ""


def check_config(file: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run --check-config on a settings file."""
    return subprocess.run(
        [sys.executable, "-m", "pushd", "--check-config", "-c", str(file)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=file.parent,
        check=False,
    )


# --- settings ---------------------------------------------------------------------------------

BAD = {
    "[queue]\nmessges = 1\n": "did you mean messages",
    "[queue]\nquue_limit = 1\n": "queue.quue_limit",
    "[queue]\nmessages = -1\n": "queue.messages",
    "[queue]\nmessages = '10k'\n": "queue.messages",
    "[queue]\nmessages = 1e9\n": "queue.messages",
    "[quue]\nmessages = 1\n": "queue",
    "[auth]\nhide_unknown_users = 'yes'\n": "auth.hide_unknown_users",
    "debug = true\n": "debug",
    "[auth]\nmin_password = 0\n": "auth.min_password",
    "[server]\nlisten = ['nowhere']\n": "server.listen",
}


def test_what_the_settings_refuse(tmp_path: Path) -> None:
    """Whatever is misspelt or out of range is an error that names the file and the setting."""
    file = tmp_path / "pushd.toml"
    for text, named in BAD.items():
        file.write_text(text)
        with pytest.raises(ConfigError) as told:
            config.load(str(file), {}, {})
        assert named in str(told.value), text
        assert str(file) in str(told.value), text
    for text in ("", "\ufeff[queue]\nmessages = 5\n", "[queue]\n\tmessages\t=\t5\n"):
        file.write_text(text, "utf-8")
        config.load(str(file), {}, {})


def test_in_clear_on_the_loopback_only() -> None:
    """What speaks without TLS listens on the loopback, or nowhere, until the operator says so."""
    assert SETTINGS["server.listen"].default == ("127.0.0.1:9527",)
    assert SETTINGS["metrics.listen"].default == ""
    socket_unit = (Path(__file__).parents[2] / "packaging" / "pushd.socket").read_text()
    assert "ListenStream=127.0.0.1:9527\n" in socket_unit


# --- the port of the metrics ------------------------------------------------------------------


async def test_metrics_answer_one_request_a_connection(server: StartServer) -> None:
    """A request behind another one, or one inside its body, is never answered: none is smuggled."""
    own = server(**METRICS)
    hidden = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    tried = [
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" + hidden,
        b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + hidden,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999\r\n\r\n" + hidden,
        b"GET /healthz\r\n\r\n" + hidden,
        b"GET  /healthz HTTP/1.1 x\r\n\r\n" + hidden,
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n" + hidden,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n" + hidden,
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n" + hidden,
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        b"CONNECT elsewhere:22 HTTP/1.1\r\nHost: x\r\n\r\n" + hidden,
        b"TRACE /healthz HTTP/1.1\r\nCookie: secret\r\n\r\n" + hidden,
    ]
    for data in tried:
        told = await asyncio.to_thread(raw, address(own), data)
        assert told.count(b"HTTP/1.") <= 1, (data[:60], told)
        assert b"root:" not in told
        assert b"secret" not in told
    own.signal()
    assert await own.ended() == 0


def raw(where: tuple[str, int], data: bytes) -> bytes:
    """Send bytes and read until the end."""
    with socket.create_connection(where, 10) as sock:
        received = b""
        try:
            sock.sendall(data)
            while more := sock.recv(65536):
                received += more
        except ConnectionError:
            pass  # it has not read all of this, and need not
        return received


# --- the log ----------------------------------------------------------------------------------


async def test_who_was_here_is_told(operated: Operate) -> None:
    """Logins good and bad, limits and refusals are found afterwards, with who, whence and when."""
    own = operated("", limits_per_address=True)
    user = await own.dial.user()
    wire = await own.dial()
    for _ in range(7):
        await wire.command("login", phone=user.phone, password="wrong one")
    await wire.command("login", phone=new_phone(), password="wrong one")
    await user.command("disable", user=user.user_id)
    operator = own.dial.operator(str(own.data / "control.sock"))
    entries = await operator.ok("audit", user=user.user_id)
    found = {entry["outcome"]: entry for entry in entries if entry["action"] == "login"}
    assert found["wrong password"]["count"] == 5
    assert found["limited"]["count"] == 2
    assert "127.0.0.1" in found["limited"]["actor"]
    refusals = (await operator.ok("stats"))["refusals"]
    assert refusals["4290"] == 2
    assert refusals["4004"] == 1
    lines = own.lines("wrong password")
    assert len(lines) == 6
    for line in lines:
        assert line["address"] == "127.0.0.1"
        assert line["connection"]
        assert line["ts"].endswith("Z"), line


# What browsers send before a body that a hostile page has made for them.
BROWSER = b"""POST / HTTP/1.1
Host: 127.0.0.1:9527
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0
Accept: */*
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Referer: http://evil.example/
Content-Type: text/plain;charset=UTF-8
Content-Length: 200
Origin: http://evil.example
Connection: keep-alive
Sec-Fetch-Dest: empty
"""


async def test_a_browser_is_no_client(dial: Dialer) -> None:
    """A page cannot have a browser speak for it: its headers are ten bad lines, its body unread."""
    wire, phone = await dial(), new_phone()
    body = b'{"cmd":"register","phone":"%b","password":"Zebra-7731"}\n' % phone.encode()
    await wire.send_raw(BROWSER.replace(b"\n", b"\r\n") + b"\r\n" + body)
    assert [(await wire.reply())["status"] for _ in range(10)] == [4000] * 10
    await wire.rest()
    again = await dial()
    await again.refused(6004, {"cmd": "login", "phone": phone, "password": "Zebra-7731"})
