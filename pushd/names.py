"""Phones, passwords, usernames and searched text: the one form in which each is compared.

Text that people type has many spellings of one thing, and two spellings of one key are two
accounts, or a search that finds nothing. So every text has one form here, and nothing else in
pushd compares by another:

    phone       `normal_phone`    what is stored, looked up and counted by budgets
    password    `check_password`  the bytes as they came: never folded, never trimmed
    username    `check_username`  what is shown; `name_key` of it is what is unique
    search      `fold`            names and message texts, and what is looked for in them

`name_key` and `fold` are fixed points: applied to their own result they change nothing, so a
stored key and a fresh one agree. Both normalise to NFKC, composed, so that `ä` is one character
that is found in `Ärzte` but not by a search for `a`.

Normalising sorts the marks behind a character in quadratic time: 10,000 alternating marks, which
a text may hold, would stop the server for 100 ms. So no more than `MARKS` of a run count.

No I/O, no clock. A refusal never quotes what it refuses.
"""

import re
import unicodedata
from collections.abc import Collection, Container, Iterator

from .errors import BadField, Refusal
from .status import Status

# The marks in a row that count: Unicode's stream-safe format allows as many, people need four.
MARKS = 30

USERNAME_LENGTH = 15
PASSWORD_LENGTH = 64
# bcrypt looks at no more, and cutting would make two passwords one.
PASSWORD_BYTES = 72

_BLANKS = " \t\n\r\v\f"
_MAINLAND = re.compile(r"1[3-9][0-9]{9}")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")

# Halfwidth voiced marks are letters that become marks when normalised.
_HALFWIDTH_MARKS = "\uff9e\uff9f"
# Not the marks alone, but all that can be one: enough to pass over ordinary text quickly.
_LONG_RUN = re.compile(rf"(?:[^\w\s\x00-\x7f]|[{_HALFWIDTH_MARKS}]){{{MARKS + 1},}}")

# Control, format (all bidirectional controls are), private, unassigned, surrogate, line and
# paragraph separator.
_ILLEGAL = frozenset({"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"})

# What breaks a line, begins a command of a terminal, or turns the direction of what follows.
_MISLEADING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# Letters of other scripts that look like those of reserved names.
_LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u04cf\u043c\u0442\u043f"
    "\u03b1\u03bf\u03c1\u03c5\u03b9\u03c4\u03bd\u0131\u0261\u1d0d",
    "aeopcyxijsdhlmtnaopuitvigm",
)

# Default_Ignorable_Code_Point of Unicode, as far as it is not of category Cf; and the Braille
# blank, which is not ignorable but looks like nothing all the same.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


def normal_phone(value: str | int | None) -> str:
    """Return the one form of a phone number: 11 digits (mainland), else `+` and its digits.

    A number and a string of the same digits are the same phone, `+86` before a mainland number
    says nothing, and ASCII blanks around it do not count. No other spelling is guessed at.

    Raises: Refusal 6003 (empty), 8001 (length), 8000 (otherwise no phone).
    """
    if value is None or isinstance(value, bool):
        raise _phone(Status.NULL_PHONE if value is None else Status.FORMAT_ERROR_PHONE)
    if isinstance(value, int) and abs(value) >= 10**18:
        # Python refuses to print integers of some thousand digits.
        raise _phone(Status.FORMAT_ERROR_PHONE_LENGTH)
    text = str(value).strip(_BLANKS)
    if not text:
        raise _phone(Status.NULL_PHONE)
    if not text.isascii():
        raise _phone(Status.FORMAT_ERROR_PHONE)
    return _international(text) if text.startswith("+") else _mainland(text)


def looks_like_phone(text: str) -> bool:
    """Tell whether a searched text is a whole phone number rather than part of a name."""
    try:
        normal_phone(text)
    except Refusal:
        return False
    return True


def check_password(
    value: str | None,
    minimum: int = 6,
    *,
    field: str = "password",
    common: Container[str] = (),
) -> bytes:
    """Return the password's bytes, untouched, if it may be used as one.

    `common` holds what a new one may not be, in lower case.

    Raises: Refusal 6000 (empty), 8003 (length in characters or bytes), 8002 (control
    characters, only blanks, or a common one), with `field`.
    """
    if not value:
        raise Refusal(Status.NULL_PASSWORD, field=field)
    # A surrogate is refused below; an encoding error would carry the password with it.
    encoded = value.encode("utf-8", "surrogatepass")
    if not minimum <= len(value) <= PASSWORD_LENGTH or len(encoded) > PASSWORD_BYTES:
        text = (
            f"a password has {minimum} to {PASSWORD_LENGTH} characters"
            f" and at most {PASSWORD_BYTES} bytes"
        )
        raise Refusal(Status.FORMAT_ERROR_PASSWORD_LENGTH, text, field=field)
    if value.isspace() or any(unicodedata.category(char) in {"Cc", "Cs"} for char in value):
        raise Refusal(Status.FORMAT_ERROR_PASSWORD, field=field)
    if value.casefold() in common:
        text = "this is one of the passwords that everybody tries first"
        raise Refusal(Status.FORMAT_ERROR_PASSWORD, text, field=field)
    return encoded


def check_username(value: str | None, reserved: Collection[str] = ()) -> str:
    """Return the name as it is shown: NFKC, without blanks around it; "" if it is blank.

    Whether a blank name is an error is the caller's affair. `reserved` holds names as people
    write them; what has the key of one of them, or looks like it, is refused.

    Raises: Refusal 8004 (over 15 characters), then 9000 (characters that hide or reorder, all
    digits, nothing visible, reserved).
    """
    name = _normal(value or "").strip()
    if not name:
        return ""
    if len(name) > USERNAME_LENGTH:
        raise Refusal(Status.FORMAT_ERROR_USER_LENGTH, field="username")
    if any(unicodedata.category(char) in _ILLEGAL for char in name):
        raise Refusal(Status.ILLEGAL_USERNAME, field="username")
    key = name_key(name)
    like = key.translate(_LOOKALIKES)
    if not key or key.isspace() or key.isdigit() or like in {name_key(word) for word in reserved}:
        raise Refusal(Status.ILLEGAL_USERNAME, field="username")
    return name


def check_label(value: str, field: str) -> str:
    """Return a name of a group or an alias without blanks around it.

    Raises: BadField for characters that break a line or turn its direction, since a list of such
    names would show what is not there.
    """
    if _MISLEADING.search(value):
        raise BadField(field, f"{field} holds a control character")
    return value.strip()


def name_key(name: str) -> str:
    """Return the form in which a name is unique: width, case and invisible characters aside.

    It may be empty, if nothing of the name is visible.
    """
    while True:
        key = _normal("".join(_visible(_normal(name).casefold())))
        if key == name:
            return key
        name = key


def fold(text: str) -> str:
    """Return the form in which text is searched: case, width and composition aside.

    A text is found if its folded form contains the folded form of what is looked for. The result
    may be longer than the text.
    """
    if text.isascii():
        return text.lower()
    while True:
        # Lower case of the Turkish `İ` is an i with a dot above, which nobody types.
        folded = _normal(_normal(text).casefold()).replace("i\u0307", "i")
        if folded == text:
            return folded
        text = folded


def _mainland(text: str) -> str:
    if len(text) != 11:
        raise _phone(Status.FORMAT_ERROR_PHONE_LENGTH)
    if not _MAINLAND.fullmatch(text):
        raise _phone(Status.FORMAT_ERROR_PHONE)
    return text


def _international(text: str) -> str:
    if text.startswith("+86") and _MAINLAND.fullmatch(text, 3):
        return text[3:]
    if len(text) > 16:
        raise _phone(Status.FORMAT_ERROR_PHONE_LENGTH)
    if not _E164.fullmatch(text):
        raise _phone(Status.FORMAT_ERROR_PHONE)
    return text


def _phone(status: Status) -> Refusal:
    return Refusal(status, field="phone")


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", _LONG_RUN.sub(_shortened, text))


def _shortened(run: re.Match[str]) -> str:
    return "".join(_few_marks(run[0]))


def _few_marks(text: str) -> Iterator[str]:
    marks = 0
    for char in text:
        is_mark = unicodedata.combining(char) or char in _HALFWIDTH_MARKS
        marks = marks + 1 if is_mark else 0
        if marks <= MARKS:
            yield char


def _visible(text: str) -> Iterator[str]:
    for char in text:
        if unicodedata.category(char) != "Cf" and not _INVISIBLE.match(char):
            yield char
