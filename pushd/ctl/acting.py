"""The verbs that change something; the server writes each of them down."""

import sys

import click

from ..log import escape
from .calls import Control, Refused
from .options import limit_option
from .table import Answer, Line, Listing, Record
from .verb import verb

generate_option = click.option(
    "--generate", is_flag=True, help="Let the server make the password, and print it once."
)


@verb("kick")
@click.argument("user", required=False)
@click.option("--connection", type=click.IntRange(1, 2**53 - 1), help="Only this one.")
def kick(control: Control, user: str | None, connection: int | None) -> Answer:
    """Close all connections of USER, or one by its number; they may come back."""
    if (user is None) == (connection is None):
        raise click.UsageError("name a USER, or a --connection")
    done = control.call("evict", user=user, connection=connection)
    return Line(f"{done['closed']} closed", done)


@verb("disable")
@click.argument("user")
def disable(control: Control, user: str) -> Answer:
    """Let USER do nothing: their sessions and devices end, and they cannot log in."""
    done = control.call("disable", user=user)
    return Line(f"{done['userId']} is disabled", done)


@verb("enable")
@click.argument("user")
def enable(control: Control, user: str) -> Answer:
    """Let a disabled USER log in again."""
    done = control.call("enable", user=user)
    return Line(f"{done['userId']} is enabled", done)


@verb("reset_password", generate_option)
@click.argument("user")
def reset_password(control: Control, user: str, generate: bool) -> Answer:
    """Give USER another password, which is asked for or read from standard input."""
    done = control.call("reset_password", user=user, password=_password(generate))
    return _credentials(done, f"{done['userId']} has another password")


@verb("register", generate_option)
@click.argument("phone")
@click.argument("name", required=False)
def register(control: Control, phone: str, name: str | None, generate: bool) -> Answer:
    """Make an account for PHONE; the password is asked for or read from standard input."""
    password = _password(generate)
    done = control.call("register_user", phone=phone, username=name, password=password)
    return _credentials(done, f"{done['userId']} is registered")


@verb("unregister")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask.")
def unregister(control: Control, user: str, yes: bool) -> Answer:
    """Delete the account of USER for ever; what they said to others stays."""
    if not yes:
        click.confirm(f"Delete the account of {user} for ever?", abort=True, err=True)
    done = control.call("unregister", user=user)
    return Line(f"{done['userId']} is deleted", done)


@verb("reports", limit_option)
@click.option("--all", "everything", is_flag=True, help="Also those that are done with.")
def reports(control: Control, everything: bool, limit: int) -> Answer:
    """List what people reported, newest first."""
    found = control.entries("reports", limit, done=everything)
    return Listing(found, "number date by userId msgId reason done")


@verb("report")
@click.argument("number", type=click.IntRange(1, 2**53 - 1))
@click.option("--done", is_flag=True, required=True, help="Note that it is done with.")
def report(control: Control, number: int, done: bool) -> Answer:
    """Note that a report is done with."""
    control.call("close_report", number=number)
    return Line(f"report {number} is done with", {"number": number})


@verb("loglevel")
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]), required=False)
def loglevel(control: Control, level: str | None) -> Answer:
    """Show the level of the log, or change it until the next start or reload."""
    found = control.call("loglevel", level=level)
    return Line(found["level"], found)


@verb("reload")
def reload(control: Control) -> Answer:
    """Have the server read its settings again; with an error in them it changes nothing."""
    done = control.call("reload")
    if done.get("errors"):
        raise Refused("\n".join(["not reloaded, all settings stay", *map(escape, done["errors"])]))
    parts = [f"changed: {', '.join(done['changed']) or 'nothing'}"]
    if done["restart"]:
        parts.append(f"at the next start: {', '.join(done['restart'])}")
    return Line("; ".join(parts), done)


@verb("stop")
def stop(control: Control) -> Answer:
    """Shut the server down, in order."""
    found = control.call("stop")
    return Line(f"{found['pid']} is stopping", {"pid": found["pid"]})


def _password(generate: bool) -> str | None:
    """Ask for a new password, or read a line; None when the server is to make one."""
    if generate:
        return None
    if sys.stdin.isatty():
        prompt = "New password"
        return str(click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("no password on standard input: give one there, or --generate")
    return password


def _credentials(done: dict[str, str], sentence: str) -> Answer:
    """Tell what was done; a password that the server made is shown here and never again."""
    if done["password"]:
        return Record(done)
    return Line(sentence, {"userId": done["userId"]})
