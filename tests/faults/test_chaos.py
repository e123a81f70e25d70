"""A small chaos run on each database, and the judge that is not fooled: what it must see is put before it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from chaos import plan
from tests.effort import by_effort

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--workflows", by_effort("40", "80", "80"), "--executors", "3", "--kills", by_effort("2", "4", "4"),
    "--pauses", by_effort("1", "2", "2"), "--restarts", by_effort("1", "2", "2"), "--cuts", by_effort("3", "6", "6"),
    "--flying", "30", "--no-floors",
]  # fmt: skip


async def run(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chaos", *SMALL, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said = (await process.communicate())[0].decode()
    print(said)
    assert process.returncode == 0, said


@pytest.mark.postgres
async def test_on_postgres() -> None:
    await run()


async def test_on_sqlite() -> None:
    await run("--sqlite")


def sizes() -> plan.Sizes:
    return plan.Sizes(
        workflows=100, executors=3, clients=2, kills=5, pauses=4, restarts=3, cuts=6, lease=3.0, flying=10
    )


def test_a_seed_is_one_plan() -> None:
    assert list(plan.workflows(7, 50)) == list(plan.workflows(7, 50))
    assert plan.faults(7, sizes()) == plan.faults(7, sizes())
    assert plan.faults(7, sizes()) != plan.faults(8, sizes())


def test_every_kind_of_action_and_end_is_drawn() -> None:
    planned = list(plan.workflows(1, 1000))
    kinds = {action[0] for each in planned for action in each.tree}
    assert kinds >= {
        "step",
        "block",
        "retry",
        "once",
        "child",
        "talk",
        "told",
        "gather",
        "group",
        "race",
        "new",
        "mail",
    }
    assert {each.ends for each in planned} == {"completed", "failed", "cancelled", "either", "waiting"}
    assert any(each.blocking for each in planned)


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        (["a", None], ["a", None], True),
        (["a"], ["a", "a"], False),
        ([plan.OneOf(("x", "y"))], ["y"], True),
        ([plan.OneOf(("x", "y"))], ["z"], False),
        ([["a"], plan.OneOf((["b"],))], [["a"], ["b"]], True),
    ],
)
def test_what_the_model_says_is_compared_at_every_depth(pattern: object, value: object, fits: bool) -> None:
    assert plan.matches(pattern, value) is fits
