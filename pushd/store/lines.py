"""What waits for the writer, in two lines that take turns.

A post into a large group writes thousands of queue rows, and a batch holds hardly more than one
such post. So these stand in a line of their own: whatever else is sent waits for one of them at
most, however many there are. Which chats are wide is learnt from what their posts have written.

An account has posts in one line only, so they never overtake each other: its messages keep their
order in every chat. What others do may be committed before a post that came earlier; nobody can
tell, for that was not confirmed.

This module knows no loop and no database.
"""

from collections import Counter
from collections.abc import Sequence

from .journal import Operation

# Deliveries of one list from which on the chats that it names are wide.
WIDE = 1000
# How many wide chats are remembered, and about how many messages to them a batch takes.
WIDE_CHATS = 4096
WIDE_BATCH = 8


class Lines:
    """Operations that wait, in the order in which they are to be committed."""

    def __init__(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows  # messages and verbs of one batch
        self._common: list[Operation] = []
        self._wide: list[Operation] = []  # posts into wide chats, and what follows them
        self._wide_turn = False  # the next batch is of the wide line
        self._chats: dict[str, None] = {}  # wide ones, the oldest first
        self._held: Counter[int] = Counter()  # unfinished wide posts, by sender

    def __bool__(self) -> bool:
        return bool(self._common or self._wide)

    def add(self, operation: Operation) -> None:
        """Put an operation at the end of its line."""
        if operation.sender not in self._held:
            if not operation.chats or not self._names_wide(operation):
                self._common.append(operation)
                return
            # Those before it in the common line must stay before it.
            self._move({operation.sender})
        self._widen([operation])
        self._wide.append(operation)

    def take(self) -> list[Operation]:
        """Give the next batch; the lines take turns."""
        wide = bool(self._wide) and (self._wide_turn or not self._common)
        self._wide_turn = not wide
        line, most = (self._wide, WIDE_BATCH) if wide else (self._common, self._batch_rows)
        total = 0
        for index, operation in enumerate(line):
            total += operation.weight
            if total >= most:
                batch = line[: index + 1]
                del line[: index + 1]
                return batch
        batch = line[:]
        line.clear()
        return batch

    def put_back(self, rest: Sequence[Operation]) -> None:
        """Put the end of a batch back to the front; the first may be committed in part."""
        if rest[0].wide:
            self._wide[:0] = rest
        else:
            self._common[:0] = rest
            # Their senders may have handed in wide posts meanwhile.
            self._move({operation.sender for operation in rest if operation.sender in self._held})
        self._learn(rest[0])

    def finished(self, operation: Operation) -> None:
        """Note that an operation is committed or refused; its deliveries are still there."""
        self._learn(operation)
        if operation.wide:
            self._held[operation.sender] -= 1
            if not self._held[operation.sender]:
                del self._held[operation.sender]

    def drain(self) -> list[Operation]:
        """Give all that waits, and hold nothing any more."""
        left = [*self._common, *self._wide]
        self._common, self._wide = [], []
        self._held.clear()
        return left

    def _names_wide(self, operation: Operation) -> bool:
        return not self._chats.keys().isdisjoint(operation.chats)

    def _widen(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            operation.wide = True
            self._held[operation.sender] += 1

    def _move(self, senders: set[int]) -> None:
        """Move all posts of senders from the common line to the front of the wide one."""
        if not senders:
            return
        moved = [operation for operation in self._common if operation.sender in senders]
        if moved:
            self._common = [each for each in self._common if each.sender not in senders]
            self._widen(moved)
            self._wide[:0] = moved

    def _learn(self, operation: Operation) -> None:
        """Remember whether the chats that an operation names are wide."""
        if not operation.chats or not operation.deliveries:
            return
        if len(operation.deliveries) < WIDE * operation.lately:
            for chat in operation.chats if operation.wide else ():
                self._chats.pop(chat, None)
            return
        fresh = [chat for chat in operation.chats if chat and chat not in self._chats]
        if fresh:
            self._chats |= dict.fromkeys(fresh)
            while len(self._chats) > WIDE_CHATS:
                del self._chats[next(iter(self._chats))]
            self._move({each.sender for each in self._common if self._names_wide(each)})
