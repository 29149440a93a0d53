"""The line-mode chat client behind `pushctl chat`.

Three things run at a time: the lines that a person types, handled one after the other; the
messages that arrive; and what the connection itself has to say. All of them write whole lines to
one screen, so nothing needs to know where the cursor stands, and a pipe serves as well as a
terminal.

What others wrote is not trusted: control, format and bidirectional characters are shown as
escapes, and a message is one line, so nobody can draw on the screen or pretend to be another
line. Reading blocks, and therefore happens in a thread of its own which nobody waits for at the
end.

It must not know the wire: it asks a `Client`.
"""

import asyncio
import contextlib
import getpass
import queue
import sys
import threading
import time
import unicodedata
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any, NamedTuple, TextIO

from . import tls
from .client import Client, ClientError, CommandError, LineTooLong, Message, SessionEnded

HELP = """\
/to NAME|ID               talk to this friend or group; plain lines go there
/friends                  list friends
/add NAME|ID|PHONE [TEXT] ask somebody to be friends (quote a name with blanks)
/requests                 list who asks you
/accept ID                become friends
/history [N]              show the last N messages of this chat (20)
/chats                    list chats
/search TEXT              search messages
/whoami                   show who you are
/help                     show this
/quit                     log out and leave
//TEXT                    send a line that begins with /"""

CATEGORIES = {"1": "picture", "2": "voice", "3": "file"}
GROUP_TYPES = {"group": "7", "tag": "3", "link": "6"}
ATTEMPTS = 3
HISTORY = 20
# How many names of people are remembered.
MAX_NAMES = 1000
# How long a line waits for its confirmation before the next one is read, in seconds.
SEND_PATIENCE = 5.0

# Control, format, surrogate and private characters, and line ends of all kinds.
UNSAFE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}

# Exit codes
OK, FAILED, UNREACHABLE = 0, 1, 3


class _Quit(Exception):
    """The person wants to leave, or the input has ended."""


class _Mistake(Exception):
    """A line that cannot be done; the text says why."""


class _Target(NamedTuple):
    """Where plain lines go: a user, or a group with the type that its kind asks for."""

    user_id: str
    chat_id: str = ""
    type: str = "1"


async def run_chat(
    host: str,
    port: int,
    *,
    ssl: SSLContext | None = None,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> int:
    """Chat on this terminal, or with piped lines, until `/quit` or the end of the input.

    Returns the exit code: 0, 1 if there was no login or the session was ended from elsewhere,
    3 if the server was not reached. Leaving logs out, for a terminal is no device to keep: it
    would take one of the account's ten places.
    """
    screen = _Screen(stdout or sys.stdout)
    keyboard = _Keyboard(stdin or sys.stdin, screen)
    client = Client.connect(host, port, device="terminal", ssl=ssl)
    try:
        await client.open()
    except (OSError, ClientError) as error:
        why = tls.reason(error) if isinstance(error, OSError) else error
        screen.error(f"cannot reach {host}:{port}: {why}")
        return UNREACHABLE
    try:
        return await _Chat(client, keyboard, screen).run()
    finally:
        await client.close()
        keyboard.stop()


def escape(text: str) -> str:
    """Show control, format and bidirectional characters as escapes, line ends included."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escape_character, text))


def _escape_character(character: str) -> str:
    # The joiner only ties emoji and letters together.
    if character == "\u200d" or unicodedata.category(character) not in UNSAFE:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


class _Screen:
    """Whole lines to a stream, in its encoding."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"

    def line(self, text: str) -> None:
        """Show a line that is ours; foreign parts have been escaped by the caller."""
        self._put(text + "\n")

    def prompt(self, text: str) -> None:
        """Ask for a line."""
        self._put(text)

    def error(self, problem: object) -> None:
        """Show a problem as one line."""
        self.line(f"! {escape(str(problem))}")

    def _put(self, text: str) -> None:
        safe = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
        # The reader of a pipe may have gone; that ends with the input.
        with contextlib.suppress(BrokenPipeError):
            self._stream.write(safe)
            self._stream.flush()


class _Keyboard:
    """Lines from a stream, read in a thread so that the loop goes on."""

    def __init__(self, stream: TextIO, screen: _Screen) -> None:
        self._stream = stream
        self._screen = screen
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: nothing can end a read that waits for a person.
        threading.Thread(target=self._work, name="keyboard", daemon=True).start()

    async def line(self, prompt: str = "") -> str:
        """Give the next line without its end; raises _Quit at the end of the input."""
        self._screen.prompt(prompt)
        text = await self._in_thread(self._stream.readline)
        if not text:
            raise _Quit
        return text.rstrip("\r\n")

    async def secret(self, prompt: str) -> str:
        """Give a line that is not echoed if a person types it."""
        if not self._stream.isatty():
            return await self.line(prompt)
        try:
            return await self._in_thread(lambda: getpass.getpass(prompt))
        except EOFError:
            raise _Quit from None

    def stop(self) -> None:
        """Let the thread end when its read does."""
        self._tasks.put(None)

    async def _in_thread(self, read: Callable[[], str]) -> str:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()

        def work() -> None:
            try:
                outcome: str | Exception = read()
            except (OSError, ValueError, EOFError) as error:
                outcome = error if isinstance(error, EOFError) else ""
            # The loop may be gone when a person types at last.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future, outcome)

        self._tasks.put(work)
        return await future

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


def _resolve(future: "asyncio.Future[str]", outcome: str | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, str):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


class _Chat:
    """One sitting: a login, then lines and messages until the end."""

    def __init__(self, client: Client, keyboard: _Keyboard, screen: _Screen) -> None:
        self._client = client
        self._keyboard = keyboard
        self._screen = screen
        self._names: dict[str, str] = {}  # user and group ids to what people call them
        self._target: _Target | None = None  # where plain lines go
        self._unconfirmed: set[asyncio.Task[str]] = set()  # lines that wait for the connection
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "to": self._to,
            "friends": self._friends,
            "add": self._add,
            "requests": self._requests,
            "accept": self._accept,
            "history": self._history,
            "chats": self._chats,
            "search": self._search,
            "whoami": self._whoami,
            "help": self._help,
            "quit": self._leave,
        }

    async def run(self) -> int:
        """Chat until the end, and give the exit code."""
        try:
            if not await self._log_in():
                return FAILED
            return await self._talk()
        except _Quit:
            return FAILED

    async def _talk(self) -> int:
        reader = asyncio.create_task(self._read_lines())
        tasks = {reader, asyncio.create_task(self._receive()), asyncio.create_task(self._watch())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                return FAILED
            reader.result()
            await self._say_goodbye()
            return OK
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _say_goodbye(self) -> None:
        # The logout waits behind the lines that are not confirmed yet.
        with contextlib.suppress(ClientError, TimeoutError):
            async with asyncio.timeout(SEND_PATIENCE):
                await self._client.logout()

    # Logging in

    async def _log_in(self) -> bool:
        for _ in range(ATTEMPTS):
            try:
                await self._try_to_log_in()
            except ClientError as problem:
                self._screen.error(problem)
            else:
                return True
        return False

    async def _try_to_log_in(self) -> None:
        answer = (await self._keyboard.line("(l)og in or (r)egister? ")).strip().lower()
        phone = (await self._keyboard.line("phone: ")).strip()
        password = await self._keyboard.secret("password: ")
        if answer.startswith("r"):
            username = (await self._keyboard.line("name: ")).strip()
            account = await self._client.register(phone, password, username)
        else:
            account = await self._client.login(phone, password)
        user = account["user"]
        name = self._remember(user)
        self._screen.line(f"* you are {name} ({escape(user['id'])}); /help shows what you can do")

    # What comes in

    async def _receive(self) -> None:
        try:
            async for message in self._client.messages():
                await self._show(message)
        except ClientError as problem:
            self._screen.error(problem)

    async def _watch(self) -> None:
        lost = False
        async for event in self._client.events():
            if event.name == "disconnected":
                lost = True
                self._screen.line("* the connection was lost; trying again")
            elif event.name == "connected" and lost:
                self._screen.line("* connected again")
        # The end of the messages tells why.
        await asyncio.Event().wait()

    async def _show(self, message: Message) -> None:
        event = message.event or {}
        if event.get("name") == "friend_request":
            name = await self._name(message.from_id)
            wish = str(event.get("description") or "") or message.text
            self._screen.line(
                f"{_clock(message)} * {name} asks to be your friend: {escape(wish)}"
                f" (/accept {escape(message.from_id)})"
            )
            return
        self._screen.line(await self._format(message))

    async def _format(self, message: Message) -> str:
        text = "(recalled)" if message.recalled else _content(message)
        if message.type == "0":
            return f"{_clock(message)} * {text}"
        sender = await self._name(message.from_id)
        where = ""
        if message.from_id == self._client.user_id:
            where = f" to {await self._place(message)}"
        elif not _is_pair(message.chat_id):
            where = f" in {await self._place(message)}"
        return f"{_clock(message)} {sender}{where}: {text}"

    async def _place(self, message: Message) -> str:
        if _is_pair(message.chat_id):
            return await self._name(message.to_id)
        return self._names.get(message.chat_id) or escape(message.chat_id)

    # Names

    def _remember(self, user: dict[str, Any]) -> str:
        """Keep what a user or group is called, and give it escaped."""
        name = user.get("alias") or user.get("username") or user.get("name") or user["id"]
        if len(self._names) >= MAX_NAMES:
            del self._names[next(iter(self._names))]
        self._names[user["id"]] = escape(name)
        return escape(name)

    async def _name(self, user_id: str) -> str:
        if user_id in self._names:
            return self._names[user_id]
        try:
            account = await self._client.command("account", userId=user_id)
            return self._remember(account["user"])
        except (ClientError, KeyError, TypeError):
            return escape(user_id)

    async def _people(self) -> list[dict[str, Any]]:
        return [user async for page in self._client.pages("friends", size=100) for user in page]

    async def _groups(self) -> list[dict[str, Any]]:
        try:
            pages = self._client.pages("my_groups", size=100)
            return [group async for page in pages for group in page]
        except CommandError:
            # A server without groups.
            return []

    # What is typed

    async def _read_lines(self) -> None:
        while True:
            try:
                await self._handle(await self._keyboard.line())
            except _Quit:
                return
            except SessionEnded:
                # The end of the messages tells why.
                await asyncio.Event().wait()
            except (ClientError, LineTooLong, _Mistake) as problem:
                self._screen.error(problem)

    async def _handle(self, line: str) -> None:
        if not line.strip():
            return
        if not line.startswith("/") or line.startswith("//"):
            await self._say(line.removeprefix("/"))
            return
        word, _, rest = line[1:].partition(" ")
        command = self._commands.get(word.lower())
        if command is None:
            raise _Mistake(f"no command /{word}; /help lists them")
        await command(rest.strip())

    async def _say(self, text: str) -> None:
        if self._target is None:
            raise _Mistake("to whom? /to NAME")
        user_id, chat_id, kind = self._target
        sending = self._client.send(user_id, text, chat_id=chat_id, type=kind)
        task = asyncio.create_task(sending)
        done, _ = await asyncio.wait({task}, timeout=SEND_PATIENCE)
        if done:
            task.result()
            return
        self._screen.line("* not confirmed yet; it goes out when the connection is back")
        self._unconfirmed.add(task)
        task.add_done_callback(self._confirmed_late)

    def _confirmed_late(self, task: "asyncio.Task[str]") -> None:
        self._unconfirmed.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._screen.error(problem)

    async def _to(self, who: str) -> None:
        if not who:
            raise _Mistake("/to NAME or ID")
        for user in await self._people():
            if _is_called(user, who):
                self._talk_to(user["id"], self._remember(user))
                return
        for group in await self._groups():
            if _is_called(group, who):
                kind = GROUP_TYPES.get(group.get("kind", ""), "7")
                self._target = _Target("", group["id"], kind)
                self._screen.line(f"* talking in {self._remember(group)}")
                return
        if not _is_id(who):
            raise _Mistake(f"no friend and no group is called {who}")
        user = (await self._client.command("account", userId=who))["user"]
        self._talk_to(user["id"], self._remember(user))

    def _talk_to(self, user_id: str, name: str) -> None:
        self._target = _Target(user_id)
        self._screen.line(f"* talking to {name} ({escape(user_id)})")

    async def _friends(self, _: str) -> None:
        people = await self._people()
        for user in people:
            self._screen.line(f"  {self._describe(user)}")
        if not people:
            self._screen.line("* no friends yet; /add NAME")

    async def _add(self, rest: str) -> None:
        who, text = _first_word(rest)
        if not who:
            raise _Mistake("/add NAME, ID or PHONE")
        user_id = who if _is_id(who) else await self._find(who)
        user = (await self._client.add_friend(user_id, text))["user"]
        friends = "you are friends now" if user.get("isFriend") else "asked"
        self._screen.line(f"* {self._remember(user)}: {friends}")

    async def _find(self, who: str) -> str:
        """Give the id of the one user with this phone or name."""
        if _is_phone(who):
            users = await self._client.search(phone=who)
        else:
            users = await self._client.search(who)
            exact = [user for user in users if _is_called(user, who)]
            users = exact or users
        if not users:
            raise _Mistake(f"nobody is called {who}")
        if len(users) > 1:
            for user in users:
                self._screen.line(f"  {self._describe(user)}")
            raise _Mistake(f"{len(users)} people are called like {who}; add one by ID")
        return str(users[0]["id"])

    async def _requests(self, _: str) -> None:
        requests = await self._client.command("friend_requests", page=0)
        for request in requests:
            user, wish = self._describe(request["user"]), request.get("description") or ""
            self._screen.line(f"  {user}: {escape(wish)}")
        if not requests:
            self._screen.line("* nobody asks")

    async def _accept(self, user_id: str) -> None:
        if not user_id:
            raise _Mistake("/accept ID")
        user = await self._client.accept_friend(user_id)
        self._screen.line(f"* {self._remember(user)} is your friend now")

    async def _history(self, rest: str) -> None:
        if self._target is None:
            raise _Mistake("whose? /to NAME")
        if rest and not (rest.isascii() and rest.isdigit() and 1 <= int(rest) <= 100):
            raise _Mistake("/history with a number from 1 to 100")
        user_id, chat_id, _ = self._target
        limit = int(rest or HISTORY)
        messages = await self._client.history(chat_id, user_id=user_id, limit=limit)
        for message in messages:
            self._screen.line(f"  {await self._format(message)}")
        if not messages:
            self._screen.line("* no messages yet")

    async def _chats(self, _: str) -> None:
        chats = await self._client.chats()
        for chat in chats:
            side = chat.get("user") or chat.get("group")
            name = self._remember(side) if side else escape(chat["chatId"])
            unread = f" ({chat['unread']} new)" if chat.get("unread") else ""
            self._screen.line(f"  {name}{unread}")
        if not chats:
            self._screen.line("* no chats yet")

    async def _search(self, text: str) -> None:
        if not text:
            raise _Mistake("/search TEXT")
        messages = await self._client.search_messages(text)
        for message in messages:
            self._screen.line(f"  {await self._format(message)}")
        if not messages:
            self._screen.line("* nothing found")

    async def _whoami(self, _: str) -> None:
        me = await self._client.command("whoami")
        self._screen.line(f"* {escape(me.get('username') or '(no name)')} ({escape(me['userId'])})")

    async def _help(self, _: str) -> None:
        self._screen.line(HELP)

    async def _leave(self, _: str) -> None:
        raise _Quit

    def _describe(self, user: dict[str, Any]) -> str:
        name = self._remember(user)
        also = user.get("username") if user.get("alias") else ""
        return f"{name} ({escape(user['id'])}{', ' + escape(also) if also else ''})"


def _clock(message: Message) -> str:
    return time.strftime("[%H:%M]", time.localtime(message.time / 1000))


def _content(message: Message) -> str:
    parts = []
    for info in message.infos:
        kind = CATEGORIES.get(info.category)
        parts.append(f"[{kind} {escape(info.content)}]" if kind else escape(info.content))
    return " ".join(parts)


def _is_pair(chat_id: str) -> bool:
    first, dash, second = chat_id.partition("-")
    return bool(dash) and first.isdigit() and second.isdigit()


def _is_phone(text: str) -> bool:
    return text.startswith("+") or (text.isascii() and text.isdigit() and len(text) == 11)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and not _is_phone(text)


def _is_called(row: dict[str, Any], who: str) -> bool:
    """Whether a user or group has this id, name, alias or phone."""
    if row.get("id") == who or row.get("phone") == who:
        return True
    names = (row.get("alias"), row.get("username"), row.get("name"))
    return who.casefold() in {name.casefold() for name in names if name}


def _first_word(text: str) -> tuple[str, str]:
    """Split off the first word, or what stands in double quotes."""
    if text.startswith('"') and '"' in text[1:]:
        word, _, rest = text[1:].partition('"')
    else:
        word, _, rest = text.partition(" ")
    return word, rest.strip()
