"""The commands: arguments in, exit codes out."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pushd import __version__, cli, config
from pushd.config import Config
from pushd.systemd import Told

WEAK = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.getuid() == 0 else ()
PONG = b'{"cmd":"ping","status":1,"result":{"text":""},"message":"ok","date":"x"}\n'


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let neither a file in /etc nor the environment of the tests reach the commands."""
    monkeypatch.setattr(config, "DEFAULT_FILE", str(tmp_path / "none.toml"))
    for variable in [name for name in os.environ if name.startswith("PUSHD_")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    # Nor the signals that a command holds back reach the tests after it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Put a server in place that ends at once with 5; what it was given, and the log, is listed."""
    calls: list[Any] = []

    def main(
        settings: Config, *, ports_file: str | None, told: Told, load: Callable[[], Config]
    ) -> int:
        assert load() == settings
        calls.append((settings, ports_file))
        return 5

    fake = ModuleType("pushd.server")
    fake.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pushd.server", fake)
    monkeypatch.setattr(cli.log, "configure", lambda *args, rate, waiting: calls.append(args))
    return calls


def pushd(*args: str) -> Result:
    return CliRunner().invoke(cli.pushd, args)


def pushctl(*args: str) -> Result:
    return CliRunner().invoke(cli.pushctl, args)


def run(*args: str, weak: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a real pushd, which must end by itself, in an environment of only these variables.

    To a `weak` one the modes of files apply, also if it is root.
    """
    return subprocess.run(
        [*(WEAK if weak else ()), sys.executable, "-m", "pushd", *args],
        cwd=Path(__file__).parent.parent,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# pushd, as a process


@pytest.mark.slow
def test_a_bad_file_ends_the_process_with_78(tmp_path: Path) -> None:
    """Each error is one line on standard error, nothing else is, and no data is made."""
    file = tmp_path / "bad.toml"
    file.write_text("[limits]\nlin = 5\npage = 0\n[server]\nloop = 'uvlop'\n")
    result = run("-c", str(file), "--data", str(tmp_path / "data"), PUSHD_LIMITS_LINE="10k")
    assert result.returncode == 78
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:2: limits.lin: unknown setting, did you mean line?",
        f"{file}:3: limits.page: must be from 1 to 10000 (entries), not 0",
        f"{file}:5: server.loop: must be one of uvloop, asyncio, not uvlop, did you mean uvloop?",
        "environment: PUSHD_LIMITS_LINE: must be a whole number in plain digits, not 10k",
    ]
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
def test_a_missing_file_ends_the_process_with_78() -> None:
    """A file that was named must be there."""
    result = run("--config", "no/such.toml")
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr == "no/such.toml: cannot be read: No such file or directory\n"


@pytest.mark.slow
def test_a_usage_error_ends_the_process_with_2() -> None:
    """An unknown flag is the caller's mistake and no bad configuration."""
    result = run("--liste", "a:1")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--listen" in result.stderr


@pytest.mark.slow
def test_good_settings_are_checked_without_a_start(tmp_path: Path) -> None:
    """--check-config says so, ends with 0, and makes nothing."""
    result = run("--check-config", "--data", str(tmp_path / "data"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "the settings are good\n"
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("data", ["file", "file/below"])
def test_a_folder_that_cannot_be_used_is_told_without_a_start(tmp_path: Path, data: str) -> None:
    """--check-config looks where the data would be, also where nothing is yet."""
    (tmp_path / "file").write_text("")
    result = run("--check-config", "--data", str(tmp_path / data))
    assert result.returncode == 78
    place = f"--data: server.data: {tmp_path / data}"
    assert result.stderr == f"{place}: {tmp_path / 'file'} is no folder\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv")
@pytest.mark.parametrize("folder", ["", "media"])
def test_a_folder_that_is_not_writable(tmp_path: Path, folder: str) -> None:
    """Data and media that cannot be written to are told by --check-config, and end the start."""
    data = tmp_path / "data"
    (data / "media").mkdir(parents=True)
    closed = data / folder
    closed.chmod(0o555)
    file = tmp_path / "a.toml"
    file.write_text(f"[server]\ndata = '{data}'\nlisten = ['127.0.0.1:0']\n")
    checked = run("-c", str(file), "--check-config", weak=True)
    assert checked.returncode == 78
    assert checked.stderr == f"{file}:2: server.data: {data}: {closed} is not writable\n"
    started = run("-c", str(file), weak=True)
    assert started.returncode == 1
    assert "Permission denied" in started.stderr.splitlines()[-1]
    assert str(closed) in started.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["", "media"])
def test_a_folder_that_cannot_be_used_ends_the_start(tmp_path: Path, folder: str) -> None:
    """The start fails with one line that names the folder; nothing listens."""
    data = tmp_path / "data"
    taken = data / folder
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("")
    result = run("--data", str(data), "--listen", "127.0.0.1:0")
    assert result.returncode == 1
    first, last = result.stderr.splitlines()
    assert "event=starting" in first
    assert f'problem="{taken}: cannot be used: ' in last


@pytest.mark.slow
def test_a_port_in_use_ends_the_start(tmp_path: Path) -> None:
    """The address and the reason stand in the last line, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = run("--data", str(tmp_path / "data"), "--listen", address)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert f'problem="{address}: cannot listen: Address already in use"' in last


@pytest.mark.slow
@pytest.mark.parametrize("address", ["[fe80::1%nowhere0]:0", "no.such.host.invalid:0"])
def test_an_address_of_elsewhere_ends_the_start(tmp_path: Path, address: str) -> None:
    """An interface or a name that this machine does not know is told as such."""
    result = run("--data", str(tmp_path / "data"), "--listen", address)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert f'problem="{address}: cannot listen: ' in last
    assert "Unknown error" not in last
    assert "None" not in last


# pushd, in this process


def test_the_server_gets_the_settings_and_its_code_is_the_exit_code(
    started: list[Any], tmp_path: Path
) -> None:
    """The log is set up first, then the server runs; flags beat the file."""
    file = tmp_path / "a.toml"
    file.write_text("[server]\nlisten=['x:1']\ndata='f'\n[log]\nlevel='error'\nformat='json'\n")
    result = pushd(
        *("-c", str(file), "--listen", "[::1]:0", "--listen", ":7", "--loop", "asyncio"),
        *("--data", "d", "--log-level", "debug", "--log-format", "logfmt", "--ports-file", "p"),
    )
    assert result.exit_code == 5
    logged, (settings, ports_file) = started
    assert logged == ("debug", "logfmt", False)
    assert ports_file == "p"
    assert settings.server == config.Server(listen=("[::1]:0", ":7"), data="d", loop="asyncio")
    assert settings.files == (str(file),)


def test_without_flags_the_defaults_hold(started: list[Any]) -> None:
    """pushd works without any settings."""
    assert pushd().exit_code == 5
    assert started == [("info", "auto", False), (Config(), None)]


def test_the_journal_is_told_to_the_log(
    started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where standard error is the journal, lines begin with their priority."""
    stat = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stat.st_dev}:{stat.st_ino}")
    pushd()
    assert started[0] == ("info", "auto", True)


@pytest.mark.parametrize(
    "args",
    [
        ("--listen", "nowhere"),
        ("--listen", "a:1", "--listen", "b:99999"),
        ("--loop", "uvlop"),
        ("--log-level", "loud"),
        ("--log-format", "xml"),
        ("--data",),
        ("extra",),
    ],
)
def test_a_bad_flag_is_a_usage_error(started: list[Any], args: tuple[str, ...]) -> None:
    """Exit code 2, the flag is named, and nothing is started."""
    result = pushd(*args)
    assert result.exit_code == 2
    assert args[0] in result.stderr
    assert started == []


@pytest.mark.parametrize("args", [("--data", ""), ("--listen", "a:1", "--listen", "a:1")])
def test_a_flag_that_only_the_settings_refuse_is_bad_configuration(
    started: list[Any], args: tuple[str, ...]
) -> None:
    """What the flag itself allows is checked like any other layer."""
    result = pushd(*args)
    assert result.exit_code == 78
    assert result.stderr.startswith(f"flags: {args[0]}: ")
    assert started == []


@pytest.mark.parametrize("command", [pushd, pushctl])
@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version(command: Callable[..., Result], flag: str) -> None:
    """Both commands name themselves and the version."""
    result = command(flag)
    assert (result.exit_code, result.output) == (
        0,
        f"{command.__name__}, version {__version__}\n",
    )


@pytest.mark.parametrize("command", [pushd, pushctl])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_the_help(command: Callable[..., Result], flag: str) -> None:
    """Both commands explain themselves."""
    result = command(flag)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


# pushctl config


def test_config_shows_each_value_and_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to "why does my setting not hold"."""
    file = tmp_path / "a.toml"
    file.write_text("[log]\nlevel='error'\n")
    monkeypatch.setenv("PUSHD_LIMITS_PER_ADDRESS", "false")
    result = pushctl("config", "-c", str(file))
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert len(lines) == len(config.SETTINGS)
    assert 'server.listen = ["127.0.0.1:9527"]  # default' in lines
    assert f'log.level = "error"  # {file}:2' in lines
    assert "limits.per_address = false  # PUSHD_LIMITS_PER_ADDRESS" in lines

    rows = json.loads(pushctl("config", "--json", "-c", str(file)).output)
    assert rows["log.level"] == {"value": "error", "from": f"{file}:2"}
    assert rows["server.listen"] == {"value": ["127.0.0.1:9527"], "from": "default"}


def test_config_writes_the_shipped_file() -> None:
    """--default prints a file to start from."""
    result = pushctl("config", "--default")
    assert (result.exit_code, result.output) == (0, config.default_text())


def test_config_fails_on_bad_settings() -> None:
    """pushctl has no code 78; a bad file is a failure."""
    result = pushctl("config", "-c", "no/such.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "no/such.toml: cannot be read: No such file or directory\n"


# pushctl ping


@contextmanager
def peer(*answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Listen, and answer one ping with these pieces; gives the address and what was received."""
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            received.append(connection.recv(4096))
            for piece in answer:
                connection.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)  # a test that fails before it connects must not hang here
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", received
        thread.join()


def test_ping_prints_the_round_trip() -> None:
    """One ping is sent; the answer may come in pieces."""
    with peer(PONG[:9], PONG[9:]) as (address, received):
        result = pushctl("ping", "-s", address)
    assert received == [b'{"cmd":"ping"}\n']
    assert result.exit_code == 0
    assert result.output.startswith(f"{address} answered in ")
    assert result.output.endswith(" ms\n")


def test_ping_prints_json() -> None:
    """--json is for programs."""
    with peer(PONG) as (address, _):
        frame = json.loads(pushctl("ping", "--json", "--server", address).output)
    assert frame.keys() == {"server", "milliseconds"}
    assert 0 < frame["milliseconds"] < 60000


def test_ping_ends_with_3_where_nobody_listens() -> None:
    """A server that is not reached is told apart from one that fails."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    result = pushctl("ping", "-s", address)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"{address}: Connection refused\n"


def test_ping_ends_with_3_when_the_peer_hangs_up() -> None:
    """A connection that is closed without a line has reached no server."""
    with peer(b'{"cmd":"pi') as (address, _):
        result = pushctl("ping", "-s", address)
    assert result.exit_code == 3
    assert result.stderr == f"{address}: closed without an answer\n"


@pytest.mark.slow
def test_ping_does_not_wait_for_ever() -> None:
    """A peer that says nothing, or never ends its line, costs the timeout and no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the kernel accepts, nobody answers
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        result = pushctl("ping", "-s", address, "--timeout", "1")
    assert result.exit_code == 3
    assert result.stderr == f"{address}: timed out\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\x1b[31m\n",
        b"[]\n",
        b'{"status":5030,"pushId":"","message":"restarting"}\n',
        PONG.replace(b'"status":1', b'"status":4290'),
        b"[" * 60000 + b"\n",
        b"\xff\n",
    ],
)
def test_ping_ends_with_1_when_another_answers(answer: bytes) -> None:
    """Something is there, but no pushd that serves; its bytes do not reach the terminal raw."""
    with peer(answer) as (address, _):
        result = pushctl("ping", "-s", address)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{address}: no pushd answers there: ")
    assert result.stderr.rstrip("\n").isprintable()


def test_ping_refuses_a_bad_address() -> None:
    """A bad address is a usage error."""
    assert pushctl("ping", "-s", "nowhere").exit_code == 2


# pushctl chat


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(0, 0), (1, 1), (ConnectionRefusedError(111, "no"), 3), (KeyboardInterrupt(), 0)],
)
def test_chat_runs_the_terminal(
    monkeypatch: pytest.MonkeyPatch, outcome: int | BaseException, code: int
) -> None:
    """Its code is the exit code; not reached is 3, and Ctrl-C is the usual way out."""
    calls = []

    async def run_chat(host: str, port: int, *, ssl: object) -> int:
        assert ssl is None
        calls.append((host, port))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    fake = ModuleType("pushd.terminal")
    fake.run_chat = run_chat  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pushd.terminal", fake)
    assert pushctl("chat", "-s", ":7").exit_code == code
    assert calls == [("localhost", 7)]
