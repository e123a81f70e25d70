"""Waiting for a workflow's end from a process that runs nothing: bounded, and never in silence.

While an executor lives the wait may take its time; when nobody is there to do the work, or the workflow is held, it
says so and gives up after a little while. What was asked for goes on without the one who waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.cli.output import note
from perdure.cli.rollcall import call_roll, nobody
from perdure.cli.stranded import stranded_of
from perdure.errors import ResultTimeout
from perdure.model.records import Ended, WorkflowRow
from perdure.model.states import Status
from perdure.operations.look import gone
from perdure.store.base import Store

POLL_SECONDS_MIN = 0.02
POLL_SECONDS_MAX = 0.5
ALONE_SECONDS = 10.0  # with nobody to do the work, and no --timeout: time enough for a restart
ROLL_SECONDS = 2.0  # between two looks at who is there


class NotYet(ResultTimeout):
    """The end did not come; ``why`` says what is in its way, "" if nothing is known to be."""

    def __init__(self, message: str, why: str) -> None:
        super().__init__(message)
        self.why = why


async def wait_end(
    store: Store, id: str, timeout: float | None, *, alone: float = ALONE_SECONDS, tell: Callable[[str], None] = note
) -> Ended:
    """The end of a workflow that exists. Raises ``NotYet``, ``WorkflowNotFound`` if it is deleted meanwhile."""
    hinted = asyncio.Event()
    store.on_hint(lambda _queues: hinted.set())
    loop = asyncio.get_running_loop()
    began = loop.time()
    looked, pause, why = began - ROLL_SECONDS, POLL_SECONDS_MIN, ""
    stuck_since: float | None = None
    while True:
        hinted.clear()
        fates = await store.fates([id])
        if fates.gone:
            raise await gone(store, id)
        if id in fates.ended:
            return fates.ended[id]
        now = loop.time()
        if now - looked >= ROLL_SECONDS or stuck_since is not None:
            looked = now
            was, why = why, await why_stuck(store, id)
            stuck_since = None if not why else (now if stuck_since is None else stuck_since)
            if why and not was:
                tell(why)
        if timeout is not None and now - began >= timeout:
            raise NotYet(f"workflow {id} did not end within {timeout:g} s; {why or 'it goes on'}", why)
        if timeout is None and stuck_since is not None and now - stuck_since >= alone:
            raise NotYet(f"waited {alone:g} s in vain: {why}", why)
        left = POLL_SECONDS_MAX if timeout is None else max(began + timeout - now, 0.001)
        try:
            await asyncio.wait_for(hinted.wait(), min(pause, left))
            pause = POLL_SECONDS_MIN
        except TimeoutError:
            pause = min(pause * 1.5, POLL_SECONDS_MAX)


async def why_stuck(store: Store, id: str) -> str:
    """Why nothing will happen by itself, "" if something may."""
    row: WorkflowRow | None = (await store.rows([id])).get(id)
    if row is not None and row.status is Status.HELD:
        return f"workflow {id} is held ({row.reason}): {row.detail}; see: perdure workflow show {id}"
    roll = await call_roll(store)
    found = {} if row is None else await stranded_of(store, roll, [row])
    if id in found and found[id].tried:  # else an executor may be about to take it
        return f"workflow {id} is stranded: {found[id].detail}; see: perdure workflow show {id}"
    return "" if roll.live else f"workflow {id} does not move: {nobody(store.app)}"
