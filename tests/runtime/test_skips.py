"""Skipping a step: the body sees the given result, and what the step gives is refused. On both stores."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from perdure import App, Retry
from perdure.errors import LostAnswer, Unserializable, WorkflowNotFound, WorkflowRefused
from perdure.model.states import Reason
from tests.runtime.support import Ledger, executor, history, row, until


async def test_a_step_under_way_is_given_its_result(app: App, ledger: Ledger) -> None:
    inside, leave = asyncio.Event(), asyncio.Event()

    @app.step(name="charge")
    async def charge() -> str:
        ledger.note("charge")
        inside.set()
        await leave.wait()
        return "by the step"

    @app.step(name="ship")
    async def ship(of: str) -> str:
        return f"shipped {of}"

    @app.workflow
    async def order() -> str:
        return await ship(await charge())

    async with app:
        handle = await order.options(id="a").start()
        await inside.wait()
        assert await handle.skip("charge", "ch_42", reason="charged by hand") == "queued"
        assert await handle.result(timeout=15) == "shipped ch_42"
        leave.set()
        [said] = [r for r in await history(app, "a") if r.name == "skip"]
        assert said.shown.endswith(": charged by hand")
        before = await history(app, "a")
        with pytest.raises(WorkflowRefused, match="it is completed; reset it to the step first"):
            await handle.skip("charge", "ch_43")
        assert await handle.skip("charge", "ch_42") == "completed", "it is so already"
        assert await history(app, "a") == before
    assert ledger == ["charge"]


async def test_who_claims_it_again_and_is_not_told_does_not_wait_for_the_step(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its run alone it would seem to be in good hands: under the claim from before, which can write nothing."""
    inside, forever = asyncio.Event(), asyncio.Event()

    @app.step(name="charge")
    async def charge() -> str:
        inside.set()
        await forever.wait()
        return "by the step"

    @app.workflow
    async def order() -> str:
        return await charge()

    async with app:
        store = executor(app).line.store
        claim = store.claim
        lost = 0

        async def unanswered(*given: Any, **kwargs: Any) -> Any:
            nonlocal lost
            claimed = await claim(*given, **kwargs)
            if claimed and not lost:
                lost += 1
                raise LostAnswer("the connection broke")
            return claimed

        monkeypatch.setattr(store, "claim", unanswered)
        handle = await order.options(id="a").start()
        await inside.wait()
        await handle.skip("charge", "ch_42")
        assert await handle.result(timeout=15) == "ch_42"
        assert lost == 1


async def test_a_step_that_fails_and_is_tried_again_is_skipped_between(app: App, ledger: Ledger) -> None:
    @app.step(name="charge", retry=Retry(attempts=9, delay=timedelta(hours=1)))
    async def charge() -> int:
        ledger.note("charge")
        raise ConnectionError("down")

    @app.workflow
    async def order() -> int:
        return await charge() + 1

    async with app:
        handle = await order.options(id="a").start()
        await until(lambda: ledger == ["charge"])

        async def failed() -> bool:
            return len(await history(app, "a")) == 1

        await until(failed)
        assert (await handle.info()).problem == "step_failed"
        executor(app).draining = True  # nobody goes on with it yet
        await handle.skip("charge", 41)
        assert (await handle.info()).problem is None, "it is over with the commit that skips it"
        [over] = await handle.problems()
        assert over.cleared is not None
        executor(app).draining = False
        executor(app).look()
        assert await handle.result(timeout=15) == 42
        outcome = (await history(app, "a"))[-1]
        assert (outcome.kind.name, outcome.attempt) == ("STEP", 2)
    assert ledger == ["charge"]


async def test_a_failed_step_is_reset_to_and_skipped(app: App, ledger: Ledger) -> None:
    @app.step(name="charge")
    async def charge() -> int:
        ledger.note("charge")
        raise ValueError("declined")

    @app.workflow
    async def order() -> int:
        return await charge() + 1

    async with app:
        handle = await order.options(id="a").start()
        with pytest.raises(ValueError, match="declined"):
            await handle.result(timeout=15)
    async with app.connect():  # nobody works, so that it does not run again before it is skipped
        handle = app.client.handle("a")
        await handle.reset("charge")
        await handle.skip("charge", 41)
        assert await handle.skip("charge", 41) == "queued"
    async with app:
        assert await app.client.handle("a").result(timeout=15) == 42
    assert ledger == ["charge"]


async def test_a_poison_step_is_skipped_out_of_its_hold(app: App, ledger: Ledger) -> None:
    inside = asyncio.Event()

    @app.step(name="poison", at_most_once=True)
    async def poison() -> Any:
        inside.set()
        await asyncio.Event().wait()
        return "never"

    @app.workflow
    async def order() -> Any:
        return await poison()

    async with app:
        handle = await order.options(id="a").start()
        await inside.wait()
        execution = app._home.engine().executor.executions["a"]  # type: ignore[union-attr]
        execution.hold(Reason.RECOVERY_LIMIT, "11 deaths")

        async def held() -> bool:
            return (await row(app, "a")).status == "held"

        await until(held)
        assert await handle.skip("poison", {"done": True}) == "queued"
        assert await handle.result(timeout=15) == {"done": True}


async def test_what_cannot_be_skipped(app: App) -> None:
    @app.workflow
    async def order() -> None: ...

    async with app:
        handle = await order.options(id="a", delay=3600).start()
        with pytest.raises(WorkflowRefused, match="no step 'charge' is in flight; there are: none"):
            await handle.skip("charge", 1)
        with pytest.raises(Unserializable):
            await handle.skip("charge", object())
        with pytest.raises(WorkflowNotFound):
            await app.client.handle("nobody").skip("charge", 1)
        assert await handle.terminate(reason="enough") == "terminated"
        assert await handle.terminate(reason="enough") == "terminated", "twice is once"
        assert (await row(app, "a")).detail.startswith("terminated by ")
        done = await order.options(id="b").start()
        await done.result(timeout=15)
        with pytest.raises(WorkflowRefused, match="it has ended: it is completed"):
            await done.terminate()


async def test_only_what_has_ended_is_deleted(app: App) -> None:
    @app.workflow
    async def order() -> None: ...

    async with app:
        handle = await order.options(id="a", delay=3600).start()
        with pytest.raises(WorkflowRefused, match="only what has ended is deleted: perdure workflow terminate a"):
            await handle.delete()
        await handle.terminate()
        await handle.delete()
        for verb in (handle.delete, handle.status, handle.terminate):
            with pytest.raises(WorkflowNotFound):
                await verb()
