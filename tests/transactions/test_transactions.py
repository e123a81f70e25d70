"""What a transaction promises, for every kind of session, in the app's own database and in another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import pytest

import perdure.sync
from perdure import App, Codec, Retry, Router, current, sleep
from perdure.errors import DefinitionError, Misuse, StepFailed, StepTimeout
from perdure.model.records import Kind, Outcome
from perdure.testing import harness
from tests.runtime.support import history, until
from tests.runtime.support import kinds as all_kinds
from tests.transactions.banks import ACCOUNTS, CENTS, OTHER_WAYS, Bank
from tests.transactions.conftest import AWAY, HOME, Where, places
from tests.transactions.test_outbox import transaction

pytestmark = pytest.mark.sampled(23)

Flow = Generator[str, Any, Any]


async def kinds(app: Any, id: str) -> list[str]:
    """The history, but for the notes of what was about to run."""
    return [kind for kind in await all_kinds(app, id) if not kind.startswith("INTENT")]


def transfer(_db: Any, id: str, source: str, target: str, cents: int) -> Flow:
    ((have,),) = yield f"select cents from account where name = '{source}'"
    if have < cents:
        raise ValueError(f"{source} has {have}, not {cents}")
    yield f"update account set cents = cents - {cents} where name = '{source}'"
    yield f"update account set cents = cents + {cents} where name = '{target}'"
    yield f"insert into transfer values ('{id}', null)"
    return int(have) - cents


@places(*HOME, *AWAY)
async def test_rows_and_record_are_there_together(app: App, money: Bank) -> None:
    move = app.transaction(money.source)(money.do(transfer))

    @app.workflow
    async def pay(id: str) -> int:
        first = await move(id, "a0", "a1", 100)
        return first + await move(id + "b", "a0", "a1", 50)

    async with app:
        assert await pay.options(id="w").start("t")
        assert await pay.handle("w").result() == CENTS - 100 + CENTS - 150
        assert await kinds(app, "w") == ["STEP transfer VALUE", "STEP transfer VALUE"]
    assert await money.total() == ACCOUNTS * CENTS
    assert await money.read("select id from transfer order by id") == [("t",), ("tb",)]


@places(*[Where(kind, True, "postgres") for kind in OTHER_WAYS])
async def test_another_way_to_open_a_session_of_the_same_kind(app: App, money: Bank) -> None:
    """Beside the ways of all other tests: a maker's ``begin``, an engine's ``connect``, another driver."""
    move = app.transaction(money.source)(money.do(transfer))

    @app.workflow
    async def pay(id: str, cents: int) -> str:
        try:
            return str(await move(id, "a0", "a1", cents))
        except ValueError as error:
            return str(error)

    @app.workflow
    async def later() -> str:
        return "later"

    async with app:
        assert await pay("t", 100) == str(CENTS - 100)
        assert await pay("no", 10 * CENTS) == f"a0 has {CENTS - 100}, not {10 * CENTS}"
        async with transaction(money) as db:
            handle = await later.options(session=db).start()
        assert await handle.result() == "later"
    assert await money.total() == ACCOUNTS * CENTS
    assert await money.read("select id from transfer order by id") == [("mine",), ("t",)]


@places(*HOME, *AWAY)
async def test_a_failure_rolls_back_and_is_the_outcome(app: App, money: Bank) -> None:
    tries: list[int] = []

    def broken(_db: Any, upto: int) -> Flow:
        tries.append(current().attempt)
        yield "insert into transfer values ('never', null)"
        if len(tries) < upto:
            raise ValueError("not yet")
        return len(tries)

    move = app.transaction(money.source, retry=Retry(3, on=ValueError, delay=0))(money.do(broken))

    @app.workflow
    async def pay() -> str:
        done = await move(3)
        try:
            await move(99)
        except ValueError as error:
            return f"{done} {error}"
        return "?"

    async with app:
        assert await pay.options(id="w").start()
        assert await pay.handle("w").result() == "3 not yet"
        assert await kinds(app, "w") == [
            "ATTEMPT broken ERROR", "ATTEMPT broken ERROR", "STEP broken VALUE",
            "ATTEMPT broken ERROR", "ATTEMPT broken ERROR", "STEP broken ERROR",
        ]  # fmt: skip
    assert tries == [1, 2, 3, 1, 2, 3]
    assert await money.read("select id from transfer") == [("never",)]


@places(*HOME, *AWAY)
async def test_a_result_that_cannot_be_recorded_rolls_back(app: App, money: Bank) -> None:
    def odd(_db: Any) -> Flow:
        yield "insert into transfer values ('odd', null)"
        return threading.Lock()

    move = app.transaction(money.source)(money.do(odd))

    @app.workflow
    async def pay() -> str:
        try:
            await move()
        except Exception as error:
            return type(error).__name__
        return "?"

    async with app:
        assert await pay() == "Unserializable"
    assert await money.read("select id from transfer") == []


@places(*HOME, *AWAY)
async def test_outside_a_workflow_it_is_the_function_in_a_transaction(app: App, money: Bank) -> None:
    move = app.transaction(money.source)(money.do(transfer))
    assert await move("t", "a0", "a1", 100) == CENTS - 100
    with pytest.raises(ValueError, match="a0 has 900"):
        await move("u", "a0", "a1", 1000)
    assert await money.read("select id from transfer") == [("t",)]


@places(*[where for where in (*HOME, *AWAY) if where.kind != "asyncpg_connect"])
async def test_transactions_of_one_run_at_once(app: App, money: Bank) -> None:
    """Each has the run's next record in its turn, and what other branches observe meanwhile waits."""
    move = app.transaction(money.source)(money.do(transfer))

    @app.step
    async def look(n: int) -> int:
        return n

    async def several(n: int) -> int:
        total = 0
        for i in range(4):
            total += await look(i)
        return total + n

    @app.workflow
    async def pay() -> list[int]:
        return await asyncio.gather(
            *(several(n) for n in range(3)), *(move(f"t{n}", f"a{n % ACCOUNTS}", "a0", 10) for n in range(6))
        )

    async with app:
        results = await pay.options(id="w").start()
        found = await results.result()
        assert found[:3] == [6, 7, 8]
        records = await history(app, "w")
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        assert sum(record.name == "transfer" for record in records) == 6
    assert await money.total() == ACCOUNTS * CENTS
    assert len(await money.read("select id from transfer")) == 6


@places(*HOME, *AWAY)
async def test_a_timeout_rolls_back(app: App, money: Bank) -> None:
    gate = threading.Event()
    agate = asyncio.Event()

    def slow(_db: Any) -> Flow:
        yield "insert into transfer values ('slow', null)"
        gate.wait(5)
        return 1

    async def aslow(db: Any) -> int:
        await money.aexecute(db, "insert into transfer values ('slow', null)")
        await agate.wait()
        return 1

    move = app.transaction(money.source, timeout=0.3)(aslow if money.awaited else money.do(slow))

    @app.workflow
    async def pay() -> str:
        try:
            await move()
        except StepTimeout:
            return "too slow"
        return "?"

    async with app:
        task = asyncio.create_task(pay())
        await asyncio.sleep(0.6)  # waits: for the timeout, while the body blocks its thread
        gate.set()
        assert await task == "too slow"
    assert await money.read("select id from transfer") == []


@places(
    *[where for where in HOME if where.kind in ("apsw", "psycopg", "sqlalchemy")],
    *[w for w in AWAY if w.kind in ("sqlite3", "psycopg")],
)
def test_the_sync_face(sync_app: perdure.sync.App, money: Bank) -> None:
    move = sync_app.transaction(money.source)(money.do(transfer))

    @sync_app.workflow
    def pay() -> int:
        return move("t", "a0", "a1", 100)

    with sync_app:
        assert pay.options(id="w").start().result() == CENTS - 100
        assert move("u", "a0", "a1", 100) == CENTS - 200
    assert asyncio.run(money.total()) == ACCOUNTS * CENTS


@places(*[where for where in (*HOME, *AWAY) if where.kind == "asyncpg"])
async def test_a_body_that_cancels_itself_is_rolled_back_and_says_so(app: App, money: Bank) -> None:
    async def odd(db: Any) -> None:
        await money.aexecute(db, "insert into transfer values ('odd', null)")
        raise asyncio.CancelledError("by a library")

    move = app.transaction(money.source)(odd)

    @app.workflow
    async def pay() -> None:
        await move()

    async with app:
        with pytest.raises(StepFailed, match="CancelledError: by a library"):
            await pay()
    assert await money.read("select id from transfer") == []


@places(HOME[-1], AWAY[-1])
async def test_a_wrong_colour_and_a_wrong_source_are_told(app: App, money: Bank) -> None:
    @app.transaction(money.source)  # type: ignore[arg-type]
    async def awaited(db: Any) -> None: ...

    @app.transaction(object)  # type: ignore[arg-type,return-value]
    def nothing(db: Any) -> None: ...

    @app.workflow
    async def pay(which: int) -> None:
        await (awaited() if which else nothing())

    async with app:
        with pytest.raises(Misuse, match="which blocks: write the transaction with def"):
            await pay(1)
        with pytest.raises(Misuse, match="opens no session"):
            await pay(0)


@places(*HOME)
async def test_the_record_is_written_by_the_transaction_itself(app: App, money: Bank) -> None:
    """One commit: at home the journal writes nothing for it but its end."""
    move = app.transaction(money.source)(money.do(transfer))

    @app.workflow
    async def pay() -> int:
        return await move("t", "a0", "a1", 1)

    async with app:
        line = app._home.engine().line  # pyright: ignore[reportPrivateUsage]
        before = line.journal.commits
        await pay()
        assert line.journal.commits - before == 2  # the start, the end
        records = await history(app, (await anext(aiter(app.client.list()))).id)
        assert [(r.kind, r.outcome) for r in records] == [(Kind.STEP, Outcome.VALUE)]


@places(*[where for where in HOME if where.kind in ("asyncpg", "psycopg")])
async def test_a_role_that_may_not_is_told_what_it_needs(app: App, money: Bank) -> None:
    await money.read(
        "create role clerk; grant usage on schema public to clerk; grant all on account, transfer to clerk"
    )

    def put(_db: Any, cents: int) -> Flow:
        yield "set local role clerk"
        yield f"update account set cents = {cents}"

    move = app.transaction(money.source)(money.do(put))

    @app.workflow
    async def pay() -> None:
        await move(1)

    async with app:
        with pytest.raises(Exception, match="permission denied") as raised:
            await pay()
        assert "docs/guide/transactions.md" in raised.value.__notes__[0]
        await money.read(
            "grant usage on schema perdure to clerk; grant select, update on perdure.workflow to clerk; "
            "grant select, insert on perdure.history to clerk"
        )
        await pay()
    await money.read("drop owned by clerk; drop role clerk")


@places(*[where for where in (*HOME, *AWAY) if where.kind in ("apsw", "asyncpg", "sqlite3")])
async def test_a_cancel_waits_for_it(app: App, money: Bank) -> None:
    """As for a step: what it came to is recorded, and the cancel arrives after it."""
    begun, gate = threading.Event(), threading.Event()

    def put(_db: Any) -> Flow:
        yield "insert into transfer values ('put', null)"
        begun.set()
        gate.wait(10)

    async def aput(db: Any) -> None:
        await money.aexecute(db, "insert into transfer values ('put', null)")
        begun.set()
        await until(gate.is_set)

    move = app.transaction(money.source, name="put")(aput if money.awaited else money.do(put))

    @app.workflow
    async def pay() -> None:
        await move()
        await sleep(3600)

    async with app:
        handle = await pay.options(id="w").start()
        await until(begun.is_set)
        cancelling = asyncio.create_task(handle.cancel(reason="enough"))
        await asyncio.sleep(0.1)  # waits: so that the cancel is there first, where the file is not shut by the body
        gate.set()
        assert await cancelling == "cancelled"
        assert (await kinds(app, "w"))[0] == "STEP put VALUE"
    assert await money.read("select id from transfer") == [("put",)]


@places(*[where for where in AWAY if where.kind in ("asyncpg", "sqlite3") and where.app == "sqlite"])
async def test_a_codec_codes_what_is_kept_elsewhere(database: str, money: Bank) -> None:
    def flip(data: bytes) -> bytes:
        return bytes(255 - byte for byte in data)

    app = App("shop", database=database, codec=Codec(encode=flip, decode=flip))
    move = app.transaction(money.source)(money.do(transfer))

    @app.workflow
    async def pay() -> int:
        return await move("t", "a0", "a1", 100)

    async with app:
        assert await pay() == CENTS - 100
    found = await money.read("select data from perdure_transaction where run > 0")
    assert [data.startswith('{"$coded":') for (data,) in found] in ([True], [])  # or it is swept already


@places(*[where for where in HOME if where.kind in ("apsw", "asyncpg")])
async def test_a_router_and_a_fake(money: Bank, where: Where) -> None:
    """A test's fake is called as the transaction is: without a session."""
    router = Router("bank.")
    move = router.transaction(money.source)(money.do(transfer))
    app = App("shop")
    app.include(router)

    @app.workflow
    async def pay() -> int:
        return await move("t", "a0", "a1", 100)

    def fake(_id: str, _source: str, _target: str, cents: int) -> int:
        return cents

    async with harness(app) as h:
        h.replace(move, fake)
        assert await h.run(pay) == 100
    assert move.definition.name == "bank.transfer"
    assert await money.read("select id from transfer") == []


def test_what_cannot_be_one_is_refused_where_it_is_declared() -> None:
    app = App("shop")
    for source, fn, why in (
        (object(), lambda _: None, "give what opens a session"),
        (dict, lambda: None, "takes no argument"),
        (dict, Wrong.method, "is a method"),
    ):
        with pytest.raises(DefinitionError, match=why):
            app.transaction(source)(fn)  # type: ignore[call-overload]


class Wrong:
    def method(self, db: Any) -> None: ...
