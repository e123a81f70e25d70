"""``patched``: old histories take the old branch, new ones the new, whatever crashes between."""

from __future__ import annotations

from typing import Any

import pytest

import perdure.sync
from perdure import App, deprecate_patch, patched, recv, set_event
from perdure.core.run import Op, Run
from perdure.errors import DefinitionError, Evicted, OutsideWorkflow
from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind, Outcome, Record
from perdure.runtime.sface import on_engine
from perdure.testing import harness
from tests.runtime.support import Ledger, crash, executor, history, kinds, row, until

KEY = RunKey("a", 1)


def build(database: str, ledger: Ledger, body: Any) -> App:
    """An app whose workflow "order" has this body; its steps note what they do."""
    app = App("shop", database=database)
    steps: dict[str, Any] = {}
    for name in ("reserve", "check", "ship"):

        @app.step(name=name)
        async def step(_name: str = name) -> str:
            ledger.note(_name)
            return _name

        steps[name] = step

    @app.workflow(name="order")
    async def order() -> str:
        return await body(steps)  # type: ignore[no-any-return]

    app.test_order = order  # type: ignore[attr-defined]
    return app


async def before(s: dict[str, Any]) -> str:
    """The code as it was."""
    await s["reserve"]()
    await s["ship"]()
    await recv("go")
    return "old"


async def after(s: dict[str, Any]) -> str:
    await s["reserve"]()
    if new := patched("check"):
        await s["check"]()
    await s["ship"]()
    await recv("go")
    return "new" if new and patched("check") else "old"


async def cleaned(s: dict[str, Any]) -> str:
    """The old branch is gone."""
    await s["reserve"]()
    deprecate_patch("check")
    await s["check"]()
    await s["ship"]()
    await recv("go")
    return "new"


async def forgotten(s: dict[str, Any]) -> str:
    await s["reserve"]()
    await s["check"]()
    await s["ship"]()
    await recv("go")
    return "new"


async def moved_down(s: dict[str, Any]) -> str:
    await s["reserve"]()
    await s["check"]()
    new = patched("check")
    await s["ship"]()
    await recv("go")
    return "new" if new else "old"


async def begun(app: App, records: int) -> None:
    """Start it, let it come to its wait, crash."""
    await app.open()
    await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
    await until(lambda: _has(app, records))
    await crash(app)


async def _has(app: App, records: int) -> bool:
    return len(await history(app, "a")) >= records


async def finished(app: App) -> str:
    async with app:
        await app.test_order.handle("a").send(True, "go")  # type: ignore[attr-defined]
        return await app.test_order.handle("a").result(timeout=10)  # type: ignore[attr-defined, no-any-return]


async def test_a_history_from_before_the_change_takes_the_old_branch(database: str, ledger: Ledger) -> None:
    await begun(build(database, ledger, before), 2)
    assert await finished(build(database, ledger, after)) == "old"
    assert ledger == ["reserve", "ship"]


async def test_a_new_run_takes_the_new_branch_and_keeps_it_after_a_crash(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, after)
    await begun(app, 4)
    async with app:
        assert await kinds(app, "a") == [
            "STEP reserve VALUE",
            "PATCH check NONE",
            "STEP check VALUE",
            "STEP ship VALUE",
        ]
    assert await finished(build(database, ledger, after)) == "new"
    assert ledger == ["reserve", "check", "ship"]


async def test_deprecate_patch_accepts_the_record_and_its_absence(database: str, ledger: Ledger) -> None:
    await begun(build(database, ledger, after), 4)
    assert await finished(build(database, ledger, cleaned)) == "new"
    assert ledger == ["reserve", "check", "ship"]


async def test_deprecate_patch_without_a_record(database: str, ledger: Ledger) -> None:
    app = build(database, ledger, cleaned)
    await begun(app, 3)
    async with app:
        assert "PATCH" not in " ".join(await kinds(app, "a"))
    assert await finished(build(database, ledger, cleaned)) == "new"


@pytest.mark.parametrize("body", [forgotten, moved_down])
async def test_a_record_that_the_code_no_longer_asks_for_there_holds_the_run(
    database: str, ledger: Ledger, body: Any
) -> None:
    await begun(build(database, ledger, after), 4)
    app = build(database, ledger, body)
    async with app:
        held = await until(lambda: _held(app))
        assert held == "at patch:check: history has patch check at patch:check; the code has waits for step check at 2"


async def _held(app: App) -> str:
    found = await row(app, "a")
    return found.detail if found.status == "held" else ""


async def test_a_patch_is_durable_before_the_effect_that_rests_on_it(ledger: Ledger) -> None:
    """A crash after each step: the answer and the effects stay the same."""
    for name in ("reserve", "check", "ship"):
        app = build("sqlite:///:unused", ledger, after)
        async with harness(app) as h:
            h.crash_after(name)
            handle = await app.test_order.options(id="a").start()  # type: ignore[attr-defined]
            await app.test_order.handle("a").send(True, "go")  # type: ignore[attr-defined]
            assert await handle.result() == "new"
        assert ledger == ["reserve", "check", "ship"]
        ledger.clear()


def test_the_sync_face(database: str, ledger: Ledger) -> None:
    def build_sync(body: Any) -> perdure.sync.App:
        app = perdure.sync.App("shop", database=database)

        @app.step(name="reserve")
        def reserve() -> None:
            ledger.note("reserve")

        @app.step(name="check")
        def check() -> None:
            ledger.note("check")

        @app.workflow(name="order")
        def order() -> str:
            return body(reserve, check)  # type: ignore[no-any-return]

        app.test_order = order  # type: ignore[attr-defined]
        return app

    def old(reserve: Any, _check: Any) -> str:
        reserve()
        reserve()
        perdure.sync.recv("go")
        return "old"

    def new(reserve: Any, check: Any) -> str:
        reserve()
        if perdure.sync.patched("check"):
            check()
        reserve()
        perdure.sync.recv("go")
        return "new" if perdure.sync.patched("check") else "old"

    def waits(app: perdure.sync.App, id: str) -> None:
        on_engine(app._home.engine(), lambda: until(lambda: executor(app).executions[id].waiting))

    for id, code, answer in (("a", old, "old"), ("b", new, "new")):
        app = build_sync(code)
        with app:
            app.test_order.options(id=id).start()  # type: ignore[attr-defined]
            waits(app, id)
        app = build_sync(new)
        with app:
            app.test_order.handle(id).send(True, "go")  # type: ignore[attr-defined]
            assert app.test_order.handle(id).result(timeout=10) == answer  # type: ignore[attr-defined]
    assert ledger == ["reserve", "reserve", "reserve", "check", "reserve"]


async def test_outside_a_body_it_is_refused() -> None:
    with pytest.raises(OutsideWorkflow, match="patched"):
        patched("x")
    with pytest.raises(OutsideWorkflow, match="deprecate_patch"):
        deprecate_patch("x")


async def test_a_name_is_checked(app: App) -> None:
    @app.workflow
    async def body() -> None:
        patched("x" * 1000)

    async with app:
        with pytest.raises(DefinitionError, match="cannot name a patch"):
            await body()


async def test_it_takes_no_number_among_the_calls(app: App) -> None:
    @app.workflow
    async def body() -> None:
        patched("one")
        await set_event("stage", 1)

    async with app:
        await body.options(id="a").start()
        await body.handle("a").result(timeout=10)
        assert [(r.path, r.name) for r in await history(app, "a")] == [("patch:one", "one"), ("1", "stage")]


# -- the pure core: who ran the burst after the latest outcome


def run_of(version: str, *records: Record, intents: tuple[Intent, ...] = ()) -> Run:
    return Run(KEY, b"l" * 16, version, 0, records, intents, again=True)


def ask(run: Run, path: str, name: str) -> None:
    run.ask(Op(path, Kind.STEP, name, b"", lambda _record: None))


def step(seq: int, path: str, name: str, version: str) -> Record:
    return Record(seq, path, Kind.STEP, name, seq, outcome=Outcome.VALUE, data=b"1", version=version)


@pytest.mark.parametrize(("version", "answer"), [("v2", True), ("v1", False)])
def test_at_the_end_of_history_it_counts_whose_code_was_handed_the_latest_outcome(version: str, answer: bool) -> None:
    run = run_of("v2", step(1, "1", "reserve", version))
    ask(run, "1", "reserve")
    assert run.next_delivery() is not None
    assert run.patched("check", 5) is answer
    assert run.next_delivery() is None
    assert run.patched("check", 5) is answer, "one answer for ever"
    assert run.patched("later", 5), "now this code runs first"


def test_a_step_that_was_about_to_run_after_this_point_is_history_too() -> None:
    run = run_of("v2", intents=(Intent("1", "ship", b""),))
    assert not run.patched("check", 5)
    ask(run, "1", "ship")
    assert run.patched("other", 5)


def test_a_gone_run_answers_nothing() -> None:
    run = run_of("v2")
    run.gone = True
    with pytest.raises(Evicted):
        run.patched("check", 5)
    with pytest.raises(Evicted):
        run.deprecate_patch("check")
