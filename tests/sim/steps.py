"""What people do in a run: the beginning, one step after the other, and the end."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.sim.phone import Phone

if TYPE_CHECKING:
    from tests.sim.world import User, World

USERS = (3, 8)
PHONES = (1, 1, 2, 2, 3, 4)
STEPS = (200, 200, 250, 300, 400, 600, 1000)
# Messages of one list, and how often.
LISTS = ((1, 70), (2, 15), (3, 8), (10, 5), (50, 0.7))
SHIFT = 3 * 86_400.0  # seconds that the wall clock is off at most: clientIds are kept 7 days
# Seconds between two steps, and how often.
PAUSES = ((0.0, 30), (0.05, 30), (0.5, 25), (3.0, 10), (30.0, 3), (500.0, 0.15))


async def set_up(world: "World") -> None:
    """Make users, their first phones, and friends."""
    from tests.sim.world import User

    rng = world.rng
    await world.until(lambda: world._up)
    for number in range(1, rng.randint(*USERS) + 1):
        user = User(f"u{number}", f"138000000{number:02}", f"Zebra-77{number}", f"10.0.0.{number}")
        world.users[user.name] = user
        _add_phone(world, user)
    await world.until(lambda: _back(world) and all(phone.quiet for phone in world.phones()))
    users = list(world.users.values())
    for index, one in enumerate(users):
        for other in users[:index]:
            if rng.random() < 0.7:
                await _befriend(world, one, other)


async def _befriend(world: "World", one: "User", other: "User") -> None:
    asker, asked = one.phones[0], other.phones[0]
    asker.command("add_friend", "request", other.name, userId=other.id)
    await world.until(lambda: asker.quiet)
    asked.command("accept_friend", "befriend", one.name, userId=one.id)
    await world.until(lambda: asked.quiet)
    one.friends.add(other.name)
    other.friends.add(one.name)


def _add_phone(world: "World", user: "User") -> None:
    phone = Phone(world, user, world.name_phone(user))
    user.phones.append(phone)
    phone.connect()


def _back(world: "World") -> bool:
    """Have everybody come back who is not there; tell whether all are."""
    for phone in world.phones():
        if phone.link is None:
            phone.connect()
    return all(phone.on for phone in world.phones())


# --- living -----------------------------------------------------------------------------------


async def live(world: "World") -> None:
    """Do all steps."""
    rng = world.rng
    most = {user.name: rng.choice(PHONES) for user in world.users.values()}
    pauses, weights = zip(*PAUSES, strict=True)
    for _ in range(rng.choice(STEPS)):
        [pause] = rng.choices(pauses, weights)
        if pause:
            await world.pass_time(pause * rng.random())
        _happen(world)
        user = rng.choice(list(world.users.values()))
        if len(user.phones) < most[user.name] and rng.random() < 0.2:
            _add_phone(world, user)
        elif user.phones:
            _step(world, rng.choice(user.phones))
        world.look()


def _happen(world: "World") -> None:
    """Let something happen to the world, now and then."""
    points, rng, loop = world.points, world.rng, world.loop
    if points.hit("clock_jump", 0.02):
        world.clock.shift = max(-SHIFT, min(SHIFT, world.clock.shift + rng.uniform(-1, 1) * DAY))
    if points.hit("disk_full", 0.01) and not world.disk.full:
        world.disk.fill()
        loop.call_later(rng.uniform(1, 60), setattr, world.disk, "full", False)
    if points.hit("stop", 0.005):
        world.stop()
    if rng.random() < 0.001:
        world.kill(power=world.disk.watched and rng.random() < 0.5)


DAY = 86_400.0


def _step(world: "World", phone: Phone) -> None:
    points, rng = world.points, world.rng
    if not phone.on:
        if phone.link is None and rng.random() < 0.7:
            phone.connect()
        return
    if points.hit("half_open", 0.03):
        phone.drop("vanish")
    elif points.hit("slow_reader", 0.05) and phone.link is not None:
        phone.link.down.reading = False
        world.loop.call_later(rng.choice((0.5, 5.0, 60.0)) * rng.random(), phone.link.down.resume)
    elif points.hit("retry_elsewhere", 0.1):
        _retry(world, phone.user)
    elif points.hit("pipelined_kick", 0.05):
        _kick_while_writing(world, phone)
    else:
        actions, weights = zip(*ACTIONS, strict=True)
        [action] = rng.choices(actions, weights)
        action(world, phone)


def _send(world: "World", phone: Phone) -> None:
    rng = world.rng
    counts, weights = zip(*LISTS, strict=True)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        to = _target(world, phone)
        size = rng.choice((0, 0, 0, 0, 300, 3000))
        [many] = rng.choices(counts, weights)
        # One list may go to several chats.
        targets = [to if rng.random() < 0.9 else _target(world, phone) for _ in range(many)]
        phone.send([phone.fresh(target, size) for target in targets if target])


def _target(world: "World", phone: Phone) -> str:
    """Choose a friend or a group, now and then one that may not be written to."""
    rng, user = world.rng, phone.user
    own = [key for key, (group, _) in world.groups.items() if user.name in group.roles]
    if rng.random() < 0.03:
        return rng.choice([*world.groups, *(name for name in world.users if name != user.name)])
    if own and rng.random() < 0.4:
        return rng.choice(own)
    friends = sorted(user.friends)
    return rng.choice(friends or own or [name for name in world.users if name != user.name])


def _ack(world: "World", phone: Phone) -> None:
    if world.rng.random() < 0.5:
        phone.ack_packet()
    else:
        phone.ack_some()


def _read(world: "World", phone: Phone) -> None:
    if phone.seen and phone.seen[-1]:
        chat, number = world.rng.choice(phone.seen[-50:])
        phone.read(chat, number if world.rng.random() < 0.7 else 0)


def _ping(world: "World", phone: Phone) -> None:
    """Ask something, mostly right behind an ack: the answer says that it is committed."""
    if world.rng.random() < 0.7:
        _ack(world, phone)
    phone.command("ping")


def _beat(world: "World", phone: Phone) -> None:
    phone.heartbeat()


def _leave_connection(world: "World", phone: Phone) -> None:
    phone.drop(world.rng.choice(("close", "reset", "vanish")))


def _change_mood(world: "World", phone: Phone) -> None:
    phone.eager = not phone.eager
    while phone.eager and phone._packets:
        phone.ack_packet()


def _log_out(world: "World", phone: Phone) -> None:
    """Log out, and perhaps come back on another connection before that is answered."""
    world.dying.add(phone.name)
    phone.ack_packet()
    phone.logout()
    if world.rng.random() < 0.5:
        phone.connect()


def _sign_out(world: "World", phone: Phone) -> None:
    """Sign another device out."""

    def then(reply: dict[str, Any]) -> None:
        others = [each for each in reply["result"] if not each["current"] and each["name"]]
        if others and phone.on:
            target = world.rng.choice(others)
            world.dying.add(target["name"])
            world.loop.call_soon(sign_out, target)

    def sign_out(target: dict[str, Any]) -> None:
        if not phone.on:
            return
        _send(world, phone)
        phone.command("sign_out", about=target["name"], deviceId=target["deviceId"])
        for other in phone.user.phones:
            if other.name == target["name"]:
                _use(world, other)

    phone.command("devices", then=then)


def _use(world: "World", phone: Phone) -> None:
    """Have a phone ack what comes, for a moment."""
    for _ in range(8):
        world.loop.call_later(world.rng.uniform(0, 2.0), phone.ack_packet)


def _recall(world: "World", phone: Phone) -> None:
    if phone.confirmed:
        _, number = world.rng.choice(phone.confirmed[-20:])
        phone.command("recall", about=str(number), msgId=str(number))


def _block(world: "World", phone: Phone) -> None:
    other = _somebody(world, phone)
    name = world.rng.choice(("block", "unblock", "unblock"))
    phone.command(name, about=other.name, userId=other.id)


def _unfriend(world: "World", phone: Phone) -> None:
    if len(phone.user.friends) > 2:
        other = world.users[world.rng.choice(sorted(phone.user.friends))]
        phone.command("delete_friend", "unfriend", other.name, userId=other.id)
        phone.user.friends.discard(other.name)
        other.friends.discard(phone.user.name)


def _somebody(world: "World", phone: Phone) -> "User":
    return world.rng.choice([user for user in world.users.values() if user is not phone.user])


# --- groups -------------------------------------------------------------------------------------


def _create(world: "World", phone: Phone) -> None:
    if len(world.groups) < 6:
        friends = sorted(phone.user.friends)
        chosen = world.rng.sample(friends, world.rng.randint(0, len(friends)))
        ids = [world.users[name].id for name in chosen]
        phone.command("create_group", name="a group", kind="group", userIds=ids)


def _lead(world: "World", phone: Phone) -> None:
    """Do something to a group, mostly as one who may."""
    rng, name = world.rng, phone.user.name
    groups = list(world.groups.items())
    led = [
        (key, group) for key, (group, _) in groups if group.roles.get(name, "member") != "member"
    ]
    own = [(key, group) for key, (group, _) in groups if name in group.roles]
    choice = led if led and rng.random() < 0.8 else own
    if not choice:
        _create(world, phone)
        return
    key, group = rng.choice(choice)
    others = [user for user in group.roles if user != name] or [name]
    outside = [user for user in sorted(phone.user.friends) if user not in group.roles]
    one = world.users[rng.choice(others)].id
    what = rng.choice(("kick", "invite", "invite", "mute", "role", "all", "leave", "dissolve"))
    if what == "kick":
        phone.command("kick", groupId=key, userIds=[one])
    elif what == "invite" and outside:
        phone.command("invite", groupId=key, userIds=[world.users[rng.choice(outside)].id])
    elif what == "mute":
        phone.command("mute", groupId=key, userId=one, seconds=rng.choice((0, 1, 30, 3600)))
    elif what == "role":
        role = rng.choice(("admin", "admin", "member", "owner"))
        phone.command("set_role", groupId=key, userId=one, role=role)
    elif what == "all":
        phone.command("update_group", groupId=key, muteAll=rng.random() < 0.4)
    elif what == "leave" and rng.random() < 0.5:
        phone.command("leave_group", groupId=key)
    elif what == "dissolve" and rng.random() < 0.1:
        phone.command("dissolve_group", groupId=key)


def _kick_while_writing(world: "World", phone: Phone) -> None:
    """Kick somebody whose messages are under way, and who goes on writing."""
    name = phone.user.name
    for key, (group, _) in world.groups.items():
        if group.roles.get(name) not in ("owner", "admin"):
            continue
        members = [user for user, role in group.roles.items() if role == "member"]
        for victim in (other for user in members for other in world.users[user].phones):
            if victim.on:
                victim.send([victim.fresh(key) for _ in range(5)])
                phone.command("kick", groupId=key, userIds=[victim.user.id])
                for _ in range(3):
                    victim.send([victim.fresh(key)])
                return


def _retry(world: "World", user: "User") -> None:
    rng = world.rng
    sent = [one for phone in user.phones for one, _ in phone.confirmed[-30:]]
    phones = [phone for phone in user.phones if phone.on]
    if sent and phones:
        rng.choice(phones).send_again(rng.choice(sent))


ACTIONS: tuple[tuple[Callable[["World", Phone], None], float], ...] = (
    (_send, 30),
    (_ack, 20),
    (_read, 5),
    (_ping, 6),
    (_beat, 5),
    (_leave_connection, 6),
    (_change_mood, 4),
    (_log_out, 1),
    (_sign_out, 1.5),
    (_recall, 3),
    (_block, 2),
    (_unfriend, 0.3),
    (_create, 1),
    (_lead, 8),
)


# --- the end ------------------------------------------------------------------------------------


async def settle(world: "World") -> None:
    """Have everybody come back, take in what waits, look things up, and find nothing waiting."""
    for user in world.users.values():
        if not user.phones:
            _add_phone(world, user)
    for phone in world.phones():
        phone.eager = True
        phone.drop("close")
    if not await _all(world, lambda phone: phone.drained, "come to rest"):
        return
    for phone in world.phones():
        _look_up(world, phone)
    await _all(world, lambda phone: phone.drained, "look everything up")
    for _ in range(5):
        for phone in world.phones():
            phone.connect()
        if not await _all(world, lambda phone: phone.on, "connect"):
            return
        # One that was on its way when its device left may be there, and acked, in no time.
        if not any(phone.waited for phone in world.phones()):
            return
        await _all(world, lambda phone: phone.drained, "drain")
        for phone in world.phones():
            phone.command("ping")
        await _all(world, lambda phone: phone.drained, "ping")
    world.alarm("I5: queues do not empty")


async def _all(world: "World", condition: Callable[[Phone], bool], what: str) -> bool:
    def done() -> bool:
        return _back(world) and all(condition(phone) for phone in world.phones())

    if await world.until(done):
        return True
    late = [phone for phone in world.phones() if not condition(phone)]
    for phone in late:
        facts = f"on={phone.on} acked={phone.acked} last={phone.last} target={phone.target}"
        facts += f" pending={len(phone.pending)} wanted={list(phone._wanted)[:3]}"
        world.alarm(f"I1: {phone.name} does not {what}: {facts}")
    return False


def _look_up(world: "World", phone: Phone) -> None:
    """Read what gaps hide and what groups said, and count."""
    name = phone.user.name
    own = [key for key, (group, _) in world.groups.items() if name in group.roles]
    for chat, after in (dict.fromkeys(own, 0) | phone.user.gaps).items():
        phone.look_up(chat, after)
    for key in own:
        counted = partial(_count, phone, "members", key)
        phone.command("group_members", then=counted, groupId=key, size=100)
    phone.command("friends", then=partial(_count, phone, "friends", ""), size=100)

    def mark(reply: dict[str, Any]) -> None:
        """Tell each chat's mark as an answer of its own."""
        for chat in reply.get("result", ()):
            key = world._chat_name(phone.user, chat["chatId"])
            phone.note_count("mark", key, int(chat["read"]))

    phone.command("chats", then=mark, size=100)


def _count(phone: Phone, what: str, about: str, reply: dict[str, Any]) -> None:
    if reply["status"] == 1:
        phone.note_count(what, about, len(reply["result"]))
