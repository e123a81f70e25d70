"""The judge of orders and problems: content with what they do, on both stores, and not with spoiled evidence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import App, Retry, Topic, recv
from perdure.batches import Cancel, Reset
from perdure.testing.histcheck import Evidence, check, install_audit, read_audit
from perdure.testing.simulation import simulate
from perdure.testing.simulation.faults import Mix
from tests.runtime.support import until

Lines = list[dict[str, Any]]
NUMBERS = {"I12b", "I12c", "I50", "I54", "I54b", "I55", "I56", "I61", "I62", "I64"}
NOTE = Topic[int]("note")


async def worked(url: str) -> Lines:
    """A day of an operator: a reset, a fork, a step that is skipped, batches, a ramp."""
    await install_audit(url)
    app = App("shop", database=url, version="v1")

    @app.step(name="charge", retry=Retry(attempts=9, delay=3600))
    async def charge() -> int:
        raise ConnectionError("down")

    @app.step(name="pack")
    async def pack(n: int) -> int:
        return n

    @app.workflow(name="order")
    async def order() -> int:
        return await pack(await recv(NOTE) or 0)

    @app.workflow(name="bad")
    async def bad() -> int:
        return await charge()

    async with app:
        handles = [await order.options(id=f"o{n}").start() for n in range(3)]
        for handle in handles:
            await handle.send(7, NOTE)
            assert await handle.result(timeout=15) == 7
        for _ in range(2):
            await handles[0].reset("pack", key="again", reason="packed badly")
        assert await handles[0].result(timeout=15) == 7
        await handles[1].fork("pack", id="fork")
        stuck = await bad.options(id="stuck").start()
        await until(lambda: _failed(stuck))
        await stuck.skip("charge", 1)
        assert await stuck.result(timeout=15) == 1
        assert (await app.client.batch(Reset(to="first"), "type = order AND id = o2", reason="all").apply()).done == 1
        assert (await app.client.batch(Cancel(), "status = closed", reason="none of them").apply()).skipped
        for share in (20, 20, 0):
            await app.client.deployment.set_ramping_version("v2", share, allow_no_executors=True)
    return await read_audit(url)


async def _failed(handle: Any) -> bool:
    return (await handle.info()).problem is not None


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_what_was_ordered_is_in_order(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path}/shop.db" if store == "sqlite" else str(request.getfixturevalue("postgres_url"))
    verdict = check(Evidence(await worked(url)))
    assert verdict.good, str(verdict)
    named = NUMBERS if store == "postgres" else NUMBERS - {"I12b", "I12c", "I56", "I62"}  # of commits with names
    assert all(verdict.looked[number] for number in named), str(verdict)


# -- spoiled: worlds have orders of every kind


@pytest.fixture(scope="module")
def worlds() -> list[Lines]:
    found: list[Lines] = []
    for seed, kinds in [*((n, ()) for n in range(1, 9)), *((n, ("mailbox",)) for n in range(1, 9))]:
        result = simulate(seed, mode="liveness", mix=Mix.calm(orders=True, rollout=not kinds), kinds=kinds)
        assert result.good, str(result)
        found.append([
            {"n": c.n, "tx": c.tx, "at": c.at, "table": c.table, "op": c.op, "row": c.row}
            for c in result.evidence.changes
        ])  # fmt: skip
    return found


def first(audit: Lines, table: str, op: str = "", **want: Any) -> dict[str, Any]:
    for line in audit:
        told = line["table"] == table and op in ("", line["op"])
        if told and all(line["row"].get(name) == value for name, value in want.items()):
            return line
    raise LookupError(table)


def reset_of(audit: Lines, kept: str = "") -> dict[str, Any]:
    return next(
        line for line in audit
        if line["table"] == "history" and line["row"]["name"] == "reset" and kept in line["row"]["data"]
    )  # fmt: skip


def append(audit: Lines, like: dict[str, Any], op: str, **changed: Any) -> None:
    line = copy.deepcopy(like) | {"n": audit[-1]["n"] + 1, "tx": audit[-1]["tx"] + 1, "op": op}
    line["row"] |= changed
    audit.append(line)


def forget_a_problem(audit: Lines) -> None:
    audit.remove(first(audit, "problem", "insert", kind="step_failed"))


def keep_a_problem(audit: Lines) -> None:
    audit[:] = [line for line in audit if line["table"] != "problem" or line["row"]["cleared"] is None]


def skip_a_revision(audit: Lines) -> None:
    first(audit, "routing", "update")["row"]["revision"] += 1


def change_what_was_kept(audit: Lines) -> None:
    mark = reset_of(audit, '"kept":1')["row"]
    first(audit, "history", "insert", id=mark["id"], run=mark["run"], seq=1)["row"]["name"] = "another"


def write_to_the_old_run(audit: Lines) -> None:
    mark = reset_of(audit)["row"]
    old = first(audit, "history", "insert", id=mark["id"], run=mark["run"] - 1)
    append(audit, old, "insert", seq=99)


def reset_again(audit: Lines) -> None:
    mark = reset_of(audit)
    data = mark["row"]["data"].replace(f'"run":{mark["row"]["run"] - 1}', f'"run":{mark["row"]["run"]}')
    append(audit, mark, "insert", run=mark["row"]["run"] + 1, nonce="ab" * 16, data=data)


def fork_another(audit: Lines) -> None:
    mark = first(audit, "history", "insert", name="fork")["row"]
    first(audit, "history", "insert", id=mark["id"], seq=1)["row"]["name"] = "another"


def lose_a_message(audit: Lines) -> None:
    line = next(x for x in audit if x["table"] == "message" and x["op"] == "update" and x["row"]["taken_seq"] is None)
    audit.remove(line)


def freeze_another(audit: Lines) -> None:
    append(audit, first(audit, "batch_target", "insert"), "insert", id="another")


def settle_again(audit: Lines) -> None:
    settled = next(x for x in audit if x["table"] == "batch_target" and x["row"]["state"] == 1)
    append(audit, settled, "update", state=2)


def miscount(audit: Lines) -> None:
    next(x for x in audit if x["table"] == "batch" and x["row"]["done"])["row"]["done"] += 1


def too_soon(audit: Lines) -> None:
    done = next(x for x in audit if x["table"] == "batch" and x["row"]["done"])
    for line in audit[: done["n"] - 1]:
        if line["table"] == "batch" and line["row"]["key"] == done["row"]["key"]:
            line["row"]["next"] = done["at"] + 1


def say_nothing(audit: Lines) -> None:
    audit.remove(next(x for x in audit if x["table"] == "audit_line" and x["row"]["id"]))


@pytest.mark.parametrize(
    ("spoil", "number"),
    [
        (forget_a_problem, "I12b"), (forget_a_problem, "I12c"), (keep_a_problem, "I12c"), (skip_a_revision, "I50"),
        (change_what_was_kept, "I54"), (write_to_the_old_run, "I54"), (reset_again, "I54b"), (fork_another, "I55"),
        (lose_a_message, "I56"), (freeze_another, "I61"), (settle_again, "I61"), (miscount, "I62"), (too_soon, "I62"),
        (say_nothing, "I64"),
    ],
)  # fmt: skip
def test_spoiled_evidence_is_found(worlds: list[Lines], spoil: Callable[[Lines], None], number: str) -> None:
    broken: set[str] = set()
    for world in worlds:
        spoiled = copy.deepcopy(world)
        try:
            spoil(spoiled)
        except (LookupError, StopIteration):
            continue  # nothing of the kind happened there
        broken |= check(Evidence(spoiled), only=NUMBERS).broken
    assert number in broken


def test_an_order_is_another_one_for_an_id_that_was_started_anew(worlds: list[Lines]) -> None:
    """One who replaces a workflow by a new start of its id knows nothing of the orders that were given before."""
    world = next(world for world in worlds if any(line["row"].get("name") == "reset" for line in world))
    again = copy.deepcopy(world)
    reset_again(again)
    mark = again[-1]["row"]
    assert "I54b" in check(Evidence(again), only=NUMBERS).broken
    last = [line for line in again if line["table"] == "workflow" and line["row"]["id"] == mark["id"]][-1]
    append(again, last, "update", run=mark["run"], lineage="ab" * 8)
    assert "I54b" not in check(Evidence(again), only=NUMBERS).broken
