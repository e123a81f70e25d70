"""A run that a person tells to pause: as a crash would stop it, but after what is in flight.

Promises: no step begins once it is told, but those whose intent is written, or being written, which run to their end;
their outcomes are recorded, in the unit that holds the run or before it. An async body sees each as it comes: what it
gives up at the sight of one (the loser of a race) must have no outcome after it; what it then asks for is not begun.
A cancel is stronger: what is told to stop cleans up, and is not paused.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.core.run import Op, Run
from perdure.model.records import PAUSE, Kind, Record, WorkflowRow
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold, Unit, Verdict
from perdure.runtime.lending import Lending


def hold_paused(run: Run, row: WorkflowRow, shown: str, at: int) -> Hold:
    """Note in the history who wanted it; the change. Its deadline holds: then it is claimed, and stopped."""
    run.decide(PAUSE, at, None, shown)
    return Hold(Reason.PAUSED, shown, row.deadline)


class Pausing(Lending):
    """See the head of this file."""

    pausing: str | None = None  # who told it to, and why

    def pause(self, shown: str) -> None:
        """Stop before the next step."""
        if self.pausing is None and self.cancelling is None and not self.gone:
            self.pausing = shown
            self.line.loop.call_soon(self.pump)

    def paused(self) -> bool:
        """Between bursts: whether the body must not go on. Once nothing is in flight any more, it is held."""
        if self.pausing is None or self.cancelling is not None or self.gone:
            return self.gone
        if not (self.has_begun or self.in_mid_burst):
            change = hold_paused(self.run, self.row, self.pausing, self.line.clock.now())
            self._end_with(change, unwind=True)
        return True

    @property
    def has_begun(self) -> bool:
        """Whether something was begun whose outcome is still to come, and that would not be the same a second time."""
        return bool(self.running or self._blocked or self._flying or self.asked_there or self.asked_in_flight)

    def cancel(self, reason: str, status: Status = Status.CANCELLED, nonce: bytes | None = None) -> None:
        super().cancel(reason, status, nonce)
        if self.cancelling is not None and self.pausing is not None:
            self.pausing = None
            self.line.loop.call_soon(self.pump)

    def _run_step(self, op: Op) -> None:
        if self.pausing is not None and op.attempt > 1:
            return  # its next attempt begins when it goes on
        super()._run_step(op)

    def written(self, unit: Unit, verdict: Verdict) -> None:
        super().written(unit, verdict)
        if self.pausing is not None:
            self.paused()


def told_to_pause(row: WorkflowRow, history: Sequence[Record]) -> str | None:
    """Who told a claimed run to pause, and why; None if nobody did, or if it is to stop for good."""
    if row.pause is None or row.cancel is not None or any(record.kind is Kind.CANCEL for record in history):
        return None
    return row.pause
