"""The options that verbs share, and where the control socket is found."""

import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from .. import __version__, config, settings
from ..build import compiled
from ..errors import ConfigError
from ..log import escape

FAILED = 1
NOT_REACHED = 3

HELP = {"help_option_names": ["-h", "--help"]}

Function = TypeVar("Function", bound=Callable[..., Any])


def fail(error: object, code: int = FAILED) -> NoReturn:
    """Say what is wrong in one line on standard error, and exit."""
    click.echo(escape_lines(str(error)), err=True)
    sys.exit(code)


def escape_lines(text: str) -> str:
    """Escape what quotes others, but for its line ends."""
    return "\n".join(map(escape, text.split("\n")))


def version(name: str) -> Callable[[Function], Function]:
    """Give the option that tells the version."""
    text = f"%(prog)s, version %(version)s{' (compiled)' if compiled() else ''}"
    return click.version_option(__version__, "-V", "--version", prog_name=name, message=text)


def check_address(_ctx: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Check one address or several, so that a bad one is a usage error."""
    for text in (value,) if isinstance(value, str) else value or ():
        try:
            config.parse_address(text)
        except ValueError as error:
            raise click.BadParameter(f"{settings.shown(text)}: {error}") from None
    return value


def check_server(_ctx: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Check the address of a server to reach."""
    try:
        config.parse_server(value)
    except ValueError as error:
        raise click.BadParameter(f"{settings.shown(value)}: {error}") from None
    return value


def complete_file(
    _ctx: click.Context, _option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Let the shell complete the name of a file."""
    return [CompletionItem(begun, type="file")]


def complete_folder(
    _ctx: click.Context, _option: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Let the shell complete the name of a folder."""
    return [CompletionItem(begun, type="dir")]


server_option = click.option(
    "-s",
    "--server",
    default="127.0.0.1:9527",
    show_default=True,
    metavar="ADDR",
    callback=check_server,
    help="The server, as host:port or tls://host:port.",
)
cafile_option = click.option(
    "--cafile",
    metavar="FILE",
    shell_complete=complete_file,
    help="Trust the certificates in this file, not the system's.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
timeout_option = click.option(
    "--timeout",
    type=click.IntRange(1, 86400),
    default=10,
    show_default=True,
    help="Seconds to wait for each answer.",
)
socket_option = click.option(
    "--socket",
    "socket_path",
    metavar="PATH",
    shell_complete=complete_file,
    help="The control socket of the server.",
)
data_option = click.option(
    "--data",
    metavar="DIR",
    shell_complete=complete_folder,
    help="The data directory of the server, where its socket is.",
)
settings_option = click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    shell_complete=complete_file,
    help="Read this settings file.",
)
file_option = click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    shell_complete=complete_file,
    help="The settings file of the server.",
)
limit_option = click.option(
    "--limit",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Print so many at most; 0 prints all.",
)


def socket_of(path: str | None, data: str | None, file: str | None) -> str:
    """Give the control socket: as named, else where the settings say; exits when there is none."""
    if path is not None:
        return path
    try:
        loaded = config.load(file, {"server.data": data}, os.environ)
    except ConfigError as error:
        fail(error)
    found = config.control_path(loaded.server.data, loaded.server.control)
    if not found:
        fail("server.control is empty: this server has no control socket")
    return found
