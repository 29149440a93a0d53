"""The log: one event is one line, without secrets, whatever a value holds."""

import io
import json
import logging
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from pushd import log
from pushd.errors import Refusal
from pushd.status import Status


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root, aiosqlite = logging.getLogger(), logging.getLogger("aiosqlite")
    before = root.handlers[:], root.level, aiosqlite.level
    yield
    root.handlers[:], root.level, level = before
    aiosqlite.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines() -> Callable[..., list[str]]:
    """Set the log up, run a function with a logger, and give what was written."""

    def run(
        write: Callable[[Any], object],
        format: str = "logfmt",
        level: str = "info",
        *,
        journal: bool = True,
    ) -> list[str]:
        stream = io.StringIO()
        log.configure(level, format, journal, stream=stream)
        write(structlog.get_logger())
        text = stream.getvalue()
        assert text == "" or text.endswith("\n")
        return text.split("\n")[:-1]

    return run


Lines = Callable[..., list[str]]

HOSTILE = "a\n<0>b\r\x1b[31m\x00\x7f\x85\u2028\u2029\u202e\u2066\ufeff"


# One line


@pytest.mark.parametrize("format", ["console", "json", "logfmt"])
def test_a_hostile_value_stays_on_its_line_and_is_visible(lines: Lines, format: str) -> None:
    """Nothing that a peer sends can make a second line, hide one, or reorder what is shown."""

    def write(logger: Any) -> None:
        logger.info(HOSTILE, name=HOSTILE, deep=[{HOSTILE: HOSTILE}], error=ValueError(HOSTILE))
        logging.getLogger("other").warning(HOSTILE)

    got = lines(write, format)
    assert len(got) == 2
    assert all(line.isprintable() for line in got)
    assert [line[:3] for line in got] == ["<6>", "<4>"]


def test_json_holds_the_value_itself(lines: Lines) -> None:
    """The escapes of a JSON line are JSON's own: a program reads back what was logged."""
    (line,) = lines(lambda logger: logger.info("e", name=HOSTILE, zh="你好"), "json", journal=False)
    frame = json.loads(line)
    assert frame.pop("ts").endswith("Z")
    assert frame == {"level": "info", "event": "e", "name": HOSTILE, "zh": "你好"}
    assert "你好" in line


def test_logfmt_quotes_what_needs_it(lines: Lines) -> None:
    """A value with a blank, a quote, an equals sign or nothing in it is quoted."""
    (line,) = lines(lambda logger: logger.info("log in", a="x", b="x y", c='"', d="x=y", e="", f=7))
    assert line == r'<6>level=info event="log in" a=x b="x y" c="\"" d="x=y" e="" f=7'


def test_console_is_for_people(lines: Lines) -> None:
    """The time of day, the level and the event stand in columns before the rest."""
    (line,) = lines(lambda logger: logger.warning("slow", ms=7), "console", journal=False)
    assert line[12:] == " warning  slow  ms=7"
    assert line[2] == line[5] == ":"


def test_an_exception_is_one_line_with_its_traceback(lines: Lines) -> None:
    """The traceback is a value like any other, and its end is what is kept."""

    def write(logger: Any) -> None:
        try:
            raise RuntimeError("x" * log.TRACE_MAX + "the end")
        except RuntimeError:
            logger.exception("failed")
            logging.getLogger("asyncio").exception("failed too")

    for line in lines(write, "json", journal=False):
        text = json.loads(line)["exception"]
        assert text.endswith("the end")
        assert len(text) <= log.TRACE_MAX


def test_values_are_cut(lines: Lines) -> None:
    """300 characters of a value are enough; a line cannot fill the disk."""
    values = {"a": "x" * 1000, "b": ["y" * 1000] * 1000, "c": 10**5000}
    (line,) = lines(lambda logger: logger.info("e", **values), "json")
    frame = json.loads(line[3:])
    assert frame["a"] == "x" * 299 + "…"
    assert len(frame["b"]) == 300
    assert frame["c"] == "<huge int>"


# Secrets


@pytest.mark.parametrize(
    "key", ["password", "old", "new", "pushId", "push_id", "token", "content", "info", "text"]
)
def test_secrets_are_dropped_wherever_they_stand(lines: Lines, key: str) -> None:
    """A key that may hold a secret, or what a person wrote, is not logged at any depth."""

    def write(logger: Any) -> None:
        structlog.contextvars.bind_contextvars(**{key: "s3cret"})
        logger.info("e", **{key.upper(): "s3cret", "request": {"a": [{key: "s3cret"}]}})
        logger.bind(**{key: "s3cret"}).info("e")

    for line in lines(write):
        assert "s3cret" not in line
        assert "event=e" in line


def test_objects_are_named_and_not_shown(lines: Lines) -> None:
    """A repr shows all fields of a request; only the type is logged."""

    class Login(msgspec.Struct):
        password: str

    login = Login("s3cret")
    (line,) = lines(lambda logger: logger.info("e", a=login, b=[login], c=b"s3cret", d=Login))
    assert "s3cret" not in line
    assert line.endswith('a=<Login> b="[\\"<Login>\\"]" c="<6 bytes>" d=<StructMeta>')


def test_values_of_everyday_are_readable(lines: Lines) -> None:
    """Numbers, codes, paths and errors look as one expects; JSON gets no NaN."""

    class Code(IntEnum):
        BAD = 4003

    values = {"a": Code.BAD, "b": Path("/x"), "c": KeyError("k"), "d": None, "e": float("nan")}
    (line,) = lines(lambda logger: logger.info("e", **values), "json")
    frame = json.loads(line[3:], parse_constant=pytest.fail)
    assert {key: frame[key] for key in values} == {
        "a": 4003,
        "b": "/x",
        "c": "KeyError",
        "d": None,
        "e": "nan",
    }


def test_a_value_that_holds_itself_ends(lines: Lines) -> None:
    """A cycle is cut at a depth and not followed for ever."""
    loop: list[Any] = []
    loop.append(loop)
    (line,) = lines(lambda logger: logger.info("e", loop=loop))
    assert line.endswith('loop="[[[[\\"…\\"]]]]"')


# Levels and sources


def test_what_is_below_the_level_is_not_written(lines: Lines) -> None:
    """The level holds for both kinds of loggers."""

    def write(logger: Any) -> None:
        for name in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, name)("a")
            getattr(logging.getLogger("x"), name)("b")

    got = lines(write, level="error")
    assert [line[:3] for line in got] == ["<3>", "<3>", "<2>", "<2>"]
    assert len(lines(write, level="debug")) == 10


def test_loggers_that_exist_follow_a_second_call(lines: Lines) -> None:
    """The level can be changed while the server runs, and no line is written twice."""
    logger = structlog.get_logger()
    assert lines(lambda _: logger.debug("a"), level="info") == []
    assert lines(lambda _: logger.debug("a"), level="debug") == ["<7>level=debug event=a"]
    got = lines(lambda _: logging.getLogger("x").warning("%d left", 3))
    assert got == ['<4>level=warning event="3 left" logger=x']


def test_aiosqlite_never_logs_statements(lines: Lines) -> None:
    """Its debug lines hold the parameters, which are what people wrote."""
    assert lines(lambda _: logging.getLogger("aiosqlite").info("SELECT"), level="debug") == []


def test_warnings_of_python_are_events(lines: Lines) -> None:
    """A warning does not print its two lines past the log."""

    def write(_: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("old thing", stacklevel=1)
            logging.captureWarnings(False)

    (line,) = lines(write)
    assert "old thing" in line
    assert "logger=py.warnings" in line


def test_odd_levels_of_other_libraries_are_rounded_down(lines: Lines) -> None:
    """Libraries invent levels such as 15 and 60; they count as the one below."""

    def write(_: Any) -> None:
        logging.getLogger().setLevel(1)
        for level in (5, 15, 25, 60):
            logging.getLogger("x").log(level, "e")

    got = lines(write, level="debug")
    assert [line[:3] for line in got] == ["<7>", "<7>", "<6>", "<2>"]


# Where it goes


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "console"), [(Terminal(), True), (io.StringIO(), False)])
def test_auto_is_console_on_a_terminal_only(stream: io.StringIO, console: bool) -> None:
    """People get columns, files and pipes get logfmt."""
    log.configure("info", "auto", False, stream=stream)
    structlog.get_logger().info("e")
    assert ("level=info" not in stream.getvalue()) == console


class Broken(io.StringIO):
    """A stream on a full disk."""

    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    """A full disk or a closed pipe loses the line and nothing more."""
    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        log.configure("info", "logfmt", False, stream=stream)
        structlog.get_logger().info("e")
        logging.getLogger("x").warning("e")


def test_the_journal_is_known_by_its_descriptor(tmp_path: Path) -> None:
    """JOURNAL_STREAM is inherited by children whose standard error is a file of their own."""
    with (tmp_path / "a").open("w") as ours, (tmp_path / "b").open("w") as other:
        stat = os.fstat(ours.fileno())
        name = f"{stat.st_dev}:{stat.st_ino}"
        assert log.under_journal(name, ours.fileno())
        assert not log.under_journal(name, other.fileno())
        assert not log.under_journal("", ours.fileno())
        number = ours.fileno()
    assert not log.under_journal(name, number)


# Of whom, how many, and by whom it is written


class Someone:
    """Whom a line is about."""

    number = 7
    user = 0


def test_lines_name_their_peer(lines: Lines) -> None:
    """What runs on behalf of a connection says so, and who it is once that is known."""

    def write(logger: Any) -> None:
        someone = Someone()
        token = log.PEER.set(someone)
        logger.info("a")
        someone.user = 10001
        logger.info("b", connection=8)
        logging.getLogger("x").warning("c")
        log.PEER.reset(token)
        logger.info("d")

    got = [line.partition("event=")[2] for line in lines(write)]
    assert got == [
        "a connection=7",
        "b connection=8 user=10001",
        "c logger=x connection=7 user=10001",
        "d",
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("s3cret"), "ValueError"),
        (KeyError("s3cret"), "KeyError"),
        (UnicodeDecodeError("utf-8", b"s3cret", 0, 1, "s3cret"), "UnicodeDecodeError"),
        (sqlite3.OperationalError('near "s3cret": syntax error'), "OperationalError"),
        (RuntimeError("dictionary changed"), "RuntimeError: dictionary changed"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (Refusal(Status.NOT_ALLOWED, "no"), "Refusal: "),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_an_exception_that_may_quote_a_value_is_only_named(
    lines: Lines, error: Exception, told: str
) -> None:
    """A ValueError says what it was given, which a peer has sent; in a traceback as well."""

    def write(logger: Any) -> None:
        logger.info("e", error=error)
        try:
            try:
                raise error
            except Exception as cause:
                raise LookupError("s3cret") from cause
        except LookupError:
            logger.exception("e")

    first, second = (json.loads(line) for line in lines(write, "json", journal=False))
    assert first["error"].startswith(told)
    cause, _, effect = second["exception"].rpartition("Traceback (most recent call last):\n")
    assert cause.rstrip().splitlines()[-1].startswith(told)
    assert effect.endswith("\nLookupError")
    assert '"s3cret"' not in json.dumps(first)
    assert "LookupError: " not in second["exception"]


def test_an_error_of_the_store_is_told_by_its_code(lines: Lines) -> None:
    """SQLite's texts quote what was searched for; its codes do not."""

    def write(logger: Any) -> None:
        try:
            sqlite3.connect(":memory:").execute("s3cret")
        except sqlite3.Error as error:
            logger.info("e", error=error)

    (line,) = lines(write)
    assert line.endswith('error="OperationalError: SQLITE_ERROR"')


def test_an_event_has_so_many_lines_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors and debug lines always pass; the next line of the event counts what did not."""
    now = 100.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    stream = io.StringIO()
    log.configure("debug", "logfmt", True, rate=2, stream=stream)
    logger = structlog.get_logger()
    for _ in range(5):
        logger.info("a")
        logger.warning("b")
        logger.error("c")
        logger.debug("d")
    logger.info("other")
    now = 101.0
    logger.info("a")
    now = 102.0
    logger.info("a")
    got = [line.partition("event=")[2] for line in stream.getvalue().splitlines()]
    assert [got.count(name) for name in "abcd"] == [2 + 1, 2, 5, 5]
    assert got[-3:] == ["other", "a suppressed=3", "a"]


def test_the_count_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names other libraries make up, only so many are remembered."""
    monkeypatch.setattr(log, "EVENTS", 10)
    throttle = log._Throttle(1)
    for number in range(100):
        throttle(None, "info", {"event": str(number)})
    assert len(throttle._seen) <= 10


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, the reader's first."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with suppress(OSError):
            os.close(descriptor)


def fill(writer: int) -> int:
    """Fill a pipe; gives how many bytes it took."""
    os.set_blocking(writer, False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            count += os.write(writer, b"x" * 512)
    os.set_blocking(writer, True)
    return count


def test_a_sink_does_not_wait_for_its_reader(pipe: tuple[int, int]) -> None:
    """While nobody reads, so many lines wait and more are lost, and that is told afterwards."""
    reader, writer = pipe
    filled = fill(writer)
    log.configure("info", "logfmt", True, stream=io.StringIO())
    sink = log.Sink(writer, 10)
    sink.msg("first")
    while sink._lines:  # until the thread has taken it, and hangs in its write
        pass
    for number in range(50):
        sink.msg(str(number))
    sink.flush(0.01)
    assert (len(sink._lines), sink.lost) == (10, 40)
    assert len(os.read(reader, filled)) == filled
    sink.flush(10)
    assert os.read(reader, 1000).split() == [b"first", *(b"%d" % n for n in range(10))]
    assert (len(sink._lines), sink.lost) == (0, 0)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_sink_writes_long_lines_whole(pipe: tuple[int, int], blocking: bool) -> None:
    """A line that the pipe takes in pieces arrives whole, also when the pipe never blocks."""
    reader, writer = pipe
    os.set_blocking(writer, blocking)
    sink = log.Sink(writer, 10)
    sink.msg("y" * 300_000)
    got = b""
    while len(got) < 300_001:
        got += os.read(reader, 65536)
    assert got == b"y" * 300_000 + b"\n"


def test_a_sink_without_a_reader_goes_on(pipe: tuple[int, int]) -> None:
    """What cannot be written is lost and counted; the thread lives."""
    reader, writer = pipe
    os.close(reader)
    sink = log.Sink(writer, 10)
    for _ in range(3):
        sink.msg("a")
        sink.flush(10)
    assert sink.lost == 3


def test_a_change_keeps_where_the_log_goes() -> None:
    """A reload changes level, format and rate, and not the stream nor the journal's prefixes."""
    stream = io.StringIO()
    log.configure("error", "json", True, stream=stream)
    logger = structlog.get_logger()
    logger.info("a")
    log.adjust("info", "logfmt", rate=1, waiting=10)
    for _ in range(3):
        logger.info("b")
    assert stream.getvalue() == "<6>level=info event=b\n"


def test_without_standard_error_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without it has None in its place."""
    monkeypatch.setattr(log.sys, "stderr", None)
    log.configure("info", "auto", False)
    structlog.get_logger().info("e")
