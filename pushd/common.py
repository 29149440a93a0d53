"""The passwords that everybody tries first, and so nobody may take.

`common_passwords.txt` holds, a line each and in lower case, what has six characters or more of two
lists in the public domain (Openwall's list of common passwords, and the 3,000 most frequent ones of
Mark Burnett's ten million), and 150 that are frequent elsewhere. A guesser who is slowed down gets
no further than such a list.
"""

from functools import cache
from pathlib import Path


@cache
def common_passwords() -> frozenset[str]:
    """Give them, read when they are first asked for."""
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text("ascii").split())
