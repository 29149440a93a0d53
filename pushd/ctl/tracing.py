"""The verbs that tell where a message is, and what waits for whom."""

from typing import Any

import click

from .calls import Control, Fields
from .options import limit_option
from .table import Answer, Detail, Listing, Record, duration
from .verb import verb

PLACES = "userId deviceId state online sent acked read"
QUEUES = "userId deviceId name depth oldest age online lastSeen"
# Why there may be no time.
NOT_KEPT = "not kept"
# What the server keeps in memory is told by these fields.
IN_MEMORY = ("committed", "sent")


@verb("trace")
@click.argument("msg_id", metavar="[MSGID]", required=False)
@click.option(
    "--client-id",
    nargs=2,
    metavar="USER CLIENTID",
    help="The message that USER sent with this clientId.",
)
def trace(control: Control, msg_id: str | None, client_id: tuple[str, str] | None) -> Answer:
    """Tell where a message is: accepted, committed, queued, sent, acked, read, recalled.

    A time after "by" is the latest possible. What the server keeps in memory only (committed,
    sent) is "not kept" from before its start, or when too much happened since.
    """
    if (msg_id is None) == (client_id is None):
        raise click.UsageError("name a MSGID, or --client-id USER CLIENTID")
    user, name = client_id or (None, None)
    found = control.call("trace", msgId=msg_id, user=user, clientId=name)
    while found["next"]:
        more = control.call("trace", msgId=found["msgId"], page=found["next"])
        found["places"] += more["places"]
        found["next"] = more["next"]
    del found["next"]
    return Detail(
        _head(found), Listing([_place(found, one) for one in found["places"]], PLACES), found
    )


def _head(found: Fields) -> Record:
    shown = {name: value for name, value in found.items() if name != "places"}
    shown["committed"] = found["committed"] or NOT_KEPT
    del shown["recalledAt"], shown["expired"]
    shown["recalled"] = (found["recalledAt"] or NOT_KEPT) if found["recalled"] else ""
    if found["expired"]:
        shown["expires"] += " (expired)"
    return Record(shown)


def _place(found: Fields, place: Fields) -> Fields:
    """Give a place as people read it: times of the same day without it, "by" before others."""
    day = found["accepted"][:11]
    shown = dict(place)
    for name in ("acked", "read"):
        if shown[name] and not shown[f"{name}Exact"]:
            shown[name] = f"by {shown[name].removeprefix(day)}"
    if shown["state"] == "acked":
        shown["acked"] = shown["acked"] or NOT_KEPT
        shown["sent"] = shown["sent"] or NOT_KEPT
    for name in ("sent", "acked", "read"):
        shown[name] = shown[name].removeprefix(day)
    if place["timesSent"] > 1:
        shown["sent"] += f" ({place['timesSent']} times)"
    return shown


@verb("queue", limit_option)
@click.argument("user", required=False)
def queue(control: Control, user: str | None, limit: int) -> Answer:
    """List what waits for each device of USER, or the deepest queues of all.

    A device "-" is the line of an account in which messages wait for its next device.
    """
    size = min(limit, 1000) or 1000
    found: Any = control.call("queue", user=user, size=size)
    return Listing(found, QUEUES, {"age": duration})
