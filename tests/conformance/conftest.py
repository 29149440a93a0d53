"""Who is at the other end of the wire.

- `PUSHD_TEST_ADDRESS=host:port` runs the suite against a server that somebody else started, with
  `limits.per_address = false` and otherwise the default settings. Tests that need a server of
  their own are skipped then.
- Otherwise each worker starts one `pushd` per event loop and uses it for all tests.

Fixtures: `dial` opens connections to that common server (see `wire.Dialer`); `own` is a server that
the tests of one module share, control socket and all, with the settings in the module's `OWN`;
`server` starts one for a single test, which takes a second, with settings of its own:

    async def test_it(server):
        own = server(limits_heartbeat_min=1)       # PUSHD_LIMITS_HEARTBEAT_MIN=1; it listens
        a, b = await own.dial.pair(heartbeat=1)
        own.kill(); own.start()                    # the same data, a new port: dial again
        own.signal(); code = await own.ended()     # SIGTERM

Tests share the first two: they use accounts of their own (`dial.user`, `dial.pair`) and
assume nothing about ids. No log of ours may hold a traceback at the end.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from .nursery import Nursery
from .operated import Operated
from .process import Process, Remote, StartServer, running
from .wire import Dialer, HasAddress

ADDRESS = os.environ.get("PUSHD_TEST_ADDRESS", "")
LOOPS = ("remote",) if ADDRESS else ("uvloop", "asyncio")
# A race asks and makes groups some hundred times; the budgets have tests with their own servers.
ROOMY = {"limits_friend_requests": 1_000_000, "limits_groups": 1_000_000}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a server of its own: that takes longer than a quarter of a second."""
    for item in items:
        if {"server", "operated"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def common_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, HasAddress]]:
    """The servers that tests share, by loop; each is started when it is first wanted."""
    found: dict[str, HasAddress] = {}
    if ADDRESS:
        found["remote"] = Remote(ADDRESS)
    yield found
    processes = [each for each in found.values() if isinstance(each, Process)]
    codes = [each.stop() for each in processes]
    for each in processes:
        each.assert_no_traceback()
    assert codes == [0] * len(codes)


@pytest.fixture(params=LOOPS)
def common_server(
    request: pytest.FixtureRequest,
    common_servers: dict[str, HasAddress],
    tmp_path_factory: pytest.TempPathFactory,
) -> HasAddress:
    """The server that tests share, once on each loop."""
    loop: str = request.param
    if loop not in common_servers:
        common_servers[loop] = Process(tmp_path_factory.mktemp(loop), loop, **ROOMY)
    found = common_servers[loop]
    # One that died has failed a test already, and its log will tell: do not fail them all.
    if isinstance(found, Process) and not found.running:
        found.start()
    return found


@pytest.fixture
def dial(common_server: HasAddress) -> Iterator[Dialer]:
    """Open connections to the common server; they are closed after the test."""
    dialer = Dialer(common_server)
    yield dialer
    dialer.close()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """What forks the servers of single tests."""
    with Nursery() as found:
        yield found


@pytest.fixture
def server(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers with settings of their own; they are killed after the test."""
    if ADDRESS:
        pytest.skip("needs a server of its own")
    started: list[Process] = []

    def start(loop: str = "uvloop", kind: type[Process] = Process, **settings: object) -> Process:
        # A short path: a Unix socket's name inside it holds 107 bytes.
        own = kind(tmp_path_factory.mktemp("own"), loop, **settings)
        own.nursery = nursery
        started.append(own)
        own.start()
        return own

    yield start
    for own in started:
        own.dial.close()
        own.kill()
    for own in started:
        own.assert_no_traceback()


@pytest.fixture(scope="module")
def own_of_module(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """A server that the tests of one module share, with the settings in its `OWN`, if any."""
    if ADDRESS:
        pytest.skip("needs a server of its own")
    settings: dict[str, object] = getattr(request.module, "OWN", {})
    with running(tmp_path_factory.mktemp("own"), **settings) as process:
        yield process
    assert not (process.data / "control.sock").exists(), "the socket is removed at the end"


@pytest.fixture
def own(own_of_module: Process) -> Iterator[Process]:
    """The module's server; what the test opened is closed after it, for operators are few."""
    yield own_of_module
    own_of_module.dial.close()


@pytest.fixture
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Operated]]:
    """Start servers with a settings file of their own; they are killed after the test.

    With `start=False` one is only made. Their logs are for the test to look at.
    """
    if ADDRESS:
        pytest.skip("needs a server of its own")
    made: list[Operated] = []

    def make(text: str = "", *flags: str, start: bool = True, **settings: object) -> Operated:
        own = Operated(tmp_path_factory.mktemp("own"), text, *flags, **settings)  # type: ignore[arg-type]
        made.append(own)
        if start:
            own.start()
        return own

    yield make
    for own in made:
        own.dial.close()
        own.kill()
