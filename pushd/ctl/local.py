"""The verbs that need no control socket: they look at files, or speak as any client does."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import sys
import time

import click

from .. import config, settings, tls
from ..errors import ConfigError
from .calls import Control
from .options import (
    NOT_REACHED,
    cafile_option,
    fail,
    json_option,
    server_option,
    settings_option,
    socket_option,
)
from .table import json_text
from .verb import failures, pushctl, reading

_REPLY_MAX = 65536  # bytes of the reply to a ping


@pushctl.command()
@server_option
@cafile_option
def chat(*, server: str, cafile: str | None) -> None:
    """Chat in this terminal."""
    from ..terminal import run_chat

    host, port, context = _to_reach(server, cafile)
    try:
        code = asyncio.run(run_chat(host, port, ssl=context))
    except OSError as error:
        fail(f"{server}: {tls.reason(error)}", NOT_REACHED)
    except KeyboardInterrupt:
        code = 0  # the usual way to leave
    sys.exit(code)


@pushctl.command("config")
@settings_option
@json_option
@click.option("--default", is_flag=True, help="Print a settings file with all the defaults.")
def show_config(*, file: str | None, as_json: bool, default: bool) -> None:
    """Print each setting, its value and where that came from."""
    if default:
        click.echo(config.default_text(), nl=False)
        return
    try:
        origins = config.origins(file, {}, os.environ)
    except ConfigError as error:
        fail(error, 1)
    if as_json:
        rows = {key: {"value": value, "from": origin} for key, (value, origin) in origins.items()}
        click.echo(json_text(rows))
        return
    for key, (value, origin) in origins.items():
        click.echo(f"{key} = {settings.toml(value)}  # {origin}")


@pushctl.command()
@server_option
@cafile_option
@click.option(
    "--timeout",
    type=click.IntRange(1, 3600),
    default=5,
    show_default=True,
    help="Seconds to wait for the answer.",
)
@json_option
@socket_option
def ping(
    *, server: str, cafile: str | None, socket_path: str | None, timeout: int, as_json: bool
) -> None:
    """Ask the server for a sign of life and print how long it took."""
    if socket_path is not None:
        server = socket_path
        begin = time.monotonic()
        with failures(), Control(socket_path, timeout) as control, reading(socket_path):
            control.call("ping")
        _tell(server, (time.monotonic() - begin) * 1000, as_json)
        return
    host, port, context = _to_reach(server, cafile)
    try:
        milliseconds, line = _round_trip((host, port), context, timeout)
    except OSError as error:
        fail(f"{server}: {tls.reason(error)}", NOT_REACHED)
    if not _is_pong(line):
        fail(
            f"{server}: no pushd answers there: {settings.shown(line.decode(errors='replace'))}", 1
        )
    _tell(server, milliseconds, as_json)


def _tell(server: str, milliseconds: float, as_json: bool) -> None:
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
