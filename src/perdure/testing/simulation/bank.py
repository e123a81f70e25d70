"""Accounts of the users' own, in the app's database and in another, and what moves money between them: transactions.

A transfer moves cents from one account to another by what it has read, so that a lost update changes the sum, and
leaves a row of its own with a number that is its result: what is recorded tells which transfer it is of.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import App, Retry
from perdure.errors import StepTimeout
from perdure.runtime.context import STEP, StepContext
from perdure.sessions.base import Dialect
from perdure.sessions.foreign import TABLE, ddl
from perdure.testing.simulation.connections import SimulatedConnection, statement
from perdure.testing.simulation.loop import PROCESS
from perdure.testing.simulation.memory import Memory
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import HOME, Fate

ACCOUNTS = ("ann", "bob", "cid")
CENTS = 1000
AWAY = "another"
HASTE_SECONDS = 0.03
KINDS = ("pay", "wire", "both", "pay", "wire", "refused", "hasty")
STEPS = ("declare.pay", "declare.wire")
SKIPPED = 1  # the result that an operator gives whom she skips
FATES = (Fate.ABORTED, Fate.LOST, Fate.LATE, Fate.DIES_BEFORE, Fate.DIES_UNANSWERED, Fate.DIES_ANSWERED)


class Away(Memory):
    """The other database. The table of transactions there is made by who comes first."""

    def __init__(self) -> None:
        super().__init__(lambda conn: conn.execute(ddl("sqlite")))

    def wipe(self) -> None:
        self.conn.execute(ddl("sqlite"))
        self.trail.wipe()
        self.gate.open()
        self.conn.execute(f"drop table {TABLE}")


class Bank:
    """Both databases, for one world."""

    def __init__(self, world: Any, away: Away, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.away = away
        self.dialects: dict[str, Dialect] = {
            HOME: chance.choice(("postgres", "postgres", "sqlite")),
            AWAY: chance.choice(("postgres", "postgres", "sqlite")),
        }
        self._orders = 0
        self.tokens = SKIPPED  # the number of the latest transfer

    def furnish(self) -> None:
        """Make the accounts."""
        self.away.wipe()
        for server in (self._world.database, self.away):
            server.write(_open_accounts, self._world.now())

    def connect(self, name: str) -> SimulatedConnection:
        """What a source gives, in the process that asks."""
        server = self._world.database if name == HOME else self.away
        return SimulatedConnection(self._world, PROCESS.get(), server, name, self.dialects[name])

    async def transfer(self, db: SimulatedConnection, what: str) -> int:
        """The body of a transaction: its number."""
        step = step_of()
        claim, _ = self._world.ledger.holder(step.key.id)
        self.tokens += 1
        token, pid = self.tokens, PROCESS.get().pid
        giver, taker = self._chance.sample(ACCOUNTS, 2)
        has = {name: (await db.ask("select cents from account where name = $1", name))[0][0] for name in (giver, taker)}
        await asyncio.sleep(self._duration(db))
        if what == "refused" and self._chance.random() < 0.6:
            raise LookupError(what)
        cents = self._chance.randint(1, 9)
        for name, change in ((giver, -cents), (taker, cents)):
            db.tell(statement("update account set cents = $2 where name = $1", (name, has[name] + change)))
        row = (token, step.key.id, step.key.run, step.path, claim)
        db.tell(lambda conn: conn.execute(_TRANSFER, (*row, db.sealed, pid)).fetchall())
        return token

    def _duration(self, db: SimulatedConnection) -> float:
        """Where a writer shuts out all others it has to be short."""
        return self._chance.choice((0.001, 0.02, 0.05)) if db.locks else min(self._world.duration(), 1.0)

    async def before_commit(self, db: SimulatedConnection) -> tuple[Fate | None, float]:
        """What becomes of a COMMIT (None: what becomes of any call), and for how long it is on its way besides."""
        world, chance = self._world, self._chance
        if world.healed:
            return Fate.WELL, 0.0
        if chance.random() >= world.mix.commits:
            return None, 0.0
        trouble = chance.choice(("fate", "fate", "fate", "stop", "slow", "order"))
        if trouble == "fate":
            return chance.choice(FATES if db.process.mortal else FATES[:3]), 0.0
        if trouble == "stop":
            await self._stop(db.process)
            return None, 0.0
        if trouble == "order":
            self._order(step_of().key.id)
        return None, chance.choice((0.02, 0.3, 1.0))

    async def _stop(self, process: Any) -> None:
        if process.paused:
            return
        seconds = self._world.lease * self._chance.uniform(0.1, 2.5)
        sometimes("a process was stopped right before a COMMIT")
        self._world.stop(process, seconds)
        await asyncio.sleep(0)

    def _order(self, id: str) -> None:
        """Somebody moves the workflow of it meanwhile."""
        world = self._world
        verb, given, options = self._chance.choice(ORDERS)
        self._orders += 1
        calls = world.caller(f"meddler {self._orders}")
        order = calls.order(world.client.app.client.handle(id), verb, f"meddler {self._orders}", *given, **options)
        world.client.run(order)


def step_of() -> StepContext:
    """The step that asks."""
    step = STEP.get()
    assert step is not None, "in a transaction step"
    return step


_TRANSFER = "insert into transfer (token, id, run, path, holder, sealed, pid) values (?1, ?2, ?3, ?4, ?5, ?6, ?7)"


def _open_accounts(conn: Any) -> None:
    conn.executemany("insert into account (name, cents) values (?1, ?2)", [(name, CENTS) for name in ACCOUNTS])


def declare(simulated: Any) -> Any:
    """The transactions, and the workflow that makes them."""
    app: App = simulated.app
    retry = Retry(attempts=3, delay=0.02)

    def bank() -> Bank:
        of_the_world: Bank = simulated.stage.bank
        return of_the_world

    @app.transaction(lambda: bank().connect(HOME), retry=retry)
    async def pay(db: SimulatedConnection, what: str) -> int:
        return await bank().transfer(db, what)

    @app.transaction(lambda: bank().connect(AWAY), retry=retry)
    async def wire(db: SimulatedConnection, what: str) -> int:
        return await bank().transfer(db, what)

    @app.step
    async def note(what: str) -> int:
        with simulated.stage.ledger.effect(what):
            await asyncio.sleep(simulated.stage.duration())
        return 1

    async def hasty(what: str) -> None:
        for move in (pay, wire):
            with contextlib.suppress(StepTimeout, LookupError):
                await move.options(timeout=HASTE_SECONDS)(what)

    @app.workflow
    async def payer(plan: list[str]) -> int:
        for what in plan:
            if what == "hasty":
                await hasty(what)
            with contextlib.suppress(LookupError):
                if what in ("pay", "refused"):
                    await pay(what)
                if what in ("wire", "refused"):
                    await wire(what)
                if what == "both":
                    await asyncio.gather(pay(what), note(what), wire(what), pay(what))
        return len(plan)

    return payer


def transfers(id: str, chance: Any) -> Callable[[Any], Awaitable[None]]:
    """A script: a payer, and somebody who moves it meanwhile."""
    plan = [chance.choice(KINDS) for _ in range(chance.randint(2, 4))]
    orders = [(chance.uniform(0.0, 0.5), chance.choice(ORDERS)) for _ in range(chance.choice((0, 0, 1, 2)))]

    async def script(client: Any) -> None:
        handle = await client.start(client.app.payer, id, plan)
        for n, (wait, (verb, given, options)) in enumerate(orders):
            await asyncio.sleep(wait)
            await client.order(handle, verb, f"{id} order {n}", *given, **options)
        await client.result(handle)

    return script


Order = tuple[str, tuple[Any, ...], dict[str, Any]]
ORDERS: tuple[Order, ...] = (
    ("reset", (), {"to": "first"}), ("reset", (), {"to": "last"}), ("reset", (), {"to": "#2"}),
    *(("skip", (step, SKIPPED), {}) for step in STEPS), ("cancel", (), {}),
)  # fmt: skip
