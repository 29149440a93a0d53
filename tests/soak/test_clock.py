"""The rules of `tests.soak.clock` in short, nearly all with an injected clock, which is quicker."""

from pathlib import Path

import pytest

from tests.soak.clock import check_library, control, deadlines, order, rules
from tests.soak.turned import LIBRARY, NEEDED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LEFT_OUT = {"jumps under load", "deadlines, jumps", "deadlines, ten times", "started wrong or fast"}
LEFT_OUT |= {"the same, injected", "history", "Asia/Kolkata", "Asia/Kathmandu"}
NEEDS_LIBRARY = pytest.mark.skipif(not LIBRARY, reason=NEEDED)


@NEEDS_LIBRARY
def test_only_the_wall_clock_is_moved() -> None:
    """The monotonic clock and the one of uvloop stay as they are; else nothing here counts."""
    assert check_library() == ""


async def test_order_over_jumps(tmp_path: Path) -> None:
    """I1 to I8 hold while the clock jumps both ways and the server is killed."""
    await order(tmp_path, 4, seed=1, library="")


async def test_deadlines(tmp_path: Path) -> None:
    """Idle times and budgets follow the monotonic clock."""
    await deadlines(tmp_path, 10, 3)


@NEEDS_LIBRARY
async def test_a_server_on_the_wall_clock_is_found(tmp_path: Path) -> None:
    """Control: when the monotonic clock jumps as well, deadlines do not hold."""
    assert (await control(tmp_path, 4)).startswith("caught")


@pytest.mark.parametrize("name", sorted(set(rules(1, 1)) - LEFT_OUT))
async def test_rule(tmp_path: Path, name: str) -> None:
    """What is kept for days is kept, and what is deleted is reported; numbers rise."""
    await rules(1, 1, library="")[name](tmp_path)
