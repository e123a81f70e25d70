"""Resume: a workflow goes on from its last recorded step, its deaths forgotten.

| it is | what happens |
|---|---|
| running, waiting | nothing: it goes on already |
| queued, scheduled | it starts now, outside its queue; if a resume has queued it, nothing |
| held | it is queued again, and keeps its queue |
| cancelled, timed out | its next run begins before the cancel: the command, and what cleaned up after it, are cut off |
| completed, failed, terminated | refused, with the way out |
| of a version that nobody runs (stranded) | moved to the current version if its history replays there; else refused |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from perdure.errors import WorkflowClosed, WorkflowStranded
from perdure.model.cuts import rewind, who_and_why
from perdure.model.ids import TokenMaker
from perdure.model.records import Kind, WorkflowRow
from perdure.model.resets import before_cancel
from perdure.model.states import Status
from perdure.model.writes import Reopen
from perdure.operations.look import Order, Served, history_of, row_of, served
from perdure.store.base import Store

Check = Callable[[WorkflowRow, str], Awaitable[str | None]]
"""Whether a run's history replays on a version's code: None if it does, else both sides in words."""

VERB = "resume"
GOES_ON = frozenset({Status.RUNNING, Status.WAITING})
STARTS_NOW = frozenset({Status.QUEUED, Status.SCHEDULED})
REOPENS = frozenset({Status.CANCELLED, Status.TIMED_OUT})


async def resume(
    store: Store,
    id: str,
    order: Order,
    new_token: TokenMaker,
    *,
    version: str | None = None,
    force: bool = False,
    check: Check | None = None,
) -> Status:
    """Let it go on; the status it then has.

    ``version``: the code that goes on with it. ``force``: moves it there without a check of its history: a replay that
    does not fit holds it, without effect. Raises ``WorkflowNotFound``, ``WorkflowClosed``, ``WorkflowStranded``.
    """
    while True:
        row = await row_of(store, id)
        there = await served(store)
        target = await _target(store, row, there, version, force=force, check=check)
        if target is None and (row.status in GOES_ON or await _resumed_already(store, row)):
            return row.status
        if row.status.open:
            to = Reopen(
                nonce=new_token(), verb=VERB, shown=who_and_why(order.by, order.reason), at=there.now,
                version=target, at_once=row.status in STARTS_NOW,
            )  # fmt: skip
            done = await store.reopen(row, to)
        else:
            done = await _reopen_closed(store, row, order, new_token, there.now, target)
        if done:
            return Status.QUEUED


async def _resumed_already(store: Store, row: WorkflowRow) -> bool:
    """Whether it is queued by a resume, and nothing has happened since: asked for twice, it keeps its place."""
    if row.status not in STARTS_NOW or not row.last_seq:
        return False
    last = (await history_of(store, row))[-1]
    return last.kind in (Kind.DECISION, Kind.CUT) and last.name == VERB


async def _reopen_closed(
    store: Store, row: WorkflowRow, order: Order, new_token: TokenMaker, now: int, target: str | None
) -> bool:
    history = await history_of(store, row)
    input = (await store.inputs([row.key]))[row.key]
    over = row.status is Status.TIMED_OUT or (row.deadline is not None and row.deadline <= now)
    change = rewind(
        row, history, input, before_cancel(history), new_token, at=now, by=order.by, reason=order.reason, verb=VERB,
        version=target, rearm=over, uncancel=True,
    )  # fmt: skip
    return await store.rewind(row, change)


async def _target(
    store: Store, row: WorkflowRow, there: Served, version: str | None, *, force: bool, check: Check | None
) -> str | None:
    """The version to move to, None if it stays with its own. Raises ``WorkflowClosed``, ``WorkflowStranded``."""
    if not row.status.open and row.status not in REOPENS:
        _refuse_closed(row)
    stranded = there.strands(row)
    if version == row.version or (version is None and not stranded):
        return None
    if version is None:
        routing = await store.routing()
        version = routing.current if routing is not None and routing.current in there.versions else None
    if version is None and len(there.versions) > 1:
        listed = ", ".join(sorted(there.versions))
        raise WorkflowStranded(
            f"workflow {row.id!r} is of version {row.version!r}, which no live executor runs; they run {listed}. "
            f"Say which is to go on with it: perdure workflow resume {row.id} --version …"
        )
    target = next(iter(there.versions)) if version is None else version
    if row.status in GOES_ON and not stranded and not force:
        raise WorkflowStranded(
            f"workflow {row.id!r} is {row.status} on version {row.version!r}, whose executors are alive; to take it "
            f"from them: perdure workflow resume {row.id} --version {target} --force"
        )
    if force or not (row.intents or await history_of(store, row)):
        return target
    why = "nobody here can replay its history on that version" if check is None else await check(row, target)
    if why is not None:
        raise WorkflowStranded(
            f"workflow {row.id!r} has records of version {row.version!r} and was not moved to {target!r}: {why}. Run "
            f"an executor of {row.version!r}; or move it all the same (a replay that does not fit holds it, without "
            f"effect): perdure workflow resume {row.id} --version {target} --force; or begin anew: perdure workflow "
            f"restart {row.id}"
        )
    return target


def _refuse_closed(row: WorkflowRow) -> NoReturn:
    outs = [f"perdure workflow restart {row.id} (anew, with the same input)"]
    if row.status is not Status.COMPLETED:
        outs.append(f"perdure workflow fork {row.id} --from STEP (a new workflow that keeps what came before the step)")
    ways = "; or ".join(outs)
    raise WorkflowClosed(f"workflow {row.id!r} is {row.status}, which is final; it goes on as another: {ways}")
