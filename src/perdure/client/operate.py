"""What an operator reads and changes of queues, over the line. Whoever works them is told at once."""

from __future__ import annotations

from perdure.client import verbs
from perdure.client.line import Line
from perdure.model.queues import QueueChange, QueueCount, QueueRow


async def counted(line: Line) -> list[tuple[QueueRow, QueueCount]]:
    """All queues by name, also those that only their items tell of, with what they hold."""
    rows = {row.name: row for row in await verbs.patiently(line, line.store.queues)}
    counts: dict[str, QueueCount] = await verbs.patiently(line, line.store.queue_counts)
    if unknown := counts.keys() - rows.keys():
        await verbs.patiently(line, line.store.make_queues, unknown)
        rows = {row.name: row for row in await verbs.patiently(line, line.store.queues)}
    return [(rows[name], counts.get(name, QueueCount())) for name in sorted(rows)]


async def change(line: Line, name: str, order: QueueChange) -> QueueRow:
    """Change a queue; how it stands then."""
    row: QueueRow = await verbs.patiently(line, line.store.change_queue, name, order)
    if line.work is not None:
        line.work.look()
    line.store.hint()
    return row
