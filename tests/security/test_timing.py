"""What the time of an answer tells, and passwords at the limits of the hash.

The samples of all kinds are taken in turn, so that a busy machine slows each of them alike. The
long form: `python -m tests.security.timing --rounds 500`.
"""

import pytest

from tests.conformance.people import failed
from tests.conformance.process import StartServer
from tests.conformance.wire import Dialer, new_phone
from tests.security.timing import SETTINGS, sample

# bcrypt looks at 72 bytes; two of these differ only behind that, or in the last byte before it.
AT_THE_LIMIT = ["a" * 64, "密" * 24, "é" * 36, "😀" * 18]
OVER = ["a" * 65, "密" * 25, "é" * 37, "😀" * 19, "a" * 200, "密" * 64, "x" * 2000, "密" * 24 + "a"]


@pytest.mark.slow
async def test_known_unknown_and_disabled_take_as_long(server: StartServer) -> None:
    """With `hide_unknown_users` the three answer alike, in text and in time (medians, 5 %)."""
    own = server(auth_hide_unknown_users=True, auth_bcrypt_cost=8, **SETTINGS)
    seen = []
    for _ in range(4):
        # A few samples of a busy machine are worth no more than 10 %; the long form has the 5 %.
        seen.append(await sample(own, 20))
        if max(seen[-1].values()) <= min(seen[-1].values()) * 1.10:
            return
    raise AssertionError(f"never alike: {seen}")


@pytest.mark.slow
async def test_the_clock_would_tell(server: StartServer) -> None:
    """The same measurement finds the difference where the option is off."""
    own = server(auth_hide_unknown_users=False, auth_bcrypt_cost=8, **SETTINGS)
    medians = await sample(own, 10)
    assert medians["unknown"] < medians["known"] * 0.5, medians


@pytest.mark.parametrize("password", AT_THE_LIMIT, ids=ascii)
async def test_longest_passwords_count_to_the_last_byte(dial: Dialer, password: str) -> None:
    """64 characters and 72 bytes work, and a password that differs in the last one does not."""
    wire = await dial.user(password=password)
    other = chr(ord(password[-1]) ^ 1)
    again = await dial()
    for wrong in (password[:-1] + other, password[:-1]):
        await failed(again, 10000, "login", {}, phone=wire.phone, password=wrong)
    await again.login(wire.phone, password)


@pytest.mark.parametrize("password", OVER, ids=len)
async def test_longer_passwords_are_refused_everywhere(dial: Dialer, password: str) -> None:
    """Never cut, never 5000: 8003 at `register`, `login` of anybody, and `change_password`."""
    wire = await dial.user()
    other = await dial()
    for phone in (wire.phone, new_phone()):
        await failed(other, 8003, "register", {}, phone=phone, password=password)
        await failed(other, 8003, "login", {}, phone=phone, password=password)
    for fields in (
        {"old": password, "new": wire.password},
        {"old": wire.password, "new": password},
    ):
        await failed(wire, 8003, "change_password", {}, **fields)
    await failed(wire, 8003, "delete_account", {}, password=password)
