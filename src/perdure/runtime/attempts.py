"""One attempt at a transaction, step by step, whoever waits: the session asks, the body runs, the record, the commit.

``attempt`` is a generator of requests; ``perform`` and ``aperform`` carry them out on a session that blocks (in a
thread) or is awaited (on the loop). What must be done on the loop is a request too, so that the order of things is
written down once.

    look where the session leads
    ├─ the app's database:  begin ▸ body ▸ lend the run, seal ▸ record (fenced) ▸ commit
    │                       (SQLite: lend ▸ turn ▸ begin ▸ body ▸ seal ▸ record ▸ commit, see docs/internals)
    └─ another:             begin ▸ look for a record ▸ body ▸ seal ▸ record (fenced) ▸ commit ▸ an ordinary record
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal, NamedTuple, Protocol

from perdure.errors import Misuse
from perdure.model.records import Outcome, Record
from perdure.model.writes import Unit, Verdict
from perdure.sessions import foreign
from perdure.sessions.base import AsyncSession, Session
from perdure.sessions.places import place
from perdure.sessions.trouble import UNDECIDED, Meaning, meaning, sqlstate
from perdure.store.within import Job, Request, Statement, Within

_FORBIDDEN = "42501"
_ENDED = (
    "the transaction that the body was given had ended before the body returned, so what it wrote and its record are "
    "not one commit: what was committed by then stays. Do not commit or roll back in a transaction's body; it commits "
    "when the body returns, and is rolled back if the body raises"
)


class Act(NamedTuple):
    """Do this to the session."""

    what: Literal["begin", "restart", "mark", "kept", "flush", "commit", "rollback"]


class Body(NamedTuple):
    """Run the user's function."""


class OnLoop(NamedTuple):
    """Do this on the event loop; answered with what it gives."""

    make: Callable[[], Coroutine[Any, Any, Any]]


Do = Request | Act | Body | OnLoop
Attempt = Generator[Do, Any, "Ending"]


class Durable(NamedTuple):
    """The record is durable, in the app's database."""

    record: Record


class Concluded(NamedTuple):
    """The outcome is to be recorded like any step's: a failure (rolled back), or what another database has."""

    outcome: Outcome
    data: bytes | None
    error: Exception | None = None


class Refused(NamedTuple):
    """Another holds the run."""


class Unprepared(NamedTuple):
    """The other database lacks the table, or this holder's fence."""

    table: bool


Ending = Durable | Concluded | Refused | Unprepared


class Taken(Exception):
    """Another attempt has recorded the call meanwhile, in the other database."""


class Doubt(Exception):
    """The answer to a commit was lost."""

    def __init__(self, error: Exception, sealed: Sealed) -> None:
        super().__init__(str(error))
        self.error = error
        self.sealed = sealed


class Sealed(NamedTuple):
    """From here on the attempt ends by itself, committed or not: what it is about to write."""

    unit: Unit | None = None  # None: in another database


class Desk(Protocol):
    """The call's part on the loop, and what it knows."""

    @property
    def call(self) -> foreign.Call: ...
    @property
    def now(self) -> int: ...
    @property
    def exposed(self) -> bool:
        """Whether a former holder may still commit the call in another database."""
        ...

    def conclude(self, error: BaseException | None, value: Any) -> Concluded: ...
    def within(self, unit: Unit) -> Within[Verdict]: ...
    def known(self, here: str) -> bool:
        """Whether the table of that database was seen before."""
        ...

    def recalled(self, recorded: foreign.Recorded) -> Concluded: ...
    def stored(self, concluded: Concluded) -> foreign.Recorded: ...
    async def is_home(self, session: Session | AsyncSession, here: str) -> bool: ...
    async def cover(self) -> None: ...
    async def lend(self) -> None: ...
    async def turn(self) -> None: ...
    async def seal(self, concluded: Concluded) -> Sealed: ...
    async def seal_foreign(self) -> Sealed: ...


def attempt(desk: Desk, session: Session | AsyncSession) -> Attempt:
    """See the head of this file."""
    here = yield from place(session)
    if (yield OnLoop(lambda: desk.is_home(session, here))):
        return (yield from _at_home(desk, early=session.dialect == "sqlite"))
    return (yield from _abroad(desk, session, here))


def _at_home(desk: Desk, *, early: bool) -> Attempt:
    """``early``: the transaction shuts out all other writers, so what the run has to write must go first."""
    yield Act("restart")  # the body may say which kind of transaction it wants
    if early:
        yield OnLoop(desk.lend)
        yield OnLoop(desk.turn)
    yield Act("begin")
    concluded: Concluded = yield from _body(desk)
    if concluded.outcome is Outcome.ERROR:
        return concluded
    if not early:
        yield OnLoop(desk.lend)
    sealed: Sealed = yield OnLoop(lambda: desk.seal(concluded))
    assert sealed.unit is not None, "sealed for the app's database"
    try:
        verdict: Verdict = yield from desk.within(sealed.unit)
    except Exception as error:
        if meaning(error) is not Meaning.TAKEN:
            if sqlstate(error) == _FORBIDDEN:
                error.add_note("what this role needs of Perdure's tables is in docs/guide/transactions.md")
            raise
        verdict = Verdict(applied=False)
    if not verdict.applied:
        yield Act("rollback")
        return Refused()
    yield from _commit(sealed)
    return Durable(sealed.unit.records[0])


def _abroad(desk: Desk, session: Session | AsyncSession, here: str) -> Attempt:
    yield Act("begin")
    found: foreign.Found = yield from foreign.look(session.dialect, desk.call, known=desk.known(here))
    if found.recorded is not None:
        yield Act("rollback")
        return desk.recalled(found.recorded)
    if not found.fenced:
        yield Act("rollback")
        return Unprepared(table=not found.there)
    if desk.exposed:
        yield OnLoop(desk.cover)
    yield Act("restart")
    yield Act("begin")
    concluded: Concluded = yield from _body(desk)
    if concluded.outcome is Outcome.ERROR:
        return concluded
    recorded = desk.stored(concluded)
    sealed: Sealed = yield OnLoop(desk.seal_foreign)
    try:
        mine = yield from foreign.record(session.dialect, desk.call, recorded, desk.now)
    except Exception as error:
        raise (Taken(str(error)) if meaning(error) is Meaning.TAKEN else error) from error
    if not mine:
        yield Act("rollback")
        return Refused()
    yield from _commit(sealed)
    return concluded


def _body(desk: Desk) -> Generator[Do, Any, Concluded]:
    """Run it; its failure is rolled back, unless the database asks for another try."""
    yield Act("mark")
    try:
        value = yield Body()
        yield Act("flush")
        if not (yield Act("kept")):
            raise Misuse(_ENDED)  # its record would be in another transaction than what it has written
    except Exception as error:
        if meaning(error) in (Meaning.CONFLICT, Meaning.TROUBLE):
            raise
        yield Act("rollback")
        return desk.conclude(error, None)
    concluded = desk.conclude(None, value)
    if concluded.outcome is Outcome.ERROR:
        yield Act("rollback")
    return concluded


def _commit(sealed: Sealed) -> Generator[Do, Any, None]:
    try:
        yield Act("commit")
    except Exception as error:
        code = sqlstate(error)
        answered = bool(code) and code not in UNDECIDED and meaning(error) is not Meaning.TROUBLE
        if answered or meaning(error) is Meaning.CONFLICT:
            raise  # the server says that it did not
        raise Doubt(error, sealed) from error


def make_table(session: Session | AsyncSession) -> Generator[Do, Any, None]:
    """Make the table of transactions there."""
    yield Act("begin")
    yield from foreign.make(session.dialect)
    yield Act("commit")


def set_fence(desk: Desk) -> Generator[Do, Any, None]:
    """Make the fence this holder's."""
    yield Act("begin")
    yield from foreign.fence(desk.call, desk.now)
    yield Act("commit")


def asked_again(desk: Desk, session: Session | AsyncSession) -> Generator[Do, Any, foreign.Recorded | None]:
    """What the other database has committed of the call; waits while a commit may still be under way."""
    yield Act("begin")
    yield from foreign.lock(session.dialect, desk.call)
    found: foreign.Found = yield from foreign.look(session.dialect, desk.call, known=True)
    yield Act("rollback")
    return found.recorded


def outside() -> Generator[Do, Any, Any]:
    """A call outside any workflow: nothing is recorded."""
    yield Act("begin")
    yield Act("mark")
    value = yield Body()
    yield Act("flush")
    if not (yield Act("kept")):
        raise Misuse(_ENDED)
    yield Act("commit")
    return value


def perform(
    flow: Generator[Do, Any, Any],
    session: Session,
    body: Callable[[Any], Any],
    on_loop: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any],
) -> Any:
    """Carry the requests out on a session that blocks."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            request = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value
        answer = error = None
        try:
            match request:
                case Statement():
                    answer = session.execute(*request)
                case Job():
                    answer = session.job(request.run)
                case Act():
                    answer = getattr(session, request.what)()
                case Body():
                    answer = body(session.given)
                case OnLoop():
                    answer = on_loop(request.make)
        except BaseException as raised:
            error = raised


async def aperform(flow: Generator[Do, Any, Any], session: AsyncSession, body: Callable[[Any], Any]) -> Any:
    """The same on one that is awaited."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            request = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as end:
            return end.value
        answer = error = None
        try:
            match request:
                case Statement():
                    answer = await session.execute(*request)
                case Job():
                    answer = await session.job(request.run)
                case Act():
                    answer = await getattr(session, request.what)()
                case Body():
                    answer = await body(session.given)
                case OnLoop():
                    answer = await request.make()
        except BaseException as raised:
            error = raised
