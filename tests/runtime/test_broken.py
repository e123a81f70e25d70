"""A unit that the store can never write: that run alone is held, its neighbours go on, and no step runs again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure.core.run import Op, Run
from perdure.errors import PerdureError, WorkflowNotFound
from perdure.model.ids import RunKey
from perdure.model.records import Intent, Kind, Outcome, Record
from perdure.model.writes import Hold, Receipt, Unit
from perdure.runtime.claims import outcomes_alone
from tests.runtime.support import Ledger, kinds, until


def refuse(app: Any, monkeypatch: pytest.MonkeyPatch, bad: Callable[[Unit], object]) -> None:
    """The app's store cannot write units that are ``bad``."""
    store: Any = app._home.engine().line.store
    commit = store.commit

    async def refusing(batch: Sequence[Unit], *, now: int | None = None) -> Receipt:
        if any(bad(unit) for unit in batch):
            raise ValueError("this cannot be stored")
        return await commit(batch, now=now)  # type: ignore[no-any-return]

    monkeypatch.setattr(store, "commit", refusing)


async def test_what_cannot_be_written_is_held_alone(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = perdure.App("shop", database=database)

    @app.step
    async def echo(x: int) -> int:
        return x

    @app.workflow(name="body")
    async def body(x: int) -> int:
        return await echo(x)

    async with app:
        refuse(app, monkeypatch, lambda unit: unit.key.id == "poison" and unit.records and not is_hold(unit))
        handles = [await body.options(id="poison" if x == 2 else f"good-{x}").start(x) for x in range(5)]
        await until(lambda: app._home.engine().executor and not app._home.engine().executor.has("poison"))
        info = await until(lambda: held(handles[2]))
        assert (info.reason, info.detail) == (
            "undecodable",
            "its write was refused by the store: ValueError: this cannot be stored",
        )
        assert [await handles[x].result(timeout=15) for x in (0, 1, 3, 4)] == [0, 1, 3, 4]


async def test_a_start_that_cannot_be_written_is_not_acknowledged(app: perdure.App, monkeypatch: Any) -> None:
    @app.workflow
    async def body() -> None: ...

    async with app:
        refuse(app, monkeypatch, lambda unit: unit.start is not None)
        for begin in (body.options(id="a").start, body.options(id="a")):
            with pytest.raises(PerdureError, match=r"'a' was not started.*ValueError: this cannot be stored") as caught:
                await begin()
            assert isinstance(caught.value.__cause__, ValueError)
        with pytest.raises(WorkflowNotFound):
            await body.handle("a").info()


def test_a_blocking_start_that_cannot_be_written_is_not_acknowledged(
    sync_app: perdure.sync.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    @sync_app.workflow
    def body() -> None: ...

    with sync_app:
        refuse(sync_app, monkeypatch, lambda unit: unit.start is not None)
        for begin in (body.options(id="a").start, body.options(id="a")):
            with pytest.raises(PerdureError, match="'a' was not started"):
                begin()
        with pytest.raises(WorkflowNotFound):
            body.handle("a").info()


@pytest.mark.parametrize("alone", [True, False], ids=["outcomes alone can be written", "not even these"])
async def test_outcomes_of_steps_outlive_a_unit_that_is_refused(
    app: perdure.App, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    @app.step(name="pay")
    async def pay() -> str:
        ledger.note("paid")
        return "receipt"

    @app.workflow
    async def body() -> str:
        receipt = await pay()
        await perdure.set_event("paid", receipt)
        await perdure.sleep(0)
        return receipt

    async with app:
        mended = False

        def bad(unit: Unit) -> object:
            return not mended and (unit.events or (unit.records and not alone))

        refuse(app, monkeypatch, bad)
        handle = await body.options(id="a").start()
        await until(lambda: held(handle))
        assert await kinds(app, "a") == (["STEP pay VALUE"] if alone else [])
        mended = True
        await handle.resume()
        assert await handle.result(timeout=15) == "receipt"
        assert await handle.get_event("paid") == "receipt"
    assert ledger == (["paid"] if alone else ["paid", "paid"])


def record(seq: int, path: str, kind: Kind, intents: tuple[Intent, ...] = ()) -> Record:
    return Record(seq, path, kind, "any", 0, b"", Outcome.NONE, None, intents=intents)


@pytest.mark.parametrize(
    ("first", "kept"),
    [
        ([], [(8, "1")]),
        ([record(8, "0", Kind.TIMER), record(9, "2", Kind.EVENT)], [(8, "1")]),
        ([record(8, "2", Kind.ATTEMPT)], [(8, "1")]),
        ([record(8, "3", Kind.STEP)], [(8, "1")]),  # a pure one: it may rest on what is not durable
        ([record(8, "0", Kind.EVENT)], []),  # a replay would set it before the outcome
        ([record(8, "2", Kind.ATTEMPT), record(9, "0", Kind.PATCH)], []),
    ],
)
def test_outcomes_that_stand_alone(first: list[Record], kept: list[tuple[int, str]]) -> None:
    key = RunKey("a", 1)
    run = Run(key, b"", "v", 0)
    run.intend(Op("1", Kind.STEP, "any", b"", lambda _record: None), once=False)
    intent = Intent("4", "any", b"")
    last = record(8 + len(first), "1", Kind.STEP, (intent,))
    found = outcomes_alone(run, Unit(key=key, after=7, records=[*first, last]))
    assert [(one.seq, one.path) for one in found] == kept
    assert not any(one.intents for one in found), "what was about to run then is not"


def is_hold(unit: Unit) -> bool:
    return isinstance(unit.change, Hold)


async def held(handle: Any) -> Any:
    info = await handle.info()
    return info if info.status == "held" else None
