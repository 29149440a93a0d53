"""Sockets: both families beside each other, and one name for a peer however it comes."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from pushd import sockets


class Transport(asyncio.BaseTransport):
    """A transport whose peer has this name."""

    def __init__(self, peer: object) -> None:
        super().__init__({"peername": peer})


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("1.2.3.4", 5), "1.2.3.4"),
        (("::ffff:1.2.3.4", 5, 0, 0), "1.2.3.4"),
        (("::ffff:102:304", 5, 0, 0), "1.2.3.4"),
        (("2001:DB8::1", 5, 0, 0), "2001:db8::1"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::1"),
        (("::1", 5, 0, 0), "::1"),
        ("/run/a.sock", "local"),
        (None, "local"),
    ],
)
def test_a_peer_has_one_address(peer: object, address: str) -> None:
    """Limits and logs see an IPv4 peer by its own address, whatever socket took it."""
    assert sockets.peer_address(Transport(peer)) == address


async def test_a_peer_on_a_socket_for_both_families() -> None:
    """A socket that somebody else opened takes IPv4 as ::ffff:…; the peer is 127.0.0.1."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            found.set_result(sockets.peer_address(transport))

    sock = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    server = await asyncio.get_running_loop().create_server(Protocol, sock=sock)
    with socket.create_connection(("127.0.0.1", sock.getsockname()[1])):
        assert await asyncio.wait_for(found, 10) == "127.0.0.1"
    server.close()


async def bound(host: str, port: int = 0) -> list[tuple[Any, ...]]:
    """The names of the sockets for a host, closed again."""
    found = await sockets.bound(host, port)
    names = [sock.getsockname() for sock in found]
    for sock in found:
        sock.close()
    return names


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
async def test_one_address_is_one_socket(host: str) -> None:
    """An address is bound as it is written."""
    [name] = await bound(host)
    assert name[0] == host


async def test_no_host_is_both_families() -> None:
    """`:port` listens on all addresses of both families."""
    assert {name[0] for name in await bound("")} == {"0.0.0.0", "::"}


async def test_both_families_have_one_port() -> None:
    """0.0.0.0 and :: stand beside each other, in either order."""
    for hosts in (("0.0.0.0", "::"), ("::", "0.0.0.0")):
        [first] = await sockets.bound(hosts[0], 0)
        [second] = await sockets.bound(hosts[1], first.getsockname()[1])
        first.close()
        second.close()


def without_ipv6(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Be a machine that has no IPv6 address."""
    real = sockets._bind

    def bind(family: socket.AddressFamily, address: object) -> socket.socket:
        if family is socket.AF_INET6:
            raise OSError(number, "no IPv6")
        return real(family, address)

    monkeypatch.setattr(sockets, "_bind", bind)


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
async def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """`:port` listens on what there is; an IPv6 address that was asked for is an error."""
    without_ipv6(monkeypatch, number)
    assert [name[0] for name in await bound("")] == ["0.0.0.0"]
    with pytest.raises(OSError, match="no IPv6"):
        await bound("::1")


async def test_a_port_in_use_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """One family that cannot listen is not passed over, and nothing stays open."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match="in use"),
    ):
        await bound("127.0.0.1", taken.getsockname()[1])
    without_ipv6(monkeypatch, errno.EADDRINUSE)
    with pytest.raises(OSError, match="no IPv6"):
        await bound("")
