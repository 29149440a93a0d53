"""One sitting at the terminal: a login, then lines and messages until the end.

What is done at a typed command is no matter of this module: it looks the command up in the table
that it was given. Commands find here what they share: the client, the screen, where plain lines
go, who is meant by a name, and a place for work that takes longer than a person waits.
"""

import asyncio
import contextlib
import shlex
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from ..client import Client, ClientClosed, ClientError, LineTooLong, Message, SessionEnded
from .console import Keyboard, Quit, Screen
from .lines import Lines, Row, is_called, is_pair

# Which type of message goes to which kind of group.
GROUP_TYPES = {"group": "7", "tag": "3", "link": "6"}
ATTEMPTS = 3
# How long a line waits for its confirmation, or a file for its end, before the next one is read,
# and how long a broken connection is waited for at the end, in seconds.
PATIENCE = 5.0

# Exit codes
OK, FAILED = 0, 1


class Mistake(Exception):
    """A line that cannot be done; the text says why, and may hold what others wrote."""


class Target(NamedTuple):
    """Where plain lines go: a user, or a group with the type that its kind asks for."""

    user_id: str
    chat_id: str = ""
    type: str = "1"


class Command(NamedTuple):
    """What can be typed: its usage without the slash, what it does in words, and what does it."""

    usage: str
    text: str
    run: Callable[["Chat", str], Awaitable[None]]

    @property
    def name(self) -> str:
        """The word behind the slash."""
        return self.usage.partition(" ")[0]


class Chat:
    """A client, and the person who uses it."""

    def __init__(
        self, client: Client, keyboard: Keyboard, screen: Screen, commands: Iterable[Command]
    ) -> None:
        self.client = client
        self.screen = screen
        self.lines = Lines(client)
        self.commands = {command.name: command for command in commands}
        self.target: Target | None = None  # where plain lines go
        self.last_sent = ""  # the msgId of the last message that was sent from here
        self._keyboard = keyboard
        self._unconfirmed: set[asyncio.Task[None]] = set()  # lines that wait for the connection
        self._transfers: set[asyncio.Task[None]] = set()  # files on their way

    async def run(self) -> int:
        """Chat until the end, and give the exit code."""
        try:
            if not await self._log_in():
                return FAILED
            return await self._talk()
        except Quit:
            return FAILED

    async def _talk(self) -> int:
        reader = asyncio.create_task(self._read_lines())
        tasks = {reader, asyncio.create_task(self._receive()), asyncio.create_task(self._watch())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                return FAILED
            reader.result()
            await self._finish_transfers()
            await self._say_goodbye()
            return OK
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _finish_transfers(self) -> None:
        if self._transfers:
            self.screen.line("* waiting for files on their way; ^C leaves without them")
        while self._transfers:
            done, _ = await asyncio.wait(self._transfers, timeout=PATIENCE)
            if not done and not self.client.connected:
                self.screen.error("the files were given up: there is no connection")
                return

    async def _say_goodbye(self) -> None:
        # The logout waits behind the lines that are not confirmed yet.
        with contextlib.suppress(ClientError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self.client.logout()

    # Logging in

    async def _log_in(self) -> bool:
        for _ in range(ATTEMPTS):
            try:
                await self._try_to_log_in()
            except ClientError as problem:
                self.screen.error(problem)
            else:
                return True
        return False

    async def _try_to_log_in(self) -> None:
        answer = (await self._keyboard.line("(l)og in or (r)egister? ")).strip().lower()
        phone = (await self._keyboard.line("phone: ")).strip()
        password = await self._keyboard.secret("password: ")
        if answer.startswith("r"):
            username = (await self._keyboard.line("name: ")).strip()
            account = await self.client.register(phone, password, username)
        else:
            account = await self.client.login(phone, password)
        me = self.lines.describe(account["user"])
        self.screen.line(f"* you are {me}; /help shows what you can do")

    # What comes in

    async def _receive(self) -> None:
        try:
            async for message in self.client.messages():
                await self.show(message)
                if self._is_here(message):
                    self.read(message.msg_id)
        except ClientError as problem:
            self.screen.error(problem)

    async def show(self, message: Message, margin: str = "") -> None:
        """Show a message as a line."""
        self.screen.line(f"{margin}{await self.lines.of(message)}")

    async def _watch(self) -> None:
        lost = False
        async for event in self.client.events():
            if event.name == "disconnected":
                lost = True
                self.screen.line("* the connection was lost; trying again")
            elif event.name == "connected" and lost:
                self.screen.line("* connected again")
        # The end of the messages tells why.
        await asyncio.Event().wait()

    # What is typed

    async def _read_lines(self) -> None:
        while True:
            try:
                await self._handle(await self._keyboard.line())
            except Quit:
                return
            except SessionEnded:
                # The end of the messages tells why.
                await asyncio.Event().wait()
            except (ClientError, LineTooLong, Mistake) as problem:
                self.screen.error(problem)

    async def _handle(self, line: str) -> None:
        if not line.strip():
            return
        if not line.startswith("/") or line.startswith("//"):
            await self._say(line.removeprefix("/"))
            return
        word, _, rest = line[1:].partition(" ")
        command = self.commands.get(word.lower())
        if command is None:
            raise Mistake(f"no command /{word}; /help lists them")
        await command.run(self, rest.strip())

    async def _say(self, text: str) -> None:
        target = self.where()
        late = "not confirmed yet; it goes out when the connection is back"
        await self._patiently(self._send(target, text), self._unconfirmed, late)

    async def _send(self, target: Target, text: str) -> None:
        user_id, chat_id, kind = target
        self.last_sent = await self.client.send(user_id, text, chat_id=chat_id, type=kind)

    async def carry(self, work: Coroutine[Any, Any, None], late: str) -> None:
        """Do the work of a file; when it takes long, say `late` and let it go on by itself."""
        await self._patiently(work, self._transfers, late)

    async def _patiently(
        self, work: Coroutine[Any, Any, None], kept: set[asyncio.Task[None]], late: str
    ) -> None:
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if done:
            task.result()
            return
        self.screen.line(f"* {late}")
        kept.add(task)
        task.add_done_callback(kept.discard)
        task.add_done_callback(self._finished_late)

    def _finished_late(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (problem := task.exception()) is None:
            return
        gone = isinstance(problem, ClientClosed)
        self.screen.error("something is given up that was not confirmed" if gone else problem)

    # What commands share

    def where(self) -> Target:
        """Give where plain lines go; raises Mistake while that is nowhere."""
        if self.target is None:
            raise Mistake("to whom? /to NAME")
        return self.target

    def usage(self, name: str) -> Mistake:
        """Make the mistake of a command that was not typed as a whole."""
        return Mistake(f"usage: /{self.commands[name].usage}")

    def listing(self, rows: Iterable[str], nothing: str) -> None:
        """Show lines of a list, or what there is to say when it is empty."""
        shown = [f"  {row}" for row in rows] or [f"* {nothing}"]
        for line in shown:
            self.screen.line(line)

    async def friends(self) -> list[Row]:
        """Give all friends."""
        return [user async for page in self.client.pages("friends", size=100) for user in page]

    async def groups(self) -> list[Row]:
        """Give all groups that one is in."""
        pages = self.client.pages("my_groups", size=100)
        return [group async for page in pages for group in page]

    def read(self, msg_id: str = "") -> None:
        """Mark the chat that one talks in as read, up to a message or to the last that came."""
        if self.target is not None:
            self.client.mark_read(self.target.chat_id, user_id=self.target.user_id, msg_id=msg_id)

    def _is_here(self, message: Message) -> bool:
        if self.target is None:
            return False
        if self.target.chat_id:
            return message.chat_id == self.target.chat_id
        return is_pair(message.chat_id) and self.target.user_id in message.chat_id.split("-")

    async def group(self, who: str) -> Row:
        """Give the one group with this id or name."""
        group = self.one_of(await self.groups(), who)
        if group is None:
            raise Mistake(f"no group of yours is called {who}")
        self.lines.remember(group)
        return group

    async def user_id(self, who: str) -> str:
        """Give the id of the one friend with this id, name, alias or phone; any id will do."""
        if is_id(who):
            return who
        user = self.one_of(await self.friends(), who)
        if user is None:
            raise Mistake(f"no friend is called {who}")
        return str(user["id"])

    def one_of(self, rows: Iterable[Row], who: str) -> Row | None:
        """Give the one row with this id, else with this name; raises Mistake for several."""
        called = [row for row in rows if is_called(row, who)]
        found = [row for row in called if row["id"] == who] or called
        if len(found) > 1:
            self.listing(map(self.lines.describe, found), "")
            raise Mistake(f"{len(found)} are called {who}; say the ID")
        return found[0] if found else None


def is_phone(text: str) -> bool:
    """Whether this can only be a phone: ids are shorter."""
    return text.startswith("+") or (text.isascii() and text.isdigit() and len(text) == 11)


def is_id(text: str) -> bool:
    """Whether this is an id of a user: no name has only digits."""
    return text.isascii() and text.isdigit() and not is_phone(text)


def words(text: str) -> list[str]:
    """Split a line at blanks; what stands in double quotes is one word."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.quotes, lexer.escape, lexer.commenters = '"', "", ""
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        raise Mistake('a " has no other one') from None


def first_word(text: str) -> tuple[str, str]:
    """Split off the first word, or what stands in double quotes."""
    if text.startswith('"') and '"' in text[1:]:
        word, _, rest = text[1:].partition('"')
    else:
        word, _, rest = text.partition(" ")
    return word, rest.strip()


def shown_size(size: int) -> str:
    """Give a number of bytes for people."""
    if size < 1024:
        return f"{size} bytes"
    return f"{size / 1024:.0f} KiB" if size < 1024 * 1024 else f"{size / 1024 / 1024:.1f} MiB"
