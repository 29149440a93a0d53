"""The verbs that look and change nothing."""

import time
from collections.abc import Callable
from typing import Any

import click

from .calls import Control, Fields
from .options import limit_option
from .table import Answer, Listing, Record, duration, size
from .top import milliseconds, quantile
from .verb import verb

SHOWN_STATS: dict[str, Callable[[Any], str]] = {
    "uptime": duration,
    "storeBytes": size,
    "logBytes": size,
    "bytesIn": size,
    "bytesOut": size,
    "memoryBytes": size,
    "oldestSeconds": lambda seconds: duration(int(seconds)),
    "syncP99": milliseconds,
    "loopLagP99": milliseconds,
    "loopLagMax": milliseconds,
}
USER = "userId username phone state devices online lastSeen"


@verb("status")
def status(control: Control) -> Answer:
    """Tell how the server does since its start, and how much it holds."""
    found = control.call("stats", counts=True)
    counts = found.pop("counts", {})
    metrics = control.call("top", size=1)["metrics"]
    return Record({**found, **_vitals(metrics), **counts}, SHOWN_STATS)


def _vitals(metrics: Fields) -> Fields:
    """Choose what is looked at first of all metrics; times are in seconds."""
    batches = metrics["pushd_commit_operations"]
    return {
        "ready": bool(metrics["pushd_ready"]),
        "framesByKind": {kind: n for kind, n in metrics["pushd_frames_total"].items() if n},
        "messagesAccepted": metrics["pushd_messages_accepted_total"],
        "messagesAcked": metrics["pushd_messages_acked_total"],
        "oldestSeconds": metrics["pushd_queue_oldest_seconds"]["all"],
        "batchMean": round(batches["sum"] / batches["count"], 2) if batches["count"] else 0.0,
        "syncP99": _p99(metrics["pushd_sync_seconds"]),
        "loopLagP99": _p99(metrics["pushd_loop_lag_seconds"]),
        "loopLagMax": metrics["pushd_loop_lag_max_seconds"],
        "bytesIn": metrics["pushd_received_bytes_total"],
        "bytesOut": metrics["pushd_sent_bytes_total"],
        "memoryBytes": metrics["pushd_memory_bytes"],
        "failedHandshakes": metrics["pushd_tls_handshakes_failed_total"],
    }


def _p99(histogram: Fields) -> float:
    return quantile(histogram["buckets"], histogram["count"], 0.99)


@verb("stats")
def stats(control: Control) -> Answer:
    """Tell the server's counters, without counting what it holds."""
    return Record(control.call("stats"), SHOWN_STATS)


@verb("users", limit_option)
@click.argument("text", required=False)
def users(control: Control, text: str | None, limit: int) -> Answer:
    """List users whose name or phone holds TEXT, or all of them."""
    return Listing(control.entries("users", limit, text=text), USER)


@verb("online", limit_option)
def online(control: Control, limit: int) -> Answer:
    """List users who are logged in now."""
    return Listing(control.entries("online", limit), USER)


@verb("sessions", limit_option)
@click.argument("user", required=False)
def sessions(control: Control, user: str | None, limit: int) -> Answer:
    """List connections, all of them or those of USER."""
    columns = "connection userId deviceId address state seconds waiting bytes"
    found = control.entries("sessions", limit, user=user)
    return Listing(found, columns, {"seconds": duration})


@verb("audit", limit_option)
@click.option("--user", metavar="USER", help="Only what is about this user.")
@click.option("--since", metavar="TIME", help="Only what is newer: 30m, 12h, 7d, or 2026-01-31.")
def audit(control: Control, user: str | None, since: str | None, limit: int) -> Answer:
    """List what operators did and who logged in, newest first."""
    found = control.entries("audit", limit, user=user, since=_since(since))
    return Listing(found, "date actor action userId detail outcome count")


def _since(text: str | None) -> int | None:
    """Read a time as milliseconds since 1970."""
    if not text:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text[:-1].isascii() and text[:-1].isdigit() and text[-1] in units and len(text) < 12:
        return max(0, int((time.time() - int(text[:-1]) * units[text[-1]]) * 1000))
    for shape in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"):
        try:
            return int(time.mktime(time.strptime(text, shape)) * 1000)
        except (ValueError, OverflowError):
            continue
    raise click.BadParameter("a time is 30m, 12h, 7d, 2026-01-31 or 2026-01-31T12:00:00")
