"""A small chaos run on each database, and the judge that is not fooled: what it must see is put before it.

On Postgres CI makes a whole run instead, beside its tests: see ``.ci/run``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from chaos import accounts, plan
from chaos.fleet import Member
from chaos.judge import Row
from perdure.model.states import CODE, Status
from tests.effort import EFFORT, by_effort

pytestmark = [pytest.mark.crash, pytest.mark.slow]

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
@pytest.mark.skipif(EFFORT == "ci", reason="CI makes a whole run, of 3,000 workflows: see .ci/run")
async def test_on_postgres() -> None:
    await run()


async def test_on_sqlite() -> None:
    await run("--sqlite")


@pytest.mark.parametrize(
    ("executor", "told", "command", "left", "finding"),
    [
        (True, True, "this", True, False),  # it has drained: others may find it gone before its lease ends
        (True, False, "this", False, True),
        (False, False, "this", True, False),
        (True, True, "perdure.nothing", False, True),  # an error is one, also of who was told to drain
    ],
)
def test_who_ends_as_it_should_is_noted_and_who_does_not_is_a_finding(
    tmp_path: Path, executor: bool, told: bool, command: str, left: bool, finding: bool
) -> None:
    member = Member("one", [command], tmp_path, executor=executor)
    member.start()
    assert member.process is not None
    pid = member.process.pid
    member.told_to_die = told
    member.process.wait()
    member.see_to()
    assert (set(member.left), bool(member.findings)) == ({pid} if left else set(), finding)


ROW = Row("w1", 1, "tree", CODE[Status.COMPLETED], None, "", None, 0, 1, None, "narrow", "a")


def moved(*moves: tuple[str, str, str, int]) -> dict[str, int]:
    """Balances after these."""
    balances = dict.fromkeys(plan.ACCOUNTS, plan.CENTS)
    for _, source, target, cents in moves:
        balances[source] -= cents
        balances[target] += cents
    return balances


@pytest.mark.parametrize(
    ("moves", "more", "wrong"),
    [
        ([("w1.1", "ann", "bob", 5)], 0, ""),
        ([], 0, "never applied"),
        ([("w1.1", "ann", "bob", 5)] * 2, 0, "2 times"),
        ([("w1.1", "ann", "bob", 5), ("w1.2", "ann", "bob", 5)], 0, "never planned"),
        ([("w1.1", "ann", "bob", 5)], 1, "together"),
    ],
)
def test_transfers_are_judged(moves: list[tuple[str, str, str, int]], more: int, wrong: str) -> None:
    planned = plan.Planned(
        "w1", blocking=False, tree=[], mail=(), cancel=None, ends="completed", result=[],
        moves={"w1.1": plan.Move("ann", "bob", 5)},
    )  # fmt: skip
    balances = moved(*moves)
    balances["ann"] += more
    found = list(accounts.transfers({"w1": planned}, {"w1": ROW}, moves, balances))
    assert wrong in "; ".join(found)
    assert bool(found) == bool(wrong)


@pytest.mark.parametrize(
    ("line", "told", "wrong"),
    [
        (plan.Line("narrow", "a", 0, 0, again=True), "w1", ""),
        (plan.Line("narrow", "a", 0, 0, again=True), "w2", "answered"),
        (plan.Line("paced", "a", 0, 0, again=True), "w1:twin", "enqueued"),
        (None, "w1", "enqueued"),
    ],
)
def test_lines_are_judged(line: plan.Line | None, told: str, wrong: str) -> None:
    planned = plan.Planned(
        "w1", blocking=False, tree=[], mail=(), cancel=None, ends="completed", result=[], line=line
    )  # fmt: skip
    found = list(accounts.lines({"w1": planned}, {"w1": ROW}, {"w1": told}))
    assert wrong in "; ".join(found)
    assert bool(found) == bool(wrong)


@pytest.mark.parametrize(
    ("fired", "wrong"),
    [
        ([(1, 1, 1, "w1", ""), (2, 2, 1, "w1", "")], ""),
        ([(1, 1, 1, "w1", ""), (3, 3, 1, "w1", "")], "followed"),
        ([(1, 1, 1, "w1", "")], "the next"),
        ([(1, 1, 1, "w1", ""), (2, 2, 1, "w0", "")], "nowhere"),
        ([(1, 1, 1, "w1", ""), (2, 2, 2, None, "overlap")], "to miss nothing"),
        ([(1, 1, 1, "w1", ""), (2, 2, 3, "w1", "")], "neither"),
        ([], "never fired"),
    ],
)
def test_times_are_judged(fired: list[tuple[int, int, int, str | None, str]], wrong: str) -> None:
    second = accounts.SECOND
    lines = [accounts.Fired("tick", at * second, until * second, *rest) for at, until, *rest in fired]  # type: ignore[arg-type]
    tock = accounts.Fired("tock", second, second, 1, "w1", "")
    found = list(accounts.times([*lines, tock], {"w1": ROW}, {"tick": 3 * second, "tock": 2 * second}))
    assert wrong in "; ".join(found)
    assert bool(found) == bool(wrong)


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
        "move",
        "leaf",
    }
    assert {each.ends for each in planned} == {"completed", "failed", "cancelled", "either", "waiting"}
    assert any(each.blocking for each in planned)
    assert any(each.pause for each in planned)
    assert {each.line.queue for each in planned if each.line} == {"narrow", "paced"}
    assert any(each.line.again for each in planned if each.line)


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
