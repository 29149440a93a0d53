"""Servers that are broken in one place: what the tools of this room must find out.

Each is the server of the repository with something of it replaced before it starts, so it has
all the rest. A figure counts only where the variant that lacks what it shows was caught.
"""

import sys
from pathlib import Path

from tests.conformance.process import Process

START = "\nfrom pushd.cli import pushd\npushd()\n"

# No clientId is known: what is sent again is stored again.
FORGETFUL = """
from pushd.store.journal import Journal
Journal.knows = lambda *_: False
Journal.repeat = lambda *_: None
"""

# Nobody is closed for being silent.
PATIENT = """
from pushd.connection import Connection
Connection._deadline = lambda self: self._service.now() + 3600
"""


class Variant(Process):
    """A server that runs a piece of Python before it starts."""

    def __init__(self, folder: Path, program: str = "", **settings: object) -> None:
        super().__init__(folder, **settings)
        self.program = program

    def _command(self, ports: Path) -> list[str]:
        command = super()._command(ports)
        return [sys.executable, "-c", self.program + START, *command[3:]]
