"""Queues: workflows stand in line before the executors, and are let through by limits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from perdure.errors import DefinitionError
from perdure.model.amounts import MOST, is_amount, shown
from perdure.model.info import to_datetime
from perdure.model.queues import NAME_MAX, PARTITION_MAX, Limits, QueueChange, QueueCount, QueueRow
from perdure.policy.rate import Rate

Limit = int | Rate | None
_COUNTS = ("concurrency", "worker_concurrency", "partition_concurrency")
_RATES = {"rate": "rate", "partition_rate": "partition_rate"}


class Queue:
    """A queue of an app, as its code declares it. Made by ``app.queue("emails", concurrency=10)``.

    Given to ``@app.workflow(queue=emails)`` or ``.options(queue=emails)``; its name does as well.
    """

    __slots__ = ("limits", "name")

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits

    def __repr__(self) -> str:
        return f"<queue {self.name}>"


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue when it was read: its limits, which of them an operator changed, and what it holds (up to 100,000)."""

    name: str
    paused: bool
    concurrency: int | None
    worker_concurrency: int | None
    rate: Rate | None
    partition_concurrency: int | None
    partition_rate: Rate | None
    live: tuple[str, ...]
    """The limits that were changed live: they win over what the code declares until they are reset."""
    declared: bool
    """Whether code that was launched declares this queue."""
    in_line: int
    delayed: int
    in_progress: int
    oldest: datetime | None
    """When the first of those in line was queued."""


def queue_info(row: QueueRow, count: QueueCount) -> QueueInfo:
    """A queue as its reader sees it."""
    limits = row.limits
    changed = [name for name in (*_COUNTS, *_RATES) if name in row.live or name + "_limit" in row.live]
    return QueueInfo(
        name=row.name, paused=row.paused, concurrency=limits.concurrency,
        worker_concurrency=limits.worker_concurrency, rate=_rate(limits.rate_limit, limits.rate_period),
        partition_concurrency=limits.partition_concurrency,
        partition_rate=_rate(limits.partition_rate_limit, limits.partition_rate_period), live=tuple(changed),
        declared=row.declared is not None, in_line=count.in_line, delayed=count.delayed,
        in_progress=count.in_progress, oldest=None if count.oldest is None else to_datetime(count.oldest),
    )  # fmt: skip


def _rate(limit: int | None, period: int | None) -> Rate | None:
    return None if limit is None or period is None else Rate(limit, per=period / 1e6)


def limits_of(limits: dict[str, Limit]) -> dict[str, int | None]:
    """Limits as they are stored. Raises ``DefinitionError`` showing what is none."""
    stored: dict[str, int | None] = {}
    for name, value in limits.items():
        if name in _RATES:
            if value is not None and not isinstance(value, Rate):
                raise DefinitionError(f"{name}={value!r} is no rate: give such as Rate(100, per=60), or None for none")
            stored[name + "_limit"] = None if value is None else value.limit
            stored[name + "_period"] = None if value is None else value.period
        elif name not in _COUNTS:
            known = ", ".join((*_COUNTS, *_RATES))
            raise DefinitionError(f"there is no limit {name!r} of a queue; there is: {known}")
        elif value is None or (isinstance(value, int) and is_amount(value)):
            stored[name] = value
        else:
            raise DefinitionError(f"{name}={shown(value)} is no limit: a whole number from 1 to {MOST}, or None")
    return stored


def change_of(limits: dict[str, Any], *, paused: bool | None = None, reset: bool = False) -> QueueChange:
    """An operator's change."""
    return QueueChange(limits=limits_of(limits), paused=paused, reset=reset)


def check_queue(name: Any) -> str:
    """A queue's name: 1 to 100 printable characters, no space at its ends. Raises ``DefinitionError`` showing it."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not _plain(name) or name != name.strip():
        raise DefinitionError(
            f"{name!r} cannot name a queue: give text of 1 to {NAME_MAX} printable characters, no space at its ends"
        )
    return name


def check_partition(partition: Any) -> str:
    """A partition: up to 200 printable characters. Raises ``DefinitionError`` showing it."""
    if not isinstance(partition, str) or len(partition) > PARTITION_MAX or not _plain(partition):
        raise DefinitionError(
            f"partition={partition!r} cannot be used: text of up to {PARTITION_MAX} printable characters is needed"
        )
    return partition


def _plain(text: str) -> bool:
    return text.isprintable()
