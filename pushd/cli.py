"""The command `pushd`, which runs the server; `pushctl` lives in `ctl`.

It turns arguments into settings and outcomes into exit codes, and holds no logic beyond that. What
is heavy is imported where it is needed, so that `--help` and a bad setting answer at once.

Exit codes: 0, 1 failed, 2 usage, 78 bad configuration (nothing was started).
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from . import config, log, settings, systemd, tls
from .ctl import pushctl
from .ctl.options import (
    HELP,
    check_address,
    complete_file,
    complete_folder,
    fail,
    settings_option,
    version,
)
from .errors import ConfigError

BAD_CONFIG = 78  # EX_CONFIG of sysexits.h


def _choices(key: str) -> click.Choice[str]:
    return click.Choice(config.SETTINGS[key].choices)


# pushd


@click.command(context_settings=HELP)
@settings_option
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDR",
    callback=check_address,
    help="Listen on host:port, [::1]:port or :port; may be repeated.",
)
@click.option(
    "--data",
    metavar="DIR",
    shell_complete=complete_folder,
    help="Keep the store and the files there.",
)
@click.option("--check-config", is_flag=True, help="Check the settings and exit.")
@click.option(
    "--ports-file",
    metavar="FILE",
    shell_complete=complete_file,
    help="Write the ports there once they are open.",
)
@click.option("--log-format", type=_choices("log.format"), help="How to log.")
@click.option("--log-level", type=_choices("log.level"), help="The least to log.")
@click.option("--loop", type=_choices("server.loop"), help="The event loop.")
@version("pushd")
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
    problems = dict(_problems(loaded, folders=check_config))
    if problems:
        origins = config.origins(file, flags, os.environ)
        lines = [
            f"{_place(origins[key][1])}{key}: {settings.one_line(text)}"
            for key, text in problems.items()
        ]
        fail("\n".join(lines), BAD_CONFIG)
    if check_config:
        exposed = tls.exposed(loaded.tls.certificate, loaded.tls.key)
        if exposed:
            click.echo(f"warning: tls.key: {settings.one_line(exposed)}", err=True)
        click.echo("the settings are good")
        return
    journal = log.under_journal(os.environ.get("JOURNAL_STREAM", ""))
    wanted = loaded.log
    log.configure(wanted.level, wanted.format, journal, rate=wanted.rate, waiting=wanted.waiting)

    from .server import main  # here: a bad setting is told before anything else is loaded

    told = systemd.told(os.environ, os.getpid())
    sys.exit(main(loaded, ports_file=ports_file, told=told, load=load))


def _problems(loaded: config.Config, *, folders: bool) -> Iterator[tuple[str, str]]:
    """Say what cannot be used of what the settings name, each under its setting."""
    try:
        if loaded.tls.certificate:
            tls.server_context(loaded.tls.certificate, loaded.tls.key)
    except tls.CertificateError as error:
        yield "tls.certificate", str(error)
    if loaded.metrics.listen:
        from .exporter import missing

        if missing():
            yield "metrics.listen", missing()
    if folders:
        data = Path(loaded.server.data)
        problem = _unusable(data) or _unusable(data / "media")
        if problem:
            yield "server.data", f"{data}: {problem}"


def _place(origin: str) -> str:
    """Give the beginning of an error about a setting that comes from there."""
    return "" if origin == "default" else f"{origin}: "


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
        fail(error, failure)


__all__ = ["pushctl", "pushd"]
