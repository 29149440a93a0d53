"""People at `pushctl chat`: an input that a test types, a screen it can wait for, a server."""

import asyncio
import contextlib
import io
import queue
from collections.abc import AsyncIterator

from pushd.terminal import run_chat
from tests.fake_server import PATIENCE, FakeServer, Frame

LOGIN = "l\n18870742138\nsecret-word\n"
BOB = {"id": "10002", "username": "bob", "phone": "18870742139", "alias": "", "isFriend": True}
EVE = {"id": "10003", "username": "e\x1b[31mve", "phone": "", "alias": "", "isFriend": False}


class Keys(io.StringIO):
    """An input whose lines the test types when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def type(self, line: str) -> None:
        self._lines.put(line + "\n")

    def end(self) -> None:
        self._lines.put("")

    # The base class of text streams is typed as one of bytes.
    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        return self._lines.get()


class Screen(io.StringIO):
    """An output whose content the test can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def write(self, text: str) -> int:
        self._changed.set()
        return super().write(text)

    async def wait_shows(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.getvalue():
                self._changed.clear()
                await self._changed.wait()


class Sitting:
    """A chat that is going on, and what it is connected with."""

    def __init__(self, server: FakeServer, keys: Keys, screen: Screen) -> None:
        self.server = server
        self.keys = keys
        self.screen = screen
        self.task = asyncio.create_task(
            run_chat("127.0.0.1", server.port, stdin=keys, stdout=screen)
        )


def people() -> FakeServer:
    """Give a server on which bob is a friend and eve is known."""
    server = FakeServer()
    server.answer("friends", [BOB])
    users = {"10002": BOB, "10003": EVE}

    def account(frame: Frame) -> Frame:
        user = users.get(frame["userId"])
        if user is None:
            return {"status": 6004, "message": "no such user", "result": {}}
        return {"result": {"user": user}}

    server.answer("account", account)
    server.answer("my_groups", [{"id": "g1", "name": "team", "kind": "tag"}])
    return server


@contextlib.asynccontextmanager
async def sitting() -> AsyncIterator[Sitting]:
    """Give a chat that is logged in as alice; it must end by itself."""
    async with people() as server:
        chat = Sitting(server, Keys(), Screen())
        for line in LOGIN.splitlines():
            chat.keys.type(line)
        await server.wait_received("start")
        yield chat
        chat.keys.end()
        await chat.task


async def script(server: FakeServer, lines: str) -> tuple[int, str]:
    """Pipe lines into a chat, and give its exit code and what it showed."""
    screen = io.StringIO()
    async with server:
        code = await run_chat("127.0.0.1", server.port, stdin=io.StringIO(lines), stdout=screen)
    return code, screen.getvalue()
