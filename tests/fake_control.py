"""A control socket without a server behind it: one connection, and the answers a test gives it.

with answering(path, b'{"cmd":"stats",...}\\n') as asked:
    ...                                          # whatever connects, asks, and reads the answer
assert asked == [b'{"cmd":"stats"}\\n']          # complete once the context has ended
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """Answer each line that comes at a socket, then close; gives the lines."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            for answer in answers:
                asked.append(lines.readline())
                connection.sendall(answer)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            thread.join()
