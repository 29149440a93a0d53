"""Commands about files: sending one to the chat, and fetching one that was sent.

A fetched file is written under a name of this side's making, unless one is said, and over another
file only when that is said too.
"""

import asyncio
import contextlib
import os
from pathlib import Path

from ..client import info_of
from .chat import Chat, Command, Mistake, Target, first_word, shown_size
from .console import escape
from .lines import CATEGORIES, local_name


async def send(chat: Chat, rest: str) -> None:
    """Send a file to the chat."""
    if not rest:
        raise chat.usage("file")
    target, path = chat.where(), _local(rest)
    late = f"{escape(path.name)} is on its way; go on meanwhile"
    await chat.carry(_send(chat, target, path), late)


async def _send(chat: Chat, target: Target, path: Path) -> None:
    user_id, chat_id, kind = target
    try:
        stored = await chat.client.upload(path)
    except (OSError, ValueError) as problem:
        raise _failed(path, problem) from None
    info = info_of(stored)
    msg_id = await chat.client.send(user_id, chat_id=chat_id, type=kind, infos=[info])
    chat.last_sent = msg_id
    chat.lines.sent(msg_id, stored)
    what = CATEGORIES[info.category]
    chat.screen.line(f"* sent {escape(path.name)} as {what} in message {escape(msg_id)}")


async def get(chat: Chat, rest: str) -> None:
    """Fetch the files of a message, or one by its path."""
    which, to = first_word(rest)
    force = which == "-f"
    if force:
        which, to = first_word(to)
    if not which:
        raise chat.usage("get")
    paths = (which,) if "/" in which else chat.lines.files(which)
    if not paths:
        raise Mistake(f"no file was shown in message {which}; /history shows older ones")
    folder = _local(to) if to else Path()
    single = folder.name != "" and not folder.is_dir()
    if single and len(paths) > 1:
        raise Mistake(f"message {which} has {len(paths)} files; say a folder for them")
    wanted = [(path, folder if single else folder / local_name(path)) for path in paths]
    late = f"the file is on its way to {escape(str(folder))}; go on meanwhile"
    await chat.carry(_get(chat, wanted, force), late)


async def _get(chat: Chat, wanted: list[tuple[str, Path]], force: bool) -> None:
    for path, local in wanted:
        if not force and await asyncio.to_thread(os.path.lexists, local):
            raise _exists(local)
        data = await chat.client.download(path)
        try:
            await asyncio.to_thread(_replace if force else _write_new, local, data)
        except FileExistsError:
            raise _exists(local) from None
        except (OSError, ValueError) as problem:
            raise _failed(local, problem) from None
        chat.screen.line(f"* wrote {shown_size(len(data))} to {escape(str(local))}")


def _local(text: str) -> Path:
    path = Path(text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)
    try:
        return path.expanduser()
    except RuntimeError:
        raise Mistake(f"{text}: there is no such home") from None


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            path.unlink()
            raise


def _replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another, which stays as it is when that fails."""
    if path.exists() and not path.is_file():
        raise OSError(0, "is no regular file")
    aside = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    _write_new(aside, data)
    try:
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def _exists(path: Path) -> Mistake:
    return Mistake(f"{path} exists; /get -f writes over it")


def _failed(path: Path, problem: OSError | ValueError) -> Mistake:
    reason = problem.strerror if isinstance(problem, OSError) else None
    return Mistake(f"{path}: {reason or problem}")


COMMANDS = (
    Command("file PATH", "send a picture, voice or file to this chat", send),
    Command("get [-f] MSG|PATH [TO]", "fetch the file of a message; -f writes over one", get),
)
