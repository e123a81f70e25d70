"""What becomes of a claim: the claimed workflows run here, or are held because this process cannot run them.

Promises: histories are read by a statement begun after the claim committed; what cannot be run here is given back,
held, with the reason, in one unit under the claim's token; one bad workflow of a batch costs the others nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import msgspec

from perdure.core.run import OBSERVED, SILENT, Run
from perdure.definitions import WorkflowDef
from perdure.model.ids import Holding, RunKey, child_id
from perdure.model.records import Claimed, Incarnation, Kind, Message, Record, WorkflowRow
from perdure.model.states import Cause, Reason
from perdure.model.writes import Decided, Hold, Unit, Verdict
from perdure.runtime import decide
from perdure.runtime.decide import decide_first, questions
from perdure.runtime.declared import as_declared, line_up
from perdure.runtime.execution import Execution
from perdure.runtime.incidents import is_over_limit, over_limit
from perdure.runtime.pausing import hold_paused, told_to_pause
from perdure.runtime.post import Post
from perdure.runtime.process_facts import refusal as process_refusal
from perdure.runtime.queues import Queues
from perdure.runtime.reaper import Reaper
from perdure.runtime.unread import why_unread

log = logging.getLogger("perdure")


class Host(decide.Host, Protocol):
    """What taking on needs of an executor, beside what deciding does."""

    executions: dict[str, Execution]
    post: Post
    queues: Queues
    reaper: Reaper
    me: Incarnation
    alive: bool

    def host(self, definition: WorkflowDef, run: Run, row: WorkflowRow, input: bytes) -> Execution: ...


def holding(execution: Execution) -> Holding:
    """Which run it is, under which claim."""
    return Holding(*execution.run.key, execution.claim)


async def take_on(host: Host, claimed: Sequence[Claimed]) -> None:
    """Run what was claimed: the histories of the batch in one query, begun after the claim committed."""
    store = host.line.store
    # Of most first claims the row tells that there is no history to read.
    fresh = [c for c in claimed if c.row.epoch == 1 and c.row.run == 1 and not c.row.last_seq]
    old = [c for c in claimed if c.row.epoch != 1 or c.row.run != 1 or c.row.last_seq]
    histories: dict[RunKey, list[Record]] = {}
    if old:
        histories = await store.histories([c.row.key for c in old])
    asked = await questions(host, old)
    mail: dict[str, list[Message]] = {}
    written_to = [c.row.id for c in claimed if c.mail]
    for message in await store.inbox(written_to) if written_to else ():
        mail.setdefault(message.dest, []).append(message)
    late = await line_up(host, [*fresh, *old], histories)
    for c in as_declared(host, [c for c in _of_this_life(host, [*fresh, *old]) if c.row.id not in late]):
        history, letters = histories.get(c.row.key, []), mail.get(c.row.id, [])
        question = asked.get(c.row.id)
        if (shown := told_to_pause(c.row, history)) is not None:
            _pause(host, c, history, shown)
        elif question is None:
            _begin(host, c, letters, history)
        elif (before := _drop_before(host, c, history)) is not None:
            _hold(host, before, c.row, Reason.UNDECODABLE, why_unread(c.input, history, host.registry.codec))
        else:
            decide_first(host, question, history, partial(_begin, host, c, letters, decided=True))
    host.on_change()


def _of_this_life(host: Host, claimed: Sequence[Claimed]) -> list[Claimed]:
    """Without what was claimed under an identity declared dead meanwhile: that is taken over like all it left."""
    mine = [c for c in claimed if host.alive and c.row.owner == host.me.id]
    if len(mine) < len(claimed):
        host.reaper.now()
    return mine


def _drop_before(host: Host, claimed: Claimed, history: Sequence[Record]) -> Run | None:
    """Drop what runs here of an earlier claim; the run to hold if no policy could read what it is asked about."""
    row = claimed.row
    previous = host.executions.get(row.id)
    if previous is not None:
        previous.drop()
    if not why_unread(claimed.input, history, host.registry.codec):
        return None
    return Run(row.key, row.lineage, host.version, host.line.clock.now(), history)


def _begin(host: Host, claimed: Claimed, mail: list[Message], history: Sequence[Record], decided: bool = False) -> None:
    row = claimed.row
    previous = host.executions.get(row.id)
    if previous is not None:
        previous.drop()
    definition = host.registry.workflows.get(row.name)
    run = Run.of(row, host.version, history, again=row.epoch > 1)
    if definition is None:
        _hold(host, run, row, Reason.NO_CODE, _no_code(host, row))
        return
    if refusal := _unable(host, definition, claimed, history, decided=decided):
        _hold(host, run, row, *refusal)
        return
    execution = host.host(definition, run, row, claimed.input)
    host.post.began(row.id)
    if row.cancel is not None and not any(r.kind is Kind.CANCEL for r in history):
        execution.cancel(row.cancel)
    if mail:
        host.line.loop.call_soon(execution.mail, mail)


def _unable(
    host: Host, definition: WorkflowDef, claimed: Claimed, history: Sequence[Record], *, decided: bool
) -> tuple[Reason, str] | None:
    """Why a workflow whose code is here cannot be run all the same."""
    row = claimed.row
    if is_over_limit(definition, row) and not decided:
        return Reason.RECOVERY_LIMIT, over_limit(definition, row)
    if unread := why_unread(claimed.input, history, host.registry.codec):
        return Reason.UNDECODABLE, unread
    return process_refusal(definition, claimed.input, history) if definition.process is not None else None


def _no_code(host: Host, row: WorkflowRow) -> str:
    known = ", ".join(sorted(host.registry.workflows)) or "none"
    return f"this executor has no workflow {row.name!r} (it has: {known}); is its module in App(modules=[…])?"


def stop_at_another(parent: Execution, child: WorkflowRow, exists: WorkflowRow) -> None:
    """Hold a rewound run whose child has the id of one from before the cut, but is another call than that was."""
    run = parent.run
    derived = child.id == child_id(RunKey(parent.id, run.origin), child.parent_path)  # else its start has a verdict
    same = (child.name, child.fingerprint) == (exists.name, exists.fingerprint)
    if run.origin == run.key.run or not derived or same or parent.gone:
        return
    parent.hold(
        Reason.NONDETERMINISM,
        f"at {child.parent_path}: the code starts {child.name} as {child.id!r}, which is {exists.name} with another "
        f"input, started before this run was rewound. Let that one be: perdure workflow fork {parent.id}",
    )


def hold_broken(host: Host, execution: Execution, broken: Unit, error: Exception) -> None:
    """Hold a workflow whose write can never be written; of that, the outcomes of steps are kept if they can be."""
    run = Run(execution.run.key, execution.run.lineage, host.version, host.line.clock.now())
    detail = f"its write was refused by the store: {type(error).__name__}: {error}"
    run.seq = broken.after
    _hold(host, run, execution.row, Reason.UNDECODABLE, detail, outcomes_alone(execution.run, broken))


def outcomes_alone(run: Run, broken: Unit) -> list[Record]:
    """The outcomes of steps in a unit, as if nothing else of it had happened.

    They can stand alone: such a step began once all that it rests on was durable, and what else the unit holds
    (messages taken, timers, what the body did at the sight of these) happens again, after them. Not so where the unit
    begins with what the body did by itself: a replay would meet the outcome first, and hold the workflow for good.
    """
    of_body = [record for record in broken.records if record.kind not in (*SILENT, Kind.ATTEMPT)]
    if not of_body or of_body[0].kind not in OBSERVED:
        return []
    kept = [record for record in of_body if record.kind is Kind.STEP and run.was_intended(record.path)]
    return [msgspec.structs.replace(record, seq=broken.after + n, intents=()) for n, record in enumerate(kept, 1)]


def _hold(host: Host, run: Run, row: WorkflowRow, reason: Reason, detail: str, kept: Sequence[Record] = ()) -> None:
    host.line.watcher.warn_held(row.id, row.name, str(reason), detail)
    run.change = Hold(reason, detail)
    if reason is Reason.RECOVERY_LIMIT and row.cause is Cause.CRASH:
        run.decision = Decided(
            cause=row.cause, decision="hold", policy="", because=detail, parameters=None, evidence=b"{}",
            executor=host.executor_id,
        )  # fmt: skip
    _hand_back(host, run, row, kept)


def _pause(host: Host, claimed: Claimed, history: Sequence[Record], shown: str) -> None:
    """Hold what was told to pause before it was claimed."""
    row = claimed.row
    previous = host.executions.get(row.id)
    if previous is not None:
        previous.drop()
    run = Run.of(row, host.version, history, again=True)
    run.change = hold_paused(run, row, shown, host.line.clock.now())
    _hand_back(host, run, row)


def _hand_back(host: Host, run: Run, row: WorkflowRow, kept: Sequence[Record] = ()) -> None:
    host.queues.handed_back.add(row.id)
    host.line.journal.put(Unrun(host, run, row.claim, host.line.new_token(), kept))


class Unrun:
    """A claimed workflow that is given back without having been run: one unit, one verdict, no body.

    ``kept``: records that go with it, and are left out if it is refused with them.
    """

    def __init__(self, host: Host, run: Run, claim: bytes | None, nonce: bytes, kept: Sequence[Record] = ()) -> None:
        self.queued = False
        self._host = host
        self._unit = run.take()
        self._unit.claim = claim
        self._unit.nonce = nonce
        self._alone = self._unit
        if kept:
            self._unit = msgspec.structs.replace(self._unit, records=kept)

    def take(self) -> Unit:
        return self._unit

    def written(self, unit: Unit, verdict: Verdict) -> None:
        """Held, or taken over by another: either way not ours any more."""
        self._host.queues.handed_back.discard(unit.key.id)
        self._host.look()

    def broken(self, unit: Unit, error: Exception) -> None:
        log.error("workflow %s could not be given back: %s", unit.key.id, error)
        if unit is not self._alone:
            self._unit = self._alone
            self._host.line.journal.put(self)
            return
        self._host.queues.handed_back.discard(unit.key.id)
