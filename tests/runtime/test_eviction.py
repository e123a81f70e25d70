"""Waiting workflows leave memory and wake by themselves: a message, a time, a child's end, another's event."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings

import pytest

import perdure.sync
from perdure import App, Retry, now, recv, set_event, sleep
from perdure.errors import Evicted
from tests.runtime.support import Ledger, history, in_memory, row, until, until_sync

pytestmark = pytest.mark.usefixtures("quick_eviction")


async def gone(app: App, id: str = "a") -> None:
    """The workflow has left memory and waits as a row."""
    await until(lambda: not in_memory(app, id))
    stored = await row(app, id)
    assert (stored.status, stored.owner) == ("waiting", None)


async def test_a_message_wakes(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(n: int) -> None:
        ledger.note(n)

    @app.workflow
    async def body() -> list[str]:
        got = []
        for n in range(3):
            await step(n)
            got.append(await recv("t"))
        return got

    async with app:
        handle = await body.options(id="a").start()
        for n in range(3):
            await gone(app)
            assert (await row(app, "a")).detail == "waits for a message on 't'"
            await handle.send(f"m{n}", "t")
            await until(lambda n=n: past(app, n))
        assert await handle.result() == ["m0", "m1", "m2"]
    assert ledger == ["0", "1", "2"]


async def test_a_call_that_is_awaited_later_goes_without_a_word(app: App) -> None:
    @app.step
    async def step(n: int) -> int:
        return n

    @app.workflow
    async def body() -> list[object]:
        later = step(1)
        return [await recv("t"), await later]

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with app:
            handle = await body.options(id="a").start()
            await gone(app)
            await handle.send("m", "t")
            assert await handle.result() == ["m", 1]
        gc.collect()
    assert [warning for warning in warned if "never awaited" in str(warning.message)] == []


async def past(app: App, n: int) -> bool:
    return [r.kind.name for r in await history(app, "a")].count("RECV") > n


async def test_a_time_wakes_and_not_early(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> str:
        ledger.note(int(now().timestamp() * 1e6))
        await sleep(0.5)
        return "awake"

    async with app:
        handle = await body.options(id="a").start()
        await gone(app)
        stored = await row(app, "a")
        assert stored.until is not None
        assert stored.until - int(ledger[0]) in (499_999, 500_000, 500_001)
        assert await handle.result() == "awake"
        closed = (await row(app, "a")).closed
        assert closed is not None
        assert closed >= stored.until
    assert ledger == [ledger[0]] * 2


async def test_the_end_of_a_child_wakes(app: App) -> None:
    @app.workflow
    async def child() -> str:
        return str(await recv("go"))

    @app.workflow
    async def parent() -> str:
        return await child.options(id="c")()

    async with app:
        handle = await parent.options(id="a").start()
        await gone(app, "c")
        await gone(app, "a")
        await child.handle("c").send("done", "go")
        assert await handle.result() == "done"


async def test_the_end_of_a_stranger_wakes(app: App) -> None:
    @app.workflow
    async def other() -> str:
        return str(await recv("go"))

    @app.workflow
    async def body() -> str:
        return await other.handle("o").result()

    async with app:
        await other.options(id="o").start()
        handle = await body.options(id="a").start()
        await gone(app, "o")
        await gone(app, "a")
        await other.handle("o").send("done", "go")
        assert await handle.result() == "done"


async def test_an_event_of_another_wakes(app: App) -> None:
    @app.workflow
    async def other() -> None:
        await recv("go")
        await set_event("stage", "ready")
        await recv("end")

    @app.workflow
    async def body() -> str:
        return str(await other.handle("o").get_event("stage"))

    async with app:
        await other.options(id="o").start()
        handle = await body.options(id="a").start()
        await gone(app, "o")
        await gone(app, "a")
        await other.handle("o").send(True, "go")
        assert await handle.result(timeout=10) == "ready"


async def test_an_event_that_never_came_answers_none_when_the_other_ends(app: App) -> None:
    @app.workflow
    async def other() -> None:
        await recv("go")

    @app.workflow
    async def body() -> str:
        return str(await other.handle("o").get_event("never"))

    async with app:
        await other.options(id="o").start()
        handle = await body.options(id="a").start()
        await gone(app, "o")
        await gone(app, "a")
        await other.handle("o").send(True, "go")
        assert await handle.result(timeout=10) == "None"


async def test_the_next_attempt_of_a_step_is_waited_for_out_of_memory(app: App, ledger: Ledger) -> None:
    @app.step(retry=Retry(3, delay=0.4, factor=1))
    async def step() -> str:
        ledger.note("tried")
        if len(ledger) < 3:
            raise OSError(f"try {len(ledger)}")
        return "at last"

    @app.workflow
    async def body() -> str:
        return await step()

    async with app:
        handle = await body.options(id="a").start()
        await gone(app)
        assert (await row(app, "a")).detail.startswith("waits for the next attempt of ")
        assert await handle.result() == "at last"
    assert ledger == ["tried"] * 3


async def test_several_waits_at_once(app: App) -> None:
    @app.workflow
    async def body() -> list[str]:
        return [str(x) for x in await asyncio.gather(recv("a"), recv("b", timeout=0.6), asyncio.sleep(0.3, "slept"))]

    async with app:
        handle = await body.options(id="a").start()
        await gone(app)
        await handle.send("from a", "a")
        assert await handle.result() == ["from a", "None", "slept"]


async def test_a_timeout_of_recv_fires_while_evicted(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv("t", timeout=0.4))

    async with app:
        handle = await body.options(id="a").start()
        await gone(app)
        assert await handle.result() == "None"


async def test_unwinding_code_is_refused_without_effect_or_record(app: App, ledger: Ledger) -> None:
    @app.step
    async def step(what: str) -> None:
        ledger.note(what)

    @app.workflow
    async def body() -> str:
        try:
            value = await recv("t")
        except Evicted:
            try:
                await step("in except")
            finally:
                await set_event("e", 1)
            raise
        finally:
            ledger.note("finally")
            if ledger.counts["finally"] == 1:
                await step("in finally")
        return str(value)

    async with app:
        handle = await body.options(id="a").start()
        await gone(app)
        assert ledger == ["finally"]
        assert await history(app, "a") == []
        await handle.send("x", "t")
        assert await handle.result() == "x"
    assert ledger == ["finally", "finally"]


async def test_thousands_of_waiting_workflows_are_rows(app: App) -> None:
    @app.workflow
    async def body(n: int) -> int:
        await recv("go")
        return n

    async with app:
        handles = await body.start_many(range(1000), id=lambda n: f"w{n}")
        await until(lambda: not app._home.engine().executor.executions, 30)
        for handle in handles[::100]:
            await handle.send(True, "go")
        assert [await handle.result() for handle in handles[::100]] == list(range(0, 1000, 100))


# -- sync bodies


def test_a_sync_body_leaves_its_thread_and_wakes(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step
    def step(n: int) -> None:
        ledger.note(n)

    @sync_app.workflow
    def body() -> list[str]:
        step(1)
        first = perdure.sync.recv("t")
        step(2)
        perdure.sync.sleep(0.3)
        return [first]

    with sync_app:
        handle = body.options(id="a").start()
        until_sync(lambda: handle.status() == "waiting")
        until_sync(lambda: not sync_app._home.engine().executor.has("a"))
        handle.send("m", "t")
        assert handle.result(timeout=15) == ["m"]
    assert ledger == ["1", "2"]


def test_unwinding_sync_code_is_refused(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step
    def step(what: str) -> None:
        ledger.note(what)

    @sync_app.workflow
    def body() -> str:
        try:
            value = perdure.sync.recv("t")
        finally:
            ledger.note("finally")
            if ledger.counts["finally"] == 1:
                step("in finally")
        return str(value)

    with sync_app:
        handle = body.options(id="a").start()
        until_sync(lambda: handle.status() == "waiting")
        handle.send("x", "t")
        assert handle.result(timeout=15) == "x"
    assert ledger == ["finally", "finally"]


def test_sync_parents_do_not_starve_their_children(
    database: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads, eight parents that each wait for two children: a wait gives its thread up."""
    monkeypatch.setenv("PERDURE_THREADS", "2")
    monkeypatch.setenv("PERDURE_GRACE", "3600")
    app = perdure.sync.App("shop", database=database)

    @app.step
    def work(x: int) -> int:
        ledger.note(x)
        return x

    @app.workflow
    def child(x: int) -> int:
        return work(x) + 1

    @app.workflow
    def parent(x: int) -> int:
        return child(x) + child(x + 1)

    with app:
        handles = parent.start_many(range(0, 80, 10))
        assert [handle.result(timeout=25) for handle in handles] == [2 * x + 3 for x in range(0, 80, 10)]
    assert sorted(map(int, ledger)) == sorted([*range(0, 80, 10), *range(1, 81, 10)])


def test_waiting_sync_bodies_do_not_hold_threads(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_THREADS", "2")
    monkeypatch.setenv("PERDURE_GRACE", "3600")
    app = perdure.sync.App("shop", database=database)

    @app.workflow
    def waits() -> str:
        return str(perdure.sync.recv("go"))

    @app.workflow
    def quick() -> str:
        return "quick"

    with app:
        waiting = [waits.start() for _ in range(6)]
        assert quick.start().result(timeout=15) == "quick"
        for handle in waiting:
            handle.send("on", "go")
        assert [handle.result(timeout=15) for handle in waiting] == ["on"] * 6
    assert threading.active_count() < 40


async def test_def_steps_of_async_bodies_have_a_pool_of_their_own(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_THREADS", "2")
    app = App("shop", database=database)

    @app.step
    def blocking(x: int) -> int:
        return x * 2

    @app.workflow
    async def body() -> int:
        return sum(await asyncio.gather(*(blocking(x) for x in range(20))))

    async with app:
        assert await body() == 380
