"""Killed with SIGKILL in the middle of a batch, again and again: each target once, one line of audit."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

import pytest

from perdure.model.batches import BatchState, Fate
from perdure.model.cuts import cut_of
from perdure.model.ids import RunKey
from perdure.model.records import Kind
from perdure.model.states import Status
from perdure.store.open import open_store
from tests.crash.test_every_write import SEED
from tests.store.build import outside, start

pytestmark = [pytest.mark.crash, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
MANY = 600
KILLS = 4
IDS = [f"w{n:04}" for n in range(MANY)]


async def fill(url: str) -> None:
    store = open_store(url, "shop")
    await store.open()
    try:
        await store.migrate()
        await store.commit([outside(children=[start(id) for id in IDS])])
    finally:
        await store.close()


async def perdure(url: str, *args: str, kill_after: int | None = None) -> tuple[int, list[dict[str, object]]]:
    """Run a command of the batch; ``kill_after``: kill it once it has told of so many chunks."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perdure.cli", "batch", *args, "-d", url, "-o", "jsonl", cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said: list[dict[str, object]] = []
    assert process.stdout is not None
    while line := await process.stdout.readline():
        said.append(json.loads(line)["batch"])
        if kill_after is not None and len(said) == kill_after:
            process.kill()
    return await process.wait(), said


async def killed_and_gone_on_with(url: str) -> None:
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    await fill(url)
    order = (
        "apply",
        "restart",
        "id IS NOT NULL",
        "--terminate",
        "--key",
        "k",
        "--rate",
        "500",
        "--reason",
        "bad",
        "--yes",
    )
    code, said = await perdure(url, *order, kill_after=chance.randrange(1, 3))
    assert code == -signal.SIGKILL, said
    for _ in range(KILLS - 1):  # in chunks of fifty: 12 in all
        code, said = await perdure(url, "resume", "k", kill_after=1)
        assert code == -signal.SIGKILL, said
        assert said[-1]["waiting"], "it was killed in the middle"
    code, said = await perdure(url, "resume", "k")
    assert code == 0
    assert (said[-1]["done"], said[-1]["total"], said[-1]["state"]) == (MANY, MANY, "done")
    code, again = await perdure(url, *order)
    assert code == 0
    assert {**again[-1], "failures": []} == {**said[-1], "failures": []}
    await check(url)


async def check(url: str) -> None:
    """Of each target: ended once, begun anew once, by one line of audit; and nothing else is there."""
    store = open_store(url, "shop")
    await store.open()
    try:
        batch = await store.batches.get("k")
        assert batch is not None
        assert batch.state is BatchState.DONE
        targets = await store.batches.targets("k", Fate.DONE, "", MANY + 1)
        assert [(one.id, one.new, one.tries) for one in targets] == [(id, f"{id}-2", 1) for id in IDS]
        lines = await store.batches.audits("k", IDS)
        assert sorted(line.id for line in lines) == IDS
        assert {(line.verb, line.reason, line.before) for line in lines} == {
            ("restart", "bad", "queued, run 1, version v1")
        }
        rows = await store.rows([*IDS, *(f"{id}-2" for id in IDS), *(f"{id}-3" for id in IDS)])
        assert len(rows) == 2 * MANY
        assert {rows[id].status for id in IDS} == {Status.TERMINATED}
        assert {rows[f"{id}-2"].status for id in IDS} == {Status.QUEUED}
        histories = await store.histories([RunKey(f"{id}-2", 1) for id in IDS])
        for key, records in histories.items():
            [mark] = records
            assert mark.kind is Kind.CUT
            assert cut_of(mark).id == key.id.removesuffix("-2")
        asked = [line.verb for line in await store.batches.audits("k", [""])]
        assert asked == ["batch take"] * KILLS + ["batch restart"]
    finally:
        await store.close()


async def test_sqlite(tmp_path: Path) -> None:
    await killed_and_gone_on_with(f"sqlite:///{tmp_path / 'shop.db'}")


@pytest.mark.postgres
async def test_postgres(postgres_url: str) -> None:
    await killed_and_gone_on_with(postgres_url)
