"""Arguments of calls: one canonical JSON for one call, and back."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Unserializable
from perdure.serde import ArgsShape, Secret
from tests.serde import kinds as k


def plain(a: int, b: int = 2, *, c: bool = False) -> None: ...
def required(a: int, *, c: int, d: int = 0) -> None: ...
def rest(a: int, *more: str, **named: float) -> None: ...
def positional(a: int, /, b: int = 0, **named: Any) -> None: ...
def nothing() -> None: ...
def unhinted(a, b=None): ...
def orders(order: k.Order, line: k.Line | None = None) -> list[k.Line]: ...
def hidden(user: str, password: Annotated[str, Secret], *, token: Secret[str] | None = None) -> None: ...


CALLS: list[tuple[Any, list[tuple[tuple[Any, ...], dict[str, Any]]], str, tuple[tuple[Any, ...], dict[str, Any]]]] = [
    (plain, [((1,), {}), ((), {"a": 1})], "[1]", ((1,), {})),
    (plain, [((1, 5), {}), ((1,), {"b": 5}), ((), {"b": 5, "a": 1})], "[1,5]", ((1, 5), {})),
    (plain, [((1,), {"c": True}), ((), {"c": True, "a": 1})], '{"$args":[1],"c":true}', ((1,), {"c": True})),
    (required, [((1,), {"c": 3}), ((), {"c": 3, "a": 1})], '{"$args":[1],"c":3}', ((1,), {"c": 3})),
    (required, [((1,), {"d": 4, "c": 3})], '{"$args":[1],"c":3,"d":4}', ((1,), {"c": 3, "d": 4})),
    (rest, [((1, "x", "y"), {})], '[1,"x","y"]', ((1, "x", "y"), {})),
    (rest, [((1,), {"z": 1.0, "$y": 2})], '{"$args":[1],"$$y":2.0,"z":1.0}', ((1,), {"$y": 2.0, "z": 1.0})),
    (rest, [((1,), {"more": 1.0})], '{"$args":[1],"more":1.0}', ((1,), {"more": 1.0})),
    (positional, [((1,), {"a": (2,)})], '{"$args":[1],"a":{"$tuple":[2]}}', ((1,), {"a": (2,)})),
    (nothing, [((), {})], "[]", ((), {})),
    (unhinted, [(((1,),), {}), ((), {"a": (1,)})], '[{"$tuple":[1]}]', (((1,),), {})),
    (unhinted, [(({"a": 1},), {"b": [1]})], '[{"a":1},[1]]', (({"a": 1}, [1]), {})),
    (orders, [((k.Order("1", []), k.Line("a")), {})], "", ((k.Order("1", []), k.Line("a")), {})),
    (hidden, [(("ada", "pw"), {})], '["ada",{"$secret":"pw"}]', (("ada", "pw"), {})),
]


@pytest.mark.parametrize("case", CALLS, ids=lambda case: f"{case[0].__name__}{case[2]}")
def test_the_same_call_is_stored_the_same(case: Any) -> None:
    fn, calls, golden, bound = case
    shape = ArgsShape.of(fn)
    stored = {shape.encode(args, kwargs) for args, kwargs in calls}
    assert len(stored) == 1
    data = stored.pop()
    if golden:
        assert data.decode() == golden
    assert shape.decode(data) == bound
    args, kwargs = shape.decode(data)
    inspect.signature(fn).bind(*args, **kwargs)
    for call in calls:
        assert shape.bind(*call) == bound


def test_a_gap_stands_by_name() -> None:
    def fn(a: int, b: int = 1, c: int = 2, d: int = 3) -> None: ...

    shape = ArgsShape.of(fn)
    data = shape.encode((1,), {"d": 4, "c": 3})
    assert data == b'{"$args":[1],"c":3,"d":4}'
    assert shape.decode(data) == ((1,), {"c": 3, "d": 4})


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [(plain, (), {}), (plain, (1, 2, 3), {}), (plain, (1,), {"x": 1}), (required, (1,), {}), (plain, (1,), {"a": 1})],
)
def test_what_does_not_fit_the_signature_is_a_type_error_as_python_says_it(fn: Any, args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError) as ours:
        ArgsShape.of(fn).encode(args, kwargs)
    with pytest.raises(TypeError) as pythons:
        inspect.signature(fn).bind(*args, **kwargs)
    assert str(ours.value) == str(pythons.value)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "words"),
    [
        (plain, ("x",), {}, "args[0]: expected int, got str 'x'."),
        (plain, (1,), {"c": 1}, "c: expected bool, got int 1."),
        (orders, (k.Order("1", [k.Line("a"), k.Line(3)]),), {}, "args[0].lines[1].sku: expected str, got int 3."),
        (unhinted, ({"img": k.Foreign()},), {}, "args[0]['img']: a value of type tests.serde.kinds.Foreign cannot"),
        (rest, (1, "x", 3), {}, "args[2]: expected str"),
        (rest, (1,), {"z": "1"}, "z: expected float"),
        (hidden, ("ada", 12345), {}, "args[1]: a secret that does not fit str"),
    ],
)
def test_refusals_name_the_argument(fn: Any, args: Any, kwargs: Any, words: str) -> None:
    with pytest.raises(Unserializable) as caught:
        ArgsShape.of(fn).encode(args, kwargs)
    assert str(caught.value).startswith(words)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'["x"]', "args[0]: the stored value cannot be read as int"),
        (b"{}", "found {}"),
        (b"5", "found 5"),
        (b"[", "JSON"),
    ],
)
def test_undecodable_arguments(data: bytes, words: str) -> None:
    with pytest.raises(Unserializable) as caught:
        ArgsShape.of(plain).decode(data)
    assert words in str(caught.value)


def test_arguments_that_the_code_no_longer_has_are_given_as_stored() -> None:
    assert ArgsShape.of(nothing).decode(b'[1,{"$tuple":[2]}]') == ((1, (2,)), {})
    assert ArgsShape.of(nothing).decode(b'{"$args":[],"gone":1}') == ((), {"gone": 1})


def test_methods_and_sessions_skip_their_first() -> None:
    class Gateway:
        def charge(self, order: str, cents: int) -> None: ...

    shape = ArgsShape.of(Gateway.charge, skip=1)
    assert shape.encode(("a",), {"cents": 5}) == b'["a",5]'
    assert ArgsShape.of(inspect.signature(plain)).encode((1,), {}) == b"[1]"


def test_hints_see_the_closure() -> None:
    @dataclass
    class Local:
        a: int

    def fn(a: Local) -> Any:
        return Local(a.a)

    def unseen(a: Local) -> None: ...

    for shape in (ArgsShape.of(fn), ArgsShape.of(unseen, names={"Local": Local})):
        data = shape.encode((Local(1),), {})
        assert data == b'[{"a":1}]'
        assert shape.decode(data) == ((Local(1),), {})
    with pytest.raises(Unserializable, match="define the class at module level"):
        ArgsShape.of(unseen).encode((Local(1),), {})


def test_returns() -> None:
    assert ArgsShape.of(orders).returns == list[k.Line]


def test_show_hides_annotated_parameters() -> None:
    shape = ArgsShape.of(hidden)
    assert shape.show(("ada", "pw"), {"token": Secret("t")}) == "'ada', ********, token=********"
    assert shape.show(("ada",), {"password": "pw"}) == "'ada', password=********"


@given(st.lists(st.integers(), max_size=4), st.booleans())
def test_any_split_into_positions_and_names_is_one_call(values: list[int], flag: bool) -> None:
    def fn(a: int = 0, b: int = 0, c: int = 0, d: int = 0, *, flag: bool = False) -> None: ...

    shape = ArgsShape.of(fn)
    stored = set()
    for split in range(len(values) + 1):
        kwargs: dict[str, Any] = dict(zip("abcd"[split:], values[split:], strict=False))
        if flag:
            kwargs["flag"] = flag
        stored.add(shape.encode(tuple(values[:split]), dict(reversed(kwargs.items()))))
    assert len(stored) == 1
    assert shape.decode(stored.pop()) == (tuple(values), {"flag": True} if flag else {})
