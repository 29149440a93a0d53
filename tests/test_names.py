"""Phones, passwords, usernames and searched text each have one form."""

import time
import unicodedata
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushd.errors import Refusal
from pushd.names import (
    MARKS,
    check_password,
    check_username,
    fold,
    looks_like_phone,
    name_key,
    normal_phone,
)
from pushd.status import Status

settings.register_profile("names", deadline=None)
relaxed = settings(settings.get_profile("names"))

# Characters that fold in unusual ways, so that examples are not all far from the rules.
ODD = "İıſßẞςΣἹͅ\u0307\u0301\u0323\u0344äÄa\u0308iIﬁﾞﾟガＡａ가ᄀ\u1161\u11a8\u200b\ufe0f\u034f\u3164"
texts = st.text(st.one_of(st.characters(), st.sampled_from(ODD)), max_size=30)
folds = st.text(st.one_of(st.characters(max_codepoint=0x2FF), st.sampled_from(ODD)), max_size=12)


def both_forms(text: str) -> tuple[str, str]:
    """Return a text composed and decomposed."""
    return unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)


def refused(call: object, *args: object, **kwargs: object) -> tuple[Status, str]:
    """Return the status and field of the refusal that the call must end in."""
    assert callable(call)
    with pytest.raises(Refusal) as caught:
        call(*args, **kwargs)
    return caught.value.status, caught.value.field


@pytest.mark.parametrize(
    "spelling",
    ["18870742138", 18870742138, "+8618870742138", " 18870742138\r\n", "\t+8618870742138 "],
)
def test_one_phone(spelling: str | int) -> None:
    """Number, string, blanks around it and +86 are the same phone."""
    assert normal_phone(spelling) == "18870742138"


@pytest.mark.parametrize("phone", ["+4612345678", "+1234567", "+123456789012345", "+8612345678901"])
def test_foreign_phone(phone: str) -> None:
    """Other numbers of 7 to 15 digits behind a plus keep it, and so never meet a mainland one."""
    assert normal_phone(phone) == phone


@pytest.mark.parametrize(
    ("spelling", "status"),
    [
        (None, Status.NULL_PHONE),
        ("", Status.NULL_PHONE),
        (" \t\r\n", Status.NULL_PHONE),
        ("1887074213", Status.FORMAT_ERROR_PHONE_LENGTH),
        ("188707421380", Status.FORMAT_ERROR_PHONE_LENGTH),
        ("018870742138", Status.FORMAT_ERROR_PHONE_LENGTH),
        ("008618870742138", Status.FORMAT_ERROR_PHONE_LENGTH),
        ("86 188-7074-2138", Status.FORMAT_ERROR_PHONE_LENGTH),
        ("18870742138.0", Status.FORMAT_ERROR_PHONE_LENGTH),
        (0, Status.FORMAT_ERROR_PHONE_LENGTH),
        pytest.param(10**5000, Status.FORMAT_ERROR_PHONE_LENGTH, id="huge"),
        ("+1234567890123456", Status.FORMAT_ERROR_PHONE_LENGTH),
        ("12870742138", Status.FORMAT_ERROR_PHONE),
        ("1887074213a", Status.FORMAT_ERROR_PHONE),
        ("1887074 138", Status.FORMAT_ERROR_PHONE),
        (-1887074213, Status.FORMAT_ERROR_PHONE),
        (True, Status.FORMAT_ERROR_PHONE),
        ("１８８７０７４２１３８", Status.FORMAT_ERROR_PHONE),
        ("1887074213٨", Status.FORMAT_ERROR_PHONE),
        ("\u00a018870742138", Status.FORMAT_ERROR_PHONE),
        ("+", Status.FORMAT_ERROR_PHONE),
        ("+123456", Status.FORMAT_ERROR_PHONE),
        ("+0123456789", Status.FORMAT_ERROR_PHONE),
        ("+46 1234567", Status.FORMAT_ERROR_PHONE),
        ("++4612345678", Status.FORMAT_ERROR_PHONE),
    ],
)
def test_no_phone(spelling: str | int | None, status: Status) -> None:
    """Empty is 6003, a wrong length 8001, all else that is no phone 8000."""
    assert refused(normal_phone, spelling) == (status, "phone")


@relaxed
@given(
    st.text(st.sampled_from("+0123456789 8613"), max_size=18) | st.from_regex(r"\A1[3-9][0-9]{9}\Z")
)
def test_phone_is_stable(text: str) -> None:
    """A phone's normal form is its own normal form, in ASCII digits."""
    if looks_like_phone(text):
        phone = normal_phone(text)
        assert normal_phone(phone) == phone
        assert phone.isascii() and phone.removeprefix("+").isdigit()


@given(st.integers(0, 10**16))
def test_phone_number_and_string_agree(number: int) -> None:
    """A number and the string of its digits are the same phone, or refused alike."""

    def outcome(value: str | int) -> object:
        try:
            return normal_phone(value)
        except Refusal as refusal:
            return refusal.status

    assert outcome(number) == outcome(str(number))


def test_looks_like_phone() -> None:
    """Only a whole phone is searched as one; digits that are part of a name are not."""
    assert looks_like_phone(" +8618870742138")
    assert looks_like_phone("18870742138")
    assert not any(
        map(looks_like_phone, ["", "1887", "12345678901", "Ärzte", "１８８７０７４２１３８"])
    )


@pytest.mark.parametrize(
    "password", ["lkkzbl", "密" * 24, " p ass ", "a" * 64, "ÄﬁＡ１２３", "a\u0308bcde"]
)
def test_password_is_untouched(password: str) -> None:
    """A password's bytes are what was typed: no folding, no trimming, no normalising."""
    assert check_password(password) == password.encode()


@pytest.mark.parametrize(
    ("password", "status"),
    [
        (None, Status.NULL_PASSWORD),
        ("", Status.NULL_PASSWORD),
        ("12345", Status.FORMAT_ERROR_PASSWORD_LENGTH),
        ("a" * 65, Status.FORMAT_ERROR_PASSWORD_LENGTH),
        ("密" * 25, Status.FORMAT_ERROR_PASSWORD_LENGTH),
        ("\x00" * 65, Status.FORMAT_ERROR_PASSWORD_LENGTH),
        ("     ", Status.FORMAT_ERROR_PASSWORD_LENGTH),
        ("      ", Status.FORMAT_ERROR_PASSWORD),
        ("\u3000\u00a0    ", Status.FORMAT_ERROR_PASSWORD),
        ("abc\x00def", Status.FORMAT_ERROR_PASSWORD),
        ("abc\x7fdef", Status.FORMAT_ERROR_PASSWORD),
        ("abc\u0085def", Status.FORMAT_ERROR_PASSWORD),
        ("abcdef\n", Status.FORMAT_ERROR_PASSWORD),
        ("abc\ud800def", Status.FORMAT_ERROR_PASSWORD),
    ],
)
def test_password_refused(password: str | None, status: Status) -> None:
    """Empty is 6000, then length in characters and bytes 8003, then format 8002."""
    assert refused(check_password, password) == (status, "password")
    assert refused(check_password, password, field="new") == (status, "new")


def test_password_minimum() -> None:
    """The least length is a setting, and the text of the refusal tells it."""
    assert check_password("12345678", 8) == b"12345678"
    with pytest.raises(Refusal, match="8 to 64"):
        check_password("1234567", 8)


@given(st.text(max_size=80))
def test_password_bound(password: str) -> None:
    """What is accepted fits in bcrypt's 72 bytes, and a refusal never quotes the password."""
    try:
        assert 6 <= len(check_password(password)) <= 72
    except Refusal as refusal:
        assert len(password) < 3 or password not in repr(refusal)


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("  Ärzte ", "Ärzte"),
        ("A\u0308rzte", "Ärzte"),
        ("Ｗａｌｔｅｒ", "Walter"),
        ("中国人民", "中国人民"),
        ("100%", "100%"),
        ("'; --", "'; --"),
        ("a b", "a b"),
        ("一二三", "一二三"),
        ("❤\ufe0f", "❤\ufe0f"),
        ("x" * 15, "x" * 15),
        ("A\u0308" * 15, "Ä" * 15),
        (" " * 40, ""),
        ("\u3000\t", ""),
        (None, ""),
    ],
)
def test_username(typed: str | None, shown: str) -> None:
    """A name is shown normalised and trimmed; a blank one is the caller's affair."""
    assert check_username(typed) == shown


@pytest.mark.parametrize(
    "name", ["x" * 16, "ﷺ", "\u202e" * 16, "x" * 100_000, "a" + "\u0301\u0323" * 20]
)
def test_username_too_long(name: str) -> None:
    """Over 15 characters after normalising is 8004, whatever else is wrong."""
    assert refused(check_username, name) == (Status.FORMAT_ERROR_USER_LENGTH, "username")


@pytest.mark.parametrize(
    "name",
    [
        "a\x00b",
        "a\x1bb",
        "a\nb",
        "a\x85b",
        "a\u2028b",
        "a\u2029b",
        "a\u200bb",
        "a\u200fb",
        "a\u202eb",
        "a\u2066b",
        "a\ufeffb",
        "a\ue000b",
        "a\ud800b",
        "a\uffffb",
        "a\u0378b",
        "12345",
        "１２３",
        "٣٤٥",
        "12\ufe0f3",
        "\u3164",
        "\u2800",
        "\ufe0f \ufe0f",
        "admin",
        "ＡＤＭＩＮ",
        "ad\u034fmin",
        "系统",
    ],
)
def test_username_illegal(name: str) -> None:
    """What hides, reorders, is only digits, not visible or reserved in any spelling is 9000."""
    reserved = ("system", "Admin", "系统")
    assert refused(check_username, name, reserved) == (Status.ILLEGAL_USERNAME, "username")


@relaxed
@given(texts)
def test_username_is_stable(text: str) -> None:
    """A name that was accepted is accepted again, as it is, and has a visible key."""
    try:
        name = check_username(text)
    except Refusal:
        return
    assert check_username(name) == name
    assert len(name) <= 15
    assert not name or name_key(name)


@pytest.mark.parametrize(
    "others",
    [
        ("Ärzte", "ärzte", "ÄRZTE", "A\u0308rzte", "ärz\u200bte", "Ä\u034frzte", "Ä\u200drzte"),
        ("straße", "STRASSE", "ſtraße", "ＳＴＲＡẞＥ"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("❤\ufe0f", "❤", "\u3164❤\u2800"),
        ("가", "\u1100\u1161"),
    ],
)
def test_name_key_same(others: tuple[str, ...]) -> None:
    """Names that differ in width, case, composition or invisible characters are one name."""
    assert len({name_key(name) for name in others}) == 1


def test_name_key_different() -> None:
    """Names that look different are different."""
    names = ["Arzte", "Ärzte", "a b", "ab", "a_b", "中国", "中國"]
    assert len({name_key(name) for name in names}) == len(names)


@relaxed
@given(texts)
def test_keys_are_stable(text: str) -> None:
    """A key's key and a folded text's folded form are themselves: stored and fresh ones agree."""
    assert name_key(name_key(text)) == name_key(text)
    assert fold(fold(text)) == fold(text)


@relaxed
@given(texts)
def test_composition_is_nothing(text: str) -> None:
    """Composed and decomposed text have the same key and the same folded form."""
    for other in both_forms(text):
        assert name_key(other) == name_key(text)
        assert fold(other) == fold(text)


@pytest.mark.slow
def test_every_character_is_stable() -> None:
    """No single character of Unicode breaks the rules that the random tests try."""
    for char in map(chr, range(0x110000)):
        if unicodedata.category(char) in {"Cn", "Co", "Lo"} and char == fold(char):
            continue
        assert fold(fold(char)) == fold(char) == fold(unicodedata.normalize("NFD", char))
        assert name_key(name_key(char)) == name_key(char)
        assert fold(char.lower()) == fold(char)


def spellings(word: str) -> set[str]:
    """Return a word in both cases, composed and decomposed."""
    cased = {word, word.upper(), word.lower(), word.casefold()}
    return {form for one in cased for form in both_forms(one)}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Die Ärzte", "ä"),
        ("Die Ärzte", "ärzte"),
        ("İstanbul", "istanbul"),
        ("İstanbul", "İs"),
        ("ſtraße", "STRASSE"),
        ("ſtraße", "s"),
        ("中国人民", "国人"),
        ("ﾊﾝｶﾞﾘｰ", "ガ"),
        ("ＡＢＣ", "b"),
        ("Οδυσσεύς", "ΕΎΣ"),
    ],
)
def test_fold_finds(text: str, part: str) -> None:
    """A part is found in a text in any case, width and composition of either."""
    for one, other in product(spellings(text), spellings(part)):
        assert fold(other) in fold(one)


def test_fold_is_literal() -> None:
    """An accent is part of its letter, and no character stands for others."""
    assert fold("a") not in fold("Ä\u0308") and fold("arzte") not in fold("A\u0308rzte")
    assert fold("_") not in fold("axb") and fold("%") not in fold("100")
    assert fold("a\\b'") == "a\\b'"


@relaxed
@given(st.text(st.characters(max_codepoint=127)), st.sampled_from(["é", "中"]))
def test_fold_paths_agree(text: str, other: str) -> None:
    """The short path for ASCII gives what the long one does."""
    assert fold(text + other) == fold(text) + other


@relaxed
@given(folds, folds, st.sampled_from(["Ärzte", "İstanbul", "ſtraße", "中国", "Σ"]))
def test_fold_finds_between_words(before: str, after: str, word: str) -> None:
    """A whole word is found whatever other words stand around it."""
    assert fold(word.upper()) in fold(f"{before} {word} {after}")


@pytest.mark.parametrize("marks", ["\u0301\u0323", "\uff9e\u0301", "\u0344\u0323"])
def test_many_marks(marks: str) -> None:
    """Marks beyond what a letter can bear do not make the server stop to sort them."""
    text = "a" + marks * 100_000 + "b"
    started = time.process_time()
    folded = fold(text)
    assert time.process_time() - started < 2.0  # sorting them all takes a minute
    assert len(folded) <= 2 + MARKS and folded[-1] == "b"
