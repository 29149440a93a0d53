"""A server whose wall clock is turned while it runs; its monotonic clock is left alone.

    own = Turned(folder)                   # by libfaketime where it is there
    own.turn(40 * DAY); own.start()
    own.turn(-HOUR)                        # at once, while it runs
    own.turn(0.0, speed=10.0)              # libfaketime only

Without libfaketime a clock is injected into the server, which reads the same file. `monotonic`
turns the other clock as well: a control, since then everything must go wrong.
"""

import glob
import os
import time
from pathlib import Path

from tests.conformance.operated import Operated

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")
NEEDED = "needs libfaketime (apt-get install faketime)"

INJECTED = """
import time
from pushd.clock import Clock
def wall(self):
    with open({file!r}) as file:
        return int((time.time() + float(file.read())) * 1000)
Clock.wall = wall
from pushd.cli import pushd
pushd(prog_name="pushd")
"""


class Turned(Operated):
    """A server with a clock of its own."""

    def __init__(
        self,
        folder: Path,
        text: str = "",
        *,
        zone: str = "",
        monotonic: bool = False,
        library: str = LIBRARY,
        **settings: object,
    ) -> None:
        self.hands = folder / "hands"
        program = "" if library else INJECTED.format(file=str(self.hands))
        super().__init__(folder, text, program=program, **settings)
        self.zone = zone  # TZ of the process
        self.offset = 0.0  # seconds
        self._library = library
        self._monotonic = monotonic
        self.turn(0.0)

    def turn(self, offset: float, speed: float = 1.0) -> None:
        """Set the clock to so many seconds ahead of the real one."""
        assert self._library or speed == 1.0, NEEDED
        self.offset = offset
        fresh = self.hands.with_suffix(".new")
        fresh.write_text(f"{offset:+.3f}" + (f" x{speed:g}" if speed != 1.0 else ""))
        # Whoever reads it sees the old position or the new one.
        os.replace(fresh, self.hands)

    @property
    def now(self) -> float:
        """What its clock shows, in seconds since 1970; not while it runs faster."""
        return time.time() + self.offset

    def _environment(self) -> dict[str, str]:
        found = super()._environment()
        if self.zone:
            found["TZ"] = self.zone
        if self._library:
            found |= {
                "LD_PRELOAD": self._library,
                "FAKETIME_TIMESTAMP_FILE": str(self.hands),
                "FAKETIME_NO_CACHE": "1",
                "NO_FAKE_STAT": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "0" if self._monotonic else "1",
            }
        return found
