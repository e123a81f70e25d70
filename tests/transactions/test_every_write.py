"""Crashes at every write and at every commit of workflows with transactions: each transfer once, every sum exact.

The writes of the store are struck as in ``tests/crash/test_every_write.py``; the commits of the sessions besides, by
what is put before their adapters' ``commit`` here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Generator, Iterator
from typing import Any, cast

import pytest

from perdure import App
from perdure.query.conditions import where
from perdure.sessions.apsw import Apsw
from perdure.sessions.asyncpg import Asyncpg
from perdure.sessions.psycopg import Psycopg
from perdure.sessions.sqlite3 import Sqlite3
from perdure.store.base import Store
from perdure.store.open import open_store
from perdure.testing import Harness
from perdure.testing.crash import NUMBERED, Crashed, Mode, Plan
from tests.crash.ledger import Witness, for_app
from tests.transactions.banks import ACCOUNTS, CENTS, Bank
from tests.transactions.conftest import Where, places

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.sampled(1)]

SEED = int(os.environ.get("PERDURE_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
COMMIT = "commit of a transaction"
RUN_SECONDS = 20.0
Flow = Generator[str, Any, Any]


class Struck:
    """What strikes the commits of sessions, by the plan of the harness in use."""

    def __init__(self) -> None:
        self.harness: Harness | None = None
        self.loop = asyncio.get_running_loop()

    def mode(self) -> Mode | None:
        return None if self.harness is None else self.harness.plan.number(COMMIT)

    def die(self) -> None:
        assert self.harness is not None
        self.loop.call_soon_threadsafe(self._die, self.harness)

    @staticmethod
    def _die(harness: Harness) -> None:
        harness._die(harness._work)

    def before(self, mode: Mode | None) -> None:
        if mode is Mode.BEFORE:
            self.die()
            raise Crashed
        if mode is Mode.TROUBLE:
            raise ConnectionResetError("cut before the commit")

    def after(self, mode: Mode | None) -> None:
        if mode in (Mode.UNANSWERED, Mode.ANSWERED):
            self.die()
        if mode is Mode.UNANSWERED:
            raise Crashed
        if mode is Mode.LOST:
            raise ConnectionResetError("cut before the answer")


@pytest.fixture
async def struck(monkeypatch: pytest.MonkeyPatch) -> Struck:
    struck = Struck()

    def blocking(commit: Callable[[Any], None]) -> Callable[[Any], None]:
        def struck_commit(self: Any) -> None:
            mode = struck.mode()
            struck.before(mode)
            commit(self)
            struck.after(mode)

        return struck_commit

    for kind in (Apsw, Sqlite3, Psycopg):
        monkeypatch.setattr(kind, "commit", blocking(kind.commit))
    commit = Asyncpg.commit

    async def awaited(self: Any) -> None:
        mode = struck.mode()
        struck.before(mode)
        await commit(self)
        struck.after(mode)

    monkeypatch.setattr(Asyncpg, "commit", awaited)
    return struck


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("perdure").setLevel(logging.ERROR)
    yield
    logging.getLogger("perdure").setLevel(logging.NOTSET)


class Bench:
    """Runs one workflow against one store and one bank, each run on a fresh app."""

    def __init__(self, money: Bank, store: Store, struck: Struck) -> None:
        self.money, self.store, self.struck = money, store, struck
        self.app = App("bench")
        self.bodies: list[str] = []
        self.runs = 0

        def transfer(_db: Any, id: str, cents: int) -> Flow:
            self.bodies.append(id)
            yield f"update account set cents = cents - {cents} where name = 'a0'"
            yield f"update account set cents = cents + {cents} where name = 'a1'"
            yield f"insert into transfer values ('{id}', null)"
            return cents

        move = self.app.transaction(money.source)(money.do(transfer))

        @self.app.step
        async def after(cents: int) -> int:
            return cents

        @self.app.workflow(name="pay")
        async def pay(id: str) -> int:
            first, second = await asyncio.gather(move(f"{id}a", 1), after(2))
            return first + second + await after(3) + await move(f"{id}b", 1)

        self.pay = pay

    async def run(self, orders: dict[int, Mode]) -> Plan:
        self.runs += 1
        id = f"r{self.runs}"
        self.bodies.clear()
        home = self.app._home
        made = home.make_store
        harness = Harness(self.app, database="sqlite:///given.db")
        harness.plan = Plan(orders, NUMBERED | {COMMIT})
        home.make_store = lambda _url, app, _schema: cast(Store, Witness(for_app(self.store, app)))
        try:
            await harness.open()
            self.struck.harness = harness
            async with asyncio.timeout(RUN_SECONDS):
                handle = await self.pay.options(id=id).start(id)
                with harness.waiting():
                    assert await handle.result() == 7
                await harness.settle()
            await self.check(harness, id)
        finally:
            self.struck.harness = None
            home.make_store = made
            harness.plan.orders.clear()
            await harness.close()
        return harness.plan

    async def check(self, harness: Harness, id: str) -> None:
        rows = await self.money.read(f"select id from transfer where id like '{id}_' order by id")
        assert rows == [(f"{id}a",), (f"{id}b",)], "a transfer was lost, or applied twice"
        assert await self.money.total() == ACCOUNTS * CENTS
        assert await self.money.read("select cents from account where name = 'a1'") == [(CENTS + 2 * self.runs,)]
        (row,) = (await harness.store.list(where())).rows
        records = (await harness.store.histories([row.key]))[row.key]
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert sum(record.name == "transfer" for record in records) == 2
        again = 1 + harness.crashes + sum(mode in (Mode.TROUBLE, Mode.LOST) for _, mode in harness.plan.struck)
        assert max(self.bodies.count(each) for each in self.bodies) <= again


PLACES = [
    Where("apsw", True, "sqlite"), Where("sqlite3", False, "sqlite"), Where("asyncpg", True, "postgres"),
    Where("psycopg", True, "postgres"), Where("asyncpg", False, "sqlite"), Where("apsw", False, "postgres"),
]  # fmt: skip


@places(*PLACES)
async def test_every_write_and_commit(money: Bank, database: str, struck: Struck, where: Where) -> None:
    store = open_store(database, "bench")
    await store.open()
    await store.migrate()
    rng = random.Random(SEED)
    points = 0
    try:
        bench = Bench(money, store, struck)
        plan = await bench.run({})
        for point, what in enumerate(plan.points, 1):
            for mode in list(Mode) if what == COMMIT else rng.sample(list(Mode), 2):
                try:
                    points += bool((await bench.run({point: mode})).struck)
                except BaseException as error:
                    error.add_note(f"{mode} at write {point} ({what}); PERDURE_SEED={SEED}")
                    raise
        for _ in range(10):
            first = rng.randint(1, len(plan.points))
            orders = {first: rng.choice(list(Mode)), first + rng.randint(1, 5): rng.choice(list(Mode))}
            try:
                points += bool((await bench.run(orders)).struck)
            except BaseException as error:
                error.add_note(f"{orders}; PERDURE_SEED={SEED}")
                raise
    finally:
        await store.close()
    print(f"\n{points} crash points of {len(plan.points)} writes, seed {SEED}: {plan.points}")
    assert plan.points.count(COMMIT) >= 2
    assert points >= len(plan.points) * 2
