"""`python -m pushd` is `pushd`."""

from .cli import pushd

if __name__ == "__main__":
    pushd(prog_name="pushd")
