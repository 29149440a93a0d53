"""Storing message lists: the sender's rights, repeats, and the queues they go to.

All of it runs in the writer's thread, in commit order. A list is looked at whole before anything
of it is stored, so it is all or nothing.
"""

from collections.abc import Sequence

from ..draft import failure
from ..encoding import encode
from ..errors import Refusal
from ..model import Accepted, Draft, Failed, MessageType
from ..status import Status
from . import requests
from .journal import Journal, Mailbox, Route, message_body

PAIR_TYPES = (MessageType.NORMAL, MessageType.REQUEST, MessageType.TASK)


class _Plan:
    """What is to be stored for one draft, once the whole list is found good."""

    __slots__ = ("body", "draft", "repeat", "route")

    def __init__(self, draft: Draft, route: Route, body: str, repeat: Accepted | None) -> None:
        self.draft = draft
        self.route = route
        self.body = body
        self.repeat = repeat  # it was stored before, under its clientId


def post_list(
    journal: Journal, sender: int, device: int, drafts: Sequence[Draft | Failed]
) -> list[Accepted] | list[Failed]:
    """Store a list for all its recipients, or tell what is wrong with its messages."""
    plans: list[_Plan] = []
    failures: list[Failed] = []
    for index, draft in enumerate(drafts):
        if isinstance(draft, Failed):
            failures.append(draft)
            continue
        try:
            plans.append(_plan(journal, sender, draft))
        except Refusal as problem:
            failures.append(failure(index, problem))
    if not failures and len(plans) > 1:
        failures = _conflicts(plans)
    if failures:
        return failures
    box = journal.mailbox(sender)
    assert box is not None, "the sender was valid a moment ago"
    return [_store(journal, box, device, plan) for plan in plans]


def _plan(journal: Journal, sender: int, draft: Draft) -> _Plan:
    route = journal.route(sender, draft.to) if draft.type in PAIR_TYPES else None
    if route is None:
        if draft.type in PAIR_TYPES:
            raise Refusal(Status.NULL_USER, field="toId")
        raise Refusal(Status.NOT_FOUND, "no such group", field="chatId")
    extra = draft.extra
    if draft.type == MessageType.REQUEST:
        extra += requests.event(sender, draft.description)
    body = message_body(route.key, sender, str(draft.to), draft.type, draft.infos, extra)
    if draft.client_id:
        repeat = journal.repeat(sender, draft.client_id, body)
        if repeat is not None:
            return _Plan(draft, route, body, repeat)
    _check_rights(journal, sender, draft, route)
    return _Plan(draft, route, body, None)


def _check_rights(journal: Journal, sender: int, draft: Draft, route: Route) -> None:
    if draft.type == MessageType.REQUEST:
        requests.check(journal, sender, draft.to)
    elif sender == draft.to:
        raise Refusal(Status.NOT_ALLOWED, "this is yourself", field="toId")
    elif route.blocked:
        raise Refusal(Status.NOT_ALLOWED, "this user does not want your messages", field="toId")
    elif not route.friends and not journal.strangers:
        raise Refusal(Status.NOT_ALLOWED, "you are not friends", field="toId")
    if draft.paths:
        raise Refusal(Status.NOT_FOUND, "no such file", field="info")
    if draft.reply_to:
        journal.flush()
        query = "SELECT 1 FROM message WHERE id = ? AND chat = ?"
        if not journal.db.execute(query, (draft.reply_to, route.chat)).fetchone():
            raise Refusal(Status.NOT_FOUND, "no such message in this chat", field="replyTo")
    for user in draft.mentions:
        if journal.mailbox(user) is None:
            raise Refusal(Status.NULL_USER, field="mentions")


def _conflicts(plans: list[_Plan]) -> list[Failed]:
    """Find the clientIds that stand for two contents within one list."""
    failures: list[Failed] = []
    seen: dict[str, str] = {}
    for index, plan in enumerate(plans):
        client_id = plan.draft.client_id
        if client_id and seen.setdefault(client_id, plan.body) != plan.body:
            problem = Refusal(
                Status.BAD_FIELD, "this clientId stands for another message", field="clientId"
            )
            failures.append(failure(index, problem))
    return failures


def _store(journal: Journal, sender: Mailbox, device: int, plan: _Plan) -> Accepted:
    draft, route = plan.draft, plan.route
    if plan.repeat is not None:
        return plan.repeat
    client_id = draft.client_id
    if client_id:
        # The same clientId twice in one list is one message.
        repeat = journal.repeat(sender.account, client_id, plan.body)
        if repeat is not None:
            return repeat
    if not route.chat:
        route.chat = journal.chat(route.key, "pair", {sender.account, route.to})
    body = plan.body
    if draft.type == MessageType.REQUEST:
        requests.record(journal, sender.account, draft.to, draft.description)
    number, rest = journal.store_message(
        route.chat,
        sender.account,
        body,
        draft.text,
        client_id=client_id or None,
        expire=draft.expire,
    )
    if client_id:
        journal.remember(sender.account, client_id, number, body)
    to = journal.mailbox(route.to)
    assert to is not None, "the recipient was there a moment ago"
    chat = route.chat
    for queue in to.queues:
        journal.enqueue(queue, chat, number, rest)
    if len(sender.devices) > (1 if device else 0):
        _copy(journal, sender, device, chat, number, own_copy(rest, client_id))
    return Accepted(number, route.key, journal.now)


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
