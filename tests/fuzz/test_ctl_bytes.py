"""Whatever answers at a control socket, `pushctl` ends with a declared code and no traceback."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pushd.ctl import pushctl
from tests.fuzz import values
from tests.fuzz.examples import examples, tried

Frame = dict[str, Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# Verbs that ask over the socket and need no terminal.
VERBS = sorted(
    name
    for name, verb in pushctl.commands.items()
    if {each.name for each in verb.params} >= {"socket_path", "as_json"}
)
ARGUMENTS = {"level": "info", "phone": "13800000009", "password": "Zebra-7731", "number": "1"}
CODES = {0, 1, 2, 3}

ECHO = "<the command>"
RESULT = values.anything | st.lists(
    st.dictionaries(
        st.sampled_from(["userId", "username", "date", "connection", "places", "number", "count"]),
        values.anything,
    ),
    max_size=2,
)
ANSWER = st.fixed_dictionaries(
    {"status": st.sampled_from([1, 1, 1, 0]) | values.scalars, "cmd": st.just(ECHO)},
    optional={"result": RESULT, "message": st.just("ok") | values.anything, "next": st.just("x")},
)
GOOD = st.builds(
    lambda result: {"status": 1, "cmd": ECHO, "message": "ok", "result": result}, RESULT
)
SAID = st.lists(GOOD | GOOD | ANSWER | st.binary(max_size=30), max_size=4)


class Answering:
    """A control socket that says what it is told to, one thing for each line."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.said: list[Frame | bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        with peer.makefile("rb") as lines:
            for line in lines:
                if not self.said:
                    return
                said = self.said.pop(0)
                if isinstance(said, bytes):
                    peer.sendall(said + b"\n")
                else:
                    cmd = json.loads(line)["cmd"]
                    peer.sendall(json.dumps({**said, "cmd": cmd}).encode() + b"\n")


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answering]:
    """A control socket."""
    found = Answering(tmp_path_factory.mktemp("c") / "s")
    yield found
    found.close()


def words_of(verb: str) -> list[str]:
    """Give the words that a verb cannot do without."""
    command = pushctl.commands[verb]
    needed = [each for each in command.params if isinstance(each, click.Argument)]
    words = [ARGUMENTS.get(each.name or "", "10001") for each in needed]
    made = ["--generate"] if "generate" in {each.name for each in command.params} else []
    once = ["--interval", "0.1", "--count", "1"] if verb == "top" else []
    return [*words, *made, *once]


@examples(60)
@given(verb=st.sampled_from(VERBS), said=SAID, as_json=st.booleans())
def test_property_any_answer(
    answering: Answering, verb: str, said: list[Frame | bytes], as_json: bool
) -> None:
    """A line on standard error and an exit code for what makes no sense; never a traceback."""
    tried("any answer at the control socket")
    answering.said[:] = said
    words = [verb, *words_of(verb), "--socket", answering.path, "--timeout", "5"]
    done = CliRunner().invoke(pushctl, [*words, "--json"] if as_json else words)
    assert done.exception is None or isinstance(done.exception, SystemExit), (
        words,
        repr(done.exception),
    )
    assert done.exit_code in CODES
    assert done.exit_code == 0 or done.stderr.strip()
