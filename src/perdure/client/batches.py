"""Batches from a process that has a line: planned, ordered, carried out by whoever calls ``step`` until it is over."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

from perdure.client import verbs
from perdure.client.line import Line
from perdure.client.moves import Patient
from perdure.model.batches import BatchInfo, BatchPlan, BatchRow, Fate, TargetRow, batch_info
from perdure.operations import batch_plans, batches
from perdure.operations.batches import BatchOrder, Work
from perdure.operations.look import Order
from perdure.store.base import Store

PAGE = 500  # targets of one question
WATCH_SECONDS = 0.25


async def plan(line: Line, *, order: BatchOrder, samples: int, seed: int, patience: float) -> BatchPlan:
    """What an order would do."""
    return await batch_plans.plan(_store(line), order, line.new_token, samples=samples, seed=seed, patience=patience)


async def begin(line: Line, *, order: BatchOrder) -> tuple[Work, bool]:
    """Order it: the batch, here to be carried out, and whether it is new."""
    owner = line.new_token()
    row, made = await batches.create(_store(line), order, line.new_token, owner)
    return _work(line, row, owner), made


async def take(line: Line, *, key: str, order: Order) -> Work:
    """A batch that is there, to be carried out here from now on."""
    owner = line.new_token()
    return _work(line, await batches.take(_store(line), key, order, line.new_token, owner), owner)


async def retry(line: Line, *, key: str, order: Order) -> Work:
    """A batch whose failed targets were put back, to be carried out here."""
    owner = line.new_token()
    return _work(line, await batches.retry(_store(line), key, order, line.new_token, owner), owner)


async def step(line: Line, *, work: Work) -> BatchInfo:
    """Carry out a chunk, or wait a moment; those who may run what it has queued are told."""
    info = batch_info(await work.step())
    line.watcher.look()
    if line.work is not None:
        line.work.look()
    line.store.hint()
    return info


async def cancel(line: Line, *, key: str, order: Order) -> BatchInfo:
    """Act on no more targets."""
    return batch_info(await batches.cancel(_store(line), key, order, line.new_token))


async def info(line: Line, *, key: str) -> BatchInfo:
    """The batch as it stands."""
    return batch_info(await batches.find(_store(line), key))


async def news(line: Line, *, key: str, seen: BatchInfo | None) -> BatchInfo:
    """The batch as it stands; as it stands a little later, if it is as it was seen."""
    found = await info(line, key=key)
    if found != seen or found.finished:
        return found
    await asyncio.sleep(WATCH_SECONDS)
    return await info(line, key=key)


async def listing(line: Line, *, limit: int) -> list[BatchInfo]:
    """The latest batches."""
    found: list[BatchRow] = await verbs.patiently(line, partial(line.store.batches.listing, limit))
    return [batch_info(row) for row in found]


async def targets(line: Line, *, key: str, fate: Fate | None, after: str) -> list[TargetRow]:
    """A page of its targets."""
    return await _store(line).batches.targets(key, fate, after, PAGE)


def _work(line: Line, row: BatchRow, owner: bytes) -> Work:
    return Work(_store(line), row, owner, line.new_token, check=line.check_replay)


def _store(line: Line) -> Store:
    return cast("Store", Patient(line, verbs.patiently))
