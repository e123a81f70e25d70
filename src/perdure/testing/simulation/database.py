"""The simulated database of the app, and a process's store of it.

The transactions are those of the SQLite dialect, on a database in memory with the audit's triggers on it; what is
simulated is everything around them: the time each sees, and the way of a call to the database and back (``wire``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from inspect import iscoroutinefunction
from typing import Any, cast

from perdure.model.writes import Receipt, Unit
from perdure.store.sqlite.batches import SQLiteBatches
from perdure.store.sqlite.driver import Connection
from perdure.store.sqlite.migrate import migrate
from perdure.store.sqlite.store import SQLiteStore
from perdure.store.sqlite.upkeep import SQLiteUpkeep
from perdure.testing.simulation.failover import Timeline
from perdure.testing.simulation.memory import Memory
from perdure.testing.simulation.rollout import UNFINISHED, Open
from perdure.testing.simulation.wire import HOME, Call, Turn, Way, place_of


class Database(Memory):
    """The app's; ``wipe`` makes it a fresh one (opening and preparing anew would cost more)."""

    def __init__(self) -> None:
        super().__init__(migrate)
        self.begun: set[bytes] = set()  # nonces of starts

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
        self.gate.open()
        self.begun.clear()

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

    def open_ids(self, name: str = "") -> list[str]:
        """Of those that have not ended; ``name``: of this kind only."""
        found = self.conn.execute("select id, name from workflow where status < 5 order by id")
        return [id for id, kind in found.fetchall() if name in ("", kind)]

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
        self.server = way.database
        self.timeline = Timeline(self.server.timeline, way.prove)
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

    async def place(self) -> str:
        return place_of(HOME, self._way.bank.dialects[HOME])

    async def turn(self) -> Callable[[], None]:
        release: Callable[[], None] = await Turn(self._way, self._process, self).answer
        return release

    async def _write(self, job: Any) -> Any:
        return await Call(self._way, self._process, self, job, writes=True).answer

    async def _read(self, job: Any) -> Any:
        return await Call(self._way, self._process, self, job, writes=False).answer


def _named(name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = getattr(SQLiteStore, name)

    async def call(self: SimulatedStore, *args: Any, **kwargs: Any) -> Any:
        self.op, self.args = name, args  # read before anything else can run
        return await method(self, *args, **kwargs)

    return call


for _name, _method in vars(SQLiteStore).items():
    if iscoroutinefunction(_method) and not _name.startswith("_") and _name not in vars(SimulatedStore):
        setattr(SimulatedStore, _name, _named(_name))
