"""Friend requests and friendships, as the writer's thread changes them.

A friendship is two rows, one for each side, made and ended together.
"""

from ..encoding import encode
from ..errors import Refusal
from ..names import fold
from ..status import Status
from .journal import Journal
from .records import message_body, pair_key, text_infos


def check(journal: Journal, asker: int, to: int, field: str = "userId") -> None:
    """Refuse a request that cannot be made; changes nothing."""
    if asker == to:
        raise Refusal(Status.NOT_ALLOWED, "this is yourself", field=field)
    route = journal.route(asker, to)
    if route is None:
        raise Refusal(Status.NULL_USER, field=field)
    if route.friends:
        raise Refusal(Status.EXIST_FRIENDS, field=field)
    if route.blocked:
        raise Refusal(Status.NOT_ALLOWED, "this user does not want requests", field=field)
    if asked(journal, to, asker):
        check_room(journal, asker, to)
    elif _waiting(journal, to) >= journal.most_friends:
        raise Refusal(Status.LIMIT_REACHED, "too many requests wait for this user")


def asked(journal: Journal, asker: int, to: int) -> bool:
    """Tell whether a request waits."""
    query = "SELECT 1 FROM friend_request WHERE account = ? AND asker = ?"
    return journal.db.execute(query, (to, asker)).fetchone() is not None


def record(journal: Journal, asker: int, to: int, description: str) -> bool:
    """Note a request, or make friends of two who both asked; True if a message is to tell of it."""
    if asked(journal, to, asker):
        befriend(journal, asker, to)
        return False
    route = journal.route(asker, to)
    if route is None or route.friends:
        # Two requests in one list, of which the first made friends.
        return False
    again = asked(journal, asker, to)
    journal.db.execute(
        "INSERT INTO friend_request VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (account, asker) DO UPDATE SET description = ?3",
        (to, asker, description, journal.now),
    )
    return not again


def event(asker: int, description: str) -> str:
    """Give the event of a request as a member of its message."""
    fields = {"name": "friend_request", "userId": str(asker), "description": description}
    return f',"event":{encode(fields).decode()}'


def ask(journal: Journal, asker: int, to: int, description: str, device: int) -> None:
    """Ask for friendship: note it, and send the one asked a message of type 2."""
    check(journal, asker, to)
    if not record(journal, asker, to, description):
        return
    key = pair_key(asker, to)
    chat = journal.chat(key, "pair", {asker, to})
    text = description or "I would like to be your friend."
    body = message_body(key, asker, str(to), 2, text_infos(text), event(asker, description))
    number, rest = journal.store_message(chat, asker, body, fold(text))
    for account, without in ((to, 0), (asker, device)):
        box = journal.mailbox(account)
        # The asker's own line is for what others send.
        if box is not None and (account == to or box.devices):
            journal.deliver(box, chat, number, rest, without=without)


def befriend(journal: Journal, accepter: int, asker: int) -> None:
    """Make two people friends and tell the one who had asked."""
    for one, other in ((accepter, asker), (asker, accepter)):
        journal.db.execute(
            "INSERT OR IGNORE INTO friendship (account, friend, created) VALUES (?, ?, ?)",
            (one, other, journal.now),
        )
        journal.db.execute(
            "DELETE FROM friend_request WHERE account = ? AND asker = ?", (one, other)
        )
    journal.forget_pair(accepter, asker)
    fields = {"name": "friend_accepted", "userId": str(accepter), "description": ""}
    name = display_name(journal, accepter)
    journal.notice(asker, f"{name} is your friend now.", encode(fields))
    journal.signals.append(("friends", accepter, asker))


def check_room(journal: Journal, *accounts: int) -> None:
    """Refuse when one of the accounts has as many friends as one may have."""
    for account in accounts:
        query = "SELECT count(*) FROM friendship WHERE account = ?"
        if journal.db.execute(query, (account,)).fetchone()[0] >= journal.most_friends:
            raise Refusal(Status.LIMIT_REACHED, f"{account} has too many friends")


def display_name(journal: Journal, account: int) -> str:
    """Give the name by which people know an account."""
    query = "SELECT username FROM account WHERE id = ?"
    name: str = journal.db.execute(query, (account,)).fetchone()[0]
    return name or str(account)


def _waiting(journal: Journal, account: int) -> int:
    query = "SELECT count(*) FROM friend_request WHERE account = ?"
    count: int = journal.db.execute(query, (account,)).fetchone()[0]
    return count
