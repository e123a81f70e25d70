"""What a run rests on: waiting until all that it has written so far is durable, whatever others write meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from perdure.errors import Evicted


async def all_durable(execution: Any) -> None:
    """All that the run has written so far is durable, or the run is over here."""
    journal = execution.line.journal
    while execution.newborn and not (execution.gone or journal.closed):
        # Its own writes follow its start, which travels with its parent's next unit.
        carrier = _carrier(execution)
        if carrier is execution:
            break
        carrier.dirty()
        await journal.caught_up(carrier)
        await asyncio.sleep(0)
    await journal.caught_up(execution)


async def may_act(execution: Any, op: Any) -> None:
    """The same, before an effect outside of the call ``op``. Raises ``Evicted`` if it is not to happen any more.

    What was written may have been refused, and then nothing led here; or nobody waits for the call by now.
    """
    await all_durable(execution)
    if execution.gone or not op.is_open:
        raise Evicted


def _carrier(execution: Any) -> Any:
    """The nearest ancestor here whose own start is durable, or is in its own unit."""
    while execution.newborn and (parent := execution.host.executions.get(execution.row.parent)) is not None:
        execution = parent
    return execution
