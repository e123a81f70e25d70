"""A database that fails over to a standby that was behind: its newest commits are lost, acknowledged or not.

As with Postgres (``store/postgres/timeline.py``), whoever connects anew learns that the server is on another timeline,
and each run proves itself before its next write. Who was told of what is lost knows more than the database: that is
taken out of the evidence, for nothing can be promised of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from perdure.model.writes import Receipt, Unit, Verdict
from perdure.store.sqlite.commit import commit
from perdure.store.sqlite.driver import Connection
from perdure.testing.simulation.sometimes import sometimes

Lines = list[dict[str, Any]]


class Failover:
    """When it comes, and what it costs."""

    def __init__(self, world: Any, chance: random.Random) -> None:
        self._world = world
        self._behind = chance.choice((0.02, 0.2, 1.0))
        self.lost: tuple[int, int] | None = None  # between these moments, by the database's time
        self._losers: set[str] = set()  # workflows of which something is lost
        self._unended: set[str] = set()  # workflows whose end is lost
        self._before: set[tuple[str, str]] = set()  # (workflow, claim) as they were given before it
        self.lost_mail: set[tuple[str, str]] = set()  # (to whom, what)
        self._proven: dict[tuple[str, str], int] = {}  # when a run of these wrote again
        world.loop.later(chance.uniform(0.2, 3.5), self._fall_behind)

    def _fall_behind(self) -> None:
        world = self._world
        world.loop.later(self._behind, self._fail_over, world.database.copy(), world.now())

    def _fail_over(self, copy: tuple[bytes, int], since: int) -> None:
        world = self._world
        if world.healed or world.over:
            return
        lines = world.database.audit()
        gone = [line for line in lines[copy[1] :] if line["table"] in ("workflow", "history")]
        self.lost_mail = {
            (line["row"]["dest"], line["row"]["data"])
            for line in lines[copy[1] :]
            if (line["table"], line["op"]) == ("message", "insert")
        }
        self._losers = {line["row"]["id"] for line in gone}
        self._unended = {line["row"]["id"] for line in gone if line["row"].get("closed")}
        self._before = {(line["row"]["id"], line["row"]["claim"]) for line in lines if line["table"] == "workflow"}
        lost = world.database.become(copy)
        self.lost = (since, world.now())
        sometimes("the database failed over")
        sometimes("a failover lost commits", lost)
        world.faults.note("failover", seconds=self._behind)

    def prove(self, id: str, claim: str) -> None:
        """A run has written on where its history ends: from now on it knows no more than the database."""
        self._proven.setdefault((id, claim), self._world.now())

    def effects(self, ledger: Lines) -> Lines:
        """Without those that the database may have forgotten, or that were begun on the strength of what it has.

        Only of workflows that lost something, and only of claims from before: until the run has proven itself.
        """
        since, until = self.lost or (0, 0)
        return [line for line in ledger if line["at"] < since or not self._forgotten(line, until)]

    def _forgotten(self, line: dict[str, Any], until: int) -> bool:
        run = (line["w"], line["claim"])
        if line["w"] not in self._losers:
            return False
        return line["at"] <= until or (run in self._before and line["at"] < self._proven.get(run, line["at"] + 1))

    def calls(self, calls: Lines) -> Lines:
        """What was under way or answered meanwhile may have been lost with its answer.

        So may an end that whoever asks had been told of: its handle answers at once, without asking the database.
        """
        since, until = self.lost or (0, 0)
        asked = {(line["c"], line["i"]): line["at"] for line in calls if line["type"] == "invoke"}

        def may_be_lost(line: dict[str, Any]) -> bool:
            at = asked[line["c"], line["i"]]
            known = line["op"] == "result" and line["w"] in self._unended and line["at"] == at
            return line["at"] >= since and (at <= until or known)

        return [
            {**line, "type": "unknown", "error": "failover"} if line["type"] != "invoke" and may_be_lost(line) else line
            for line in calls
        ]


class Timeline:
    """What one store knows of the server that it talks to."""

    def __init__(self, number: int, prove: Callable[[str, str], None]) -> None:
        self.number = number
        self._prove = prove
        self.proven: set[tuple[str, bytes]] | None = None  # since the failover; None: there was none

    def moved(self, number: int) -> bool:
        """Whether the server is another than the last time; from then on all is to be proven."""
        if number == self.number:
            return False
        self.number, self.proven = number, set()
        return True

    def commit(self, conn: Connection, app: str, batch: Sequence[Unit], now: int) -> Receipt:
        """Commit those whose run is where its history is."""
        ahead = [n for n, unit in enumerate(batch) if self._is_ahead(conn, app, unit)]
        sometimes("a run knew more than the database after a failover", ahead)
        receipt = commit(conn, app, [unit for n, unit in enumerate(batch) if n not in ahead], now)
        verdicts = list(receipt.verdicts)
        for n in ahead:
            verdicts.insert(n, Verdict(applied=False))
        if self.proven is not None:
            for unit, verdict in zip(batch, verdicts, strict=True):
                if verdict.applied and unit.claim is not None:
                    self.proven.add((unit.key.id, unit.claim))
                    self._prove(unit.key.id, unit.claim.hex())
        return Receipt(receipt.now, verdicts)

    def _is_ahead(self, conn: Connection, app: str, unit: Unit) -> bool:
        if self.proven is None or unit.claim is None or unit.start is not None:
            return False
        if (unit.key.id, unit.claim) in self.proven:
            return False
        return (conn.execute(LAST, (app, *unit.key)).get or 0) < unit.after


LAST = "select max(seq) from history where app = ?1 and id = ?2 and run = ?3"
