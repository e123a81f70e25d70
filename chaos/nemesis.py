"""Does the faults of a plan, each at its time, and logs what it hit.

The fault log says of each: ``how``, ``name`` and ``pid`` of whom, ``begin`` and ``end`` (seconds since 1970), and
``flying``: how many running workflows it hit (for a cut: how many connections).
"""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from chaos.database import Background, Database, PostgresDatabase
from chaos.fleet import Fleet, Member
from chaos.plan import Fault
from chaos.proxy import Proxy
from perdure.testing.histcheck import FaultLog

NO_LEASES = r"^(?!.*\bincarnation\b)"  # the answer that is lost is one to a write of work


class Nemesis:
    """See the head of this file. ``proxies``: by the name of the member that speaks through it."""

    def __init__(
        self, fleet: Fleet, database: Database, proxies: dict[str, Proxy], background: Background, folder: Path
    ) -> None:
        self.fleet = fleet
        self.database = database
        self.proxies = proxies
        self.background = background
        self.log = FaultLog(folder / "faults")
        self.later: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    # -- time

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.later, (time.monotonic() + seconds, next(self._count), action))

    def due(self) -> None:
        while self.later and self.later[0][0] <= time.monotonic():
            heapq.heappop(self.later)[2]()

    def note(
        self, fault: Fault, member: Member | None, pid: int, flying: int, *, begin: float = 0.0, lasts: float = 0.0
    ) -> None:
        begin = begin or time.time()
        self.log.note(
            fault.kind, str(pid or (member.name if member else "database")), effective=bool(flying), how=fault.how,
            name=member.name if member else "", pid=pid, begin=begin, end=begin + lasts, flying=flying,
        )  # fmt: skip

    def flying(self) -> Counter[int]:
        """Running workflows by the pid of who runs them; none while the database is down."""
        schema = self.database.schema
        try:
            found = self.database.query(
                f"select i.pid, count(*) from {schema}workflow w join {schema}incarnation i on i.id = w.owner "
                "where w.status = 2 group by i.pid"
            )
        except Exception:  # it is down just now
            return Counter()
        return Counter(dict(found))

    def has_prey(self, fault: Fault) -> bool:
        """Whether a fault would hit work just now."""
        if fault.kind in {"client", "cut"}:
            return True
        flying = self.flying()
        return any(flying[member.pid] and member.at_work for member in self.fleet.executors)

    def choose(self, fault: Fault, members: list[Member]) -> tuple[Member, int]:
        """Whom to hit, and how many workflows run there: one that works if one does, the same one by the same state."""
        flying = self.flying()
        working = [member for member in members if flying[member.pid] and member.at_work]
        member = (working or members)[fault.whom % len(working or members)]
        return member, flying[member.pid] if member in working else 0

    # -- faults

    def do(self, fault: Fault) -> None:
        getattr(self, f"_{fault.kind}")(fault)

    def _kill(self, fault: Fault) -> None:
        member, flying = self.choose(fault, self.fleet.executors)
        pid = member.signal(signal.SIGKILL)
        if pid:
            member.again_at = time.monotonic() + fault.seconds
        self.note(fault, member, pid, flying)

    def _drain(self, fault: Fault) -> None:
        member, flying = self.choose(fault, self.fleet.executors)
        pid = member.signal(signal.SIGTERM)
        if pid and fault.how != "SIGTERM":

            def in_its_drain() -> None:
                if member.pid == pid:
                    member.signal(signal.SIGKILL)
                    self.note(replace(fault, kind="kill"), member, pid, flying)

            self.after(fault.seconds, in_its_drain)
        else:
            self.note(fault, member, pid, flying)

    def _client(self, fault: Fault) -> None:
        member = self.fleet.clients[fault.whom]
        pid = member.signal(signal.SIGKILL) if not member.done else 0
        if pid:
            member.again_at = time.monotonic() + fault.seconds
        self.note(fault, member, pid, int(bool(pid)))

    def _pause(self, fault: Fault) -> None:
        member, flying = self.choose(fault, self.fleet.executors)
        if member.stopped or not member.pid:
            self.note(fault, member, 0, 0)
            return
        pid = member.signal(signal.SIGSTOP)
        self.note(fault, member, pid, flying, lasts=fault.seconds)

        def go_on() -> None:
            if member.pid == pid:
                member.signal(signal.SIGCONT)

        self.after(fault.seconds, go_on)

    def _restart(self, fault: Fault) -> None:
        database = self.database
        assert isinstance(database, PostgresDatabase)
        flying, began = self.flying().total(), time.time()
        if fault.how == "terminate":
            database.terminate_backends()
        else:
            if fault.how == "kill":
                database.cluster.kill()
            else:
                database.cluster.stop(fault.how)
            until = time.monotonic() + fault.seconds
            while time.monotonic() < until:
                self.due()  # who was stopped goes on meanwhile
                time.sleep(0.02)
            database.cluster.start()
        self.note(fault, None, 0, flying, begin=began, lasts=time.time() - began)

    def _cut(self, fault: Fault) -> None:
        if fault.whom < len(self.fleet.executors):
            member, _ = self.choose(fault, self.fleet.executors)
        else:
            member = self.fleet.members[fault.whom]
        proxy = self.proxies[member.name]
        match fault.how:
            case "answer":
                self.background.call(self._lose_answer, proxy, fault, member)
            case "blackhole":
                self.note(fault, member, member.pid, len(proxy.connections), lasts=fault.seconds)
                self.background.call(proxy.blackhole)
                self.after(fault.seconds, lambda: self.background.call(proxy.resume))
            case "reset":
                self.note(fault, member, member.pid, self.background.call(proxy.reset))
            case _:
                self.note(fault, member, member.pid, self.background.call(proxy.half_close))

    def _lose_answer(self, proxy: Proxy, fault: Fault, member: Member) -> None:
        """On the proxies' loop: it is noted when it happens, at the next write that is committed."""
        order = proxy.lose_answer(NO_LEASES, rows=1)
        order.add_done_callback(lambda done: None if done.cancelled() else self.note(fault, member, member.pid, 1))

    def heal(self) -> None:
        """Everything works again, for good."""
        while self.later:
            heapq.heappop(self.later)[2]()
        for proxy in self.proxies.values():
            self.background.call(proxy.heal)
            self.background.call(proxy.keepalive)
        for member in self.fleet.members:
            if member.stopped:
                member.signal(signal.SIGCONT)
            member.again_at = 0.0

    def rest(self) -> None:
        """Note that all faults are over, and everybody is alive; and who has ended by itself, as it should.

        Who ends while the database is down leaves its row behind, and is found to be gone before its lease ends.
        """
        for member in self.fleet.members:
            for pid, why in member.left.items():
                self.log.note("exit", str(pid), effective=False, how=why)
        self.log.heal()
