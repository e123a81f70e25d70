"""A run whose next record somebody else writes: a transaction's, in the user's own commit.

States: the run's own → wanted (what arrives waits; what was recorded is still being written) → lent (all of it is
durable; nothing is recorded) → the run's own.

Promises:
- while it is lent no unit of this run is taken and no outcome is handed to the body, so ``next_record`` stays next;
- what arrived meanwhile is handed over afterwards, in the order in which it came;
- it is lent to one at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from perdure.core.run import Op
from perdure.errors import Evicted
from perdure.model.records import Outcome, Record
from perdure.model.writes import Unit, Verdict
from perdure.runtime.cancelling import Cancelling


class Lending(Cancelling):
    """See the head of this file."""

    running: int
    _later: deque[Callable[[], object]] | None = None  # what arrived since it is wanted; None: it is the run's own
    _lent = False
    _quiet: list[asyncio.Future[None]] | None = None  # those who wait for a change
    _durable = 0  # the last seq that the journal, or a transaction, was told to be durable

    @property
    def durable(self) -> int:
        """A record that is durable, as is all before it."""
        history = self.run.history
        return max(self._durable, history[-1].seq if history else 0)

    async def lend(self) -> None:
        """Wait until the run's next record is the caller's to write. Raises ``Evicted`` if the run is over here."""
        while self._later is not None and not self.gone:
            await self._change()
        self._later = deque()
        try:
            while not self.gone and (self.unwritten or self.in_flight or self.in_mid_burst):
                if self.in_mid_burst:
                    await asyncio.sleep(0)
                else:
                    self.dirty()  # a wake that was acted on waits for company otherwise
                    await self._change()
            if self.gone:
                raise Evicted
        except BaseException:
            self.give_back()
            raise
        self._lent = True

    async def _change(self) -> None:
        future: asyncio.Future[None] = self.line.loop.create_future()
        if self._quiet is None:
            self._quiet = []
        self._quiet.append(future)
        await future

    def _changed(self) -> None:
        waiting, self._quiet = self._quiet, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    def give_back(self) -> None:
        """The caller has not written the record, and never will."""
        later, self._later, self._lent = self._later, None, False
        for callback in later or ():
            self.line.loop.call_soon(callback)
        self._write_rest()
        self._changed()

    def _write_rest(self) -> None:
        """What could not be written while it was lent; the end too, if it has come meanwhile."""
        if self.unwritten and (not self.gone or self.closing is not None):
            self.dirty()

    def record_written(self, op: Op, record: Record) -> None:
        """The caller has: the record is durable. Hand it to the body, and go on."""
        later, self._later, self._lent = self._later, None, False
        self._durable = record.seq
        self.running -= 1
        self._steps.pop(op.path, None)
        self.host.on_change()
        if not self.gone:
            self.run.settled(op, record)
            for callback in later or ():
                self.line.loop.call_soon(callback)
            self.hand_over(op, record)
            self.pump()
        elif self.closing is not None:
            self.run.settled(op, record)  # its end stands behind this record
        self._write_rest()
        self._changed()

    def refused(self) -> None:
        """The database took no more of this run: another holds it. Nothing of it is kept."""
        self.host.stale_write(self)
        self.drop()
        self._changed()

    # -- what waits while it is lent; of every other run this is on the way of each record, so it only looks

    def dirty(self) -> None:
        if not self._lent:
            super().dirty()

    def written(self, unit: Unit, verdict: Verdict) -> None:
        if unit.records and verdict.applied:
            self._durable = unit.records[-1].seq
        super().written(unit, verdict)
        if self._quiet is not None:
            self._changed()

    def settle(self, op: Op, outcome: Outcome, data: bytes | None, name: str | None = None) -> Record | None:
        if self._later is not None and not self.gone:
            self._later.append(partial(self.settle, op, outcome, data, name))
            return None
        return super().settle(op, outcome, data, name)

    def step_done(self, op: Op, outcome: Outcome, data: bytes | None, error: Exception | None) -> None:
        if self._later is not None and not self.gone:
            self._later.append(partial(self.step_done, op, outcome, data, error))
            return
        super().step_done(op, outcome, data, error)

    def match_mail(self) -> None:
        if self._later is not None and not self.gone:
            self._later.append(self.match_mail)
            return
        super().match_mail()
