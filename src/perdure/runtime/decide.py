"""A stage between claim and body: an interrupted workflow that has a recovery policy is decided upon first.

States of a claimed workflow: claimed -> asked (``host.deciding``) -> its unit written -> begun, or gone from here.

Promises: no effect of the body begins before the decision and what it does are durable, in one commit under the
claim's token; what is decided under a claim that was lost is refused whole; who dies here leaves the claim, and whoever
adopts it asks again. Workflows without a policy never come here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from perdure.client.line import Line
from perdure.definitions import Registry, WorkflowDef
from perdure.errors import Unserializable
from perdure.model.records import Claimed, DecisionRow, Record
from perdure.model.states import Cause, Reason
from perdure.model.writes import Hold, Unit
from perdure.policy.decisions import Decision, Delete
from perdure.policy.rules import Policy, fitting
from perdure.runtime.asking import Answer, ask
from perdure.runtime.effects import Case, Effect, default_by, effect_of, plain_text, says_something
from perdure.runtime.incidents import default_of, executor_in, incident_of, is_over_limit
from perdure.runtime.process_children import family, with_begun
from perdure.runtime.process_facts import Facts, Impossible, facts_of
from perdure.runtime.process_facts import default_of as process_default

log = logging.getLogger("perdure")


class Host(Protocol):
    """What deciding needs of an executor."""

    line: Line
    registry: Registry
    version: str
    executor_id: str
    context: Any
    step_pool: Any
    policy_limit: float
    deciding: dict[str, asyncio.Task[None]]

    @property
    def on_change(self) -> Callable[[], None]: ...

    def keep(self, task: asyncio.Task[Any]) -> None: ...
    def look(self) -> None: ...


class Question(NamedTuple):
    """An interrupted workflow, and who is to be asked about it."""

    definition: WorkflowDef
    claimed: Claimed
    policies: Sequence[Policy]
    noted: DecisionRow | None  # what the adoption noted

    @property
    def cause(self) -> Cause:
        return self.claimed.row.cause


Begin = Callable[[Sequence[Record]], None]


def warn_idle(registry: Registry) -> None:
    """At launch: say which policies can never be asked, since nothing here has the name that they are for."""
    for policy in registry.policies:
        if policy.target is not None and policy.target not in registry.workflows:
            known = ", ".join(sorted(registry.workflows)) or "none"
            log.warning(
                "recovery policy %s (%s) is for workflow %r, which this app does not have (it has: %s)",
                policy.name, policy.place, policy.target, known,
            )  # fmt: skip


async def questions(host: Host, claimed: Sequence[Claimed]) -> Mapping[str, Question]:
    """Which of these are to be decided upon, by id. Empty without a query where no policy fits."""
    registry = host.registry
    if not registry.policies and all(definition.process is None for definition in registry.workflows.values()):
        return {}
    found: dict[str, Question] = {}
    for one in claimed:
        row = one.row
        definition = host.registry.workflows.get(row.name)
        if row.cause is Cause.NONE or definition is None:
            continue
        policies = fitting(host.registry.policies, row.name, row.cause)
        if policies or definition.process is not None:
            found[row.id] = Question(definition, one, policies, None)
    if found:
        # Of the claim, or of one whose answer was lost and that was made again under another token.
        noted = {(row.id, row.run): row for row in await host.line.store.decisions(list(found)) if not row.policy}
        for id, question in found.items():
            if question.cause is Cause.CRASH:
                found[id] = question._replace(noted=noted.get((id, question.claimed.row.run)))
    return found


def decide_first(host: Host, question: Question, history: Sequence[Record], begin: Begin) -> None:
    """Decide, then ``begin`` with the history as it is then; or nothing more happens to it here."""
    id = question.claimed.row.id
    before = host.deciding.pop(id, None)
    if before is not None:
        before.cancel()  # of an earlier claim
    task = asyncio.Task(_decide(host, question, history, begin), loop=host.line.loop)
    host.deciding[id] = task
    host.keep(task)

    def done(task: asyncio.Task[None]) -> None:
        if host.deciding.get(id) is task:
            del host.deciding[id]
        if not task.cancelled() and task.exception() is not None:
            log.error("deciding about workflow %s failed", id, exc_info=task.exception())
        host.on_change()

    task.add_done_callback(done)


async def _decide(host: Host, question: Question, history: Sequence[Record], begin: Begin) -> None:
    facts = facts_in(question, history)
    if question.definition.process is not None and (facts is None or not facts.begun or facts.over):
        begin(history)  # of its burst nothing is on record, or all; or the code cannot take it: it is held for that
        return
    if facts is not None:
        facts = await with_begun(host.line, question.claimed.row, facts, history)
    case = case_of(question, history, facts=facts)
    answer = await answer_of(host, question, case)
    if not says_something(answer):
        begin(history)  # as if nobody had been asked
        return
    effect = effect_or_default(host, await with_family(host.line, case, answer.decision), answer)
    written = await write(host, case, effect)
    if written and effect.change is None:
        begin([*history, *(msgspec.structs.replace(record, version=host.version) for record in effect.records)])
    elif written and isinstance(effect.change, Hold):
        held = effect.change
        host.line.watcher.warn_held(case.row.id, case.row.name, str(held.reason), held.detail)
    elif written:
        host.line.watcher.look()  # who waits for its end, here
        host.line.store.hint()  # and elsewhere
        host.look()  # what has become claimable


async def answer_of(host: Host, question: Question, case: Case) -> Answer:
    """What policies say; of a process past its limit nobody is asked, or one that is always begun anew never ends."""
    over = case.facts is not None and is_over_limit(question.definition, case.row)
    return await ask(host, () if over else question.policies, case.incident, case.cause)


def facts_in(question: Question, history: Sequence[Record]) -> Facts | None:
    """What is known of a process; None of other workflows, and where the code that is here cannot take it."""
    if question.definition.process is None:
        return None
    try:
        return facts_of(question.definition, question.claimed.input, history)
    except Unserializable:
        return None


def case_of(question: Question, history: Sequence[Record], executor: str = "", *, facts: Facts | None = None) -> Case:
    """What is told of an interrupted workflow; also for a plan, which changes nothing. ``facts``: of a process."""
    row = question.claimed.row
    definition, input = question.definition, question.claimed.input
    noted, owner = executor_in(question.noted)
    default = default_of(definition, row) if facts is None else process_default(facts, row, definition.max_deaths)
    incident = incident_of(
        definition, question.claimed, history, cause=question.cause, default=default, executor=noted or executor,
        facts=facts,
    )  # fmt: skip
    reason = Reason.NO_CODE if facts is not None and facts.missing else Reason.RECOVERY_LIMIT
    return Case(row, input, history, incident, question.cause, reason, owner, facts)


async def with_family(line: Line, case: Case, decision: Decision) -> Case:
    """The case of a process that is to be deleted, with what goes with it."""
    if not isinstance(decision, Delete) or case.facts is None or not case.facts.at.parent:
        return case
    return case._replace(family=await family(line, case.row.id))


def effect_or_default(host: Host, case: Case, answer: Answer) -> Effect:
    """The effect of an answer, or of the default if it cannot be done."""
    try:
        return effect_of(host, case, answer)
    except Impossible as impossible:
        instead = default_by(answer, case.incident, str(impossible))
        log.warning("workflow %s: %s", case.row.id, instead.because)
        return effect_of(host, case, instead)


async def write(host: Host, case: Case, effect: Effect) -> bool:
    """Put the effect down under the claim; whether it stands."""
    line, row = host.line, case.row
    unit = Unit(
        key=row.key, claim=row.claim, nonce=line.new_token(), version=host.version, records=effect.records,
        change=effect.change, decision=effect.decision, appends=effect.appends,
    )  # fmt: skip
    try:
        return (await line.journal.write(unit)).applied
    except Exception as error:
        # It can never be written: held with nothing but that, or it would be claimed and asked about for ever.
        log.exception("the decision about workflow %s could not be written", row.id)
        words = plain_text(f"the decision {effect.decision.decision} could not be written: {error}")
        change = Hold(Reason.UNDECODABLE, words)
        await line.journal.write(msgspec.structs.replace(unit, records=(), change=change, decision=None, appends=()))
        return False
