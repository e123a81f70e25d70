"""The replay check: a history against other code, without any effect; the verdict shows both sides and the line."""

from __future__ import annotations

import asyncio
import linecache
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

import perdure.sync
from perdure import App, deprecate_patch, now, patched, recv, set_event, sleep
from perdure.model.records import Kind, Record
from perdure.runtime.pasts import Past
from perdure.runtime.replay_check import Finding, Replayer, Verdict
from perdure.runtime.sface import on_engine
from tests.runtime.support import Ledger, executor, history, row, until
from tests.runtime.test_mismatch import CHANGES, Body, build, first, removed, swallows_everything


async def past_of(app: App, id: str = "a", records: int = 1) -> Past:
    """Run it until it waits with so many records; its row, input and history."""
    async with app:
        await app.test_order.options(id=id).start()  # type: ignore[attr-defined]
        await until(lambda: _waits(app, id, records))
        return await read(app, id)


async def _waits(app: App, id: str, records: int) -> bool:
    execution = executor(app).executions.get(id)
    return execution is not None and bool(execution.waiting) and len(await history(app, id)) >= records


async def read(app: App, id: str) -> Past:
    store = app._home.engine().line.store
    found = await row(app, id)
    return Past(found, (await store.inputs([found.key]))[found.key], await history(app, id))


async def verdict(app: Any, past: Past, seconds: float = 10.0) -> Verdict:
    replayer = Replayer(app._registry, seconds=seconds)
    try:
        return await replayer.check(past)
    finally:
        replayer.close()


def line_of(found: Verdict) -> str:
    file, _, number = found.where.rpartition(":")
    return linecache.getline(file, int(number)).strip()


async def test_the_same_code_is_safe_and_nothing_happens(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, first)
    past = await past_of(app)
    ledger.clear()
    assert await verdict(app, past) == Verdict(Finding.SAFE)
    async with app:  # nothing was written either
        assert await history(app, "a") == past[2]
    assert ledger == []


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_shown_with_both_sides_and_its_line(tmp_path: Any, ledger: Ledger, change: str) -> None:
    database = f"sqlite:///{tmp_path}/a.db"
    past = await past_of(build(database, ledger, first))
    ledger.clear()
    body, words = CHANGES[change]
    found = await verdict(build(database, ledger, body), past)
    assert not found.safe
    assert ledger == [], "no effect"
    if change == "nothing left":
        assert found.finding is Finding.ENDED
        assert found.detail == "history has step reserve('sku', 1) at 1; the code has the end of the body"
        return
    assert found.finding is Finding.MISMATCH
    assert words in found.detail
    assert found.recorded.startswith("step reserve('sku', 1)")
    assert found.called
    assert found.detail.endswith(f"({found.where})")
    assert found.line == line_of(found)
    assert "await" in found.line
    start = body.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert start < int(found.where.rpartition(":")[2]) < start + 9


async def test_the_line_of_a_call_in_a_task_of_its_own_and_in_a_helper(tmp_path: Any, ledger: Ledger) -> None:
    database = f"sqlite:///{tmp_path}/a.db"
    past = await past_of(build(database, ledger, first))

    async def gathered(s: dict[str, Any]) -> list[str]:
        await asyncio.gather(
            s["charge"](),  # this line
            s["book"](),
        )
        return []

    async def helper(s: dict[str, Any]) -> None:
        await s["charge"]()  # the helper's line

    async def helped(s: dict[str, Any]) -> list[str]:
        await helper(s)
        return []

    found = await verdict(build(database, ledger, gathered), past)
    assert found.line == 's["charge"](),  # this line'
    found = await verdict(build(database, ledger, helped), past)
    assert found.line == 'await s["charge"]()  # the helper\'s line'


async def test_a_step_added_after_the_recorded_part_is_safe(tmp_path: Any, ledger: Ledger) -> None:
    async def longer(s: dict[str, Any]) -> list[str]:
        await s["reserve"]("sku", 1)
        await set_event("stage", 2)  # notes past the end, too
        await s["child"].start(1)
        await asyncio.gather(s["charge"](), s["ship"](), sleep(5))
        return []

    database = f"sqlite:///{tmp_path}/a.db"
    past = await past_of(build(database, ledger, first))
    ledger.clear()
    assert (await verdict(build(database, ledger, longer), past)).safe
    assert ledger == []


async def test_a_step_that_was_about_to_run_and_is_gone_is_a_mismatch(tmp_path: Any, ledger: Ledger) -> None:
    database = f"sqlite:///{tmp_path}/a.db"
    blocked = asyncio.Event()
    app = App("shop", database=database)

    @app.step(name="charge")
    async def charge() -> None:
        blocked.set()
        await asyncio.Event().wait()

    @app.workflow(name="order")
    async def order() -> None:
        await charge()

    async with app:
        await order.options(id="a").start()
        await blocked.wait()
        past = await read(app, "a")
        await app._home.engine().close(drain=0)
        app._home.opened(None)
    assert past[2] == []
    found = await verdict(build(database, ledger, removed), past)
    assert found.finding is Finding.MISMATCH
    assert found.recorded == "step charge about to run"
    assert found.called == "recv go"
    assert 'recv("go")' in found.line


async def test_an_exception_that_history_knows_nothing_of(tmp_path: Any, ledger: Ledger) -> None:
    async def early(s: dict[str, Any]) -> list[str]:
        raise KeyError("colour")

    async def late(s: dict[str, Any]) -> list[str]:
        await s["reserve"]("sku", 1)
        return [s["no such step"]]

    async def leaves(s: dict[str, Any]) -> list[str]:
        raise SystemExit(3)

    async def dropped(s: dict[str, Any]) -> list[str]:
        await s["reserve"]("sku", 1)
        s["ship"]()
        return []

    async def stuck(s: dict[str, Any]) -> list[str]:
        await s["reserve"]("sku", 1)
        await asyncio.Event().wait()
        return []

    database = f"sqlite:///{tmp_path}/a.db"
    past = await past_of(build(database, ledger, first))
    words = {
        early: "history has step reserve('sku', 1) at 1; the code has an exception: KeyError: 'colour'",
        late: "past its history, the code has an exception: KeyError: 'no such step'",
        leaves: "the code has SystemExit: 3",
        dropped: "past its history, the code has an exception: NotAwaited: ship was called at",
        stuck: "past its history, the code has an exception: NotDurable: the workflow body awaits",
    }
    for body, said in words.items():
        found = await verdict(build(database, ledger, body), past)
        assert found.finding is Finding.RAISED, body
        assert said in found.detail
    found = await verdict(build(database, ledger, late), past)
    assert found.line == 'return [s["no such step"]]'


async def test_a_body_that_failed_with_a_recorded_failure_is_safe(tmp_path: Any, ledger: Ledger) -> None:
    app = App("shop", database=f"sqlite:///{tmp_path}/a.db")

    @app.step
    async def fails() -> None:
        raise ValueError("no")

    @app.workflow(name="order")
    async def order() -> None:
        await fails()

    async with app:
        await order.options(id="a").start()
        with pytest.raises(ValueError, match="no"):
            await order.handle("a").result()
        assert (await verdict(app, await read(app, "a"))).safe


async def test_what_cannot_be_read_and_what_is_not_there(tmp_path: Any, ledger: Ledger) -> None:
    database = f"sqlite:///{tmp_path}/a.db"
    app = App("shop", database=database)

    @app.step(name="count")
    async def count() -> str:
        return "seven"

    @app.workflow(name="order")
    async def order(x: str) -> str:
        return await count() + str(await recv("go"))

    app.test_order = order  # type: ignore[attr-defined]
    async with app:
        await order.options(id="a").start("seven")
        await until(lambda: _waits(app, "a", 1))
        past = await read(app, "a")

    def changed(input: Any, result: Any) -> App:
        other = App("shop", database=database)

        async def count() -> Any: ...

        async def order(x: Any) -> None:
            await step()

        count.__annotations__["return"] = result
        order.__annotations__["x"] = input
        step = other.step(name="count")(count)
        other.workflow(name="order")(order)
        return other

    found = await verdict(changed(int, str), past)
    assert (found.finding, found.detail[:8]) == (Finding.UNDECODABLE, "args[0]:")
    found = await verdict(changed(str, int), past)
    assert found.finding is Finding.UNDECODABLE
    assert found.detail.startswith("at 1: what history has of step count")
    found = await verdict(App("shop", database=database), past)
    assert found == Verdict(Finding.NO_CODE, "the code has no workflow 'order' (it has: none)")


async def test_a_workflow_that_never_began_is_safe_if_its_input_can_be_read(tmp_path: Any, ledger: Ledger) -> None:
    async def explodes(s: dict[str, Any]) -> list[str]:
        raise AssertionError("nothing of it may run")

    app = build(f"sqlite:///{tmp_path}/a.db", ledger, explodes)
    async with app.connect():
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        past = await read(app, "a")
    assert (await verdict(app, past)).safe


# -- user code that unwinds, blocks, goes round


async def test_finally_runs_and_whatever_it_calls_is_refused(tmp_path: Any, ledger: Ledger) -> None:
    async def tidy(s: dict[str, Any]) -> list[str]:
        try:
            await s["reserve"]("sku", 1)
            return [await recv("go")]
        finally:
            ledger.note("finally")
            await s["ship"]()
            ledger.note("not reached")

    database = f"sqlite:///{tmp_path}/a.db"
    past = await past_of(build(database, ledger, first))
    ledger.clear()
    assert (await verdict(build(database, ledger, tidy), past)).safe
    assert ledger == ["finally"]
    assert (await verdict(build(database, ledger, swallows_everything), past)).finding is Finding.MISMATCH
    assert ledger == ["finally"]


async def test_a_body_that_blocks_or_goes_round_is_given_up(tmp_path: Any, ledger: Ledger) -> None:
    free = threading.Event()

    async def blocks(s: dict[str, Any]) -> list[str]:
        free.wait(30)  # it stands here
        await s["charge"]()
        ledger.note("not reached")
        return []

    async def goes_round(s: dict[str, Any]) -> list[str]:
        while True:
            await sleep(0)

    database = f"sqlite:///{tmp_path}/a.db"
    app = build(database, ledger, first)
    past = await past_of(app)
    ledger.clear()
    found = await verdict(build(database, ledger, goes_round), past, seconds=0.2)
    assert found.finding is Finding.UNKNOWN
    replayer = Replayer(build(database, ledger, blocks)._registry, seconds=1)
    replayer._registry.workflows["fine"] = app._registry.workflows["order"]
    found = await replayer.check(past)
    assert found.finding is Finding.UNKNOWN
    assert found.detail.startswith("the body did not come to rest within 1 s: it blocks, or goes round for ever")
    assert found.line == "free.wait(30)  # it stands here"
    fine = past._replace(row=msgspec.structs.replace(past.row, name="fine"))
    assert [v.finding for v in await replayer.check_all([fine, past, fine])] == ["safe", "unknown", "safe"]
    free.set()
    replayer.close()
    await until(lambda: not any(t.name == "perdure-replay" for t in threading.enumerate()))
    assert ledger == []


# -- time, patches, children, cancels: the whole of a history


async def test_a_long_history_with_everything_in_it(database: str, ledger: Ledger) -> None:
    async def all_of_it(s: dict[str, Any]) -> list[str]:
        began = now()
        await s["reserve"]("sku", 1)
        await set_event("stage", 1)
        await s["child"](2)
        child = await s["child"].start(3)
        await child.result()
        await asyncio.gather(s["charge"](), sleep(0.001), s["ship"]())
        async with asyncio.timeout(50):
            await sleep(0.001)
        for n in range(50):
            await s["book"](n, (now() - began).total_seconds() >= 0)
        if patched("more"):
            await s["book"]("more")
        await recv("go")
        return []

    app = build(database, ledger, all_of_it)
    past = await past_of(app, records=61)
    assert (await verdict(app, past)).safe

    async def without(s: dict[str, Any]) -> list[str]:
        deprecate_patch("other")
        return await all_of_it({**s, "book": s["charge"]})

    found = await verdict(build(database, ledger, without), past)
    assert "the code has step charge(0, True)" in found.detail


async def test_a_patch_keeps_an_old_history_safe(tmp_path: Any, ledger: Ledger) -> None:
    async def unpatched(s: dict[str, Any]) -> list[str]:
        await s["charge"]()
        return [await s["reserve"]("sku", 1), await recv("go")]

    async def with_patch(s: dict[str, Any]) -> list[str]:
        if patched("charge first"):
            await s["charge"]()
        return [await s["reserve"]("sku", 1), await recv("go")]

    database = f"sqlite:///{tmp_path}/a.db"
    past = await past_of(build(database, ledger, first))
    assert not (await verdict(build(database, ledger, unpatched), past)).safe
    assert (await verdict(build(database, ledger, with_patch), past)).safe


async def test_a_cancelled_body_in_its_cleanup(tmp_path: Any, ledger: Ledger) -> None:
    reached = asyncio.Event()

    def body_of(step: str) -> Body:
        async def body(s: dict[str, Any]) -> list[str]:
            try:
                return [await recv("never")]
            finally:
                await s[step]()
                reached.set()
                await recv("still never")

        return body

    database = f"sqlite:///{tmp_path}/a.db"
    app = build(database, ledger, body_of("ship"))
    async with app:
        handle = await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: _waits(app, "a", 0))
        task = asyncio.create_task(handle.cancel())
        await reached.wait()
        await until(lambda: _waits(app, "a", 2))
        past = await read(app, "a")
        task.cancel()
    assert [r.kind.name for r in past[2]] == ["CANCEL", "STEP"]
    assert (await verdict(build(database, ledger, body_of("ship")), past)).safe
    found = await verdict(build(database, ledger, body_of("book")), past)
    assert "history has step ship; the code has step book" in found.detail


# -- the blocking face


def sync_app(database: str, ledger: Ledger, steps: Sequence[str], tail: str = "recv") -> perdure.sync.App:
    app = perdure.sync.App("shop", database=database)
    known: dict[str, Any] = {}
    for name in ("reserve", "ship", "book"):

        @app.step(name=name)
        def step(_name: str = name) -> str:
            ledger.note(_name)
            return _name

        known[name] = step

    @app.workflow(name="child")
    def child() -> None: ...

    @app.workflow(name="order")
    def order() -> str:
        try:
            for name in steps:
                known[name]()
            perdure.sync.set_event("stage", len(steps))
            child.start()
            if tail == "raise":
                raise ValueError("no")
            if tail == "recv":
                perdure.sync.recv("go")
            return "done"
        finally:
            ledger.note("finally")
            known["book"]()

    app.test_order = order  # type: ignore[attr-defined]
    return app


async def test_a_blocking_body(database: str, ledger: Ledger) -> None:
    def begin() -> Past:
        app = sync_app(database, ledger, ["reserve", "ship"])
        with app:
            app.test_order.options(id="a").start()  # type: ignore[attr-defined]
            engine = app._home.engine()
            on_engine(engine, lambda: until(lambda: _waits(app, "a", 4)))  # type: ignore[arg-type]
            past: Past = on_engine(engine, lambda: read(app, "a"))  # type: ignore[arg-type]
            return past

    past = await asyncio.to_thread(begin)
    ledger.clear()
    for steps, tail, finding, words in (
        (["reserve", "ship"], "recv", Finding.SAFE, ""),
        (["reserve"], "recv", Finding.MISMATCH, "at 2: history has step ship; the code has event stage"),
        (["reserve", "book"], "recv", Finding.MISMATCH, "at 2: history has step ship; the code has step book"),
        (["reserve", "ship", "ship"], "recv", Finding.MISMATCH, "at 3: history has event stage; the code has step"),
        (["reserve", "ship"], "return", Finding.SAFE, ""),
        (["reserve", "ship"], "raise", Finding.SAFE, ""),  # its cleanup calls first
    ):
        found = await verdict(sync_app(database, ledger, steps, tail), past)
        assert (found.finding, words in found.detail) == (finding, True), found
        assert "book" not in ledger
        assert set(ledger) == {"finally"}
    found = await verdict(sync_app(database, ledger, ["book"]), past)
    assert found.line == "known[name]()"


async def test_a_blocking_body_that_is_over_too_early(tmp_path: Any, ledger: Ledger) -> None:
    app = perdure.sync.App("shop", database=f"sqlite:///{tmp_path}/a.db")

    @app.workflow(name="order")
    def order(how: str) -> None:
        if how == "raises":
            raise ValueError("no")

    def begin() -> list[Past]:
        pasts: list[Past] = []
        with app:
            for how in ("ends", "raises"):
                order.options(id=how).start(how)
                on_engine(app._home.engine(), lambda how=how: until(lambda: _closed(app, how)))
                pasts.append(on_engine(app._home.engine(), lambda how=how: read(app, how)))  # type: ignore[arg-type]
        return pasts

    ends, raises = await asyncio.to_thread(begin)
    assert (await verdict(app, ends)).safe
    found = await verdict(app, raises)
    assert found.detail.startswith("past its history, the code has an exception: ValueError: no (")
    more = [Record(1, "1", Kind.STEP, "ship", 1)]
    assert (await verdict(app, Past(*ends[:2], more))).finding is Finding.ENDED
    assert (await verdict(app, Past(*raises[:2], more))).finding is Finding.RAISED


async def _closed(app: Any, id: str) -> bool:
    return not (await row(app, id)).status.open
