"""The simulated database, and the wire to it.

The transactions are those of the SQLite dialect, on a database in memory with the audit's triggers on it; what is
simulated is everything around them: the time each sees, the way of a call to the database and back, and all that goes
wrong there. A call that is on its way when its process dies still arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto
from inspect import iscoroutinefunction
from typing import Any, Protocol, cast

import apsw

from perdure.errors import DatabaseTrouble, LostAnswer, Overloaded
from perdure.model.writes import Receipt, Unit
from perdure.store.sqlite.batches import SQLiteBatches
from perdure.store.sqlite.driver import Connection, steady
from perdure.store.sqlite.migrate import migrate
from perdure.store.sqlite.store import SQLiteStore
from perdure.store.sqlite.upkeep import SQLiteUpkeep
from perdure.testing.histcheck.audit import Line
from perdure.testing.simulation.failover import Timeline
from perdure.testing.simulation.loop import VirtualLoop
from perdure.testing.simulation.rollout import UNFINISHED, Open
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.trail import Trail


class Fate(Enum):
    """What becomes of one call."""

    WELL = auto()
    ABORTED = auto()  # nothing happened, and the caller is told
    LOST = auto()  # it happened, the answer is lost
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
    database: Database

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


class Database:
    """One database in memory; ``wipe`` makes it a fresh one (opening and preparing anew would cost more)."""

    def __init__(self) -> None:
        self.conn = steady(apsw.Connection(":memory:", statementcachesize=1000))
        self.conn.execute("begin")
        migrate(self.conn)
        self.conn.execute("commit")
        self.trail = Trail(self.conn)
        self.begun: set[bytes] = set()  # nonces of starts
        self.timeline = 0

    def copy(self) -> tuple[bytes, int]:
        """All that is there, and how much of the trail that is."""
        return cast("Any", self.conn).serialize("main"), len(self.trail.lines)

    def become(self, copy: tuple[bytes, int]) -> int:
        """Be as it was then, on another timeline; how many changes are lost."""
        lost = len(self.trail.lines) - copy[1]
        cast("Any", self.conn).deserialize("main", copy[0])
        self.trail.undo(copy[1])
        self.timeline += 1
        return lost

    def wipe(self) -> None:
        """Empty every table."""
        self.trail.wipe()
        self.begun.clear()

    def write(self, job: Callable[[Connection], Any], now: int) -> Any:
        """One transaction, at this time."""
        conn = self.conn
        mark = self.trail.begin(now)
        conn.execute("begin")
        try:
            value = job(conn)
        except BaseException:
            conn.execute("rollback")
            self.trail.undo(mark)
            raise
        conn.execute("commit")
        return value

    def read(self, job: Callable[[Connection], Any]) -> Any:
        """One snapshot; there is nobody else."""
        return job(self.conn)

    def audit(self) -> list[Line]:
        """What happened, so far."""
        return self.trail.lines

    def held(self) -> list[tuple[str, str, str]]:
        """(id, reason, detail) of what is held."""
        rows = self.conn.execute("select id, reason, detail from workflow where status = 4 order by id")
        return [(id, reason, detail) for id, reason, detail in rows.fetchall()]

    def ids(self) -> list[tuple[str, str]]:
        """(id, version) of all that there is."""
        rows = self.conn.execute("select id, version from workflow order by id")
        return [(id, version) for id, version in rows.fetchall()]

    def running_batches(self) -> list[str]:
        """Keys of the batches that are not at their end."""
        return [key for (key,) in self.conn.execute("select key from batch where state = 0 order by key")]

    def routed(self) -> tuple[str, str]:
        """The current and the ramping version; "" for none."""
        found = self.conn.execute("select current, coalesce(ramping, '') from routing").fetchone()
        return ("", "") if found is None else (found[0], found[1])

    def unfinished(self) -> list[Open]:
        """Those that are open and not held."""
        return [Open(*row) for row in self.conn.execute(UNFINISHED)]

    def unended(self) -> int:
        """How many have not ended, the held among them."""
        return cast("int", self.conn.execute("select count(*) from workflow where status < 5").get)

    def ownerless(self) -> int:
        """How many are owned by an incarnation that no row tells of."""
        return cast(
            "int",
            self.conn.execute("select count(*) from workflow where owner not in (select id from incarnation)").get,
        )

    def open_workflows(self) -> int:
        """How many are open and not held."""
        return cast("int", self.conn.execute("select count(*) from workflow where status < 4").get)


class SimulatedStore(SQLiteStore):
    """A process's store: the dialect's own methods, each call over the wire."""

    def __init__(self, way: Way, process: Any, app: str) -> None:
        self.app = app
        self.url = "simulated"
        self._way = way
        self._process = process
        self.timeline = Timeline(way.database.timeline, way.prove)
        self.op = ""
        self.args: tuple[Any, ...] = ()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def migrate(self) -> list[str]:
        return []

    def hint(self, queue: str = "") -> None:
        self._way.hint(self._process, queue)

    def on_hint(self, callback: Callable[[Collection[str]], None]) -> None:
        self._process.on_hint.append(callback)

    async def commit(self, batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        self.op, self.args = "commit", (batch,)

        def job(conn: Connection) -> Receipt:
            return self.timeline.commit(conn, self.app, batch, self._way.now() if now is None else now)

        receipt: Receipt = await self._write(job)
        return receipt

    @property
    def batches(self) -> SQLiteBatches:
        self.op, self.args = "batches", ()
        return super().batches

    @property
    def upkeep(self) -> SQLiteUpkeep:
        self.op, self.args = "upkeep", ()
        return super().upkeep

    async def _write(self, job: Any) -> Any:
        return await _Call(self._way, self._process, self, job, writes=True).answer

    async def _read(self, job: Any) -> Any:
        return await _Call(self._way, self._process, self, job, writes=False).answer


def _named(name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(SQLiteStore, name)

    async def call(self: SimulatedStore, *args: Any, **kwargs: Any) -> Any:
        self.op, self.args = name, args  # read before anything else can run
        return await method(self, *args, **kwargs)

    return call


for _name, _method in vars(SQLiteStore).items():
    if iscoroutinefunction(_method) and not _name.startswith("_") and _name not in vars(SimulatedStore):
        setattr(SimulatedStore, _name, _named(_name))


class _Call:
    """One call on its way."""

    def __init__(
        self, way: Way, process: Any, store: SimulatedStore, job: Callable[[Connection], Any], *, writes: bool
    ) -> None:
        if process.dead:
            raise asyncio.CancelledError  # in a task of the dead that does not know it yet
        self.answer: asyncio.Future[Any] = way.loop.create_future()
        self._way = way
        self._process = process
        self._op = store.op
        self._args = store.args
        self._store = store
        self._server = way.database.timeline  # that it is sent to
        self._job = job
        self._writes = writes
        self._fate = way.fate(process, writes=writes)
        way.loop.later(way.latency(), self._arrive)

    def _arrive(self) -> None:
        way, process, op, fate = self._way, self._process, self._op, self._fate
        if self._gone():
            self._back(None, DatabaseTrouble(f"the database failed over ({op})"))
        elif (cut := way.cut(process, op)) is not None:
            self._cut_off(cut)
        elif fate is Fate.ABORTED:
            sometimes(f"{op} was aborted")
            self._back(None, Overloaded(f"the database is busy ({op})"))
        elif fate is Fate.DIES_BEFORE and not process.dead:
            sometimes(f"the process died before {op}")
            way.note(process, op, "dies before")
            process.crash()
        elif fate is Fate.LATE:
            way.note(process, op, "is late")
            way.loop.later(way.lateness(), self._happen_late)
            self._back(None, LostAnswer(f"the connection broke ({op}): whether it happened is unknown"))
        else:
            self._happen(fate)

    def _happen(self, fate: Fate) -> None:
        way, process, op = self._way, self._process, self._op
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
            self._perform()
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
        now = self._way.database.timeline
        return self._store.timeline.moved(now) or now != self._server

    def _happen_late(self) -> None:
        if self._way.database.timeline != self._server:
            return
        sometimes(f"{self._op} came through after its caller was told that it was lost")
        self._perform()

    def _perform(self) -> tuple[Any, Exception | None]:
        way, database = self._way, self._way.database
        try:
            value = database.write(self._job, way.now()) if self._writes else database.read(self._job)
        except Exception as error:
            way.note(self._process, self._op, type(error).__name__)
            return None, error
        if isinstance(value, Receipt):
            self._look(value)
        way.note(self._process, self._op, database.trail.tx)
        return value, None

    def _look(self, receipt: Receipt) -> None:
        begun = self._way.database.begun
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
