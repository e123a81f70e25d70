"""What a run rests on: waiting until all that it has written so far is durable, whatever others write meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any


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


def _carrier(execution: Any) -> Any:
    """The nearest ancestor here whose own start is durable, or is in its own unit."""
    while execution.newborn and (parent := execution.host.executions.get(execution.row.parent)) is not None:
        execution = parent
    return execution
