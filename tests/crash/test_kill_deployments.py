"""Killed with SIGKILL at the write of each order of a deployment, and run again: all of it was done, or nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure.model.deployments import DeploymentInfo
from perdure.operations.deployments import describe
from perdure.store.open import open_store
from perdure.testing.crash import CRASHES, Mode

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.sampled(1)]

ROOT = Path(__file__).resolve().parents[2]
# What each order leaves, in the order in which they are given: the current version, the ramp, v2's metadata, versions.
ORDERS: dict[str, tuple[str, str | None, dict[str, Any], set[str]]] = {
    "ramp": ("v1", "v3", {}, {"v1", "v2", "v3"}),
    "current": ("v2", "v3", {}, {"v1", "v2", "v3"}),
    "unset": ("v2", None, {}, {"v1", "v2", "v3"}),
    "note": ("v2", None, {"commit": "4f1c2aa"}, {"v1", "v2", "v3"}),
    "delete": ("v2", None, {"commit": "4f1c2aa"}, {"v2", "v3"}),
}


async def deployer(url: str, *order: str) -> tuple[int, str]:
    """Run the program: its exit code, and the last it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.deployer", url, *order, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode().strip()


async def seen(url: str) -> DeploymentInfo:
    store = open_store(url, "deployed")
    await store.open()
    try:
        return describe("deployed", await store.deployment(changes=100))
    finally:
        await store.close()


def short(found: DeploymentInfo) -> tuple[str, str | None, dict[str, Any], set[str]]:
    versions = {one.version: one for one in found.versions}
    return found.current, found.ramping, versions["v2"].metadata, set(versions)


async def killed_and_ordered_again(url: str) -> None:
    assert (await deployer(url, "prepare"))[0] == 0
    before = await seen(url)
    for order, expected in ORDERS.items():
        for mode in CRASHES:
            code, said = await deployer(url, order, mode.name)
            assert code == -signal.SIGKILL or said.startswith("done"), (order, mode, code, said)
            now = await seen(url)
            done = short(now) == expected
            assert done or now == before, f"half of {order}, killed {mode}"
            assert done or mode is Mode.BEFORE
        code, said = await deployer(url, order)
        assert (code, said.split()[:2]) == (0, ["done", str(not done)]), "the next time it says whether it was done"
        before = await seen(url)
        assert short(before) == expected
        assert len(before.changes) == before.revision == int(said.split()[2]), "each change is noted, once"
    kinds = [one.kind for one in reversed(before.changes)]
    assert kinds == [
        "launch", "set_ramping_version", "set_current_version", "unset_ramping_version", "update_metadata",
        "delete_version",
    ]  # fmt: skip


async def test_sqlite(tmp_path: Path) -> None:
    await killed_and_ordered_again(f"sqlite:///{tmp_path / 'deployed.db'}")


@pytest.mark.postgres
async def test_postgres(postgres_url: str) -> None:
    await killed_and_ordered_again(postgres_url)
