"""A world: some executors and clients, one database, one seed. It runs in virtual time and gives evidence.

Two modes. *Safety*: faults without end; whatever is done must be right. *Liveness*: after a while the faults end and
executors are alive; from then on everything must come to an end, within a bounded time.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import logging
import random
from collections.abc import Collection, Sequence
from contextvars import Context
from typing import Any, NamedTuple

from perdure.config import Settings
from perdure.testing.histcheck.evidence import Evidence
from perdure.testing.histcheck.judge import Verdict, check
from perdure.testing.histcheck.streams import ClientHistory, FaultLog, Ledger
from perdure.testing.simulation import asking, modes, seen, transfers
from perdure.testing.simulation.bank import STEPS, Away, Bank
from perdure.testing.simulation.database import Database
from perdure.testing.simulation.failover import Failover
from perdure.testing.simulation.faults import Mix, Nemesis
from perdure.testing.simulation.keeping import Keeper
from perdure.testing.simulation.leased import unleased
from perdure.testing.simulation.loop import NOBODY, PROCESS, Stuck, VirtualLoop
from perdure.testing.simulation.operator import Operator
from perdure.testing.simulation.orders import Orders
from perdure.testing.simulation.process import Process
from perdure.testing.simulation.rollout import NEW, OLD, Rollout, version
from perdure.testing.simulation.scripts import more, scripts
from perdure.testing.simulation.shims import START_US, installed
from perdure.testing.simulation.slow import slow_machine
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import HOME, Cut, Fate
from perdure.testing.simulation.workload import Client, Simulated

LEASE_SECONDS = 2.0
FAULTY_SECONDS = 6.0  # of each world, at most; of one without end twice as many
LOOK_SECONDS = 0.25  # between two looks whether all has ended
HEALED_SECONDS = 60.0  # in which all must have come to an end, once healed

_simulated: list[Simulated] = []
_database: list[Database] = []
_away: list[Away] = []


class Result(NamedTuple):
    """What came of one seed."""

    seed: int
    mode: str
    verdict: Verdict
    stuck: str  # why it did not come to an end; "" if it did
    trace: str  # the same for the same seed, in every process
    virtual: float  # seconds that passed in the world
    workflows: int
    evidence: Evidence
    lines: list[str]  # the trace, if it was asked for

    @property
    def good(self) -> bool:
        return self.verdict.good and not self.stuck

    def __str__(self) -> str:
        how = "good" if self.good else "FAILED"
        what = f"{self.workflows} workflows, {self.virtual:.1f} s, trace {self.trace}"
        said = [f"seed {self.seed} ({self.mode}): {how}, {what}"]
        if self.stuck:
            said.append(f"stuck: {self.stuck}")
        if not self.verdict.good:
            said.append(self.verdict.shown)
        return "\n".join(said)


def simulate(
    seed: int, *, mode: str = "", mix: Mix | None = None, kinds: Sequence[str] = (), trace: bool = False
) -> Result:
    """Run the world of one seed. ``mode``: ``safety`` or ``liveness``, else by the seed (every fourth is safety).

    ``mix``: of faults, instead of the seed's own. ``kinds``: of scripts, instead of all.
    """
    if not _simulated:
        _simulated.extend((Simulated(OLD), Simulated(NEW)))
    if not _database:
        _database.append(Database())
    if not _away:
        _away.append(Away())
    mode = mode or ("safety" if seed % 4 == 0 else "liveness")
    return World(seed, mode, mix, kinds, _simulated, _database[0], _away[0], trace).run()


class World:
    """See the head of this file."""

    def __init__(
        self,
        seed: int,
        mode: str,
        mix: Mix | None,
        kinds: Sequence[str],
        apps: Sequence[Simulated],
        database: Database,
        away: Away,
        trace: bool,
    ) -> None:
        self.seed = seed
        self.mode = mode
        self.chance = random.Random(seed)
        self.kinds = kinds
        drawn = Mix.draw(self.chance)
        wide = random.Random(f"wide {seed}")
        self.mix = mix or drawn.widened(wide).ordered(random.Random(f"orders {seed}"))
        if mix is None:
            self.mix = self.mix.transacting(random.Random(f"transacts {seed}"))
            self.mix = self.mix.keeping(random.Random(f"keeps {seed}"))
        self.keeper = Keeper(self, random.Random(f"kept {seed}"))
        self.rollout = Rollout(self, wide)
        self._wide = wide
        self.failover: Failover | None = None
        self.orders: Orders | None = None
        self.apps = apps
        self.database = database
        self.bank: Bank | None = None
        if self.mix.transacts or "transfers" in kinds:
            self.bank = Bank(self, away, random.Random(f"bank {seed}"))
        self.loop = VirtualLoop()
        self.lease = LEASE_SECONDS
        self.down_until = self.slow_until = 0
        self.processes: list[Process] = []
        self.pids = 100
        self.healed = False
        self.over = False
        self.ledger = WorldLedger(self)
        self.faults = WorldFaults(self)
        if self.mix.troubles_calls:
            self.faults.note("calls fail")
        self.histories: list[WorldHistory] = []
        self.lines: list[str] = []
        self._trace = hashlib.blake2b(digest_size=8)
        self._keep = trace
        self.cuts = random.Random(f"cut {seed}")  # how each is: of its own, so that worlds without them stay
        self._calls: set[asyncio.Task[Any]] = set()

    # -- time and chance, for everybody

    def elapsed(self) -> int:
        """Microseconds since the world began."""
        return self.loop.us

    def now(self) -> int:
        """The database's time."""
        return START_US + self.loop.us

    def duration(self) -> float:
        if self.chance.random() < self.mix.slow:
            return self.lease * self.chance.uniform(1.0, 3.0)
        return self.chance.choice((0.001, 0.005, 0.02, 0.2))

    def latency(self) -> float:
        if self.loop.us < self.slow_until:
            return self.chance.uniform(0.0, (self.slow_until - self.loop.us) / 1e6) + 0.001
        return self.chance.uniform(0.0001, 0.002)

    def lateness(self) -> float:
        return self.chance.choice((0.001, 0.02, 0.3, 1.0))

    def cut(self, process: Process, op: str) -> Cut | None:
        if self.loop.us < self.down_until:
            return Cut.REFUSED
        if self.loop.us >= process.cut_until:
            return None
        spared = {Cut.BEATS: op == "heartbeat", Cut.BEATLESS: op != "heartbeat"}.get(process.cut, False)
        return None if spared else process.cut

    def cut_for(self, process: Process) -> float:
        return max(0.0, (process.cut_until - self.loop.us) / 1e6)

    @property
    def dialect(self) -> str:
        """What the app's database is like."""
        return "postgres" if self.bank is None else self.bank.dialects[HOME]

    def dropped(self, op: str, args: tuple[Any, ...]) -> Fate | None:
        return self.keeper.fate(args[0]) if op == "commit" else None

    def fate(self, process: Process, *, writes: bool) -> Fate:
        if self.healed:
            return Fate.WELL
        return self.mix.fate(self.chance, writes=writes, mortal=process.mortal)

    def lives(self, host: str, pid: int) -> bool:
        """Whether a host's process table has it."""
        alive = any(p.pid == pid and not p.dead for p in self.processes if p.host == host)
        sometimes("a death was proven on the same host", not alive)
        return alive

    def note(self, process: Process | None, *words: object) -> None:
        line = f"{self.loop.us} {process.name if process else '-'} {' '.join(map(str, words))}"
        self._trace.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def hint(self, process: Process, queue: str) -> None:
        for other in self.processes:
            if other is not process and not other.dead and other.on_hint:
                if self.chance.random() < self.mix.deaf:
                    sometimes("a hint was lost")
                    continue
                self.loop.call_later(self.latency(), self._hinted, other, [queue] * bool(queue), context=other.context)

    def prove(self, id: str, claim: str) -> None:
        if self.failover is not None:
            self.failover.prove(id, claim)

    @staticmethod
    def _hinted(process: Process, queues: Collection[str]) -> None:
        for callback in list(process.on_hint):
            callback(queues)

    @property
    def begun(self) -> set[bytes]:
        return self.database.begun

    # -- processes

    def living(self) -> list[Process]:
        """Executors that live."""
        return [process for process in self.processes if process.works and process.open]

    def stop(self, process: Process, seconds: float) -> None:
        """SIGSTOP: none of its callbacks run, for so long."""
        sometimes("a process was stopped")
        sometimes("a process was stopped for longer than its lease", seconds > self.lease)
        self.faults.note("stop", process.identity, effective=process.busy, seconds=seconds)
        process.paused = True
        self.loop.later(seconds, self.resume, process)

    def resume(self, process: Process) -> None:
        if process.paused and not process.dead:
            self.loop.resume(process)

    def begin(self, name: str, *, works: bool = True, mortal: bool = True) -> Process:
        self.pids += 1
        host = "host" if self.mix.one_host else f"{name}-{self.pids}" if self.mix.moving else name
        edition = self.rollout.edition(name)
        settings = Settings(
            app="sim", database="simulated", database_from="simulation",
            version=version(edition) if self.mix.rollout and works else "", recovery=self.mix.recovery,
            executor_id="x" if self.mix.namesakes else name,
            lease=self.lease, grace=self.chance.choice((0.1, 0.5, 2.0)),
            bodies="greenlets" if "blocking" in self.kinds else "threads",
        )  # fmt: skip
        process = Process(self, self.apps[edition - 1], name, host, self.pids, settings, works=works, mortal=mortal)
        self.processes.append(process)
        process.begin()
        return process

    def begin_again(self, dead: Process) -> None:
        """A supervisor starts it anew, some time later."""
        if not dead.works and self.orders is not None:
            self.orders.begin_again()
        elif not self.over:
            delay = 0.1 if self.healed else self.chance.choice((0.05, 0.3, 1.0, 4.0))
            self.loop.later(delay, self._begin_again, dead)

    def _begin_again(self, dead: Process) -> None:
        if not self.over:
            self.begin(dead.name)

    # -- the run

    def run(self) -> Result:
        """Run to the end; the result."""
        stuck = ""
        self.database.wipe()
        if self.bank is not None:
            self.bank.furnish()
        quiet = logging.getLogger("perdure")
        level, quiet.level = quiet.level, logging.CRITICAL
        collecting = gc.isenabled()
        gc.disable()  # what it finds depends on real memory
        try:
            homes = [app.home for app in self.apps]
            with installed(self), _at_home(homes), slow_machine(self.loop, self.seed, self.kinds):
                for app in self.apps:
                    app.stage = self
                task = Context().run(self.loop.create_task, self._live())
                try:
                    stuck = self.loop.run_until_complete(task)
                except Stuck as error:
                    stuck = str(error)
                finally:
                    self._end()
        finally:
            quiet.setLevel(level)
            if collecting:
                gc.enable()
        return self._result(stuck)

    def _end(self) -> None:
        """Kill what lives, and let every callback run out."""
        self.over = True
        for process in self.processes:
            process.end()
        with contextlib.suppress(Stuck):
            for _ in range(30):
                self.loop.call_soon(lambda: None, context=NOBODY)
                self.loop.stop()
                self.loop.run_forever()
        self.loop.close()

    async def _live(self) -> str:
        names = [f"x{n}" for n in range(self.chance.randint(2, 4))]
        if self.mix.recovery == "single":
            names = names[:2]  # one of them waits until the other is gone
        for name in names:
            self.begin(name)
        client = self.client = self.begin("client", works=False, mortal=False)
        await asyncio.sleep(0.05)
        nemesis = Nemesis(self, self.mix)
        self.loop.call_soon(nemesis.begin, context=NOBODY)
        self.keeper.begin()
        if self.mix.rollout:
            self.rollout.begin(names)
        if self.mix.failover:
            self.failover = Failover(self, self._wide)
        if self.mix.judged or self.mix.hand_over or self.mix.recovery == "manual":
            client.run(Operator(self, self._wide, names).work(client))
        tasks = self._clients(client)
        if self.mix.orders:
            self.operator_history = self.history("operator")
            self.orders = Orders(self, random.Random(f"given {self.seed}"))
            self.orders.begin()
        await self._under_faults(tasks, FAULTY_SECONDS * (2 if self.mode == "safety" else 1))
        if self.mode == "safety":
            return self._mismatched()
        nemesis.end()
        self._heal()
        return await self._come_to_an_end(tasks) or self._held()

    def _held(self) -> str:
        """What does not replay is never moved but left where it was, so that nothing is ever held for the code's sake.

        What a policy held, the operator has let go on. Who paused one may have died before it told it to go on.
        """
        held = [one for one in self.database.held() if one[1] != "paused"]
        return f"held: {held}" if held else ""

    def _mismatched(self) -> str:
        """In mid-way: who resets may have left something that a later order mends, any other replay is as it was."""
        held = [one for one in self.database.held() if one[1] == "nondeterminism" and self.orders is None]
        return f"held: {held}" if held else ""

    def _to_let_go(self) -> bool:
        """Whether the operator, who looks now and then, still has something to let go on."""
        return any(reason == "policy" for _, reason, _ in self.database.held())

    def _clients(self, client: Process) -> list[asyncio.Task[Any]]:
        made: list[asyncio.Task[Any]] = []
        kinds = ("transfers",) if self.mix.transacts else self.kinds
        asked = scripts(self.chance, kinds, judged=self.mix.judged)
        if not kinds:
            if self.mix.keeps or self.mix.drops:
                asked = asked if self.mix.orders else asked[: asking.BESIDE]
                asked += asking.more(random.Random(f"asks {self.seed}"))
            asked += more(random.Random(f"more {self.seed}"))
        for n, (script, delay) in enumerate(asked):
            made.append(self._run_script(client, script, self.caller(f"c{n}"), delay))
        return made

    def history(self, name: str) -> WorldHistory:
        """Of a client of this name."""
        history = WorldHistory(self, name)
        self.histories.append(history)
        return history

    def caller(self, name: str) -> Client:
        """A client of this name."""
        return Client(self.history(name), self.chance)

    def _run_script(self, client: Process, script: Any, calls: Client, delay: float) -> asyncio.Task[Any]:
        """A client of its own, or code within an executor's process, that dies with it."""
        host = client

        async def play() -> None:
            await asyncio.sleep(delay)
            while not PROCESS.get().opened:  # noqa: ASYNC110 - virtual time costs nothing
                await asyncio.sleep(0.05)
            await script(calls)

        living = [process for process in self.processes if process.works and not process.dead]
        if living and self.chance.random() < 0.5 and self.mix.recovery != "single":
            host = self.chance.choice(living)
        return host.run(play())

    async def _under_faults(self, tasks: list[asyncio.Task[Any]], seconds: float) -> None:
        """So long, or until all that was asked for has ended: who has nothing to do is hard to harm."""
        bound = self.loop.us + int(seconds * 1e6)
        while self.loop.us < bound:
            await asyncio.sleep(min(LOOK_SECONDS, (bound - self.loop.us) / 1e6))
            to_come = self.mix.failover and not (self.failover and self.failover.lost)
            if not to_come and all(task.done() for task in tasks) and not self.database.unended():
                return

    def _heal(self) -> None:
        self.healed = True
        self.down_until = self.slow_until = 0
        for process in self.processes:
            process.cut_until = 0
            self.resume(process)
        self.keeper.end()
        self.faults.heal()

    async def _come_to_an_end(self, tasks: list[asyncio.Task[Any]]) -> str:
        bound = self.loop.us + int(HEALED_SECONDS * 1e6)
        while self.loop.us < bound:
            await asyncio.sleep(LOOK_SECONDS)
            if self.mix.rollout:
                self.rollout.look()
            # Who was told that something had begun that is lost by now waits for it for ever.
            failed_over = self.failover is not None and self.failover.lost
            if self.database.open_workflows() or self._to_let_go():
                continue
            if self.orders is not None and not self.orders.is_settled():
                continue
            if failed_over or all(task.done() for task in tasks):
                return ""
        left = [task for task in tasks if not task.done()]
        return (
            f"{HEALED_SECONDS:g} s after the heal {self.database.open_workflows()} workflows are open, "
            f"and {len(left)} clients wait: {'; '.join(_where(task) for task in left[:3])}"
        )

    def _result(self, stuck: str) -> Result:
        audit = self.database.audit()
        calls = sorted((line for history in self.histories for line in history.lines), key=lambda line: line["at"])
        effects = self.ledger.lines
        lost_mail: set[tuple[str, str]] = set()
        if self.failover is not None and self.failover.lost:
            effects, calls = self.failover.effects(effects), self.failover.calls(calls)
            lost_mail = self.failover.lost_mail
        evidence = Evidence(audit, effects, calls, self.faults.lines, transactions=STEPS, lost_mail=lost_mail)
        for line in audit:
            self._trace.update(repr((line["n"], line["at"], line["table"], line["op"])).encode())
        verdict = check(evidence)
        seen.look(evidence)
        stuck = stuck or modes.wrong(evidence, self.mix.recovery)
        if self.bank is not None:
            away = self.bank.away.audit()
            self._trace.update(repr([(line["n"], line["at"], line["table"], line["op"]) for line in away]).encode())
            stuck = stuck or transfers.wrong(evidence, audit, away)
        if not (self.failover is not None and self.failover.lost):  # else a renewal may be lost
            stuck = stuck or unleased(evidence, self.lease) or asking.wrong(evidence)
        if not stuck and self.loop.trouble:
            stuck = "; ".join(f"{one.get('message')}: {one['exception']!r}" for one in self.loop.trouble[:3])
        return Result(
            seed=self.seed, mode=self.mode, verdict=verdict, stuck=stuck, trace=self._trace.hexdigest(),
            virtual=self.loop.us / 1e6, workflows=len(evidence.workflows), evidence=evidence, lines=self.lines,
        )  # fmt: skip


def _where(task: asyncio.Task[Any]) -> str:
    """Who a task belongs to, and the calls that it waits in."""
    names: list[str] = []
    waits: Any = task.get_coro()
    while waits is not None and hasattr(waits, "cr_code"):
        names.append(f"{waits.cr_code.co_name}:{waits.cr_frame.f_lineno if waits.cr_frame else '-'}")
        waits = waits.cr_await
    return f"{task.get_name()} in {' '.join(names)}"


@contextlib.contextmanager
def _at_home(homes: Sequence[Any]) -> Any:
    """Calls of the app's public face go through the process that makes them."""
    for home in homes:
        home.opened(object())
        home.engine = lambda: PROCESS.get().engine
    try:
        yield
    finally:
        for home in homes:
            del home.engine
            home.opened(None)


# -- the streams of a world: in memory, in its time; the dead write nothing


class _InWorld:
    """How a stream of a world tells the time, and who may write."""

    world: World

    def now(self) -> tuple[float, int]:
        return self.world.loop.us / 1e6, self.world.now()


class WorldLedger(_InWorld, Ledger):
    """Effects, by whichever process."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def write(self, line: dict[str, Any]) -> None:
        process = PROCESS.get()
        if process is not None and not process.dead:
            super().write({**line, "pid": process.pid})
            self.world.note(process, line["phase"], line["w"], line["path"])

    def executor(self) -> Any:
        process = PROCESS.get()
        return None if process is None else process.engine.executor


class WorldHistory(_InWorld, ClientHistory):
    """One client's calls."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(name)
        self.world = world

    def write(self, line: dict[str, Any]) -> None:
        process = PROCESS.get()
        if process is not None and not process.dead and not self.world.over:
            super().write(line)
            self.world.note(process, line["type"], line["op"], line["w"])


class WorldFaults(_InWorld, FaultLog):
    """What the nemesis did."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
