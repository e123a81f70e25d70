"""What a chaos run does, drawn from a seed: each workflow's tree of actions, what must come out of it, and the faults.

Pure: the same seed and sizes give the same plan in every process, so that a client that was killed knows what it had to
do, and a failing seed is run again by its number. A tree is plain JSON, interpreted by the workflows of ``programs``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Action = list[Any]
LONG_STEP_MS = 400
NOBODY_WAITS_MS = 3_600_000
ACCOUNTS = ("ann", "bob", "eve", "jim", "kim", "leo")
CENTS = 100_000  # that each has in the beginning
QUEUES = ("narrow", "narrow", "paced")  # of what clients start; the queue "leaf" is of what workflows start
SCHEDULES = {"tick": "chaos", "tock": "chaos-sync"}  # app of each; both fire every second, to the last fault


@dataclass(frozen=True)
class OneOf:
    """Any of these may come out."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Move:
    """Money that one transaction moves."""

    source: str
    target: str
    cents: int


@dataclass(frozen=True)
class Line:
    """How a client enqueues a workflow, under a deduplication key that is its id."""

    queue: str
    partition: str
    priority: int
    delay: float  # seconds
    again: bool  # started once more, under another id and the same key: the same one, while it is open


@dataclass(frozen=True)
class Planned:
    """One workflow that a client starts."""

    id: str
    blocking: bool  # of the sync face
    tree: list[Action]
    mail: tuple[str, ...]  # sent by the client, one after another
    cancel: float | None  # seconds after the start
    ends: str  # completed | failed | cancelled | either (cancelled or completed) | waiting
    result: Any
    effects: dict[str, int] = field(default_factory=dict)  # effect that must happen -> attempts it takes
    maybe: frozenset[str] = frozenset()  # effects that may or may not happen
    at_most_once: frozenset[str] = frozenset()
    moves: dict[str, Move] = field(default_factory=dict)  # by transactions; if it is cancelled, perhaps
    line: Line | None = None
    pause: tuple[float, float] | None = None  # seconds after the start, and for how long


class Grower:
    """Grows one workflow's tree, noting what must come of it."""

    def __init__(self, id: str, rng: random.Random) -> None:
        self.id = id
        self.rng = rng
        self.count = 0
        self.mail: list[str] = []
        self.effects: dict[str, int] = {}
        self.maybe: set[str] = set()
        self.once: set[str] = set()
        self.moves: dict[str, Move] = {}

    def effect(self, attempts: int = 1) -> str:
        self.count += 1
        name = f"{self.id}.{self.count}"
        self.effects[name] = attempts
        return name

    def perhaps(self) -> str:
        """An effect that may happen."""
        name = self.effect()
        del self.effects[name]
        self.maybe.add(name)
        return name

    def milliseconds(self) -> int:
        """How long a step takes: most are short, some are long enough to be hit."""
        rng = self.rng
        return rng.randint(50, LONG_STEP_MS) if rng.random() < 0.1 else rng.randint(0, 25)

    # -- each gives an action and what it comes out as

    def step(self) -> tuple[Action, Any]:
        name = self.effect()
        return ["step", name, self.milliseconds()], name

    def block(self) -> tuple[Action, Any]:
        name = self.effect()
        return ["block", name, self.milliseconds()], name

    def retry(self) -> tuple[Action, Any]:
        attempts = self.rng.randint(2, 4)
        name = self.effect(attempts)
        return ["retry", name, attempts], name

    def fail(self) -> tuple[Action, Any]:
        name = self.effect()
        return ["fail", name], f"caught {name}"

    def once_only(self) -> tuple[Action, Any]:
        name = self.effect()
        self.once.add(name)
        return ["once", name, self.milliseconds()], OneOf((name, "unknown"))

    def nap(self) -> tuple[Action, Any]:
        return ["sleep", self.rng.choice((5, 50, 200, 500, 2000))], "slept"

    def nothing(self) -> tuple[Action, Any]:
        return ["nothing", self.rng.randint(1, 300)], None

    def post(self) -> tuple[Action, Any]:
        """Messages of the client, first in first out."""
        letters = [f"{self.id} letter {len(self.mail) + n}" for n in range(self.rng.randint(1, 3))]
        self.mail += letters
        return ["mail", len(letters)], letters

    def child(self) -> tuple[Action, Any]:
        tree, result = self.grow(SIMPLE, self.rng.randint(1, 3))
        return ["child", tree, self.rng.choice(("call", "start"))], result

    def talk(self) -> tuple[Action, Any]:
        """A child that is sent messages, and answers with them."""
        words = [f"{self.id} word {self.count}/{n}" for n in range(self.rng.randint(1, 3))]
        name = self.effect()
        return ["talk", words, name], [*words, name]

    def told(self) -> tuple[Action, Any]:
        """An event of a child, waited for."""
        name = self.effect()
        return ["told", name], [f"about {name}", name]

    def say(self) -> tuple[Action, Any]:
        """Values of a stream, by the body and by a step."""
        name = self.effect()
        return ["say", name, self.milliseconds(), self.rng.randint(1, 20)], name

    def heard(self) -> tuple[Action, Any]:
        """The stream of a child, read to its end."""
        name, count = self.effect(), self.rng.randint(1, 20)
        return ["heard", name, count], [*(f"{name} {n}" for n in range(count)), name]

    def gather(self) -> tuple[Action, Any]:
        branches = [self.grow((*SIMPLE, Grower.child), self.rng.randint(1, 2)) for _ in range(self.rng.randint(2, 4))]
        return [self.rng.choice(("gather", "group")), [b[0] for b in branches]], [b[1] for b in branches]

    def race(self) -> tuple[Action, Any]:
        """The first of two steps counts: decided once, and the same after every replay."""
        names = [self.perhaps(), self.perhaps()]
        after = [f"{name} won" for name in names]
        self.maybe.update(after)
        return ["race", names, [self.milliseconds(), self.milliseconds()]], OneOf(tuple(after))

    def late(self) -> tuple[Action, Any]:
        return ["late", self.rng.randint(1, 200)], "timed out"

    def event(self) -> tuple[Action, Any]:
        self.count += 1
        return ["event", f"{self.id} stage {self.count}"], "set"

    def move(self) -> tuple[Action, Any]:
        """A transaction: its writes and its record are one commit."""
        self.count += 1
        name = f"{self.id}.{self.count}"
        source, target = self.rng.sample(ACCOUNTS, 2)
        self.moves[name] = Move(source, target, self.rng.randint(1, 500))
        return ["move", name, source, target, self.moves[name].cents], name

    def leaf(self) -> tuple[Action, Any]:
        """A child that stands in line of a queue."""
        tree, result = self.grow(SIMPLE, self.rng.randint(1, 2))
        return ["leaf", tree, self.rng.choice("xyz"), self.rng.choice((0, 0, -1))], result

    def drawn(self) -> tuple[Action, Any]:
        """A body that nobody wrote: whether each of its effects happens is for its seed and for time to say."""
        name = self.perhaps()
        return ["drawn", name, self.rng.randrange(10**6)], name

    def grow(self, kinds: tuple[Any, ...], length: int) -> tuple[list[Action], list[Any]]:
        pairs = [self.rng.choice(kinds)(self) for _ in range(length)]
        return [p[0] for p in pairs], [p[1] for p in pairs]


SIMPLE = (
    Grower.step, Grower.step, Grower.step, Grower.block, Grower.block, Grower.retry, Grower.fail, Grower.once_only,
    Grower.nap, Grower.nothing, Grower.event, Grower.say,
    Grower.move,
)  # fmt: skip
ALL = (*SIMPLE, Grower.post, Grower.post, Grower.child, Grower.talk, Grower.told, Grower.heard, Grower.gather,
       Grower.gather, Grower.race, Grower.late, Grower.leaf, Grower.drawn)  # fmt: skip
BLOCKING = (*SIMPLE, Grower.post, Grower.child, Grower.talk, Grower.leaf)


def workflow(seed: int, n: int) -> Planned:
    """The n-th workflow of a seed."""
    rng = random.Random(f"{seed}/{n}")
    grower = Grower(f"w{n}", rng)
    blocking = rng.random() < 0.2
    tree, result = grower.grow(BLOCKING if blocking else ALL, rng.randint(3, 7))
    out: Any = result
    cancel: float | None = None
    ends = "completed"
    chance = rng.random()
    if chance < 0.06:  # the rest is another run of the same id, with a history of its own
        rest, out = grower.grow(SIMPLE, rng.randint(1, 3))
        tree.append(["new", rest])
    elif chance < 0.12:
        tree.append(["for ever"])
        cancel, ends = rng.uniform(0.1, 4), "cancelled"
    elif chance < 0.16:
        cancel, ends = rng.uniform(0, 2), "either"
    elif chance < 0.19:
        name = grower.effect()
        tree.append(["fall", name])
        ends, out = "failed", f"fell at {name}"
    elif chance < 0.2:
        tree.append(["for ever"])
        ends = "waiting"
    if cancel is not None:  # what it comes to before the cancel is a matter of time
        grower.maybe |= set(grower.effects) | {f"{grower.id} cleaned"}
        grower.effects = {}
    return Planned(
        id=grower.id,
        blocking=blocking,
        tree=tree,
        mail=tuple(grower.mail),
        cancel=cancel,
        ends=ends,
        result=out,
        effects=grower.effects,
        maybe=frozenset(grower.maybe),
        at_most_once=frozenset(grower.once),
        moves=grower.moves,
        line=None if ends == "waiting" else line(rng),  # who waits for ever would keep its place for ever
        pause=(rng.uniform(0, 3), rng.uniform(0, 1.5)) if rng.random() < 0.1 else None,
    )


def line(rng: random.Random) -> Line | None:
    """Whether and how a workflow is enqueued."""
    if rng.random() < 0.65:
        return None
    return Line(
        queue=rng.choice(QUEUES), partition=rng.choice("abc"), priority=rng.choice((0, 0, -1, 5)),
        delay=rng.choice((0, 0, 0, rng.uniform(0, 1))), again=rng.random() < 0.3,
    )  # fmt: skip


def twin(id: str) -> str:
    """Under which id a workflow is started once more, with the deduplication key that the first one has."""
    return f"{id}:twin"


def workflows(seed: int, count: int) -> Iterator[Planned]:
    return (workflow(seed, n) for n in range(count))


def matches(pattern: Any, value: Any) -> bool:
    """Whether a value is what the model says, at every depth."""
    if isinstance(pattern, OneOf):
        return any(matches(p, value) for p in pattern.values)
    if isinstance(pattern, list):
        return isinstance(value, list) and len(pattern) == len(value) and all(map(matches, pattern, value))
    return bool(pattern == value)


# -- faults


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong: what, to whom (an executor's or client's number), when, for how long."""

    at: float  # this share of the workflows has been started
    kind: str  # kill | drain | pause | restart | cut | client
    whom: int
    how: str
    seconds: float


CUTS = ("answer", "answer", "answer", "reset", "reset", "half-close", "blackhole")
RESTARTS = ("fast", "immediate", "immediate", "kill", "terminate")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    workflows: int
    executors: int
    clients: int
    kills: int
    pauses: int
    restarts: int
    cuts: int
    lease: float
    flying: int  # workflows that the clients have under way, all together


def faults(seed: int, sizes: Sizes) -> list[Fault]:
    """The schedule of a seed, by progress: the same on a slow machine, and nothing is done to a fleet at rest."""
    rng = random.Random(f"{seed}/faults")
    found: list[Fault] = []

    def add(count: int, kind: str, whom: int, how: tuple[str, ...], seconds: tuple[float, float]) -> None:
        found.extend(
            Fault(
                rng.uniform(0.03, 1.0), kind, rng.randrange(whom), rng.choice(how),
                rng.uniform(*seconds),
            )
            for _ in range(count)
        )  # fmt: skip

    lease = sizes.lease
    add(sizes.kills, "kill", sizes.executors, ("SIGKILL",), (0, lease / 2))
    add(sizes.kills // 5, "drain", sizes.executors, ("SIGTERM", "SIGTERM and SIGKILL"), (0, 0.3))
    add(sizes.kills // 8, "client", sizes.clients, ("SIGKILL",), (0, 1))
    add(sizes.pauses, "pause", sizes.executors, ("SIGSTOP",), (lease / 2, lease * 4))
    add(sizes.restarts, "restart", 1, RESTARTS, (0, lease / 2))
    add(sizes.cuts, "cut", sizes.executors + sizes.clients, CUTS, (lease / 2, lease * 2))
    return sorted(found, key=lambda fault: fault.at)
