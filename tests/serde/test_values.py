"""Values to JSON and back: a table of every kind of type, what is refused and in which words, and what is stored."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import ipaddress
import math
import pathlib
import re
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import pytest

from perdure.errors import Unserializable
from perdure.serde import PAYLOAD_BYTES_MAX, Opaque, Secret, Shape, scalars
from perdure.serde.difference import difference
from perdure.serde.fingerprint import fingerprint
from tests.serde import kinds as k

UTC = dt.UTC
BERLIN = ZoneInfo("Europe/Berlin")
UUID1 = uuid.UUID("018f3b6e-0000-7000-8000-000000000001")
Cents = NewType("Cents", int)
Number = TypeVar("Number", int, float)

HINTED: list[tuple[Any, Any, str]] = [
    (None, None, "null"),
    (bool, True, "true"),
    (int, 2**70, "1180591620717411303424"),
    (int, -(2**63) - 1, "-9223372036854775809"),
    (int, True, "true"),
    (int, 10**4000, "1" + "0" * 4000),
    (int, k.Level.HIGH, '{"$type":"tests.serde.kinds:Level","value":2}'),
    (float, 1.5, "1.5"),
    (float, -0.0, "-0.0"),
    (float, math.inf, '{"$float":"inf"}'),
    (float, -math.inf, '{"$float":"-inf"}'),
    (float, math.nan, '{"$float":"nan"}'),
    (list[float], [1.0, math.nan], '[1.0,{"$float":"nan"}]'),
    (str, "héllo \\u0000 \U0001f600", '"héllo \\\\u0000 \U0001f600"'),
    (str, '"$type', '"\\"$type"'),
    (str, k.Mode.FAST, '{"$type":"tests.serde.kinds:Mode","value":"fast"}'),
    (bytes, b"\x00\xff", '"AP8="'),
    (bytearray, bytearray(b"ab"), '"YWI="'),
    (dt.datetime, dt.datetime(2024, 5, 1, 12, 30, 0, 5), '"2024-05-01T12:30:00.000005"'),
    (dt.datetime, dt.datetime(2024, 5, 1, 12, tzinfo=UTC), '"2024-05-01T12:00:00Z"'),
    (dt.datetime, dt.datetime(2024, 5, 1, 12, tzinfo=BERLIN), '"2024-05-01T12:00:00+02:00[Europe/Berlin]"'),
    (
        dt.datetime,
        dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
        '"2024-10-27T02:30:00+01:00[Europe/Berlin]"',
    ),
    (
        dt.datetime,
        dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))),
        '"2024-05-01T00:00:00+05:30"',
    ),
    (dt.date, dt.date(2024, 2, 29), '"2024-02-29"'),
    (dt.time, dt.time(1, 2, 3), '"01:02:03"'),
    (dt.time, dt.time(1, 2, 3, tzinfo=UTC), '"01:02:03+00:00"'),
    (dt.timedelta, dt.timedelta(days=1, seconds=1, microseconds=1), '"P1DT1.000001S"'),
    (dt.timedelta, dt.timedelta(microseconds=-1), '"-PT0.000001S"'),
    (uuid.UUID, UUID1, '"018f3b6e-0000-7000-8000-000000000001"'),
    (decimal.Decimal, decimal.Decimal("1.10"), '"1.10"'),
    (decimal.Decimal, decimal.Decimal("1E+3"), '"1E+3"'),
    (pathlib.Path, pathlib.Path("/a/b"), '"/a/b"'),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("a"), '"a"'),
    (pathlib.PureWindowsPath, pathlib.PureWindowsPath("C:\\a"), '"C:\\\\a"'),
    (complex, 1 + 2j, '"(1+2j)"'),
    (ZoneInfo, BERLIN, '"Europe/Berlin"'),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1"), '"10.0.0.1"'),
    (k.Color, k.Color.BLUE, '"blue"'),
    (k.Level, k.Level.LOW, "1"),
    (k.Mode, k.Mode.FAST, '"fast"'),
    (k.Mode, k.Mode.CASH, '"$cash"'),
    (k.Perm, k.Perm.READ | k.Perm.WRITE, "3"),
    (k.Shape2, k.Shape2.LINE, '"LINE"'),
    (Literal["a", 1] | None, 1, "1"),
    (Literal[True, "x"], True, "true"),
    (Literal[k.Color.RED, "blue"], k.Color.RED, '"red"'),
    (list[int], [1, 2], "[1,2]"),
    (list, [1, (2,)], '[1,{"$tuple":[2]}]'),
    (tuple[int, ...], (1, 2), "[1,2]"),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (tuple[()], (), "[]"),
    (tuple, (1, "a"), '[1,"a"]'),
    (set[str], {"b", "a"}, '["a","b"]'),
    (frozenset[int], frozenset({2, 1}), "[1,2]"),
    (collections.deque[int], collections.deque([1]), "[1]"),
    (Sequence[int], [1], "[1]"),
    (Sequence[int], (1,), '{"$tuple":[1]}'),
    (Mapping[str, int], {"a": 1}, '{"a":1}'),
    (dict[str, int], {"$a": 1, "$$b": 2, "c": 3}, '{"$$a":1,"$$$b":2,"c":3}'),
    (dict[str, Any], {"$type": "x", "value": 1}, '{"$$type":"x","value":1}'),
    (dict[int, str], {1: "a", -2: "b"}, '{"1":"a","-2":"b"}'),
    (dict[uuid.UUID, int], {UUID1: 1}, '{"018f3b6e-0000-7000-8000-000000000001":1}'),
    (dict[k.Mode, int], {k.Mode.CASH: 1}, '{"$$cash":1}'),
    (dict[tuple[int, int], str], {(1, 2): "a"}, '{"$dict":[[[1,2],"a"]]}'),
    (dict[float, dt.date], {0.5: dt.date(2024, 1, 1)}, '{"$dict":[[0.5,"2024-01-01"]]}'),
    (dict[bool, int], {True: 1}, '{"$dict":[[true,1]]}'),
    (dict, {1: (2,)}, '{"$dict":[[1,{"$tuple":[2]}]]}'),
    (int | None, None, "null"),
    (int | str, "1", '"1"'),
    (int | float, 1.0, "1.0"),
    (int | float, 1, "1"),
    (float | str, math.inf, '{"$float":"inf"}'),
    (dt.datetime | None, dt.datetime(2024, 1, 1), '"2024-01-01T00:00:00"'),
    (dt.datetime | str, dt.datetime(2024, 1, 1), '{"$datetime":"2024-01-01T00:00:00"}'),
    (dt.datetime | str, "2024-01-01", '"2024-01-01"'),
    (list[int] | set[int], {1}, '{"$set":[1]}'),
    (dict[tuple[int, int], dt.date] | dict[str, int], {(1, 2): dt.date(2024, 1, 1)}, ""),
    (dict[uuid.UUID, int] | dict[int, int], {UUID1: 1}, ""),
    (Annotated[str, Secret] | Annotated[list[dt.date], Secret], [dt.date(2024, 1, 1)], ""),
    (Secret[str] | Secret[dt.date] | None, Secret(dt.date(2024, 1, 1)), ""),
    (list[dict[str, int]] | list[int], [{"$": 1}], '[{"$$":1}]'),
    (list[dt.date] | list[str], ["2024-01-01"], '["2024-01-01"]'),
    (list[dt.date] | list[str], [dt.date(2024, 1, 1)], '[{"$date":"2024-01-01"}]'),
    (dict[k.Mode | int, int] | None, {k.Mode.FAST: 1, 3: 2}, '{"$dict":[["fast",1],[3,2]]}'),
    (k.Line | k.Order, k.Line("a"), '{"$type":"tests.serde.kinds:Line","value":{"sku":"a","qty":1}}'),
    (k.Line | None, k.Line("a"), '{"sku":"a","qty":1}'),
    (k.Line | str, k.Line("a"), '{"sku":"a","qty":1}'),
    (k.Card | k.Cash, k.Cash(5), '{"type":"Cash","cents":5}'),
    (k.Line, k.Line("a", 2), '{"sku":"a","qty":2}'),
    (k.Line, k.Express("a", 2), '{"$type":"tests.serde.kinds:Express","value":{"sku":"a","qty":2,"courier":"bike"}}'),
    (
        k.Order,
        k.Order("1", [k.Line("a")], None, decimal.Decimal("1.5"), {"y", "x"}),
        '{"id":"1","lines":[{"sku":"a","qty":1}],"at":null,"total":"1.5","tags":["x","y"]}',
    ),
    (k.Frozen, k.Frozen(1, (2, "b")), '{"a":1,"b":[2,"b"]}'),
    (k.Tree, k.Tree(1, [k.Tree(2)]), '{"value":1,"children":[{"value":2,"children":[]}]}'),
    (k.Box[dt.date], k.Box(dt.date(2024, 1, 1)), '{"item":"2024-01-01"}'),
    (k.Box[list[dt.date]], k.Box([dt.date(2024, 1, 1)]), '{"item":["2024-01-01"]}'),
    (k.Box, k.Box(dt.date(2024, 1, 1)), '{"item":{"$date":"2024-01-01"}}'),
    (k.Indexed, k.Indexed(["a"]), '{"names":["a"],"count":1}'),
    (k.Point, k.Point(1), '{"x":1,"y":0.5}'),
    (k.Loose, k.Loose(1, (2,)), '{"a":1,"b":{"$tuple":[2]}}'),
    (k.Movie, {"name": "Alien"}, '{"name":"Alien"}'),
    (k.Movie, {"name": "Alien", "year": 1979}, '{"name":"Alien","year":1979}'),
    (k.Dollar, {"$type": "a", "$x": 1}, '{"$$type":"a","$$x":1}'),
    (k.Plain, k.Plain(1, [UUID1]), '{"a":1,"b":["018f3b6e-0000-7000-8000-000000000001"]}'),
    (k.Renamed, k.Renamed("7"), '{"orderId":"7"}'),
    (k.Arrayed, k.Arrayed(1), '[1,"x"]'),
    (k.Sometimes, k.Sometimes(), "{}"),
    (k.Sometimes, k.Sometimes(3), '{"a":3}'),
    (k.Part, k.Part("a", 4, [1.0]), '{"name":"a","_hidden":4,"sizes":[1.0]}'),
    (
        k.Model,
        k.Model(id=UUID1, at=dt.datetime(2024, 1, 1, tzinfo=UTC), price=decimal.Decimal("1.1"), **{"$ref": "x"}),
        '{"id":"018f3b6e-0000-7000-8000-000000000001","at":"2024-01-01T00:00:00Z","kind":"red","price":"1.1","$$ref":"x"}',
    ),
    (list[k.Team], [k.Team(name="a", members={"$x": [1]})], '[{"name":"a","members":{"$x":[1]}}]'),
    (Secret[str], Secret("pw"), '{"$secret":"pw"}'),
    (Annotated[str, Secret], "pw", '{"$secret":"pw"}'),
    (Annotated[int, "note"], 1, "1"),
    (Cents, 5, "5"),
    (Number, 1.5, "1.5"),
    (object, (1,), '{"$tuple":[1]}'),
]


def name_of(case: tuple[Any, ...]) -> str:
    # Without addresses, so that every worker of a parallel run collects the same names; sets have no order at all.
    words = type(case[1]).__name__ if isinstance(case[1], set | frozenset) else f"{case[1]!r}"
    return re.sub(r" at 0x[0-9a-f]+", "", f"{getattr(case[0], '__name__', case[0])}-{words}")[:60]


@pytest.mark.parametrize("case", HINTED, ids=name_of)
def test_hinted_values_stand_readably_and_come_back(case: tuple[Any, Any, str]) -> None:
    hint, value, golden = case
    shape = Shape.of(hint)
    data = shape.encode(value, "value")
    if golden:
        assert data.decode() == golden
    assert difference(value, shape.decode(data)) is None


@pytest.mark.parametrize("case", HINTED, ids=name_of)
def test_the_same_inside_containers_and_unions(case: tuple[Any, Any, str]) -> None:
    hint, value, _ = case
    for outer, held in (
        (list[hint], [value, value]),
        (dict[str, hint], {"a": value}),
        (hint | None if hint is not None else None, value),
        (tuple[hint, int], (value, 1)),
    ):
        shape = Shape.of(outer)
        assert difference(held, shape.decode(shape.encode(held))) is None


UNHINTED = [
    case
    for case in HINTED
    if case[0] not in (k.Movie, k.Dollar) and not isinstance(case[1], bool) and "Annotated" not in repr(case[0])
]


@pytest.mark.parametrize("case", UNHINTED, ids=name_of)
def test_without_a_hint_tags_say_what_it_is(case: tuple[Any, Any, str]) -> None:
    shape = Shape.of(Any)
    for value in (case[1], [case[1]], {"a": {"b": case[1]}}):
        assert difference(value, shape.decode(shape.encode(value))) is None


@pytest.mark.parametrize(
    ("value", "golden"),
    [
        ((1, [2]), '{"$tuple":[1,[2]]}'),
        ({3, 1}, '{"$set":[1,3]}'),
        (frozenset(), '{"$frozenset":[]}'),
        (dt.datetime(2024, 1, 1), '{"$datetime":"2024-01-01T00:00:00"}'),
        (k.Color.RED, '{"$type":"tests.serde.kinds:Color","value":"red"}'),
        (k.Line("a"), '{"$type":"tests.serde.kinds:Line","value":{"sku":"a","qty":1}}'),
        ({"a": 1, "$b": (1,)}, '{"a":1,"$$b":{"$tuple":[1]}}'),
        ({1: 2}, '{"$dict":[[1,2]]}'),
        (collections.OrderedDict(b=1, a=2), '{"$ordereddict":[["b",1],["a",2]]}'),
        (collections.Counter("aab"), '{"$counter":[["a",2],["b",1]]}'),
        (Secret(1), '{"$secret":1}'),
        (b"a", '{"$bytes":"YQ=="}'),
        (1 << 20_000, '{"$int":"' + hex(1 << 20_000) + '"}'),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, int) else "huge",
)
def test_golden_tags(value: Any, golden: str) -> None:
    data = Shape.of(Any).encode(value)
    assert data.decode() == golden
    assert difference(value, Shape.of(Any).decode(data)) is None


def local_class() -> Any:
    @dataclass
    class Local:
        a: int

    return Local(1)


class Nest:
    """Contains itself."""


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, Any, str, str]] = [
    (int, "x", "v", "expected int, got str 'x'"),
    (str, None, "v", "expected str, got None"),
    (float, "1", "v", "expected float"),
    (float, 2**60 + 1, "v", "not exactly a float"),
    (bool, 1, "v", "expected bool"),
    (list[int], (1,), "v", "expected list[int], got tuple (1,)"),
    (list[int], [1, "a"], "v[1]", "expected int"),
    (dict[str, list[int]], {"a": [1, None]}, "v['a'][1]", "expected int"),
    (dict[str, int], {1: 1}, "v[1]", "the key 1: expected str"),
    (tuple[int, str], (1,), "v", "got a tuple of 1"),
    (k.Order, k.Order("1", [k.Line("a"), k.Line(3)]), "v.lines[1].sku", "expected str, got int 3"),
    (k.Order, k.Line("a"), "v", "expected tests.serde.kinds.Order"),
    (k.Color, "red", "v", "expected tests.serde.kinds.Color, got str 'red'"),
    (Literal["a"], "b", "v", "expected Literal['a']"),
    (int | None, "x", "v", "expected int | None"),
    (k.Line | None, k.Line(3), "v.sku", "expected str"),
    (dt.date, dt.datetime(2024, 1, 1), "v", "expected datetime.date"),
    (k.Movie, {}, "v", "'name' of tests.serde.kinds.Movie is missing"),
    (k.Movie, {"name": "a", "x": 1}, "v['x']", "has no such key"),
    (Any, [k.Foreign()], "v[0]", "tests.serde.kinds.Foreign cannot be stored; store a reference to it"),
    (k.Foreign, k.Foreign(), "v", "cannot be stored"),
    (k.Foreign, 1, "v", "expected tests.serde.kinds.Foreign"),
    (Any, k.Text("a"), "v", "would come back as a plain str; pass str(…) of it"),
    (Any, collections.defaultdict(int), "v", "would come back as a plain dict"),
    (str, k.Text("a"), "v", "plain str"),
    (Any, len, "v", "code is no data"),
    (Any, (i for i in ()), "v", "as a list"),
    (Any, local_class(), "v", "define the class at module level"),
    (str, "a\0b", "v", "NUL"),
    (Any, {"a": ["\0"]}, "v['a'][0]", "NUL"),
    (dict[str, int], {"\0": 1}, "v['\\x00']", "NUL"),
    (str, "\ud800", "v", "lone surrogate (U+D800)"),
    (Any, {"\udfff": 1}, "v['\\udfff']", "lone surrogate"),
    (pathlib.Path, pathlib.Path("\udcff"), "v", "lone surrogate"),
    (k.Team, k.Team(name="\0"), "v", "NUL"),
    (Any, cyclic(), "v[0]", "nested deeper than 64 levels, or contains itself"),
    (Any, deep(65), "v[0]", "nested deeper than 64"),
    (k.Doubled, k.Doubled(1), "v.cents", "comes back different"),
    (k.Converted, k.Converted(1), "v.a", "comes back different"),
    (k.Guarded, k.Guarded(key="pw"), "v.key", "comes back different"),
    (k.NeedsMore, k.NeedsMore(1, 2), "v", "does not survive"),
    (k.Raw, k.Raw(data=dt.date(2024, 1, 1)), "v.data", "comes back different"),
    (Secret[int], Secret("hunter2"), "v", "a secret that does not fit int"),
    (Secret[int], 3, "v", "wrap the value: Secret(…)"),
    (dt.time, dt.time(1, tzinfo=BERLIN), "v", "no offset without a date"),
    (Any, KeyboardInterrupt(), "v", "is no value"),
]


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_what_does_not_survive_is_refused_with_its_path(case: tuple[Any, Any, str, str]) -> None:
    hint, value, path, words = case
    with pytest.raises(Unserializable) as caught:
        Shape.of(hint).encode(value, "v")
    assert words in str(caught.value)
    assert caught.value.path.startswith(path)
    assert str(caught.value).startswith(f"{path}")
    assert "hunter2" not in str(caught.value)


def test_too_large_is_refused_with_its_size() -> None:
    for value in ("x" * PAYLOAD_BYTES_MAX, ["$" * PAYLOAD_BYTES_MAX]):
        with pytest.raises(Unserializable, match=r"v: 2,000,00\d bytes of JSON, more than the 2,000,000") as caught:
            Shape.of(Any).encode(value, "v")
        assert len(str(caught.value)) < 300


def test_depth_of_64_is_taken() -> None:
    value = deep(64)
    assert Shape.of(Any).decode(Shape.of(Any).encode(value)) == value
    node = k.Tree(0)
    for number in range(70):
        node = k.Tree(number, [node])
    with pytest.raises(Unserializable, match="nested deeper"):
        Shape.of(k.Tree).encode(node)


@pytest.mark.parametrize(
    ("hint", "data", "words"),
    [
        (int, b'"x"', "result: the stored value cannot be read as int"),
        (k.Order, b'{"id":"1","lines":[{"qty":1}]}', "result.lines[0]: the stored value"),
        (k.Order, b'{"id":"1"}', "the field lines of tests.serde.kinds.Order is missing"),
        (list[int], b"[1,", "no JSON"),
        (list[int], b"\xff", "no JSON"),
        (dt.date, b'"tomorrow"', "is not a datetime.date"),
        (k.Color, b'"green"', "is not one of tests.serde.kinds.Color: 'red', 'blue'"),
        (Any, b'{"$later":1}', "the tag $later is not known to this version"),
        (k.Team, b"{}", "is no tests.serde.kinds.Team"),
        (k.Line, b'{"$type":"tests.serde.kinds:Team","value":{"name":"a"}}', "expected tests.serde.kinds.Line"),
        (Any, b'{"$type":"tests.serde.kinds:Line","value":{}}', "the field sku"),
        (k.Card | k.Cash, b'{"type":"Check"}', "expected"),
        (Any, b'{"$tuple":5}', "cannot be read"),
        (Any, b'{"$dict":[1]}', "cannot be read"),
        (dict[int, int], b'{"$dict":[[1]]}', "cannot be read"),
    ],
)
def test_undecodable_data_says_where_and_what(hint: Any, data: bytes, words: str) -> None:
    with pytest.raises(Unserializable) as caught:
        Shape.of(hint).decode(data, "result")
    assert words in str(caught.value)


def test_code_may_gain_and_lose_fields_with_defaults() -> None:
    assert Shape.of(k.Line).decode(b'{"sku":"a"}') == k.Line("a", 1)
    assert Shape.of(k.Line).decode(b'{"sku":"a","gone":1}') == k.Line("a", 1)
    assert Shape.of(k.Order).decode(b'{"id":"1","lines":[]}') == k.Order("1", [])


def test_a_row_never_imports() -> None:
    data = b'{"$type":"this_module_prints_poems:Order","value":{"cents":1,"at":{"$tuple":[1]}}}'
    value = Shape.of(Any).decode(data)
    assert isinstance(value, Opaque)
    assert value.type_name == "this_module_prints_poems:Order"
    assert value["cents"] == 1
    assert dict(value) == {"cents": 1, "at": {"$tuple": [1]}}
    assert Shape.of(Any).encode(value) == data
    assert Shape.of(list[Any]).encode([value]) == b"[" + data + b"]"
    for name in ("wsgiref.util:FileWrapper", "os:path", "os:system", "builtins:eval", "a:b:c", "", ":", "os:"):
        found = Shape.of(Any).decode(b'{"$type":"' + name.encode() + b'","value":{}}')
        assert isinstance(found, Opaque)
    assert "wsgiref.util" not in sys.modules


def test_plain_hints_go_the_native_way() -> None:
    native = [int, str, list[str], dict[str, int], Any, dict, dict[str, Any], k.Line, list[k.Line], k.Line | None]
    native += [k.Plain, k.Card | k.Cash, k.Frozen, k.Color, dt.datetime | None, k.Movie, k.Box[int], tuple[int, str]]
    assert [hint for hint in native if Shape.of(hint).decoder is None] == []
    assert Shape.of(k.Line).fits(k.Line("a", 1))
    assert not Shape.of(k.Line).fits(k.Line("a", "1"))
    assert not Shape.of(k.Line).fits(k.Express("a", 1))


def test_shapes_are_cached() -> None:
    assert Shape.of(list[k.Line]) is Shape.of(list[k.Line])
    assert Shape.of(Annotated[int, ["unhashable"]]).decode(b"1") == 1


def test_hints_whose_arguments_cannot_be_hashed() -> None:
    assert Shape.of(Callable[[int], None] | None).encode(None) == b"null"
    assert Shape.of(list[Callable[[int], None]]).encode([]) == b"[]"
    with pytest.raises(Unserializable):
        Shape.of(Callable[[int], None]).encode(lambda _: None)
    box = Shape.of(k.Box[Annotated[int, ["unhashable"]]])
    assert box.decode(box.encode(k.Box(1))) == k.Box(1)


def test_hints_that_cannot_be_resolved_are_any() -> None:
    @dataclass
    class Partly:
        a: NotThere  # noqa: F821
        b: dt.date

    shape = Shape.of(Partly)
    value = Partly((1,), dt.date(2024, 1, 1))
    data = shape.encode(value)
    assert data == b'{"a":{"$tuple":[1]},"b":"2024-01-01"}'
    assert shape.decode(data) == value


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax is of 3.12")
def test_type_aliases_and_parameters_of_new_syntax() -> None:
    space: dict[str, Any] = {"date": dt.date}
    exec("type Dates = list[date]\ntype Pair[T] = tuple[T, T]\nclass Box[T]:\n    item: T", space)
    shape = Shape.of(space["Dates"])
    assert shape.encode([dt.date(2024, 1, 1)]) == b'["2024-01-01"]'
    assert shape.decode(b'["2024-01-01"]') == [dt.date(2024, 1, 1)]
    pair = Shape.of(space["Pair"][dt.date])
    assert pair.decode(b'["2024-01-01","2024-01-02"]') == (dt.date(2024, 1, 1), dt.date(2024, 1, 2))
    box = Shape.of(dataclass(space["Box"])[dt.date])
    assert box.decode(b'{"item":"2024-01-01"}').item == dt.date(2024, 1, 1)


def test_native_and_careful_ways_write_the_same() -> None:
    for hint, value, golden in HINTED:
        shape = Shape.of(hint)
        assert msgspec.json.encode(shape.node.to(value, 0)) == shape.encode(value)
        assert not golden or shape.encode(value).decode() == golden


def test_a_script_is_named_as_others_will_import_it(tmp_path: pathlib.Path) -> None:
    import subprocess

    script = tmp_path / "shop.py"
    script.write_text(
        "import dataclasses\n"
        "from typing import Any\n"
        "from perdure.serde import Shape, decode_failure, encode_failure\n"
        "@dataclasses.dataclass\n"
        "class Order:\n    id: str\n"
        "class Bad(Exception): pass\n"
        "if __name__ == '__main__':\n"
        "    data = Shape.of(Any).encode(Order('1'))\n"
        "    assert type(Shape.of(Any).decode(data)) is Order\n"
        "    failure = encode_failure(Bad('x'), traceback=False)\n"
        "    assert type(decode_failure(failure)) is Bad\n"
        "    print(data.decode(), failure.decode())\n"
    )
    run = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True)
    assert run.stdout.split("\n")[0] == (
        '{"$type":"shop:Order","value":{"id":"1"}} {"type":"shop:Bad","message":"x","args":["x"]}'
    )


def test_pydantic_and_attrs_are_not_imported_for_anyone() -> None:
    import subprocess

    code = (
        "import sys, dataclasses\n"
        "from perdure.serde import Shape, encode_failure, fingerprint, show\n"
        "D = dataclasses.make_dataclass('D', [('a', int)])\n"
        "Shape.of(D).encode(D(1)); encode_failure(ValueError(1)); fingerprint('a', (D(1),), {}); show(D(1))\n"
        "assert not {'pydantic', 'attr', 'attrs'} & set(sys.modules), 'imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class FakeDatetime(dt.datetime):
    """As freezegun's."""

    __module__ = "freezegun.api"


class FakeDate(dt.date):
    __module__ = "freezegun.api"


@pytest.mark.parametrize("hint", [Any, None])
@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (FakeDatetime(2030, 1, 1, tzinfo=UTC), dt.datetime(2030, 1, 1, tzinfo=UTC)),
        (FakeDatetime(2030, 1, 1), dt.datetime(2030, 1, 1)),
        (FakeDate(2030, 1, 1), dt.date(2030, 1, 1)),
    ],
)
def test_what_stands_in_for_a_date_in_tests_is_stored_as_one(hint: Any, fake: Any, real: Any) -> None:
    """``datetime.now()`` under freezegun, given to a workflow or a step: it comes back equal."""
    shape = Shape.of(hint or type(real))
    data = shape.encode(fake)
    assert data == shape.encode(real)
    assert type(shape.decode(data)) is type(real)
    assert fingerprint("step", (fake,), {}) == fingerprint("step", (real,), {})


def test_datetimes_are_read_as_such_while_freezegun_has_put_others_into_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zoned = dt.datetime(2030, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    monkeypatch.setattr(scalars, "datetime", FakeDatetime)
    monkeypatch.setattr(scalars, "date", FakeDate)
    for shape in (Shape.of(dt.datetime), Shape.of(Any)):
        assert type(shape.decode(shape.encode(zoned))) is dt.datetime
    with pytest.raises(Unserializable):
        Shape.of(dt.date).encode(zoned)
