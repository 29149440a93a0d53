"""Reading what a server tells monitors, as a monitor does: by HTTP, and with Prometheus' parser.

before = await series(own)                      # own = server(**METRICS)
…
assert moved(before, await series(own), "pushd_frames_total") == {"kind=list": 1}
"""

import asyncio
import http.client
import re
import time
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from .process import Process

# The settings of a server that tells everything, always as it is at that moment.
METRICS = {"metrics_listen": "127.0.0.1:0", "metrics_refresh_seconds": 0}

# Series by name and labels: "pushd_sessions", "pushd_frames_total{kind=list}".
Series = dict[str, float]

PATIENCE = 10.0


def address(own: Process) -> tuple[str, int]:
    """Return where a server's metrics are, which its log tells: a moment after it is ready."""
    deadline = time.monotonic() + PATIENCE
    while not (found := re.findall(r"event=metrics listen=\"?([\d.]+):(\d+)", own.log_text())):
        assert time.monotonic() < deadline, own.log_text()
        time.sleep(0.005)
    host, port = found[-1]
    return host, int(port)


async def get(own: Process, path: str, **headers: str) -> tuple[int, str]:
    """Return the status and the body of a request."""
    status, body, _ = await asyncio.to_thread(request, address(own), path, headers)
    return status, body.decode()


def request(
    to: tuple[str, int], path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Send a request and return its status, body and headers."""
    connection = http.client.HTTPConnection(*to, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


async def series(own: Process) -> Series:
    """Return all that a server tells now."""
    status, body = await get(own, "/metrics")
    assert status == 200, body
    found: Series = {}
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            name = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert name not in found, f"{name} is there twice"
            found[name] = sample.value
    return found


def moved(before: Series, after: Series, name: str) -> dict[str, float]:
    """Return by how much the series of a name moved, those that did; by their labels, "" if none.

    The buckets of a histogram are left out: its `_count` and `_sum` are series of their own.
    """
    assert any(key.partition("{")[0] == name for key in after), f"there is no {name}"
    assert set(before) == set(after), "series come and go"
    found = {}
    for key, value in after.items():
        head, _, labels = key.partition("{")
        if head == name and value != before[key]:
            found[labels.rstrip("}")] = value - before[key]
    return found


async def until(own: Process, holds: Callable[[Series], bool]) -> Series:
    """Read until something holds, and return what was read then."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = await series(own)
        if holds(found):
            return found
        assert time.monotonic() < deadline, found
