"""What a queue knows of a start, in the caller's own transaction: deduplication keys, debounce, expiry."""

from __future__ import annotations

import asyncio

import pytest

import perdure.sync
from perdure import App
from perdure.errors import Misuse, WorkflowConflict, WorkflowNotFound, WorkflowTimedOut
from perdure.sessions.find import aopened
from tests.transactions.banks import Bank
from tests.transactions.conftest import HOME, Where, places
from tests.transactions.test_outbox import blocking_transaction, transaction

pytestmark = pytest.mark.sampled(10)

ONE_OF_EACH = [Where("psycopg", True, "postgres"), Where("asyncpg", True, "postgres"), HOME[-1]]


@places(*HOME)
async def test_one_open_workflow_for_each_key(app: App, money: Bank) -> None:
    mail = app.queue("mail")

    @app.workflow(queue=mail)
    async def send_to(name: str) -> str:
        return f"to {name}"

    async with app.connect():
        async with transaction(money) as db:
            first = await send_to.options(dedup="ann", session=db).start("ann")
            same = await send_to.options(dedup="ann", session=db).start("ann again")
            other = await send_to.options(dedup="bob", session=db).start("bob")
            with pytest.raises(WorkflowConflict, match="dedup='ann'"):
                await send_to.options(dedup="ann", on_conflict="fail", session=db).start("ann")
            with pytest.raises(Misuse, match="on_conflict='replace'"):
                await send_to.options(dedup="ann", on_conflict="replace", session=db).start("ann")
        assert same.id == first.id != other.id
        async with transaction(money) as db:
            later = await send_to.options(dedup="ann", session=db).start("ann, later")
        assert (await send_to.options(dedup="ann").start("ann, without")).id == later.id == first.id
    async with app:
        assert await first.result() == "to ann"
        async with transaction(money) as db:
            new = await send_to.options(dedup="ann", session=db).start("ann, once more")
        assert new.id != first.id, "the first one has ended"
        assert await new.result() == "to ann, once more"
        assert await send_to.handle(other.id).result() == "to bob"


@places(*ONE_OF_EACH)
async def test_an_id_that_is_taken_keeps_no_key(app: App, money: Bank) -> None:
    mail = app.queue("mail")

    @app.workflow(queue=mail)
    async def send_to(name: str) -> str:
        return f"to {name}"

    async with app.connect():
        await send_to.options(id="w").start("ann")
        async with transaction(money) as db:
            same = await send_to.options(id="w", dedup="k", session=db).start("ann")
            with pytest.raises(WorkflowConflict, match="'w'"):
                await send_to.options(id="w", dedup="k", session=db).start("bob")
            free = await send_to.options(dedup="k", session=db).start("cid")
        assert (same.id, free.id != "w") == ("w", True)


@places(*ONE_OF_EACH)
async def test_a_rollback_gives_the_key_back(app: App, money: Bank) -> None:
    mail = app.queue("mail")

    @app.workflow(queue=mail)
    async def send_to(name: str) -> str:
        return f"to {name}"

    async with app:
        async with transaction(money, commit=False) as db:
            lost = await send_to.options(dedup="ann", expires=60, session=db).start("nobody")
        with pytest.raises(WorkflowNotFound):
            await send_to.handle(lost.id).result()
        assert await (await send_to.options(dedup="ann").start("ann")).result() == "to ann"


@places(*ONE_OF_EACH)
async def test_debounced(app: App, money: Bank) -> None:
    """The latest input, once, from whichever transaction; not of one that was rolled back."""
    mail = app.queue("mail")

    @app.workflow(queue=mail)
    async def save(text: str) -> str:
        return f"saved {text}"

    late = save.options(dedup="page", debounce=0.4, expires=3600)
    async with app.connect() as client:
        async with transaction(money) as db:
            first = await late.options(session=db).start("a")
            again = await late.options(session=db).start("ab")
        created = [info async for info in client.list()]
        async with transaction(money, commit=False) as db:
            await late.options(session=db).start("never")
        async with transaction(money) as db:
            third = await late.options(session=db).start("abc")
        assert first.id == again.id == third.id
        assert [info.id for info in created] == [first.id]
        assert await first.status() == "scheduled"
    async with app:
        assert await first.result() == "saved abc"
        async with transaction(money) as db:
            new = await late.options(session=db, debounce=0.01).start("z")
        assert new.id != first.id, "one that has begun is left alone"
        assert await new.result() == "saved z"


@places(*ONE_OF_EACH)
async def test_debounced_under_an_id_of_ones_own(app: App, money: Bank) -> None:
    @app.workflow(queue=app.queue("mail"))
    async def save(text: str) -> str:
        return f"saved {text}"

    @app.workflow(queue="mail")
    async def send(text: str) -> str:
        return f"sent {text}"

    late = save.options(id="page", dedup="page", debounce=0.4)
    async with app.connect():
        async with transaction(money) as db:
            first = await late.options(session=db).start("a")
            assert (await late.options(session=db).start("ab")).id == first.id == "page"
        async with transaction(money, commit=False) as db:
            with pytest.raises(WorkflowConflict, match=r"'page', a .*save .* and this call is one of .*send"):
                await send.options(dedup="page", debounce=1, session=db).start("x")
            with pytest.raises(WorkflowConflict, match="'page' is taken"):
                await late.options(dedup="another", session=db).start("b")
    async with app:
        assert await first.result() == "saved ab"


@places(*ONE_OF_EACH)
async def test_what_stands_in_line_for_too_long_expires(app: App, money: Bank) -> None:
    mail = app.queue("mail", concurrency=1)
    release = asyncio.Event()

    @app.workflow(queue=mail)
    async def send_to(name: str) -> str:
        await wait(name)
        return f"to {name}"

    @app.step
    async def wait(name: str) -> None:
        if name == "first":
            await release.wait()

    async with app:
        first = await send_to.start("first")
        async with transaction(money) as db:
            late = await send_to.options(expires=0.2, session=db).start("late")
            keyed = await send_to.options(expires=0.2, dedup="k", session=db).start("late, too")
            patient = await send_to.options(expires=3600, session=db).start("patient")
        for handle in (late, keyed):
            with pytest.raises(WorkflowTimedOut):
                await handle.result()
        release.set()
        assert await first.result() == "to first"
        assert await patient.result() == "to patient"


@places(Where("asyncpg", True, "postgres"))
async def test_who_wants_the_key_meanwhile_waits_for_the_commit(app: App, money: Bank) -> None:
    mail = app.queue("mail")

    @app.workflow(queue=mail)
    async def send_to(name: str) -> str:
        return f"to {name}"

    async with app.connect():
        for commit in (True, False):
            key = f"key {commit}"
            async with aopened(money.source) as session:
                await session.begin()
                mine = await send_to.options(dedup=key, session=session.given).start("mine")
                theirs = asyncio.create_task(send_to.options(dedup=key).start("theirs"))
                async with aopened(money.source) as looks:
                    while not await looks.execute("select 1 from pg_locks where not granted", ()):
                        assert not theirs.done()
                await (session.commit() if commit else session.rollback())
            assert ((await theirs).id == mine.id) is commit


@places(HOME[-1], Where("psycopg", True, "postgres"))
async def test_the_sync_face(sync_app: perdure.sync.App, money: Bank) -> None:
    mail = sync_app.queue("mail")

    @sync_app.workflow(queue=mail)
    def send_to(name: str) -> str:
        return f"to {name}"

    def all_of_it() -> None:
        with sync_app:
            with blocking_transaction(money) as db:
                one = send_to.options(dedup="ann", expires=60, session=db).start("ann")
                two = send_to.options(dedup="ann", session=db).start("ann")
            assert one.id == two.id
            assert one.result() == "to ann"

    await asyncio.to_thread(all_of_it)
