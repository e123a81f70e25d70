"""What the clients of a world ask of queues and schedules: limits, lines, keys, nominal times."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import Rate
from perdure.testing.simulation.workload import Client

Script = Callable[[Client], Awaitable[None]]
LATE = {"delay": 0.5}
LIMITS: tuple[dict[str, Any], ...] = (
    {"concurrency": 2},
    {"rate": Rate(2, per=1)},
    {"concurrency": 3, "partition_concurrency": 1},
    {"partition_rate": Rate(1, per=1)},
)


def _queued(id: str, chance: Any) -> Script:
    """A line, under limits that are counted from rows."""
    return _line(id, chance, chance.choice(LIMITS))


def _portioned(id: str, chance: Any) -> Script:
    """A line of which each executor has one. Not drawn among others: a claim that is late is not counted in time."""
    return _line(id, chance, {"worker_concurrency": 1})


def _line(id: str, chance: Any, limits: dict[str, Any]) -> Script:
    items = [
        {"priority": chance.choice((0, 0, 1, -1)), "partition": chance.choice("ab")} | chance.choice(({}, {}, LATE))
        for _ in range(chance.randint(5, 8))
    ]
    waits = [chance.choice((0.0, 0.0, 0.3)) for _ in items]

    async def script(client: Client) -> None:
        await client.limit(f"{id} line", limits)
        handles: list[Any] = []
        for n, (options, wait) in enumerate(zip(items, waits, strict=True)):
            await asyncio.sleep(wait)
            handles.append(await client.enqueue(client.app.queued, f"{id}-{n}", queue=f"{id} line", **options))
        for handle in handles:
            await client.result(handle)

    return script


def _keyed(id: str, chance: Any) -> Script:
    """Starts under one key, while an earlier one is open and after."""
    waits = [chance.choice((0.0, 0.0, 0.2, 1.5)) for _ in range(4)]
    how = chance.choice(({}, {}, {"on_conflict": "replace"}, {"debounce": 0.3}))

    async def script(client: Client) -> None:
        handles: list[Any] = []
        for n, wait in enumerate(waits):
            await asyncio.sleep(wait)
            order = {"queue": f"{id} line", "dedup": "key", **how}
            handles.append(await client.enqueue(client.app.queued, f"{id}-{n}", **order))
        for handle in handles:
            await client.result(handle)

    return script


def _scheduled(id: str, chance: Any) -> Script:
    """A schedule, for some seconds."""
    missed, overlap = chance.choice(("skip", "once", "all")), chance.choice(("allow", "skip", "queue"))
    seconds = chance.uniform(3.0, 6.0)

    async def script(client: Client) -> None:
        await client.schedule(id, missed, overlap, seconds)

    return script


Kind = Callable[[str, Any], Script]
KINDS: tuple[Kind, ...] = (_queued, _queued, _keyed, _scheduled)
NAMED: tuple[Kind, ...] = (_queued, _portioned, _keyed, _scheduled)
SHARE = 0.12  # of the worlds that have one of these beside the rest
