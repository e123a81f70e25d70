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
from perdure.model.records import Kind, WorkflowRow
from perdure.model.states import Status
from perdure.model.writes import Start
from perdure.operations.look import Order, history_of, row_of
from perdure.operations.steps import records_before
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
) -> str:
    """Begin a workflow of the same name and input under ``new_id``, else ``<id>-2``, ``<id>-3`` … ; its id.

    ``terminate``: ends the old one at once, in the same commit. Raises ``WorkflowNotFound``, ``WorkflowConflict``.
    """
    row = await row_of(store, id)
    input = (await store.inputs([row.key]))[row.key]
    start = _start_of(row, input, None, new_token, version="", kept=0)
    cut = Cut(row.id, row.run, 0)
    end = f"restarted {who_and_why(order.by, order.reason)}" if terminate else None
    return await _begin(store, row, start, cut, "restart", order, new_id, end)


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
) -> str:
    """Begin a workflow that keeps what ``id`` has recorded before ``step`` (default: all), under ``new_id``; its id.

    ``version``: of the code that goes on (default: the one that wrote what is kept). ``input``: another than the
    source's: if records are kept, the replay decides, and holds what does not fit. Raises ``WorkflowNotFound``,
    ``StepNotFound``, ``WorkflowConflict``.
    """
    row = await row_of(store, id)
    history = await history_of(store, row)
    keep = records_before(row, history, step)
    stored = (await store.inputs([row.key]))[row.key]
    own = row.version if keep else ""
    start = _start_of(row, stored, input, new_token, own if version is None else version, keep)
    cut = Cut(row.id, row.run, keep)
    return await _begin(store, row, start, cut, "fork", order, new_id, None, moving=step is None)


def _start_of(
    row: WorkflowRow, stored: bytes, input: bytes | None, new_token: TokenMaker, version: str, kept: int
) -> Start:
    return Start(
        id=row.id, lineage=new_token(), name=row.name, version=version, input=stored if input is None else input,
        fingerprint=row.fingerprint if input is None else fingerprint_data(row.name, input), nonce=new_token(),
        status=Status.QUEUED, timeout=row.timeout, began=row.started if kept else None, queue=row.queue,
        partition=row.partition, priority=row.priority, attributes=row.attributes, versioning=row.versioning,
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
) -> str:
    """Begin it under the id asked for, or the first that is free. ``moving``: all was to be kept, which grows."""
    now = (await store.poll(None, None)).now
    sign = mark(cut, verb, at=now, shown=who_and_why(order.by, order.reason))
    for id in _ids(row.id) if new_id is None else (new_id,):
        begun = msgspec.structs.replace(start, id=id)
        taken = await store.fork(row.key, begun, sign, end=end)
        if taken is None:
            return id
        if new_id is not None:
            await _check_same(store, taken, begun, cut, verb, moving=moving)
            if end is not None:
                await store.terminate(row.id, end, start.nonce)
            return id
    raise AssertionError("the ids never end")


def _ids(id: str) -> map[str]:
    return map(f"{id}-{{}}".format, itertools.count(2))


async def _check_same(store: Store, taken: WorkflowRow, start: Start, cut: Cut, verb: str, *, moving: bool) -> None:
    """Raise ``WorkflowConflict`` unless the id was given to the very same operation before."""
    first = RunKey(taken.id, 1)
    found = [r for r in (await store.histories([first]))[first] if r.kind is Kind.CUT]
    input = (await store.inputs([first])).get(first)
    if found and found[-1].name == verb and (taken.name, input) == (start.name, start.input):
        of = cut_of(found[-1])
        if of == cut or (moving and of.source == cut.source):
            return
    what = f"{taken.name}, {taken.status}"
    if found:
        of = cut_of(found[-1])
        what += f", a {found[-1].name} of run {of.run} of {of.id!r} with {of.kept} records"
    raise WorkflowConflict(
        f"workflow id {taken.id!r} is taken ({what}); this is a {verb} of run {cut.run} of {cut.id!r} with {cut.kept} "
        "records. Choose another id"
    )
