"""Killed with SIGKILL while a batch moves, or resets open and closed ones: each once, one line of audit each."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from perdure.model.batches import BatchState
from perdure.model.cuts import latest_cut
from perdure.model.ids import RunKey
from perdure.model.records import MOVE
from perdure.model.states import Reason, Status
from perdure.model.writes import Hold
from perdure.store.open import open_store
from tests.crash.test_every_write import SEED
from tests.crash.test_kill_batches import perdure
from tests.store.build import close, record, running, unit

pytestmark = [pytest.mark.crash, pytest.mark.slow]

IDS = [f"w{n:04}" for n in range(300)]
KILLS = 3
VERBS = {"move": ("--to", "v2"), "reset": ("--to", "first", "--exclude", "all", "--move-to", "v2")}


async def fill(url: str, verb: str) -> None:
    """Held ones with a record each; of those that are reset, every other one has failed."""
    store = open_store(url, "shop")
    await store.open()
    try:
        await store.migrate()
        claim = await running(store, *IDS)
        ends = [close(Status.FAILED) if verb == "reset" and n % 2 else Hold(Reason.NO_CODE, "") for n in range(300)]
        units = [unit(id, claim, records=[record(1)], change=end) for id, end in zip(IDS, ends, strict=True)]
        assert all(verdict.applied for verdict in (await store.commit(units)).verdicts)
    finally:
        await store.close()


async def check(url: str, verb: str) -> None:
    store = open_store(url, "shop")
    await store.open()
    try:
        batch = await store.batches.get("k")
        assert batch is not None
        assert (batch.state, batch.done) == (BatchState.DONE, len(IDS))
        assert sorted(line.id for line in await store.batches.audits("k", IDS)) == IDS
        run = 2 if verb == "reset" else 1
        rows = await store.rows(IDS)
        assert {(row.status, row.run, row.version) for row in rows.values()} == {(Status.QUEUED, run, "v2")}
        for records in (await store.histories([RunKey(id, run) for id in IDS])).values():
            cut = latest_cut(records)
            if verb == "reset":
                assert cut is not None
                assert (len(records), cut.key, cut.run) == (1, "batch k", 1)
            else:
                assert [one.name for one in records][1:] == [MOVE]
    finally:
        await store.close()


async def killed_and_gone_on_with(url: str, verb: str) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    await fill(url, verb)
    words = ("apply", verb, "id IS NOT NULL", *VERBS[verb], "--force", "--rate", "300")
    order = (*words, "--key", "k", "--reason", "bad", "--yes")
    code, said = await perdure(url, *order, kill_after=chance.randrange(1, 3))
    assert code == -signal.SIGKILL, said
    for _ in range(KILLS - 1):  # in chunks of thirty
        code, said = await perdure(url, "resume", "k", kill_after=1)
        assert code == -signal.SIGKILL, said
        assert said[-1]["waiting"], "it was killed in the middle"
    code, said = await perdure(url, "resume", "k")
    assert (code, said[-1]["failed"], said[-1]["skipped"]) == (0, 0, 0)
    assert (await perdure(url, *order))[0] == 0
    await check(url, verb)


@pytest.mark.parametrize("verb", VERBS)
async def test_sqlite(tmp_path: Path, verb: str) -> None:
    await killed_and_gone_on_with(f"sqlite:///{tmp_path / 'shop.db'}", verb)


@pytest.mark.postgres
@pytest.mark.parametrize("verb", VERBS)
async def test_postgres(postgres_url: str, verb: str) -> None:
    await killed_and_gone_on_with(postgres_url, verb)
