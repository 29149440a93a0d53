"""What is asked of a socket: who the peer is, and how long it may take nothing."""

import asyncio
import ipaddress
import socket
import struct

import structlog

log = structlog.get_logger("pushd.sockets")

# The tcp option that ends a connection whose peer takes nothing for so long.
USER_TIMEOUT_MS = 60_000
# The kernel's struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("iii")


def peer_address(transport: asyncio.BaseTransport) -> str:
    """Give the peer's address, an IPv4 one in its own form also when it came over IPv6.

    Of a Unix socket it is the user and the process at the other end.
    """
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        pid, uid = peer_process(transport)
        return f"uid {uid} pid {pid}"
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except ValueError:
        return str(peer[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def listener_kind(transport: asyncio.BaseTransport) -> str:
    """Tell what kind of listener a connection came by: tcp, tls or control."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        return "control"
    return "tls" if transport.get_extra_info("ssl_object") is not None else "tcp"


def peer_process(transport: asyncio.BaseTransport) -> tuple[int, int]:
    """Give the process and the user at the other end of a Unix socket; -1 for neither known."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX:
        return -1, -1
    # As of the connect: what the peer has become since does not count.
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


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
