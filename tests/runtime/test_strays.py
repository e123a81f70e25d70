"""What is left by owners that no row tells of, or of a version whose launch is lost, goes on on other code."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App
from perdure.recovery import MoveTo
from perdure.runtime import adoption
from tests.runtime.deploys import Round, begun, build, comment, finish, first, is_of, version_of
from tests.runtime.interrupted import Shop, always
from tests.runtime.support import Ledger, crash, executor, row, until


@pytest.mark.usefixtures("stay_in_memory")  # put away while it waits, it would no longer tell of the death
@pytest.mark.parametrize("recovery", ["fleet", "single"])
async def test_what_a_forgotten_owner_left_goes_on_on_other_code(database: str, ledger: Ledger, recovery: Any) -> None:
    """It started something before it learned that it was dead, or a failover lost its row; then it was gone."""
    app = build(database, ledger, first, "v1")
    await app.open()
    store, me = app._home.engine().line.store, executor(app).me.id
    await store.bury([me], expired_only=False)
    await store.leave(me)
    await begun(app, "a")
    await crash(app)
    async with build(database, ledger, comment, "v2", recovery=recovery) as changed:
        await until(lambda: is_of(changed, "v2"))
        assert await finish(changed) == ["reserve", "charge", "went", "ship"]
        assert (await row(changed, "a")).attempts == 1
    assert ledger.counts == {"reserve('sku', 1)": 1, "charge(5,)": 1, "ship()": 1}


async def test_with_own_a_forgotten_owners_work_is_left_to_its_like(database: str, ledger: Ledger) -> None:
    """Whose it was nobody can tell: only the process itself, if it lives on."""
    app = build(database, ledger, first, "v1")
    await app.open()
    store, me = app._home.engine().line.store, executor(app).me.id
    await store.bury([me], expired_only=False)
    await store.leave(me)
    await begun(app, "a")
    await crash(app)
    async with build(database, ledger, comment, "v2", recovery="own") as changed:
        await executor(changed).adopter.round()
        assert (await row(changed, "a")).owner == me
    async with build(database, ledger, comment, "v2") as changed:
        assert await finish(changed) == ["reserve", "charge", "went", "ship"]


async def test_what_has_begun_goes_on_though_the_launch_of_its_version_is_lost(
    database: str, ledger: Ledger, a_round: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a failover. What asks for a version that was never launched waits for its launch."""
    async with build(database, ledger, first, "v1") as app:
        await begun(app, "a")
    async with build(database, ledger, comment, "v2") as app:
        await app.test_order.options(id="next", version="v1").start()  # type: ignore[attr-defined]
        store = app._home.engine().line.store
        versions = store.versions

        async def lost() -> Any:
            return [version for version in await versions() if version.name != "v1"]

        monkeypatch.setattr(store, "versions", lost)
        await a_round(adoption.Adopter(executor(app)))
        assert [await version_of(app, id) for id in ("a", "next")] == ["v2", "v1"]
        await a_round(adoption.Adopter(executor(app)))
        assert await version_of(app, "next") == "v1"
        assert await finish(app) == ["reserve", "charge", "went", "ship"]


async def test_what_a_policy_has_sent_to_a_version_waits_for_its_launch(app: App, shop: Shop, a_round: Round) -> None:
    """It has begun, too: but under another version than the one it is of now."""
    always(shop, MoveTo("v9"))
    await app.open()
    await shop.order.options(id="a").start("sku", 5)
    await shop.inside.wait()
    await crash(app)
    async with app:
        await until(lambda: is_of(app, "v9"))
        await a_round(adoption.Adopter(executor(app)))
        assert await version_of(app) == "v9"
        assert (await row(app, "a")).status == "queued"
