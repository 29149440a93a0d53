"""What is asked of a socket: who the peer is, and how long it may take nothing."""

import asyncio
import ipaddress
import socket
from typing import Any

import structlog

log = structlog.get_logger("pushd.sockets")

# The tcp option that ends a connection whose peer takes nothing for so long.
USER_TIMEOUT_MS = 60_000


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


def tune(transport: asyncio.BaseTransport) -> None:
    """Set what each connection has: no delay, keepalive, and an end for a silent peer."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    except OSError as problem:
        # The peer has gone already; connection_lost follows.
        log.debug("cannot set socket options", problem=str(problem))
