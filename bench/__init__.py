"""How fast pushd is on this machine: `python -m bench`, or `make bench`.

The server runs as users run it, as a process of its own on a real disk, alone on one core; the
load runs on another. A run is one workload against a fresh process; what is reported is the
median of the runs, with the smallest and the largest beside it, and what has changed since the
figures in `recorded.json` by more than the runs differ among themselves.

The load must not be what is measured. So it sends bytes prepared beforehand, and it counts marks
in what comes back in place of parsing it. Its own share of a core and its own delays are
reported, for they say how far to trust the rest.

Every wait has an end, and nothing but the loopback is used.
"""
