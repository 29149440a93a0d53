"""What is asked of a socket: where it listens, who the peer is, how long it may take nothing."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import structlog

log = structlog.get_logger("pushd.sockets")

# The kernel's struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("iii")
# The byte of the kernel's struct tcp_info that tells how often it has sent in vain.
_BACKOFF = 4

# Bytes of the path in the address of a Unix socket.
UNIX_NAME_MAX = 107
# What a machine says that has no address of that family.
NO_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def bound(host: str, port: int) -> list[socket.socket]:
    """Bind all addresses of a host, "" for all of the machine; they do not listen yet.

    IPv6 sockets take IPv6 alone, so that 0.0.0.0 and :: stand beside each other. Of several
    addresses those of IPv6 may be missing on this machine. Raises OSError.
    """
    # Not the loop's own: uvloop's forgets the interface of fe80::1%eth0.
    look_up = partial(
        socket.getaddrinfo, host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    infos = await asyncio.to_thread(look_up)
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
    """Give the peer's address, an IPv4 one in its own form also when it came over IPv6.

    Of a Unix socket it is the user and the process at the other end, as far as they are known.
    """
    peer = transport.get_extra_info("peername")
    if not isinstance(peer, tuple):
        pid, uid = peer_process(transport)
        return "local" if pid < 0 else f"uid {uid} pid {pid}"
    return plain_host(peer[0])


@lru_cache(maxsize=4096)
def plain_host(host: str) -> str:
    """Give an address without its interface, and an IPv4 one in its own form."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@contextlib.contextmanager
def short_name(path: str) -> Iterator[str]:
    """Give a name of a path that fits into the address of a Unix socket, while the body runs.

    A path that is too long is reached by a descriptor of its folder. Raises OSError.
    """
    if len(os.fsencode(path)) <= UNIX_NAME_MAX:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listener_kind(transport: asyncio.BaseTransport) -> str:
    """Tell what kind of listener a client's connection came by: tcp or tls."""
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


def text_of(address: Any) -> str:
    """Write a socket's own address as people write it."""
    if not isinstance(address, tuple):
        return str(address)
    host, port, *more = address
    if more and more[1]:
        with contextlib.suppress(OSError):
            host = f"{host}%{socket.if_indextoname(more[1])}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unheard(transport: asyncio.BaseTransport) -> bool:
    """Tell whether the kernel sends in vain: the peer's machine is gone, or takes nothing."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BACKOFF + 1)
    except OSError:
        return False
    return bool(info[_BACKOFF])


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
