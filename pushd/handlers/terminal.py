"""What a person with netcat asks first: who am I, is anybody there, what can I say."""

from typing import Any

import msgspec

from ..commands import Command, Context, Needs, Request
from ..encoding import encode
from ..errors import BadField, Refusal
from ..model import Empty, HelpOut, TextOut, WhoAmI
from ..session import Session
from ..status import Status

# Bytes of a reply around its text, the longest id included.
ENVELOPE = 1024


class Ping(Request):
    """The fields of `ping`."""

    text: str | None = None


class Help(Request):
    """The fields of `help`."""

    name: str | None = None


async def whoami(ctx: Context, session: Session, request: Request) -> WhoAmI:
    """Tell who the connection is; all is empty without a session."""
    actor = session.actor
    number = str(session.number)
    if actor is None:
        return WhoAmI("", "", "", number)
    account = await ctx.store.accounts.by_id(actor.account)
    name = account.username if account else ""
    device = str(actor.device) if actor.device else ""
    return WhoAmI(str(actor.account), name, device, number)


async def ping(ctx: Context, session: Session, request: Ping) -> TextOut:
    """Repeat a text; everything sent before on this connection is finished by then."""
    text = request.text or ""
    # Escapes can make the answer larger than the question.
    if len(encode(text)) > ctx.config.limits.reply - ENVELOPE:
        raise BadField("text", "text is too long to be repeated")
    return TextOut(text)


async def help_(ctx: Context, session: Session, request: Help) -> list[HelpOut]:
    """List the commands that this connection may use with their fields, or one of them."""
    if request.name:
        row = ctx.table.get(request.name)
        if row is None:
            raise Refusal(Status.UNKNOWN_COMMAND, field="name")
        if row.needs is Needs.OPERATOR and not session.operator:
            raise Refusal(Status.NOT_ALLOWED, field="name")
        return [_help(row)]
    shown = _OPERATOR if session.operator else _PUBLIC
    return [_help(row) for row in ctx.table.values() if row.needs in shown]


async def quit_(ctx: Context, session: Session, request: Request) -> Empty:
    """Say goodbye: the connection is closed after the reply."""
    return Empty()


# What `help` lists, by who asks.
_PUBLIC = (Needs.NOTHING, Needs.STRANGER, Needs.SESSION)
_OPERATOR = (Needs.NOTHING, Needs.OPERATOR)


def fields_of(row: Command) -> dict[str, str]:
    """Give the fields of a command by their names on the wire, each with its type."""
    fields = msgspec.structs.fields(row.request)
    return {one.encode_name: _type_name(one.type) for one in fields}


def _type_name(kind: object) -> str:
    schema = msgspec.json.schema(kind)
    options = schema.get("anyOf", [schema])
    # A choice of words is a string; "" alone says only that the field may be empty.
    named = [_option_name(option) for option in options]
    return " or ".join(name for name in named if name not in ("", "null"))


def _option_name(option: dict[str, Any]) -> str:
    if "$ref" in option:
        return "object"
    if "type" in option:
        return str(option["type"])
    return "string" if any(option["enum"]) else ""


def _help(row: Command) -> HelpOut:
    return HelpOut(row.name, fields_of(row), str(row.needs))


COMMANDS = (
    Command("whoami", whoami, Request, Needs.NOTHING),
    Command("ping", ping, Ping, Needs.NOTHING),
    Command("help", help_, Help, Needs.NOTHING, listing=True),
    Command("quit", quit_, Request, Needs.NOTHING, closes=True),
)
