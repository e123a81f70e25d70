"""What a parameter of a process has unless it is given: it must be storable, which is seen where the class stands."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

import pytest

from perdure import App
from perdure.errors import DefinitionError
from perdure.process import Process, State
from perdure.testing import harness


@dataclasses.dataclass
class Line:
    sku: str = ""


class Size(StrEnum):
    SMALL = "small"


def process_with(app: App, hint: Any, default: Any) -> Any:
    """A process with one parameter."""
    space = {
        "__module__": __name__, "__annotations__": {"items": hint}, "items": default,
        "a": State(initial=True), "b": State(final=True),
    }  # fmt: skip
    space["go"] = space["a"].to(space["b"])
    return app.process(name="P")(type("P", (Process,), space))


FRESH = "items: list[Line] = dataclasses.field(default_factory=list)"


@pytest.mark.parametrize(
    ("hint", "default", "write"),
    [
        (list[Line], None, f"write items: list[Line] | None = None or {FRESH}"),
        (list[Line], (), f"write {FRESH}"),
        (dict[str, int], dataclasses.field(default_factory=list), "items: dict[str, int] = dataclasses.field(default"),
        (str, None, "write items: str | None = None"),
        (Decimal, 0, "expected decimal.Decimal, got int 0); write a default that is a decimal.Decimal, or the type"),
        (Literal["x"], "y", "write a default that is a Literal['x']"),
        (Size, "small", "write a default that is a Size"),
    ],
)
def test_a_default_that_its_own_type_does_not_take_is_refused_where_the_class_stands(
    app: App, hint: Any, default: Any, write: str
) -> None:
    with pytest.raises(DefinitionError) as said:
        process_with(app, hint, default)
    assert write in str(said.value)
    assert f"{__file__}:" in str(said.value)
    assert "the default of items does not fit its own type (items: expected " in str(said.value)


@pytest.mark.parametrize(
    ("hint", "default", "comes_back"),
    [
        (float, 3, 3.0),
        (int, True, True),
        (str, Size.SMALL, Size.SMALL),
        (list[Line] | None, None, None),
        (list[Line], dataclasses.field(default_factory=list), []),
        (Line, Line("x"), Line("x")),
        (tuple[int, ...], (), ()),
        (Decimal, Decimal("1.50"), Decimal("1.50")),
        (Any, None, None),
    ],
)
async def test_a_default_that_survives_is_taken_as_ever(
    app: App, database: str, hint: Any, default: Any, comes_back: Any
) -> None:
    process = process_with(app, hint, default)
    async with harness(app, database=database):
        p = await process.options(id="p").start()
        await p.execute("go")
        assert (await p.parameters()).items == comes_back


def test_what_makes_a_default_is_not_called_at_import(app: App) -> None:
    called: list[int] = []

    def make() -> list[int]:
        called.append(1)
        return called

    process_with(app, list[int], dataclasses.field(default_factory=make))
    assert called == []
