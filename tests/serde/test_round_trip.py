"""Round trips of generated values: with Any, with a hint made for the value, and canonical bytes."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Unserializable
from perdure.serde import Shape, fingerprint, show
from perdure.serde.difference import difference
from tests.serde import kinds as k

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
KEYS = st.one_of(TEXT, st.sampled_from(["$type", "$", "$$", "$tuple", "value"]))
ZONES = st.sampled_from([None, dt.UTC, ZoneInfo("Europe/Berlin"), dt.timezone(dt.timedelta(hours=-3, minutes=-30))])
DATES = st.datetimes(timezones=ZONES)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXT,
    st.binary(max_size=8),
    DATES,
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.sampled_from(list(k.Color) + list(k.Level) + list(k.Mode)),
    st.builds(k.Line, TEXT, st.integers()),
)
HASHABLE = st.one_of(st.integers(), TEXT, st.booleans(), st.dates(), st.tuples(st.integers(), TEXT))
HELD = st.tuples(st.integers(), TEXT)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_any_value_survives_without_a_hint(value: Any) -> None:
    shape = Shape.of(Any)
    data = shape.encode(value)
    copy = shape.decode(data)
    assert difference(value, copy) is None
    assert shape.encode(copy) == data


def hinted(draw: Any, depth: int = 0) -> tuple[Any, Any]:
    """Draw a hint and a strategy of values that fit it."""
    leaves: list[tuple[Any, Any]] = [
        (int, st.integers()),
        (float, st.floats()),
        (str, TEXT),
        (bool, st.booleans()),
        (None, st.none()),
        (bytes, st.binary(max_size=4)),
        (dt.datetime, DATES),
        (dt.date, st.dates()),
        (dt.timedelta, st.timedeltas()),
        (k.Color, st.sampled_from(k.Color)),
        (k.Line, st.builds(k.Line, TEXT, st.integers())),
        (k.Card, st.builds(k.Card, TEXT)),
        (k.Point, st.builds(k.Point, st.integers(), st.floats(allow_nan=False))),
        (Any, SCALARS),
    ]
    kind = draw(st.integers(0, 6 if depth < 3 else 0))
    if kind == 0:
        return draw(st.sampled_from(leaves))
    hint, values = hinted(draw, depth + 1)
    if kind == 1:
        return list[hint], st.lists(values, max_size=3)
    if kind == 2:
        return dict[str, hint], st.dictionaries(KEYS, values, max_size=3)
    if kind == 3:
        return tuple[hint, ...], st.lists(values, max_size=3).map(tuple)
    if kind == 6:
        key, keys = draw(st.sampled_from([(int, st.integers()), (dt.date, st.dates()), (tuple[int, str], HELD)]))
        return dict[key, hint], st.dictionaries(keys, values, max_size=3)
    other, others = hinted(draw, depth + 1)
    if kind == 4:
        return tuple[hint, other], st.tuples(values, others)
    if hint is Any or other is Any:
        return Any, st.one_of(values, others)
    if hint is None and other is None:
        return None, values
    return hint | other if hint is not None else other | hint, st.one_of(values, others)


@given(st.data())
def test_any_value_survives_with_its_hint(data: st.DataObject) -> None:
    hint, values = data.draw(st.composite(hinted)())
    value = data.draw(values)
    shape = Shape.of(hint)
    stored = shape.encode(value)
    assert difference(value, shape.decode(stored)) is None
    assert msgspec.json.encode(shape.node.to(value, 0)) == stored, "both ways write the same"
    assert difference(value, shape.node.of(msgspec.json.decode(stored))) is None, "and read the same"


@given(st.data())
def test_a_value_of_another_hint_survives_or_is_refused_with_a_path(data: st.DataObject) -> None:
    hint, _ = data.draw(st.composite(hinted)())
    value = data.draw(VALUES)
    shape = Shape.of(hint)
    try:
        stored = shape.encode(value, "v")
    except Unserializable as error:
        path = error.path
    else:
        path = ""
    if path:
        assert path.startswith("v")
        return
    copy = shape.decode(stored)
    # Only integers where floats are asked for change their type, never their value.
    assert difference(value, copy) is None or value == copy


@given(VALUES, st.integers(0, 60))
def test_show_and_fingerprint_never_fail(value: Any, limit: int) -> None:
    assert len(show(value, limit)) <= limit
    assert len(fingerprint("name", (value,), {"a": value})) == 8


@given(st.dictionaries(KEYS, st.integers(), max_size=5))
def test_fingerprints_do_not_see_the_order_of_dicts(value: dict[str, int]) -> None:
    turned = dict(reversed(value.items()))
    assert fingerprint("f", (value,), {}) == fingerprint("f", (turned,), {})
    assert fingerprint("f", (), value) == fingerprint("f", (), turned)
    assert fingerprint("f", ([value],), {}) == fingerprint("f", ((turned,),), {})


@pytest.mark.parametrize("hint", [Any, k.Line, list[int], k.Line | None, dict[str, Any], k.Team])
@given(st.binary(max_size=30))
def test_garbage_is_undecodable_and_nothing_else(hint: Any, data: bytes) -> None:
    with contextlib.suppress(Unserializable):
        Shape.of(hint).decode(data)
