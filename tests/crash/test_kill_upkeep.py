"""A purge and a copy, killed with SIGKILL right before a statement: no half workflow, nothing left, new work served."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.effort import EFFORT, by_effort

pytestmark = [
    pytest.mark.crash,
    pytest.mark.slow,
    pytest.mark.timeout(by_effort(300, 300, 1800)),
]

ROOT = Path(__file__).resolve().parents[2]
ALL = EFFORT == "all"  # before every statement, not only before some
Database = Callable[[str], str]


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A fresh database of a kind; Postgres once."""

    def make(kind: str) -> str:
        if kind == "postgres":
            return str(request.getfixturevalue("postgres_url"))
        return f"sqlite:///{tmp_path}/{len(list(tmp_path.iterdir()))}.db"

    return make


async def killed(*args: str, step: int) -> int:
    """Run the program; how often it was killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.keeper", *args, str(1 if ALL else step), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, f"{said.decode()}\n{errors.decode()}"
    return int(said.decode().split()[-1])


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_a_purge_killed_at_any_statement_leaves_whole_workflows(database: Database, kind: str) -> None:
    assert await killed(
        "purge", database(kind), step={"sqlite": 11, "postgres": 4}[kind] * by_effort(2, 1, 1)
    ) >= by_effort(2, 4, 4)


@pytest.mark.postgres
@pytest.mark.parametrize("kinds", ["sqlite postgres", "postgres sqlite"])
async def test_a_copy_killed_at_any_statement_goes_on(database: Database, kinds: str) -> None:
    source, target = kinds.split()
    assert await killed("copy", database(source), database(target), step=by_effort(131, 61, 1)) >= by_effort(2, 4, 4)
