"""Who may send what and gets what, as of each commit; and what commands came to.

In a group the server's own messages tell all who comes, goes, leads and is muted, each at its place
in the order of msgIds, which is the order of commits: so who was in when a message was committed is
exact. Between two people only commands tell, and those take effect somewhere between being asked
and being answered: what lies within that time is not judged.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from tests.model.entries import Asked, Counted, Event, Told
from tests.model.memory import END, Fact, Message, chat_of

# What a command closes between two people, and what opens it again.
CLOSING = {"block": "unblock", "unfriend": "befriend"}


class Group:
    """Who is in a group, as its messages tell it one after the other."""

    def __init__(self) -> None:
        self.roles: dict[str, str] = {}
        self.joined: dict[str, int] = {}  # when they came last: history begins there
        self._muted: dict[str, int] = {}  # until then (ms); who comes back comes back muted
        self._all_muted = False

    def apply(self, number: int, event: Event, time: int) -> None:
        """Take in what an event tells."""
        if event.name == "joined":
            for user in event.users:
                self.joined[user] = number
                first = not self.roles and user == event.by
                self.roles[user] = "owner" if first else "member"
        elif event.name in ("left", "kicked"):
            for user in event.users:
                self.roles.pop(user, None)
        elif event.name == "dissolved":
            self.roles.clear()
        elif event.name == "role":
            [user] = event.users
            if event.value == "owner":
                self.roles[event.by] = "admin"
                self._muted.pop(user, None)
            self.roles[user] = event.value
        elif event.name == "muted":
            seconds = int(event.value)
            self._muted[event.users[0]] = time + seconds * 1000 if seconds else 0
        elif event.name == "group_updated" and event.value:
            self._all_muted = event.value == "muted"

    def objection(self, user: str, time: int) -> str:
        """Say why somebody may not write at a time, "" if they may."""
        role = self.roles.get(user)
        if role is None:
            return "is not in"
        if self._all_muted and role == "member":
            return "is muted with all"
        return "is muted" if self._muted.get(user, 0) > time else ""


# For whom each message is, by msgId; and the groups.
Heard = dict[int, set[str]]
Groups = dict[str, Group]


def place(fact: Fact, user: str, groups: Groups) -> tuple[str, int]:
    """Give the chat of a message as a user sees it, and where their history of it begins."""
    chat = chat_of(fact, user)
    return chat, groups[chat].joined.get(user, 0) if chat in groups else 0


def audiences(
    facts: Mapping[int, Fact], times: Mapping[int, int], fixed: Mapping[str, Collection[str]]
) -> tuple[Heard, Groups, list[str]]:
    """Tell for whom each message is, who is in each group at last, and what nobody might send."""
    heard: Heard = {}
    groups: Groups = defaultdict(Group)
    wrong: list[str] = []
    for number in sorted(facts):
        sender, to, _, event = facts[number]
        if not to.startswith("g") or to in fixed:
            heard[number] = set(fixed.get(to, (sender, to))) - {""}
            continue
        group, time = groups[to], times.get(number, 0)
        before = set(group.roles)
        if event is not None:
            group.apply(number, event, time)
        elif number in times and (why := group.objection(sender, time)):
            wrong.append(f"{number} is in {to} though its sender {sender} {why}")
        heard[number] = before | set(group.roles)
    return heard, groups, wrong


class Past:
    """What was asked and told, with the indexes of both in the log."""

    def __init__(self) -> None:
        # By action, who asked and about what: when it was asked, when answered (END for never).
        self._done: dict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
        self._counts: list[tuple[str, Counted]] = []  # with the user
        self._reads: dict[tuple[str, str], list[tuple[int, bool]]] = defaultdict(list)
        self._recalls: dict[int, list[int]] = {}  # by msgId: asked, answered
        self._recalling: set[tuple[str, int]] = set()  # devices, and what they recall

    def asked(self, entry: Asked, index: int) -> None:
        """Note a command."""
        if entry.action == "recall":
            self._recalls.setdefault(int(entry.about), [index, END])
            self._recalling.add((entry.device, int(entry.about)))

    def told(self, user: str, asked: Asked, told: Told, begin: int, index: int) -> None:
        """Note its answer."""
        if told.outcome == "refused":
            return
        if asked.action == "read":
            chat, upto = asked.about.split(" ")
            self._reads[user, chat].append((int(upto), told.outcome == "ok"))
            return
        end = index if told.outcome == "ok" else END
        self._done[asked.action, user, asked.about].append((begin, end))
        if asked.action == "recall":
            recall = self._recalls[int(asked.about)]
            recall[1] = min(recall[1], end)

    def counted(self, user: str, entry: Counted) -> None:
        """Note a number that the server told."""
        self._counts.append((user, entry))

    def recall(self, number: int) -> tuple[int, int]:
        """Give when a recall of a message was asked for, and when it was known to be done."""
        begin, end = self._recalls.get(number, (END, END))
        return begin, end

    def recalls(self, device: str, fact: Fact) -> bool:
        """Tell whether a message is about a recall that this device asked for."""
        event = fact[3]
        if event is None or event.name != "recalled" or fact[1].startswith("g"):
            return False
        return (device, int(event.value)) in self._recalling

    def revoked(self, user: str, device: str) -> int:
        """Give when a device was known to be signed out."""
        moments = self._done.get(("sign_out", user, device), ())
        return min((end for _, end in moments), default=END)

    # --- what shows only when all is read -----------------------------------------------------

    def closed(self, message: Message) -> str:
        """Say why a message cannot have come in at any moment of its sending, "" if it may."""
        sender, to, _, _ = message.fact
        for closing, opening in CLOSING.items():
            # Who blocks does so alone, who ends a friendship ends it for both.
            ways = [(to, sender)] if closing == "block" else [(to, sender), (sender, to)]
            opened = [each for way in ways for each in self._done.get((opening, *way), ())]
            for way in ways:
                for begin, end in self._done.get((closing, *way), ()):
                    again = any(b < message.done and e > begin for b, e in opened)
                    if end < message.first and not again:
                        return closing
        return ""

    def miscounted(self, groups: Groups) -> Iterator[str]:
        """Find counts that cannot be."""
        for user, entry in self._counts:
            if entry.what == "members":
                low = high = len(groups[entry.about].roles)
            elif entry.what == "friends":
                low, high = self._friends(user)
            else:
                low, high = self._mark(user, entry.about)
            if not low <= entry.value <= high:
                yield f"{entry} of {user} is not {low} to {high}"

    def _friends(self, user: str) -> tuple[int, int]:
        low = high = 0
        others = {key[1 if key[2] == user else 2] for key in self._done if user in key[1:]}
        for other in others:
            ways = ((user, other), (other, user))
            made = [each for way in ways for each in self._done.get(("befriend", *way), ())]
            ended = [each for way in ways for each in self._done.get(("unfriend", *way), ())]
            newest = max((begin for begin, _ in made), default=END)
            after = [end for begin, end in ended if begin > newest]
            high += bool(made) and all(end == END for end in after)
            low += any(end < END for _, end in made) and not after
        return low, high

    def _mark(self, user: str, chat: str) -> tuple[int, int]:
        # In a group it begins with what there was when one joined.
        low, high = 0, END if chat.startswith("g") else 0
        for upto, done in self._reads.get((user, chat), ()):
            high = max(high, upto or END)
            if done:
                low = max(low, upto)
        return low, high


def forbidden(past: Past, messages: Iterable[Message]) -> Iterator[str]:
    """Find messages between two people that came in though that was closed."""
    for message in messages:
        if message.msg_id and not message.fact[1].startswith("g") and (why := past.closed(message)):
            yield f"{message.msg_id} came in after a {why}: {message.fact}"
