"""Starting: handles, ids, what a taken id means, many at once, later, and waiting for results."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import App, Handle, current, recv
from perdure.errors import DatabaseTrouble, ResultTimeout, WorkflowConflict, WorkflowNotFound
from perdure.model.writes import Receipt, Unit, size_of
from tests.runtime.support import Ledger, row, status, until


async def test_a_start_is_durable_when_it_returns_and_the_handle_waits(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body(a: str, b: str = "!") -> str:
        ledger.note(current().id)
        return a + b + str(await recv("go"))

    async with app:
        handle = await body.options(id="very-unique").start("one", b="two")
        assert isinstance(handle, Handle)
        assert handle.id == "very-unique"
        stored = await row(app, "very-unique")
        assert (stored.status, stored.run, stored.name) == ("running", 1, body.name)
        await handle.send("three", "go")
        assert await handle.result() == "onetwothree"
        assert await body.handle("very-unique").result() == "onetwothree"
    assert ledger == ["very-unique"]


async def test_without_an_id_it_gets_one_of_its_own(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return current().id

    async with app:
        handles = [await body.start() for _ in range(3)]
        ids = [await handle.result() for handle in handles]
        assert ids == [handle.id for handle in handles]
        assert len(set(ids)) == 3
        assert sorted(ids) == ids  # time-ordered


async def test_the_same_call_with_the_same_id_attaches(app: App, ledger: Ledger) -> None:
    @app.step
    async def effect(x: int) -> int:
        ledger.note("ran")
        return x + 1

    @app.workflow
    async def body(x: int) -> int:
        done = await effect(x)
        await recv("go")
        return done

    once = body.options(id="a")
    async with app:
        first = await once.start(1)
        second = await once.start(x=1)  # the same call in other words
        waiting = asyncio.create_task(once(1))
        await first.send(True, "go")
        assert [await first.result(), await second.result(), await waiting] == [2, 2, 2]
        assert await once(1) == 2  # closed: its stored outcome
    async with app:
        assert await once(1) == 2
    assert ledger == ["ran"]


async def test_two_starts_at_once_are_one(app: App, ledger: Ledger) -> None:
    @app.step
    async def effect() -> None:
        ledger.note("ran")

    @app.workflow
    async def body() -> str:
        await effect()
        return "ok"

    async with app:
        assert await asyncio.gather(*(body.options(id="a")() for _ in range(10))) == ["ok"] * 10
    assert ledger == ["ran"]


@pytest.mark.parametrize("open_still", [True, False])
async def test_another_input_is_a_conflict_with_both_shown(app: App, open_still: bool) -> None:
    @app.workflow(name="checkout")
    async def body(order: str, cents: int) -> None:
        if open_still:
            await recv()

    async with app:
        await body.options(id="a").start("42", 1999)
        if not open_still:
            await body.handle("a").result()
        with pytest.raises(WorkflowConflict) as caught:
            await body.options(id="a").start("42", 2500)
    assert str(caught.value).startswith(
        'workflow id \'a\' is taken by checkout["42",1999]; this call is checkout["42",2500]. One id is one call'
    )


async def test_a_conflict_shows_what_was_given_by_name_as_a_call(app: App) -> None:
    @app.workflow(name="checkout")
    async def checkout(order: str, *, cents: int, express: bool = False) -> None: ...

    async with app:
        await checkout.options(id="a")("42", cents=1999)
        with pytest.raises(WorkflowConflict) as caught:
            await checkout.options(id="a").start("42", cents=1999, express=True)
    assert str(caught.value).startswith(
        "workflow id 'a' is taken by checkout(\"42\", cents=1999); "
        'this call is checkout("42", cents=1999, express=true). '
    )


async def test_a_conflict_with_a_chain_of_runs_shows_what_it_was_started_with(app: App) -> None:
    @app.workflow(name="countdown")
    async def countdown(n: int) -> int:
        if n > 0:
            countdown.continue_as_new(n - 1)
        return n

    async with app:
        assert await countdown.options(id="a")(3) == 0
        with pytest.raises(WorkflowConflict, match=r"is taken by countdown\[3\]; this call is countdown\[7\]"):
            await countdown.options(id="a").start(7)


async def test_another_name_is_a_conflict_with_both_shown(app: App) -> None:
    @app.workflow(name="checkout")
    async def checkout(x: int) -> None: ...

    @app.workflow(name="refund")
    async def refund(x: int) -> None: ...

    async with app:
        await checkout.options(id="a")(1)
        with pytest.raises(WorkflowConflict, match=r"is taken by checkout\[1\]; this call is refund\[1\]"):
            await refund.options(id="a").start(1)


async def test_on_conflict_fail(app: App) -> None:
    @app.workflow(name="checkout")
    async def body(x: int) -> int:
        return x

    async with app:
        assert await body.options(id="a", on_conflict="fail")(1) == 1
        with pytest.raises(WorkflowConflict, match=r"'a' exists already \(checkout, completed\); on_conflict='fail'"):
            await body.options(id="a", on_conflict="fail")(1)


async def test_on_conflict_replace_of_a_closed_one_begins_the_next_run(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body(x: int) -> str:
        return f"run {current().run} with {x}"

    async with app:
        again = body.options(id="a", on_conflict="replace")
        assert await again(1) == "run 1 with 1"
        assert await again(2) == "run 2 with 2"
        handle = await again.start(3)
        assert await handle.result() == "run 3 with 3"
        assert (await handle.info()).run == 3


async def test_on_conflict_replace_of_an_open_one_cancels_it_first(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body(x: int) -> str:
        try:
            if x == 1:
                await recv()
        except asyncio.CancelledError:
            ledger.note("cancelled")
            raise
        return f"run {current().run} with {x}"

    async with app:
        await body.options(id="a").start(1)
        assert await body.options(id="a", on_conflict="replace")(2) == "run 2 with 2"
    assert ledger == ["cancelled"]


# -- many


async def test_start_many_starts_one_for_each_item(app: App) -> None:
    @app.workflow
    async def double(x: int) -> int:
        return 2 * x

    async with app:
        handles = await double.start_many(range(50), id=lambda x: f"double-{x}")
        assert [handle.id for handle in handles] == [f"double-{x}" for x in range(50)]
        assert [await handle.result() for handle in handles] == [2 * x for x in range(50)]
        assert await double.start_many([]) == []
        again = await double.start_many(range(50), id=lambda x: f"double-{x}")  # attaches
        assert [await handle.result() for handle in again] == [2 * x for x in range(50)]
        assert len([info async for info in app.client.list()]) == 50


async def test_start_many_from_a_connected_caller_is_one_commit(app: App, database: str) -> None:
    @app.workflow(name="double")
    async def double(x: int) -> int:
        return 2 * x

    async with app.connect():
        journal = app._home.engine().line.journal
        before = journal.commits
        handles = await double.start_many(range(100))
        assert journal.commits == before + 1
        assert {str(await handle.status()) for handle in handles} == {"queued"}
    async with app:
        assert [await handle.result() for handle in handles] == [2 * x for x in range(100)]


@pytest.mark.parametrize("large", ["input", "attributes"])
async def test_start_many_of_large_starts_is_many_commits(
    app: App, monkeypatch: pytest.MonkeyPatch, large: str
) -> None:
    """A message to the database has a greatest length, and memory an end."""

    @app.workflow
    async def length(x: str) -> int:
        return len(x)

    text = "x" * 1_500_000
    async with app.connect():
        store: Any = app._home.engine().line.store
        commit, sizes = store.commit, list[int]()

        async def weighed(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
            sizes.append(sum(map(size_of, batch)))
            receipt: Receipt = await commit(batch, now=now)
            return receipt

        monkeypatch.setattr(store, "commit", weighed)
        if large == "input":
            handles = await length.start_many([text] * 8)
        else:
            handles = await length.options(attributes={"text": text}).start_many(["x"] * 8)
    assert len(handles) == 8
    assert len(sizes) == 3
    assert max(sizes) < 5_000_000


async def test_start_many_with_a_conflict_says_so(app: App) -> None:
    @app.workflow
    async def double(x: int) -> int:
        return 2 * x

    async with app:
        await double.options(id="d-1").start(7)
        with pytest.raises(WorkflowConflict, match="'d-1' is taken"):
            await double.start_many([0, 1, 2], id=lambda x: f"d-{x}")


async def test_an_id_twice_in_one_start_many_is_one_start_and_told_if_it_is_not_the_same(app: App) -> None:
    """From a connected caller, too, which writes them in one unit."""

    @app.workflow
    async def double(x: int) -> int:
        return 2 * x

    async with app.connect():
        same = await double.start_many([1, 2, 1], id=str)
        assert [handle.id for handle in same] == ["1", "2", "1"]
        assert len([info async for info in app.client.list()]) == 2
        with pytest.raises(WorkflowConflict, match="'a' is taken"):
            await double.start_many([1, 2], id=lambda _: "a")
        with pytest.raises(WorkflowConflict, match="'b' exists already"):
            await double.options(on_conflict="fail").start_many([1, 1], id=lambda _: "b")


# -- later


async def test_a_delayed_start_waits_as_scheduled(app: App, ledger: Ledger) -> None:
    @app.workflow
    async def body() -> datetime:
        return datetime.now(UTC)

    async with app:
        before = datetime.now(UTC)
        handle = await body.options(id="a", delay=0.3).start()
        info = await handle.info()
        assert info.status == "scheduled"
        assert info.until is not None
        assert timedelta(seconds=0.25) < info.until - before < timedelta(seconds=1.5)
        assert (await handle.result()) >= info.until - timedelta(milliseconds=5)


async def test_a_start_at_an_aware_datetime(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return "ok"

    async with app:
        when = datetime.now(UTC) + timedelta(seconds=0.3)
        handle = await body.options(delay=when).start()
        info = await handle.info()
        assert (info.status, info.until) == ("scheduled", when)
        assert await handle.result() == "ok"


async def test_a_delayed_start_survives_a_restart(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return "ok"

    async with app:
        await body.options(id="a", delay=0.3).start()
    async with app:
        assert await body.handle("a").result() == "ok"


# -- waiting


async def test_result_with_a_timeout_that_runs_out(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(ResultTimeout, match=r"workflow a did not end within 0\.05 s; it goes on"):
            await handle.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            await handle.result(timeout=timedelta(milliseconds=1))
        await handle.send("later")
        assert await handle.result(timeout=10) == "later"


async def test_a_timeout_holds_while_the_database_is_away(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app.connect():
        handle = await body.options(id="a").start()
        line, reachable = app._home.engine().line, asyncio.Event()

        def away(read: Any) -> Any:
            async def asked(*args: Any, **named: Any) -> Any:
                if not reachable.is_set():
                    raise DatabaseTrouble("nobody there")
                return await read(*args, **named)

            return asked

        for name in ("fates", "rows", "events"):
            monkeypatch.setattr(line.store, name, away(getattr(line.store, name)))
        with pytest.raises(ResultTimeout, match="a: the database could not be asked in time: nobody there"):
            await handle.result(timeout=0.05)
        assert await handle.get_event("e", timeout=0.05) is None
        waiting = asyncio.create_task(handle.status())  # without a time it waits for the database
        await until(lambda: line.waiting_out)
        reachable.set()
        assert await waiting == "queued"


async def test_cancelling_who_waits_does_not_cancel_the_workflow(app: App) -> None:
    @app.workflow
    async def body() -> str:
        return str(await recv())

    async with app:
        waiting = asyncio.create_task(body.options(id="a")())
        await until(lambda: app._home.engine().executor.has("a"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: app._home.engine().executor.has("a"))
        await body.handle("a").send("on")
        assert await body.handle("a").result() == "on"


async def test_unknown_ids_are_an_error_that_says_where_to_look(app: App) -> None:
    @app.workflow
    async def body() -> None: ...

    async with app:
        handle = body.handle("nobody")
        for call in (handle.result, handle.status, handle.info, handle.cancel, lambda: handle.get_event("e")):
            with pytest.raises(
                WorkflowNotFound, match="app 'shop' has no workflow 'nobody'; see: perdure workflow list"
            ):
                await call()


async def test_a_list_is_newest_first_and_filtered(app: App) -> None:
    @app.workflow(name="good")
    async def good() -> None: ...

    @app.workflow(name="bad")
    async def bad() -> None:
        raise ValueError("no")

    async with app:
        for id in "abc":
            await good.options(id=id)()
        handle = await bad.options(id="d").start()
        with pytest.raises(ValueError, match="no"):
            await handle.result()
        assert [i.id async for i in app.client.list()] == ["d", "c", "b", "a"]
        assert [i.id async for i in app.client.list("status = failed")] == ["d"]
        assert [i.id async for i in app.client.list("type = good AND status = completed", limit=2)] == ["c", "b"]
        assert [i.id async for i in app.client.list("status = open")] == []


async def test_calls_from_another_event_loop_are_carried_to_the_apps_own(app: App) -> None:
    @app.workflow
    async def body(x: int) -> int:
        return x + 1

    async with app:

        async def elsewhere() -> int:
            handle = await body.options(id="a").start(1)
            return await handle.result() + await body(5)

        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) == 8


async def test_info_tells_times_and_parent(app: App) -> None:
    @app.workflow(name="child")
    async def child() -> None: ...

    @app.workflow(name="parent")
    async def parent() -> str:
        handle = await child.start()
        await handle.result()
        return handle.id

    async with app:
        handle = await parent.options(id="p").start()
        child_id = await handle.result()
        info = await child.handle(child_id).info()
        assert (info.parent, info.name, info.status) == ("p", "child", "completed")
        assert info.closed is not None
        assert info.created <= info.closed <= datetime.now(UTC) + timedelta(seconds=1)
        assert await status(app, "p") == "completed"


async def test_info_counts_the_records_of_a_running_workflow(app: App) -> None:
    @app.step
    async def effect(n: int) -> int:
        return n

    @app.workflow
    async def body() -> None:
        for n in range(3):
            await effect(n)
        await recv()
        await effect(3)
        await recv()

    async with app:
        handle = await body.options(id="a").start()
        await until(lambda: steps_are(handle, 3))
        await handle.send("on")
        await until(lambda: steps_are(handle, 5))
        assert [info.steps async for info in app.client.list()] == [5]
        assert (await handle.info()).status.open


async def steps_are(handle: Handle[None], count: int) -> bool:
    return (await handle.info()).steps == count
