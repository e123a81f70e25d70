"""Restart and fork: a new workflow from an old one, which stays as it is.

A fork keeps the records before a step, with a lineage of its own: its steps have other idempotency keys, its children
other ids. A restart keeps nothing but name and input. Each is done once per new id, whoever repeats it.
"""

from __future__ import annotations

import itertools

import msgspec

from perdure.errors import WorkflowConflict
from perdure.model.cuts import Cut, cut_of, mark, who_and_why
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.orders import Answer, Answered, Goal
from perdure.model.records import Kind, Record, WorkflowRow
from perdure.model.states import Status, Versioning
from perdure.model.steps import records_before
from perdure.model.writes import Start
from perdure.operations.look import Order, history_of, row_of
from perdure.operations.move import check_goal, noted
from perdure.serde import fingerprint_data
from perdure.store.base import Store


async def restart(
    store: Store,
    id: str,
    order: Order,
    new_token: TokenMaker,
    *,
    new_id: str | None = None,
    terminate: bool = False,
    version: str | None = None,
    key: str | None = None,
) -> Answered:
    """Begin a workflow of the same name and input under ``new_id``, else ``<id>-2``, ``<id>-3`` … ; ``new`` is its id.

    ``terminate``: ends the old one at once, in the same commit. ``version``: of the code that runs it. ``key``: what
    was begun by an order of that key is the answer. Raises ``WorkflowNotFound``, ``WorkflowConflict``,
    ``VersionNotFound``.
    """
    unserved = "" if version is None else await check_goal(store, Goal(Versioning.PINNED, version), force=False)
    row = await row_of(store, id)
    input = (await store.inputs([row.key]))[row.key]
    start = _start_of(row, input, None, new_token, version=version, kept=0)
    cut = Cut(row.id, row.run, 0, key=key or "")
    end = f"restarted {who_and_why(order.by, order.reason)}" if terminate else None
    return noted(await _begin(store, row, start, cut, "restart", order, new_id, end), unserved)


async def fork(
    store: Store,
    id: str,
    order: Order,
    new_token: TokenMaker,
    *,
    new_id: str | None = None,
    step: str | int | None = None,
    version: str | None = None,
    input: bytes | None = None,
    key: str | None = None,
) -> Answered:
    """Begin a workflow that keeps what ``id`` has recorded before ``step`` (default: all), under ``new_id``: ``new``.

    ``version``: of the code that goes on (default: the one that wrote what is kept). ``input``: another than the
    source's: if records are kept, the replay decides, and holds what does not fit. ``key``: as of a restart. Raises
    ``WorkflowNotFound``, ``StepNotFound``, ``WorkflowConflict``.
    """
    row = await row_of(store, id)
    history = await history_of(store, row)
    keep = records_before(row, history, step)
    stored = (await store.inputs([row.key]))[row.key]
    start = _start_of(row, stored, input, new_token, version, keep)
    cut = Cut(row.id, row.run, keep, key=key or "")
    return await _begin(store, row, start, cut, "fork", order, new_id, None, moving=step is None)


def _start_of(
    row: WorkflowRow, stored: bytes, input: bytes | None, new_token: TokenMaker, version: str | None, kept: int
) -> Start:
    versioning = row.versioning if row.override is None else row.override.was
    if version is not None and versioning is Versioning.AUTO_UPGRADE:
        versioning = Versioning.PINNED  # else it would not stay where it was told to
    own = row.version if kept else ""
    return Start(
        id=row.id, lineage=new_token(), name=row.name,
        version=own if version is None else version, input=stored if input is None else input,
        fingerprint=row.fingerprint if input is None else fingerprint_data(row.name, input), nonce=new_token(),
        status=Status.QUEUED, timeout=row.timeout, began=row.started if kept else None, queue=row.queue,
        partition=row.partition, priority=row.priority, attributes=row.attributes, versioning=versioning,
    )  # fmt: skip


async def _begin(
    store: Store,
    row: WorkflowRow,
    start: Start,
    cut: Cut,
    verb: str,
    order: Order,
    new_id: str | None,
    end: str | None,
    *,
    moving: bool = False,
) -> Answered:
    """Begin it under the id asked for, or the first that is free. ``moving``: all was to be kept, which grows."""
    now = (await store.poll(None, None)).now
    sign = mark(cut, verb, at=now, shown=who_and_why(order.by, order.reason))
    for id in _ids(row.id) if new_id is None else (new_id,):
        begun = msgspec.structs.replace(start, id=id)
        taken = await store.fork(row.key, begun, sign, end=end)
        if taken is None:
            return Answered(row.id, Answer.DONE, f"begun as {id}", Status.QUEUED, new=id)
        if new_id is None and not (cut.key and await _same_key(store, taken, cut, verb)):
            continue
        if new_id is not None:
            await _check_same(store, taken, begun, cut, verb, moving=moving)
        if end is not None:
            await store.terminate(row.id, end, start.nonce)
        return Answered(row.id, Answer.ALREADY, f"was begun as {id}, which is {taken.status}", taken.status, new=id)
    raise AssertionError("the ids never end")


async def _first_mark(store: Store, taken: WorkflowRow) -> Record | None:
    """What the first run of what has an id began with."""
    first = RunKey(taken.id, 1)
    found = [r for r in (await store.histories([first]))[first] if r.kind is Kind.CUT]
    return found[-1] if found else None


async def _same_key(store: Store, taken: WorkflowRow, cut: Cut, verb: str) -> bool:
    """Whether it was begun by an order of the same key, from the same run."""
    sign = await _first_mark(store, taken)
    if sign is None or sign.name != verb:
        return False
    of = cut_of(sign)
    return (of.key, of.source) == (cut.key, cut.source)


def _ids(id: str) -> map[str]:
    return map(f"{id}-{{}}".format, itertools.count(2))


async def _check_same(store: Store, taken: WorkflowRow, start: Start, cut: Cut, verb: str, *, moving: bool) -> None:
    """Raise ``WorkflowConflict`` unless the id was given to the very same operation before."""
    first = RunKey(taken.id, 1)
    sign = await _first_mark(store, taken)
    input = (await store.inputs([first])).get(first)
    what = f"{taken.name}, {taken.status}"
    if sign is not None:
        of = cut_of(sign)
        same = (sign.name, taken.name, input, of.source) == (verb, start.name, start.input, cut.source)
        if same and (of.kept == cut.kept or moving) and (verb == "fork" or sign.version == start.version):
            return
        what += f", a {sign.name} of run {of.run} of {of.id!r} with {of.kept} records"
        what += f" on version {sign.version}" if verb == "restart" and sign.version else ""
    raise WorkflowConflict(
        f"workflow id {taken.id!r} is taken ({what}); this is a {verb} of run {cut.run} of {cut.id!r} with {cut.kept} "
        "records. Choose another id"
    )
