"""Stops, an upgrade and a frozen server, in short."""

from pathlib import Path

import pytest

from tests.soak.stops import Frozen, Terminated, Upgraded, run, version_before

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


async def test_sigterm_under_load(tmp_path: Path) -> None:
    """It ends in time and with 0, and nothing that was confirmed is lost."""
    stopped = Terminated(tmp_path, 3, 10, 300.0, seed=1)
    assert await run(stopped) == []
    assert stopped.done >= 3
    assert stopped.totals.report.confirmed > 50


async def test_a_store_of_the_version_before(tmp_path: Path) -> None:
    """It is taken over while its clients come back; nothing is lost."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    before = version_before(old)
    if before is None:
        pytest.skip("needs the history of the project (git)")
    upgraded = Upgraded(new, before, seed=1, phones=10)
    assert await run(upgraded) == []
    assert 0 < upgraded.before < upgraded.after


async def test_a_frozen_server(tmp_path: Path) -> None:
    """Its supervisor hears nothing of it; when it goes on, nothing is lost."""
    frozen = Frozen(tmp_path, 1.5, seed=1, phones=10)
    assert await run(frozen) == []
    assert frozen.silent > 1.5
