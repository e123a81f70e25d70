"""Killed with SIGKILL in the middle of each of an operator's orders, and of the work that they let go on."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from perdure.model.ids import RunKey
from perdure.model.records import Kind
from perdure.model.states import Status
from perdure.store.open import open_store
from perdure.testing.crash import CRASHES

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.sampled(1)]

ROOT = Path(__file__).resolve().parents[2]
ORDERS = ("held", "cancelled", "fork", "restart", "moved", "reset", "skipped")


async def mover(url: str, ledger: Path, *order: str, kill_at: str | None = None) -> tuple[int, list[str]]:
    """Run the program; ``kill_at``: kill it when it says this."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.mover", url, str(ledger), *order, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said: list[str] = []
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode().strip():
        said.append(line)
        if kill_at is not None and line.startswith(kill_at):
            process.kill()
    return await process.wait(), said


async def killed_and_done_again(url: str, ledger: Path) -> None:
    assert (await mover(url, ledger, "prepare"))[0] == 0
    for order in ORDERS:
        for mode in CRASHES:
            code, said = await mover(url, ledger, order, mode.name)
            # Once it is done there is nothing to write: held work is queued, and queued work is put first again.
            assert code == -signal.SIGKILL or said[-1].startswith("done"), (order, mode, code, said)
        code, said = await mover(url, ledger, order)
        assert code == 0
        assert said[-1] in {"done queued", "done waiting", "done source-2", "done again"}
    code, said = await mover(url, ledger, "work", kill_at="effect")
    kills = int(code == -signal.SIGKILL)
    assert kills, said
    code, said = await mover(url, ledger, "work")
    assert code == 0
    assert said[-1] == f"done {[[1, 2, 'go', 3]] * 7}"
    await check(url, await asyncio.to_thread(lambda: ledger.read_text().splitlines()), kills)


async def check(url: str, lines: list[str], kills: int) -> None:
    """Each order was carried out once, whatever was killed in it."""
    effects = [line.split() for line in lines]
    keys = Counter(key for _, _, key in effects)
    by_id = {id: Counter(n for who, n, _ in effects if who == id) for id in {e[0] for e in effects}}
    assert set(by_id) == {"held", "cancelled", "source", "source-2", "again", "moved", "reset", "skipped"}
    again = {key for id, n, key in effects if (id, n) == ("reset", "2")}
    assert len(again) == 1, "what a reset does again has the same key"
    assert keys.pop(again.pop()) in (2, 2 + kills)
    for id, own in by_id.items():
        first = {"source-2": "2", "source": "1"}.get(id, "1")
        never = {"source": "3", "skipped": "2"}.get(id)
        assert set(own) == {n for n in ("1", "2", "3") if n >= first and n != never}, (id, own)
    assert max(keys.values()) <= 1 + kills, "what was recorded was not done again"
    store = open_store(url, "mover")
    await store.open()
    try:
        rows = await store.rows(["held", "cancelled", "source", "source-2", "again", "source-3", *ORDERS[4:]])
        assert {id: (row.status, row.run) for id, row in rows.items()} == {
            "moved": (Status.COMPLETED, 1),
            "reset": (Status.COMPLETED, 2),
            "skipped": (Status.COMPLETED, 1),
            "held": (Status.COMPLETED, 1),
            "cancelled": (Status.COMPLETED, 2),
            "source": (Status.TERMINATED, 1),
            "source-2": (Status.COMPLETED, 1),
            "again": (Status.COMPLETED, 1),
        }
        before = await store.run(RunKey("cancelled", 1))
        assert before is not None
        assert before.status is Status.SUPERSEDED
        histories = await store.histories([row.key for row in rows.values()])
        for key, history in histories.items():
            assert [record.seq for record in history] == list(range(1, len(history) + 1)), key
            cuts = [record for record in history if record.kind is Kind.CUT]
            ordered = [record for record in history if record.kind is Kind.DECISION and record.name in ("move", "skip")]
            assert len(ordered) == (key.id in ("moved", "skipped")), key
            assert len(cuts) == (key.id in ("cancelled", "source-2", "again", "reset")), key
    finally:
        await store.close()


async def test_sqlite(tmp_path: Path) -> None:
    await killed_and_done_again(f"sqlite:///{tmp_path / 'mover.db'}", tmp_path / "ledger")


@pytest.mark.postgres
async def test_postgres(postgres_url: str, tmp_path: Path) -> None:
    await killed_and_done_again(postgres_url, tmp_path / "ledger")
