"""Strategies for what clients send: values of every JSON type, odd texts, and ids of others."""

from collections.abc import Mapping
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
