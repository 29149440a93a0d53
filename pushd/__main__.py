"""`python -m pushd`, and what the command `pushd` begins with."""

import signal

# An INT while modules are loaded ends the process like a TERM does, and not by a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from .cli import pushd  # noqa: E402 # behind the signal

if __name__ == "__main__":
    pushd(prog_name="pushd")
