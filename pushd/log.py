"""The log: structlog and the standard library's logging through one chain, on one stream.

One event is one line, whatever a peer managed to get into a value: control characters, line
separators and bidirectional marks are escaped, values are cut, and a log that cannot be written
never stops the server. Secrets and what people write to each other stay out: keys that may hold
them are dropped wherever they stand, and an object is named by its type, never by its repr.

`configure` may be called again at any time; loggers that exist already follow.
"""

import json
import logging
import math
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

VALUE_MAX = 300  # characters of one value
TRACE_MAX = 8192  # characters of a traceback, of which the end says most
DEPTH_MAX = 4  # levels of a nested value

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


# What `configure` was called with last.
_now_set: dict[str, Any] = {}


def configure(level: str, format: str, journal: bool, *, stream: TextIO | None = None) -> None:
    """Set up all logging of the process.

    `level` and `format` are those of the settings, `auto` included. With `journal` each line
    begins with its priority. `stream` is standard error when absent.
    """
    _now_set.update(level=level, format=format, journal=journal, stream=stream)
    out = sys.stderr if stream is None else stream
    if format == "auto":
        format = "console" if out.isatty() else "logfmt"
    writer = _Writer(out)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
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
    configure(**{"format": "auto", "journal": False, **_now_set, "level": level})
    return level


def level() -> str:
    """Give the level that holds."""
    return str(_now_set.get("level", "debug"))


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
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    return str(value)


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
        trace = "".join(traceback.format_exception(error)).rstrip()
        event["exception"] = trace if len(trace) <= TRACE_MAX else "…" + trace[1 - TRACE_MAX :]
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


class _Writer:
    """structlog's end of the chain: writes one line, whole."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()  # the store's threads log too

    def msg(self, line: str) -> None:
        """Write the line, or lose it: a full disk or a closed pipe must not stop the server."""
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
