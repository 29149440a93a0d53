"""A server whose clock its parent turns: `python -m tests.turned_server FOLDER`.

FOLDER/clock holds by how many milliseconds, in eight bytes; the address is the first line that is
written. It can be killed like any process, which a server within the test cannot.
"""

import asyncio
import mmap
import sys
from pathlib import Path

import structlog

from pushd import config
from pushd.clock import Clock
from pushd.server import Server


class Tower(Clock):
    """A clock whose hands stand in a file."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as stream:
            self._hands = mmap.mmap(stream.fileno(), 8, access=mmap.ACCESS_READ)

    def wall(self) -> int:
        """Give milliseconds since 1970, and what it was turned by."""
        return super().wall() + int.from_bytes(self._hands[:8], "little")


def main(folder: Path) -> int:
    """Run until a signal."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    server = Server(
        config.Config(
            server=config.Server(listen=("127.0.0.1:0",), data=str(folder)),
            auth=config.Auth(bcrypt_cost=4),
            limits=config.Limits(per_address=False, friend_requests=1_000_000),
            store=config.Store(reserve=0),
        ),
        Tower(folder / "clock"),
    )
    return asyncio.run(server.run(ready=lambda listening: print(listening[0], flush=True)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
