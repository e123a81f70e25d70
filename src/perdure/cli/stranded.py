"""Stranded: open work that no live executor can run, why, and since when.

``perdure workflow list --stranded`` lists it; ``show``, ``list`` and ``doctor`` tell of it where they meet it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from perdure.cli.output import emit_many, instant, table, workflow_fields
from perdure.cli.rollcall import Rollcall, call_roll
from perdure.cli.target import Given, opened
from perdure.model.info import to_datetime
from perdure.model.records import WorkflowRow
from perdure.model.states import Reason, Status, Versioning
from perdure.model.trials import Trial
from perdure.query.conditions import Query, where
from perdure.store.base import Store
from perdure.store.pages import pages

PAGE = 500
NO_CLEANUP = ", without its cleanup"  # what a cancel is where no code can hear of it
NO_EXECUTOR = "no_executor"
ADVICE = "they go on with an executor of their version, or with code that fits: perdure replay MODULE:APP tells which"


class Stranded(msgspec.Struct, frozen=True):
    """One of them: ``reason`` is ``no_executor``, or why it could not be adopted, or ``no_code``."""

    row: WorkflowRow
    reason: str
    detail: str
    since: int
    tried: str = ""  # the version that was tried in vain

    @property
    def told(self) -> dict[str, Any]:
        return {"reason": self.reason, "detail": self.detail, "since": to_datetime(self.since)}

    @property
    def fields(self) -> dict[str, Any]:
        return {**workflow_fields(self.row), "stranded": self.told}

    @property
    def advice(self) -> list[str]:
        """What to do about it."""
        id, version = self.row.id, self.row.version
        bare = "" if self.row.started is None else NO_CLEANUP
        give_up = (
            f"to begin anew: perdure workflow restart {id} --terminate; to give it up{bare}: perdure workflow "
            f"cancel {id}"
        )
        if self.tried:
            fits = "deploy code that fits: perdure replay MODULE:APP tells whether it does, and what helps"
            return [f"start an executor of version {version} until it is done, or {fits}", give_up]
        if self.row.versioning is Versioning.PINNED:
            return [
                f"it is pinned: start an executor of version {version}, or perdure workflow move {id} --to VERSION",
                give_up,
            ]
        tries = (
            "a live executor tries it on its own code a lease after the last of that version has gone (unless it has "
        )
        return [f'{tries}adopt="never"); or start an executor of version {version}', give_up]


async def list_stranded(given: Given, names: Collection[str], limit: int) -> None:
    """Print them, by version."""
    async with opened(given) as store:
        found = await find_stranded(store, names, limit + 1)
    more, found = len(found) > limit, found[:limit]
    cells = [
        (one.row.id, one.row.name, one.row.version, one.reason, instant(one.since), one.detail or str(one.row.status))
        for one in found
    ]
    lines = table(("id", "type", "version", "reason", "since", ""), cells, "nothing is stranded")
    if more:
        lines.append(f"(the first {limit}; for more: --limit {limit * 10})")
    if found:
        lines.append(ADVICE)
    emit_many(given.output, "workflows", [one.fields for one in found], lines, more=more)


async def find_stranded(store: Store, names: Collection[str], limit: int) -> list[Stranded]:
    """Up to ``limit`` of them: of versions that no live executor runs, or held because their version lacks them."""
    roll = await call_roll(store)
    served = roll.served
    lost = [version for version in roll.strays if version not in served]
    rows = await store.strays(lost, None, limit) if lost and not names else []
    if lost and names:  # few, or not first: looked for among all
        rows = await _some(store, where(names=names), limit, lambda row: row.version in lost)
    of = where(names=names, statuses=[Status.RUNNING])
    rows += await _some(store, of, limit, lambda row: _left(roll, served, row))
    of = where(names=names, reasons=[Reason.NO_CODE])
    rows += await _some(store, of, limit, lambda row: row.version in served)
    rows = sorted({row.id: row for row in rows}.values(), key=lambda row: (row.version, row.created, row.id))[:limit]
    trials = await store.trials([row.id for row in rows])
    return [_why(row, trials.get(row.id)) for row in rows]


def unserved(roll: Rollcall) -> list[str]:
    """The versions of open work that nobody runs, while others are alive. With nobody there all work only waits."""
    served = roll.served
    return [version for version in roll.strays if version not in served] if served else []


def strands(roll: Rollcall, rows: Iterable[WorkflowRow]) -> list[WorkflowRow]:
    """Those of them that nobody runs and nobody will take, as who is there now tells. What is held says why itself."""
    served = roll.served
    return [row for row in rows if row.status.open and row.status is not Status.HELD and _left(roll, served, row)]


async def stranded_of(store: Store, roll: Rollcall, rows: Iterable[WorkflowRow]) -> dict[str, Stranded]:
    """Those of them that are stranded, by id. With nobody alive only what was tried in vain."""
    left = {row.id: row for row in strands(roll, rows)}
    trials = await store.trials(left) if left else {}
    found = {id: _why(row, trials.get(id)) for id, row in left.items()}
    return found if roll.live else {id: one for id, one in found.items() if one.tried}


def _left(roll: Rollcall, served: Collection[str], row: WorkflowRow) -> bool:
    """Whether it runs nowhere, whatever its status says, and nobody can take it over."""
    holder = roll.holder_of(row.owner, None)
    return row.version not in ("", *served) and (holder is None or not roll.lives(holder))


async def _some(store: Store, query: Query, limit: int, wanted: Callable[[WorkflowRow], bool]) -> list[WorkflowRow]:
    rows: list[WorkflowRow] = []
    async for page in pages(store, query, PAGE):
        rows += [row for row in page if row.status.open and wanted(row)]
        if len(rows) >= limit:
            break
    return rows


def _why(row: WorkflowRow, trial: Trial | None) -> Stranded:
    if trial is not None and (trial.run, trial.last_seq) == (row.run, row.last_seq):
        return Stranded(row, trial.reason, f"on version {trial.version}: {trial.detail}", trial.at, trial.version)
    if row.reason is not None:
        return Stranded(row, str(row.reason), row.detail, row.updated)
    return Stranded(row, NO_EXECUTOR, f"{row.status}; no live executor runs version {row.version}", row.updated)
