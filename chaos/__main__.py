"""The chaos run: real executors killed, stopped, cut off, over one database that is restarted under them.

    python -m chaos --workflows 3000 --executors 8 --kills 40 --pauses 20 --restarts 10 --cuts 50
    python -m chaos --sqlite --workflows 500 --executors 4 --kills 10 --pauses 6
    python -m chaos … --seed 123        a run again: the same workflows and the same schedule of faults

Ends with 0 if there is no violation, nothing is stuck ``--heal`` seconds after the last fault, and the floors hold: a
run in which the faults hit nothing says nothing. With ``--keep`` the folder of evidence stays; of a failed run it does
anyway. See docs/internals/chaos.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chaos import bank, plan
from chaos.auditor import Auditor
from chaos.database import Background, Database, PostgresDatabase, SqliteDatabase
from chaos.fleet import Fleet, Member
from chaos.judge import Evidence, judge, operations
from chaos.nemesis import Nemesis
from chaos.proxy import Proxy
from perdure import Client
from perdure.testing.histcheck import install_audit, read_lines

LAUNCH_SECONDS = 60.0
PREY_SECONDS = 15.0  # that a fault waits for somebody who works
SHOWN = 40  # violations that are printed
LOOK_SECONDS = 0.1  # between two looks at how far it is, and at who has died


class Progress:
    """Which share of the workflows has been started: read off the clients' histories as they grow."""

    def __init__(self, folder: Path, workflows: int) -> None:
        self._folder = folder
        self._workflows = workflows
        self._read: dict[Path, int] = {}
        self._started: set[str] = set()
        self._moved = time.monotonic()

    def share(self) -> float:
        before = len(self._started)
        for path in self._folder.glob("*.history"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            lines = map(json.loads, whole.splitlines())
            self._started |= {line["w"] for line in lines if (line["op"], line["type"]) == ("start", "ok")}
        if len(self._started) > before:
            self._moved = time.monotonic()
        return len(self._started) / self._workflows

    @property
    def stands_still(self) -> float:
        """For so many seconds nothing has been started."""
        return time.monotonic() - self._moved


class Run:
    """One run, from an empty database to the verdict."""

    def __init__(self, sizes: plan.Sizes, seed: int, *, sqlite: bool, heal: float) -> None:
        self.sizes = sizes
        self.seed = seed
        self.heal = heal
        self.folder = Path(tempfile.mkdtemp(prefix="perdure-chaos-"))
        self.background = Background()
        self.database: Database = SqliteDatabase(self.folder) if sqlite else PostgresDatabase(self.background)
        self.proxies: dict[str, Proxy] = {}
        self.planned = {p.id: p for p in plan.workflows(seed, sizes.workflows)}
        self.late: list[str] = []
        self.healed_after = 0.0
        self.unsound: list[str] = []
        self.looks = 0

    def _url(self, name: str) -> str:
        """The database, for one member: through a proxy of its own if there is a server."""
        database = self.database
        if isinstance(database, SqliteDatabase):
            return database.url
        proxy = self.proxies[name] = Proxy("127.0.0.1", database.cluster.port)
        port = self.background.do(proxy.start())
        # Nothing is encrypted; who asks for it first, at each connection, makes a context for it.
        return database.url.replace(f":{database.cluster.port}/", f":{port}/") + "?sslmode=disable"

    def _fleet(self) -> Fleet:
        """Executors at work; the clients are still to be started."""
        sizes, folder = self.sizes, self.folder

        def executor(n: int) -> Member:
            name = f"executor{n}"
            command = ["chaos.executor", self._url(name), str(folder), name, str(sizes.lease)]
            return Member(name, command, folder, executor=True)

        fleet = Fleet([executor(n) for n in range(sizes.executors)], [])
        until = time.monotonic() + LAUNCH_SECONDS
        while time.monotonic() < until and not all(self._serves(member) for member in fleet.executors):
            fleet.see_to()
            time.sleep(0.05)
        return fleet

    def _serves(self, member: Member) -> bool:
        return any(line["said"] == "serves" for line in read_lines(self.folder / f"{member.name}.log"))

    def _clients(self) -> list[Member]:
        sizes, folder = self.sizes, self.folder

        def client(n: int) -> Member:
            name = f"client{n}"
            what = [self.seed, sizes.workflows, sizes.flying, f"{n}/{sizes.clients}"]
            command = ["chaos.client", self._url(name), str(folder), name, *map(str, what)]
            return Member(name, command, folder, executor=False)

        return [client(n) for n in range(sizes.clients)]

    def go(self) -> list[str]:
        """All of it; the violations."""
        asyncio.run(install_audit(self.database.url))
        for statement in bank.TABLES:
            self.database.query(statement)
        auditor = Auditor(self.database)
        auditor.start()
        fleet = self._fleet()
        fleet.clients = self._clients()
        nemesis = Nemesis(fleet, self.database, self.proxies, self.background, self.folder)
        nemesis.log.note("load", how="all share a few cores, and leases are short")
        try:
            self._disturb(fleet, nemesis)
            self._await_the_end(fleet, nemesis)
        finally:
            nemesis.heal()
            fleet.end()
            self.unsound, self.looks = auditor.close(), auditor.looks
        return [*fleet.findings, *self.late, *self.unsound, *judge(Evidence(self.folder, self.database, self.planned))]

    def _disturb(self, fleet: Fleet, nemesis: Nemesis) -> None:
        progress = Progress(self.folder, self.sizes.workflows)

        def until(share: float) -> bool:
            """Wait until so much has been started; False if nothing goes on."""
            while progress.share() < share:
                if progress.stands_still > self.heal:
                    return False
                fleet.see_to()
                nemesis.due()
                time.sleep(LOOK_SECONDS)
            return True

        for fault in plan.faults(self.seed, self.sizes):
            if not until(fault.at):
                self.late.append(f"nothing was started for {self.heal:g} s, amid the faults")
                break
            patience = time.monotonic() + PREY_SECONDS
            while not nemesis.has_prey(fault) and time.monotonic() < patience:
                fleet.see_to()
                nemesis.due()
                time.sleep(0.1)
            nemesis.do(fault)
        else:
            until(1.0)
        while nemesis.later:  # pauses and drains that are under way
            fleet.see_to()
            nemesis.due()
            time.sleep(LOOK_SECONDS)
        nemesis.heal()

    def _await_the_end(self, fleet: Fleet, nemesis: Nemesis) -> None:
        nemesis.rest()
        asyncio.run(self._end_schedules())
        healed = time.monotonic()
        while time.monotonic() < healed + self.heal:
            fleet.see_to()
            if all(client.done for client in fleet.clients) and not self._unfinished():
                self.healed_after = time.monotonic() - healed
                return
            time.sleep(0.1)
        self.healed_after = self.heal
        self.late = [f"not at its end {self.heal:g} s after the last fault: {line}" for line in self._unfinished()]
        self.late += [f"{client.name} has not ended" for client in fleet.clients if not client.done]

    async def _end_schedules(self) -> None:
        for name, app in plan.SCHEDULES.items():
            async with Client(self.database.url, app=app) as client:
                await client.schedule(name).pause(because="the run ends")

    def _unfinished(self) -> list[str]:
        schema = self.database.schema
        rows = self.database.query(f"select id, status from {schema}workflow where status < 5")
        waits = {id for id, p in self.planned.items() if p.ends == "waiting"}
        return [f"{id} (status {status})" for id, status in rows if id not in waits]

    def close(self, *, keep: bool) -> None:
        for proxy in self.proxies.values():
            self.background.do(proxy.close())
        self.database.close()
        self.background.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- floors

    def figures(self) -> dict[str, Any]:
        faults = [line for line in read_lines(self.folder / "faults") if line["fault"] not in {"heal", "load"}]
        history = [line for path in self.folder.glob("*.history") for line in read_lines(path)]
        said = [line for path in self.folder.glob("*.log") for line in read_lines(path)]
        answered = {(line["w"], line["op"], line["n"]) for line in history if line["type"] in {"ok", "fail"}}
        invoked = Counter((line["w"], line["op"], line["n"]) for line in history if line["type"] == "invoke")
        planned = sum(1 for p in self.planned.values() for _ in operations(p))
        done = Counter(f["fault"] if f["fault"] != "cut" else f"cut: {f['how']}" for f in faults if f["effective"])
        return {
            "operations": planned,
            "answered": len(answered),
            "asked again": sum(count - 1 for count in invoked.values()),
            "effects": sum(line["phase"] == "begin" for p in self.folder.glob("*.ledger") for line in read_lines(p)),
            "through queues": self._count("workflow where queue is not null and started is not null"),
            "paused": sum((line["op"], line["type"], line.get("value")) == ("pause", "ok", "held") for line in history),
            "fired by schedules": self._count("firing where state = 1"),
            "transfers": int(self.database.query("select count(*) from chaos_moved")[0][0]),
            "snapshots of the accounts": self.looks,
            "faults": len(faults),
            "hit work": dict(sorted(done.items())),
            "stale writes refused": sum(line["said"] == "refused" for line in said),
            "declared dead": sum("was declared dead" in line["said"] for line in said),
            "seconds to the end after the last fault": round(self.healed_after, 1),
        }

    def _count(self, what: str) -> int:
        return int(self.database.query(f"select count(*) from {self.database.schema}{what}")[0][0])

    def below_the_floors(self, figures: dict[str, Any]) -> list[str]:
        """Why this run is void."""
        sizes, hit = self.sizes, figures["hit work"]
        below = []
        if figures["answered"] < 0.95 * figures["operations"]:
            below.append(f"only {figures['answered']} of {figures['operations']} operations went through")
        for what in ("through queues", "fired by schedules", "transfers", "snapshots of the accounts"):
            below += [] if figures[what] else [f"{what}: none"]
        wanted = {"kill": sizes.kills, "pause": sizes.pauses}
        if self.database.restartable:
            wanted |= {"restart": sizes.restarts}
            cuts = sum(count for kind, count in hit.items() if kind.startswith("cut"))
            if cuts < sizes.cuts * HIT:
                below.append(f"only {cuts} of {sizes.cuts} cuts hit anything")
            if sizes.cuts >= 20 and not hit.get("cut: answer"):
                below.append("no answer was lost after its commit")
        for kind, count in wanted.items():
            if hit.get(kind, 0) < count * HIT:
                below.append(f"only {hit.get(kind, 0)} of {count} faults of kind {kind} hit work in flight")
        if figures["stale writes refused"] < int(sizes.pauses * STALE):
            below.append(f"only {figures['stale writes refused']} stale writes were refused")
        return [f"void: {line}" for line in below]


HIT = 0.5  # of each kind of fault must hit something
STALE = 0.2  # refused stale writes for each pause (half of them are shorter than the lease)


def main(argv: list[str] | None = None) -> int:
    a = arguments(argv)
    seed = a.seed or random.SystemRandom().randrange(1, 10**9)
    sizes = plan.Sizes(
        workflows=a.workflows, executors=a.executors, clients=a.clients, kills=a.kills, pauses=a.pauses,
        restarts=0 if a.sqlite else a.restarts, cuts=0 if a.sqlite else a.cuts, lease=a.lease, flying=a.flying,
    )  # fmt: skip
    print(f"seed {seed}: {sizes}", flush=True)
    began = time.monotonic()
    run = Run(sizes, seed, sqlite=a.sqlite, heal=a.heal)
    violations: list[str] = ["the run did not come to its end"]
    try:
        violations = run.go()
        figures = run.figures()
        violations += [] if a.no_floors else run.below_the_floors(figures)
        print(json.dumps({**figures, "seconds": round(time.monotonic() - began, 1)}, indent=2))
    finally:
        keep = a.keep or bool(violations)
        (run.folder / "violations").write_text("\n".join(violations))
        run.close(keep=keep)
        if keep:
            print(f"evidence: {run.folder}")
    for violation in violations[:SHOWN]:
        print(f"VIOLATION {violation}")
    print(f"seed {seed}: {len(violations)} violation{'' if len(violations) == 1 else 's'}")
    return 1 if violations else 0


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description="Everything fails; nothing may be lost.")
    parser.add_argument("--workflows", type=int, default=3000)
    parser.add_argument("--executors", type=int, default=8)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--pauses", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--lease", type=float, default=3.0, help="of each executor, in seconds")
    parser.add_argument("--flying", type=int, default=120, help="workflows under way at a time")
    parser.add_argument("--heal", type=float, default=60.0, help="seconds after the last fault until all must be done")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sqlite", action="store_true", help="on one file instead of a Postgres")
    parser.add_argument("--no-floors", action="store_true", help="for a run too small to promise what its faults hit")
    parser.add_argument("--keep", action="store_true", help="keep the evidence")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
