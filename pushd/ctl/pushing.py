"""The verbs that send messages from the server, step by step until all are reached."""

import json
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from .calls import Control, Fields, NotReached, Refused
from .progress import Progress
from .table import Answer, Listing, Record
from .verb import verb

COLUMNS = "clientId accounts devices skipped msgIds"
# msgIds that a table shows, and that the server tells.
SHOWN_IDS = 5
TOLD_IDS = 1000

Send = Callable[..., Fields]


def message_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a message."""
    options = (
        click.argument("message"),
        click.option("--info", "as_info", is_flag=True, help="MESSAGE is a JSON list of infos."),
        click.option(
            "--expire",
            type=click.IntRange(1, 315_360_000),
            metavar="SECONDS",
            help="Neither deliver nor show it after that.",
        ),
        click.option("--client-id", metavar="ID", help="Make a repeat safe: the same ID again."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@verb("push")
@message_options
@click.option("--to", "users", multiple=True, metavar="USER", help="May be repeated.")
@click.option("--phone", metavar="PHONE", help="Whose phone it is.")
@click.option("--group", metavar="GROUPID", help="All who are in a group.")
def push(
    control: Control,
    message: str,
    as_info: bool,
    users: tuple[str, ...],
    phone: str | None,
    group: str | None,
    **options: Any,
) -> Answer:
    """Send MESSAGE from the server to users, or to a group; "-" sends each line of standard input.

    To users it comes in their system chat. An interrupted push is gone on with by repeating it
    with the same --client-id; nobody gets it twice.
    """
    if bool(group) == bool(users or phone):
        raise click.UsageError("name --to and --phone, or --group")
    to = {"users": list(users) or None, "phone": phone, "groupId": group}
    return _send(control, "push", to, message, as_info, **options)


@verb("broadcast")
@message_options
@click.option("--all", "everybody", is_flag=True, required=True, help="To all accounts; be sure.")
def broadcast(
    control: Control, message: str, as_info: bool, everybody: bool, **options: Any
) -> Answer:
    """Send MESSAGE from the server to all accounts that there are; "-" sends each line.

    It comes in their system chats. An interrupted broadcast is gone on with by repeating it with
    the same --client-id; nobody gets it twice.
    """
    return _send(control, "broadcast", {}, message, as_info, **options)


def _send(
    control: Control,
    cmd: str,
    to: Fields,
    message: str,
    as_info: bool,
    *,
    expire: int | None,
    client_id: str | None,
) -> Answer:
    """Send one message, or each line of standard input."""
    shared = {**to, "expire": expire}
    name = client_id or secrets.token_urlsafe(12)
    if message != "-":
        return _record(_whole(control, cmd, {**shared, **_content(message, as_info)}, name))
    sent: list[Fields] = []
    for number, line in _lines():
        content = _content(line, as_info, f"line {number}: ")
        try:
            sent.append(_whole(control, cmd, {**shared, **content}, name, f".{number}"))
        except (Refused, NotReached) as problem:
            raise type(problem)(
                f"line {number}: {problem}; {len(sent)} before it are sent"
            ) from None
    return Listing(sent, COLUMNS, {"msgIds": _shown_ids})


def _whole(control: Control, cmd: str, fields: Fields, name: str, part: str = "") -> Fields:
    """Send one message to all whom it is for; `name` and `part` are its clientId."""
    begun = False
    client_id = name + part
    try:
        with Progress(cmd) as progress:
            done = control.call(cmd, **fields, clientId=client_id)
            begun = True
            while not done["done"]:
                progress.at(done["place"], done["final"])
                done = control.call("push_next", clientId=client_id)
    except NotReached as problem:
        raise NotReached(f"{problem}; go on with --client-id {name}") from None
    except Refused as problem:
        more = f"; go on with --client-id {name}" if begun else ""
        raise Refused(f"{problem}{more}") from None
    return {name: done[name] for name in COLUMNS.split()}


def _content(message: str, as_info: bool, where: str = "") -> Fields:
    if not as_info:
        return {"text": message}
    try:
        infos = json.loads(message)
    except (ValueError, RecursionError):
        infos = None
    if not isinstance(infos, list):
        raise click.UsageError(f"{where}with --info a message is a JSON list of infos")
    return {"info": infos}


def _lines() -> Iterator[tuple[int, str]]:
    """Give the lines of standard input that are not blank, with their numbers."""
    try:
        for number, line in enumerate(sys.stdin, start=1):
            if line.strip():
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.UsageError("standard input is no UTF-8 text") from None


def _record(done: Fields) -> Answer:
    return Record(done, {"msgIds": _shown_ids})


def _shown_ids(ids: list[str]) -> str:
    if len(ids) > SHOWN_IDS:
        return f"{ids[0]} … {ids[-1]}{' …' if len(ids) >= TOLD_IDS else ''}"
    return " ".join(ids) or "-"
