"""The log of a SQLite file is removed under a running executor, as by an operator who cleans up."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure import App, recv
from tests.runtime.support import Ledger, crash, history, until


@pytest.mark.parametrize(
    ("removed", "told"),
    [
        (["-wal"], "has been saved into the database file"),
        (["-wal", "-shm"], "has been saved into the database file"),
        (["-shm"], "nothing is written by the old one"),
    ],
    ids=["log", "log and index", "index"],
)
async def test_work_goes_on_and_nothing_that_was_answered_is_lost(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture, removed: list[str], told: str
) -> None:
    """No step runs again, the executor keeps its identity, and after a kill without a word all is there."""
    path = tmp_path / "perdure.db"
    app = App("shop", database=f"sqlite:///{path}")

    @app.step
    async def act(n: int) -> int:
        ledger.note(n)
        return n

    @app.workflow(name="order")
    async def order() -> list[int]:
        return [await act(n + (await recv("go") or 0)) for n in range(6)]

    async with app:
        handle = await order.options(id="o").start()
        me = app._home.engine().executor.me.id
        for n in range(3):
            await handle.send(0, "go")
            await until(lambda n=n: len(ledger) == n + 1)
        for end in removed:
            path.with_name(f"perdure.db{end}").unlink()
        await until(lambda: told in caplog.text)
        await handle.send(0, "go")
        await until(lambda: len(ledger) == 4)

        async def recorded() -> bool:
            return sum(record.kind.name == "STEP" for record in await history(app, "o")) == 4

        await until(recorded)
        assert app._home.engine().executor.me.id == me
        await crash(app)
    async with app:
        for _ in range(2):
            await app.client.handle("o").send(0, "go")
        assert await app.client.handle("o").result(timeout=20) == list(range(6))
    assert ledger == [str(n) for n in range(6)]
    await app.close()
