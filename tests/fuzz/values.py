"""Strategies for what clients send: values of every JSON type, odd texts, and ids of others."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from pushd.commands import Command
from pushd.handlers.terminal import fields_of

from .core import World
from .seeds import value_of

Frame = dict[str, Any]

# Letters that have broken other servers: no letters, halves, marks that join, hide and reverse.
ODD_LETTERS = "\0\t\n\r\x1b\x7f\x85\u0301\u200b\u200d\u2028\u2029\u202e\u2066\ufeff\ufffe\U0010ffff"
ODD_LETTERS += "\u00b2\u0661\uff11\u0130\u0131\u017f\u00df\ufb01\u1e9e\U0001f600%_\\'\"/"
HALVES = st.sampled_from("\ud800\udbff\udc00\udfff")

letters = st.characters(exclude_categories=["Cs"]) | st.sampled_from(ODD_LETTERS)
texts = st.text(letters, max_size=40)
long_texts = st.builds(
    lambda unit, size: (unit * size)[:size], texts.filter(bool), st.integers(1, 12_000)
)
_pages = ("after:1", "after:", "after:1.2", "after:" + "9" * 18, "after:" + "9" * 19)
_numerals = ("0", "1", "-1", "1.0", "01", " 1", "1e3", "\uff11", "\u00b2", "true", "null")
numeric_texts = st.sampled_from((*_pages, *_numerals, "9" * 15, "9" * 16, "9" * 30))
integers = st.integers(-5, 200) | st.sampled_from(
    [2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, -(2**53), -(2**63) - 1, 10**40]
)
numbers = st.sampled_from([0.0, -0.0, 1.0, 1.5, 1e300, 1e-300, 2.0**53, -1e15])
scalars = st.none() | st.booleans() | integers | numbers | texts | numeric_texts
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(letters, max_size=8), inner)
    ),
    max_leaves=6,
)


def kind_of(value: object) -> str:
    """Name the JSON type of a value as `help` names types; "" for null and the empty text."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def wrong_types(row: Command, request: Mapping[str, Any]) -> set[str]:
    """Give the fields of a request that hold a value of a type that the table does not name."""
    named = {name: kinds.split(" or ") for name, kinds in fields_of(row).items()}
    found = {name: kind_of(value) for name, value in request.items() if name in named}
    return {name for name, kind in found.items() if kind and kind not in named[name]}


# Values of each JSON type, and texts that a lenient reader takes for numbers or truths.
OF_TYPES: dict[str, tuple[Any, ...]] = {
    "string": ("1", "1.5", "true", "x"),
    "integer": (1,),
    "number": (1.5,),
    "boolean": (True,),
    "array": ([], [1], ["1"]),
    "object": ({}, {"x": 1}),
}
MISSING = object()
# What is right or wrong by the field; wrong it is for no server to stumble over.
ODD_TEXTS = ("after:9223372036854775808", "9" * 30, "-1", "\u00b2", "\u202e", " ", "\ud7ff")
# What a field is given, by what must become of it.
REFUSED = (
    "another type",
    "with U+0000",
    "longer than allowed",
    "less than allowed",
    "more than allowed",
    "items",
)
TAKEN = ("missing", "null", "empty", "as long as allowed", "least", "most")


def each_of(kind: Any) -> Iterator[tuple[str, Any]]:
    """Give the values that a field of this type is tried with, each with what it is."""
    yield "missing", MISSING
    yield from (("null", None), ("empty", "")) if nullable(kind) else ()
    options = options_of(kind)
    named = {str(option.get("type", "string")) for option in options}
    for other, tried in OF_TYPES.items():
        # JSON has no other sign of an integer than that it is whole.
        if other not in named and not (other == "integer" and "number" in named):
            yield from (("another type", value) for value in tried)
    if "string" in named:
        yield from (("odd", text) for text in ODD_TEXTS)
        yield "with U+0000", "a\0b"
    for option in options:
        yield from _edges(option, alone=len(named) == 1)


def options_of(kind: Any) -> list[Frame]:
    """Give what a field takes, as parts of a JSON Schema, without null."""
    schema = msgspec.json.schema(kind)
    found = schema.get("anyOf", [schema])
    parts = schema.get("$defs", {})
    found = [parts[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for each in found]
    return [each for each in found if each.get("type") != "null" and each.get("enum") != [""]]


def nullable(kind: Any) -> bool:
    """Tell whether null and "" stand for a field that is absent."""
    return any(each.get("type") == "null" for each in msgspec.json.schema(kind).get("anyOf", []))


def _edges(option: Frame, *, alone: bool) -> Iterator[tuple[str, Any]]:
    """Give the longest and the largest values that a type takes, and those beyond them."""
    if "maxLength" in option:
        yield "as long as allowed", "x" * option["maxLength"]
        yield "longer than allowed" if alone else "perhaps", "x" * (option["maxLength"] + 1)
    if "minimum" in option:
        yield "least", option["minimum"]
        yield "less than allowed", option["minimum"] - 1
    if "maximum" in option:
        yield "most", option["maximum"]
        yield "more than allowed", option["maximum"] + 1
    for other, tried in OF_TYPES.items() if "items" in option else ():
        named = {str(each.get("type", "object")) for each in options_of_items(option["items"])}
        if other not in named and not (other == "integer" and "number" in named):
            yield from (("items", [value]) for value in tried)


def options_of_items(items: Frame) -> list[Frame]:
    """Give what an array takes, as parts of a JSON Schema."""
    found: list[Frame] = items.get("anyOf", [items])
    return found


def ids(world: World) -> SearchStrategy[str]:
    """Draw an id: of the person's own, of others', or of nobody."""
    own, others = map(str, world.known.values()), map(str, world.foreign.values())
    made = ["10001", "10009", "g999", "10001-10003", "10001-10001", "system", "0", "-1"]
    return st.sampled_from([*own, *others, *made])


def requests(world: World, row: Command) -> SearchStrategy[Frame]:
    """Draw a request: some fields sound, some missing, some with anything in them."""
    fields = msgspec.structs.fields(row.request)
    drawn = {}
    for each in fields:
        name = each.encode_name
        sound = st.just(value_of(name, each.type, world.known))
        others = ids(world)
        drawn[name] = sound | sound | others | st.lists(others, max_size=3) | anything | long_texts
    return st.fixed_dictionaries({}, optional=drawn)
