"""What the mark of a cut settles: intents, steps that may run once at most, children, a command to cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from perdure import App, Retry, current, recv
from perdure.errors import StepOutcomeUnknown, WorkflowCancelled
from perdure.model.cuts import rewind
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.records import Intent, Kind, Record
from perdure.model.states import Reason, Status
from tests.runtime.moving import at_rest, go, held, run_of, store_of
from tests.runtime.support import Ledger, executor, history, row, until


async def cut(app: Any, id: str, keep: int, **more: Any) -> None:
    """Rewind the latest run to its first ``keep`` records, from outside."""
    store = store_of(app)
    seen, records = await row(app, id), await history(app, id)
    input = (await store.inputs([seen.key]))[seen.key]
    change = rewind(seen, records, input, keep, TokenMaker(), at=seen.updated, by="tests", **more)
    assert await store.rewind(seen, change)
    executor(app).look()


def build(database: str, ledger: Ledger, body: Callable[[dict[str, Any]], Any]) -> tuple[App, Any]:
    """An app whose workflow "order" has this body."""
    app = App("shop", database=database)
    steps: dict[str, Any] = {}
    for name in ("reserve", "charge", "pay"):

        @app.step(name=name)
        async def step(_name: str = name) -> str:
            ledger.note(f"{_name} {current().idempotency_key}")
            return _name

        steps[name] = step

    @app.workflow(name="order")
    async def order() -> Any:
        return await body(steps)

    return app, order


async def test_other_code_may_go_on_from_before_a_step_that_was_about_to_run(database: str, ledger: Ledger) -> None:
    """The intent of the step that was bad stands in the last kept record."""

    async def bad(s: dict[str, Any]) -> list[str]:
        return [await s["reserve"](), await s["charge"](), await recv(go)]

    async def mended(s: dict[str, Any]) -> list[str]:
        return [await s["reserve"](), await s["pay"]()]

    app, order = build(database, ledger, bad)
    async with app:
        await order.options(id="a").start()
        await until(lambda: len(ledger) == 2)
        await at_rest(app, "a")
        assert (await history(app, "a"))[0].intents[0].name == "charge"
        executor(app).draining = True  # other code goes on
        await cut(app, "a", 1)
    app, order = build(database, ledger, mended)
    async with app:
        assert await order.handle("a").result(timeout=15) == ["reserve", "pay"]
    assert [line.split()[0] for line in ledger] == ["reserve", "charge", "pay"]


async def test_a_failed_attempt_that_was_kept_is_of_the_call_that_made_it(database: str, ledger: Ledger) -> None:
    """Other code at its place is held: it would go on with the attempts, and the errors, of another step."""

    def built(step: str) -> tuple[App, Any]:
        app = App("shop", database=database, version="v1")

        @app.step(name=step, retry=Retry(attempts=3, delay=3600))
        async def pay() -> str:
            ledger.note(step)
            raise ConnectionError("down")

        @app.workflow(name="order")
        async def order() -> str:
            return await pay()

        return app, order

    async def kept() -> bool:
        return [r.kind for r in await history(app, "a")] == [Kind.ATTEMPT]

    app, order = built("charge")
    async with app:
        await order.options(id="a").start()
        await until(kept)
        executor(app).draining = True  # other code goes on
        await cut(app, "a", 1)
    app, order = built("pay")
    async with app:
        await until(lambda: held(app, "a"))
        found = await row(app, "a")
        assert found.reason == Reason.NONDETERMINISM
        assert "at 1: history has attempt charge at 1; the code has waits for step pay at 1" in found.detail
    assert ledger == ["charge"]


async def test_a_step_that_is_run_again_has_the_same_idempotency_key(database: str, ledger: Ledger) -> None:
    async def body(s: dict[str, Any]) -> list[str]:
        return [await s["reserve"](), await s["charge"]()]

    app, order = build(database, ledger, body)
    async with app:
        handle = await order.options(id="a").start()
        await handle.result(timeout=15)
        for keep in (1, 0):
            await cut(app, "a", keep)
            await until(lambda: finished(app, "a"))
        assert (await row(app, "a")).run == 3
        _, records = await run_of(app, "a", 3)
        assert [r.kind for r in records] == [Kind.CUT, Kind.INTENT, Kind.STEP, Kind.STEP]
    assert [line.split()[0] for line in ledger] == ["reserve", "charge", "charge", "reserve", "charge"]
    assert len(set(ledger)) == 2


async def finished(app: Any, id: str) -> bool:
    return (await row(app, id)).status is Status.COMPLETED


async def test_a_step_that_may_run_once_at_most_is_not_run_again_by_a_rewind(app: App, ledger: Ledger) -> None:
    @app.step(at_most_once=True)
    async def wire() -> str:
        ledger.note("wire")
        return "wired"

    @app.workflow
    async def body() -> str:
        try:
            return await wire()
        except StepOutcomeUnknown:
            return "nobody knows"

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result(timeout=15) == "wired"
        await cut(app, "a", 0)
        assert await body.handle("a").result(timeout=15) == "nobody knows"
        await cut(app, "a", 0)  # nor by the next one
        await until(lambda: finished(app, "a"))
        assert await body.handle("a").result(timeout=15) == "nobody knows"
    assert ledger == ["wire"]


async def test_a_child_of_the_part_cut_off_that_is_another_call_now_holds_the_run(app: App, ledger: Ledger) -> None:
    what = ["one"]

    @app.workflow(name="child")
    async def child(x: str) -> str:
        ledger.note(x)
        return x

    @app.workflow(name="parent")
    async def parent() -> str:
        await recv(go)
        return await child(what[0])

    async with app:
        handle = await parent.options(id="p").start()
        await handle.send("on", go)
        assert await handle.result(timeout=15) == "one"
        what[0] = "two"
        await cut(app, "p", 0)
        await until(lambda: held(app, "p"))
        found = await row(app, "p")
        assert found.reason is Reason.NONDETERMINISM
        assert "the code starts child as 'p:2', which is child with another input" in found.detail
        assert "perdure workflow fork p" in found.detail


async def test_a_cancel_that_is_cut_off_is_given_to_the_next_run(app: App, ledger: Ledger) -> None:
    leave = asyncio.Event()

    @app.step(name="undo")
    async def undo() -> None:
        ledger.note("undo")
        await leave.wait()

    @app.workflow
    async def body() -> None:
        try:
            await recv(go)
        except asyncio.CancelledError:
            await undo()
            raise

    async with app:
        handle = await body.options(id="a").start()
        await at_rest(app, "a")
        cancelling = asyncio.create_task(handle.cancel(reason="enough"))
        await until(lambda: ledger == ["undo"])
        await cut(app, "a", 0)
        leave.set()
        assert await cancelling == "cancelled"
        with pytest.raises(WorkflowCancelled, match="enough"):
            await body.handle("a").result()
        assert (await row(app, "a")).run == 2
    assert ledger == ["undo", "undo"]


async def test_more_cannot_be_kept_than_there_is(app: App) -> None:
    @app.workflow
    async def body() -> None: ...

    async with app:
        handle = await body.options(id="a").start()
        await handle.result(timeout=15)
        with pytest.raises(ValueError, match="run 1 of a has 0 records, 1 cannot be kept"):
            await cut(app, "a", 1)


async def test_a_rewind_under_another_lineage_has_begun_nothing(app: App) -> None:
    @app.workflow
    async def body() -> None: ...

    async with app:
        handle = await body.options(id="a").start()
        await handle.result(timeout=15)
        seen = await row(app, "a")
        records = [Record(1, "1", Kind.STEP, "s", 1, intents=(Intent("2", "t", b""),))]
        kept = rewind(seen, records, b"[]", 0, TokenMaker(), at=1, by="t")
        assert [intent.path for intent in kept.mark.intents] == ["2"]
        assert kept.next.lineage == seen.lineage
        anew = rewind(seen, records, b"[]", 0, TokenMaker(), at=1, by="t", lineage=b"n" * 16)
        assert (anew.mark.intents, anew.next.lineage, anew.next.run) == ((), b"n" * 16, 2)
        assert RunKey(anew.next.id, anew.next.run) == RunKey("a", 2)
