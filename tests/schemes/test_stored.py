"""A scheme as text: drawn and asked for commands where its code is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure.schemes import stored
from perdure.schemes.declared import Declared, declaration_of
from perdure.schemes.grammar import State
from perdure.schemes.mermaid import mermaid
from perdure.schemes.svg import svg


class Vacation(Declared):
    author: str
    days: int = 0
    helpers: tuple[str, ...] = ("eve",)
    until: timedelta | None = None
    draft = State("In draft", initial=True)
    review = State(settable=True)
    done = State(final=True)
    submit = draft.to(review, by="author or helpers", cond="days > 0")
    take = draft.to(done, cond="days > 20") | draft.to(review, cond="fits")
    late = review.to(draft, after=timedelta(days=3))

    @review.to(done, by="manager", cond="grade > days")
    def approve(self, grade: int, note: str = "") -> None: ...

    def manager(self, actor: str) -> bool:
        return actor == "bob"

    def fits(self) -> bool:
        return True


scheme = declaration_of(Vacation).scheme


def test_what_is_read_is_drawn_as_what_was_written() -> None:
    text = stored.write(scheme)
    again = stored.read(text)
    assert stored.write(again) == text
    assert mermaid(again, current="review") == mermaid(scheme, current="review")
    assert svg(again) == svg(scheme)
    assert {p.name: p.hint for p in again.parameters} == {
        "author": "str", "days": "int", "helpers": "tuple[str, ...]", "until": "datetime.timedelta | None",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("state", "values", "actor", "expected"),
    [
        ("draft", {"author": "ann", "days": 3, "helpers": ["eve"]}, "ann", {"submit": (), "take": ("fits",)}),
        ("draft", {"author": "ann", "days": 3, "helpers": ["eve"]}, "eve", {"submit": (), "take": ("fits",)}),
        ("draft", {"author": "ann", "days": 3, "helpers": ["eve"]}, "bob", {"take": ("fits",)}),
        ("draft", {"author": "ann", "days": 0, "helpers": []}, None, {"take": ("fits",)}),
        ("draft", {"author": "ann", "days": 21, "helpers": []}, None, {"submit": (), "take": ()}),
        ("draft", {"days": "many"}, None, {"submit": ("days > 0",), "take": ("days > 20", "fits")}),
        ("review", {"days": 3}, "bob", {"approve": ("manager",)}),
        ("review", {"days": 3}, None, {"approve": ("grade",)}),
        ("done", {}, None, {}),
    ],
)
def test_what_is_offered_as_far_as_it_can_be_said(
    state: str, values: dict[str, Any], actor: str | None, expected: dict[str, tuple[str, ...]]
) -> None:
    read = stored.read(stored.write(scheme))
    assert {one.name: one.asks for one in stored.offers(read, state, values, actor)} == expected
