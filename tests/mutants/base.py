"""What a mutant is: one seeded change of the engine, and the faults under which it must be caught."""

from __future__ import annotations

from types import ModuleType
from typing import Any, ClassVar

import pytest

from perdure.store.sqlite import (
    batches,
    claim,
    commands,
    commit,
    decisions,
    executors,
    orders,
    problems,
    queues,
    reads,
    requests,
    strays,
    streams,
    versions,
)
from perdure.store.sqlite import next as next_run
from perdure.testing.simulation.database import SimulatedStore

CALLS = {"aborted": 0.03, "lost": 0.1, "late": 0.1}
DEATHS = {"kill": 1.0}
SLEEPS = {"stop": 1.5, "slow": 0.05}
ALL_SQL: tuple[ModuleType, ...] = (
    batches, claim, commands, commit, decisions, executors, next_run, orders, problems, queues,
    reads, requests, strays, streams, versions,
)  # fmt: skip


class Mutant:
    """One change. ``number``: in the list of the test programme; ``faults``: a mix that makes it matter."""

    number = ""
    faults: ClassVar[dict[str, Any]] = {}
    kinds: tuple[str, ...] = ()  # of scripts; all, if none is named
    seeds = 60  # in so many worlds it must be caught
    known = 1  # the world in which it was caught when this was written: tried first

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        raise NotImplementedError


def change_query(patch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Change the text of a query of the SQLite dialect, wherever it is used."""
    assert any(name in module.Q for module in ALL_SQL), f"there is no query {name} any more: the mutant must follow"
    for module in ALL_SQL:
        queries = dict(module.Q)
        if name in queries:
            assert old in queries[name], f"{name} no longer says {old!r}: the mutant must follow it"
            queries[name] = queries[name].replace(old, new)
            patch.setattr(module, "Q", queries)


def wrap(patch: pytest.MonkeyPatch, name: str, make: Any) -> None:
    """Replace a method of the store by ``make(self, original, *args, **kwargs)``, a coroutine function."""
    original = getattr(SimulatedStore, name)

    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        async def plain(*a: Any, **k: Any) -> Any:
            return await original(self, *a, **k)

        return await make(self, plain, *args, **kwargs)

    patch.setattr(SimulatedStore, name, call)
