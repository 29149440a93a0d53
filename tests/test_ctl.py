"""`pushctl` without a server: tables, arguments, and peers that are no pushd."""

import io
import json
import os
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pushd import config
from pushd.ctl import pushctl
from pushd.ctl.calls import Control, NotReached, Refused
from pushd.ctl.looking import _since
from pushd.ctl.progress import Progress, counted
from pushd.ctl.table import Line, Listing, Record, duration, size, title, width
from tests.fake_control import answering

NO_SERVER = {"chat", "compact", "config", "ping", "restore"}
ARGUMENTS = {"backup", "disable", "enable", "reset_password", "unregister"}


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let neither a file in /etc nor the environment of the tests reach the commands."""
    monkeypatch.setattr(config, "DEFAULT_FILE", str(tmp_path / "none.toml"))
    for variable in [name for name in os.environ if name.startswith("PUSHD_")]:
        monkeypatch.delenv(variable)


def run(*words: str, input: str = "") -> Result:
    return CliRunner().invoke(pushctl, words, input=input)


# Tables


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("", 0),
        ("abc", 3),
        ("王小明", 6),
        ("ｆｕｌｌ", 8),
        ("e\u0301", 1),
        ("\u200b", 0),
        ("한글", 4),
    ],
)
def test_width(text: str, columns: int) -> None:
    """A text is as wide as a terminal shows it."""
    assert width(text) == columns


def test_a_table_is_aligned() -> None:
    """Texts begin and numbers end at one place, whatever the characters are."""
    entries = [
        {"name": "王小明", "devices": 2},
        {"name": "Ana", "devices": 10},
        {"name": "", "devices": 0},
    ]
    assert Listing(entries, "name devices").text().splitlines() == [
        "NAME    DEVICES",
        "王小明        2",
        "Ana          10",
        "-             0",
    ]


def test_a_table_of_nothing() -> None:
    """An empty list is its titles, or an empty array."""
    assert Listing([], "userId lastSeen").text() == "USER ID  LAST SEEN"
    assert Listing([], "userId").json() == "[]"


def test_nothing_moves_the_cursor() -> None:
    """Control characters and marks that reorder are shown, and not obeyed."""
    evil = "a\x1b[2J\r\n\u202eb\x9b"
    for answer in (Listing([{"name": evil}], "name"), Record({"name": evil}), Line(evil, {})):
        shown = answer.text()
        assert not set(shown) & set("\x1b\r\u202e\x9b")
        assert len(shown.splitlines()) <= 2
    assert json.loads(Record({"name": evil}).json()) == {"name": evil}


def test_values_for_people() -> None:
    """Truth, nothing, bytes and times are words."""
    record = Record({"full": False, "lastSeen": "", "refusals": {"4003": 2}, "b": 1}, {"b": size})
    assert record.text().splitlines() == [
        "full       no",
        "last seen  -",
        "refusals   4003 2",
        "b          1 B",
    ]
    assert [size(n) for n in (0, 1023, 1024, 5 << 30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
    assert [duration(n) for n in (0, 61, 7200, 90_000)] == ["0s", "1m 1s", "2h 0m", "1d 1h"]
    assert title("storeBytes") == "STORE BYTES"


# Progress


class Terminal(io.StringIO):
    """A terminal that remembers what was written, and a clock that steps a second a look."""

    def __init__(self, *, tty: bool = True) -> None:
        super().__init__()
        self.tty = tty
        self.time = 0.0

    def isatty(self) -> bool:
        return self.tty

    def now(self) -> float:
        self.time += 1.0
        return self.time


def test_a_bar_on_a_terminal() -> None:
    """Long work shows how far it is, and leaves an empty line."""
    screen = Terminal()
    with Progress("backup", 200, stream=screen, now=screen.now) as progress:
        progress.at(100)
        assert screen.getvalue().endswith(f"backup: [{'#' * 15}{'-' * 15}]  50%")
        progress.at(300)
        assert screen.getvalue().endswith("100%")
    assert screen.getvalue().endswith(" \r")
    assert "\n" not in screen.getvalue()


def test_a_count_where_the_whole_is_not_known() -> None:
    """A list shows how many entries have come."""
    screen = Terminal()
    assert list(counted("fetched", "abc", stream=screen, now=screen.now)) == ["a", "b", "c"]
    assert "fetched: 3" in screen.getvalue()


def test_no_progress_elsewhere() -> None:
    """What is no terminal, and what is done quickly, gets nothing."""
    pipe = Terminal(tty=False)
    list(counted("fetched", "abc", stream=pipe, now=pipe.now))
    quick = Terminal()
    list(counted("fetched", "abc", stream=quick, now=lambda: 0.0))
    assert pipe.getvalue() == quick.getvalue() == ""


# Exit codes


def words_of(name: str) -> list[str]:
    """A verb with what it cannot do without."""
    more = {
        "broadcast": ["hello", "--all"],
        "push": ["hello", "--to", "10001"],
        "trace": ["1"],
        "kick": ["10001"],
        "register": ["18870742138", "--generate"],
        "report": ["1", "--done"],
        "reset_password": ["10001", "--generate"],
        "unregister": ["10001", "--yes"],
    }
    return [name, *more.get(name, ["10001"] if name in ARGUMENTS else [])]


@pytest.mark.parametrize("name", sorted(set(pushctl.commands) - NO_SERVER))
def test_each_verb_says_when_no_server_is_there(name: str, tmp_path: Path) -> None:
    """Exit code 3, one line on standard error, nothing on standard output; --json is known."""
    for more in ([], ["--json"], ["--timeout", "5"]):
        result = run(*words_of(name), "--socket", str(tmp_path / "none"), *more)
        assert result.exit_code == 3, result.output
        assert result.stdout == ""
        assert result.stderr == f"{tmp_path}/none: No such file or directory\n"


@pytest.mark.parametrize("name", sorted(set(pushctl.commands) - NO_SERVER))
def test_each_verb_says_when_it_is_refused(name: str, tmp_path: Path) -> None:
    """Exit code 1 and the server's reason."""
    refusal = b'{"status":4004,"pushId":"","message":"only root"}\n'
    with answering(tmp_path / "socket", refusal):
        result = run(*words_of(name), "--socket", str(tmp_path / "socket"))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "only root\n")


@pytest.mark.parametrize("name", sorted(pushctl.commands))
def test_each_verb_has_help_and_refuses_what_it_does_not_know(name: str) -> None:
    """Exit code 2 for wrong usage."""
    assert run(name, "--help").exit_code == 0
    assert run(name, "--nonsense").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["kick"],
        ["kick", "10001", "--connection", "7"],
        ["disable"],
        ["report", "1"],
        ["report", "x", "--done"],
        ["loglevel", "loud"],
        ["audit", "--since", "1y"],
        ["users", "--limit", "-1"],
        ["status", "--timeout", "0"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage(words: list[str], tmp_path: Path) -> None:
    """Exit code 2, also where only the verb itself finds out."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        more = [] if words == ["nonsense"] else ["--socket", str(tmp_path / "socket")]
        result = run(*words, *more)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_deletion_is_asked_for(tmp_path: Path) -> None:
    """Without a yes nothing is sent."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        result = run("unregister", "10001", "--socket", str(tmp_path / "socket"), input="n\n")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100) == b""
    assert result.exit_code == 1


# Calls


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0\r\n", b"[]\n", b'{"cmd":"stats"}\n', b"\xff\n", b"[" * 100_000 + b"\n"]
)
def test_what_is_no_pushd(answer: bytes, tmp_path: Path) -> None:
    """A peer that says something else is named, and not quoted."""
    with (
        answering(tmp_path / "socket", answer),
        Control(str(tmp_path / "socket"), 5) as control,
        pytest.raises(Refused, match="no pushd answers there"),
    ):
        control.call("stats")


def test_the_time_is_for_the_whole_answer(tmp_path: Path) -> None:
    """Silence costs the timeout, and an end without an answer is none."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen()
        with (
            Control(str(tmp_path / "silent"), 0.05) as control,
            pytest.raises(NotReached, match="timed out"),
        ):
            control.call("stats")
    with (
        answering(tmp_path / "short", b'{"cmd":"sta'),
        Control(str(tmp_path / "short"), 5) as control,
        pytest.raises(NotReached, match="closed without an answer"),
    ):
        control.call("stats")


def test_pages_follow_each_other(tmp_path: Path) -> None:
    """A list is asked for until it has no `next`, or enough is there."""
    pages = (
        b'{"cmd":"users","status":1,"result":[{"n":1},{"n":2}],"message":"ok","next":"after:2"}\n',
        b'{"cmd":"users","status":1,"result":[{"n":3}],"message":"ok"}\n',
    )
    with answering(tmp_path / "all", *pages), Control(str(tmp_path / "all"), 5) as control:
        assert [one["n"] for one in control.entries("users")] == [1, 2, 3]
    with answering(tmp_path / "two", pages[0]), Control(str(tmp_path / "two"), 5) as control:
        assert [one["n"] for one in control.entries("users", 2)] == [1, 2]


def test_times() -> None:
    """A time is so long ago, or a date."""
    assert _since(None) is None
    assert _since("1970-02-01T00:00:00") is not None
    ago = _since("1h"), _since("60m")
    assert ago[0] is not None and ago[1] is not None
    assert abs(ago[0] - ago[1]) < 1000
    for text in ("yesterday", "-1h", "1", "h", "２h", "9999999999999d"):
        with pytest.raises(click.BadParameter):
            _since(text)


def test_a_backup_that_is_not_to_be_seen(tmp_path: Path) -> None:
    """A server with a /tmp of its own made the file where nobody finds it: that is no success."""
    result = {"file": str(tmp_path / "gone.tar"), "bytes": 1, "files": 0, "damaged": 0, "names": []}
    job = {"job": "backup", "number": 1, "state": "done", "done": 1, "total": 1, "problem": ""}
    answer = {"cmd": "backup", "status": 1, "result": {**job, "result": result}, "message": "ok"}
    lines = [json.dumps(answer).encode() + b"\n"]
    path = tmp_path / "socket"
    with answering(path, *lines):
        found = run("backup", str(tmp_path / "gone.tar"), "--socket", str(path))
    assert found.exit_code == 1
    assert "not to be seen from here" in found.stderr
    (tmp_path / "gone.tar").touch()
    path.unlink()
    with answering(path, *lines):
        found = run("backup", str(tmp_path / "gone.tar"), "--socket", str(path))
    assert found.exit_code == 0
