"""What a workflow declares holds for who starts it without its code: whoever claims it first puts it in line."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from perdure import App, Client, recv
from perdure.errors import DatabaseTrouble
from tests.runtime.support import crash, executor, row, until
from tests.runtime.test_queues import Gate, every, gated


async def test_the_limit_of_a_declared_queue_is_kept_for_who_starts_without_the_code(app: App, database: str) -> None:
    gate = Gate()
    gated(app, gate, queue=app.queue("q", concurrency=2))
    async with app, Client(database, app="shop") as client:
        work = client.workflow("work", returns=str)
        handles = [await work.options(id=f"w-{n}").start(str(n)) for n in range(6)]
        await until(lambda: len(gate.inside) == 2)

        async def lined_up() -> bool:
            [info] = await client.queues()
            return (info.in_line, info.in_progress) == (4, 2)

        await until(lined_up)
        gate.open()
        assert await every(handles) == [str(n) for n in range(6)]
        rows = [await row(app, handle.id) for handle in handles]
    assert gate.most == 2
    assert {r.queue for r in rows} == {"q"}


async def test_they_keep_their_order_and_their_priorities(app: App, database: str) -> None:
    gate = Gate()
    gated(app, gate, queue=app.queue("q", concurrency=1))
    async with Client(database, app="shop") as client:
        work = client.workflow("work", returns=str)
        ids = ["c", "b", "a"]  # another order than that of the ids
        handles = [await work.options(id=id).start(id) for id in ids]
        handles.append(await work.options(priority=-1).start("urgent"))
        gate.open()
        async with app:
            await every(handles)
    assert gate.order == ["urgent", "c", "b", "a"]
    assert gate.most == 1


async def test_in_line_it_is_as_if_it_had_been_started_so(app: App, database: str) -> None:
    gate = Gate()
    gated(app, gate, queue=app.queue("q"), versioning="pinned")
    async with app, Client(database, app="shop") as client:
        await client.pause_queue("q")
        work = client.workflow("work", returns=str)
        free = await work.options(timeout=60).start("any version")
        bound = await work.options(version=executor(app).version).start("this version")

        async def lined_up() -> bool:
            return [i.in_line for i in await client.queues()] == [2]

        await until(lined_up)
        one, other = await row(app, free.id), await row(app, bound.id)
        assert (one.version, one.started, one.deadline, one.claim, one.owner) == ("", None, None, None, None)
        assert (other.version, str(one.versioning)) == (executor(app).version, "pinned")
        gate.open()
        await client.resume_queue("q")
        assert await every([free, bound]) == ["any version", "this version"]
        ended = await row(app, free.id)
    assert ended.started is not None
    assert ended.deadline == ended.started + 60_000_000, "its time began when it was let through"


async def test_a_queue_that_was_asked_for_stays(app: App, database: str) -> None:
    gate = Gate()
    gate.open()
    gated(app, gate, queue=app.queue("q"))
    app.queue("another")
    async with app, Client(database, app="shop") as client:
        handle = await client.workflow("work", returns=str).options(queue="another").start("x")
        await handle.result()
        assert (await row(app, handle.id)).queue == "another"


async def test_what_a_person_took_out_of_the_line_is_not_put_back(app: App, database: str) -> None:
    gate = Gate()
    gated(app, gate, queue=app.queue("q", concurrency=1))
    async with app, Client(database, app="shop") as client:
        await client.pause_queue("q")
        handle = await client.workflow("work", returns=str).start("x")

        async def in_line() -> bool:
            return (await row(app, handle.id)).lane is not None

        await until(in_line)
        await handle.resume()
        gate.open()
        await handle.result()
        assert (await row(app, handle.id)).queue is None


async def test_what_goes_on_outside_its_queue_does_so_in_its_next_run(app: App, database: str) -> None:
    @app.workflow(name="work", queue=app.queue("q"))
    async def work(n: int) -> str:
        if n:
            await work.continue_as_new(n - 1)
        return str(await recv(timeout=60))

    async with app, Client(database, app="shop") as client:
        await client.pause_queue("q")
        handle = await client.workflow("work", returns=str).options(id="w").start(1)

        async def in_line() -> bool:
            return (await row(app, "w")).lane is not None

        await until(in_line)
        await handle.resume()

        async def second() -> bool:
            return (await row(app, "w")).run == 2

        await until(second)
        await crash(app)
        async with app:
            await client.handle("w").send("go on")
            assert await client.handle("w").result() == "go on"
            assert (await row(app, "w")).queue is None


async def test_what_replaces_another_run_stands_in_line_too(app: App, database: str) -> None:
    gate = Gate()
    gate.open()
    gated(app, gate, queue=app.queue("q"))
    async with app, Client(database, app="shop") as client:
        work = client.workflow("work", returns=str)
        await (await work.options(id="w").start("first")).result()
        await client.pause_queue("q")
        again = await work.options(id="w", on_conflict="replace").start("second")

        async def in_line() -> bool:
            found = await row(app, "w")
            return found.run == 2 and found.lane is not None

        await until(in_line)
        await client.resume_queue("q")
        assert await again.result() == "second"


@pytest.mark.parametrize("durable", [True, False])
async def test_a_crash_before_it_is_lined_up_lines_it_up_all_the_same(
    app: App, database: str, durable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the line-up was durable and its answer was lost."""
    gate = Gate()
    gate.open()
    gated(app, gate, queue=app.queue("q", concurrency=1))
    struck: list[Any] = []
    async with Client(database, app="shop") as client:
        await app.open()
        store = executor(app).line.store
        original = store.line_up_declared

        async def strike(*args: Any, **more: Any) -> Any:
            struck.append(args)
            if durable:
                await original(*args, **more)
            raise DatabaseTrouble("struck")

        monkeypatch.setattr(store, "line_up_declared", strike, raising=False)
        handle = await client.workflow("work", returns=str).start("x")
        await until(lambda: struck)
        monkeypatch.undo()
        await crash(app)
        async with app:
            assert await handle.result() == "x"
            assert (await row(app, handle.id)).queue == "q"


async def test_a_timeout_is_shown_of_who_was_started_without_the_code(app: App, database: str) -> None:
    gate = Gate()
    gated(app, gate, timeout=60)
    async with app, Client(database, app="shop") as client:
        handle = await client.workflow("work", returns=str).start("x")
        await until(lambda: timed(app, handle.id))
        info = await handle.info()
        assert info.started is not None
        assert info.deadline == info.started + timedelta(seconds=60)
        gate.open()
        assert await handle.result() == "x"


async def test_whoever_claims_it_next_notes_its_timeout_if_the_first_could_not(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    gated(app, gate, timeout=60)
    struck: list[Any] = []
    async with Client(database, app="shop") as client:
        await app.open()

        async def strike(*args: Any) -> Any:
            struck.append(args)
            raise DatabaseTrouble("struck")

        monkeypatch.setattr(executor(app).line.store, "declare", strike, raising=False)
        handle = await client.workflow("work", returns=str).start("x")
        await until(lambda: struck)
        assert executor(app).executions[handle.id].row.deadline is not None, "it holds all the same"
        assert (await row(app, handle.id)).deadline is None
        await crash(app)
        monkeypatch.undo()
        async with app:
            await until(lambda: timed(app, handle.id))
            gate.open()
            assert await handle.result() == "x"
            assert (await row(app, handle.id)).timeout == 60_000_000


async def test_trouble_as_its_timeout_is_noted_is_waited_out(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    gated(app, gate, timeout=60)
    tries: list[Any] = []
    async with app, Client(database, app="shop") as client:
        store = executor(app).line.store
        original = store.declare

        async def strike(*args: Any) -> Any:
            tries.append(args)
            if len(tries) < 3:
                raise DatabaseTrouble("struck")
            return await original(*args)

        monkeypatch.setattr(store, "declare", strike, raising=False)
        handle = await client.workflow("work", returns=str).start("x")
        await until(lambda: timed(app, handle.id))
        gate.open()
        assert await handle.result() == "x"
    assert len(tries) == 3


async def timed(app: App, id: str) -> bool:
    return (await row(app, id)).deadline is not None


async def test_limits_are_those_of_the_current_version(database: str) -> None:
    def deploy(version: str, concurrency: int) -> App:
        app = App("shop", database=database, version=version, executor_id=version)
        app.queue("q", concurrency=concurrency)
        return app

    async def limits(app: App) -> dict[str, int | None]:
        return {info.name: info.concurrency for info in await app.client.queues()}

    async with deploy("v1", 1) as app:
        assert await limits(app) == {"q": 1}
    async with deploy("v2", 2) as app:
        assert await limits(app) == {"q": 2}
        old = deploy("v1", 1)
        old.queue("own", concurrency=5)
        async with old:
            assert await limits(app) == {"q": 2, "own": 5}, "one that is new has the limits of whoever brings it"
            await app.client.deployment.set_current_version("v1")
            await executor(old)._round()
            assert await limits(app) == {"q": 1, "own": 5}
