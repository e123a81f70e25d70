"""What the code declares of a workflow that was started without it: whoever claims it first knows, and says so.

A client without the code (``perdure workflow start``, a ``Client``) makes a row that has no queue. Its first claimer
hands it back in the line of the queue that the workflow declares, in one commit under the claim's token, instead of
running it.

Promises: only what has never begun, and has no queue of its own, is lined up, at the place and with the version that it
would have had from the start; who dies before that leaves a claim, and whoever adopts it does the same. Versioning and
timeout hold from the claim on, and are noted in the row meanwhile: what it says already stays.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from perdure.client import verbs
from perdure.client.line import Line
from perdure.definitions import Registry, WorkflowDef
from perdure.model.ids import RunKey
from perdure.model.records import BEFORE, Claimed, Record, WorkflowRow
from perdure.model.states import Status, Versioning
from perdure.model.versions import Terms
from perdure.store.lines import Declared


class Host(Protocol):
    """What this needs of an executor."""

    line: Line
    registry: Registry

    def keep(self, task: asyncio.Task[Any]) -> None: ...
    def look(self) -> None: ...


async def line_up(
    host: Host, claimed: Sequence[Claimed], histories: Mapping[RunKey, Sequence[Record]]
) -> frozenset[str]:
    """Hand back those that are to stand in line first; their ids. ``histories``: of those that may have one."""
    by_token: defaultdict[bytes, list[Declared]] = defaultdict(list)
    for one in claimed:
        row, definition = one.row, host.registry.workflows.get(one.row.name)
        records = histories.get(row.key, ())
        begun = row.intents or any(record.name not in BEFORE for record in records)
        if row.queue is not None or row.cancel is not None or begun:
            continue
        if definition is None or definition.queue is None or row.claim is None:
            continue
        if row.run > 1 and await _goes_on(host, row.key):
            continue
        told = row.versioning if row.versioning is not Versioning.UNDECLARED else definition.versioning
        by_token[row.claim].append(
            Declared(id=row.id, queue=definition.queue, versioning=told, since=one.since, versioned=one.versioned)
        )
    done: list[str] = []
    for token, found in by_token.items():
        done += await host.line.store.line_up_declared(found, token, now=host.line.clock.stamp())
    if done:
        host.look()  # nobody in line is begun before it is seen there
        host.line.store.hint()
    return frozenset(done)


async def _goes_on(host: Host, key: RunKey) -> bool:
    """Whether the run before has continued as this one: where that ran without its queue, so does this."""
    before = await host.line.store.run(RunKey(key.id, key.run - 1))
    return before is not None and before.status is Status.CONTINUED


def as_declared(host: Host, claimed: Sequence[Claimed]) -> list[Claimed]:
    """The same, versioned and timed as the code declares; noted in their rows, too."""
    found: list[Claimed] = []
    new: defaultdict[bytes, list[Terms]] = defaultdict(list)
    for one in claimed:
        row, definition = one.row, host.registry.workflows.get(one.row.name)
        after = row if definition is None else _on_terms(row, definition)
        if after is not row and row.claim is not None:
            new[row.claim].append(Terms(id=row.id, versioning=after.versioning, timeout=after.timeout))
        found.append(one if after is row else msgspec.structs.replace(one, row=after))
    for claim, terms in new.items():
        noted = verbs.patiently(host.line, host.line.store.declare, terms, claim)
        host.keep(asyncio.Task(noted, loop=host.line.loop))
    return found


def _on_terms(row: WorkflowRow, definition: WorkflowDef) -> WorkflowRow:
    """The row as ``Store.declare`` makes it; itself if it says all that the code does."""
    if row.versioning is Versioning.UNDECLARED and definition.versioning is not row.versioning:
        row = msgspec.structs.replace(row, versioning=definition.versioning)
    if row.timeout is None and definition.timeout is not None and row.started is not None:
        since = max(row.started, row.created)  # what goes on from kept records started before it was created
        own = since + definition.timeout
        deadline = own if row.deadline is None else min(own, row.deadline)
        row = msgspec.structs.replace(row, timeout=definition.timeout, deadline=deadline)
    return row
