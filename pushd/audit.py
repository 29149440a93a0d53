"""What is written down of operators' actions and of logins, before the store has it; no I/O.

An action is an `Entry` of its own. Logins are tallied: `Attempts` counts equal ones (account,
address, outcome) until the server takes them, some seconds later, into the store with one commit.
So a flood of guesses costs no sync each, and one row a tally; beyond `MOST` different ones the
rest of them is counted together, without account and address.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

# Different attempts that are kept apart between two writes.
MOST = 256
# Characters of a detail and of an outcome.
TEXT_MAX = 200
# What stands in the place of the address of attempts that are counted together.
MANY = "many addresses"


class Kind(IntEnum):
    """The kinds of entries; each has room of its own, so that a flood pushes out no other."""

    ACTION = 0
    LOGIN = 1
    FAILED = 2


@dataclass(slots=True)
class Entry:
    """One line of the audit."""

    actor: str  # who did it: user and process at the control socket, or the address of a login
    action: str
    account: int = 0  # whom it is about, 0 nobody
    detail: str = ""
    outcome: str = "broken off"
    kind: Kind = Kind.ACTION
    count: int = 1  # how many equal ones it stands for

    def describe(self, request: object, fields: Iterable[str]) -> None:
        """Note these fields of a request, and whom it is about."""
        values = [(name, getattr(request, name)) for name in fields]
        shown = [f"{name}={value}" for name, value in values if value not in (None, "")]
        self.detail = " ".join(shown)[:TEXT_MAX]
        self.account = account_number(getattr(request, "user", None)) or self.account

    def about(self, result: object) -> None:
        """Note the user that a result names, if it names one."""
        self.account = account_number(getattr(result, "user_id", None)) or self.account

    def told(self) -> dict[str, str | int]:
        """Give what a log says of it."""
        return {
            "actor": self.actor,
            "action": self.action,
            "account": self.account,
            "detail": self.detail,
            "outcome": self.outcome,
        }


class Attempts:
    """Logins that are not written yet."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, int, str, Kind]] = Counter()

    def note(self, action: str, account: int, address: str, outcome: str) -> None:
        """Count a login; an `outcome` of "ok" is a good one."""
        self._count(action, account, address, outcome, 1)

    def _count(self, action: str, account: int, address: str, outcome: str, count: int) -> None:
        kind = Kind.LOGIN if outcome == "ok" else Kind.FAILED
        key = (address, action, account, outcome, kind)
        if len(self._counts) >= MOST and key not in self._counts:
            key = (MANY, action, 0, outcome, kind)
        self._counts[key] += count

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Count entries again that could not be written."""
        for entry in entries:
            self._count(entry.action, entry.account, entry.actor, entry.outcome, entry.count)

    def take(self) -> list[Entry]:
        """Give what was counted, and begin anew."""
        counts, self._counts = self._counts, Counter()
        return [
            Entry(address, action, account, outcome=outcome, kind=kind, count=count)
            for (address, action, account, outcome, kind), count in counts.items()
        ]


def account_number(text: object) -> int:
    """Read a user's id; 0 for what is none, as a phone, which has more digits."""
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 10:
        return 0
    return int(text)
