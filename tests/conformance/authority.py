"""Certificates for tests, and raw TLS clients that try what no good client would."""

import os
import signal
import socket
import ssl
import time
from pathlib import Path

import trustme

from .process import Process, StartServer
from .wire import PATIENCE, Address

NAME = "localhost"


class Authority:
    """An authority of one's own, and the files of the server's certificate."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.cafile = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.key = folder / "server.key"
        self.ca.cert_pem.write_to_path(str(self.cafile))
        self.issue()

    def issue(self) -> None:
        """Put a new certificate and key in place."""
        made = self.ca.issue_cert(NAME, "127.0.0.1")
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        self.certificate.write_bytes(chain)
        self.key.touch(0o600)
        self.key.write_bytes(made.private_key_pem.bytes())

    def context(self) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority."""
        return ssl.create_default_context(cafile=str(self.cafile))

    def start(self, server: StartServer, **settings: object) -> Process:
        """Start a server with a listener for TLS beside the plain one."""
        return server(
            tls_listen="0.0.0.0:0",
            tls_certificate=self.certificate,
            tls_key=self.key,
            **settings,
        )

    def connect(self, own: Process, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Connect to a server's listener for TLS, blocking."""
        plain = socket.create_connection(own.addresses[-1], PATIENCE)
        try:
            return (context or self.context()).wrap_socket(plain, server_hostname=NAME)
        except BaseException:
            plain.close()
            raise

    def served(self, own: Process) -> bytes:
        """Return the certificate that a server shows now."""
        with self.connect(own) as wire:
            shown = wire.getpeercert(binary_form=True)
            assert shown
            return shown


def ask(wire: socket.socket, line: bytes = b'{"cmd":"ping"}\n') -> bytes:
    """Send a line and return the line that answers it, blocking."""
    wire.sendall(line)
    reply = b""
    while not reply.endswith(b"\n"):
        data = wire.recv(65536)
        assert data, f"closed after {reply!r}"
        reply += data
    return reply


def dial(address: Address, first: bytes = b"") -> socket.socket:
    """Connect without a handshake, send these bytes, and do not block from then on."""
    sock = socket.create_connection(address, PATIENCE)
    sock.sendall(first)
    sock.setblocking(False)
    return sock


def has_ended(sock: socket.socket) -> bool:
    """Tell whether the peer has closed, or reset, by now."""
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def descriptors(own: Process) -> int:
    """Count the open descriptors of a server."""
    assert own.process is not None
    return len(os.listdir(f"/proc/{own.process.pid}/fd"))


def cpu_seconds(own: Process) -> float:
    """Return the processor time that a server has used."""
    assert own.process is not None
    fields = Path(f"/proc/{own.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def logged(own: Process, words: str, count: int = 1) -> str:
    """Wait until the log has that many lines with these words, and return the last one."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = [line for line in own.log_text().splitlines() if words in line]
        if len(found) >= count:
            return found[-1]
        time.sleep(0.02)
    raise AssertionError(f"{words!r} is not in the log:\n{own.log_text()[-3000:]}")


def reload(own: Process, words: str) -> str:
    """Ask for a reload, and return the line of the log that tells how it went."""
    before = sum(words in line for line in own.log_text().splitlines())
    own.signal(signal.SIGHUP)
    return logged(own, words, before + 1)
