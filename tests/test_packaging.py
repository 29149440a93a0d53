"""What is shipped for monitors names only what there is."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pushd import metrics
from pushd.metrics import COUNTER, HISTOGRAM, METRICS

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "packaging"
DASHBOARD = FOLDER / "grafana.json"
ALERTS = FOLDER / "alerts.yml"
ROWS = {row.name: row for row in METRICS}
SERIES = {
    f"{row.name}{suffix}": row
    for row in METRICS
    for suffix in (("_bucket", "_sum", "_count") if row.kind == HISTOGRAM else ("",))
}

# What is watched: none of it may fall out of the rules.
WATCHED = {
    "up": "PushdDown",
    "pushd_ready": "PushdNotReady",
    "pushd_store_wal_bytes": "PushdWalLarge",
    "pushd_queue_oldest_seconds": "PushdUnacked",
    "pushd_sync_seconds_bucket": "PushdSyncSlow",
    "pushd_loop_lag_seconds_bucket": "PushdLoopLag",
    "pushd_disk_free_bytes": "PushdDiskLow",
    '{status="5000"}': "PushdInternalErrors",
    '{status="4007"}': "PushdDiskFullRefusals",
}


def members(value: Any, name: str) -> Iterator[Any]:
    """All values that an object and what is in it have under a name."""
    if isinstance(value, dict):
        yield from (each for key, each in value.items() if key == name)
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, dict | list):
            yield from members(each, name)


def queries_of_the_dashboard() -> list[str]:
    return list(members(json.loads(DASHBOARD.read_text("utf-8")), "expr"))


def alerts() -> dict[str, str]:
    """The rules by their names: each is one block, and its query one line."""
    blocks = ALERTS.read_text("utf-8").split("      - alert: ")[1:]
    found = {}
    for block in blocks:
        [query] = re.findall(r"^        expr: (.+)$", block, re.M)
        found[block.split("\n")[0]] = query
    return found


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_each_metric_that_is_named_exists(path: Path) -> None:
    """No name is misspelt, wherever it stands."""
    named = set(re.findall(r"\bpushd_[a-z_]+", path.read_text("utf-8")))
    assert named - set(SERIES) == set()
    assert len(named) > 5


def test_queries_fit_the_kind() -> None:
    """A counter is asked for its rate, a gauge for its value; a quantile is one of a histogram."""
    for query in [*queries_of_the_dashboard(), *alerts().values()]:
        assert query.count("(") == query.count(")"), query
        assert query.count("{") == query.count("}"), query
        for call, name in re.findall(r"(\w*)\(?(\bpushd_[a-z_]+)", query):
            row = SERIES[name]
            rising = row.kind in (COUNTER, HISTOGRAM)
            assert (call in ("rate", "increase", "resets")) == rising, query
            assert "histogram_quantile" in query or not name.endswith("_bucket"), query


def test_labels_have_values_that_there_are() -> None:
    """A label in a query is that of the metric; a status or an outcome is one that there is."""
    values = {
        "status": {str(int(status)) for status in metrics.REFUSALS},
        "outcome": {*metrics.LOGINS.values(), "refused"},
        "devices": {"all", "online"},
        "listener": set(metrics.LISTENERS),
    }
    for query in [*queries_of_the_dashboard(), *alerts().values()]:
        for name, labels in re.findall(r"(pushd_[a-z_]+)\{([^}]*)\}", query):
            for label, found in re.findall(r'(\w+)=~?"([^"]*)"', labels):
                if label == "instance":
                    continue
                assert label == SERIES[name].label, query
                assert set(found.split("|")) <= values[label], query


def test_what_matters_is_watched() -> None:
    """There is a rule for each thing that an operator must know of."""
    found = alerts()
    for what, name in WATCHED.items():
        assert what in found[name], name
    for block in ALERTS.read_text("utf-8").split("      - alert: ")[1:]:
        for key in ("severity", "summary", "description"):
            assert f" {key}: " in block, block
    assert "\t" not in ALERTS.read_text("utf-8")


def test_the_dashboard_has_each_metric() -> None:
    """Whatever the server tells can be seen."""
    shown = set(re.findall(r"pushd_[a-z_]+", "".join(queries_of_the_dashboard())))
    seen = {SERIES[name].name for name in shown}
    assert set(ROWS) - seen == set()


def test_panels() -> None:
    """Panels have numbers of their own and do not lie over each other."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


# With Prometheus' own tool


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool (Debian: prometheus)")
@pytest.mark.parametrize(
    "words",
    [("check", "rules", str(ALERTS)), ("test", "rules", "tests/alerts_test.yml")],
    ids=["check", "test"],
)
def test_the_rules_are_good(words: tuple[str, ...]) -> None:
    """Prometheus takes the rules, and each alert comes when it should and only then."""
    done = subprocess.run(
        ["promtool", *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_is_tested() -> None:
    """No alert is without a series that fires it and one that does not."""
    text = (ROOT / "tests" / "alerts_test.yml").read_text("utf-8")
    for name in alerts():
        assert len(re.findall(rf"\b{name}\b", text)) >= 2, name
