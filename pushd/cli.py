"""The commands: `pushd` runs the server, `pushctl` looks at it and talks to it.

They turn arguments into calls and outcomes into exit codes, and hold no logic beyond that. What
is heavy is imported where it is needed, so that `--help` and a bad setting answer at once.

Exit codes of pushd: 0, 1 failed, 2 usage, 78 bad configuration (nothing was started).
Exit codes of pushctl: 0, 1 failed, 2 usage, 3 the server was not reached.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from . import __version__, config, log, settings, systemd, tls
from .errors import ConfigError

BAD_CONFIG = 78  # EX_CONFIG of sysexits.h
NOT_REACHED = 3

_REPLY_MAX = 65536  # bytes of the reply to a ping

_HELP = {"help_option_names": ["-h", "--help"]}

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _address(_ctx: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Check one address or several, so that a bad one is a usage error."""
    for text in (value,) if isinstance(value, str) else value:
        try:
            config.parse_address(text)
        except ValueError as error:
            raise click.BadParameter(f"{settings.shown(text)}: {error}") from None
    return value


def _server_address(_ctx: click.Context, _option: click.Parameter, value: Any) -> Any:
    try:
        config.parse_server(value)
    except ValueError as error:
        raise click.BadParameter(f"{settings.shown(value)}: {error}") from None
    return value


def _version(name: str) -> Callable[[_Command], _Command]:
    return click.version_option(__version__, "-V", "--version", prog_name=name)


def _choices(key: str) -> click.Choice[str]:
    return click.Choice(config.SETTINGS[key].choices)


# pushd


@click.command(context_settings=_HELP)
@click.option("-c", "--config", "file", metavar="FILE", help="Read this settings file.")
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDR",
    callback=_address,
    help="Listen on host:port, [::1]:port or :port; may be repeated.",
)
@click.option("--data", metavar="DIR", help="Keep the store and the files there.")
@click.option("--check-config", is_flag=True, help="Check the settings and exit.")
@click.option("--ports-file", metavar="FILE", help="Write the ports there once they are open.")
@click.option("--log-format", type=_choices("log.format"), help="How to log.")
@click.option("--log-level", type=_choices("log.level"), help="The least to log.")
@click.option("--loop", type=_choices("server.loop"), help="The event loop.")
@_version("pushd")
def pushd(
    *,
    file: str | None,
    listen: tuple[str, ...],
    data: str | None,
    check_config: bool,
    ports_file: str | None,
    log_format: str | None,
    log_level: str | None,
    loop: str | None,
) -> None:
    """Run the push and chat server until TERM or INT."""
    flags = {
        "server.listen": listen or None,
        "server.data": data,
        "server.loop": loop,
        "log.format": log_format,
        "log.level": log_level,
    }
    _fill_descriptors()
    # They end the process by default; the server obeys them once it can.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
    load = partial(config.load, file, flags, dict(os.environ))
    loaded = _load(load, failure=BAD_CONFIG)
    _check_certificate(loaded)
    if check_config:
        problem = _unusable(Path(loaded.server.data))
        if problem:
            path = settings.one_line(loaded.server.data)
            _fail(f"server.data: {path}: {problem}", BAD_CONFIG)
        click.echo("the settings are good")
        return
    journal = log.under_journal(os.environ.get("JOURNAL_STREAM", ""))
    wanted = loaded.log
    log.configure(wanted.level, wanted.format, journal, rate=wanted.rate, waiting=wanted.waiting)

    from .server import main  # here: a bad setting is told before anything else is loaded

    told = systemd.told(os.environ, os.getpid())
    sys.exit(main(loaded, ports_file=ports_file, told=told, load=load))


def _check_certificate(loaded: config.Config) -> None:
    try:
        if loaded.tls.certificate:
            tls.server_context(loaded.tls.certificate, loaded.tls.key)
    except tls.CertificateError as error:
        _fail(f"tls.certificate: {error}", BAD_CONFIG)


def _fill_descriptors() -> None:
    """Open what is closed of the standard descriptors: else a file of the store may get one.

    Whatever wrote to standard error then would write into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _unusable(folder: Path) -> str:
    """Say why data cannot be kept in a folder, which need not be there yet; "" if it can."""
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is no folder"
    return "" if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else f"{folder} is not writable"


def _load(load: Callable[[], config.Config], *, failure: int) -> config.Config:
    try:
        return load()
    except ConfigError as error:
        _fail(error, failure)


def _fail(error: object, code: int) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(code)


# pushctl


_server_option = click.option(
    "-s",
    "--server",
    default="127.0.0.1:9527",
    show_default=True,
    metavar="ADDR",
    callback=_server_address,
    help="The server, as host:port or tls://host:port.",
)
_cafile_option = click.option(
    "--cafile", metavar="FILE", help="Trust the certificates in this file, not the system's."
)


@click.group(context_settings=_HELP)
@_version("pushctl")
def pushctl() -> None:
    """Look at a pushd server, and talk to it."""


@pushctl.command()
@_server_option
@_cafile_option
def chat(*, server: str, cafile: str | None) -> None:
    """Chat in this terminal."""
    from .terminal import run_chat

    host, port, context = _to_reach(server, cafile)
    try:
        code = asyncio.run(run_chat(host, port, ssl=context))
    except OSError as error:
        _fail(f"{server}: {tls.reason(error)}", NOT_REACHED)
    except KeyboardInterrupt:
        code = 0  # the usual way to leave
    sys.exit(code)


@pushctl.command("config")
@click.option("-c", "--config", "file", metavar="FILE", help="Read this settings file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--default", is_flag=True, help="Print a settings file with all the defaults.")
def show_config(*, file: str | None, as_json: bool, default: bool) -> None:
    """Print each setting, its value and where that came from."""
    if default:
        click.echo(config.default_text(), nl=False)
        return
    try:
        origins = config.origins(file, {}, os.environ)
    except ConfigError as error:
        _fail(error, 1)
    if as_json:
        rows = {key: {"value": value, "from": origin} for key, (value, origin) in origins.items()}
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for key, (value, origin) in origins.items():
        click.echo(f"{key} = {settings.toml(value)}  # {origin}")


@pushctl.command()
@_server_option
@_cafile_option
@click.option(
    "--timeout",
    type=click.IntRange(1, 3600),
    default=5,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ping(*, server: str, cafile: str | None, timeout: int, as_json: bool) -> None:
    """Ask the server for a sign of life and print how long it took."""
    host, port, context = _to_reach(server, cafile)
    try:
        milliseconds, line = _round_trip((host, port), context, timeout)
    except OSError as error:
        _fail(f"{server}: {tls.reason(error)}", NOT_REACHED)
    if not _is_pong(line):
        _fail(
            f"{server}: no pushd answers there: {settings.shown(line.decode(errors='replace'))}", 1
        )
    if as_json:
        click.echo(json.dumps({"server": server, "milliseconds": milliseconds}))
    else:
        click.echo(f"{server} answered in {milliseconds:.2f} ms")


def _to_reach(server: str, cafile: str | None) -> tuple[str, int, ssl.SSLContext | None]:
    """Turn an address into what to connect to: `:port` is on this machine."""
    host, port, secure = config.parse_server(server)
    if cafile is not None and not secure:
        raise click.UsageError("--cafile goes with tls://host:port")
    try:
        return host, port, tls.client_context(cafile) if secure else None
    except tls.CertificateError as error:
        raise click.UsageError(f"--cafile {error}") from None


def _round_trip(
    address: tuple[str, int], context: ssl.SSLContext | None, timeout: float
) -> tuple[float, bytes]:
    """Send one ping and read one line; the time is in milliseconds, without the connecting.

    Raises: OSError when there is no line within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(address, timeout))
        if context is not None:
            connection = context.wrap_socket(connection, server_hostname=address[0])
            stack.enter_context(connection)
        begin = time.monotonic()
        connection.sendall(b'{"cmd":"ping"}\n')
        line = b""
        while not line.endswith(b"\n") and len(line) < _REPLY_MAX:
            # The rest of the time, and not the timeout again for each byte of a slow peer.
            connection.settimeout(max(end - time.monotonic(), 0.001))
            data = connection.recv(_REPLY_MAX - len(line))
            if not data:
                raise ConnectionError("closed without an answer")
            line += data
        return (time.monotonic() - begin) * 1000, line


def _is_pong(line: bytes) -> bool:
    """Tell whether the line is the answer of a pushd that serves."""
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(frame, dict) and frame.get("cmd") == "ping" and frame.get("status") == 1
