"""Trouble with the writes of one run, while others are written: it comes to what it comes to in peace.

A matrix: each thing that a body can do (``doings.py``) by what befalls a unit of its run by which unit that is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import apsw
import psycopg
import pytest

from perdure import App
from perdure.client import aside, parts
from perdure.errors import DatabaseTrouble, LostAnswer, RowLocked
from perdure.model.records import Kind, Record
from perdure.model.writes import Receipt, Unit
from perdure.query.conditions import Fact, OneOf, Query
from tests.runtime.doings import declare
from tests.runtime.support import until

TROUBLES = ["locked", "away", "lost", "lost when written"]
UNITS = ["its start", "the one before the call", "the one with the call", "the one after"]
OTHERS = 4  # units of others that are written meanwhile
TRIES = 12  # of a unit alone, and then it is over: a batch of nothing but such units looks like an outage
INTENT = Kind.INTENT

pytestmark = pytest.mark.sampled(4)


class Run:
    """One run, and what befalls its ``nth`` unit."""

    def __init__(self, trouble: str, nth: int | None) -> None:
        self.trouble = trouble
        self.nth = nth
        self.units: list[bytes] = []  # by their nonces, in order
        self.first_is_tried = asyncio.Event()  # the outcome of the first step: the second may end
        self.others: int | None = None  # that are written yet before this is over; None: it has not begun
        self.written = False
        self.tries = TRIES

    def meets(self, unit: Unit) -> bool:
        """Whether it is in trouble with this unit, now."""
        if unit.nonce not in self.units:
            self.units.append(unit.nonce)
        return self.units.index(unit.nonce) == self.nth and self.others != 0


class Plight:
    """Between the journal and the store of an app."""

    def __init__(self, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: dict[str, Run] = {}
        store = app._home.engine().line.store
        self._commit = store.commit
        monkeypatch.setattr(store, "commit", self.commit)
        for module, name, seconds in (
            (parts, "RETRY_SECONDS", 0.0002), (parts, "RETRY_SECONDS_MAX", 0.001), (aside, "SECONDS", 0.001),
            (aside, "SECONDS_MAX", 0.01),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, seconds)

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        ours = [(run, unit) for unit in batch if (run := self.runs.get(unit.key.id)) is not None]
        if met := [run for run, unit in ours if run.meets(unit)]:
            await self._fail(met, batch, now)
        receipt: Receipt = await self._commit(batch, now=now)
        for run, _ in ours:
            if len(run.units) > 1:
                run.first_is_tried.set()
        if not ours:
            for run in self.runs.values():
                run.others = run.others and run.others - 1
        return receipt

    async def _fail(self, met: list[Run], batch: Sequence[Unit], now: int | None) -> None:
        await asyncio.sleep(0)  # as whoever answers does: in a later turn
        trouble, written = met[0].trouble, met[0].written
        if len(batch) == 1:
            met[0].tries -= 1
        for run in met:
            if not run.tries:
                run.others = 0
            if run.others is None:
                run.others = OTHERS
            if run.nth == 1:
                run.first_is_tried.set()  # it is not written: the body goes on to the call all the same
        if trouble == "locked":
            raise RowLocked("another transaction has it")
        if trouble == "lost when written" and not written:
            await self._commit(batch, now=now)
            for run in met:
                run.written = True
        raise DatabaseTrouble("nobody there") if trouble == "away" or written else LostAnswer("broken off")


class Stage:
    """An app with all that a body can do, and what is to be the same in every run of it."""

    def __init__(self, app: App, database: str) -> None:
        self.app = app
        self.effects: list[str] = []
        self.plight: Plight | None = None
        self.bodies, self.waiting = declare(app, self.effects, self._second_ends, opener(database))

        @app.workflow
        async def other() -> None: ...

        self.other = other

    async def _second_ends(self, id: str) -> None:
        if self.plight is not None:
            await self.plight.runs[id].first_is_tried.wait()

    async def all_seen(self, how: str) -> dict[str, Any]:
        """Of every body."""
        seen = await asyncio.gather(*(self._seen(name, f"{name} {how}") for name in self.bodies))
        return dict(zip(self.bodies, seen, strict=True))

    async def _seen(self, name: str, id: str) -> dict[str, Any]:
        try:
            result: Any = await (await self.bodies[name].options(id=id).start()).result(timeout=20)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        store: Any = self.app._home.engine().line.store
        children = Query(condition=OneOf(Fact.PARENT, (id,)))

        async def rows() -> Any:
            found = (await store.list(children, limit=100)).rows
            return None if any(row.status.open for row in found) else (found,)

        (found,) = await until(rows)
        key = (await store.rows([id]))[id].key
        history = (await store.histories([key]))[key]
        assert [record.seq for record in history] == list(range(1, len(history) + 1))
        return {
            "result": str(result).replace(id, "it"),
            "history": sorted({_as_ever(record).replace(id, "it") for record in history if record.kind is not INTENT}),
            "children": sorted(f"{row.parent_path} {row.name} {row.status} {row.run}" for row in found),
            "effects": Counter(what.removeprefix(id) for what in self.effects if what.startswith(f"{id} ")),
        }

    async def keep_others_coming(self) -> None:
        while True:
            await self.other()


def _as_ever(record: Record) -> str:
    """Of a record what is the same however things fall out in time: who waits for more may have to ask twice."""
    return f"{record.kind.name} {record.name.partition(' from ')[0]} {record.outcome.name} {record.attempt}"


def opener(database: str) -> Any:
    """What opens a session to the app's own database."""
    if database.startswith("postgres"):
        return lambda: psycopg.connect(database)

    def connect() -> apsw.Connection:
        connection = apsw.Connection(database.removeprefix("sqlite:///"))
        connection.set_busy_timeout(5000)
        return connection

    return connect


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_run_comes_to_what_it_comes_to_in_peace(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch, trouble: str, unit: str
) -> None:
    stage = Stage(app, database)
    async with app:
        for name in stage.bodies:
            for how in ("peace", "trouble"):
                await stage.waiting.options(id=f"{name} {how} stranger").start()
        peace = await stage.all_seen("peace")
        stage.plight = Plight(app, monkeypatch)
        stage.plight.runs = {f"{name} trouble": Run(trouble, UNITS.index(unit)) for name in stage.bodies}
        others = asyncio.create_task(stage.keep_others_coming())
        seen = await stage.all_seen("trouble")
        others.cancel()
    wrong = {
        f"{name}: {what}": (was, seen[name][what])
        for name in peace
        for what, was in peace[name].items()
        if seen[name][what] != was
    }
    assert not wrong
    struck = [name for name in stage.bodies if stage.plight.runs[f"{name} trouble"].others is not None]
    assert len(struck) == len(stage.bodies) if unit != UNITS[-1] else struck, "some have no unit after the call"
