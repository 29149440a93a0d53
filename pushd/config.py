"""The settings of pushd: one frozen `Config`, made once and passed down.

Five layers, the later one wins: the default, the file (`-c`, else /etc/pushd/pushd.toml where
it exists), conf.d/*.toml beside it in order of name, the environment (`limits.per_address` is
PUSHD_LIMITS_PER_ADDRESS), the flags. No other module reads the environment.

A setting is one field of a struct below: its type, range, unit, meaning and default. Everything
else (parsing, checks, the shipped file, `pushctl config`) is derived from these fields. What is
unknown or out of range is never ignored: all errors of all layers are collected and raised
together, one line each, with the nearest right name. Nothing is half-started on a bad setting.

This module knows no loop, no socket and no store.
"""

import ipaddress
import os
import re
import tomllib
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from .errors import ConfigError
from .keylines import lines_of
from .settings import (
    Setting,
    about,
    checked,
    from_text,
    nearest,
    one_line,
    rows,
    shown,
    template,
    within,
)

DEFAULT_FILE = "/etc/pushd/pushd.toml"
PREFIX = "PUSHD_"
FILE_MAX = 1 << 20  # bytes of one settings file; more is a mistake, or a device

SOCKET_NAME_MAX = 80  # bytes of the name of a Unix socket in its folder

# The flags of `pushd` that are settings.
FLAGS = {
    "server.listen": "--listen",
    "server.data": "--data",
    "server.loop": "--loop",
    "log.level": "--log-level",
    "log.format": "--log-format",
}

# Settings that may be the name of a credential.
CREDENTIALS = ("tls.certificate", "tls.key")

# Ends of ranges
_MAX = 1 << 40  # bytes and characters: where no smaller number is the obvious end
_MANY = 100_000_000
_MILLION = 1_000_000
_DAY = 86400  # seconds

_RESERVED = (
    "system",
    "admin",
    "administrator",
    "root",
    "support",
    "pushd",
    "系统",
    "管理员",
    "客服",
)


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The process: where it listens, where it keeps its data, how it stops."""

    listen: Annotated[
        tuple[str, ...],
        about("Where to listen: host:port, [::1]:port, or :port for all addresses", restart=True),
    ] = ("127.0.0.1:9527",)
    data: Annotated[
        str,
        about(
            "The directory of the store and the files; under systemd its StateDirectory",
            restart=True,
        ),
    ] = "./data"
    loop: Annotated[Literal["uvloop", "asyncio"], about("The event loop", restart=True)] = "uvloop"
    zone: Annotated[
        str, about("The zone of the dates shown to people, as in Asia/Shanghai", restart=True)
    ] = "UTC"
    control: Annotated[
        str,
        about(
            "The operator's socket, a path from the directory of the data; empty for none",
            restart=True,
        ),
    ] = "control.sock"
    backlog: Annotated[
        int, within(1, 65535, "connections", "Waiting to be accepted", restart=True)
    ] = 4096
    stop_seconds: Annotated[float, within(0, 3600, "seconds", "A shutdown before it is forced")] = (
        8.0
    )
    lame_duck_seconds: Annotated[
        float, within(0, 86400, "seconds", "After USR2 all clients are sent away within this time")
    ] = 60.0


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """TLS 1.2 and newer, on listeners of its own; a reload reads the certificate anew."""

    listen: Annotated[
        tuple[str, ...],
        about("Where to listen for TLS, as in server.listen; needs a certificate", restart=True),
    ] = ()
    certificate: Annotated[
        str, about("The PEM file of the certificate and its chain, or a credential of systemd")
    ] = ""
    key: Annotated[
        str, about("The PEM file of its key, likewise; empty: it is in the certificate's file")
    ] = ""
    handshake_seconds: Annotated[float, within(1, 600, "seconds", "A handshake before it ends")] = (
        10.0
    )


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """Passwords and names."""

    bcrypt_cost: Annotated[
        int, within(4, 15, "log2 of rounds", "The cost of a password's hash")
    ] = 10
    bcrypt_threads: Annotated[
        int, within(1, 64, "threads", "Passwords hashed at a time", restart=True)
    ] = 2
    bcrypt_waiting: Annotated[
        int, within(1, 65536, "requests", "Waiting for such a thread; more are refused")
    ] = 256
    hide_unknown_users: Annotated[
        bool, about("Answer a login of an unknown phone like a wrong password (10000)")
    ] = False
    min_password: Annotated[int, within(1, 64, "characters", "The shortest new password")] = 6
    refuse_common: Annotated[
        bool, about("Refuse a new password that is among the 3,000 commonest (8002)")
    ] = True
    strangers: Annotated[
        Literal["refuse", "allow"], about("Messages to people who are not friends")
    ] = "refuse"
    reserved_names: Annotated[tuple[str, ...], about("Usernames that nobody may take")] = _RESERVED


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer, one account or one address may use."""

    # Lines and frames
    line_before_login: Annotated[int, within(256, _MAX, "bytes", "A line before login")] = 4096
    line: Annotated[int, within(1024, _MAX, "bytes", "A line after login")] = 1048576
    reply: Annotated[int, within(4096, _MAX, "bytes", "A reply; a list ends early")] = 1048576
    packet: Annotated[
        int, within(1024, _MAX, "bytes", "A pushed line, unless one message alone is longer")
    ] = 65536
    turn: Annotated[
        int, within(1024, _MAX, "bytes", "Written in one turn of the loop to all together")
    ] = 131072
    messages_per_frame: Annotated[int, within(1, 10000, "messages", "One message list")] = 100
    infos_per_message: Annotated[int, within(1, 1000, "infos", "One message")] = 20
    text: Annotated[int, within(1, _MAX, "characters", "A text in a message")] = 10000
    mentions: Annotated[int, within(0, 10000, "users", "Mentioned in one message")] = 100
    bad_lines: Annotated[int, within(1, _MILLION, "lines", "Bad in a row before the close")] = 10

    # Accounts
    devices: Annotated[int, within(1, 1000, "devices", "One account's devices")] = 10
    friends: Annotated[int, within(1, _MILLION, "users", "One account's friends")] = 5000
    group_members: Annotated[int, within(1, _MILLION, "users", "One group's members")] = 5000
    presence: Annotated[
        int, within(1, 10000, "users", "Whose presence one request may ask for")
    ] = 100
    reports: Annotated[int, within(1, _MILLION, "reports", "Kept of one account")] = 1000

    # Queues and buffers
    window_messages: Annotated[
        int, within(1, _MILLION, "messages", "On the way to a device without its ack")
    ] = 256
    window_bytes: Annotated[
        int, within(1024, _MAX, "bytes", "On the way to a device without its ack")
    ] = 1048576
    unconfirmed: Annotated[
        int, within(1, _MILLION, "messages", "Of one connection, waiting for the commit")
    ] = 1024
    inbox: Annotated[
        int, within(1024, _MAX, "bytes", "Read ahead on a connection, beside a line in progress")
    ] = 65536
    commit_queue: Annotated[
        int, within(1, _MANY, "messages", "Of all connections, waiting for the commit")
    ] = 65536

    # Connections
    connections: Annotated[int, within(1, _MANY, "connections", "From all addresses")] = 100000
    connections_per_address: Annotated[int, within(1, _MANY, "connections", "From one address")] = (
        10000
    )

    # Times
    heartbeat: Annotated[int, within(1, _DAY, "seconds", "What a client keeps by default")] = 270
    heartbeat_min: Annotated[int, within(1, _DAY, "seconds", "The least a client may ask for")] = 30
    heartbeat_max: Annotated[int, within(1, _DAY, "seconds", "The most a client may ask for")] = 900
    login_idle: Annotated[int, within(1, _DAY, "seconds", "Before login, without a line")] = 60
    login_total: Annotated[int, within(1, _DAY, "seconds", "Before login, in all")] = 600
    long_line_rate: Annotated[
        int,
        within(1, _MAX, "bytes a second", "Growth of a long line that counts as a sign of life"),
    ] = 1024
    long_line_total: Annotated[int, within(1, _DAY, "seconds", "How long such growth counts")] = 600
    drain: Annotated[float, within(0, 60, "seconds", "To read the last frame before the close")] = (
        1.0
    )
    write_timeout: Annotated[
        int,
        within(1, _DAY, "seconds", "Without a byte taken of what is written; then it is closed"),
    ] = 60
    recall: Annotated[int, within(0, 365 * _DAY, "seconds", "To recall one's own message")] = 120
    client_id_days: Annotated[int, within(1, 3650, "days", "A clientId is remembered")] = 7

    # Lists
    page: Annotated[int, within(1, 10000, "entries", "A page when no size is named")] = 10
    page_max: Annotated[int, within(1, 10000, "entries", "The largest page")] = 100
    history_max: Annotated[int, within(1, 10000, "messages", "One reply of history")] = 100

    # Budgets
    per_address: Annotated[
        bool, about("Keep the budgets per address; not behind a proxy that hides the addresses")
    ] = True
    wrong_passwords: Annotated[
        int, within(1, _MILLION, "a minute", "Wrong passwords per account and address")
    ] = 5
    wrong_password_wait: Annotated[
        int,
        within(1, _DAY, "seconds", "After too many of them; twice as long with each further one"),
    ] = 60
    wrong_password_wait_max: Annotated[int, within(1, _DAY, "seconds", "The longest such wait")] = (
        3600
    )
    wrong_passwords_in_all: Annotated[
        int,
        within(1, _MILLION, "a minute", "Wrong passwords per account before it gets slower"),
    ] = 20
    wrong_passwords_delay: Annotated[
        float, within(0, 60, "seconds", "How slow an account gets then")
    ] = 2.0
    trust_days: Annotated[
        int, within(0, 3650, "days", "An address that succeeded does not wait")
    ] = 30
    registers: Annotated[int, within(1, _MILLION, "an hour", "New accounts per address")] = 200
    logins: Annotated[int, within(1, _MILLION, "an hour", "Logins per address")] = 600
    wrong_push_ids: Annotated[
        int, within(1, _MILLION, "a minute", "Wrong pushIds at restart per address")
    ] = 60
    phone_searches: Annotated[
        int, within(1, _MILLION, "an hour", "Searches by phone per account")
    ] = 60
    searches: Annotated[int, within(1, _MILLION, "an hour", "Other searches per account")] = 600
    profiles: Annotated[
        int,
        within(1, _MILLION, "an hour", "Looks by userId at people who are no friends per account"),
    ] = 600
    friend_requests: Annotated[
        int, within(1, _MILLION, "an hour", "Friend requests per account")
    ] = 100
    groups: Annotated[int, within(1, _MILLION, "an hour", "New groups per account")] = 50
    files: Annotated[int, within(1, _MILLION, "an hour", "Saved files per account")] = 600
    typing: Annotated[int, within(1, _MILLION, "a minute", "Signs of typing per account")] = 120
    messages: Annotated[
        int, within(0, _MILLION, "a second", "Messages per account; 0 sets no limit")
    ] = 0
    budget_keys: Annotated[
        int,
        within(1, _MANY, "entries", "One table of budgets; the oldest is forgotten", restart=True),
    ] = 100000


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """What waits on disk for one device."""

    messages: Annotated[
        int, within(1, _MANY, "messages", "In a device's queue; then one gap stands for the rest")
    ] = 10000
    days: Annotated[int, within(1, 36500, "days", "A message waits in a queue")] = 30
    device_days: Annotated[int, within(1, 36500, "days", "A device without a connection lives")] = (
        90
    )


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """The database and its caches."""

    readers: Annotated[int, within(1, 64, "connections", "Reading the database", restart=True)] = 2
    batch_rows: Annotated[int, within(1, _MILLION, "rows", "One commit")] = 4096
    busy_seconds: Annotated[float, within(0, 600, "seconds", "To wait for the database's lock")] = (
        10.0
    )
    ack_seconds: Annotated[
        float, within(0, 60, "seconds", "An ack waits at most for a commit that has other work")
    ] = 0.05
    reserve: Annotated[
        int,
        within(0, _MAX, "bytes", "Kept free, so that acks still work on a full disk", restart=True),
    ] = 16777216
    cache_bytes: Annotated[
        int, within(65536, _MAX, "bytes", "Pages that the writer keeps in memory", restart=True)
    ] = 67108864
    cache_accounts: Annotated[int, within(1, _MANY, "accounts", "Kept in memory", restart=True)] = (
        100000
    )
    cache_pairs: Annotated[
        int, within(1, _MANY, "pairs", "Friendships kept in memory", restart=True)
    ] = 200000
    young_rows: Annotated[
        int, within(1, _MANY, "rows", "In the small part of the queues", restart=True)
    ] = 65536
    young_chats: Annotated[
        int, within(1, _MANY, "messages", "In the small part of the index by chat", restart=True)
    ] = 4096
    young_client_ids: Annotated[
        int,
        within(
            1,
            _MANY,
            "messages",
            "In memory before the index by clientId takes them",
            restart=True,
        ),
    ] = 65536
    history_days: Annotated[
        int, within(0, 36500, "days", "A message stays in history; 0 keeps it for ever")
    ] = 0
    checkpoint_pages: Annotated[
        int,
        within(1, _MANY, "pages", "The write-ahead log before it is written back", restart=True),
    ] = 4000
    log_bytes: Annotated[
        int,
        within(65536, _MAX, "bytes", "What the write-ahead log is brought back to", restart=True),
    ] = 67108864


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """Stored files: pictures, voices, all that messages and avatars name."""

    quota_bytes: Annotated[
        int, within(1, _MAX, "bytes", "One account's files, unfinished ones included")
    ] = 1073741824
    quota_count: Annotated[
        int, within(1, _MANY, "files", "One account's files, unfinished ones included")
    ] = 10000
    inline_max: Annotated[
        int, within(1, _MAX, "bytes", "A file saved at once, and one part of an upload")
    ] = 716800
    part_max: Annotated[int, within(1, _MAX, "bytes", "A file saved in parts")] = 16777216
    get_max: Annotated[int, within(1, _MAX, "bytes", "Of a file in one reply")] = 262144
    uploads: Annotated[int, within(1, 10000, "uploads", "Unfinished ones of one account")] = 20
    upload_hours: Annotated[
        int, within(1, 8760, "hours", "An upload lives without another part")
    ] = 24
    orphan_days: Annotated[
        int, within(1, 36500, "days", "A saved file lives that no message or avatar names")
    ] = 7
    export_hours: Annotated[int, within(1, 8760, "hours", "An archive of an account is kept")] = 24
    threads: Annotated[int, within(1, 64, "threads", "Working on files", restart=True)] = 4
    picture_pixels: Annotated[
        int, within(1, _MANY, "pixels", "The largest avatar that is decoded for its thumbnail")
    ] = 50000000


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """What operators did and who logged in, kept in the store."""

    rows: Annotated[
        int, within(100, _MANY, "rows", "Of each kind: actions, logins, failed logins")
    ] = 100000
    days: Annotated[int, within(1, 36500, "days", "They are kept, and reports once done")] = 180


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept to tell an operator where a message is and was."""

    seconds: Annotated[
        int,
        within(
            0,
            86400,
            "seconds",
            "Between two marks of when a device acked, or a user read",
            restart=True,
        ),
    ] = 10
    days: Annotated[int, within(1, 36500, "days", "Such marks are kept", restart=True)] = 7
    marks: Annotated[
        int, within(0, _MANY, "rows", "Marks of each kind; the oldest go", restart=True)
    ] = 1000000
    commits: Annotated[
        int,
        within(0, _MILLION, "commits", "In memory, for when messages were committed", restart=True),
    ] = 16384
    packets: Annotated[
        int,
        within(
            0,
            _MILLION,
            "packets",
            "In memory, for when messages were sent to devices",
            restart=True,
        ),
    ] = 16384


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The log, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The least that is logged")
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json", "logfmt"],
        about("How; auto is console on a terminal and logfmt elsewhere"),
    ] = "auto"
    rate: Annotated[
        int,
        within(0, _MILLION, "lines a second", "Of one event at info and warning; 0 sets no limit"),
    ] = 100
    waiting: Annotated[
        int, within(10, _MILLION, "lines", "Waiting to be written; more are lost, and counted")
    ] = 10000


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What is told to Prometheus and to health checks, by HTTP."""

    listen: Annotated[
        str,
        about(
            "Where /metrics, /healthz and /readyz are, as in 127.0.0.1:9528; empty: nowhere",
            restart=True,
        ),
    ] = ""
    refresh_seconds: Annotated[
        float, within(0, 3600, "seconds", "How old what the store is asked for may be")
    ] = 5.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings, by section; `files` are those that were read, and no setting."""

    server: Server = msgspec.field(default_factory=Server)
    tls: Tls = msgspec.field(default_factory=Tls)
    auth: Auth = msgspec.field(default_factory=Auth)
    limits: Limits = msgspec.field(default_factory=Limits)
    queue: Queue = msgspec.field(default_factory=Queue)
    store: Store = msgspec.field(default_factory=Store)
    media: Media = msgspec.field(default_factory=Media)
    audit: Audit = msgspec.field(default_factory=Audit)
    trace: Trace = msgspec.field(default_factory=Trace)
    log: Log = msgspec.field(default_factory=Log)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    files: tuple[str, ...] = ()


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "tls": Tls,
    "auth": Auth,
    "limits": Limits,
    "queue": Queue,
    "store": Store,
    "media": Media,
    "audit": Audit,
    "trace": Trace,
    "log": Log,
    "metrics": Metrics,
}

SETTINGS: dict[str, Setting] = {setting.key: setting for setting in rows(_SECTIONS)}


# What callers use


def load(file: str | None, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """Make the one Config from all layers.

    `file` is the operand of `-c`, None without it. `flags` goes by setting ("server.data"); a
    None there is a flag not given.

    Raises: ConfigError, with one line for everything that is wrong.
    """
    layers = _read(file, flags, environ)
    sections = {
        section: struct(**_section_values(layers, section)) for section, struct in _SECTIONS.items()
    }
    return Config(**sections, files=tuple(layers.files))  # type: ignore[arg-type] # by name


def origins(
    file: str | None, flags: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    """Tell for each setting its value and where it comes from: as `load` takes it.

    Raises: ConfigError, like `load`.
    """
    return _read(file, flags, environ).values


def adopt(running: Config, fresh: Config) -> tuple[Config, list[str], list[str]]:
    """Take over what may change in a running server.

    Gives the settings that hold from now on, the names of those that changed, and the names of
    those whose change needs a restart and that are as they were.
    """
    differ = [key for key in SETTINGS if value_of(running, key) != value_of(fresh, key)]
    restart = [key for key in differ if SETTINGS[key].restart]
    for key in restart:
        section, _, name = key.partition(".")
        kept = msgspec.structs.replace(getattr(fresh, section), **{name: value_of(running, key)})
        fresh = msgspec.structs.replace(fresh, **{section: kept})
    return fresh, [key for key in differ if key not in restart], restart


def value_of(settings: Config, key: str) -> Any:
    """Give the value of a setting by its name, such as limits.line."""
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def default_text() -> str:
    """Write the settings file as it is shipped: all there is, commented, with the defaults."""
    return template(_SECTIONS)


def meaning_of(section: str) -> str:
    """Give what a section of the settings is about, in a sentence."""
    return _SECTIONS[section].__doc__ or ""


def zone_of(name: str) -> tzinfo:
    """Give the zone of that name; UTC needs no zone data on the machine.

    Raises: ValueError when there is none.
    """
    if name == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("there is no such zone here (package tzdata)") from None


def control_path(data: str, control: str) -> str:
    """Give the path of the control socket, "" for none; it may be of any length."""
    return os.path.join(data, control) if control else ""


def parse_address(text: str) -> tuple[str, int]:
    """Split a listening address into host and port: host:port, [::1]:port, or :port.

    The host of `:port` is empty and means all addresses; port 0 is one of the kernel's choice.

    Raises: ValueError, whose text says what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        hint = f", did you mean :{text}?" if text.isdecimal() else ""
        raise ValueError(f"the port is missing, write host:port{hint}")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("the port must be a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return _ipv6(host[1:-1]), int(port)
    if ":" in host or "[" in host:
        raise ValueError(
            f"an IPv6 address needs brackets, did you mean [{host.strip('[]')}]:{port}?"
        )
    if host and not _is_host(host):
        raise ValueError(f"{host!r} is no host name and no IPv4 address")
    return host, int(port)


def parse_server(text: str) -> tuple[str, int, bool]:
    """Split the address of a server to reach: host, port, and whether by TLS (`tls://host:port`).

    Raises: ValueError, as `parse_address`.
    """
    scheme, slashes, rest = text.rpartition("://")
    if slashes and scheme != "tls":
        raise ValueError(f"write host:port or tls://host:port, not {shown(scheme)}://")
    host, port = parse_address(rest)
    return host or "localhost", port, bool(slashes)


# Layers


class _Layers:
    """The values so far, where each comes from, and everything that is wrong."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[Any, str]] = {
            key: (setting.default, "default") for key, setting in SETTINGS.items()
        }
        self.files: list[str] = []  # read, in order
        self.errors: list[str] = []  # one line each

    def put(self, key: str, raw: Any, origin: str, where: str) -> None:
        """Take a value in, or note under `where` why not."""
        try:
            value = checked(SETTINGS[key], raw)
            check = _CHECKS.get(key)
            if check is not None:
                check(value)
            self.values[key] = (value, origin)
        except ValueError as error:
            self.errors.append(f"{where}: {error}")


def _read(file: str | None, flags: Mapping[str, Any], environ: Mapping[str, str]) -> _Layers:
    """Lay the layers over each other."""
    layers = _Layers()
    if environ.get("STATE_DIRECTORY"):
        # systemd lists several with colons; the first is the one that is ours.
        data = environ["STATE_DIRECTORY"].partition(":")[0]
        layers.put("server.data", data, "STATE_DIRECTORY", "environment: STATE_DIRECTORY")
    for path in _paths(layers, file):
        _read_file(layers, path)
    _read_environ(layers, environ)
    for key, value in flags.items():
        if value is not None:
            layers.put(key, value, FLAGS[key], f"flags: {FLAGS[key]}")
    _find_credentials(layers, environ.get("CREDENTIALS_DIRECTORY", ""))
    layers.errors.extend(_cross_checks(layers))
    if layers.errors:
        raise ConfigError([one_line(error) for error in layers.errors])
    return layers


def _find_credentials(layers: _Layers, folder: str) -> None:
    """Turn names of systemd's credentials into their paths; a path stays what it is."""
    for key in CREDENTIALS:
        name, origin = layers.values[key]
        if folder and name and "/" not in name and os.path.lexists(f"{folder}/{name}"):
            layers.values[key] = f"{folder}/{name}", origin


def _paths(layers: _Layers, file: str | None) -> Iterator[Path]:
    """List the files to read: the main one, then those of conf.d beside it."""
    main = Path(DEFAULT_FILE if file is None else file)
    if file is not None or os.path.lexists(main):  # a link to nowhere is an error, not absence
        yield main
    beside = main.parent / "conf.d"
    try:
        names = sorted(os.listdir(beside))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        layers.errors.append(f"{beside}: cannot be read: {error.strerror}")
        return
    # Hidden ones are what an editor or a package manager left there.
    yield from (beside / n for n in names if n.endswith(".toml") and not n.startswith("."))


def _section_values(layers: _Layers, section: str) -> dict[str, Any]:
    return {
        key.partition(".")[2]: value
        for key, (value, _) in layers.values.items()
        if key.startswith(f"{section}.")
    }


def _read_file(layers: _Layers, path: Path) -> None:
    """Lay one file over what is there."""
    layers.files.append(str(path))
    try:
        text = _text_of(path)
        document = _parse(text)
    except _SyntaxError as error:
        layers.errors.append(f"{path}{error.place}: {error}")
    except ValueError as error:
        layers.errors.append(f"{path}: {error}")
    else:
        places = _Places(str(path), lines_of(text))
        for section, table in document.items():
            _read_table(layers, places, section, table)


class _SyntaxError(ValueError):
    """A text is no TOML; `place` is ":LINE" if that is known."""

    def __init__(self, text: str, place: str) -> None:
        super().__init__(text)
        self.place = place


class _Places:
    """A file with the lines of its keys."""

    def __init__(self, file: str, lines: Mapping[tuple[str, ...], int]) -> None:
        self._file = file
        self._lines = lines

    def of(self, *path: str) -> str:
        """Give where a key stands: FILE:LINE, or FILE alone when the line is not known."""
        line = self._lines.get(path)
        return self._file if line is None else f"{self._file}:{line}"


def _text_of(path: Path) -> str:
    try:
        # A pipe would be empty, or hang, when it is read anew.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError("is no regular file")
        with path.open("rb") as stream:
            data = stream.read(FILE_MAX + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(data) > FILE_MAX:
        raise ValueError(f"is larger than {FILE_MAX} bytes")
    try:
        # Editors on Windows put a BOM there; TOML itself does not know it.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:  # tomllib's own, and int()'s for thousands of digits
        at = re.search(r"at line ([0-9]+), column [0-9]+", str(error))
        place = f":{at[1]}" if at else ""
        hint = _unit_hint(text.split("\n")[int(at[1]) - 1]) if at else ""
        raise _SyntaxError(f"{error}{hint}", place) from None


def _unit_hint(line: str) -> str:
    """Explain the syntax error that people make on purpose: a number with a unit."""
    unit = re.search(r"=\s*([0-9][0-9._]*\s*[A-Za-z]+)\s*(?:#.*)?$", line)
    return f"; a number has no unit, not {shown(unit[1])}" if unit else ""


def _read_table(layers: _Layers, places: _Places, section: str, table: Any) -> None:
    """Lay one section of a file over what is there."""
    place = places.of(section)
    if section not in _SECTIONS:
        known = [*_SECTIONS, *SETTINGS] if isinstance(table, dict) else [*SETTINGS]
        what = "section" if isinstance(table, dict) else "setting"
        layers.errors.append(f"{place}: {shown(section)}: unknown {what}{nearest(section, known)}")
    elif not isinstance(table, dict):
        layers.errors.append(f"{place}: {section}: must be a section, write [{section}]")
    else:
        for name, raw in table.items():
            key = f"{section}.{name}"
            place = places.of(section, name)
            where = f"{place}: {shown(key)}"
            if key in SETTINGS:
                layers.put(key, raw, place, where)
            else:
                own = _SECTIONS[section].__struct_fields__
                hint = nearest(name, own) or nearest(name, SETTINGS)
                layers.errors.append(f"{where}: unknown setting{hint}")


def _read_environ(layers: _Layers, environ: Mapping[str, str]) -> None:
    """Lay the variables that begin with PUSHD_ over what is there."""
    known = {_variable(key): key for key in SETTINGS}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX):
            continue
        where = f"environment: {shown(variable)}"
        if variable not in known:
            layers.errors.append(f"{where}: unknown variable{nearest(variable, known)}")
            continue
        key = known[variable]
        try:
            raw = from_text(SETTINGS[key], environ[variable])
        except ValueError as error:
            layers.errors.append(f"{where}: {error}")
        else:
            layers.put(key, raw, variable, where)


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "_").upper()


# Checks of one setting


def _check_listen(addresses: tuple[str, ...]) -> None:
    if not addresses:
        raise ValueError("must name at least one address")
    _check_addresses(addresses)


def _check_addresses(addresses: tuple[str, ...]) -> None:
    parsed: dict[tuple[str, int], str] = {}
    for text in addresses:
        try:
            address = parse_address(text)
        except ValueError as error:
            raise ValueError(f"{shown(text)}: {error}") from None
        if address[1] and address in parsed:
            raise ValueError(f"{shown(text)} is there twice")
        parsed[address] = text
    for (host, port), text in parsed.items():
        for wide in _wider(host):
            if port and (wide, port) in parsed:
                raise ValueError(f"{shown(text)} is a part of {shown(parsed[wide, port])}")


def _wider(host: str) -> tuple[str, ...]:
    """Give the hosts, as `parse_address` does, of which an address is a part."""
    if host in ("", "0.0.0.0", "::"):
        return ("",) if host else ()
    if ":" in host:
        return ("", "::")
    return ("", "0.0.0.0") if re.fullmatch(r"[0-9.]+", host) else ("",)


def _check_address(text: str) -> None:
    if text:
        parse_address(text)


def _check_control(path: str) -> None:
    length = len(os.fsencode(os.path.basename(path)))
    if length > SOCKET_NAME_MAX:
        # The folder may be of any length: a long one is reached by a descriptor.
        raise ValueError(f"its name has {length} bytes, at most {SOCKET_NAME_MAX} are possible")


def _check_data(path: str) -> None:
    if not path:
        raise ValueError("must not be empty")


def _check_zone(name: str) -> None:
    try:
        zone_of(name)
    except ValueError as error:
        hint = nearest(name, zoneinfo.available_timezones())
        raise ValueError(f"{shown(name)}: {error}{hint}") from None


def _check_names(names: tuple[str, ...]) -> None:
    if not all(name.strip() for name in names):
        raise ValueError("must not hold an empty name")


_CHECKS: dict[str, Callable[[Any], None]] = {
    "server.listen": _check_listen,
    "tls.listen": _check_addresses,
    "server.control": _check_control,
    "server.data": _check_data,
    "server.zone": _check_zone,
    "auth.reserved_names": _check_names,
    "metrics.listen": _check_address,
}


# Checks between settings

# Of each pair the first must not be larger than the second.
_ORDERED = (
    ("limits.line_before_login", "limits.line"),
    ("limits.heartbeat_min", "limits.heartbeat"),
    ("limits.heartbeat", "limits.heartbeat_max"),
    ("limits.login_idle", "limits.login_total"),
    ("limits.wrong_password_wait", "limits.wrong_password_wait_max"),
    ("limits.page", "limits.page_max"),
    # A pushed line is at most a reply's size, or clients need two buffers.
    ("limits.packet", "limits.reply"),
    # A list that never fits would wait for ever.
    ("limits.messages_per_frame", "limits.unconfirmed"),
    ("limits.unconfirmed", "limits.commit_queue"),
    # A part is never larger than its file, and one file must fit into the quota.
    ("media.inline_max", "media.part_max"),
    ("media.part_max", "media.quota_bytes"),
)
# Of each pair the first, in base64 and with the rest of its line, must fit into the second.
_IN_BASE64 = (
    ("media.inline_max", "limits.line"),
    ("media.get_max", "limits.reply"),
)
_REST_OF_LINE = 4096  # bytes, for a name of 255 characters in escapes, and all else


def _cross_checks(layers: _Layers) -> Iterator[str]:
    """Say which settings do not fit each other, each under the layer that set it."""
    for small, large in _ORDERED:
        (low, low_origin), (high, high_origin) = layers.values[small], layers.values[large]
        if low <= high:
            continue
        if low_origin != "default":
            yield f"{low_origin}: {small}: {low} is more than {large} ({high}, {high_origin})"
        else:
            yield f"{high_origin}: {large}: {high} is less than {small} ({low}, {low_origin})"
    (days, origin), (least, _) = (
        layers.values["store.history_days"],
        layers.values["limits.client_id_days"],
    )
    if 0 < days < least:
        # A repeat is known by the message that it repeats.
        yield f"{origin}: store.history_days: {days} is less than limits.client_id_days ({least})"
    listen, certificate = layers.values["tls.listen"], layers.values["tls.certificate"]
    if listen[0] and not certificate[0]:
        yield f"{listen[1]}: tls.listen: needs tls.certificate, which is not set"
    for small, large in _IN_BASE64:
        (low, low_origin), (high, high_origin) = layers.values[small], layers.values[large]
        need = (low + 2) // 3 * 4 + _REST_OF_LINE
        if need <= high:
            continue
        if low_origin != "default":
            yield f"{low_origin}: {small}: {low} needs {large} of {need} ({high}, {high_origin})"
        else:
            yield f"{high_origin}: {large}: {high} is less than {need} for {small} ({low})"


# Parts of addresses

_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}"


def _ipv6(text: str) -> str:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IPv6 address") from None
    return text


def _is_host(text: str) -> bool:
    """Tell whether it is an IPv4 address or a host name; 127.0.0.999 is neither."""
    if re.fullmatch(r"[0-9.]+", text):
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            return False
        return True
    # The bound on the labels is the resolver's, which answers a longer one with a UnicodeError.
    return len(text) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*\.?", text) is not None
