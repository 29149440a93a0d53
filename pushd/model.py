"""The typed records that pass between the rooms; no behaviour beyond their shape.

Three families: frames and requests as they come from the wire (decoded by msgspec, so that a
wrong type names its field), records of the store, and results as they go out. On the wire names
are camelCase. Absent, `null` and `""` mean the same for optional fields of the wire.
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

# The largest integer that every JSON reader keeps exactly.
MAX_INT = 2**53 - 1
# The first user id.
FIRST_USER = 10001
# The chatId of the server's own messages outside groups.
SYSTEM_CHAT = "system"

Integer = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Natural = Annotated[int, Meta(ge=0, le=MAX_INT)]
# A reference of the client's own, repeated in the reply.
FrameId = Annotated[str, Meta(max_length=64)] | Integer | None
# Absent, null and "" mean the same for every optional field, whatever its type.
Maybe = Literal[""] | None
# Ids are decimal strings; 64 characters are enough for any and for groups.
Id = Annotated[str, Meta(max_length=64)]


class MessageType:
    """The types of messages; strings on the wire, integers in the store."""

    SYSTEM = 0
    NORMAL = 1
    REQUEST = 2
    TOPIC = 3
    ANNOUNCEMENT = 4
    TASK = 5
    LINK = 6
    GROUP = 7


# --- frames from the client -------------------------------------------------------------------


class InfoIn(Struct, rename="camel", gc=False):
    """One piece of content as a client sends it."""

    category: str | Integer | None = None
    content: str | None = None


class MessageIn(Struct, rename="camel", gc=False):
    """A message as a client sends it; `createTime` is never looked at."""

    chat_id: Id | None = None
    from_id: Id | None = None
    to_id: Id | None = None
    type: str | Integer | None = None
    info: list[InfoIn] | InfoIn | None = None
    client_id: str | None = None
    reply_to: Id | None = None
    mentions: list[Id] | Maybe = None
    expire: Natural | Maybe = None


class AckIn(Struct, rename="camel", gc=False):
    """The object by which a client says that a conversation was read."""

    from_id: Id | None = None
    to_id: Id | None = None
    chat_id: Id | None = None
    content: str | None = None
    info: str | None = None
    msg_id: Id | None = None


class Frame(Struct, rename="camel", gc=False):
    """Any line: a command if `cmd` is there, else a message_set."""

    cmd: str | UnsetType = UNSET
    id: FrameId = None
    message: list[MessageIn] | AckIn | str | None = None
    seq: Natural | Maybe = None
    push_id: str | None = None
    heartbeat: Natural | Maybe = None
    device: Annotated[str, Meta(max_length=64)] | None = None
    accept: list[str] | Maybe = None


class Head(Struct):
    """What every command has."""

    cmd: str
    id: FrameId = None


# --- what the core passes on ------------------------------------------------------------------


class Actor(Struct, frozen=True, gc=False):
    """On whose behalf the store acts; it is refused once its login was revoked."""

    account: int
    device: int = 0
    generation: int = 0


class Accepted(Struct, frozen=True, gc=False):
    """What the sender of one message is told."""

    msg_id: int
    chat_id: str
    created: int  # milliseconds since 1970


class Failed(Struct, rename="camel", omit_defaults=True):
    """Why one message of a list was refused."""

    index: int
    status: int = -1
    message: str = ""
    field: str = ""


# One message for one device: device, seq, msgId, and its JSON behind the seq (None: store only).
Delivery = tuple[int, int, int, bytes | None]


# --- records of the store ---------------------------------------------------------------------


class Account(Struct):
    """A person, as the store knows them."""

    id: int
    phone: str
    password: bytes
    username: str
    avatar: str
    desc: str
    sex: int
    modified: int
    generation: int
    disabled: bool
    find_by_phone: bool
    show_presence: bool
    read_receipts: bool
    bound: bool  # it has a started device

    def __repr__(self) -> str:
        return f"<Account {self.id}>"


class Bound(Struct):
    """A device that was bound to a connection, and where its queue stands."""

    actor: Actor
    acked: int
    last: int
    first: int
    queued: int
    epoch: str
    show_presence: bool
    read_receipts: bool
    signed_out: int = 0  # another device that had to make room


# --- results as they go out -------------------------------------------------------------------


class UserOut(Struct, rename="camel"):
    """A user as the caller may see them."""

    id: str
    username: str = ""
    phone: str = ""
    avatar: str = ""
    desc: str = ""
    sex: int = 0
    alias: str = ""
    friends: int = 0
    is_friend: bool = False
    modify_at: str = ""


class AccountOut(Struct, rename="camel"):
    """An account as the caller may see it; `account` is the phone where that may be seen."""

    user: UserOut
    account: str = ""
    is_bind: bool = False
    privacy: "PrivacyOut | UnsetType" = UNSET


class PrivacyOut(Struct, rename="camel"):
    """What one has chosen with `set_privacy`; shown to oneself only."""

    find_by_phone: bool
    show_presence: bool
    read_receipts: bool


class DeviceOut(Struct, rename="camel"):
    """A device as its owner may see it; never its pushId."""

    device_id: str
    name: str
    last_seen: str
    online: bool
    current: bool


class RequestOut(Struct, rename="camel"):
    """A friend request that waits for the caller."""

    user: UserOut
    description: str
    date: str


class GroupOut(Struct, rename="camel", omit_defaults=False):
    """A group as the caller may see it; `id` is its chatId, `code` joins a link."""

    id: str
    name: str
    kind: str
    desc: str
    avatar: str
    notice: str
    owner: str
    role: str
    members: int
    mute_all: bool
    modify_at: str
    code: str | UnsetType = UNSET


class MemberOut(Struct, rename="camel"):
    """One who is in a group."""

    user: UserOut
    role: str
    joined_at: str
    muted_until: str


class PresenceOut(Struct, rename="camel"):
    """Whether a friend is online, and when they last were."""

    user_id: str
    online: bool
    last_seen: str


class StatusOut(Struct, rename="camel"):
    """How far one's own message has come: when it was stored, and counts."""

    stored: str
    devices: int
    delivered: int
    read: int


class WhoAmI(Struct, rename="camel"):
    """Who the connection is."""

    user_id: str
    username: str
    device_id: str
    connection: str


class TextOut(Struct):
    """A text, repeated."""

    text: str


class HelpOut(Struct):
    """One command: its fields with their types, and what it needs."""

    cmd: str
    fields: dict[str, str]
    needs: str


class StoreOut(Struct):
    """How much the store holds."""

    users: int
    devices: int
    groups: int
    messages: int
    queued: int
    files: int


class StatsOut(Struct, rename="camel"):
    """How the server does; `counts` only if asked for, since counting takes time."""

    version: str
    pid: int
    loop: str
    started_at: str
    uptime: int
    connections: int
    operators: int
    sessions: int
    online: int
    accepted: int
    frames: int
    delivered: int
    refusals: dict[str, int]
    waiting: int = 0
    commits: int = 0
    disk_full: bool = False
    schema: int = 0
    store_bytes: int = 0
    log_bytes: int = 0
    counts: StoreOut | UnsetType = UNSET


class OperatorUserOut(Struct, rename="camel"):
    """A user as an operator sees them."""

    user_id: str
    username: str
    phone: str
    state: str
    devices: int
    online: int
    last_seen: str
    created: str


class SessionOut(Struct, rename="camel"):
    """A connection as an operator sees it; `waiting` messages are not acked, `bytes` not taken."""

    connection: int
    user_id: str
    device_id: str
    address: str
    state: str
    seconds: int
    waiting: int
    bytes: int


class QueueOut(Struct, rename="camel"):
    """A queue in which messages wait; `device_id` is empty while the account has no device."""

    user_id: str
    device_id: str
    waiting: int


class TopOut(Struct, rename="camel"):
    """What `pushctl top` compares: all metrics, the devices most behind, and the longest queues."""

    metrics: dict[str, Any]
    slowest: list[SessionOut]
    queues: list[QueueOut]


class EvictedOut(Struct, rename="camel"):
    """How many connections were closed, and whose they were if a user was named."""

    user_id: str
    closed: int


class UserIdOut(Struct, rename="camel"):
    """Whom something was done to."""

    user_id: str


class PasswordOut(Struct, rename="camel"):
    """Whose password is another one now, and which if the server made it."""

    user_id: str
    password: str


class LevelOut(Struct):
    """The least that is logged."""

    level: str


class AuditOut(Struct, rename="camel"):
    """An operator's action, or `count` equal logins."""

    number: int
    date: str
    actor: str
    action: str
    user_id: str
    detail: str
    outcome: str
    count: int


class ReportOut(Struct, rename="camel"):
    """What somebody reported; `done` is "" while it is open."""

    number: int
    date: str
    by: str
    user_id: str
    msg_id: str
    reason: str
    done: str


class PlaceOut(Struct, rename="camel"):
    """A queue that a message went to, with times; `deviceId` is "" for an account without one.

    What is not exact is the latest possible: it happened then or before.
    """

    user_id: str
    device_id: str
    state: str
    online: bool
    seq: int
    sent: str
    times_sent: int
    acked: str
    acked_exact: bool
    read: str
    read_exact: bool


class TraceOut(Struct, rename="camel"):
    """Where a message is and was; a time is "" when it did not happen, or is not kept."""

    msg_id: str
    chat_id: str
    kind: str
    type: str
    from_id: str
    accepted: str
    committed: str
    recalled: bool
    recalled_at: str
    expires: str
    expired: bool
    places: list[PlaceOut]
    next: str


class WaitingOut(Struct, rename="camel"):
    """What waits for a device; `deviceId` is "" for the line of an account without one."""

    user_id: str
    device_id: str
    name: str
    depth: int
    oldest: str
    age: int
    online: bool
    last_seen: str


class MailingOut(Struct, rename="camel"):
    """How far a mailing has come: `place` of `final`; `msgIds` once it is done."""

    client_id: str
    done: bool
    place: int
    final: int
    accounts: int
    devices: int
    skipped: int
    msg_ids: list[str]


class Empty(Struct):
    """A result without content."""


Kind = Literal["object", "list"]
