"""Transactions: steps whose own database writes commit together with their record.

A call runs attempt after attempt (``attempts.py``): on the loop where the session is awaited, in a thread where it
blocks. What only the loop may do (lend the run's next record, see that the call is still wanted, ask the store) is done
here, for either.

Promises:
- the body is never run again after it has committed, whatever became of the answer to the commit;
- what is not wanted any more (timeout, cancel, lost claim) is rolled back; once *sealed* it ends by itself;
- a timeout is the outcome only when no former holder can commit the call any more;
- only what a database calls a conflict is run again, a bounded number of times; a database that cannot be spoken to is
  waited for.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from perdure.client.line import Line
from perdure.client.verbs import patiently
from perdure.core.run import Op
from perdure.definitions import StepDef
from perdure.errors import DatabaseTrouble
from perdure.model.real import time
from perdure.model.records import Outcome
from perdure.model.states import Reason
from perdure.model.writes import Unit, Verdict
from perdure.runtime.attempts import (
    Concluded,
    Doubt,
    Durable,
    Ending,
    Refused,
    Sealed,
    Taken,
    Unprepared,
    asked_again,
    attempt,
    make_table,
    outside,
    set_fence,
)
from perdure.runtime.in_session import Flow, in_awaited_session, in_blocking_session
from perdure.runtime.lending import Lending
from perdure.runtime.steps import CRASHES, StepCall, cancellation, crashed, value_outside
from perdure.runtime.sweep import count_for_sweep
from perdure.sessions import foreign
from perdure.sessions.base import AsyncSession, Session
from perdure.sessions.places import check_copy
from perdure.sessions.trouble import Meaning, meaning
from perdure.store.within import Within

log = logging.getLogger("perdure")

CONFLICTS_MAX = 20  # times that a body is run again because the database rolled it back for another's sake
DELAY_SECONDS = 0.005  # before the second try, doubled for each further one
DELAY_SECONDS_MAX = 1.0
TELL_EVERY = 30.0  # seconds between two warnings of a database that does not answer


class Crash(BaseException):
    """Carries what counts as the end of the process past everything that handles exceptions."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Unwanted(BaseException):
    """Nobody waits for this call any more."""


class Lost(Exception):
    """Another holds the run."""


class Other(Exception):
    """What was recorded is of another call."""


class TransactionCall(StepCall):
    """One call of a transaction in a workflow."""

    __slots__ = ("_transaction",)
    _transaction: Transaction | None

    def start(self, execution: Any, op: Op) -> None:
        if execution.host.body_of(self.definition)[0] is not self.definition.fn:
            super().start(execution, op)  # a test's fake has no session
            return
        # A thread of an attempt that timed out may still be at work: what it may do hangs on its own object.
        self._transaction = Transaction(self, execution, op)
        self._transaction.start()

    def stop(self) -> None:
        """Nobody waits for it any more: roll back, unless it is about to commit."""
        transaction = getattr(self, "_transaction", None)
        if transaction is None:
            super().stop()
        else:
            transaction.stop()

    def stopped(self, error: BaseException, *, timed_out: bool) -> tuple[Outcome, bytes | None, Exception | None]:
        self._timed_out = timed_out
        return self._stopped(error)

    @staticmethod
    def outside(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Outside a workflow, one that blocks."""
        return call_outside(definition, args, kwargs)

    @staticmethod
    def aoutside(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Coroutine[Any, Any, Any]:
        """The same of one that is awaited."""
        return acall_outside(definition, args, kwargs)


class Transaction:
    """A call under way, from its first attempt to its one outcome."""

    def __init__(self, of: TransactionCall, execution: Lending, op: Op) -> None:
        self.of = of
        self.execution = execution
        self.op = op
        self.line: Line = execution.line
        self.loop: asyncio.AbstractEventLoop = execution.line.loop
        self.codec = execution.host.registry.codec
        run = execution.run
        self.call = foreign.Call(
            execution.line.app, run.key.id, run.key.run, op.path, run.lineage, execution.claim or b""
        )
        self.before = execution.durable
        self.sealed = self.unwanted = self.lent = self.timed_out = False
        self.exposed = _may_be_under_way(execution, op)
        self.release: Callable[[], None] | None = None  # the turn to write, while it is held
        self.asked: set[asyncio.Task[Any]] = set()  # what a thread waits for
        self.here = ""
        self.task: asyncio.Task[Ending] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> int:
        return self.line.clock.now()

    # -- its life, on the loop

    def start(self) -> None:
        """Begin; the execution is told once, from a plain callback of the loop."""
        context = self.of.context(self.execution, self.op)
        self.task = asyncio.Task(self._run(), loop=self.loop, context=context)
        if self.of.timeout is not None:
            self.timer = self.loop.call_later(self.of.timeout / 1e6, self._time_out)
        self.task.add_done_callback(self._ended)

    def _time_out(self) -> None:
        self.timed_out = True
        if not self.sealed and not self.exposed:
            self._give_up()

    def stop(self) -> None:
        self.unwanted = True
        if self.timer is not None:
            self.timer.cancel()
        if not self.sealed:
            self._give_up()

    def _give_up(self) -> None:
        self.unwanted = True
        for asked in list(self.asked):
            asked.cancel()
        if self.task is not None:
            self.task.cancel()

    def _check(self) -> None:
        late = self.timed_out and not self.exposed
        if self.unwanted or late or self.execution.gone or not self.op.is_open:
            raise Unwanted

    def _ended(self, task: asyncio.Task[Ending]) -> None:
        self.task = None
        if self.timer is not None:
            self.timer.cancel()
        raised = None if task.cancelled() else task.exception()
        ending = None if task.cancelled() or raised is not None else task.result()
        if isinstance(ending, Durable):
            self.lent = False
            self._let_go()
            self.execution.record_written(self.op, ending.record)
            return
        self._let_go()
        if isinstance(raised, Crash):
            in_thread = not self.of.definition.is_async
            crashed(self.execution, raised.error, f"transaction {self.of.name}", in_thread=in_thread)
        elif isinstance(raised, Other):
            self.execution.hold(Reason.NONDETERMINISM, str(raised))
        elif isinstance(ending, Refused) or isinstance(raised, Lost):
            self.execution.refused()
        elif isinstance(ending, Concluded):
            self.execution.step_done(self.op, *ending)
            if ending.outcome is Outcome.VALUE:  # in another database
                count_for_sweep(self.execution.host, self.of.definition, self.here)
        elif raised is None or isinstance(raised, Unwanted):
            error = cancellation(task) if task.cancelled() else asyncio.CancelledError()
            self.execution.step_done(self.op, *self.of.stopped(error, timed_out=self.timed_out))
        else:
            self.execution.step_done(self.op, *self.of.failed(raised))

    def _let_go(self) -> None:
        """Give back what was taken for an attempt."""
        self.sealed = False
        self._end_turn()
        if self.lent:
            self.lent = False
            self.execution.give_back()

    def _end_turn(self) -> None:
        release, self.release = self.release, None
        if release is not None:
            release()

    # -- attempts

    async def _run(self) -> Ending:
        tries = conflicts = 0
        told = 0.0
        while True:
            try:
                ending = await self._in_session(lambda session: attempt(self, session))
                if not isinstance(ending, Unprepared):
                    return ending  # type: ignore[no-any-return]
                await self._prepare(table=ending.table)
                continue
            except Doubt as doubt:
                settled = await self._ask_again(doubt.sealed)
                if settled is not None:
                    return settled
                why: Exception = doubt.error
            except Exception as error:
                what = meaning_of(error)
                conflicts += what is Meaning.CONFLICT
                if what not in (Meaning.CONFLICT, Meaning.TROUBLE) or conflicts > CONFLICTS_MAX:
                    raise
                why = error
            self._let_go()
            self._check()
            tries += 1
            level, when = logging.INFO, "on a new snapshot"
            if meaning_of(why) is not Meaning.CONFLICT:
                when = "once its database answers"
                if time.monotonic() - told > TELL_EVERY:
                    level, told = logging.WARNING, time.monotonic()
            log.log(
                level, "transaction %s of workflow %s is run again, %s (try %d): %s: %s",
                self.of.name, self.call.id, when, tries + 1, type(why).__name__, str(why).strip(),
            )  # fmt: skip
            await asyncio.sleep(pause(tries))

    async def _in_session(self, flow: Flow) -> Any:
        definition = self.of.definition
        assert definition.source is not None, "declared with a source"
        if definition.is_async:
            return await in_awaited_session(definition, flow, self._awaited_body)
        host = self.execution.host
        context = self.of.context(self.execution, self.op)
        work = (definition, flow, self._blocking_body, self._on_loop)
        future = host.step_pool.run(context, in_blocking_session, work, {})
        try:
            return await asyncio.shield(future)
        finally:
            future.add_done_callback(_heard)

    async def _awaited_body(self, session: Any) -> Any:
        try:
            return await self.of.definition.fn(session, *self.of.args, **self.of.kwargs)
        except CRASHES as error:
            raise Crash(error) from None

    def _blocking_body(self, session: Any) -> Any:
        try:
            return self.of.definition.fn(session, *self.of.args, **self.of.kwargs)
        except CRASHES as error:
            raise Crash(error) from None

    def _on_loop(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """From a thread: have something done on the loop, while the call is wanted."""

        async def tracked() -> Any:
            self._check()
            task = asyncio.current_task()
            assert task is not None, "run as a task of its own"
            self.asked.add(task)
            try:
                return await make()
            finally:
                self.asked.discard(task)

        return asyncio.run_coroutine_threadsafe(tracked(), self.loop).result()

    async def _prepare(self, *, table: bool) -> None:
        """In the other database: the table if there is none, and the fence."""
        if table:
            try:
                await self._in_session(make_table)
            except Exception as error:
                if meaning(error) is not Meaning.TAKEN:  # two made it at once: it is there
                    error.add_note(f"{foreign.TABLE} could not be made there: see docs/guide/transactions.md")
                    raise
        await self._still_mine()
        await self._in_session(lambda _: set_fence(self))
        self.line.places.tables.add(self.here)

    async def _still_mine(self) -> None:
        row = (await self.line.store.rows([self.call.id])).get(self.call.id)
        if row is None or row.run != self.call.run or row.claim != self.call.claim:
            raise Lost

    async def _ask_again(self, sealed: Sealed) -> Ending | None:
        """The answer to a commit was lost: what became of it. None: it was rolled back, for certain."""
        log.info("transaction %s of workflow %s: the answer to its commit was lost; asking", self.of.name, self.call.id)
        self._end_turn()
        if sealed.unit is not None:
            (record,) = sealed.unit.records
            key, nonce = sealed.unit.key, sealed.unit.nonce
            wrote = await patiently(self.line, self.line.store.wrote, key, record.seq, nonce)
            return Durable(record) if wrote else None
        tries = 0
        while not self.execution.gone:
            try:
                recorded = await self._in_session(lambda session: asked_again(self, session))
            except Exception as error:
                if meaning(error) not in (Meaning.CONFLICT, Meaning.TROUBLE):
                    raise
                tries += 1
                await asyncio.sleep(pause(tries))
            else:
                return None if recorded is None else self.recalled(recorded)
        return None

    # -- what an attempt asks for (``attempts.Desk``)

    def conclude(self, error: BaseException | None, value: Any) -> Concluded:
        return Concluded(*self.of.conclude(error, lambda: value, self.codec))

    def within(self, unit: Unit) -> Within[Verdict]:
        return self.line.store.within(unit, self.before, now=self.line.clock.stamp())

    def known(self, here: str) -> bool:
        return here in self.line.places.tables

    def recalled(self, recorded: foreign.Recorded) -> Concluded:
        """Raises ``Other`` if another call is recorded where this one is made."""
        if recorded.fingerprint != self.op.fingerprint:
            raise Other(
                f"at {self.op.path}: the transaction {self.of.name} has committed in its own database with other "
                "arguments than the code gives now"
            )
        data = recorded.data
        if data is not None and self.codec is not None:
            data = self.codec.decode(data)
        return Concluded(Outcome(recorded.outcome), data)

    def stored(self, concluded: Concluded) -> foreign.Recorded:
        data = concluded.data
        if data is not None and self.codec is not None:
            data = self.codec.encode(data)
        return foreign.Recorded(self.op.fingerprint, int(concluded.outcome), data, self.line.new_token())

    async def is_home(self, session: Session | AsyncSession, here: str) -> bool:
        self.here = here
        home = await self.line.places.home(here)
        check_copy(session, home, here)
        if home == here:
            await self.cover()  # there the claim itself is the fence
        return home == here

    async def cover(self) -> None:
        """No former holder can commit the call any more, and none has."""
        if self.exposed:
            self.exposed = False
            self._check()

    async def lend(self) -> None:
        """Have the run's next record."""
        self._check()
        await self.execution.lend()
        self.lent = True
        self._check()

    async def turn(self) -> None:
        """Have the turn to write, among all who write to the file."""
        taking = asyncio.ensure_future(self.line.store.turn())
        try:
            self.release = await asyncio.shield(taking)
        except BaseException:
            taking.add_done_callback(_give_up_turn)
            raise
        self._check()

    async def seal(self, concluded: Concluded) -> Sealed:
        self._check()
        run = self.execution.run
        record = run.next_record(self.op, self.now, concluded.outcome, concluded.data)
        unit = Unit(
            key=run.key, claim=self.call.claim, nonce=self.line.new_token(), version=run.version, after=run.seq,
            records=[record],
        )  # fmt: skip
        self.sealed = True
        return Sealed(unit)

    async def seal_foreign(self) -> Sealed:
        await self._still_mine()
        self._check()
        self.sealed = True
        return Sealed()


def _may_be_under_way(execution: Lending, op: Op) -> bool:
    """Whether the call was begun before the run was claimed here: whoever did so may be about to commit it."""
    recorded = (intent for record in execution.run.history for intent in record.intents)
    return any(intent.path == op.path for intent in (*recorded, *execution.row.intents))


def _heard(future: asyncio.Future[Any]) -> None:
    """What a thread came to that nobody waits for is no error."""
    if not future.cancelled():
        future.exception()


def _give_up_turn(taking: asyncio.Future[Callable[[], None]]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        taking.result()()


def meaning_of(error: BaseException) -> Meaning:
    if isinstance(error, Taken):
        return Meaning.CONFLICT
    return Meaning.TROUBLE if isinstance(error, DatabaseTrouble) else meaning(error)


def pause(tries: int) -> float:
    """Seconds before another try: more each time, and never those of who was in conflict with this one."""
    delay: float = min(DELAY_SECONDS * 2.0 ** min(tries - 1, 16), DELAY_SECONDS_MAX)
    return random.uniform(0.5, 1.0) * delay


# -- outside any workflow: the function in a transaction of its own, run again on conflicts, recorded nowhere


def _no_loop(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    raise AssertionError("nothing outside a workflow waits for the loop")


def _again(definition: StepDef, error: Exception, tries: int) -> float:
    if meaning(error) is not Meaning.CONFLICT or tries > CONFLICTS_MAX:
        raise error
    log.info("transaction %s is run again, on a new snapshot (try %d): %s", definition.name, tries + 1, error)
    return pause(tries)


def call_outside(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a transaction that blocks."""

    def body(session: Any) -> Any:
        return value_outside(definition, definition.fn(session, *args, **kwargs))

    tries = 0
    while True:
        try:
            return in_blocking_session(definition, lambda _: outside(), body, _no_loop)
        except Exception as error:
            tries += 1
            delay = _again(definition, error, tries)
        time.sleep(delay)


async def acall_outside(definition: StepDef, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call one that is awaited."""
    tries = 0
    while True:
        try:
            return await in_awaited_session(
                definition, lambda _: outside(), lambda session: definition.fn(session, *args, **kwargs)
            )
        except Exception as error:
            tries += 1
            delay = _again(definition, error, tries)
        await asyncio.sleep(delay)
