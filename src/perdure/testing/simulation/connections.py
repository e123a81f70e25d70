"""Connections of the users' own, as a transaction step is given: to the app's database, or to another.

A transaction is the list of what was said in it. Each question plays the list and rolls it back; the commit plays it
once more, and commits. Two kinds of databases come of that:

- *snapshot* (as Postgres): nothing is locked. Whoever would be answered otherwise at the commit than he was told is
  rolled back with a serialization failure: what was committed is as if it had all happened at its commit.
- *locked* (as SQLite): who begins has the lock, and nobody else writes until the end.

Promises: a connection that broke is never used again; a transaction whose COMMIT was not sent is rolled back with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

import apsw

from perdure.errors import DatabaseTrouble, Overloaded
from perdure.runtime.context import STEP
from perdure.sessions.base import Dialect, Rows, rendered
from perdure.sessions.foreign import TABLE
from perdure.sessions.places import POSTGRES
from perdure.testing.simulation.failover import Timeline
from perdure.testing.simulation.memory import Memory
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import HOME, Call, Cut, Fate, at_once

Job = Callable[[Any], Any]
UNASKED = object()  # sent with the next question, or with the commit


class Broken(ConnectionError):
    """What a driver says of a connection that is no more."""


class SerializationFailure(Exception):
    """What a driver says of a transaction that was rolled back for another's sake."""

    sqlstate = "40001"


class UniqueViolation(Exception):
    """What a driver says of a key that is there."""

    sqlstate = "23505"


class SimulatedConnection:
    """See the head of this file. What the body of a transaction gets."""

    def __init__(self, world: Any, process: Any, server: Memory, name: str, dialect: Dialect) -> None:
        self.world = world
        self.process = process
        self.server = server
        self.name = name  # of the database that it leads to
        self.dialect: Dialect = dialect
        self.op = ""
        self.args: tuple[Any, ...] = ()
        self.timeline = Timeline(server.timeline, lambda _id, _claim: None)
        self.said: list[tuple[Job, Any]] = []
        self.begun = self.broken = False
        self.sealed = 0  # when it asked for its fence in the other database, by the database's time

    @property
    def locks(self) -> bool:
        """Whether who begins shuts out the others."""
        return self.dialect == "sqlite"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()

    async def ask(self, sql: str, *parameters: Any) -> Rows:
        """Rows, as tuples."""
        rows: Rows = await self.say(statement(sql, parameters))
        return rows

    def tell(self, job: Job) -> None:
        """Do this, too; nobody needs an answer: it goes with what is said next."""
        self.said.append((job, UNASKED))

    async def say(self, job: Job, *, locking: bool = False, row: str = "") -> Any:
        """Do this in the transaction; the answer. ``row``: of this workflow, which it locks."""
        if not self.begun:
            await self.begin()
        said = [*self.said, (job, UNASKED)]
        answer = await self._sent(Question(self, said, locking=locking, row=row))
        self.said.append((job, answer))
        return answer

    async def begin(self) -> None:
        self._must_work()
        self.begun = True
        if self.locks:
            await self._sent(Begin(self))

    async def commit(self) -> None:
        """Raises what a driver raises; whether it happened is unknown if the connection broke."""
        self._must_work()
        fate, delay = await self.world.bank.before_commit(self)
        await self._sent(Commit(self, fate, delay))
        self.end()

    def end(self) -> None:
        """Roll back what was not committed."""
        self.begun = False
        self.said = []
        self.process.let_go(self)

    def _must_work(self) -> None:
        if self.broken:
            raise Broken("the connection is closed")

    async def _sent(self, call: Call) -> Any:
        try:
            return await call.answer
        except apsw.ConstraintError as error:
            raise error if self.locks else UniqueViolation(str(error)) from None
        except Overloaded as error:  # it did not happen, and the database says so
            self.end()
            raise self._busy(str(error)) from None
        except DatabaseTrouble as error:
            self.broken = True
            self.end()
            raise Broken(str(error)) from None

    def _busy(self, words: str) -> Exception:
        if not self.locks:
            return SerializationFailure(words)
        busy: Any = apsw.BusyError(words)
        busy.extendedresult = apsw.SQLITE_BUSY
        raised: Exception = busy
        return raised


def statement(sql: str, parameters: Sequence[Any]) -> Job:
    """What runs it, on the database's own connection."""
    text, values = rendered(sql, parameters, "qmark")
    return lambda conn: list(conn.execute(text, values).fetchall())


class _OfConnection(Call):
    """A call of a connection's. Only to the app's database a process is cut off."""

    def __init__(self, connection: SimulatedConnection, op: str, job: Job, *, writes: bool, fate: Fate | None) -> None:
        connection.op = op
        self._connection = connection
        self._home = connection.name == HOME
        super().__init__(connection.world, connection.process, connection, job, writes=writes, fate=fate)

    def _cut(self) -> Cut | None:
        return super()._cut() if self._home else None


class Begin(_OfConnection):
    """BEGIN IMMEDIATE: waits for the lock."""

    def __init__(self, connection: SimulatedConnection) -> None:
        super().__init__(connection, "BEGIN", lambda _: None, writes=True, fate=Fate.WELL)

    def _ready(self) -> Callable[[], bool]:
        return self._server.gate.is_unlocked

    def _perform(self) -> tuple[Any, Exception | None]:
        if not self._process.dead and self._connection.begun:
            self._server.gate.lock = self._connection
            self._process.holds[self._connection] = self._server.gate
        return None, None


class Question(_OfConnection):
    """A statement and its answer. ``locking``: it waits for whoever is about to commit; ``row``: for who has that."""

    def __init__(
        self, connection: SimulatedConnection, said: list[tuple[Job, Any]], *, locking: bool, row: str
    ) -> None:
        self._locking = locking and not connection.locks
        self._row = row
        super().__init__(connection, "a statement", lambda conn: _play(conn, said), writes=False, fate=None)

    def _ready(self) -> Callable[[], bool]:
        return self._server.gate.is_quiet if self._locking else super()._ready()

    def _needed(self, kept: Collection[str]) -> Collection[str]:
        return [self._row] if self._row in kept else []

    def _perform(self) -> tuple[Any, Exception | None]:
        way = self._way
        try:
            return self._server.rehearse(self._job, way.now()), None
        except Exception as error:
            way.note(self._process, self._op, type(error).__name__)
            return None, error


class Commit(_OfConnection):
    """All of it once more; ``delay``: seconds that it is on its way for longer."""

    def __init__(self, connection: SimulatedConnection, fate: Fate | None, delay: float) -> None:
        said, self._delay = connection.said, delay
        super().__init__(connection, "COMMIT", lambda conn: _confirm(conn, said), writes=True, fate=fate)
        connection.process.holds.pop(connection, None)  # from here on it is the server's to let go
        self._server.gate.coming.add(connection)

    def _arrive(self) -> None:
        delay, self._delay = self._delay, 0.0
        if delay:
            self._way.loop.later(delay, self._arrive)
        else:
            super()._arrive()
            if self._fate is not Fate.LATE:
                self._server.gate.let_go(self._connection)

    def _ready(self) -> Callable[[], bool]:
        return at_once

    def _happen_late(self) -> None:
        super()._happen_late()
        self._server.gate.let_go(self._connection)

    def _perform(self) -> tuple[Any, Exception | None]:
        value, error = super()._perform()
        if isinstance(error, (_Moved, apsw.ConstraintError)):
            sometimes("a COMMIT met a serialization failure")
            error = Overloaded(str(error))
        return value, error


class _Moved(Exception):
    """What was read is no more as it was."""


def _play(conn: Any, said: Sequence[tuple[Job, Any]]) -> Any:
    answer: Any = None
    for job, _ in said:
        answer = job(conn)
    return answer


def _confirm(conn: Any, said: Sequence[tuple[Job, Any]]) -> None:
    for job, told in said:
        if job(conn) != told and told is not UNASKED:
            raise _Moved("could not serialize access due to concurrent update")


class SimulatedSession:
    """What the house speaks to such a connection by."""

    def __init__(self, given: SimulatedConnection) -> None:
        self.given = given
        self.kind = "apsw.Connection" if given.locks else "a simulated connection"
        self.dialect: Dialect = given.dialect

    async def execute(self, sql: str, parameters: Sequence[Any]) -> Rows:
        if sql == POSTGRES:
            return [("since", self.given.name)]
        if sql == "pragma database_list":
            return [(0, "main", self.given.name)]
        locking = sql.endswith(" for update")
        fence = sql.startswith(_FENCE)
        if fence:
            self.given.sealed = self.given.world.now()
        sql = sql.removesuffix(" for update").replace(_REGCLASS, _MASTER)
        rows: Rows = await self.given.say(statement(sql, parameters), locking=locking)
        if fence and rows:
            mine, _ = self.given.world.ledger.holder(parameters[1])
            sometimes("a transaction was refused by the fence of another database", rows[0][0].hex() != mine)
        return rows

    async def job(self, run: Callable[[Any], Any]) -> Any:
        step = STEP.get()
        answer = await self.given.say(run, row="" if step is None else step.key.id)
        sometimes("a transaction was refused by the fence", not getattr(answer, "applied", True))
        return answer

    async def begin(self) -> None:
        if not self.given.begun:
            await self.given.begin()

    async def restart(self) -> None:
        self.given.end()

    async def mark(self) -> None: ...

    async def kept(self) -> bool:
        return self.given.begun or self.given.broken

    async def flush(self) -> None: ...

    async def commit(self) -> None:
        await self.given.commit()

    async def rollback(self) -> None:
        self.given.end()

    async def in_transaction(self) -> bool:
        return self.given.begun


_FENCE = f"select nonce from {TABLE} "  # noqa: S608 - our own name
_REGCLASS = f"to_regclass('{TABLE}') is not null"
_MASTER = f"exists (select 1 from sqlite_master where type = 'table' and name = '{TABLE}')"  # noqa: S608 - the same
