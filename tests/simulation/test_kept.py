"""One workflow is not written while the others are: a row that is kept, a unit that gets in the way of its commit."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from perdure.model.ids import RunKey
from perdure.testing.simulation import simulate, world
from perdure.testing.simulation.faults import Mix
from perdure.testing.simulation.gate import Gate
from perdure.testing.simulation.loop import VirtualLoop
from perdure.testing.simulation.rows import LOCKED_SECONDS, needed, patience_of
from tests.simulation.hits import hits


@pytest.mark.parametrize(
    ("faults", "met"),
    [
        ({"keeps": 2.0}, {"another transaction kept a row", "a row was kept for too long: commit"}),
        ({"drops": 2.0}, {f"a unit was in the way of its commit: {how}" for how in ("aborted", "dropped", "lost")}),
    ],
)
def test_a_unit_is_set_aside_and_written_later(faults: dict[str, Any], met: set[str]) -> None:
    found = hits(Mix.calm(**faults), "asker", "chain", seeds=12)
    assert found >= {*met, "a unit was set aside", "a source had more to write behind what was set aside",
                     "a run waited for what was set aside of it", "what was set aside was written later"}  # fmt: skip


def test_a_world_in_which_rows_are_kept_is_the_same_world_again() -> None:
    mix = Mix.calm(keeps=2.0, drops=1.0, kill=0.5)
    first, second = (simulate(4, mix=mix, trace=True) for _ in range(2))
    assert first.lines == second.lines
    assert {line["fault"] for line in first.evidence.faults} >= {"keep", "drop"}


def test_a_record_of_a_transaction_waits_for_its_row_and_nobody_keeps_rows_in_sqlite() -> None:
    found = hits(Mix.calm(commits=0.2, keeps=2.0), "transfers", seeds=16)
    assert "a row was given back to who waited for it" in found
    for seed in range(1, 17):
        result = simulate(seed, mix=Mix.calm(keeps=2.0), kinds=("transfers",))
        named = {line["fault"] for line in result.evidence.faults}
        assert ("keep" in named) == (_dialect(seed) == "postgres")


def _dialect(seed: int) -> str:
    made = world.World(seed, "liveness", Mix.calm(), ("transfers",), (), world._database[0], world._away[0], False)
    made.loop.close()
    return made.dialect


def test_what_a_call_needs() -> None:
    unit = SimpleNamespace(
        key=RunKey("a", 1), children=[SimpleNamespace(id="b")],
        sends=[SimpleNamespace(dest="c", key="once"), SimpleNamespace(dest="d", key=None)],
    )  # fmt: skip
    assert needed("commit", ([unit],), ("a", "b", "c", "d", "e")) == {"a", "b", "c"}
    assert needed("cancel", ("a", "a reason"), ("a",)) == {"a"}
    assert needed("replace", (RunKey("a", 1), None), ("a", "b")) == {"a"}
    assert needed("move", ([SimpleNamespace(id="a"), SimpleNamespace(id="b")],), ("b", "c")) == {"b"}
    assert needed("heartbeat", (b"",), ("a",)) == frozenset()
    assert patience_of("commit") == LOCKED_SECONDS < patience_of("reclaim")


def test_who_waits_for_a_row_has_it_when_all_have_given_it_back_or_is_told_in_time() -> None:
    loop, gate, said = VirtualLoop(), Gate(), list[tuple[str, float]]()
    for _ in range(2):
        gate.keep("a")
    loop.later(0.2, gate.give_back, "a")
    loop.later(0.7, gate.give_back, "a")
    for patience in (0.5, 5.0):
        gate.when(
            lambda: not gate.are_kept({"a"}), lambda: said.append(("has it", round(loop.time(), 3))),
            lambda: said.append(("gave up", round(loop.time(), 3))), loop, patience,
        )  # fmt: skip

    async def wait() -> None:
        await asyncio.sleep(6.0)  # waits: in virtual time

    loop.run_until_complete(wait())
    loop.close()
    assert said == [("gave up", 0.5), ("has it", 0.7)]
