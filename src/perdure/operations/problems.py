"""What did not get a workflow on: as a person sees it."""

from __future__ import annotations

from perdure.errors import Unserializable
from perdure.model.ids import RunKey
from perdure.model.info import Problem, to_datetime
from perdure.model.problems import OF_HOLD, ProblemKind, ProblemRow
from perdure.model.records import WorkflowRow
from perdure.model.states import Status
from perdure.operations.look import row_of, served
from perdure.serde import describe_failure, is_coded, show_stored
from perdure.store.base import Store

STRANDED = "stranded: "


async def problems_of(store: Store, id: str) -> list[Problem]:
    """All problems that runs of a workflow have had, what is over too; the oldest first.

    Raises ``WorkflowNotFound``.
    """
    row = await row_of(store, id)
    found = await store.problems([id])
    ends: dict[int, int | None] = {row.run: row.closed}
    for run in {one.run for one in found if one.cleared is None} - {row.run}:
        past = await store.run(RunKey(id, run))
        ends[run] = None if past is None else past.closed
    told = [_shown(one, one.cleared if one.cleared is not None else ends.get(one.run)) for one in found]
    return [*told, *await _stranded(store, row)]


async def _stranded(store: Store, row: WorkflowRow) -> list[Problem]:
    """That it waits for an executor of its version, while the code of those alive was tried and cannot go on with it.

    No row of a problem says so: it is over as soon as an executor of its version lives, which nobody writes down.
    """
    if not row.status.open or row.status is Status.HELD or row.owner is not None:
        return []
    trial = (await store.trials([row.id])).get(row.id)
    if trial is None or (trial.run, trial.last_seq) != (row.run, row.last_seq):
        return []
    if not (await served(store)).strands(row):
        return []
    known = {str(kind) for kind in ProblemKind}
    at = to_datetime(trial.at)
    return [
        Problem(
            kind=ProblemKind(trial.reason) if trial.reason in known else ProblemKind.NONDETERMINISM,
            text=f"{STRANDED}no live executor runs version {row.version}; on version {trial.version}: {trial.detail}",
            run=row.run, version=trial.version, step="", path="", attempt=1, first=at, last=at, next=None, cleared=None,
        )
    ]  # fmt: skip


def _shown(one: ProblemRow, cleared: int | None) -> Problem:
    """``cleared``: or the end of its run, which nobody noted there."""
    # The first time that work is held there is nothing to wait out: the time of the hold is stored, which says no more.
    waits = cleared is None and one.next is not None and not (one.kind in OF_HOLD.values() and one.next <= one.last)
    return Problem(
        kind=one.kind, text=text_of(one), run=one.run, version=one.version, step=one.name, path=one.path,
        attempt=one.attempt, first=to_datetime(one.first), last=to_datetime(one.last),
        next=to_datetime(one.next) if waits and one.next is not None else None,
        cleared=None if cleared is None else to_datetime(cleared),
    )  # fmt: skip


def text_of(one: ProblemRow) -> str:
    """What went wrong, in words."""
    if one.data is None:
        return one.text
    if is_coded(one.data):
        return show_stored(one.data)
    try:
        failure = describe_failure(one.data)
    except Unserializable as unreadable:
        return f"(unreadable: {unreadable})"
    return f"{failure.type_name}: {failure.message}" if failure.message else failure.type_name
