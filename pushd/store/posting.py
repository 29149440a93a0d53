"""Storing message lists: the sender's rights, repeats, and the queues they go to.

All of it runs in the writer's thread, in commit order. A list is looked at whole before anything
of it is stored, so it is all or nothing.
"""

from collections.abc import Sequence

from ..draft import Draft, failure
from ..encoding import encode
from ..errors import Refusal
from ..model import Accepted, Failed, MessageType
from ..status import Status
from . import references, requests
from .journal import Journal
from .membership import Group
from .records import Mailbox, Route, message_body, pair_key

PAIR_TYPES = (MessageType.NORMAL, MessageType.REQUEST, MessageType.TASK)


# Queue rows of one list, which is one transaction: more would let all others wait too long.
MOST_ROWS = 50_000
# An `expire` that is over when it begins: the row is kept for its clientId, and never shown.
NEVER_SHOWN = -1
# Where a message goes: to the other one of a pair, or to a group.
_Target = Route | Group
# What is to be stored for one draft once the whole list is found good: the draft, its target, its
# body, and what it was confirmed with before, under its clientId.
_Plan = tuple[Draft, _Target, str, Accepted | None]


def post_list(
    journal: Journal, sender: Mailbox, device: int, drafts: Sequence[Draft | Failed]
) -> list[Accepted] | list[Failed]:
    """Store a list for all its recipients, or tell what is wrong with its messages."""
    if len(drafts) == 1 and isinstance(only := drafts[0], Draft):
        # What nearly all lists are.
        accepted = _store_plain(journal, sender, device, only)
        if accepted is not None:
            return [accepted]
        try:
            plan = _plan(journal, sender.account, only)
        except Refusal as problem:
            return [failure(0, problem)]
        return [_store(journal, sender, device, plan)]
    plans: list[_Plan] = []
    failures: list[Failed] = []
    for index, draft in enumerate(drafts):
        if isinstance(draft, Failed):
            failures.append(draft)
            continue
        try:
            plans.append(_plan(journal, sender.account, draft))
        except Refusal as problem:
            failures.append(failure(index, problem))
    if len(plans) > 1 and not failures:
        failures = _conflicts(plans)
    if failures:
        return failures
    rows = sum(len(plan[1].members) for plan in plans if isinstance(plan[1], Group))
    if rows > MOST_ROWS:
        text = f"one list reaches at most {MOST_ROWS} members, each message counted"
        return [failure(0, Refusal(Status.LIMIT_REACHED, text))]
    return [_store(journal, sender, device, plan) for plan in plans]


def _store_plain(journal: Journal, sender: Mailbox, device: int, draft: Draft) -> Accepted | None:
    """Store what nearly all messages are: a text to a friend. None for all that asks for more."""
    account = sender.account
    if draft.type != MessageType.NORMAL or draft.extra or draft.paths:
        return None
    route = journal.route(account, draft.to)
    if route is None or not route.open or not route.chat:
        return None
    if draft.client_id and not journal.fresh(account, draft):
        return None
    return _spread(journal, sender, device, draft, route, f"{route.head}{draft.infos}")


def _plan(journal: Journal, sender: int, draft: Draft) -> _Plan:
    kind = draft.type
    if kind not in PAIR_TYPES or draft.chat:
        group = _group(journal, sender, draft)
        if group is not None:
            return _plan_group(journal, sender, draft, group)
    route = _route(journal, sender, draft) if kind in PAIR_TYPES else None
    if route is None:
        if kind in (MessageType.NORMAL, MessageType.REQUEST):
            raise Refusal(Status.NULL_USER, field="toId")
        raise Refusal(Status.NOT_FOUND, "no such group", field="chatId")
    extra = draft.extra
    if kind == MessageType.REQUEST:
        extra += requests.event(sender, draft.description)
    body = message_body(route.key, sender, draft.to, kind, draft.infos, extra)
    repeat = journal.repeat(sender, draft, body)
    if repeat is not None:
        return draft, route, body, repeat
    if kind != MessageType.NORMAL or not route.open or extra or draft.paths:
        _check_rights(journal, sender, draft, route)
    return draft, route, body, None


def _route(journal: Journal, sender: int, draft: Draft) -> Route | None:
    """Tell what holds between the sender and the user `toId`; None if there is no such user.

    A repeat is confirmed again also when they are gone since.
    """
    route = journal.route(sender, draft.to)
    if route is None and draft.to and journal.home(sender, draft):
        chat = journal.find_chat(pair_key(sender, draft.to))
        route = Route(chat, sender, draft.to, False, False, False)
    return route


def _group(journal: Journal, sender: int, draft: Draft) -> Group | None:
    """Find the group that chatId or toId names: the first that the sender is in.

    A repeat of a confirmed message means the chat that it went to then, also when its sender has
    left or joined a group since, or the group was dissolved.
    """
    db, keys = journal.db, [key for key in draft.chat if key]
    home = journal.home(sender, draft)
    if home in keys:
        return journal.groups.find(db, home) or journal.groups.ended(db, home)
    if home and draft.type in PAIR_TYPES and home == pair_key(sender, draft.to):
        return None
    for key in keys:
        group = journal.groups.find(db, key)
        if group is not None and sender in group.members:
            return group
    return None


def _plan_group(journal: Journal, sender: int, draft: Draft, group: Group) -> _Plan:
    key = group.key
    body = message_body(key, sender, key, draft.type, draft.infos, draft.extra)
    repeat = journal.repeat(sender, draft, body)
    if repeat is not None:
        return draft, group, body, repeat
    if sender not in group.members:
        raise Refusal(Status.NOT_FOUND, "no such group", field="chatId")
    group.check_speech(sender, draft.type, journal.now)
    _check_references(journal, sender, draft, group.chat)
    return draft, group, body, None


def _check_rights(journal: Journal, sender: int, draft: Draft, route: Route) -> None:
    if draft.type == MessageType.REQUEST:
        requests.check(journal, sender, draft.to, "toId")
    elif sender == draft.to:
        raise Refusal(Status.NOT_ALLOWED, "this is yourself", field="toId")
    elif route.blocked:
        raise Refusal(Status.NOT_ALLOWED, "this user does not want your messages", field="toId")
    elif not route.friends and not journal.strangers:
        raise Refusal(Status.NOT_ALLOWED, "you are not friends", field="toId")
    _check_references(journal, sender, draft, route.chat)


def _check_references(journal: Journal, sender: int, draft: Draft, chat: int) -> None:
    """Refuse files, messages and users that the sender may not name."""
    for path in draft.paths:
        references.may_use(journal, sender, path)
    if draft.reply_to:
        journal.flush()
        query = "SELECT 1 FROM message WHERE id = ? AND chat = ?"
        if not journal.db.execute(query, (draft.reply_to, chat)).fetchone():
            raise Refusal(Status.NOT_FOUND, "no such message in this chat", field="replyTo")
    for user in draft.mentions:
        if journal.mailbox(user) is None:
            raise Refusal(Status.NULL_USER, field="mentions")


def _conflicts(plans: list[_Plan]) -> list[Failed]:
    """Find the clientIds that stand for two contents within one list."""
    failures: list[Failed] = []
    seen: dict[str, str] = {}
    for index, (draft, _, body, _) in enumerate(plans):
        client_id = draft.client_id
        if client_id and seen.setdefault(client_id, body) != body:
            problem = Refusal(
                Status.BAD_FIELD, "this clientId stands for another message", field="clientId"
            )
            failures.append(failure(index, problem))
    return failures


def _store(journal: Journal, sender: Mailbox, device: int, plan: _Plan) -> Accepted:
    draft, target, body, repeat = plan
    if repeat is None:
        # The same clientId twice in one list is one message.
        repeat = journal.repeat(sender.account, draft, body)
    if repeat is not None:
        return repeat
    chat = target.chat
    if not chat:
        assert isinstance(target, Route), "a group has its chat from the beginning"
        chat = target.chat = journal.chat(target.key, "pair", {sender.account, target.to})
    if draft.type == MessageType.REQUEST and not requests.record(
        journal, sender.account, draft.to, draft.description
    ):
        return _keep(journal, sender.account, draft, target, body)
    return _spread(journal, sender, device, draft, target, body)


def _keep(journal: Journal, account: int, draft: Draft, target: _Target, body: str) -> Accepted:
    """Store what nobody is to see, for its clientId alone."""
    number, _ = journal.store_message(
        target.chat, account, body, None, draft.client_id, draft.client_key, NEVER_SHOWN
    )
    return Accepted(number, target.key, journal.now)


def _spread(
    journal: Journal, sender: Mailbox, device: int, draft: Draft, target: _Target, body: str
) -> Accepted:
    """Store a message and put it into all queues that it goes to."""
    account, chat, client_id = sender.account, target.chat, draft.client_id
    number, rest = journal.store_message(
        chat, account, body, draft.text, client_id, draft.client_key, draft.expire
    )
    for path in draft.paths:
        references.refer(journal, path, chat, number)
    if isinstance(target, Group):
        journal.fan_out(target, number, rest, sender=account)
    else:
        to = journal.mailbox(target.to)
        assert to is not None, "the recipient was there a moment ago"
        for queue in to.queues:
            journal.enqueue(queue, chat, number, rest)
    if len(sender.devices) > (1 if device else 0):
        _copy(journal, sender, device, chat, number, own_copy(rest, client_id))
    return Accepted(number, target.key, journal.now)


def _copy(
    journal: Journal, sender: Mailbox, device: int, chat: int, number: int, rest: bytes
) -> None:
    """Give the sender's other devices a copy."""
    for queue in sender.devices.values():
        if queue.device != device:
            journal.enqueue(queue, chat, number, rest)


def own_copy(rest: bytes, client_id: str | None) -> bytes:
    """Add the clientId to a message for the sender's own devices."""
    if not client_id:
        return rest
    return b'%b,"clientId":%b}' % (rest[:-1], encode(client_id))
