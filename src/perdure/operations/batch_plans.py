"""What a batch would do: counts of its targets by group, and samples replayed on the version they would move to.

Nothing is frozen and nothing changed; the counts are one look at the database.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from perdure.model.batches import BatchPlan, PlanGroup, PlanSample, batch_info
from perdure.model.ids import TokenMaker
from perdure.model.records import WorkflowRow
from perdure.model.resets import Point
from perdure.model.states import Status
from perdure.model.trials import Judged
from perdure.model.verbs import Verb, options_of
from perdure.operations.ask import PATIENCE_SECONDS, ask_verdicts
from perdure.operations.batches import BatchOrder, batch_query
from perdure.operations.look import served
from perdure.query.conditions import Fact, OneOf, Query, narrowed
from perdure.query.conditions import Order as By
from perdure.store.base import Store

SAMPLES = 3  # of each group, if nobody says otherwise
GROUPS_MAX = 20  # that samples are taken of: the largest
POOL = 100  # newest, and as many oldest, of a group, from which samples are drawn
GROUPED = (Fact.NAME, Fact.VERSION, Fact.STATUS, Fact.PROBLEM)

Judge = Callable[[Sequence[WorkflowRow], str, Point | None], Awaitable[dict[str, Judged]]]
"""Verdicts by id, of those that somebody could judge, on a version: of all records, or those before a point."""


async def plan(
    store: Store, order: BatchOrder, token: TokenMaker, *, samples: int = SAMPLES, seed: int = 0,
    patience: float = PATIENCE_SECONDS, judge: Judge | None = None,
) -> BatchPlan:  # fmt: skip
    """What the order would do. ``samples``: so many of each group, drawn by ``seed``.

    ``judge``: who replays them; else live executors of the version are asked, for ``patience`` seconds.
    """
    query = batch_query(order.query, store.app)
    counted = await store.count(msgspec.structs.replace(query, groups=GROUPED))
    groups = [_group(order.verb, one.values, one.total) for one in counted]
    target = order.verb.target
    chosen: list[WorkflowRow] = []
    unsampled = 0
    if target is not None and samples:
        chosen, unsampled = await _chosen(store, query, order.verb, groups, samples, random.Random(seed))
    judged: list[PlanSample] = []
    if target is not None and chosen:
        judged = await judged_on(store, chosen, target, token, patience, judge, order.verb.point)
    before = await store.batches.get(order.base)
    return BatchPlan(
        verb=order.verb.name, options=msgspec.json.decode(options_of(order.verb)), query=order.query.strip(),
        key=order.base, total=sum(group.count for group in groups), groups=tuple(groups), target=target,
        samples=tuple(judged), unsampled=unsampled, before=None if before is None else batch_info(before),
    )  # fmt: skip


def _group(verb: Verb, values: Sequence[object], count: int) -> PlanGroup:
    name, version, status, problem = values
    return PlanGroup(
        type=str(name), version=str(version), status=str(status), problem=None if problem is None else str(problem),
        count=count, applies=verb.takes(Status(str(status))),
    )  # fmt: skip


async def _chosen(
    store: Store, query: Query, verb: Verb, groups: Sequence[PlanGroup], samples: int, chance: random.Random
) -> tuple[list[WorkflowRow], int]:
    """Samples of each group by type and version that is not there yet; how many are in groups without any."""
    counts: dict[tuple[str, str], int] = {}
    for group in groups:
        if group.applies and group.version != verb.target:
            kind = group.type, group.version
            counts[kind] = counts.get(kind, 0) + group.count
    largest = sorted(counts, key=lambda kind: (-counts[kind], kind))
    statuses = OneOf(Fact.STATUS, tuple(sorted(status for status in Status if verb.takes(status))))
    chosen: list[WorkflowRow] = []
    for name, version in largest[:GROUPS_MAX]:
        asked = narrowed(query, OneOf(Fact.NAME, (name,)), OneOf(Fact.VERSION, (version,)), statuses)
        pool: dict[str, WorkflowRow] = {}
        for descending in (True, False):
            page = await store.list(msgspec.structs.replace(asked, order=By(descending=descending)), limit=POOL)
            pool.update((row.id, row) for row in page.rows)
        chosen += chance.sample([pool[id] for id in sorted(pool)], min(samples, len(pool)))
    return chosen, sum(counts[kind] for kind in largest[GROUPS_MAX:])


async def judged_on(
    store: Store, chosen: Sequence[WorkflowRow], target: str, token: TokenMaker, patience: float, judge: Judge | None,
    point: Point | None,
) -> list[PlanSample]:  # fmt: skip
    """The samples, replayed on a version."""
    found: dict[str, Judged] = {}
    if judge is not None:
        found, why = await judge(chosen, target, point), "it is gone"
    elif target in (await served(store)).versions:
        found = await ask_verdicts(
            store, token, [row.id for row in chosen], target, patience=patience, point=point
        )  # fmt: skip
        why = f"no live executor of version {target!r} answered within {patience:g} s" if not found else "it is gone"
    else:
        why = f"no live executor runs version {target!r}: start one, or replay here with --code MODULE:APP"
    return [_sample(row, found.get(row.id), why) for row in chosen]


def _sample(row: WorkflowRow, judged: Judged | None, why: str) -> PlanSample:
    if judged is None:
        return PlanSample(id=row.id, type=row.name, version=row.version, verdict="unknown", detail=why)
    return PlanSample(
        id=row.id, type=row.name, version=row.version, step=judged.path, recorded=judged.recorded, called=judged.called,
        where=judged.where, detail=judged.detail,
        verdict=judged.finding if judged.finding in ("safe", "unknown") else "diverges",  # type: ignore[arg-type]
    )  # fmt: skip
