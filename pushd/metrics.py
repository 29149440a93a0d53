"""What the server tells of itself: one row a metric, read from plain values.

A row is read on whatever thread asks, without a lock: integers, and tables that are copied in one
step. Nothing here waits, and nothing is counted here. Names and labels are bounded: a label's
values are kinds, statuses, budgets or commands that there are.

`snapshot` gives the values as plain data; `registry` gives them to Prometheus, and is the only
thing here that needs the extra `metrics`.
"""

import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .health import Health
from .histogram import Histogram
from .service import LOGINS, Service
from .status import Status
from .store import FILE

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric as Family

COUNTER, GAUGE, HISTOGRAM, INFO = "counter", "gauge", "histogram", "info"

# The statuses that are a refusal.
REFUSALS = tuple(status for status in Status if status not in (Status.SUCCESS, Status.FAILURE))
# The kinds of listeners; see `sockets.listener_kind`.
LISTENERS = ("tcp", "tls", "control")

Numbers = Mapping[str, float]
Value = float | Numbers | Histogram


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values come from."""

    service: Service
    health: Health
    build: Mapping[str, str]  # what the running program is made of


@dataclass(frozen=True, slots=True)
class Metric:
    """One row: `label` names what the keys of a table of values are."""

    name: str
    kind: str
    text: str
    read: Callable[[Sources], Value]
    label: str = ""


# What a row reads


def _open_connections(of: Sources) -> Numbers:
    stats = of.service.stats
    # Closed first: what closes in between is still counted as open, and never less than none.
    closed, opened = dict(stats.closed), dict(stats.opened)
    return {kind: opened.get(kind, 0) - closed.get(kind, 0) for kind in LISTENERS}


def _accepted(of: Sources) -> Numbers:
    return {kind: of.service.stats.opened[kind] for kind in LISTENERS}


def _frames(of: Sources) -> Numbers:
    stats = of.service.stats
    return {
        "heartbeat": stats.heartbeats,
        "start": stats.gates["start"],
        "restart": stats.gates["restart"],
        "list": stats.lists,
        "ok": stats.acks,
        "read": stats.reads,
        "command": sum(dict(stats.commands).values()),
        "bad": stats.bad,
    }


def _commands(of: Sources) -> Numbers:
    counted = dict(of.service.stats.commands)
    return {name: counted.get(name, 0) for name in (*of.service.ctx.table, "unknown")}


def _refusals(of: Sources) -> Numbers:
    # All of them from the start: a counter that appears with its first event hides that one.
    counted = of.service.stats.refusals
    return {str(int(status)): counted[status] for status in REFUSALS}


def _logins(of: Sources) -> Numbers:
    counted = of.service.stats.logins
    return {outcome: counted[outcome] for outcome in (*LOGINS.values(), "refused")}


def _budgets(of: Sources) -> Numbers:
    ctx = of.service.ctx
    found = {name: budget.refused for name, budget in ctx.budgets.items()}
    found |= {"messages": of.service.messages_refused, "wrong_passwords": ctx.penalties.refused}
    return found


def _oldest(of: Sources) -> Numbers:
    census, now = of.health.census, of.service.ctx.clock.wall()

    def age(created: int) -> float:
        return max(0, now - created) / 1000 if created else 0.0

    return {"all": age(census.oldest), "online": age(census.oldest_online)}


def _file_size(of: Sources, name: str) -> int:
    with suppress(OSError):
        return (of.service.ctx.store.folder / name).stat().st_size
    return 0


def _disk_free(of: Sources) -> int:
    return shutil.disk_usage(of.service.ctx.store.folder).free


def _memory(of: Sources) -> int:
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
    return 0


def _open_files(of: Sources) -> int:
    with suppress(OSError):
        # Newer kernels tell the number here; older ones have to be asked for all of them.
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1
    return 0


METRICS = (
    # Connections
    Metric(
        "pushd_connections",
        GAUGE,
        "Connections that are open, by the kind of the listener",
        _open_connections,
        "listener",
    ),
    Metric(
        "pushd_connections_accepted_total",
        COUNTER,
        "Connections that were accepted, by the kind of the listener",
        _accepted,
        "listener",
    ),
    Metric(
        "pushd_tls_handshakes_failed_total",
        COUNTER,
        "TLS handshakes that failed or took too long",
        lambda of: of.service.stats.failed_handshakes,
    ),
    Metric(
        "pushd_sessions",
        GAUGE,
        "Connections with a login",
        lambda of: of.service.ctx.hub.sessions,
    ),
    Metric(
        "pushd_devices_online",
        GAUGE,
        "Started devices that are connected",
        lambda of: len(of.service.ctx.hub),
    ),
    Metric(
        "pushd_received_bytes_total",
        COUNTER,
        "Bytes read from connections",
        lambda of: of.service.stats.bytes_in,
    ),
    Metric(
        "pushd_sent_bytes_total",
        COUNTER,
        "Bytes written to connections",
        lambda of: of.service.stats.bytes_out,
    ),
    # Frames
    Metric(
        "pushd_frames_total",
        COUNTER,
        "Lines that clients sent, by kind; ok acks a packet, read is an ack object",
        _frames,
        "kind",
    ),
    Metric(
        "pushd_commands_total",
        COUNTER,
        "Commands that were answered, by name; those that there are not together as unknown",
        _commands,
        "cmd",
    ),
    Metric(
        "pushd_refusals_total",
        COUNTER,
        "Replies that were a refusal, by status",
        _refusals,
        "status",
    ),
    Metric(
        "pushd_budgets_refused_total",
        COUNTER,
        "Requests over a budget, by its name",
        _budgets,
        "budget",
    ),
    Metric(
        "pushd_logins_total",
        COUNTER,
        "What became of `login`",
        _logins,
        "outcome",
    ),
    Metric(
        "pushd_password_jobs",
        GAUGE,
        "Passwords that are hashed or wait for it",
        lambda of: of.service.ctx.hasher.jobs,
    ),
    # Messages
    Metric(
        "pushd_messages_accepted_total",
        COUNTER,
        "Messages confirmed to their senders, repeats included",
        lambda of: of.service.stats.confirmed,
    ),
    Metric(
        "pushd_messages_delivered_total",
        COUNTER,
        "Messages written to devices, repeats included",
        lambda of: of.service.stats.delivered,
    ),
    Metric(
        "pushd_messages_acked_total",
        COUNTER,
        "Messages that devices acked",
        lambda of: of.service.ctx.store.writer.journal.acked,
    ),
    Metric(
        "pushd_queue_messages",
        GAUGE,
        "Messages that wait in the queues of all devices",
        lambda of: of.health.census.waiting,
    ),
    Metric(
        "pushd_queue_oldest_seconds",
        GAUGE,
        "Age of the oldest message not acked, of all devices and of those online",
        _oldest,
        "devices",
    ),
    # The store
    Metric(
        "pushd_commits_total",
        COUNTER,
        "Batches that were committed",
        lambda of: of.service.ctx.store.writer.batches,
    ),
    Metric(
        "pushd_commit_operations",
        HISTOGRAM,
        "Messages and changes of a batch",
        lambda of: of.service.ctx.store.writer.sizes,
    ),
    Metric(
        "pushd_commit_seconds",
        HISTOGRAM,
        "A batch, from the loop to the disk and back",
        lambda of: of.service.ctx.store.writer.times,
    ),
    Metric(
        "pushd_sync_seconds",
        HISTOGRAM,
        "The COMMIT of a batch with its sync, and now and then a checkpoint",
        lambda of: of.service.ctx.store.writer.journal.syncs,
    ),
    Metric(
        "pushd_writer_waiting",
        GAUGE,
        "Messages and changes that are handed in and not committed",
        lambda of: of.service.ctx.store.writer.waiting,
    ),
    Metric(
        "pushd_store_bytes",
        GAUGE,
        "Size of the database file",
        lambda of: _file_size(of, FILE),
    ),
    Metric(
        "pushd_store_wal_bytes",
        GAUGE,
        "Size of the database's write-ahead log",
        lambda of: _file_size(of, f"{FILE}-wal"),
    ),
    Metric("pushd_disk_free_bytes", GAUGE, "Free on the disk of the data folder", _disk_free),
    Metric(
        "pushd_damaged_messages_total",
        COUNTER,
        "Messages that were read and are not what was written",
        lambda of: of.service.ctx.store.messages.damaged,
    ),
    Metric(
        "pushd_disk_full",
        GAUGE,
        "1 while messages are refused because the disk is full",
        lambda of: int(of.service.ctx.store.writer.full),
    ),
    Metric(
        "pushd_media_bytes",
        GAUGE,
        "Stored files",
        lambda of: of.health.census.media,
    ),
    # The process
    Metric(
        "pushd_loop_lag_seconds",
        HISTOGRAM,
        "How late the event loop ran a timer",
        lambda of: of.health.lag,
    ),
    Metric(
        "pushd_loop_lag_max_seconds",
        GAUGE,
        "The greatest lag of the last minute or two",
        lambda of: of.health.worst,
    ),
    Metric(
        "pushd_ready",
        GAUGE,
        "1 while the server is ready for clients, as /readyz has it",
        lambda of: int(not of.health.problem),
    ),
    Metric(
        "pushd_tasks",
        GAUGE,
        "Tasks of the event loop; a connection that waits has none",
        lambda of: of.health.tasks,
    ),
    Metric("pushd_threads", GAUGE, "Threads of Python", lambda of: threading.active_count()),
    Metric("pushd_memory_bytes", GAUGE, "Resident memory", _memory),
    Metric("pushd_open_files", GAUGE, "Open file descriptors", _open_files),
    Metric(
        "pushd_open_files_max",
        GAUGE,
        "How many file descriptors the process may have",
        lambda of: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    ),
    Metric(
        "pushd_cpu_seconds_total",
        COUNTER,
        "Processor time of all threads",
        lambda of: time.process_time(),
    ),
    Metric(
        "pushd_uptime_seconds",
        GAUGE,
        "Time since the start",
        lambda of: time.monotonic() - of.health.began,
    ),
    Metric(
        "pushd_build_info",
        INFO,
        "1, with the versions of pushd, Python and SQLite, and the loop",
        lambda of: 1,
    ),
)


def snapshot(of: Sources) -> dict[str, Any]:
    """Give all values as plain data, by the names of the metrics."""
    found: dict[str, Any] = {"time": time.time()}
    for metric in METRICS:
        value = metric.read(of)
        if isinstance(value, Histogram):
            found[metric.name] = _plain(value)
        else:
            found[metric.name] = dict(of.build) if metric.kind == INFO else value
    return found


def _plain(histogram: Histogram) -> dict[str, Any]:
    """Give a histogram as plain data; the bucket without a bound is the count."""
    *buckets, (_, count) = histogram.buckets()
    return {"count": count, "sum": histogram.total, "buckets": buckets}


def registry(of: Sources) -> "CollectorRegistry":
    """Make a registry of prometheus-client that reads the rows whenever it is asked."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

    class Rows(Collector):
        """A collector over plain values."""

        def collect(self) -> "Iterator[Family]":
            return (_family(metric, of) for metric in METRICS)

    # Not asked for its names when it is registered: that would read all values once.
    made = CollectorRegistry(auto_describe=False, support_collectors_without_names=True)
    made.register(Rows())
    return made


def _family(metric: Metric, of: Sources) -> "Family":
    from prometheus_client import core

    value = metric.read(of)
    if isinstance(value, Histogram):
        family = core.HistogramMetricFamily(metric.name, metric.text)
        buckets = [(_bound(bound), seen) for bound, seen in value.buckets()]
        family.add_metric([], buckets, value.total)
        return family
    if metric.kind == INFO:
        info = core.InfoMetricFamily(metric.name.removesuffix("_info"), metric.text)
        info.add_metric([], dict(of.build))
        return info
    shape = core.CounterMetricFamily if metric.kind == COUNTER else core.GaugeMetricFamily
    labels = [metric.label] if metric.label else []
    numbers = value if isinstance(value, Mapping) else {"": value}
    made = shape(metric.name, metric.text, labels=labels)
    for key, number in numbers.items():
        made.add_metric([key] if labels else [], number)
    return made


def _bound(bound: float) -> str:
    """Write a bucket's bound as Prometheus does."""
    return "+Inf" if bound == float("inf") else repr(bound)
