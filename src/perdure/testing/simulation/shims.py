"""What the engine reads of the machine it runs on (clocks, random bytes, process table), answered by the simulation.

Each simulated process has clocks of its own, wrong by a fixed amount and running at a slightly wrong rate; the database
has the right time. Promises: while ``installed``, the engine sees no real time and no real chance, and afterwards
everything is as before.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import perdure.client.journal
import perdure.client.routes
import perdure.clock
import perdure.model.ids
import perdure.runtime.adoption
import perdure.runtime.engine
import perdure.runtime.executor
import perdure.runtime.handover
import perdure.runtime.launch
import perdure.runtime.leases
import perdure.runtime.loop
import perdure.runtime.reaper
import perdure.runtime.recovery
import perdure.runtime.sweep
import perdure.runtime.transactions
import perdure.runtime.upgrades
import perdure.sessions.find
import perdure.sessions.places
import perdure.store.sqlite.batches
import perdure.store.sqlite.store
from perdure.client.aside import Aside, Unwritten
from perdure.client.sources import Source
from perdure.definitions import Registry
from perdure.model.records import Incarnation
from perdure.model.writes import Unit
from perdure.runtime.launch import Code, code_of
from perdure.runtime.leases import Lease
from perdure.runtime.pasts import Past
from perdure.runtime.replay_check import Replayer, Verdict, replay
from perdure.runtime.stalls import StallWatch
from perdure.testing.simulation.connections import SimulatedSession
from perdure.testing.simulation.loop import PROCESS
from perdure.testing.simulation.sometimes import sometimes
from perdure.testing.simulation.wire import place_of

ASK_WHO_IS_GONE = (
    perdure.runtime.adoption, perdure.runtime.handover, perdure.runtime.launch, perdure.runtime.recovery,
    perdure.runtime.upgrades,
)  # fmt: skip
UNSERVED_SECONDS = 6.0  # a lease is shorter here than in a fleet, and so is what has to do with it
SWEPT_EVERY = 2  # transactions, for a hundred of a fleet's
SIMULATED = {("perdure", "SimulatedConnection"): SimulatedSession}
START_US = 1_893_456_000_000_000  # the database's time when a simulation begins: 2030-01-01


class Box(Protocol):
    """What a simulated process knows of its machine."""

    host: str
    pid: int
    skew: int
    rate: float


class World(Protocol):
    """What the shims ask."""

    chance: random.Random

    def now(self) -> int: ...
    def elapsed(self) -> int: ...
    def lives(self, host: str, pid: int) -> bool: ...


class _Time:
    """In place of the module ``time``, for code of a process (``right``: of the database)."""

    def __init__(self, world: World, *, right: bool = False) -> None:
        self._world = world
        self._right = right

    def _box(self) -> Box | None:
        return None if self._right else PROCESS.get()

    def time_ns(self) -> int:
        box = self._box()
        return (self._world.now() + (box.skew if box else 0)) * 1000

    def monotonic_ns(self) -> int:
        box = self._box()
        return int(self._world.elapsed() * (box.rate if box else 1.0)) * 1000 + 1_000_000_000_000

    def monotonic(self) -> float:
        return self.monotonic_ns() / 1e9


class _Os:
    """In place of the module ``os``, for identities."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def urandom(self, size: int) -> bytes:
        return self._chance.randbytes(size)


class _Asyncio:
    """In place of the module ``asyncio``, for the lease: its thread's waits are waits of the loop."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def to_thread(self, wait: Any, *args: Any) -> Any:
        """Only ``Event.wait(timeout)`` is asked of a thread there."""
        await asyncio.sleep(args[0])
        return wait(0)


class SimulatedLease(Lease):
    """The lease, renewed by a task of the loop instead of a thread."""

    @property
    def allowed(self) -> bool:
        allowed = super().allowed
        sometimes("a step waited for the lease", not allowed)
        return allowed

    def _begin(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._renew())


class SimulatedAside(Aside):
    """Tells what it met."""

    def add(self, source: Source, unit: Unit, *, withdrawn: bool = False) -> None:
        sometimes("a unit was set aside")
        sometimes("two units were set aside at once", self.units)
        super().add(source, unit, withdrawn=withdrawn)

    def put_off(self, one: Unwritten, seconds: float) -> None:
        sometimes("what was set aside failed again")
        super().put_off(one, seconds)

    def drop(self, one: Unwritten) -> None:
        sometimes("what was set aside was written later", not one.withdrawn)
        super().drop(one)

    def holds_up(self, source: Source) -> bool:
        held_up = super().holds_up(source)
        sometimes("a source had more to write behind what was set aside", held_up)
        return held_up

    def of(self, source: Source) -> Unwritten | None:
        one = super().of(source)
        sometimes("a run waited for what was set aside of it", one)
        return one

    def abort(self) -> None:
        sometimes("a process ended while a unit was set aside", self.units and not PROCESS.get().world.over)
        super().abort()


class SimulatedWatch(StallWatch):
    """All processes have one loop, and it never stands still."""

    def look(self) -> None: ...


class SimulatedReplayer(Replayer):
    """Checks in a thread that the loop waits for: in the world no time passes."""

    async def check_all(self, pasts: Sequence[Past]) -> list[Verdict]:
        found: list[Verdict] = []

        def work() -> None:
            found.extend(replay(self._registry, *past, version=self._version) for past in pasts)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return found


_codes: dict[tuple[int, str], tuple[Registry, Code]] = {}  # reading the source takes longer than most worlds


def _code_of(app: str, registry: Registry, given: str) -> Code:
    known = _codes.get((id(registry), given))
    if known is None or known[0] is not registry:
        known = _codes[id(registry), given] = (registry, code_of(app, registry, given))
    return known[1]


def _sealed(world: World, token: bytes, executor: str, version: str) -> Incarnation:
    box: Any = PROCESS.get()
    return Incarnation(
        id=token, executor=executor, version=version, host=box.host, boot=box.host, space=box.host, pid=box.pid,
        pid_started=box.pid,
    )  # fmt: skip


def _place_of_file(name: str) -> str:
    return place_of(name, "sqlite")


@contextmanager
def installed(world: World) -> Generator[None, None, None]:
    """The engine lives in ``world`` while this is open. One world at a time."""
    here: Any = _Time(world)

    def gone(who: Incarnation) -> bool:
        box: Any = PROCESS.get()
        return box is not None and who.boot == box.host and not world.lives(who.host, who.pid)

    def sealed(token: bytes, executor: str, version: str) -> Incarnation:
        return _sealed(world, token, executor, version)

    def same_place(who: Incarnation) -> bool:
        box: Any = PROCESS.get()
        return box is not None and who.boot == box.host

    def ended(who: Incarnation) -> bool:
        box: Any = PROCESS.get()
        return box is not None and not world.lives(box.host, who.pid)

    replaced: list[tuple[Any, str, Any]] = [
        (perdure.clock, "time", here),
        (perdure.client.journal, "time", here),
        (perdure.client.journal, "Aside", SimulatedAside),
        (perdure.client.routes, "time", here),
        (perdure.runtime.loop, "time", here),
        (perdure.runtime.leases, "elapsed", here.monotonic),
        (perdure.runtime.leases, "asyncio", _Asyncio()),
        (perdure.runtime.engine, "Lease", SimulatedLease),
        (perdure.runtime.engine, "new_incarnation", sealed),
        (perdure.runtime.engine, "StallWatch", SimulatedWatch),
        (perdure.runtime.engine, "code_of", _code_of),
        (perdure.runtime.executor, "elapsed", here.monotonic),
        (perdure.runtime.adoption, "Replayer", SimulatedReplayer),
        (perdure.runtime.upgrades, "UNSERVED_SECONDS", UNSERVED_SECONDS),
        (perdure.runtime.sweep, "EVERY", SWEPT_EVERY),
        (perdure.runtime.transactions, "random", world.chance),
        (perdure.runtime.transactions, "time", here),
        (perdure.sessions.find, "_AWAITED", {**perdure.sessions.find._AWAITED, **SIMULATED}),  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        (perdure.sessions.places, "place_of_file", _place_of_file),
        (perdure.runtime.reaper, "random", world.chance),
        (perdure.runtime.reaper, "same_place", same_place),
        (perdure.runtime.reaper, "ended", ended),
        *((module, "provably_gone", gone) for module in ASK_WHO_IS_GONE),
        (perdure.model.ids, "time", here),
        (perdure.model.ids, "os", _Os(world.chance)),
        (perdure.store.sqlite.store, "time", _Time(world, right=True)),
        (perdure.store.sqlite.batches, "time", _Time(world, right=True)),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
