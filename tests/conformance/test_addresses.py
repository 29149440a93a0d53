"""Listening on both families and on an interface of its own, as operators write it."""

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .operated import eventually
from .process import Process, StartServer


class Listening(Process):
    """A server that listens where its settings say."""

    def _command(self, ports: Path) -> list[str]:
        command = super()._command(ports)
        at = command.index("--listen")
        return command[:at] + command[at + 2 :]


def link_local() -> str:
    """An address of this machine that needs its interface, such as fe80::1%eth0."""
    try:
        lines = Path("/proc/net/if_inet6").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        digits, *_, scope, _flags, name = line.split()
        if scope == "20":
            groups = [digits[at : at + 4] for at in range(0, 32, 4)]
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(''.join(groups)))}%{name}"
    return ""


def free_port() -> int:
    """A port that is free in both families."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::", 0))
        return int(sock.getsockname()[1])


async def address_seen(own: Process, host: str, port: int) -> str:
    """Connect there, and give the address that the server has of that client."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b'{"cmd":"whoami"}\n')
    answer = json.loads(await asyncio.wait_for(reader.readline(), 10))
    writer.close()
    await writer.wait_closed()
    number = answer["result"]["connection"]
    closed = re.compile(rf'"connection closed".* connection={number} address=(\S+)')
    await eventually(lambda: closed.search(own.log_text()) is not None)
    found = closed.search(own.log_text())
    assert found is not None
    return found[1]


@pytest.mark.slow
@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("listen", ["0.0.0.0:{0},[::]:{0}", "[::]:{0},0.0.0.0:{0}", ":{0}"])
async def test_both_families(server: StartServer, listen: str) -> None:
    """Both are reached by their own addresses, and an IPv4 client is one in limits and logs."""
    port = free_port()
    own = server(kind=Listening, server_listen=listen.format(port))
    assert await address_seen(own, "127.0.0.1", port) == "127.0.0.1"
    assert await address_seen(own, "::1", port) == "::1"
    assert "::ffff:" not in own.log_text()


@pytest.mark.slow
@pytest.mark.skipif(not link_local(), reason="no link-local address here")
async def test_link_local(server: StartServer) -> None:
    """An address with its interface is listened on, and reached there alone."""
    host = link_local()
    own = server(kind=Listening, server_listen=f"[{host}]:0")
    port = own.address[1]
    seen = await address_seen(own, host, port)
    assert seen == host.partition("%")[0]
    with pytest.raises(OSError):
        await address_seen(own, "::1", port)


@pytest.mark.slow
def test_nothing_is_half_started(tmp_path: Path) -> None:
    """Of two addresses the second is in use: the first is not served, and one line names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        first = free_port()
        began = time.monotonic()
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pushd", "--data", str(tmp_path / "data")),
                *("--listen", f"127.0.0.1:{first}", "--listen", f"127.0.0.1:{busy}"),
            ],
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1
    assert time.monotonic() - began < 20
    last = done.stderr.splitlines()[-1]
    assert f"127.0.0.1:{busy}: cannot listen: Address already in use" in last
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", first), 1).close()
