"""What is asked of a socket: where it listens, who the peer is, how long it may take nothing."""

import asyncio
import errno
import ipaddress
import socket
from typing import Any

import structlog

log = structlog.get_logger("pushd.sockets")


# What a machine says that has no address of that family.
NO_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def bound(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[socket.socket]:
    """Bind all addresses of a host, "" for all of the machine; they do not listen yet.

    IPv6 sockets take IPv6 alone, so that 0.0.0.0 and :: stand beside each other. Of several
    addresses those of IPv6 may be missing on this machine. Raises OSError.
    """
    flags = socket.AI_PASSIVE
    infos = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
    found: list[socket.socket] = []
    missing: OSError | None = None
    for family, address in dict.fromkeys((info[0], info[4]) for info in infos):
        try:
            found.append(_bind(family, address))
        except OSError as problem:
            if family is socket.AF_INET6 and problem.errno in NO_FAMILY:
                missing = problem
                continue
            for sock in found:
                sock.close()
            raise
    if not found:
        raise missing or OSError(errno.EADDRNOTAVAIL, "no address")
    if missing is not None:
        log.warning("no IPv6 on this machine, only IPv4 is listened on", host=host, port=port)
    return found


def _bind(family: socket.AddressFamily, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)  # type: ignore[arg-type] # as getaddrinfo gave it
    except BaseException:
        sock.close()
        raise
    return sock


def peer_address(transport: asyncio.BaseTransport) -> str:
    """Give the peer's address, an IPv4 one in its own form also when it came over IPv6."""
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        return "local"
    return plain_host(peer[0])


def plain_host(host: str) -> str:
    """Give an address without its interface, and an IPv4 one in its own form."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def text_of(address: Any) -> str:
    """Write a socket's own address as people write it."""
    if not isinstance(address, tuple):
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune(transport: asyncio.BaseTransport, seconds: int) -> None:
    """Set what each connection has: no delay, keepalive, and an end for a peer that is gone.

    It is gone when it has not acknowledged a byte for so many seconds.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds)
    except OSError as problem:
        # The peer has gone already; connection_lost follows.
        log.debug("cannot set socket options", problem=str(problem))
