"""What ``perdure doctor`` says of work that stands in line: what its queue keeps back is in order, all else is not."""

from __future__ import annotations

import pytest

from perdure import App, recv
from perdure.cli import doctor
from tests.runtime.support import row, status, until
from tests.runtime.test_told_to_cancel import shown


async def test_what_a_full_or_paused_queue_keeps_back_is_not_overdue(
    app: App, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "QUEUED_US_MAX", 0)  # what is due is late

    @app.workflow(queue=app.queue("emails", concurrency=1))
    async def email() -> None:
        await recv("go")

    @app.workflow(queue=app.queue("reports"))
    async def report() -> None: ...

    async with app:
        await email.options(id="first").start()
        await until(lambda: waits(app))
        await app.client.pause_queue("reports")
        for id in ("second", "third"):
            await email.options(id=id).start()
        await report.options(id="fourth").start()
        assert (await row(app, "third")).lane is not None
        said = await shown(database, "doctor")
        assert "overdue" not in said
        assert said.endswith("all is well\n")
        assert "queue emails" in said
        assert "2 in line; 1 in progress, concurrency 1; see: perdure queue list" in said
        assert "queue reports" in said
        assert "1 in line; it is paused; see: perdure queue list" in said


async def waits(app: App) -> bool:
    return await status(app, "first") == "waiting"
