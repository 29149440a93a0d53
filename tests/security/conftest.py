"""The fixtures of the conformance tests: the same servers, the same wire, a hostile mind."""

import pytest

from tests.conformance.conftest import (
    ADDRESS,
    ROOMY,
    common_servers,
    dial,
    nursery,
    operated,
    server,
)
from tests.conformance.process import Process
from tests.conformance.wire import HasAddress

__all__ = ["common_servers", "dial", "nursery", "operated", "server"]


@pytest.fixture
def common_server(
    common_servers: dict[str, HasAddress], tmp_path_factory: pytest.TempPathFactory
) -> HasAddress:
    """The server that tests share; what is tried here knows nothing of loops."""
    name = "remote" if ADDRESS else "security"
    if name not in common_servers:
        own = common_servers[name] = Process(tmp_path_factory.mktemp(name), **ROOMY)
        own.start()
    return common_servers[name]
