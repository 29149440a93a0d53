"""The command `pushd`, which runs the server; `pushctl` lives in `ctl`.

It turns arguments into settings and outcomes into exit codes, and holds no logic beyond that. What
is heavy is imported where it is needed, so that `--help` and a bad setting answer at once.

Exit codes: 0, 1 failed, 2 usage, 78 bad configuration (nothing was started).
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from . import config, log, settings, systemd, tls
from .ctl import pushctl
from .ctl.options import HELP, check_address, fail, version
from .errors import ConfigError

BAD_CONFIG = 78  # EX_CONFIG of sysexits.h


def _choices(key: str) -> click.Choice[str]:
    return click.Choice(config.SETTINGS[key].choices)


# pushd


@click.command(context_settings=HELP)
@click.option("-c", "--config", "file", metavar="FILE", help="Read this settings file.")
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDR",
    callback=check_address,
    help="Listen on host:port, [::1]:port or :port; may be repeated.",
)
@click.option("--data", metavar="DIR", help="Keep the store and the files there.")
@click.option("--check-config", is_flag=True, help="Check the settings and exit.")
@click.option("--ports-file", metavar="FILE", help="Write the ports there once they are open.")
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
    _check_certificate(loaded)
    if loaded.metrics.listen:
        from .exporter import missing

        if missing():
            fail(missing(), BAD_CONFIG)
    if check_config:
        problem = _unusable(Path(loaded.server.data))
        if problem:
            path = settings.one_line(loaded.server.data)
            fail(f"server.data: {path}: {problem}", BAD_CONFIG)
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


def _check_certificate(loaded: config.Config) -> None:
    try:
        if loaded.tls.certificate:
            tls.server_context(loaded.tls.certificate, loaded.tls.key)
    except tls.CertificateError as error:
        fail(f"tls.certificate: {error}", BAD_CONFIG)


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
