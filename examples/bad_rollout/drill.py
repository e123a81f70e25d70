"""The runbook for a bad rollout, played with real processes: version 2 is wrong, thousands of workflows are on it.

Every command of the operator is run twice, and the second time changes no table. Three are killed in the middle. At
the end it is said what became of whom; the exit code is 0 only if all of it is as it should be.

    python -m examples.bad_rollout.drill [--workflows 2000] [--database URL]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from examples.bad_rollout import bank
from examples.bad_rollout.commands import Executor, Operator
from examples.bad_rollout.customers import Order, connect, orders, place, results, tell_addresses, until_none

RAMP = 20  # per cent
LATE = 12  # orders that come while the operator is at work
ON_V2 = "TemporalWorkerDeploymentVersion='shop:v2'"
RETRYING = f"{ON_V2} AND ExecutionStatus='Running' AND TemporalReportedProblems='category=WorkflowTaskFailed'"
CLOSED = f"{ON_V2} AND ExecutionStatus IN ('Completed', 'Failed')"
BACKLOG = "status IN (queued, running, scheduled) AND problem IS NULL"


class Drill:
    """One performance."""

    def __init__(self, database: str, folder: Path, many: int) -> None:
        self.operator = Operator(database, folder)
        self.database = database
        self.folder = folder
        self.early = orders(0, many // 5)
        self.during = orders(len(self.early), many - len(self.early) - LATE)
        self.late = orders(many - LATE, LATE)
        self.on_v2: dict[str, str] = {}  # id → kind
        self.done: Counter[str] = Counter()

    @property
    def all(self) -> list[Order]:
        return [*self.early, *self.during, *self.late]

    async def play(self) -> bool:
        """Whether all was as it should be."""
        began = time.monotonic()
        bank.open_book(self.folder / "bank.db")
        os.environ["BANK_BOOK"] = str(self.folder / "bank.db")
        async with contextlib.AsyncExitStack() as stack:
            v1 = await stack.enter_async_context(self.operator.executor("v1", "--exit-when-drained"))
            await self.order(self.early)
            v2 = await stack.enter_async_context(self.operator.executor("v2"))
            await self.roll_out()
            await self.stop()
            await self.identify()
            await stack.enter_async_context(self.operator.executor("v3"))
            await self.choose()
            await self.recover()
            await self.clean_up(v1, v2)
            await self.judge()
        print(f"\n{time.monotonic() - began:.0f} s", flush=True)
        return not self.operator.wrong

    async def order(self, some: list[Order]) -> None:
        async with connect(self.database) as client:
            await place(client, some)

    async def until_none(self, query: str) -> None:
        async with connect(self.database) as client:
            await until_none(client, query)

    # -- the acts

    async def roll_out(self) -> None:
        act("version 2 gets a part of what is new")
        await self.operator.do(
            "deployment", "set-ramping-version", "v2", "--percentage", str(RAMP), "--reason", "insurance"
        )
        await self.order(self.during)
        await self.until_none(BACKLOG)
        async with connect(self.database) as client:
            self.on_v2 = {info.id: info.name async for info in client.list("version = v2")}
        share = 100 * len(self.on_v2) / len(self.during)
        print(f"  {len(self.during)} orders came, {len(self.on_v2)} of them ({share:.0f} %) to version 2", flush=True)
        self.operator.check(RAMP / 2 < share < RAMP * 2, f"{share:.0f} % of what was new went to version 2")

    async def stop(self) -> None:
        act("stop the rollout")
        await self.operator.do(
            "deployment", "set-ramping-version", "v2", "--percentage", "0", "--reason", "it loses orders"
        )
        await asyncio.sleep(1)  # what a client knows of the routing may be a second old
        await self.order(self.late)
        await self.until_none(BACKLOG)
        async with connect(self.database) as client:
            now = int(await client.count("version = v2"))
        self.operator.check(now == len(self.on_v2), f"{now - len(self.on_v2)} more workflows went to version 2")

    async def identify(self) -> None:
        act("identify")
        kinds = Counter(self.on_v2.values())
        retrying = await self.operator.do("workflow", "count", RETRYING)
        expected = sum(kinds[kind] for kind in ("offer", "checkout", "payout", "report"))
        self.operator.check(retrying["count"] == expected, f"{retrying} retry, not {expected}")
        closed = await self.operator.do("workflow", "count", CLOSED)
        self.operator.check(closed["count"] == kinds["invoice"], f"{closed} are closed, not {kinds['invoice']}")
        await self.operator.do("workflow", "count", "version = v2 GROUP BY type, status, problem, error")
        listed = await self.operator.do("workflow", "list", CLOSED, "--limit", "10000")
        ids = {one["id"] for one in listed["workflows"]}
        self.operator.check(ids == {id for id, kind in self.on_v2.items() if kind == "invoice"}, "the list is another")

    async def choose(self) -> None:
        act("choose: version 3 is there; does it fit what version 2 has recorded?")
        fits = ("batch", "plan", "move", f"{RETRYING} AND WorkflowType='checkout'")
        v1 = await self.operator.do(*fits, "--to", "v1", code=1)
        v3 = await self.operator.do(*fits, "--to", "v3")
        self.operator.check({s["verdict"] for s in v1["plan"]["samples"]} == {"diverges"}, "version 1 fits")
        self.operator.check({s["verdict"] for s in v3["plan"]["samples"]} == {"safe"}, "version 3 does not fit")

    async def recover(self) -> None:
        act("recover")
        kinds = Counter(self.on_v2.values())
        await self.apply(
            kinds["offer"], "reset", f"{RETRYING} AND WorkflowType='offer'", "--to", "first", "--exclude", "all",
            "--move-to", "v1", "--reason", "restartable",
        )  # fmt: skip
        await self.apply(
            kinds["checkout"], "move", f"{RETRYING} AND WorkflowType='checkout'", "--to", "v3",
            "--reason", "its records are good", killed=True,
        )  # fmt: skip
        await self.apply(
            kinds["parcel"], "move", f"{ON_V2} AND ExecutionStatus='Running' AND WorkflowType='parcel'", "--to", "v3",
            "--reason", "asleep, and would meet the fault",
        )  # fmt: skip
        await self.apply(
            kinds["payout"], "reset", f"{RETRYING} AND WorkflowType='payout'", "--to", "last", "--move-to", "v3",
            "--reason", "its last records are wrong", killed=True,
        )  # fmt: skip
        await self.apply(
            kinds["report"], "restart", f"{RETRYING} AND WorkflowType='report'", "--terminate",
            "--reason", "another one is as good",
        )  # fmt: skip
        await self.apply(
            kinds["invoice"], "reset", f"{CLOSED} AND WorkflowType='invoice'", "--to", "first", "--exclude", "all",
            "--move-to", "v3", "--reason", "failed, or wrong", killed=True,
        )  # fmt: skip

    async def apply(self, expected: int, verb: str, query: str, *more: str, killed: bool = False) -> None:
        """A batch; ``killed``: its process dies in the middle, and the same command goes on."""
        command = ("batch", "apply", verb, query, *more, "--yes")
        if killed:
            slow = (*command, "--rate", str(max(1, expected // 4)))  # so that there is a middle
            left = await self.operator.killed(*slow)
            self.done["batches killed in the middle"] += 1
            self.done["targets left by the dead, and done by the next"] += left
            command = slow
        found = (await self.operator.do(*command))["batch"]
        self.operator.check(
            (found["done"], found["total"], found["failed"]) == (expected, expected, 0),
            f"{verb}: {found['done']} of {found['total']} were done, not {expected}: {found['failures']}",
        )
        kind = " ".join(more[: more.index("--reason")])
        self.done[f"{verb} {kind}".strip()] += found["done"]

    async def clean_up(self, v1: Executor, v2: Executor) -> None:
        act("drained, and away with it")
        shown = await self.operator.do("deployment", "describe-version", "v2")
        self.operator.check(shown["deployment_version"]["state"] == "drained", "version 2 is not drained")
        await self.operator.do("deployment", "set-current-version", "v3", "--reason", "insurance, mended")
        v2.process.terminate()
        await self.ended(v2)
        await self.operator.do("deployment", "delete-version", "v2", "--reason", "nothing is left of it")
        async with connect(self.database) as client:
            await tell_addresses(client, self.all)
        await self.until_none("status = open")
        await self.ended(v1)  # by itself

    async def ended(self, executor: Executor) -> None:
        code = await executor.end()
        print(f"  the executor of {executor.version} has ended, with {code}", flush=True)
        self.operator.check(code == 0, f"the executor of {executor.version} ended so: {executor.log.read_text()}")

    # -- the report

    async def judge(self) -> None:
        """Hold everything against what the orders must have come to."""
        anew = {id for id, kind in self.on_v2.items() if kind == "report"}
        ids = [f"{order.id}-2" if order.id in anew else order.id for order in self.all]
        async with connect(self.database) as client:
            found = await results(client, ids, 30)
            ends = await client.count("status = closed GROUP BY type, version, status")
        wrong = [(order.id, got) for order, got in zip(self.all, found, strict=True) if got != order.result]
        self.operator.check(not wrong, f"{len(wrong)} workflows have come to something else, such as {wrong[:3]}")
        book = bank.charges()
        owed = {order.id: order.charged for order in self.all if order.charged}
        paid = {line.order: line.cents for line in book}
        self.operator.check(paid == owed and len(book) == len(owed), "each order was charged once, and the right sum")
        asked = sum(line.asked for line in book)
        act("what became of them")
        for group in ends.groups:
            print(f"  {group.count:6}  {' '.join(str(value or '(none)') for value in group.fields.values())}")
        act("what was done")
        for what, count in self.done.items():
            print(f"  {count:6}  {what}")
        print(
            f"  {self.operator.commands:6}  commands were run twice, each with no change of any table the second time,"
        )
        print(f"          but for {self.operator.audits} lines of audit that say so")
        act("what was found")
        print(f"  {len(found) - len(wrong):6}  of {len(self.all)} workflows have completed with the right result")
        print(f"  {len(book):6}  charges for {len(owed)} orders under {len({line.key for line in book})} keys;")
        print(f"          the bank was asked {asked} times, and paid each once")


def act(title: str) -> None:
    """A heading."""
    print(f"\n== {title}", flush=True)


async def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.bad_rollout.drill", description=__doc__)
    parser.add_argument("--workflows", type=int, default=2000, help="how many (default 2000, at least 200)")
    parser.add_argument("--database", help="URL of an empty one (default: a file that is deleted)")
    given = parser.parse_args(argv)
    if given.workflows < 200:
        parser.error(f"--workflows {given.workflows}: at least 200, so that each kind is there")
    with tempfile.TemporaryDirectory(prefix="bad-rollout-") as name:
        folder = Path(name)
        drill = Drill(given.database or f"sqlite:///{folder / 'shop.db'}", folder, given.workflows)
        good = await drill.play()
    if not good:
        print("\nNOT as it should be:")
        for claim in drill.operator.wrong:
            print(f"  {claim}")
        return 1
    print("all of it as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
