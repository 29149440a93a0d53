"""Lines of keys: right for every way to write one, and left out where they are not sure."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushd.config import default_text
from pushd.keylines import lines_of


def dotted(text: str) -> dict[str, int]:
    return {".".join(path): line for path, line in lines_of(text).items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# [a]\n\n", {}),
        ("a = 1", {"a": 1}),
        ("[a]\nb = 1\n\tc\t=\t2 # d = 3\n", {"a": 1, "a.b": 2, "a.c": 3}),
        ("a.b = 1\na . c = 2\n", {"a": 1, "a.b": 1, "a.c": 2}),
        ("[a.b]\nc = 1\n[ a ]\nd = 2\n", {"a": 1, "a.b": 1, "a.b.c": 2, "a.d": 4}),
        ("a = {b = 1, c.d = '}'}\ne=1", {"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1, "e": 2}),
        ("a = {b = [\n1,\n], c = 1}\n", {"a": 1, "a.b": 1, "a.c": 3}),
        ("a = [\n  'b = 1', # ]\n  [1, {c = 2}],\n]\nd = 1", {"a": 1, "d": 5}),
        ('"a b"."c\\"=" = 1\n\'d\' = 2', {"a b": 1, 'a b.c"=': 1, "d": 2}),
        ('a = """\nb = 1\n\\"""\n"""""\nc = 1', {"a": 1, "c": 5}),
        ("a = '''\n[b]\n''''\nc = 1", {"a": 1, "c": 4}),
        ('a = "[b]\\" # "\nc = 1', {"a": 1, "c": 2}),
        ("a = 1979-05-27 07:32:00.5-07:00\nb = -inf\nc = +1_0.e3\n", None),
        ("a = 1979-05-27 07:32:00.5-07:00\nb = -inf\nc = 0xAf\n", {"a": 1, "b": 2, "c": 3}),
        ("a = 1\r\nb = 2\r\n", {"a": 1, "b": 2}),
        ("[[a]]\nb = 1\n[a.c]\nd = 1\n[[a]]\nb = 2\n[e]\nf = 1", {"a": 1, "e": 7, "e.f": 8}),
        ("a = '''\u2028\x85'''\nb = 1", {"a": 1, "b": 2}),
    ],
)
def test_lines(text: str, expected: dict[str, int] | None) -> None:
    """Tables, dotted and quoted keys, inline tables; what looks like a key in a value is none."""
    if expected is None:  # the control: what is no TOML is nobody's concern, but does not raise
        with pytest.raises(ValueError):
            tomllib.loads(text)
        lines_of(text)
        return
    tomllib.loads(text)
    assert dotted(text) == expected


NAMES = st.text("ab-_9", min_size=1, max_size=3)
TEXTS = st.text("a=[]{}#'\"\\\n, ", max_size=8)
SCALARS = st.one_of(
    st.integers(-9, 9).map(str),
    st.sampled_from(["true", "nan", "1979-05-27", "1979-05-27 07:32:00", "1e3"]),
    TEXTS.map(lambda text: '"' + text.translate({34: '\\"', 92: "\\\\", 10: "\\n"}) + '"'),
    TEXTS.map(lambda text: '"""' + text.translate({34: '\\"', 92: "\\\\"}) + '"""'),
    TEXTS.map(lambda text: "'" + text.translate({39: "", 10: ""}) + "'"),
    TEXTS.map(lambda text: "'''" + text.translate({39: ""}) + "'''"),
)


def _list(parts: list[str]) -> str:
    return "[\n# ]\n" + ",\n".join(parts) + "\n]"


@given(
    st.lists(
        st.tuples(
            st.booleans(), NAMES, st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(_list))
        ),
        max_size=8,
    )
)
def test_any_document(statements: list[tuple[bool, str, str]]) -> None:
    """Of any document each key has its line, and there is no other key."""
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, (header, name, value) in enumerate(statements):
        key = f"{name}{number}"
        line = "\n".join(lines).count("\n") + (2 if lines else 1)
        if header:
            table = (key,)
            lines.append(f"[{key}]  # {value.splitlines()[0]}")
            expected[table] = line
        else:
            lines.append(f"{key} = {value} # {key} = 1")
            expected[*table, key] = line
    text = "\n".join(lines)
    tomllib.loads(text)
    assert lines_of(text) == expected


@given(st.text("ab.=[]{}#'\"\\\n, 1", max_size=60))
def test_no_text_raises(text: str) -> None:
    """Whatever the text, there are lines or none, and of a good one only keys that it has."""
    found = lines_of(text)
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    for path in found:
        table: object = document
        for name in path:
            table = table[0] if isinstance(table, list) else table
            assert isinstance(table, dict)
            table = table[name]


def test_the_shipped_file_with_all_settings() -> None:
    """Uncommented, each line of it is found where it stands."""
    text = "\n".join(
        line[2:] if line.startswith("# ") and " = " in line and line[2].islower() else line
        for line in default_text().splitlines()
    )
    lines = text.splitlines()
    found = lines_of(text)
    assert len(found) > 90
    for path, line in found.items():
        start = f"[{path[0]}]" if len(path) == 1 else f"{path[1]} = "
        assert lines[line - 1].startswith(start)


@pytest.mark.parametrize(
    "text", ["[a]\n" + "b." * 1000 + "c = 1", "a = " + "[" * 100 + "]" * 100, "[[a]]\n" * 5000]
)
def test_large_ones(text: str) -> None:
    """Depth and number of tables cost nothing that grows with their square."""
    tomllib.loads(text)
    assert lines_of(text)[("a",)] == 1
