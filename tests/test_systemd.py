"""What systemd hears and passes: a fake notify socket, inherited listeners, the shipped units."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pushd import systemd
from pushd.systemd import Notifier, SocketError, Told, inherited, told
from tests.conformance.authority import Authority, ask
from tests.conformance.process import Process
from tests.conformance.test_shutdown import Load, check
from tests.conformance.wire import PING

ROOT = Path(__file__).parent.parent
UNITS = (
    "pushd.service",
    "pushd.socket",
    "pushd-tls.socket",
    "pushd-backup.service",
    "pushd-backup.timer",
)
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


class Supervisor:
    """A fake systemd: its notify socket, and what it heard."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def listen(self, seconds: float) -> None:
        """Take in what comes within this time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(4096)
            except TimeoutError:
                return
            lines = data.decode().split("\n")
            self.heard.append(dict(line.split("=", 1) for line in lines))

    def wait(self, name: str, value: str = "1", seconds: float = 15) -> None:
        """Take in until this assignment has come."""
        end = time.monotonic() + seconds
        while not self.told(name, value):
            assert time.monotonic() < end, f"{name}={value} never came: {self.heard}"
            self.listen(0.05)

    def told(self, name: str, value: str = "1") -> int:
        """Count the messages with this assignment."""
        return sum(message.get(name) == value for message in self.heard)


class Service(Process):
    """A server as systemd starts it: NOTIFY_SOCKET, and perhaps sockets and a watchdog."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.variables: dict[str, str] = {}
        self.sockets: dict[str, socket.socket] = {}

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(sock.fileno() for sock in self.sockets.values())

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), **self.variables}

    def _command(self, ports: Path) -> list[str]:
        plain = super()._command(ports)
        if not self.sockets:
            return plain
        # The descriptors go to 3, 4, …, and the pid is that of the process itself.
        numbers = list(self.descriptors)
        code = (
            "import fcntl, os, sys;"
            f"kept = [fcntl.fcntl(n, fcntl.F_DUPFD, 64) for n in {numbers}];"
            "[os.dup2(n, 3 + at) for at, n in enumerate(kept)];"
            "os.environ['LISTEN_PID'] = str(os.getpid());"
            f"os.environ['LISTEN_FDS'] = '{len(numbers)}';"
            f"os.environ['LISTEN_FDNAMES'] = '{':'.join(self.sockets)}';"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        return [sys.executable, "-c", code, *plain]


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor on a path, and one on an abstract address."""
    name = f"@pushd-test-{os.getpid()}-{time.monotonic_ns()}"
    made = Supervisor(str(tmp_path / "notify") if request.param == "path" else name)
    yield made
    made.socket.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A server that is not started yet."""
    made = Service(tmp_path)
    yield made
    made.dial.close()
    made.kill()
    for sock in made.sockets.values():
        sock.close()


def listener() -> socket.socket:
    """A listening socket with a line long enough for a restart."""
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Told()),
        ({"NOTIFY_SOCKET": "/run/x"}, Told(notify="/run/x")),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "7"}, Told(names=("tcp",))),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "8"}, Told()),
        ({"LISTEN_FDS": "1"}, Told()),
        ({"LISTEN_FDS": "x", "LISTEN_PID": "7"}, Told()),
        (
            {"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "tls:tcp"},
            Told(names=("tls", "tcp")),
        ),
        (
            {"LISTEN_FDS": "2", "LISTEN_PID": "7", "LISTEN_FDNAMES": "tls"},
            Told(names=("tls", "unknown")),
        ),
        ({"WATCHDOG_USEC": "1500000"}, Told(watchdog=1.5)),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "7"}, Told(watchdog=1.5)),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "8"}, Told()),
    ],
)
def test_what_the_environment_says(environ: dict[str, str], expected: Told) -> None:
    """Names decide; what is meant for another process is not taken."""
    assert told(environ, 7) == expected


def test_a_socket_of_another_name_is_refused() -> None:
    """A misspelt FileDescriptorName is an error that lists the right ones."""
    with pytest.raises(SocketError, match="tcp, tls, control, metrics"):
        inherited(("tpc",))


def test_nobody_listens() -> None:
    """Without a supervisor, or with one that has gone, nothing happens."""
    Notifier("").send(READY=1)
    Notifier("@nobody-is-there").send(READY=1)


async def test_time_is_asked_for_again_and_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While something long goes on the supervisor is asked for more time, and not afterwards."""
    monkeypatch.setattr(systemd, "EXTEND_EVERY", 0.01)
    notifier = Notifier(supervisor.address)
    with notifier.patience("migrating"):
        await asyncio.sleep(0.1)
    supervisor.listen(0.05)
    assert supervisor.told("STATUS", "migrating") == 1
    count = supervisor.told("EXTEND_TIMEOUT_USEC", "30000000")
    assert count >= 3
    await asyncio.sleep(0.05)
    supervisor.listen(0.05)
    assert supervisor.told("EXTEND_TIMEOUT_USEC", "30000000") == count


async def test_a_wedged_store_gives_no_sign_of_life(supervisor: Supervisor) -> None:
    """Each sign follows a probe that has come back."""
    wedged = asyncio.Event()

    async def probe() -> None:
        if wedged.is_set():
            await asyncio.Event().wait()

    notifier = Notifier(supervisor.address)
    task = asyncio.create_task(notifier.keep_alive(0.04, probe, lambda: "well"))
    await asyncio.sleep(0.1)
    wedged.set()
    await asyncio.sleep(0.03)
    supervisor.listen(0.02)
    count = supervisor.told("WATCHDOG")
    assert count >= 3
    await asyncio.sleep(0.1)
    supervisor.listen(0.02)
    assert supervisor.told("WATCHDOG") == count
    task.cancel()


# --- what a server says -----------------------------------------------------------------------


@pytest.mark.slow
@LOOPS
def test_a_life(service: Service, supervisor: Supervisor, loop: str) -> None:
    """READY when it listens, RELOADING and READY around a reload, STOPPING at the end."""
    service.loop = loop
    service.variables = {"NOTIFY_SOCKET": supervisor.address}
    service.start()
    supervisor.wait("READY")
    socket.create_connection(service.address, 5).close()
    service.signal(signal.SIGHUP)
    supervisor.wait("RELOADING")
    while supervisor.told("READY") < 2:
        supervisor.listen(0.05)
    order = [name for message in supervisor.heard for name in message if name in ORDER]
    assert order == ["READY", "RELOADING", "READY"]
    assert service.stop() == 0
    supervisor.listen(0.1)
    assert supervisor.told("STOPPING") == 1
    assert any(int(each.get("EXTEND_TIMEOUT_USEC", 0)) > 8e6 for each in supervisor.heard)
    assert not supervisor.told("WATCHDOG")


ORDER = ("READY", "RELOADING", "STOPPING")


@pytest.mark.slow
@LOOPS
def test_signs_of_life(service: Service, supervisor: Supervisor, loop: str) -> None:
    """They come while the server runs, and stop when it is stopped."""
    service.loop = loop
    service.variables = {"NOTIFY_SOCKET": supervisor.address, "WATCHDOG_USEC": "400000"}
    service.start()
    while supervisor.told("WATCHDOG") < 5:
        supervisor.listen(0.1)
    service.signal(signal.SIGSTOP)
    supervisor.listen(0.2)
    supervisor.heard.clear()
    supervisor.listen(0.8)
    assert not supervisor.heard
    service.signal(signal.SIGCONT)
    supervisor.wait("WATCHDOG")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["address", "folder", "socket", "certificate"])
def test_a_failed_start_is_never_ready(
    service: Service, supervisor: Supervisor, tmp_path: Path, fault: str
) -> None:
    """It ends with a code that is not 0 and one line that says why."""
    service.variables = {"NOTIFY_SOCKET": supervisor.address}
    taken = listener()
    if fault == "address":
        service.settings["tls_listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        authority = Authority(tmp_path)
        service.settings["tls_certificate"] = authority.certificate
        service.settings["tls_key"] = authority.key
    elif fault == "folder":
        service.data.write_text("no folder")
    elif fault == "socket":
        service.sockets = {"tpc": listener()}
    else:
        service.sockets = {"tls": listener()}
    with pytest.raises(RuntimeError):
        service.start()
    taken.close()
    assert service.process is not None
    assert service.process.returncode == 1
    supervisor.listen(0.1)
    assert not supervisor.told("READY")
    assert any(each.get("STATUS", "").startswith("cannot start: ") for each in supervisor.heard)
    critical = [line for line in service.log_text().splitlines() if "level=critical" in line]
    assert len(critical) == 1
    assert "Traceback" not in service.log_text()


# --- inherited sockets ------------------------------------------------------------------------


@pytest.mark.slow
@LOOPS
def test_inherited_listeners(service: Service, tmp_path: Path, loop: str) -> None:
    """Names decide what is spoken, whatever the order; what is configured is not opened then."""
    authority = Authority(tmp_path)
    service.loop = loop
    service.sockets = {"tls": listener(), "tcp": listener()}
    service.settings |= {
        "tls_certificate": authority.certificate,
        "tls_key": authority.key,
        "tls_listen": "127.0.0.1:0",
    }
    service.start()
    assert service.addresses == [service.sockets[name].getsockname()[:2] for name in ("tcp", "tls")]
    with socket.create_connection(service.addresses[0], 5) as plain:
        ask(plain)
    with authority.connect(service) as secure:
        ask(secure)
    assert service.stop() == 0


@pytest.mark.slow
@LOOPS
async def test_a_restart_under_load(service: Service, loop: str) -> None:
    """With inherited sockets no connect fails while the server is away, and no message is lost."""
    service.loop = loop
    service.sockets = {"tcp": listener()}
    service.start()
    a, b = await service.dial.pair()
    load = Load(a, b, 0)
    for _ in range(2):
        tasks = [asyncio.create_task(load.send()), asyncio.create_task(load.receive())]
        await load.more_confirmed(100)
        service.signal()
        knocks = [asyncio.create_task(_knock(service)) for _ in range(50)]
        assert await service.ended() == 0
        await asyncio.gather(*tasks)
        late = [asyncio.create_task(_knock(service)) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(service.start)
        assert await asyncio.gather(*knocks, *late) == [True] * 100
        load.a, _ = await service.dial.resume(a.push_id)
        load.b, _ = await service.dial.resume(b.push_id)
    sentinel = await load.a.say(b.user_id, "sentinel")
    while not load.received or load.received[-1]["msgId"] != sentinel["msgId"]:
        load.received += (await load.b.packet())["message"]
        await load.b.ack()
    check(load.received, load.confirmed)


async def _knock(service: Service) -> bool:
    """Connect while the server is away; tell whether it was answered in the end."""
    wire = await service.dial()
    await wire.send_line(PING)
    for _ in range(3):
        with suppress(ConnectionResetError, EOFError):
            reply = await wire.recv()
            if reply.get("cmd") == "ping" and reply["status"] == 1:
                return True
        # The old server told it to come again.
        wire = await service.dial()
        await wire.send_line(PING)
    return False


@pytest.mark.slow
def test_socket_activation(tmp_path: Path) -> None:
    """systemd's own tool starts it at the first connect, and its socket is taken."""
    tool = shutil.which("systemd-socket-activate")
    if not tool:
        pytest.skip("needs systemd-socket-activate")
    with listener() as free:
        port = free.getsockname()[1]
    command = [tool, "-l", f"127.0.0.1:{port}", "--fdname=tcp", "-E", "PYTHONPATH"]
    command += [sys.executable, "-m", "pushd", "--data", str(tmp_path / "data")]
    log = (tmp_path / "log").open("wb")
    with subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)}) as own:
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    wire = socket.create_connection(("127.0.0.1", port), 15)
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            with wire:
                assert b'"status":1' in ask(wire)
            own.terminate()
            assert own.wait(15) == 0
        finally:
            own.kill()
            log.close()


# --- the units --------------------------------------------------------------------------------


@pytest.fixture
def analyze() -> str:
    """The tool that judges units."""
    tool = shutil.which("systemd-analyze")
    if not tool:
        pytest.skip("needs systemd-analyze")
    return tool


@pytest.mark.slow
def test_units_are_sound(analyze: str, tmp_path: Path) -> None:
    """Every key in them is known, and nothing is amiss."""
    for name in UNITS:
        text = (ROOT / "packaging" / name).read_text()
        # The program is not installed where the tests run.
        (tmp_path / name).write_text(text.replace("/usr/bin/pushd", "/bin/true"))
    command = [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


@pytest.mark.slow
def test_the_service_is_confined(analyze: str) -> None:
    """Its exposure, as systemd judges it, is 1.2 or less."""
    unit = ROOT / "packaging" / "pushd.service"
    command = [analyze, "security", "--offline=yes", "--threshold=12", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    exposure = re.search(r"exposure level for pushd.service: ([0-9.]+)", done.stdout)
    assert exposure, done.stderr
    assert float(exposure[1]) <= 1.2
    assert done.returncode == 0
