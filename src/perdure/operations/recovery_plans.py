"""A plan of recovery: the groups of what a query names, a verb for each, and the evidence. See recovery-plans.md.

Nothing is changed by it. Each group is a batch whose key follows from the plan, so that ordering it twice is once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from perdure.model.batches import BatchInfo, PlanSample
from perdure.model.ids import TokenMaker
from perdure.model.records import WorkflowRow
from perdure.model.recoveries import OPEN, Advice, Assumed, Case, Group, advise
from perdure.model.states import Status
from perdure.model.verbs import Verb, options_of
from perdure.operations import batch_plans
from perdure.operations.ask import PATIENCE_SECONDS, ask_restartable
from perdure.operations.batch_plans import GROUPED, GROUPS_MAX, SAMPLES, Judge
from perdure.operations.batches import BatchOrder, batch_query
from perdure.operations.look import Order, served
from perdure.operations.problems import text_of
from perdure.query.conditions import Fact
from perdure.store.base import Store

LOOKED_AT = 50  # workflows of a group whose problems are read
TEXTS_MAX = 3

Policies = Callable[[Sequence[WorkflowRow]], Awaitable[Mapping[str, str]]]
"""What the policies of the user's code would decide, by id, of those that they are asked about."""


class RecoveryOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a person orders."""

    query: str
    assumed: Assumed
    order: Order

    @property
    def prefix(self) -> str:
        """How the keys of its batches begin: the same for the same query, versions, assumptions and reason."""
        said = [self.query.strip(), msgspec.to_builtins(self.assumed), self.order.reason]
        return f"recovery-{_digest(said)}-"


class GroupPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A group, what is proposed for it, and why."""

    group: Group
    case: Case
    because: str
    restartable: bool | None
    verb: Verb | None
    query: str
    key: str
    samples: tuple[PlanSample, ...] = ()
    problems: tuple[str, ...] = ()
    policies: Mapping[str, int] = {}
    """What the user's policies would decide of those looked at, and how often."""
    before: BatchInfo | None = None

    @property
    def diverges(self) -> bool:
        """Whether a sample does not replay where the group is to go on."""
        return any(sample.verdict == "diverges" for sample in self.samples)

    def ordered(self, order: Order) -> BatchOrder | None:
        """The batch that it is."""
        if self.verb is None:
            return None
        return BatchOrder(verb=self.verb, query=self.query, order=order, key=self.key)


class RecoveryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All groups, the largest first."""

    prefix: str
    total: int
    groups: tuple[GroupPlan, ...]
    unmatched: tuple[str, ...]
    """What was said of groups that are not there."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Where evidence comes from, and how much."""

    samples: int = SAMPLES
    seed: int = 0
    patience: float = PATIENCE_SECONDS
    judge: Judge | None = None
    declared: Mapping[str, bool] | None = None
    """By name, whether it is restartable, if the code is here; else executors of the version to go to are asked."""
    policies: Policies | None = None


async def plan(store: Store, recovery: RecoveryOrder, token: TokenMaker, evidence: Evidence) -> RecoveryPlan:
    """What would be done about each group. Raises ``QueryError``, ``ConfigError``."""
    query = batch_query(recovery.query, store.app)
    assumed = recovery.assumed
    groups = _groups(await store.count(msgspec.structs.replace(query, groups=GROUPED)))
    declared = evidence.declared
    if declared is None and groups and assumed.to in (await served(store)).versions:
        declared = await ask_restartable(store, token, assumed.to, patience=evidence.patience)
    declared = declared or {}
    advices = [advise(group, assumed, declared.get(group.type)) for group in groups]
    planned = await asyncio.gather(
        *(
            _planned(store, recovery, token, evidence, group, advice, declared.get(group.type), number)
            for number, (group, advice) in enumerate(zip(groups, advices, strict=True))
        )
    )
    return RecoveryPlan(
        prefix=recovery.prefix, total=sum(group.count for group in groups), groups=tuple(planned),
        unmatched=tuple(assumed.unmatched(groups)),
    )  # fmt: skip


def _groups(counted: Sequence[Any]) -> list[Group]:
    """By type, version, open or how closed, and problem: what is open changes its status by itself."""
    sums: dict[tuple[str, str, str, str | None], Counter[str]] = {}
    for one in counted:
        name, version, status, problem = (None if value is None else str(value) for value in one.values)
        is_open = Status(str(status)).open
        kind = str(name), version or "", OPEN if is_open else str(status), problem if is_open else None
        sums.setdefault(kind, Counter())[str(status)] += one.total
    found = [
        Group(type=name, version=version, state=state, problem=problem, count=counts.total(), statuses=dict(counts))
        for (name, version, state, problem), counts in sums.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.type, group.version, group.state, group.problem or ""))


def query_of(text: str, group: Group) -> str:
    """The query that names the group.

    >>> query_of("a = b", Group(type="it's", version="v2", state="open", problem=None, count=1, statuses={}))
    "(a = b) AND type = 'it''s' AND version = 'v2' AND status = open AND problem IS NULL"
    """
    parts = [f"({text.strip()})", f"type = {_quoted(group.type)}"]
    parts.append(f"version = {_quoted(group.version)}" if group.version else "version IS NULL")
    parts.append(f"status = {group.state}")
    if group.state == OPEN:
        parts.append("problem IS NULL" if group.problem is None else f"problem = {group.problem}")
    return " AND ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _digest(said: object) -> str:
    return hashlib.sha256(msgspec.json.encode(said)).hexdigest()[:8]


async def _planned(
    store: Store, recovery: RecoveryOrder, token: TokenMaker, evidence: Evidence, group: Group, advice: Advice,
    restartable: bool | None, number: int,
) -> GroupPlan:  # fmt: skip
    text, verb = query_of(recovery.query, group), advice.verb
    said = [text, None if verb is None else [verb.name, options_of(verb).decode()]]
    found = GroupPlan(
        group=group, case=advice.case, because=advice.because, restartable=restartable, verb=verb, query=text,
        key=recovery.prefix + _digest(said),
    )  # fmt: skip
    order = found.ordered(recovery.order)
    if order is None or number >= GROUPS_MAX:
        return found
    batch = await batch_plans.plan(
        store, order, token, samples=evidence.samples, seed=evidence.seed, patience=evidence.patience,
        judge=evidence.judge,
    )  # fmt: skip
    rows = (await store.list(batch_query(text, store.app), limit=LOOKED_AT)).rows
    policies: Mapping[str, str] = {} if evidence.policies is None else await evidence.policies(rows)
    return msgspec.structs.replace(
        found, samples=batch.samples, before=batch.before, policies=dict(Counter(policies.values())),
        problems=tuple(await _texts(store, group, rows, text)),
    )  # fmt: skip


async def _texts(store: Store, group: Group, rows: Sequence[WorkflowRow], text: str) -> list[str]:
    """What is wrong, in the words of the latest; of failed ones, the errors."""
    if group.state == Status.FAILED:
        query = msgspec.structs.replace(batch_query(text, store.app), groups=(Fact.ERROR,))
        return [f"{one.total} x {one.values[0]}" for one in (await store.count(query))[:TEXTS_MAX]]
    if group.problem is None:
        return []
    told = await store.problems([row.id for row in rows])
    words = Counter(text_of(one) for one in told if one.cleared is None and one.kind == group.problem)
    return [words_ for words_, _ in words.most_common(TEXTS_MAX)]
