"""The page on reliability says what the records say."""

import json

from tests import report


def test_the_page_is_what_the_records_give() -> None:
    """After a change of the records `make report` was run, and nothing in its tables is by hand."""
    recorded = json.loads(report.RECORDED.read_text())
    text = report.PAGE.read_text()
    assert report.page(text, recorded) == text


def test_a_violation_is_shown() -> None:
    """A record with a violation is counted, named, and takes the place of an older one."""
    old = {"tool": "crash", "date": "2026-01-01 00:00", "commit": "a", "machine": "m"}
    old |= {"figures": {"rounds": 1000}, "violations": [], "controls": {"no sync": "caught"}}
    text = report.tables({"crash": old | {"violations": ["I1: lost"]}})
    assert "rounds: 1,000" in text and "no sync: caught" in text
    assert "| 1 |" in text and "- `make crash`: I1: lost" in text
    assert "No violation is open." in report.tables({"crash": old})


def test_each_target_is_one_of_the_makefile() -> None:
    """What the page tells to run can be run."""
    makefile = (report.ROOT / "Makefile").read_text()
    recorded = json.loads(report.RECORDED.read_text())
    assert [tool for tool in recorded if f"\n{tool}:" not in makefile] == []
