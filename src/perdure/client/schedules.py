"""Schedules from a process that has a line: changed, triggered, backfilled, read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from perdure.client import verbs
from perdure.client.line import Line
from perdure.client.moves import Patient
from perdure.operations.schedules import Hand
from perdure.store.base import Store

T = TypeVar("T")
Verb = Callable[[Store, Hand], Awaitable[T]]
"""Something of ``operations.schedules``, with what makes starts."""


async def hand(line: Line) -> Hand:
    """What makes starts here: their versions are those that any start from here would take."""
    routes = line.routes
    if routes.stale(told=line.work is not None):
        routes.saw(await line.store.routing())
    return Hand(line.new_token, routes.version)


async def do(line: Line, verb: Verb[T]) -> T:
    """Do it, waiting out trouble with the database, and tell those who may fire or run what it made."""
    store = cast("Store", Patient(line, verbs.patiently))
    done = await verb(store, await verbs.patiently(line, hand, line))
    if line.work is not None:
        line.work.look()
    line.store.hint()
    return done
