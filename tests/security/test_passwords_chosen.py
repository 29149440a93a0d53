"""Passwords that nobody may take, and the owners of old ones."""

from collections.abc import Callable

import pytest

from pushd.common import common_passwords
from tests.conformance.operated import Operated
from tests.conformance.people import failed
from tests.conformance.process import StartServer
from tests.conformance.wire import PASSWORD, Dialer, new_phone

# What people take first, in several parts of the world.
FAMOUS = """123456 12345678 123456789 password password1 passw0rd p@ssw0rd qwerty qwertyuiop abc123
iloveyou letmein football baseball dragon monkey master welcome1 admin123 111111 000000 666666
88888888 1q2w3e4r 1qaz2wsx zxcvbnm asdfgh 5201314 woaini1314 woaini a123456 123123 112233 121212
superman batman starwars pokemon michael jennifer princess sunshine trustno1 whatever"""


def test_there_are_3000() -> None:
    """The list holds the 3,000 commonest and more, all of a length that would be allowed."""
    found = common_passwords()
    assert len(found) >= 3000
    assert min(map(len, found)) >= 6
    assert all(word == word.casefold() and word.isascii() for word in found)
    assert set(FAMOUS.split()) <= found


async def test_the_commonest_are_refused(dial: Dialer) -> None:
    """Each of the 3,000 commonest is refused at `register`, and nobody is registered."""
    wire, phone = await dial(), new_phone()
    words = sorted(common_passwords())
    for at in range(0, len(words), 100):
        part = words[at : at + 100]
        lines = [{"cmd": "register", "phone": phone, "password": word} for word in part]
        for line in lines:
            await wire.send_line(line)
        for word in part:
            reply = await wire.reply()
            assert (reply["status"], reply["field"]) == (8002, "password"), (word, reply)
    await wire.refused(6004, {"cmd": "login", "phone": phone, "password": words[0]})


@pytest.mark.parametrize("password", ["Password1", "QWERTYUIOP", "P@ssw0rd"])
async def test_in_any_case(dial: Dialer, password: str) -> None:
    """Capitals make a common one no better, at `register` and at `change_password`."""
    await failed(await dial(), 8002, "register", {}, phone=new_phone(), password=password)
    wire = await dial.user()
    await failed(wire, 8002, "change_password", {}, "new", old=PASSWORD, new=password)
    await (await dial()).login(wire.phone)


@pytest.mark.parametrize("password", ["lkkzbl", "199shadjfk", "a b c d", "密码很好记", "passwordz"])
async def test_all_others_are_accepted(dial: Dialer, password: str) -> None:
    """What only resembles a common one is a password, of whatever characters."""
    password = password if len(password) > 5 else password * 2
    wire = await dial.user(password=password)
    await (await dial()).login(wire.phone, password)


async def test_an_operator_sets_none_either(operated: Callable[..., Operated]) -> None:
    """`register_user` and `reset_password` refuse common ones; those made there are good."""
    own = operated()
    user = await own.dial.user()
    operator = own.dial.operator(str(own.data / "control.sock"))
    await operator.refused(
        8002, {"cmd": "reset_password", "user": user.user_id, "password": "password"}
    )
    await operator.refused(
        8002, {"cmd": "register_user", "phone": new_phone(), "password": "iloveyou"}
    )
    made = await operator.ok("reset_password", user=user.user_id)
    await (await own.dial()).login(user.phone, made["password"])


async def test_allowed_where_the_operator_says_so(server: StartServer) -> None:
    """`auth.refuse_common = false` takes them."""
    own = server(auth_refuse_common=False)
    wire = await own.dial.user(password="123456")
    await (await own.dial()).login(wire.phone, "123456")


async def test_an_older_password_still_counts(operated: Callable[..., Operated]) -> None:
    """Rules for new passwords shut nobody out of what an old one is asked for."""
    own = operated("[auth]\nrefuse_common = false\n")
    wire = await own.dial.user(password="123456")
    own.file.write_text("[auth]\nmin_password = 12\n", "utf-8")
    await own.hup()
    again = await own.dial()
    await again.login(wire.phone, "123456")
    await failed(again, 8003, "change_password", {}, "new", old="123456", new="Zebra-7731")
    await again.ok("change_password", old="123456", new="Zebra-7731-long")
    other = await own.dial.user(password="a long password")
    own.file.write_text("[auth]\nmin_password = 20\n", "utf-8")
    await own.hup()
    await other.ok("delete_account", password="a long password")
