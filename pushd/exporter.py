"""The HTTP side of monitoring: /metrics, /healthz and /readyz, beside the loop.

Requests are answered in threads, so that a scraper cannot hold up the loop and a loop that stands
still can be told from outside. Threads, connections and time are bounded: at most `MOST` requests
at a time, more are refused at once, and whatever takes longer than `DEADLINE` is cut, however
slowly it sends or reads.

    /metrics   what prometheus-client makes of the rows in `metrics`
    /healthz   200 while the loop turns, else 503: restart it
    /readyz    200 while clients are welcome and the store takes a write, else 503 with the reason
"""

import asyncio
import concurrent.futures
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog

from .config import parse_address
from .health import PATIENCE, Health
from .metrics import Sources, registry

log = structlog.get_logger("pushd.exporter")

# Requests that are answered at a time.
MOST = 8
# Seconds for one request in all, and for each read and write of it.
DEADLINE = 10.0
TIMEOUT = 5.0
# Seconds that the loop may not have turned.
STUCK = 5.0
# Seconds between two looks at what takes too long.
POLL = 0.25
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

Respond = Callable[..., Any]
App = Callable[[dict[str, Any], Respond], Iterable[bytes]]


def missing() -> str:
    """Say what has to be installed before metrics can be served; "" when it is there."""
    if find_spec("prometheus_client") is None:
        return "needs prometheus-client: pip install 'pushd[metrics]'"
    return ""


class Exporter:
    """Serve the metrics of one server on an address, or on a listening socket that was passed.

    Raises: OSError when the address cannot be had.
    """

    def __init__(
        self,
        address: str,
        sources: Sources,
        loop: asyncio.AbstractEventLoop,
        passed: socket.socket | None = None,
    ) -> None:
        host, port = ("", 0) if passed is not None else parse_address(address)
        self._server = _Server(host or "127.0.0.1", port, passed)
        self._server.set_app(_app(sources, loop))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL,), name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, with the real port."""
        host, port = self._server.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Stop listening and cut what is still being answered."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.cut(0.0)
        self._server.server_close()


class _Handler(WSGIRequestHandler):
    """One request; what a client does wrong is nothing to log."""

    timeout = TIMEOUT

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request, a few at a time, each until its deadline."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, host: str, port: int, passed: socket.socket | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._passed = passed
        self._open: dict[socket.socket, float] = {}  # since when each request is open
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking the resolver for our own name, which may take long."""
        if self._passed is not None:
            self.socket.close()
            self.socket = self._passed
            self.address_family = self.socket.family
        else:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, or refuse when there are too many."""
        if len(self._open) >= MOST:
            request.setblocking(False)
            with suppress(OSError):
                request.send(_BUSY)
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut what takes too long; called again and again by the thread that accepts."""
        self.cut(DEADLINE)

    def cut(self, seconds: float) -> None:
        """Cut requests that have been open for so long."""
        now = time.monotonic()
        # Copied in one step, for the threads take theirs out when they end.
        for request, since in self._open.copy().items():
            if now - since >= seconds:
                with suppress(OSError):  # it has ended by itself
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note a request that failed, such as one that was cut."""
        log.debug("a request for metrics failed", problem=repr(sys.exception()))


def _app(sources: Sources, loop: asyncio.AbstractEventLoop) -> App:
    """Make the WSGI application of the three paths."""
    from prometheus_client import make_wsgi_app

    exposition: Any = make_wsgi_app(registry(sources))
    health = sources.health

    def app(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                # The figures of a moment ago are better than none when the loop is busy.
                _ask(loop, health.refresh)
                _ask(loop, health.ready)
                found: Iterable[bytes] = exposition(environ, respond)
                return found
            case "/healthz" | "/readyz" if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                return _text(respond, "405 Method Not Allowed", "only GET and HEAD")
            case "/healthz":
                return _told(respond, _stuck(health))
            case "/readyz":
                _ask(loop, health.ready)
                return _told(respond, _stuck(health) or health.problem)
            case _:
                return _text(respond, "404 Not Found", "there are /metrics, /healthz and /readyz")

    return app


def _ask(
    loop: asyncio.AbstractEventLoop, question: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Have something asked on the loop, and wait a little for that; the answer is in `health`."""
    asked = question()
    try:
        future = asyncio.run_coroutine_threadsafe(asked, loop)
    except RuntimeError:
        asked.close()  # the loop has ended
        return
    try:
        future.result(PATIENCE + 0.1)
    except (TimeoutError, concurrent.futures.CancelledError):
        future.cancel()
    except Exception:
        log.warning("a probe failed", exc_info=True)


def _stuck(health: Health) -> str:
    seconds = health.stuck
    return f"the loop has not turned for {seconds:.0f} s" if seconds >= STUCK else ""


def _told(respond: Respond, problem: str) -> Iterable[bytes]:
    if problem:
        return _text(respond, "503 Service Unavailable", problem)
    return _text(respond, "200 OK", "ok")


def _text(respond: Respond, status: str, text: str) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    respond(
        status,
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
    )
    return [body]
