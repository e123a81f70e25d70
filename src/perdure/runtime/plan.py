"""What would be decided about unfinished work if its executor were gone: policies are asked, nothing is written.

A request for a plan is a row, answered by a live executor of the version that the work is of.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from perdure.client.line import Line
from perdure.definitions import Registry
from perdure.model.records import Claimed, Incarnation, WorkflowRow
from perdure.model.states import Cause, Status
from perdure.policy.rules import fitting
from perdure.runtime import decide
from perdure.runtime.asking import LIMIT_SECONDS
from perdure.runtime.bell import Bell
from perdure.runtime.decide import Question
from perdure.runtime.pool import ThreadPool
from perdure.runtime.unread import why_unread
from perdure.store.base import Store

KIND = "plan"


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What would become of one workflow."""

    id: str
    name: str
    cause: str
    decision: str  # "unknown" where nobody could say
    policy: str = ""
    because: str = ""


class Host(decide.Host, Protocol):
    """What planning needs: an executor, or a process that has the code and only asks."""

    me: Incarnation


async def plan(host: decide.Host, ids: Mapping[str, str]) -> list[Planned]:
    """What would be decided about each of these, in the order of ids; ``ids`` says which executor has each."""
    store = host.line.store
    rows = [row for _, row in sorted((await store.rows(list(ids))).items())]
    histories = await store.histories([row.key for row in rows])
    inputs = await store.inputs([row.key for row in rows])
    found: list[Planned] = []
    for row in rows:
        if (cause := cause_of(row)) is not Cause.NONE:
            claimed = Claimed(interrupted(row, cause), inputs.get(row.key, b"null"))
            found.append(await _plan(host, claimed, histories[row.key], ids[row.id]))
    return found


def cause_of(row: WorkflowRow) -> Cause:
    """What there is to decide about: of running work, that its executor dies."""
    if row.status is Status.RUNNING:
        return Cause.CRASH
    return row.cause if row.status is Status.QUEUED else Cause.NONE


def interrupted(row: WorkflowRow, cause: Cause) -> WorkflowRow:
    """The row as it would be claimed then."""
    if row.status is not Status.RUNNING:
        return row
    return msgspec.structs.replace(row, cause=cause, attempts=row.attempts + 1)


async def _plan(host: decide.Host, claimed: Claimed, history: Sequence[Any], executor: str) -> Planned:
    row = claimed.row
    words: dict[str, Any] = {"id": row.id, "name": row.name, "cause": row.cause.value}
    definition = host.registry.workflows.get(row.name)
    if definition is None:
        return Planned(**words, decision="hold", because=f"the code has no workflow {row.name!r}")
    if unread := why_unread(claimed.input, history, host.registry.codec):
        return Planned(**words, decision="hold", because=unread)
    policies = fitting(host.registry.policies, row.name, row.cause)
    question = Question(definition, claimed, policies, None)
    facts = decide.facts_in(question, history)
    if definition.process is not None and (facts is None or not facts.begun):
        return Planned(**words, decision="resume", because="nothing of its burst has begun")
    if facts is not None and facts.over:
        return Planned(**words, decision="resume", because="it has reached a final state")
    case = decide.case_of(question, history, executor, facts=facts)
    answer = await decide.answer_of(host, question, case)
    if not answer.spoken:
        return Planned(**words, decision=str(case.incident.default), because=answer.because)
    effect = decide.effect_or_default(host, case, answer)
    decision = effect.decision.decision
    if answer.decision.target and decision == answer.decision.name:
        decision = str(answer.decision)
    return Planned(**words, decision=decision, policy=effect.decision.policy, because=effect.decision.because)


class Asker:
    """A process that has the code and runs nothing: it asks policies, and reads."""

    def __init__(self, store: Store, registry: Registry, label: str) -> None:
        loop = asyncio.get_running_loop()
        self.line = Line(store, loop)
        self.registry = registry
        self.version = ""
        self.executor_id = label
        self.context = contextvars.copy_context()
        self._bell = Bell(loop)
        self.step_pool = ThreadPool("policy", 8, loop, self._bell)
        self.policy_limit = LIMIT_SECONDS
        self.deciding: dict[str, asyncio.Task[None]] = {}
        self.on_change: Callable[[], None] = self.look

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Nothing of it outlives the question."""

    def look(self) -> None:
        """Nothing is claimed here."""

    def close(self) -> None:
        """Let go of all but the store."""
        self.step_pool.close()
        self._bell.close()
        self.line.drop()
