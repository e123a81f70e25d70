"""Code that changed between two runs: held with both sides shown, no effect, released by code that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import perdure.sync
from perdure import App, Event, Topic, recv, set_event, sleep
from perdure.runtime.sface import on_engine
from tests.runtime.support import Ledger, executor, history, row, status, until, until_sync

Body = Callable[[dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def one_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that changed under one version, which was given by hand: only the replay can tell."""
    monkeypatch.setenv("PERDURE_VERSION", "1")


def build(database: str, ledger: Ledger, body: Body) -> App:
    """An app whose workflow "order" has this body; its steps note what they do."""
    app = App("shop", database=database)
    steps: dict[str, Any] = {}
    for name in ("reserve", "charge", "ship", "book"):

        @app.step(name=name)
        async def step(*args: object, _name: str = name) -> str:
            ledger.note(f"{_name}{args}")
            return _name

        steps[name] = step

    @app.workflow(name="child")
    async def child(x: int) -> int:
        ledger.note(f"child {x}")
        return x

    steps["child"] = child

    @app.workflow(name="order")
    async def order() -> list[str]:
        return await body(steps)

    steps["order"] = order
    app.test_order = order  # type: ignore[attr-defined]
    return app


async def first(s: dict[str, Any]) -> list[str]:
    """The code as it was: one step, a wait, another step."""
    return [await s["reserve"]("sku", 1), await recv("go"), await s["ship"]()]


async def renamed(s: dict[str, Any]) -> list[str]:
    return [await s["book"]("sku", 1), await recv("go"), await s["ship"]()]


async def other_args(s: dict[str, Any]) -> list[str]:
    return [await s["reserve"]("sku", 2), await recv("go"), await s["ship"]()]


async def added_before(s: dict[str, Any]) -> list[str]:
    return [await s["charge"](), await s["reserve"]("sku", 1), await recv("go"), await s["ship"]()]


async def removed(s: dict[str, Any]) -> list[str]:
    return [await recv("go"), await s["ship"]()]


async def nothing_left(s: dict[str, Any]) -> list[str]:
    return []


async def a_child_instead(s: dict[str, Any]) -> list[str]:
    return [str(await s["child"](1)), await recv("go")]


async def an_event_instead(s: dict[str, Any]) -> list[str]:
    await set_event(Event[int]("stage"), 1)
    return [await recv("go")]


async def a_sleep_instead(s: dict[str, Any]) -> list[str]:
    await sleep(0.01)
    return [await recv("go")]


async def swallows_everything(s: dict[str, Any]) -> list[str]:
    try:
        return [await s["book"]("sku", 1)]
    except BaseException:
        await s["charge"]()
        return ["swallowed"]
    finally:
        await s["ship"]()


HISTORY_HAS = "history has step reserve('sku', 1)"
CHANGES: dict[str, tuple[Body, str]] = {
    "renamed": (renamed, f"at 1: {HISTORY_HAS}; the code has step book('sku', 1)"),
    "other args": (other_args, f"at 1: {HISTORY_HAS}; the code has step reserve('sku', 2)"),
    "added": (added_before, f"at 1: {HISTORY_HAS}; the code has step charge"),
    "removed": (removed, f"at 1: {HISTORY_HAS}; the code has recv go"),
    "nothing left": (nothing_left, f"at 1: {HISTORY_HAS} at 1; the code has nothing more to wait for"),
    "child": (a_child_instead, f"at 1: {HISTORY_HAS}; the code has child child(1)"),
    "event": (an_event_instead, f"at 1: {HISTORY_HAS}; the code has event stage"),
    "sleep": (a_sleep_instead, f"{HISTORY_HAS} at 1; the code has waits for timer timer at t1"),
    "swallows": (swallows_everything, f"at 1: {HISTORY_HAS}; the code has step book('sku', 1)"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_mismatch_is_held_with_both_sides_and_no_effect(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture, change: str
) -> None:
    body, words = CHANGES[change]
    app = build(database, ledger, first)
    async with app:
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: history(app, "a"))
        before = await history(app, "a")
    changed = build(database, ledger, body)
    async with changed:
        await until(lambda: is_held(changed))
        stored = await row(changed, "a")
        assert stored.reason == "nondeterminism"
        assert words in stored.detail
        assert await history(changed, "a") == before
        assert [i async for i in changed.client.list("status = failed")] == []
    assert words in said.text  # named in the log, too
    assert ledger == ["reserve('sku', 1)"]


async def is_held(app: App) -> bool:
    return await status(app, "a") == "held"


async def test_held_work_goes_on_when_code_that_fits_is_deployed(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, first)
    async with app:
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: history(app, "a"))
    changed = build(database, ledger, renamed)
    async with changed:
        await until(lambda: is_held(changed))
        await changed.client.handle("a").send("went", "go")  # mail for held work waits
    fixed = build(database, ledger, first)
    async with fixed:
        assert await fixed.test_order.handle("a").result(timeout=10) == ["reserve", "went", "ship"]  # type: ignore[attr-defined]
    assert ledger == ["reserve('sku', 1)", "ship()"]


async def test_no_code_is_held_and_goes_on_when_the_code_comes_back(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, first)
    async with app:
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: history(app, "a"))
    empty = App("shop", database=database)
    async with empty:
        await until(lambda: is_held(empty))
        stored = await row(empty, "a")
        assert stored.reason == "no_code"
        assert "this executor has no workflow 'order' (it has: none)" in stored.detail
    fixed = build(database, ledger, first)
    async with fixed:
        await fixed.client.handle("a").send("went", "go")
        assert await fixed.test_order.handle("a").result(timeout=10) == ["reserve", "went", "ship"]  # type: ignore[attr-defined]


async def test_held_work_can_be_cancelled(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, first)
    async with app:
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: history(app, "a"))
    changed = build(database, ledger, renamed)
    async with changed:
        await until(lambda: is_held(changed))
        assert await changed.client.handle("a").cancel() == "cancelled"


async def test_who_waits_for_held_work_is_told_the_reason_and_the_command(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture
) -> None:
    app = build(database, ledger, first)
    async with app:
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: history(app, "a"))
    changed = build(database, ledger, renamed)
    async with changed:
        with pytest.raises(TimeoutError):
            await changed.client.handle("a").result(timeout=0.5)
    assert "workflow a (order) is held: nondeterminism: at 1: history has" in said.text
    assert "see: perdure workflow show a" in said.text


async def test_a_change_behind_the_recorded_part_is_no_mismatch(database: str, ledger: Ledger) -> None:
    async def longer(s: dict[str, Any]) -> list[str]:
        return [await s["reserve"]("sku", 1), await recv("go"), await s["charge"](), await s["ship"]()]

    app = build(database, ledger, first)
    async with app:
        await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
        await until(lambda: history(app, "a"))
    changed = build(database, ledger, longer)
    async with changed:
        await changed.client.handle("a").send("on", "go")
        assert await changed.client.handle("a").result() == ["reserve", "on", "charge", "ship"]
    assert ledger == ["reserve('sku', 1)", "charge()", "ship()"]


def sync_app_has_one_record(app: perdure.sync.App) -> bool:
    return bool(on_engine(app._home.engine(), lambda: history(app, "a")))


def test_a_mismatch_of_a_sync_body(database: str, ledger: Ledger) -> None:
    def build_sync(name: str) -> tuple[perdure.sync.App, Any]:
        app = perdure.sync.App("shop", database=database)

        @app.step(name=name)
        def step(x: int) -> str:
            ledger.note(f"{name} {x}")
            return name

        @app.workflow(name="order")
        def order() -> list[str]:
            try:
                return [step(1), perdure.sync.recv("go")]
            finally:
                ledger.note("finally")

        return app, order

    app, order = build_sync("reserve")
    with app:
        order.options(id="a").start()
        until_sync(lambda: sync_app_has_one_record(app))
    ledger.clear()
    changed, order = build_sync("book")
    with changed:
        until_sync(lambda: order.handle("a").status() == "held")
        info = order.handle("a").info()
        assert info.reason == "nondeterminism"
        assert info.detail == "at 1: history has step reserve(1); the code has step book(1)"
    assert set(ledger) == {"finally"}  # plain Python of the unwinding body; no step ran


async def test_an_error_of_decoding_the_input_is_held_not_failed(database: str, ledger: Ledger) -> None:
    app = App("shop", database=database)

    @app.workflow(name="order")
    async def order(x: str) -> str:
        return x + str(await recv("go"))

    async with app:
        await order.options(id="a").start("seven")
        await until(lambda: executor(app).has("a"))
    changed = App("shop", database=database)

    @changed.workflow(name="order")
    async def order2(x: int) -> str:
        ledger.note("ran")
        return str(x)

    async with changed:
        await until(lambda: is_held(changed))
        assert (await row(changed, "a")).reason == "undecodable"
    assert ledger == []


async def test_a_message_of_another_type_holds_the_receiver_until_the_code_takes_it(database: str) -> None:
    """One slip of a sender must not end a workflow; what it received is kept, and a deploy that takes it goes on."""

    def build(takes: type) -> tuple[App, Any]:
        app = App("shop", database=database)
        box: Topic[Any] = Topic[takes]("box")  # type: ignore[valid-type]

        @app.workflow(name="order")
        async def order() -> str:
            return f"{await recv(box)!r}"

        return app, order

    app, order = build(int)
    async with app:
        handle = await order.options(id="a").start()
        await handle.send("seven", "box")
        await until(lambda: is_held(app))
        found = await row(app, "a")
        assert found.reason == "undecodable"
        assert found.detail.startswith("at 1: what history has of recv box: ")
        assert "int" in found.detail
    changed, order = build(str)
    async with changed:
        assert await order.handle("a").result() == "'seven'"


async def test_a_recorded_result_of_another_type_holds_the_workflow(database: str, ledger: Ledger) -> None:
    def build(gives: type) -> tuple[App, Any]:
        app = App("shop", database=database)

        async def body(x: str) -> Any:
            ledger.note(x)
            return gives(x)

        body.__annotations__["return"] = gives
        step = app.step(name="step")(body)

        @app.workflow(name="order")
        async def order() -> str:
            try:
                return f"{await step('7')!r} {await recv('go')}"
            except Exception as error:  # of the step, never of decoding
                return f"caught {error!r}"

        return app, order

    app, order = build(str)
    async with app:
        await order.options(id="a").start()
        await until(lambda: executor(app).executions["a"].waiting)
    ledger.clear()
    changed, order = build(list)
    async with changed:
        await until(lambda: is_held(changed))
        found = await row(changed, "a")
        assert found.reason == "undecodable"
        assert found.detail.startswith("at 1: what history has of step step: ")
    back, order = build(str)
    async with back:
        await order.handle("a").send("on", "go")
        assert await order.handle("a").result() == "'7' on"
    assert ledger == []


def test_a_blocking_body_is_held_for_it_too(database: str) -> None:
    app = perdure.sync.App("shop", database=database)

    @app.workflow(name="order")
    def order() -> str:
        return f"{perdure.sync.recv(perdure.sync.Topic[int]('box'))!r}"

    with app:
        handle = order.options(id="a").start()
        handle.send("seven", "box")
        until_sync(lambda: handle.status() == "held")
        assert handle.info().reason == "undecodable"


def test_an_input_that_a_blocking_body_cannot_take_is_held(database: str, ledger: Ledger) -> None:
    app = perdure.sync.App("shop", database=database)

    @app.workflow(name="order")
    def order(x: str) -> str:
        return x + str(perdure.sync.recv("go"))

    with app:
        order.options(id="a").start("seven")
    changed = perdure.sync.App("shop", database=database)

    @changed.workflow(name="order")
    def order2(x: int) -> str:
        ledger.note("ran")
        return str(x)

    @changed.workflow(name="other")
    def other() -> str:
        return "fine"

    with changed:
        until_sync(lambda: order2.handle("a").status() == "held")
        assert order2.handle("a").info().reason == "undecodable"
        assert other() == "fine"
    assert ledger == []
