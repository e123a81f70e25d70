"""Starts and messages in the caller's own transaction: they exist if, and only if, that commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import perdure.sync
from perdure import App, Topic, recv
from perdure.errors import Misuse, WorkflowClosed, WorkflowConflict, WorkflowNotFound, WrongFace
from perdure.sessions.find import aopened, opened
from tests.runtime.support import hold_looks
from tests.transactions.banks import Bank
from tests.transactions.conftest import AWAY, HOME, places

pytestmark = pytest.mark.sampled(12)

word = Topic[str]("word")


@asynccontextmanager
async def transaction(money: Bank, *, commit: bool = True) -> AsyncIterator[Any]:
    """The user's own: his session, with something of his own written, committed by him."""
    insert = "insert into transfer values ('mine', null)"
    if money.awaited:
        async with aopened(money.source) as session:
            await session.begin()
            await money.aexecute(session.given, insert)
            yield session.given
            await (session.commit() if commit else session.rollback())
    else:
        with blocking_transaction(money, commit=commit) as given:
            yield given


@contextmanager
def blocking_transaction(money: Bank, *, commit: bool = True) -> Iterator[Any]:
    with opened(money.source) as session:
        session.begin()
        money.execute(session.given, "insert into transfer values ('mine', null)")
        yield session.given
        if commit:
            session.commit()
        else:
            session.rollback()


@places(*HOME)
async def test_a_start_exists_when_the_transaction_has_committed(app: App, money: Bank) -> None:
    @app.workflow
    async def greet(name: str) -> str:
        return f"hello {name}"

    async with app:
        async with transaction(money) as db:
            handle = await greet.options(id="w", session=db).start("you")
            unnamed = await greet.options(session=db).start("me")
            await asyncio.sleep(0.1)  # waits: for an executor that might see what is not committed
            assert [info.id async for info in app.client.list()] == []
        assert await handle.result() == "hello you"
        assert await unnamed.result() == "hello me"
    assert await money.read("select id from transfer") == [("mine",)]


@places(*HOME)
async def test_a_rollback_takes_all_of_it_back(app: App, money: Bank) -> None:
    @app.workflow
    async def greet(name: str) -> str:
        return f"{name} {await recv(word)}"

    async with app:
        there = await greet.options(id="there").start("there")
        async with transaction(money, commit=False) as db:
            await greet.options(id="w", session=db).start("you")
            await there.send("lost", word, session=db)
        with pytest.raises(WorkflowNotFound):
            await greet.handle("w").result()
        await there.send("sent", word)
        assert await there.result() == "there sent"
    assert await money.read("select id from transfer") == []


@places(*HOME)
async def test_what_is_sent_after_the_commit_comes_after_it(
    app: App, money: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is known to this process, and the first not yet: it was committed by the user."""

    @app.workflow
    async def listener() -> list[str]:
        return [await recv(word), await recv(word)]

    async with app:
        handle = await listener.start()
        look = hold_looks(app, monkeypatch)
        async with transaction(money) as db:
            await handle.send("first", word, session=db)
        await handle.send("second", word)
        await asyncio.sleep(0.05)  # waits: for the second, which must not arrive alone
        look.set()
        assert await handle.result() == ["first", "second"]


@places(*HOME)
async def test_messages(app: App, money: Bank) -> None:
    @app.workflow
    async def listener() -> list[str]:
        return [await recv(word), await recv(word), await recv(word, timeout=0.2) or "no more"]

    async with app:
        handle = await listener.options(id="w").start()
        async with transaction(money) as db:
            new = await listener.options(id="new", session=db).start()
            await new.send("one", word, session=db)
            await handle.send("first", word, key="k", session=db)
            await handle.send("again", word, key="k", session=db)
            await handle.send("second", word, session=db)
            with pytest.raises(WorkflowNotFound, match="nobody"):
                await listener.handle("nobody").send("?", word, session=db)
        assert await handle.result() == ["first", "second", "no more"]
        await new.send("two", word)
        assert await new.result() == ["one", "two", "no more"]
        async with transaction(money) as db:
            with pytest.raises(WorkflowClosed):
                await handle.send("late", word, session=db)


@places(*HOME)
async def test_conflicts_are_told_at_the_call(app: App, money: Bank) -> None:
    @app.workflow
    async def greet(name: str) -> str:
        return f"hello {name}"

    async with app:
        assert await greet.options(id="w").start("you") is not None
        async with transaction(money) as db:
            same = await greet.options(id="w", session=db).start("you")
            twice = await greet.options(id="x", session=db).start("one")
            await greet.options(id="x", session=db).start("one")
            for options, name in (
                ({"id": "w"}, "me"),
                ({"id": "w", "on_conflict": "fail"}, "you"),
                ({"id": "x"}, "two"),
            ):
                with pytest.raises(WorkflowConflict):
                    await greet.options(**options, session=db).start(name)  # type: ignore[arg-type]
            with pytest.raises(Misuse, match="on_conflict='replace'"):
                await greet.options(id="w", on_conflict="replace", session=db).start("me")
            with pytest.raises(Misuse, match="would wait for an end"):
                await greet.options(session=db)("you")
        assert await same.result() == "hello you"
        assert await twice.result() == "hello one"


@places(*HOME)
async def test_many_options_and_a_client(app: App, money: Bank, database: str) -> None:
    @app.workflow(name="greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    async with app.connect() as client:
        async with transaction(money) as db:
            handles = await greet.options(session=db, attributes={"of": "many"}).start_many(
                ["a", "b"], id=lambda name: f"m-{name}"
            )
            late = await greet.options(session=db, id="late", delay=3600).start("late")
            foreign = await client.workflow("greet", returns=str).options(session=db, id="f").start("foreign")
        assert await late.status() == "scheduled"
    async with app:
        for handle, name in zip(handles, "ab", strict=True):
            assert await greet.handle(handle.id).result() == f"hello {name}"
        assert await greet.handle(foreign.id).result() == "hello foreign"


@places(*HOME)
async def test_from_a_transaction_step(app: App, money: Bank) -> None:
    """Once, with the step's own commit."""

    @app.workflow
    async def greet(name: str) -> str:
        return f"hello {name}"

    if money.awaited:

        @app.transaction(money.source)
        async def order(db: Any) -> str:
            await money.aexecute(db, "insert into transfer values ('mine', null)")
            return (await greet.options(session=db).start("you")).id
    else:
        # A start is awaited, and this body blocks: it hands the order to the sync face's own words.
        @app.transaction(money.source)
        def order(db: Any) -> str:
            money.execute(db, "insert into transfer values ('mine', null)")
            return asyncio.run(greet.options(session=db).start("you")).id

    @app.workflow
    async def shop() -> str:
        return await greet.handle(await order()).result()

    async with app:
        assert await shop() == "hello you"
    assert await money.read("select id from transfer") == [("mine",)]


@places(*[where for where in HOME if where.kind in ("psycopg", "sqlalchemy", "apsw")])
def test_the_sync_face(sync_app: perdure.sync.App, money: Bank) -> None:
    @sync_app.workflow
    def greet(name: str) -> str:
        return f"hello {name} {perdure.sync.recv(word)}"

    with sync_app:
        with blocking_transaction(money) as db:
            handle = greet.options(id="w", session=db).start("you")
            handle.send("indeed", word, session=db)
        assert handle.result() == "hello you indeed"


@places(HOME[-1], HOME[0])
async def test_session_is_not_for_bodies(app: App, money: Bank) -> None:
    @app.workflow
    async def greet() -> None: ...

    @app.workflow
    async def parent(how: str) -> None:
        db: Any = object()
        if how == "start":
            await greet.options(session=db).start()
        else:
            await greet.handle("x").send(1, session=db)

    async with app:
        for how in ("start", "send"):
            with pytest.raises(Misuse, match="in the body of workflow"):
                await parent(how)
        with pytest.raises(Misuse, match="is no session that Perdure knows"):
            await greet.options(session=object()).start()


@places(*[where for where in AWAY if where.app == "sqlite"])
async def test_another_database_is_refused(app: App, money: Bank) -> None:
    @app.workflow
    async def greet() -> None: ...

    async with app, transaction(money) as db:
        with pytest.raises(Misuse, match="another database"):
            await greet.options(session=db).start()


@places(*[where for where in HOME if where.kind in ("apsw", "asyncpg", "psycopg_autocommit")])
async def test_a_session_in_no_transaction_is_refused(app: App, money: Bank) -> None:
    @app.workflow
    async def greet() -> None: ...

    async with app:
        if money.awaited:
            async with aopened(money.source) as session:
                with pytest.raises(Misuse, match="in no transaction"):
                    await greet.options(session=session.given).start()
        else:
            with opened(money.source) as blocking, pytest.raises(Misuse, match="in no transaction"):
                await greet.options(session=blocking.given).start()


@places(*[where for where in HOME if where.kind == "sqlalchemy_async"])
def test_an_awaited_session_is_not_for_the_sync_face(sync_app: perdure.sync.App, money: Bank) -> None:
    @sync_app.workflow
    def greet() -> None: ...

    with sync_app, pytest.raises(WrongFace):
        greet.options(session=money.source()).start()


@places(*HOME)
async def test_an_executor_hears_of_it_at_once(app: App, money: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Postgres the transaction's commit tells; on SQLite the file does."""

    @app.workflow
    async def greet() -> str:
        return "hello"

    async with app:
        executor = app._home.engine().executor  # pyright: ignore[reportPrivateUsage]
        assert executor is not None
        heard: list[int] = []
        hinted = executor.hinted
        monkeypatch.setattr(executor, "hinted", lambda queues: (heard.append(1), hinted(queues)))
        times = 0
        for _ in range(5):  # in the moment in which the lease is renewed the file tells nothing: the poll finds it
            async with transaction(money) as db:
                handle = await greet.options(session=db).start()
                heard.clear()
            assert await handle.result() == "hello"
            times += bool(heard)
        assert times, "each was found by the poll"
