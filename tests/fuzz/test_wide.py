"""A short run of the wider state machine."""

import pytest
from hypothesis import HealthCheck, settings

from tests.fuzz.wide import Wide

TestWide = Wide.TestCase
TestWide.settings = settings(
    max_examples=1,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestWide = pytest.mark.slow(pytest.mark.timeout(240)(TestWide))
