"""What really happened, kept outside the engine: effects of steps, and what the database acknowledged."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

from perdure.model.cuts import latest_cut
from perdure.model.ids import RunKey
from perdure.model.orders import Answer, Answered
from perdure.model.records import Kind, WorkflowRow
from perdure.model.resets import ResetOrder
from perdure.model.writes import Receipt, Rewind, Unit
from perdure.runtime.context import STEP
from perdure.store.base import Store

Where = tuple[RunKey, str]


class Ledger:
    """Effects in order. One at a time is in use: that of the run under test."""

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.bodies: Counter[tuple[RunKey, str, int]] = Counter()  # bodies of steps by run, path, attempt
        self.outcomes: set[Where] = set()  # steps whose outcome is durable
        self.intended: set[Where] = set()  # steps that were durably about to run
        self.attempts: set[tuple[RunKey, str, int]] = set()  # failed attempts that are durable
        self.taken: dict[bytes, set[tuple[RunKey, int]]] = {}  # message -> where it was received
        self.wrong: list[str] = []

    def effect(self, what: str, *, pure: bool = False, once: bool = False) -> None:
        """Called first by the body of every step; ``once``: of those that are never run again."""
        step = STEP.get()
        assert step is not None, "only steps have effects"
        where = (step.key, step.path)
        if where not in self.intended and not pure:
            self.wrong.append(f"step {what} ran at {where} before all that it rests on was durable")
        if where in self.outcomes:
            self.wrong.append(f"step {what} ran at {where} after its outcome was durable")
        if (*where, step.attempt) in self.attempts:
            self.wrong.append(f"attempt {step.attempt} of {what} ran at {where} after its failure was durable")
        if once and self.bodies[*where, step.attempt]:
            self.wrong.append(f"step {what} ran again at {where}")
        self.bodies[*where, step.attempt] += 1
        self.effects.append(what)


ledger = Ledger()


def fresh() -> Ledger:
    """Forget everything, for the next run."""
    ledger.__init__()  # type: ignore[misc]  # steps hold this very object
    return ledger


class Witness:
    """A store that notes what it acknowledged.

    Everything else is the store's own, which is opened and closed elsewhere.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def migrate(self) -> list[str]:
        return []

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        receipt = await self.store.commit(batch, now=now)
        for unit, verdict in zip(batch, receipt.verdicts, strict=True):
            if verdict.applied:
                self._note(unit)
        return receipt

    async def rewind(self, seen: WorkflowRow, change: Rewind, *, now: int | None = None) -> bool:
        done: bool = await self.store.rewind(seen, change, now=now)
        if done:
            _untake(seen.key, change.keep)
        return done

    async def reset(self, orders: Sequence[ResetOrder], *, now: int | None = None) -> list[Answered]:
        answers: list[Answered] = await self.store.reset(orders, now=now)
        rows = await self.store.rows([one.id for one in answers if one.answer in (Answer.DONE, Answer.ALREADY)])
        for records in (await self.store.histories([row.key for row in rows.values()])).values():
            if (cut := latest_cut(records)) is not None:
                _untake(cut.source, cut.kept)
        return answers

    def _note(self, unit: Unit) -> None:
        for start in (*([unit.start] if unit.start else []), *unit.children):
            ledger.intended.update((RunKey(start.id, start.run), intent.path) for intent in start.intents)
        for record in unit.records:
            # An intent is written with, or after, all that the run observed before.
            ledger.intended.update((unit.key, intent.path) for intent in record.intents)
            if record.kind is Kind.STEP and b"StepOutcomeUnknown" not in (record.data or b""):
                ledger.outcomes.add((unit.key, record.path))
            elif record.kind is Kind.ATTEMPT:
                ledger.attempts.add((unit.key, record.path, record.attempt))
        for mid, seq in unit.taken:
            ledger.taken.setdefault(mid, set()).add((unit.key, seq))
        if isinstance(unit.change, Rewind):
            _untake(unit.key, unit.change.keep)


def _untake(key: RunKey, keep: int) -> None:
    """What the records that were cut off have received may be received again."""
    for places in ledger.taken.values():
        places -= {place for place in places if place[0] == key and place[1] > keep}


def for_app(store: Any, app: str) -> Any:
    """Another app's view of the database that ``store`` has open: over the same connections, so it costs nothing."""
    other = copy.copy(store)
    other.app = app
    if hasattr(store, "_place"):  # Postgres
        from perdure.store.postgres.commit import Place
        from perdure.store.postgres.writer import Writer

        other._place = Place(app, store.schema, store._place.sql)
        other._writer = Writer(store._writing, other._place)
    return other
