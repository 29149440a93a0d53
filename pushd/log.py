"""The log: structlog and the standard library's logging through one chain, on one stream.

One event is one line, whatever a peer managed to get into a value: control characters, line
separators and bidirectional marks are escaped, values are cut. Secrets and what people write to
each other stay out: keys that may hold them are dropped wherever they stand, an object is named
by its type, never by its repr, and of an exception that may quote a value only the type is told.

Nobody waits for the log. Lines go through a bounded queue to a thread that writes them: where
that hangs or fails, lines are lost and counted, and the server goes on. Of one event at info or
warning only so many lines a second are made: a flood of connections is no flood of lines.

`configure` may be called again at any time; loggers that exist already follow.
"""

import atexit
import json
import logging
import math
import os
import re
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, date, datetime
from typing import Any, Protocol, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

VALUE_MAX = 300  # characters of one value
TRACE_MAX = 8192  # characters of a traceback, of which the end says most
DEPTH_MAX = 4  # levels of a nested value

WAITING = 10_000  # lines that wait to be written, unless told otherwise
CHUNK = 256  # lines of one write
EVENTS = 1000  # events whose lines are counted at once
LAST_WAIT = 1.0  # seconds for the last lines at the end of the process

# Keys whose values are a secret or what a person wrote, in lower case.
SECRET = frozenset(
    {"password", "old", "new", "pushid", "push_id", "token", "content", "info", "text"}
)

# Bare numbers of syslog, which journald takes from the head of a line.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# Control characters, line separators, surrogates, and the marks that reorder what follows them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_BARE = re.compile(r'[^\s"=\\]+')  # a value of logfmt that needs no quotes
# Exceptions whose texts are written by code; those of others may quote what a peer has sent.
_TOLD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
)


class Peer(Protocol):
    """Whom a line is about."""

    number: int  # of the connection
    user: int  # the account, 0 without one


# On whose behalf code runs; lines that it logs name the connection and the user.
PEER: ContextVar[Peer | None] = ContextVar("peer", default=None)


def configure(
    level: str,
    format: str,
    journal: bool,
    *,
    rate: int = 0,
    waiting: int = WAITING,
    stream: TextIO | None = None,
) -> None:
    """Set up all logging of the process.

    `level` and `format` are those of the settings, `auto` included. With `journal` each line
    begins with its priority. Of one event at most `rate` lines a second are written, 0 sets no
    limit; `waiting` bounds the lines that are not written yet. `stream` is standard error when
    absent; any other one is written to at once.
    """
    now = {"level": level, "format": format, "rate": rate, "waiting": waiting}
    _now_in_use.update(now, journal=journal, stream=stream)
    out = sys.stderr if stream is None else stream
    if format == "auto":
        format = "console" if _is_terminal(out) else "logfmt"
    writer = _writer_of(out, waiting)
    structlog.configure(
        processors=[
            _Throttle(rate),
            structlog.contextvars.merge_contextvars,
            _name_peer,
            structlog.processors.add_log_level,
            redact,
            _render_exception,
            _Render(_FORMATS[format], journal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        context_class=dict,
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,  # or they would not follow a later call
    )
    _route_standard_library(_LEVELS[level])


def set_level(level: str) -> str:
    """Change the level and nothing else; gives it."""
    configure(**{"format": "auto", "journal": False, **_now_in_use, "level": level})
    return level


def level() -> str:
    """Give the level that holds."""
    return str(_now_in_use.get("level", "debug"))


def adjust(level: str, format: str, *, rate: int, waiting: int) -> None:
    """Change what `configure` has set up; where the log goes stays."""
    if _now_in_use:
        now = {"level": level, "format": format, "rate": rate, "waiting": waiting}
        configure(**{**_now_in_use, **now})


def flush() -> None:
    """Wait a moment until all lines are written."""
    for sink in _sinks.values():
        sink.flush(LAST_WAIT)


def under_journal(journal_stream: str, descriptor: int = 2) -> bool:
    """Tell whether the descriptor is the journal's, by systemd's JOURNAL_STREAM.

    The variable alone does not say it: children with another standard error inherit it.
    """
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return False
    return journal_stream == f"{stat.st_dev}:{stat.st_ino}"


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Drop secrets, and make every value a short one of JSON's types."""
    return {
        key: value if key == "exc_info" else _plain(value)
        for key, value in event.items()
        if str(key).lower() not in SECRET
    }


def escape(text: str) -> str:
    """Escape what would break a line, or make it look like another one."""
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


# Values


def _plain(value: Any) -> Any:
    """Give a value that the formats can write, without secrets, cut to VALUE_MAX."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if isinstance(value, int):  # an IntEnum too; str() of a huge one is slow or refused
        return int(value) if value.bit_length() <= 64 else "<huge int>"
    if isinstance(value, str | os.PathLike | BaseException | date):
        return _cut(_text_of(value))
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _cut(json.dumps(_nested(value, DEPTH_MAX), ensure_ascii=False))
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"


def _text_of(value: Any) -> str:
    return _said(value) if isinstance(value, BaseException) else str(value)


def _said(error: BaseException) -> str:
    """Say what an exception is, without a text that may quote a value."""
    kind = type(error)
    code = getattr(error, "sqlite_errorname", None)
    if isinstance(code, str):
        return f"{kind.__name__}: {code}"
    if isinstance(error, _TOLD) or kind.__module__ == "pushd.errors":
        return f"{kind.__name__}: {error}" if str(error) else kind.__name__
    return kind.__name__


def _nested(value: Any, depth: int) -> Any:
    """Clean what lies inside of a value; the depth bounds a value that holds itself."""
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return _plain(value)
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {
            str(key): _nested(part, depth - 1)
            for key, part in list(value.items())[:VALUE_MAX]
            if str(key).lower() not in SECRET
        }
    return [_nested(part, depth - 1) for part in list(value)[:VALUE_MAX]]


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_MAX else text[: VALUE_MAX - 1] + "…"


def _render_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Turn `exc_info` into the text of the traceback, which the formats keep on one line."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error is not None and not isinstance(error, BaseException):
        error = sys.exc_info()[1] if error else None
    if error is not None:
        trace = "\n".join(_trace(error))
        event["exception"] = trace if len(trace) <= TRACE_MAX else "…" + trace[1 - TRACE_MAX :]
    return event


def _trace(error: BaseException) -> list[str]:
    """Write a traceback and those of its causes, the oldest first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    lines: list[str] = []
    for one in reversed(chain):
        lines += ["Traceback (most recent call last):"]
        lines += [line.rstrip() for line in traceback.format_tb(one.__traceback__)]
        lines += [_said(one)]
    return lines


def _name_peer(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the connection and the user on whose behalf the code runs."""
    peer = PEER.get()
    if peer is not None:
        event.setdefault("connection", peer.number)
        if peer.user:
            event.setdefault("user", peer.user)
    return event


class _Throttle:
    """The first processor: lets so many lines of an event pass in a second.

    The next line that passes says in `suppressed` how many did not. Errors always pass, for
    somebody may ask for a reference; debug lines pass because they were asked for.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate  # lines a second, 0 for no limit
        self._seen: dict[str, list[int]] = {}  # event: second, lines, suppressed

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if not self._rate or method not in ("info", "warning"):
            return event
        name, second = str(event.get("event")), int(time.monotonic())
        seen = self._seen.get(name)
        if seen is not None and seen[0] == second:
            if seen[1] >= self._rate:
                seen[2] += 1
                raise structlog.DropEvent
            seen[1] += 1
            return event
        if len(self._seen) >= EVENTS:
            self._seen.clear()
        self._seen[name] = [second, 1, 0]
        if seen is not None and seen[2]:
            event["suppressed"] = seen[2]
        return event


# Formats


class _Render:
    """The last processor: makes the line, with a time where the journal does not add one."""

    def __init__(self, format: Callable[[str, str, str, EventDict], str], journal: bool) -> None:
        self._format = format
        self._journal = journal

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        level = str(event.pop("level"))
        name = str(event.pop("event", ""))
        time = "" if self._journal else _now()
        line = escape(self._format(time, level, name, event))
        return f"<{_PRIORITIES[level]}>{line}" if self._journal else line


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(time: str, level: str, name: str, event: EventDict) -> str:
    head = {"ts": time} if time else {}
    # The escapes of `escape` are JSON's own, so what it does to this line changes no value.
    return json.dumps({**head, "level": level, "event": name, **event}, ensure_ascii=False)


def _logfmt(time: str, level: str, name: str, event: EventDict) -> str:
    head = {"ts": time} if time else {}
    return _pairs({**head, "level": level, "event": name, **event})


def _console(time: str, level: str, name: str, event: EventDict) -> str:
    pairs = f"  {_pairs(event)}" if event else ""
    return f"{time[11:-1]} {level:<9}{name}{pairs}".lstrip()


def _pairs(event: EventDict) -> str:
    return " ".join(f"{_key(key)}={_value(value)}" for key, value in event.items())


def _key(key: str) -> str:
    return re.sub(r"[^\w.-]", "_", key)


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


_FORMATS = {"console": _console, "json": _json, "logfmt": _logfmt}


# Ends


class Sink:
    """structlog's end of the chain: hands lines to a thread that writes them to a descriptor."""

    def __init__(self, descriptor: int, most: int) -> None:
        self.most = most  # lines that may wait
        self.lost = 0  # lines, since it was last told
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._changed = threading.Condition()
        self._idle = True  # all that was handed in is written
        self._torn = False  # the last write ended within a line
        self._thread: threading.Thread | None = None  # started with the first line

    def msg(self, line: str) -> None:
        """Hand a line in, or lose it when too many wait."""
        with self._changed:
            if len(self._lines) >= self.most and threading.current_thread() is not self._thread:
                self.lost += 1
                return
            self._lines.append(line)
            self._idle = False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    debug = info = warning = error = critical = msg

    def flush(self, seconds: float) -> None:
        """Wait until all is written, for so many seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._idle = True
                    self._changed.notify_all()
                    self._changed.wait()
                count = min(CHUNK, len(self._lines))
                lines = [self._lines.popleft() for _ in range(count)]
            if not self._write("".join(f"{line}\n" for line in lines)):
                with self._changed:
                    self.lost += count
            elif self.lost:
                with self._changed:
                    lost, self.lost = self.lost, 0
                structlog.get_logger("pushd.log").warning("lines of the log were lost", lines=lost)

    def _write(self, text: str) -> bool:
        """Write it all, however long that takes; False when it cannot be written."""
        data = (("\n" if self._torn else "") + text).encode(errors="backslashreplace")
        at = 0
        while at < len(data):
            try:
                at += os.write(self._descriptor, data[at:])
            except BlockingIOError:
                # Whoever shares the descriptor has made it so.
                select.select([], [self._descriptor], [], 1.0)
            except OSError:
                if at:
                    self._torn = data[at - 1 : at] != b"\n"
                return False
        self._torn = False
        return True


# What `configure` was told that a reload does not change, and the sinks by their descriptor.
_now_in_use: dict[str, Any] = {}
_sinks: dict[int, Sink] = {}
atexit.register(flush)


def _writer_of(out: TextIO | None, waiting: int) -> "Sink | _Writer":
    """Give the end of the chain for a stream: standard error, and no other, has a thread."""
    try:
        if out is None or out is not sys.stderr:
            return _Writer(out)
        descriptor = out.fileno()
    except (OSError, ValueError):
        return _Writer(out)
    sink = _sinks.setdefault(descriptor, Sink(descriptor, waiting))
    sink.most = waiting
    return sink


def _is_terminal(out: TextIO | None) -> bool:
    try:
        return out is not None and out.isatty()
    except ValueError:
        return False


class _Writer:
    """The end of the chain for any other stream: writes one line, whole."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None for one that was closed before the start
        self._lock = threading.Lock()  # the store's threads log too

    def msg(self, line: str) -> None:
        """Write the line, or lose it: a full disk or a closed pipe must not stop the server."""
        if self._stream is None:
            return
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = msg


class _Handler(logging.Handler):
    """The standard library's end: hands its records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            structlog.get_logger().log(
                # structlog knows the five levels only.
                min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL),
                record.getMessage(),
                logger=record.name,
                **({"exc_info": record.exc_info} if record.exc_info else {}),
            )
        except Exception:
            self.handleError(record)


def _route_standard_library(level: int) -> None:
    """Put our handler, once, on the root logger, and let warnings come there."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Handler):
            root.removeHandler(handler)
    root.addHandler(_Handler())
    root.setLevel(level)
    logging.captureWarnings(True)
    # Below WARNING it logs statements with their parameters, which are what people wrote.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
