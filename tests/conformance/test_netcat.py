"""The person with netcat: what `printf … | nc` prints, with every netcat that is installed."""

import asyncio
import json
import shutil
import subprocess

import pytest

from .wire import Frame, HasAddress, encode, frame, lines, new_phone

# Each of these sends its input, says that nothing more will come, and prints what is answered.
HALF_CLOSING = {
    "nc": ["nc", "-N"],
    "ncat": ["ncat"],
    "socat": ["socat", "-t10", "-"],
}
# These never say so: `quit` ends them.
NEVER_HALF_CLOSING = {
    "nc": ["nc"],
    "ncat": ["ncat", "--no-shutdown"],
    "busybox": ["busybox", "nc"],
}


def command(words: list[str], server: HasAddress) -> list[str]:
    """Return a netcat's command line; skip where it is not installed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    host, port = server.address
    if words[0] == "socat":
        return [*words, f"TCP:{host}:{port}"]
    return [*words, host, str(port)]


async def run(words: list[str], server: HasAddress, data: bytes) -> list[Frame]:
    """Run a netcat with this input and return the frames that it printed."""
    done = await asyncio.to_thread(
        subprocess.run,
        command(words, server),
        input=data,
        stdout=subprocess.PIPE,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.endswith(b"\n")
    return [json.loads(line) for line in done.stdout.splitlines()]


SESSION = (
    {"cmd": "register", "phone": "", "password": "199shadjfk"},
    frame("start"),
    {"cmd": "whoami"},
)


def session() -> list[Frame]:
    """Return the frames of a short session with a new phone."""
    return [{**SESSION[0], "phone": new_phone()}, *SESSION[1:]]


@pytest.mark.parametrize("name", HALF_CLOSING)
class TestHalfClosing:
    """A netcat that half-closes prints every reply and ends by itself."""

    async def test_a_session(self, common_server: HasAddress, name: str) -> None:
        """Register, start and whoami in one go: three replies."""
        replies = await run(HALF_CLOSING[name], common_server, lines(*session()))
        assert [each["status"] for each in replies] == [1, 1, 1]
        assert replies[0]["result"]["user"]["id"] == replies[1]["userId"]
        assert replies[2]["result"]["userId"] == replies[1]["userId"]

    async def test_without_a_line_end(self, common_server: HasAddress, name: str) -> None:
        """`printf` without `\\n` at the end is answered too."""
        data = lines(*session()) + encode({"cmd": "ping", "text": "last"})
        replies = await run(HALF_CLOSING[name], common_server, data)
        assert len(replies) == 4
        assert replies[-1]["result"] == {"text": "last"}

    async def test_an_error(self, common_server: HasAddress, name: str) -> None:
        """Whoever types nonsense, or too much of it, reads what is wrong."""
        [reply] = await run(HALF_CLOSING[name], common_server, b"hello\r\n")
        assert reply["status"] == 4000
        [reply] = await run(HALF_CLOSING[name], common_server, b"x" * 50_000)
        assert reply["status"] == 4001


@pytest.mark.parametrize("name", NEVER_HALF_CLOSING)
class TestNeverHalfClosing:
    """`quit` ends a netcat that would wait for ever."""

    async def test_quit(self, common_server: HasAddress, name: str) -> None:
        """All replies, that of `quit` last, then the server closes."""
        data = lines(*session(), {"cmd": "quit"})
        replies = await run(NEVER_HALF_CLOSING[name], common_server, data)
        assert [each["status"] for each in replies] == [1, 1, 1, 1]
        assert replies[-1]["cmd"] == "quit"
