"""The clocks: monotonic seconds for deadlines, wall milliseconds for dates; never order.

Order comes from msgId and seq alone. Tests hand in a clock of their own.
"""

import asyncio
import time
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


class Clock:
    """The clocks of the machine."""

    def now(self) -> float:
        """Give monotonic seconds."""
        return time.monotonic()

    def wall(self) -> int:
        """Give milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class Dates:
    """Write moments as the wire shows them: `YYYY-MM-DDTHH:MM:SS` in one zone."""

    def __init__(self, zone: str) -> None:
        # UTC needs no zone data on the machine.
        self._zone: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
        self._last = (-1, "")  # the second that was written last, and its text

    def text(self, ms: int) -> str:
        """Write a moment given in milliseconds since 1970."""
        second = ms // 1000
        known, text = self._last
        if second == known:
            return text
        text = datetime.fromtimestamp(second, self._zone).strftime("%Y-%m-%dT%H:%M:%S")
        # One assignment of a pair: several threads write dates at once.
        self._last = (second, text)
        return text
