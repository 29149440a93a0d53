"""Who is online, and handing committed messages to them; the only room that will know of nodes.

Everything here happens on the loop and never waits. `deliver` is called by the writer in commit
order, so a session that registers in a commit's turn misses nothing and gets nothing twice.
"""

from collections.abc import Iterable
from typing import Any

import structlog

from . import protocol
from .clock import Clock, Dates
from .encoding import encode
from .errors import Refusal
from .model import Actor, Bound, Delivery
from .outbox import Outbox, with_seq
from .session import ACCEPTS, Session, State
from .status import Status

log = structlog.get_logger("pushd.hub")

REPLACED = protocol.error(
    "",
    Refusal(Status.ERROR_REPEAT_LOGIN, "replaced by another connection"),
    event={"name": "replaced"},
)
SIGNED_OUT = protocol.error(
    "", Refusal(Status.ERROR_NET, "signed out: log in again"), event={"name": "signed_out"}
)


class Hub:
    """The sessions of this process, by device and by account."""

    def __init__(self, clock: Clock, dates: Dates) -> None:
        self._clock = clock
        self._dates = dates
        self._devices: dict[int, Session] = {}  # started devices
        self._accounts: dict[int, list[Session]] = {}  # every session with a login
        self.sessions = 0  # with a login
        self._watchers: dict[int, set[Session]] = {}  # who is told of an account's presence

    # --- sessions -------------------------------------------------------------------------

    def login(self, session: Session, actor: Actor) -> None:
        """Register a login."""
        session.login(actor)
        self._accounts.setdefault(actor.account, []).append(session)
        self.sessions += 1

    def bind(self, session: Session, bound: Bound, push_id: str, outbox: Outbox) -> None:
        """Register a started device; a session that had it before is replaced at once."""
        device = bound.actor.device
        was_online = self.online(bound.actor.account)
        old = self._devices.get(device)
        if old is not None and old is not session:
            log.info("taken over", connection=old.number, user=old.user, by=session.number)
            self._evict(old, REPLACED, "replaced", quietly=True)
        if bound.signed_out:
            self.sign_out(bound.signed_out)
        fresh = session.state is State.ANONYMOUS
        session.bind(bound, push_id, outbox)
        self._devices[device] = session
        if fresh:
            self._accounts.setdefault(bound.actor.account, []).append(session)
            self.sessions += 1
        if not was_online and session.show_presence:
            self._announce(bound.actor.account, online=True)

    def logout(self, session: Session) -> None:
        """Forget a session's login; the connection goes on without one."""
        if session.state is State.ENDED:
            return
        self._remove(session)
        session.logout()

    def end(self, session: Session) -> None:
        """Forget a session whose connection ends; a second time changes nothing."""
        self._remove(session)
        session.end()

    def sign_out(self, device: int, keep: Session | None = None) -> None:
        """End the connection of a device that is dead now, unless it is the one that asked."""
        session = self._devices.get(device)
        if session is not None and session is not keep:
            self._evict(session, SIGNED_OUT, "signed out")

    def revoke(self, account: int, keep: Session | None = None, device: int = 0) -> None:
        """End every connection of an account, but one, and whichever has a device that is kept."""
        for session in tuple(self._accounts.get(account, ())):
            if session is not keep and not (device and session.device == device):
                self._evict(session, SIGNED_OUT, "signed out")

    def online(self, account: int) -> bool:
        """Tell whether an account has a started device that is connected."""
        sessions = self._accounts.get(account, ())
        return any(session.outbox is not None for session in sessions)

    def shows_online(self, account: int) -> bool:
        """Tell whether others may see an account online now."""
        sessions = self._accounts.get(account, ())
        return any(one.outbox is not None and one.show_presence for one in sessions)

    def devices_of(self, account: int) -> list[int]:
        """Give the devices of an account that are connected."""
        sessions = self._accounts.get(account, ())
        return [session.device for session in sessions if session.device]

    def answering_devices_of(self, account: int) -> list[int]:
        """Give those of them whose machines still answer."""
        sessions = self._accounts.get(account, ())
        return [one.device for one in sessions if one.device and one.link.answering]

    def accounts(self) -> list[int]:
        """Give all accounts that are logged in."""
        return list(self._accounts)

    def sessions_of(self, account: int) -> list[Session]:
        """Give the sessions of an account."""
        return list(self._accounts.get(account, ()))

    def started(self) -> list[Session]:
        """Give the sessions of all devices that are connected."""
        return list(self._devices.values())

    def devices(self) -> list[int]:
        """Give all devices that are connected."""
        return list(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def _evict(self, session: Session, frame: bytes, reason: str, *, quietly: bool = False) -> None:
        self._remove(session, quietly=quietly)
        session.end()
        session.link.evict(frame, reason)

    def _remove(self, session: Session, *, quietly: bool = False) -> None:
        account, device = session.account, session.device
        self.unwatch(session)
        if not account:
            return
        if self._devices.get(device) is session:
            del self._devices[device]
        sessions = self._accounts[account]
        sessions.remove(session)
        self.sessions -= 1
        if not sessions:
            del self._accounts[account]
        if device and session.show_presence and not quietly and not self.online(account):
            self._announce(account, online=False)

    # --- deliveries -----------------------------------------------------------------------

    def deliver(self, deliveries: list[Delivery], signals: list[Any]) -> None:
        """Offer committed messages to the outboxes of live devices, then do what they entail."""
        devices = self._devices
        for device, seq, message, rest in deliveries:
            session = devices.get(device)
            if session is None:
                continue
            outbox = session.outbox
            assert outbox is not None, "a registered device has an outbox"
            data = None if rest is None else with_seq(seq, rest)
            # What is not taken in is fetched by the connection once there is room.
            outbox.offer(seq, message, data)
            session.link.wake()
        for signal in signals:
            self._signal(*signal)

    def _signal(self, name: str, *values: Any) -> None:
        match name, values:
            case "signed_out", (device,):
                self.sign_out(device)
            case "revoked", (account,):
                self.revoke(account)
            case "recalled", (account, message, rest):
                for session in self._accounts.get(account, ()):
                    if session.outbox is not None:
                        session.outbox.replace(message, rest)
            case "read", (reader, device, peer, chat, mark, receipts):
                self._tell_read(reader, device, peer, chat, mark, receipts=receipts)
            case "privacy", (account, choices):
                self._change_privacy(account, choices)
            case "friends", (one, other):
                self._befriend(one, other)
            case "strangers", (one, other):
                self._unwatch_each_other(one, other)
            case _:
                raise AssertionError(f"unknown signal {name}")

    # --- frames that are never stored -----------------------------------------------------

    def tell(
        self, account: int, kind: str, message: object, *, without: int = 0, **more: object
    ) -> None:
        """Send a frame to those sessions of an account that accept its kind."""
        bit = ACCEPTS[kind]
        for session in self._accounts.get(account, ()):
            if session.accepts & bit and not (without and session.device == without):
                fields = {"status": 1, "pushId": session.push_id, "message": message, **more}
                session.link.signal(encode(fields) + b"\n")

    def typing(self, account: int, to: int, chat: str) -> None:
        """Tell somebody that an account is typing."""
        event = {"name": "typing", "userId": str(account), "chatId": chat}
        self.tell(to, "typing", "", event=event)

    def _tell_read(
        self, reader: int, device: int, peer: int, chat: str, mark: int, *, receipts: bool
    ) -> None:
        to = str(peer) if peer else ""
        ack = {"fromId": str(reader), "toId": to, "chatId": chat, "content": "ok"}
        ack["msgId"] = str(mark)
        self.tell(reader, "ack", ack, without=device)
        if peer and receipts:
            self.tell(peer, "ack", ack)

    # --- presence -------------------------------------------------------------------------

    def watch(self, session: Session, accounts: Iterable[int]) -> None:
        """Tell a session of the presence of these accounts from now on."""
        if session.state is not State.STARTED:
            return
        self.unwatch(session)
        session.watching = tuple(accounts)
        for account in session.watching:
            self._watchers.setdefault(account, set()).add(session)

    def unwatch(self, session: Session) -> None:
        """Tell a session of nobody's presence any more."""
        for account in session.watching:
            watchers = self._watchers.get(account)
            if watchers is not None:
                watchers.discard(session)
                if not watchers:
                    del self._watchers[account]
        session.watching = ()

    def _announce(self, account: int, *, online: bool) -> None:
        watchers = self._watchers.get(account)
        if not watchers:
            return
        seen = "" if online else self._dates.text(self._clock.wall())
        event = {"name": "presence", "userId": str(account), "online": online, "lastSeen": seen}
        for session in tuple(watchers):
            fields = {"status": 1, "pushId": session.push_id, "message": "", "event": event}
            session.link.signal(encode(fields) + b"\n")

    def _change_privacy(self, account: int, choices: dict[str, bool]) -> None:
        shown = self.shows_online(account)
        for session in self._accounts.get(account, ()):
            session.show_presence = choices.get("show_presence", session.show_presence)
            session.read_receipts = choices.get("read_receipts", session.read_receipts)
        if shown != self.shows_online(account):
            self._announce(account, online=not shown)

    def _befriend(self, one: int, other: int) -> None:
        for account, friend in ((one, other), (other, one)):
            for session in self._accounts.get(account, ()):
                if session.accepts & ACCEPTS["presence"] and friend not in session.watching:
                    self.watch(session, (*session.watching, friend))

    def _unwatch_each_other(self, one: int, other: int) -> None:
        for account, friend in ((one, other), (other, one)):
            for session in self._accounts.get(account, ()):
                if friend in session.watching:
                    rest = tuple(user for user in session.watching if user != friend)
                    self.watch(session, rest)
