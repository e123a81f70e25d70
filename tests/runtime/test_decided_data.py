"""Each decision may carry ``set=`` and ``because=``: both are on record, and what is set reaches whoever runs next."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure import App
from perdure.recovery import (
    Compensate,
    Decision,
    Default,
    Delete,
    Hold,
    Incident,
    MoveTo,
    Rerun,
    Resume,
    RunFrom,
    Skip,
    Terminate,
)
from perdure.testing import Harness
from tests.runtime.deploys import is_of
from tests.runtime.interrupted import Shop, always
from tests.runtime.support import Ledger, crash, until

DATA: dict[str, Any] = {"was_failed": True, "by": ["ann", 2]}
GIVEN: dict[str, Any] = {"set": DATA, "because": "the disk was full"}
DECISIONS: list[Decision] = [
    Default(**GIVEN), Resume(**GIVEN), Rerun(**GIVEN), RunFrom("charge", **GIVEN), Skip(result=5, **GIVEN),
    Hold(**GIVEN), Terminate(**GIVEN), Delete(**GIVEN), Compensate(**GIVEN), MoveTo("v9", **GIVEN),
]  # fmt: skip
ENDS = {"hold": "held", "terminate": "terminated", "compensate": "failed", "move_to": "queued"}


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.name)
async def test_both_are_on_record_with_the_decision(shop: Shop, h: Harness, decision: Decision) -> None:
    @shop.app.recovery_policy(shop.order)
    def policy(incident: Incident) -> Decision:
        return decision if incident.run == 1 and not incident.parameters else Default()

    await shop.interrupt(h)
    shop.gate.set()
    await h.settle()
    [row] = [row for row in await shop.decisions(h) if row.because == "the disk was full"]
    # By Default() what is done is what the default is: to resume.
    assert row.decision == ("resume" if decision.name == "default" else decision.name)
    assert msgspec.json.decode(row.parameters or b"null") == DATA
    found = await h.store.rows(["a"])
    if decision.name == "delete":
        assert found == {}
        return
    assert found["a"].status == ENDS.get(decision.name, "completed")
    if decision.name == "hold":
        await shop.order.handle("a").resume(reason="it has room again")
        await h.settle()
        assert (await h.store.rows(["a"]))["a"].status == "completed"
    if decision.name not in ENDS or decision.name == "hold":
        assert shop.ledger[-1] == f"ship {DATA}"


async def test_what_was_set_goes_along_to_the_other_version(database: str, ledger: Ledger) -> None:
    def shop(version: str) -> Shop:
        return Shop(App("shop", database=database, version=version, adopt="never"), ledger)

    old = shop("v1")
    await old.app.open()
    await old.order.options(id="a").start("sku", 5)
    await old.inside.wait()
    await crash(old.app)
    mover = shop("v1")
    always(mover, MoveTo("v9", **GIVEN))
    async with mover.app:
        await until(lambda: is_of(mover.app, "v9"))
    new = shop("v9")
    new.gate.set()
    async with new.app:
        assert await new.order.handle("a").result(timeout=20) == ["r-sku", 5, "shipped"]
    assert ledger == ["reserve", "charge", "charge", f"ship {DATA}"]
