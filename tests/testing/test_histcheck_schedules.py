"""The judge of schedules: content with what they do, and not with evidence that was spoiled."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from perdure import App
from perdure.testing.histcheck import Evidence, check, install_audit, read_audit
from tests.runtime.support import until

Lines = list[dict[str, Any]]
NUMBERS = {"I41", "I42", "I44", "I44b"}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return asyncio.run(worked(f"sqlite:///{tmp_path_factory.mktemp('audit')}/shop.db"))


async def worked(url: str) -> Lines:
    """Some seconds of a schedule, triggered, paused and resumed."""
    await install_audit(url)
    app = App("shop", database=url)

    @app.schedule(every=1, overlap="skip")
    @app.workflow(name="tick")
    async def tick(due: datetime) -> None: ...

    async with app:
        ticks = app.client.schedule("tick")
        await ticks.trigger()
        await until(lambda: _started(ticks, 3))
        await ticks.pause()
        await ticks.set(catch_up=5)
        await ticks.resume()
        await until(lambda: _started(ticks, 5))
    return await read_audit(url)


async def _started(ticks: Any, count: int) -> bool:
    return len([one for one in await ticks.firings() if one.state == "started"]) >= count


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_what_happened_is_in_order(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/shop.db" if store == "sqlite" else str(request.getfixturevalue("postgres_url"))
    verdict = check(Evidence(await worked(url)), only=NUMBERS)
    assert verdict.good, str(verdict)
    assert min(verdict.looked.values()) >= 4, str(verdict)


def lines(audit: Lines, table: str, op: str) -> Lines:
    return [line for line in audit if line["table"] == table and line["op"] == op]


def forget_a_firing(audit: Lines) -> None:
    audit.remove(lines(audit, "firing", "insert")[2])


def forget_a_workflow(audit: Lines) -> None:
    audit.remove(lines(audit, "workflow", "insert")[1])


def another_id(audit: Lines) -> None:
    lines(audit, "firing", "insert")[1]["row"]["workflow"] = "tick@another"


def go_back(audit: Lines) -> None:
    lines(audit, "schedule", "update")[2]["row"]["next"] -= 5_000_000


def lose_a_revision(audit: Lines) -> None:
    audit.remove(lines(audit, "schedule", "update")[1])


def unsay(audit: Lines) -> None:
    line = copy.deepcopy(lines(audit, "firing", "insert")[0])
    line |= {"n": audit[-1]["n"] + 1, "op": "update"}
    line["row"] |= {"state": 2, "reason": "missed"}
    audit.append(line)


def never_end(audit: Lines) -> None:
    first = lines(audit, "firing", "insert")[0]["row"]["workflow"]
    for line in lines(audit, "workflow", "update"):
        if line["row"]["id"] == first:
            line["row"]["status"] = 2


@pytest.mark.parametrize(
    ("spoil", "number"),
    [
        (forget_a_firing, "I42"), (forget_a_workflow, "I41"), (another_id, "I41"), (go_back, "I44"),
        (lose_a_revision, "I44"), (unsay, "I44"), (never_end, "I44b"),
    ],
)  # fmt: skip
def test_spoiled_evidence_is_found(audit: Lines, spoil: Callable[[Lines], None], number: str) -> None:
    spoiled = copy.deepcopy(audit)
    spoil(spoiled)
    assert number in check(Evidence(spoiled), only=NUMBERS).broken
