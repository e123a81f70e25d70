"""What a person gave to an executor that does not run its version: it is said, and left to who does."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App
from tests.runtime.deploys import Fleet, Round, begun, build, comment, finish, first, version_of
from tests.runtime.support import Ledger, crash, executor, row, until


async def left_to(database: str, ledger: Ledger, heir: str | None, version: str = "v1") -> None:
    """A workflow of that version, which executor "a" left, given to the heir."""
    app = build(database, ledger, first, version, executor_id="a")
    await app.open()
    await begun(app, "a")
    await crash(app)
    operator = App("shop", database=database)
    async with operator.connect():
        await operator.client.recover_executors("a", by=heir)


@pytest.mark.parametrize("recovery", ["fleet", "own", "manual", "single"])
async def test_an_heir_of_another_version_says_that_it_cannot(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture, recovery: Any
) -> None:
    await left_to(database, ledger, "b")
    async with build(database, ledger, comment, "v2", executor_id="b", recovery=recovery) as heir:
        await until(lambda: "it runs v2" in said.text)
        assert (
            "1 workflow that executor 'a' left and that were given to this one, 'b', are of version v1, which it does "
            "not run (it runs v2): they wait. Start one called 'b' of that version, or give them to any: perdure "
            "executor recover "
        ) in said.text
        await executor(heir).adopter.round()
        assert said.text.count("it runs v2") == 1
        found = await row(heir, "a")
        assert (found.version, found.status) == ("v1", "running"), "it is nobody else's"
    async with build(database, ledger, first, "v1", executor_id="b", recovery=recovery) as able:
        assert await finish(able) == ["reserve", "charge", "went", "ship"]


async def test_an_heir_whose_namesake_can_says_nothing(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture, a_round: Round
) -> None:
    await left_to(database, ledger, "b")
    async with build(database, ledger, comment, "v2", executor_id="b") as heir:
        await Fleet(heir).put("b", "v1")
        await a_round(executor(heir).adopter)
        assert "it runs v2" not in said.text


async def test_with_manual_what_may_go_to_any_and_nobody_runs_is_said(
    database: str, ledger: Ledger, said: pytest.LogCaptureFixture
) -> None:
    await left_to(database, ledger, None)
    async with build(database, ledger, comment, "v2", executor_id="b", recovery="manual") as other:
        await until(lambda: "1 workflow that executor 'a' left and that may go to any are of version v1" in said.text)
        assert await version_of(other) == "v1"


async def test_with_own_what_may_go_to_any_is_adopted(database: str, ledger: Ledger) -> None:
    await left_to(database, ledger, None)
    async with build(database, ledger, comment, "v2", executor_id="b", recovery="own") as other:
        assert await finish(other) == ["reserve", "charge", "went", "ship"]
        assert await version_of(other) == "v2"
