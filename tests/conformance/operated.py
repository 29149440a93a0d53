"""A server as an operator runs it: a settings file, flags, signals, and a log to be read.

own = operated('[limits]\\ntext = 100\\n')      # the fixture starts it
own.file.write_text('[limits]\\ntext = 3\\n')
line = await own.hup()                          # SIGHUP, and the line of the log that follows
lines = own.lines("connection closed")          # the events of that name so far, as mappings
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .process import START_PATIENCE, Process

PATIENCE = 10.0  # seconds for a line of the log


class Operated(Process):
    """A `pushd` with a settings file, logging JSON; `program` is run in the place of -m pushd."""

    def __init__(
        self, folder: Path, text: str = "", *flags: str, program: str = "", **settings: object
    ) -> None:
        super().__init__(folder, **{"log_format": "json", **settings})
        self.file = folder / "pushd.toml"
        self.file.write_text(text, "utf-8")
        self.flags = flags
        self.program = program
        self.options: dict[str, Any] = {}  # further ones of Popen

    def _command(self, ports: Path) -> list[str]:
        command = [*super()._command(ports), "-c", str(self.file), *self.flags]
        if self.program:
            command[:3] = [sys.executable, "-c", self.program]
        return command

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it without waiting until it listens; `options` go to Popen."""
        (self.folder / "ports").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            options = {"stdout": log, "stderr": log, **self.options}
            self.process = subprocess.Popen(
                self._command(self.folder / "ports"), env=self._environment(), **options
            )
        return self.process

    async def listening(self) -> None:
        """Wait until it listens."""
        ports = self.folder / "ports"
        await eventually(ports.exists, START_PATIENCE)
        host, _, port = ports.read_text().splitlines()[0].rpartition(":")
        self.address = (host.strip("[]"), int(port))

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return the lines of the log so far, or those of one event."""
        found = [json.loads(line) for line in self.log_text().splitlines() if line.endswith("}")]
        return [line for line in found if not event or line["event"] == event]

    async def line(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait until an event has been logged so often; return its last line."""
        await eventually(lambda: len(self.lines(event)) >= count)
        return self.lines(event)[-1]

    async def hup(self, event: str = "reloaded") -> dict[str, Any]:
        """Send SIGHUP and return the line that tells of the outcome."""
        count = len(self.lines(event)) + 1
        self.signal(signal.SIGHUP)
        return await self.line(event, count)


async def eventually(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait for something that another process does; fails after a while."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.01)
