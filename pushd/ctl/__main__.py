"""`python -m pushd.ctl` is `pushctl`."""

from . import pushctl

if __name__ == "__main__":
    pushctl(prog_name="pushctl")
