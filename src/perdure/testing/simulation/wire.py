"""The wire to a simulated database: the way of one call there and back, and all that goes wrong on it.

A call that is on its way when its process dies still arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from enum import Enum, auto
from typing import Any, Protocol

from perdure.errors import DatabaseTrouble, LostAnswer, Overloaded, RowLocked
from perdure.model.writes import Receipt
from perdure.store.sqlite.driver import Connection
from perdure.testing.simulation.failover import Timeline
from perdure.testing.simulation.loop import VirtualLoop
from perdure.testing.simulation.memory import Memory
from perdure.testing.simulation.rows import needed, patience_of
from perdure.testing.simulation.sometimes import sometimes

HOME = "the app's own"  # where the store says that it leads


def place_of(name: str, dialect: str) -> str:
    """Where a connection to a database of this name leads, as the house tells it."""
    return f"postgres since {name}" if dialect == "postgres" else f"sqlite {name}"


class Fate(Enum):
    """What becomes of one call."""

    WELL = auto()
    ABORTED = auto()  # nothing happened, and the caller is told
    LOST = auto()  # it happened, the answer is lost
    DROPPED = auto()  # it never arrives, and the caller is told that the answer is lost
    LATE = auto()  # the caller is told that the answer is lost; it happens after that
    DIES_BEFORE = auto()  # the process dies before the call arrives
    DIES_UNANSWERED = auto()  # … when it has happened
    DIES_ANSWERED = auto()  # … right after the answer


class Cut(Enum):
    """How a process is cut off from the database."""

    REFUSED = auto()  # each call fails at once
    MUTE = auto()  # nothing arrives, and nobody says so until the cut is over
    DEAF = auto()  # all arrives and happens; no answer comes back
    BEATS = auto()  # renewals of the lease get through, nothing else does
    BEATLESS = auto()  # all gets through, but renewals of the lease


class Way(Protocol):
    """What a call needs of the world."""

    loop: VirtualLoop
    bank: Any  # None: it has none

    @property
    def begun(self) -> set[bytes]:
        """Nonces of starts."""
        ...

    @property
    def database(self) -> Any: ...

    def fate(self, process: Any, *, writes: bool) -> Fate:
        """What becomes of this call."""
        ...

    def now(self) -> int:
        """The database's time, microseconds."""
        ...

    def latency(self) -> float:
        """Seconds, one way."""
        ...

    def lateness(self) -> float:
        """Seconds that a late call is late."""
        ...

    def cut(self, process: Any, op: str) -> Cut | None:
        """What keeps this call of the process from the database, or its answer from the process."""
        ...

    def dropped(self, op: str, args: tuple[Any, ...]) -> Fate | None:
        """What becomes of it for the sake of what it holds."""
        ...

    def cut_for(self, process: Any) -> float:
        """Seconds until it is over."""
        ...

    def note(self, process: Any, *words: object) -> None:
        """Part of the trace."""
        ...

    def hint(self, process: Any, queue: str) -> None:
        """Tell the others."""
        ...

    def prove(self, id: str, claim: str) -> None:
        """A run has written after a failover."""
        ...


class End(Protocol):
    """From where a call is made: a store, or a connection of the users' own."""

    op: str
    args: tuple[Any, ...]
    timeline: Timeline

    @property
    def server(self) -> Memory: ...


class Call:
    """One call on its way."""

    def __init__(
        self, way: Way, process: Any, end: End, job: Callable[[Connection], Any], *, writes: bool,
        fate: Fate | None = None,
    ) -> None:  # fmt: skip
        if process.dead:
            raise asyncio.CancelledError  # in a task of the dead that does not know it yet
        self.answer: asyncio.Future[Any] = way.loop.create_future()
        self._way = way
        self._process = process
        self._op = end.op
        self._args = end.args
        self._end = end
        self._server = end.server
        self._timeline = end.server.timeline  # that it is sent to
        self._job = job
        self._writes = writes
        self._fate = way.fate(process, writes=writes) if fate is None else fate
        way.loop.later(way.latency(), self._arrive)

    def _arrive(self) -> None:
        way, process, op, fate = self._way, self._process, self._op, self._fate
        if self._gone():
            self._back(None, DatabaseTrouble(f"the database failed over ({op})"))
        elif (cut := self._cut()) is not None:
            self._cut_off(cut)
        elif (dropped := way.dropped(op, self._args)) is not None:
            self._drop(dropped)
        elif fate is Fate.ABORTED:
            sometimes(f"{op} was aborted")
            self._back(None, Overloaded(f"the database is busy ({op})"))
        elif fate is Fate.DIES_BEFORE and not process.dead:
            sometimes(f"the process died before {op}")
            way.note(process, op, "dies before")
            process.crash()
        elif fate is Fate.LATE:
            way.note(process, op, "is late")
            way.loop.later(way.lateness(), self._through, self._happen_late)
            self._back(None, LostAnswer(f"the connection broke ({op}): whether it happened is unknown"))
        else:
            self._through(self._happen)

    def _cut(self) -> Cut | None:
        return self._way.cut(self._process, self._op)

    def _drop(self, fate: Fate) -> None:
        sometimes(f"a unit was in the way of its commit: {fate.name.lower()}")
        self._way.note(self._process, self._op, "is dropped")
        self._fate = fate
        if fate is Fate.LOST:
            self._through(self._happen)
        elif fate is Fate.DROPPED:
            self._lost(self._op)
        else:
            self._back(None, DatabaseTrouble(f"the database cannot do this now ({self._op})"))

    def _through(self, go: Callable[[], object]) -> None:
        """Go on when nobody keeps it from writing."""
        gate, ready, loop = self._server.gate, self._ready(), self._way.loop
        if gate.kept and (rows := self._needed(gate.kept)):
            patience = patience_of(self._op)
            gate.when(
                lambda: ready() and not gate.are_kept(rows), lambda: self._unless_gone(go), self._locked_out, loop,
                patience,
            )  # fmt: skip
        else:
            gate.when(ready, go, self._give_up, loop)

    def _needed(self, kept: Collection[str]) -> Collection[str]:
        """Those of the rows that another transaction has without which it cannot go on."""
        return needed(self._op, self._args, kept)

    def _unless_gone(self, go: Callable[[], object]) -> None:
        """Whether the server has failed over while this waited."""
        sometimes("a row was given back to who waited for it")
        if self._server.timeline == self._timeline:
            go()
        else:
            self._lost(self._op)

    def _locked_out(self) -> None:
        sometimes(f"a row was kept for too long: {self._op}")
        self._way.note(self._process, self._op, "is locked out")
        self._back(None, RowLocked(f"another transaction has kept a row for too long ({self._op})"))

    def _ready(self) -> Callable[[], bool]:
        gate = self._server.gate
        if not self._writes:
            return at_once
        return gate.is_quiet if self._op == "wrote" else gate.is_free

    def _give_up(self) -> None:
        sometimes("a writer waited for its turn in vain")
        self._back(None, Overloaded(f"another has kept the lock for too long ({self._op})"))

    def _happen(self) -> None:
        way, process, op, fate = self._way, self._process, self._op, self._fate
        value, error = self._perform()
        if fate is Fate.LOST:
            sometimes(f"the answer of {op} was lost")
            value, error = None, LostAnswer(f"the connection broke ({op}): whether it happened is unknown")
        elif fate is Fate.DIES_UNANSWERED and not process.dead:
            sometimes(f"the process died of an unanswered {op}")
            process.crash()
            return
        self._back(value, error)
        if fate is Fate.DIES_ANSWERED:
            way.loop.later(way.latency() * 2, self._die, op)

    def _cut_off(self, cut: Cut) -> None:
        way, op = self._way, self._op
        sometimes(f"a process was cut off: {cut.name.lower()}")
        if cut is Cut.DEAF:
            self._through(self._perform)
        if cut in (Cut.DEAF, Cut.MUTE):
            way.loop.later(way.cut_for(self._process), self._lost, op)
        else:
            self._back(None, DatabaseTrouble(f"the database cannot be reached ({op})"))

    def _lost(self, op: str) -> None:
        """Who sent it learns in the end that the connection is gone."""
        self._back(None, (LostAnswer if self._writes else DatabaseTrouble)(f"the connection broke ({op})"))

    def _die(self, op: str) -> None:
        if not self._process.dead:
            sometimes(f"the process died right after {op}")
            self._process.crash()

    def _gone(self) -> bool:
        """Whether the server that it was sent to is gone, or is seen to be another."""
        now = self._server.timeline
        return self._end.timeline.moved(now) or now != self._timeline

    def _happen_late(self) -> None:
        if self._server.timeline != self._timeline:
            return
        sometimes(f"{self._op} came through after its caller was told that it was lost")
        self._perform()

    def _perform(self) -> tuple[Any, Exception | None]:
        way, server = self._way, self._server
        try:
            value = server.write(self._job, way.now()) if self._writes else server.read(self._job)
        except Exception as error:
            way.note(self._process, self._op, type(error).__name__)
            return None, error
        if isinstance(value, Receipt):
            self._look(value)
        if self._op == "wrote":
            sometimes(f"a COMMIT whose answer was lost had {'' if value else 'not '}happened")
        way.note(self._process, self._op, server.trail.tx)
        return value, None

    def _look(self, receipt: Receipt) -> None:
        begun = self._way.begun
        for unit, verdict in zip(self._args[0], receipt.verdicts, strict=True):
            if unit.start is None:
                sometimes("a write was refused by the fence", not verdict.applied)
            elif verdict.applied:
                sometimes("a start met its own first try", unit.start.nonce in begun)
                begun.add(unit.start.nonce)

    def _back(self, value: Any, error: Exception | None) -> None:
        self._way.loop.later(self._way.latency(), self._settle, value, error)

    def _settle(self, value: Any, error: Exception | None) -> None:
        if self._process.dead or self.answer.done():
            self.answer.cancel()
        elif error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(value)


def at_once() -> bool:
    """For who waits for nobody."""
    return True


class Turn(Call):
    """The way to the turnstile; answered with what gives the turn back. It is a file of the process's own machine."""

    def __init__(self, way: Way, process: Any, end: End) -> None:
        super().__init__(way, process, end, lambda _: None, writes=True, fate=Fate.WELL)
        self._op = "turn"

    def _cut(self) -> Cut | None:
        return None

    def _ready(self) -> Callable[[], bool]:
        return self._server.gate.is_turn_free

    def _perform(self) -> tuple[Any, Exception | None]:
        process = self._process
        if not process.dead:
            self._server.gate.turn = self
            process.holds[self] = self._server.gate
        return lambda: process.let_go(self), None
