"""The command `pushd`, which runs the server; `pushctl` lives in `ctl`.

It turns arguments into settings and outcomes into exit codes, and holds no logic beyond that. What
is heavy is imported where it is needed, so that `--help` and a bad setting answer at once.

Exit codes: 0, 1 failed, 2 usage, 78 bad configuration (nothing was started).
"""

import os
import sys
from typing import Any

import click

from . import config, log
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
    loaded = _load(file, flags, failure=BAD_CONFIG)
    if loaded.metrics.listen:
        from .exporter import missing

        if missing():
            fail(missing(), BAD_CONFIG)
    if check_config:
        click.echo("the settings are good")
        return
    journal = log.under_journal(os.environ.get("JOURNAL_STREAM", ""))
    log.configure(loaded.log.level, loaded.log.format, journal)

    from .server import main  # here: a bad setting is told before anything else is loaded

    sys.exit(main(loaded, ports_file=ports_file))


def _load(file: str | None, flags: dict[str, Any], *, failure: int) -> config.Config:
    try:
        return config.load(file, flags, os.environ)
    except ConfigError as error:
        fail(error, failure)


__all__ = ["pushctl", "pushd"]
