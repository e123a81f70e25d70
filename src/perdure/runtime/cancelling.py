"""A run that is told to stop: between two bursts, once no step is under way, its body is cancelled where it waits.

Promises: a step that is under way ends first, and its outcome is recorded. What comes meanwhile the body sees together
with the cancel, no sooner: so it is cancelled at the very call that it waited for, not at the first one of its cleanup.
A cancel is delivered once.
"""

from __future__ import annotations

from perdure.core.run import Op
from perdure.model.records import Record
from perdure.model.states import Status
from perdure.runtime.execution import Execution

Kept = tuple[tuple[Op, Record], ...]  # outcomes that are recorded, and not handed over yet


class Cancelling(Execution):
    """See the head of this file."""

    kept: Kept = ()

    def cancel(self, reason: str, status: Status = Status.CANCELLED, nonce: bytes | None = None) -> None:
        """Ask the body to stop: delivered when no step is under way. ``nonce``: of the wake that commanded it."""
        if self.cancelling is None and not self.gone:
            self.cancel_wake = nonce
            self.cancelling = (status, reason)
            self.line.loop.call_soon(self.pump)

    @property
    def will_be_cancelled(self) -> bool:
        """Whether a cancel waits for what is under way, before the body has ended."""
        return self.cancelling is not None and not self.cancel_delivered and self.final is None

    def hand_over(self, op: Op, record: Record) -> None:
        """Give the body an outcome that is recorded; while a cancel waits, with the cancel."""
        if self.will_be_cancelled:
            self.kept += ((op, record),)
        else:
            op.deliver(record)

    def match_mail(self) -> None:
        if not self.will_be_cancelled:  # what is received now would be lost to a body that is about to be cancelled
            super().match_mail()

    def try_cancel(self) -> bool:
        """Between bursts, live: deliver a cancel that waits. True if it was delivered just now."""
        if self.cancelling is None or self.cancel_delivered or self.running:
            return False
        self.note_cancel(len(self.kept))
        self.dirty()
        kept, self.kept = self.kept, ()
        self._deliver(kept)
        if self.receiving:
            self.line.loop.call_soon(self.match_mail)
        return True

    def note_cancel(self, kept: int) -> None:
        """Record it, with so many outcomes before it that the body sees now."""
        assert self.cancelling is not None, "somebody asked for it"
        status, reason = self.cancelling
        self.run.cancelled(self.line.clock.now(), f"{status}:{reason}", kept)
        self.cancel_delivered = True
        if self.cancel_wake is not None:
            self.run.add_woken(self.cancel_wake)

    def replay_cancel(self, record: Record, kept: Kept = ()) -> None:
        """The recorded cancel arrives again, with what it had kept back."""
        self.see_cancel(record)
        self._deliver(kept)

    def see_cancel(self, record: Record) -> None:
        """Be as cancelled as the record says."""
        status, _, reason = record.name.partition(":")
        self.cancelling = (Status(status), reason)
        self.cancel_delivered = True

    def _deliver(self, kept: Kept) -> None:
        self._blocked = None  # steps about to run, which now never will: the body is cancelled at each of them
        if self.final is None:
            self.deliver_cancel(kept)
            return
        for op in list(self.run.asked.values()):
            self.abandon(op)

    def deliver_cancel(self, kept: Kept) -> None:
        """Raise the cancellation where the body stands; then hand over what was kept back, to whom it may reach."""
        raise NotImplementedError
