"""Conditions: what they may say, what they ask, and that nothing else can be made of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import SchemeError
from perdure.schemes.expressions import evaluate, names, normal, value
from perdure.schemes.operators import pythonic

VALUES: dict[str, Any] = {"a": 1, "b": 0, "c": 5, "who": "ann", "team": ["ann", "bob"], "at": complex(2, 3)}

SAYINGS = (
    "a and not b", "b or c", "a < c <= 5", "who in team", "who not in ('bob',)", "team[1] == 'bob'", "at.real + 1",
    "c // 2 * 3 - -1", "c % 2", "a if b else c", "None is None", "a is not None", "1 < 2 < 2", "(a, b)[0]", "c / 2",
)  # fmt: skip


@pytest.mark.parametrize("text", SAYINGS)
def test_it_says_what_python_says(text: str) -> None:
    assert value(text, VALUES) == eval(text, {}, VALUES)


SIMPLE = st.recursive(
    st.sampled_from(["a", "b", "c", "1", "0", "not_there"]),
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or", "<", "==", "+", "-"]), inner)
        | st.builds("(not {})".format, inner)
    ),
    max_leaves=8,
)


@given(SIMPLE)
def test_it_asks_for_the_names_that_python_would_look_up_in_that_order(text: str) -> None:
    class Asked(dict[str, Any]):
        def __init__(self) -> None:
            super().__init__(VALUES)
            self.order: list[str] = []

        def __getitem__(self, name: str) -> Any:
            self.order.append(name)
            return super().get(name, 7)

    ours, theirs = Asked(), Asked()
    assert value(text, ours) == eval(text, {}, theirs)
    assert ours.order == theirs.order
    assert set(ours.order) <= set(names(text))
    assert value(normal(text), Asked()) == value(text, Asked())


@pytest.mark.parametrize(
    "text",
    ["f(1)", "a.__class__", "_private", "lambda: 1", "[x for x in team]", "x := 1", "2 ** 9", "1 << 99", "~a", "f'{a}'",
     "{1: 2}", "b'x'", "1j", "a; b", "a[1:2]", "*a", "await a", "yield", "...", "a" * 1001],
)  # fmt: skip
def test_nothing_else(text: str) -> None:
    with pytest.raises(SchemeError):
        normal(text)


@pytest.mark.parametrize("text", ["who * 9", "'%99d' % 1", "team * 9", "9 * who"])
def test_no_text_is_multiplied(text: str) -> None:
    """A file of a stranger could take all memory with it."""
    with pytest.raises(TypeError, match="is no number"):
        value(text, VALUES)


def test_a_name_after_a_false_one_is_not_asked() -> None:
    asked = evaluate("a and b")
    assert next(asked) == "a"
    with pytest.raises(StopIteration) as end:
        asked.send(0)
    assert end.value.value == 0


def test_spellings_are_equal() -> None:
    assert normal("( a )and(not  b)") == normal("a and not b")
    assert normal("  ") == ""
    assert value("", {}) is True


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("!a ^ b", "not a and b"),
        ("a && !b || c", "a and not b or c"),
        ("a v b", "a or b"),
        ("a != b", "a != b"),
        ("a === 'x && y' && !c", "a == 'x && y' and not c"),
        ("a == true && b == null", "a == True and b == None"),
    ],
)
def test_other_spellings(text: str, python: str) -> None:
    assert pythonic(text) == python
