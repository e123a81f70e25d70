"""A run that recovery policies may decide about while it is here, and the arrival of a decision to compensate.

They are asked before an exception fails it, and when what it recorded does not fit the code.

Promises: asked only once all that the run wrote is durable; nothing of the body is executed meanwhile; the decision
travels in the unit of its effect. Without a fitting policy nothing here costs more than a look at an empty list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from perdure.client.verbs import patiently
from perdure.model.records import Claimed, Kind, Record
from perdure.model.states import Cause, Reason
from perdure.model.writes import Append, Hold
from perdure.policy.decisions import Decision, Default, SetStatus
from perdure.policy.decisions import Hold as HoldIt
from perdure.policy.rules import Policy, fitting
from perdure.runtime.asking import ask
from perdure.runtime.cancelling import Kept
from perdure.runtime.decide import effect_or_default, with_family
from perdure.runtime.durable import all_durable
from perdure.runtime.effects import Case
from perdure.runtime.incidents import incident_of
from perdure.runtime.process_body import Faulted
from perdure.runtime.process_children import with_begun
from perdure.runtime.process_effects import appends_of, next_run
from perdure.runtime.process_facts import Why, facts_of, settle
from perdure.runtime.steps import CRASHES, recordable
from perdure.runtime.turns import Turning
from perdure.runtime.waits import ContinueAsNew
from perdure.serde.failures import encode_failure

log = logging.getLogger("perdure")


class Deciding(Turning):
    """See the head of this file."""

    _asking = False
    _settled = False  # an exception of the body's has been decided about

    # -- compensation

    def compensate(self, because: str) -> None:
        """Raise ``Compensating`` where the async body stands; a sync one raises it at its own call."""

    def replay_cancel(self, record: Record, kept: Kept = ()) -> None:
        """What arrives by itself: a cancel, or the decision to compensate."""
        if record.kind is not Kind.DECISION:
            super().replay_cancel(record, kept)
        elif self.final is None:
            self.compensate(record.shown)

    # -- before an exception fails it

    def body_ended(self, value: Any, error: BaseException | None) -> None:
        if isinstance(error, Faulted) or (isinstance(error, ContinueAsNew) and error.stands is not None):
            self.final = (value, error)  # a burst has ended, not the process: its children are not waited for
        else:
            super().body_ended(value, error)

    def finish(self, value: Any, error: BaseException | None) -> None:
        if isinstance(error, Faulted):
            self._process_failed(error)
            return
        policies: Sequence[Policy] = ()
        if isinstance(error, Exception) and not isinstance(error, (ContinueAsNew, *CRASHES)):
            policies = self._asked(Cause.ERROR)
        if not policies or self._settled or self.cancel_delivered:
            super().finish(value, error)
            return
        if self._asking:
            return
        fails = Default(because="the workflow fails with its exception")
        self._put_to_policies(Cause.ERROR, policies, fails, error, lambda: super(Deciding, self).finish(value, error))

    def post(self, appends: Sequence[Append]) -> None:
        """Values of its streams, to go with its next unit: ``streaming``'s part."""
        raise NotImplementedError

    def _process_failed(self, fault: Faulted) -> None:
        """An action of a process has failed: policies, else its status by the exits and the error to the caller."""
        if self._asking:
            return
        if self.cancel_delivered:
            super().finish(None, fault.error)
            return
        log.warning("process %s: an action failed in state %s", self.id, fault.facts.state, exc_info=fault.error)
        fails = SetStatus(fault.facts.would_be, because=f"{type(fault.error).__name__}: {fault.error}")
        policies = self._asked(Cause.ERROR)
        if policies and not self._settled:
            self._put_to_policies(Cause.ERROR, policies, fails, fault.error, lambda: self._rest(fault, fails))
        else:
            self._rest(fault, fails)

    def _rest(self, fault: Faulted, fails: SetStatus) -> None:
        failure = encode_failure(recordable(fault.error)).decode()
        settled = settle(fault.facts, fails, Why(Cause.ERROR, self.line.clock.now(), fails.because, True, failure))
        self.post(appends_of(self.host, settled.entries, "fault"))
        change = next_run(self.host, self.row, fault.facts, settled, Cause.ERROR, self.run.version)
        if self.newborns or self.run.children:
            self._end_with(change)
        else:
            self._end_as(change)

    # -- when what it recorded does not fit the code

    def hold(self, reason: Reason, detail: str) -> None:
        policies = self._asked(Cause.VERSION) if reason is Reason.NONDETERMINISM and not self.gone else ()
        if not policies:
            super().hold(reason, detail)
            return
        self.closing = Hold(reason, detail)
        self.gone = True
        self._stop_all()
        self.put_away()
        stays = HoldIt(because=detail)
        self._put_to_policies(Cause.VERSION, policies, stays, detail, lambda: self._end_as(Hold(reason, detail)))

    # -- asking

    def _asked(self, cause: Cause) -> Sequence[Policy]:
        known = self.host.registry.policies
        return fitting(known, self.row.name, cause) if known else ()

    def _put_to_policies(
        self,
        cause: Cause,
        policies: Sequence[Policy],
        default: Decision,
        error: BaseException | str | None,
        otherwise: Callable[[], None],
    ) -> None:
        self._asking = True
        self.running += 1  # as a step would be: neither evicted nor handed back meanwhile
        task = asyncio.Task(self._decide(cause, policies, default, error, otherwise), loop=self.line.loop)
        self.host.keep(task)
        task.add_done_callback(self._asked_all)

    def _asked_all(self, task: asyncio.Task[None]) -> None:
        self._asking = False
        self.running -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("deciding about workflow %s failed", self.id, exc_info=error)
        self.host.on_change()

    async def _decide(
        self,
        cause: Cause,
        policies: Sequence[Policy],
        default: Decision,
        error: BaseException | str | None,
        otherwise: Callable[[], None],
    ) -> None:
        while (self.newborn or self.in_flight or self.unwritten) and self._is_here():
            self.dirty()
            await all_durable(self)
            await asyncio.sleep(0)
        store = self.line.store
        key = self.run.key
        row = (await patiently(self.line, store.rows, [key.id])).get(key.id)
        history = (await patiently(self.line, store.histories, [key]))[key]
        if row is None or row.claim != self.claim or not self._is_here():
            return  # taken over meanwhile: whoever has it asks anew
        claimed = Claimed(row, self.input)
        facts = None
        if self.definition.process is not None:
            facts = await with_begun(self.line, row, facts_of(self.definition, self.input, history), history)
        incident = incident_of(
            self.definition, claimed, history, cause=cause, default=default, error=error, facts=facts
        )  # fmt: skip
        answer = await ask(self.host, policies, incident, cause)
        if not self._is_here():
            return
        self._settled = True
        effect = None
        if answer.spoken:
            case = Case(row, self.input, history, incident, cause, Reason.NONDETERMINISM, facts=facts)
            effect = effect_or_default(self.host, await with_family(self.line, case, answer.decision), answer)
            self.run.decision = effect.decision
            for record in effect.records:
                self.run.decide(record.name, record.at, record.data, record.shown)
            self.post(effect.appends)
        if effect is None or effect.change is None:
            otherwise()
        else:
            self._end_as(effect.change)

    def _is_here(self) -> bool:
        """Whether the run is still this process's, and nothing else has ended it."""
        return self.host.executions.get(self.id) is self and (not self.gone or isinstance(self.closing, Hold))

    def _end_as(self, change: Any) -> None:
        """End here with ``change``: what the run wrote before is durable, so the decision rides with it."""
        self.closing = change
        if not self.gone:
            self.gone = True
            self._stop_all()
            self.put_away()
        self.run.change = change
        self.dirty()
