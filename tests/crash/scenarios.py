"""How each canonical workflow is driven from outside, and what must come out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any
from unittest.mock import patch

import perdure.sync
from perdure.api.workflow import Workflow
from perdure.errors import PerdureError
from perdure.model.cuts import rewind
from perdure.model.ids import RunKey, TokenMaker
from perdure.model.records import Kind
from perdure.query.conditions import where
from perdure.runtime import suspects
from perdure.runtime.eviction import evict_if_idle
from perdure.serde import Shape
from perdure.testing import Harness
from tests.crash import canon, canon_sync
from tests.crash.ledger import ledger


class Outside:
    """A caller that crashes with the process and is started again: it asks until it is answered."""

    def __init__(self, harness: Harness, blocking: bool) -> None:
        self.harness = harness
        self.blocking = blocking

    async def __call__(self, call: Callable[[], Any]) -> Any:
        """A call that is answered at once."""
        while True:
            while self.harness._direct and self.harness._restart is not None:
                await asyncio.wait({self.harness._restart})  # until then the app's own line is that of the dead
            work = self.harness._work
            task = asyncio.ensure_future(self.harness.in_thread(call) if self.blocking else call())
            await asyncio.wait({task, work.crashed} if self.harness._direct else {task}, return_when="FIRST_COMPLETED")
            if task.done() and not task.cancelled():
                return task.result()
            task.cancel()
            while self.harness._restart is not None:
                await asyncio.wait({self.harness._restart})

    async def wait(self, call: Callable[[], Any]) -> Any:
        """A call that waits for something to happen; time may pass."""
        with self.harness.waiting():
            return await self(call)


Drive = Callable[[Outside, Harness], Awaitable[Any]]


@dataclass
class Scenario:
    """A workflow, how it is driven, and what must come out of it."""

    name: str
    drive: Drive
    result: Any
    app: Any = field(default=canon.app)
    prepare: Callable[[Harness, Any], None] = lambda _harness, _app: None

    @property
    def blocking(self) -> bool:
        return isinstance(self.app, perdure.sync.App)


def plain(workflow: Any, *args: Any, result: Any, error: type[BaseException] | None = None) -> Scenario:
    """Start it, wait for its end."""
    app = canon_sync.app if workflow._homes.home is canon_sync.app._home else canon.app

    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: workflow.options(id="main").start(*args))
        try:
            return await io.wait(handle.result)
        except Exception as raised:
            if error is None or not isinstance(raised, error):
                raise
            return str(raised)

    name = f"{'sync ' if app is canon_sync.app else ''}{workflow.name}"
    return Scenario(name, drive, result, app)


def mailbox(module: Any) -> Drive:
    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: module.mailbox.options(id="main").start())
        await io(lambda: handle.send("first", module.letters, key="1"))
        await harness.settle()
        await evict(harness)
        await io(lambda: handle.send("second", module.letters, key="2"))
        await io(lambda: handle.send("second", module.letters, key="2"))
        return await io.wait(handle.result)

    return drive


async def early_mail(io: Outside, harness: Harness) -> Any:
    """Mail and events while everything goes on, without ever settling."""
    handle = await io(lambda: canon.collector.options(id="main").start(3))
    for i in range(3):
        await io(lambda i=i: handle.send(f"letter {i}", canon.letters, key=f"{i}"))
    return await io.wait(handle.result)


async def sleeper_evicted(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.sleeper.options(id="main").start())
    await harness.settle()
    await evict(harness)
    await harness.advance(120)
    await evict(harness)
    return await io.wait(handle.result)


async def children_evicted(io: Outside, harness: Harness) -> Any:
    """Parent and child leave memory, and meet again."""
    handle = await io(lambda: canon.children.options(id="main").start())
    for _ in range(3):
        await harness.settle()
        await evict(harness)
        await harness.advance(5)
    return await io.wait(handle.result)


async def events(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.teller.options(id="main").start(3))
    first = await io.wait(lambda: handle.get_event(canon.stage))
    assert first in {"stage 0", "stage 1", "stage 2"}
    await io.wait(handle.result)
    return await io.wait(lambda: handle.get_event(canon.stage))


def cancel(module: Any) -> Drive:
    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: module.cancelled.options(id="main").start())
        await harness.settle()
        return str(await io.wait(lambda: handle.cancel(reason="enough")))

    return drive


async def cancel_in_steps(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.cancelled_in_steps.options(id="main").start())
    while len(ledger.bodies) < 2:  # noqa: ASYNC110  both steps have begun, in this life or in one before
        await asyncio.sleep(0.001)  # waits: for several commits; turns alone would keep a core busy
    return str(await io.wait(lambda: handle.cancel(reason="enough")))


async def cancel_evicted(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.cancelled.options(id="main").start())
    await harness.settle()
    await evict(harness)
    return str(await io.wait(lambda: handle.cancel(reason="enough")))


async def out_of_time(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.out_of_time.options(id="main").start())
    try:
        await io.wait(handle.result)
    except PerdureError:
        return str((await io(handle.info)).status)


async def out_of_time_without_code(io: Outside, harness: Harness) -> Any:
    """From a caller that does not know of the timeout: whoever claims it tells the row."""
    known = Workflow("out_of_time", canon.out_of_time._homes, None, Shape.of(str), None)
    handle = await io(lambda: known.options(id="main").start())
    try:
        await io.wait(handle.result)
    except PerdureError:
        info = await io(handle.info)
        return [str(info.status), (info.deadline - info.started).total_seconds()]


def left(workflow: Any) -> Drive:
    """Start it, wait for its end; what became of its children long after."""

    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: workflow.options(id="main").start())
        out = [await io.wait(handle.result)]
        await harness.advance(2000)
        found = [info async for info in canon.app.client.list("type = long_child")]
        return [*out, *sorted(f"{info.id} {info.status}" for info in found)]

    return drive


def outlived(workflow: Any) -> Drive:
    """Start it, wait for its end; how its children ended, and whether before it or after."""

    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: workflow.options(id="main").start())
        result = await io.wait(handle.result)
        await harness.advance(200)
        end = (await harness.store.rows(["main"]))["main"].closed or 0
        found = (await harness.store.list(where(parent="main"))).rows
        return [result, *sorted(f"{r.id} {r.status} {'after' if (r.closed or 0) > end else 'before'}" for r in found)]

    return drive


async def abandoner(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.abandoner.options(id="main").start())
    await harness.settle()
    out = [str(await io.wait(lambda: handle.cancel(reason="enough")))]
    await harness.advance(2000)
    await harness.settle()
    found = await harness.store.list(where(parent="main"))
    return [*out, *sorted(f"{row.id} {row.status}" for row in found.rows)]


def replaced(module: Any, *, running: bool) -> Drive:
    """Start it, start it again in its place, while it waits or when it has ended; and what became of the first run."""

    async def drive(io: Outside, harness: Harness) -> Any:
        first = await io(lambda: module.tenant.options(id="main").start("first" if running else "early"))
        if running:
            await harness.settle()
        else:
            await io.wait(first.result)
        # It waits for the end of the run that it cancels.
        second = await io.wait(lambda: module.tenant.options(id="main", on_conflict="replace").start("second"))
        result = await io.wait(second.result)
        run = await harness.store.run(RunKey("main", 1))
        assert run is not None
        # A caller that died with its call asks again, and so replaces what replaced.
        assert harness._direct or (await harness.store.rows(["main"]))["main"].run == 2
        history = (await harness.store.histories([run.key]))[run.key]
        return [result, str(run.status), [record.data for record in history if record.kind is Kind.STEP]]

    return drive


async def delayed(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: canon.sequence.options(id="main", delay=60).start(2))
    await harness.settle()
    return await io.wait(handle.result)


async def started_twice(io: Outside, harness: Harness) -> Any:
    one, two = await asyncio.gather(
        io(lambda: canon.sequence.options(id="main").start(2)), io(lambda: canon.sequence.options(id="main").start(2))
    )
    return [await io.wait(one.result), await io.wait(two.result)]


async def continued_and_started_again(io: Outside, harness: Harness) -> Any:
    """The start that began it attaches to what it has become."""
    out: list[Any] = []
    for _ in range(2):
        handle = await io(lambda: canon.generations.options(id="main").start(2))
        out.append(await io.wait(handle.result))
    return out


async def heard_while_leaving(io: Outside, harness: Harness) -> Any:
    """The event comes in the very turn of the loop in which the one who waits for it is evicted."""
    other = await io(lambda: canon.announcer.options(id="announcer").start())
    handle = await io(lambda: canon.hearer.options(id="main").start())
    await harness.settle()
    executor = harness._work.engine.executor
    assert executor is not None
    hearer = executor.executions["main"]
    executor.line.watcher.event("announcer", "stage", lambda _: evict_if_idle(hearer, math.inf))
    await io(lambda: other.send("now", canon.letters))
    return await io.wait(handle.result)


async def many(io: Outside, harness: Harness) -> Any:
    handles = await io(lambda: canon.child.start_many(["a", "b", "c"], id=lambda what: f"many-{what}"))
    return [await io.wait(handle.result) for handle in handles]


async def queued(io: Outside, harness: Harness) -> Any:
    """Items of a queue from outside: in bulk, with a key, delayed; and one that leaves the line."""
    many = await io(lambda: c.lined.start_many(["a", "b"], id=lambda what: f"main-{what}"))
    keyed = await io(lambda: c.lined.options(id="main-k", dedup="k").start("keyed"))
    late = await io(lambda: c.lined.options(id="main-l", delay=60).start("late"))
    gone = await io(lambda: c.lined.options(id="main-g", delay=90).start("gone"))
    left = str(await io(gone.cancel))
    return [await io.wait(handle.result) for handle in (*many, keyed, late)] + [left]


async def without_code(io: Outside, harness: Harness) -> Any:
    """Items of a queue from a caller that does not know of it."""
    known = Workflow("lined", c.lined._homes, None, Shape.of(str), None)
    handles = [await io(lambda n=n: known.options(id=f"main-{n}").start(f"{n}")) for n in range(3)]
    out = [await io.wait(handle.result) for handle in handles]
    rows = await harness.store.rows([handle.id for handle in handles])
    return [*out, *(rows[handle.id].queue for handle in handles)]


def paused(module: Any) -> Drive:
    """Paused while it works, while it waits, and while nobody has it in memory; its mail comes meanwhile."""

    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: module.mailbox.options(id="main").start())
        for n, letter in enumerate(("first", "second")):
            assert str(await io.wait(lambda: handle.pause(reason="a look"))) == "held"
            await io(lambda letter=letter: handle.send(letter, module.letters, key=letter))
            await harness.settle()
            assert str((await harness.store.rows(["main"]))["main"].reason) == "paused"
            # Who asks again after a crash may find that it goes on already.
            assert str(await io(handle.unpause)) in {"queued", "running", "waiting"}
            if not n:
                await harness.settle()
                await evict(harness)
        result = await io.wait(handle.result)
        history = (await harness.store.histories([RunKey("main", 1)]))[RunKey("main", 1)]
        return [result, [r.name for r in history if r.kind is Kind.DECISION]]

    return drive


async def paused_in_line(io: Outside, harness: Harness) -> Any:
    """Items of a queue that are paused before they have begun: delayed, and in line."""
    late = await io(lambda: c.lined.options(id="main-l", delay=60).start("late"))
    assert str(await io(late.pause)) == "held"
    many = await io(lambda: c.lined.start_many(["a", "b"], id=lambda what: f"main-{what}"))
    assert str(await io.wait(many[1].pause)) in {"held", "completed"}
    assert await io.wait(many[0].result) == "a done"
    await harness.advance(30)
    assert str(await io(late.unpause)) in {"scheduled", "queued", "running", "completed"}
    await io(many[1].unpause)
    return [await io.wait(handle.result) for handle in (*many, late)]


def rewound(*, at_once: bool) -> Drive:
    """Its holder rewinds it to before its first message, to go on at once or from the queue; again after a crash."""

    async def drive(io: Outside, harness: Harness) -> Any:
        with patch.object(suspects, "LOOK_SECONDS", 3600):  # it waits in memory: what is not there has no holder
            handle = await first_run_rewound(io, harness)
        return await the_rest(io, harness, handle)

    async def first_run_rewound(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: canon.rewindable.options(id="main").start())
        await io(lambda: handle.send("first", canon.letters, key="1"))
        await harness.advance(30)
        while (row := (await harness.store.rows(["main"]))["main"]).run == 1:
            executor = harness._work.engine.executor
            if executor is not None and "main" in executor.executions:
                history = (await harness.store.histories([row.key]))[row.key]
                keep = next(record.seq for record in history if record.kind is Kind.RECV) - 1
                change = rewind(
                    row, history, b"[]", keep, TokenMaker(), at=harness.clock.now(), by="its holder",
                    hold=executor.me.id if at_once else None,
                )  # fmt: skip
                execution = executor.executions.get("main")
                if execution is not None and not execution.gone and execution.run.key.run == 1:
                    asyncio.get_running_loop().call_soon(_end_with, execution, change)
            await harness.settle()
        return handle

    return drive


async def lines(handle: Any, stream: Any) -> list[str]:
    """All that a stream has in the end."""
    return [line async for line in handle.read_stream(stream)]


async def recited(io: Outside, harness: Harness) -> Any:
    """What stands in the stream: each line once, those of one step in order, between those of the body."""
    handle = await io(lambda: canon.reciter.options(id="main").start(1))
    result = await io.wait(handle.result)
    found = await io(lambda: lines(handle, canon.lines))
    sections = [found[:9], found[9:]]
    return [result, len(found), [recitation(section) for section in sections]]


def recitation(section: list[str]) -> list[list[str]]:
    """The lines of the body and of each of the steps, each in order."""
    steps = ("l", "r")
    return [[line for line in section if line[0] not in steps], *([x for x in section if x[0] == s] for s in steps)]


def recitals(generation: int, *end: str) -> list[list[str]]:
    """What must come out of that."""
    return [
        [f"begin {generation}", *end],
        *([f"{step}{generation} {n}" for n in range(4)] for step in ("left", "right")),
    ]


def _end_with(execution: Any, change: Any) -> None:
    """A plain callback of the loop, as an execution's every move."""
    if not execution.gone:
        execution._end_with(change, unwind=True)


async def the_rest(io: Outside, harness: Harness, handle: Any) -> Any:
    """The second letter, the result, and what was kept and what was done again."""
    await io(lambda: handle.send("second", canon.letters, key="2"))
    result = await io.wait(handle.result)
    keys = [RunKey("main", 1), RunKey("main", 2)]
    before, after = (await harness.store.histories(keys)).values()
    [mark] = [record for record in after if record.kind is Kind.CUT]
    assert before[: mark.seq - 1] == after[: mark.seq - 1], "the kept records are the same"
    old = await harness.store.run(keys[0])
    assert old is not None
    assert (await harness.store.events([("main", "stage")])) == {("main", "stage"): b'"after"'}
    assert await io(lambda: lines(handle, canon.lines)) == ["before", "after", "last"]
    children = await harness.store.list(where(parent="main"))
    return [result, str(old.status), sorted(row.id for row in children.rows)]


async def resumed(io: Outside, harness: Harness) -> Any:
    """Cancelled in its second wait, and resumed."""
    handle = await io(lambda: canon.rewindable.options(id="main").start())
    await io(lambda: handle.send("first", canon.letters, key="1"))
    await harness.advance(30)
    out = str(await io.wait(lambda: handle.cancel(reason="a slip")))
    # The one who asks again after a crash may find that it goes on already.
    assert str(await io(handle.resume)) in {"queued", "running", "waiting"}
    return [out, *(await the_rest(io, harness, handle))]


def reset(*, children: bool) -> Drive:
    """Reset in its second wait: to before its first message, or to nothing with its children."""

    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: canon.rewindable.options(id="main").start())
        await io(lambda: handle.send("first", canon.letters, key="1"))
        await harness.advance(30)
        history = (await harness.store.histories([RunKey("main", 1)]))[RunKey("main", 1)]
        message = next(record.seq for record in history if record.kind is Kind.RECV)
        how = {"to": "first", "children": "reset"} if children else {"to": f"#{message}"}
        await io(lambda: handle.reset(**how, reason="bad"))
        out = await the_rest(io, harness, handle)
        rows = await harness.store.rows(CHILDREN)
        return [*out, sorted(row.run for row in rows.values())]

    return drive


async def moved(io: Outside, harness: Harness) -> Any:
    """Moved in its second wait, and back to what it declares."""
    handle = await io(lambda: canon.rewindable.options(id="main").start())
    await io(lambda: handle.send("first", canon.letters, key="1"))
    await harness.advance(30)
    await io(lambda: handle.move("auto-upgrade", reason="a try"))
    await io(lambda: handle.move("unset", reason="enough"))
    await io(lambda: handle.send("second", canon.letters, key="2"))
    result = await io.wait(handle.result)
    row = (await harness.store.rows(["main"]))["main"]
    return [result, row.run, row.override]


async def skipped(io: Outside, harness: Harness) -> Any:
    """A step that fails for ever is skipped while it waits for its next try."""
    handle = await io(lambda: canon.hopeless.options(id="main").start())
    await harness.settle()
    await io(lambda: handle.skip("never", "by hand", reason="done by hand"))
    return await io.wait(handle.result)


async def forked(io: Outside, harness: Harness) -> Any:
    """Forked before its second step, while it waits; the source is not touched."""
    handle = await io(lambda: canon.rewindable.options(id="main").start())
    await io(lambda: handle.send("first", canon.letters, key="1"))
    await harness.advance(30)
    before = (await harness.store.histories([RunKey("main", 1)]))[RunKey("main", 1)]
    fork = await io(lambda: handle.fork("5", id="fork"))
    await io(lambda: fork.send("fork's", canon.letters, key="3"))
    result = await io.wait(fork.result)
    after = (await harness.store.histories([RunKey("main", 1)]))[RunKey("main", 1)]
    assert after[: len(before)] == before
    assert str((await harness.store.rows(["main"]))["main"].status) in {"running", "waiting"}
    await io(lambda: handle.send("second", canon.letters, key="2"))
    out = [result, await io.wait(handle.result)]
    for one in (fork, handle):
        assert await io(lambda one=one: lines(one, canon.lines)) == ["before", "after", "last"]
    return out


async def restarted(io: Outside, harness: Harness) -> Any:
    """Begun anew under another id while it waits, and terminated in the same commit."""
    handle = await io(lambda: canon.rewindable.options(id="main").start())
    await harness.settle()
    again = await io(lambda: handle.restart(id="again", terminate=True))
    ended = str((await harness.store.rows(["main"]))["main"].status)
    for letter in ("first", "second"):
        await io(lambda letter=letter: again.send(letter, canon.letters, key=letter))
    return [ended, await io.wait(again.result)]


async def evict(harness: Harness) -> None:
    """Let every run that only waits leave memory."""
    executor = harness._work.engine.executor
    if executor is None or harness._restart is not None:
        return
    loop = asyncio.get_running_loop()
    for execution in list(executor.executions.values()):
        loop.call_soon(evict_if_idle, execution, loop.time() + 1)
    await harness.settle()


c, s = canon, canon_sync
REWOUND = ["before", "kept/2", "first", "after", "cut off/2", "second", "last"]
CHILDREN = ["main:3", "main:7"]
IN_AND_OUT = [b'"first moved in"', b'"first moved out"']
SCENARIOS = [
    plain(c.sequence, 3, result=["act 0", "act 1", "act 2"]),
    plain(c.gathered, result=["a", "b", "c", "d"]),
    plain(c.grouped, result=["x1x2", "y1y2", "z1z2"]),
    plain(c.first_of, result="workafter"),
    plain(c.as_they_come, result=["p", "q", "r"]),
    plain(c.timed, result=["in time", "timed out", "afterwards"]),
    plain(c.children, result=["one/2", "two/2", "three/2", "four/2"]),
    plain(c.named_children, result=["chosen", "chosen", "chosen/2", "chosen/2", "other/2"]),
    plain(c.child_fails, result="caught child refuses"),
    plain(c.replaced_in_line, result=["first done", "second done", "cancelled"]),
    plain(c.through_a_line, result=["child 0 done", "child 1 done", "child 2 done", True, "late done"]),
    Scenario("queued", queued, ["a done", "b done", "keyed done", "late done", "cancelled"]),
    Scenario("started without its code", without_code, ["0 done", "1 done", "2 done", *["line"] * 3]),
    plain(c.talkers, result=["letter 0", "letter 1", "letter 2"]),
    plain(c.listener, result="stage 1"),
    plain(c.sleeper, result=150.0),
    plain(c.impatient, result=["True", "too long", "None", "slow done"]),
    plain(c.retried, result=["r1 at attempt 3", "r2 at attempt 3"]),
    plain(c.in_threads, result=["one", "two", "three"]),
    plain(c.generations, 2, result="the last"),
    plain(c.caught, result="caught first"),
    plain(c.uncaught, result="uncaught", error=ValueError),
    plain(c.saga, result="no car"),
    plain(c.canceller, result="cancelled cancelled"),
    plain(c.chances, result=["2", "True", "drawn"]),
    Scenario("mailbox", mailbox(c), ["first", "second", None]),
    Scenario("early mail", early_mail, ["letter 0", "letter 1", "letter 2"]),
    Scenario("paused", paused(c), [["first", "second", None], ["pause", "unpause"] * 2]),
    Scenario("paused in line", paused_in_line, ["a done", "b done", "late done"]),
    Scenario("events", events, "stage 2"),
    Scenario("cancelled", cancel(c), "cancelled"),
    Scenario("cancelled in its steps", cancel_in_steps, "cancelled"),
    Scenario("cancelled when evicted", cancel_evicted, "cancelled"),
    Scenario("out of time", out_of_time, "timed_out"),
    Scenario("out of time, without its code", out_of_time_without_code, ["timed_out", 500.0]),
    Scenario("leaver", left(c.leaver), ["left", "abandon completed", "cancel cancelled", "main:3 cancelled"]),
    Scenario("quitter", left(c.quitter), ["went on", "main:1 cancelled", "main:2 cancelled"]),
    Scenario("waiter", outlived(c.waiter), ["leaving", "chosen completed before", "main:2 completed before"]),
    Scenario("abandoner", abandoner, ["cancelled", "main:1 completed", "main:2 cancelled"]),
    Scenario("replaced, running", replaced(c, running=True), ["second", "superseded", IN_AND_OUT]),
    Scenario("replaced, closed", replaced(c, running=False), ["second", "superseded", [b'"early moved in"']]),
    plain(c.landlord, result="second"),
    Scenario("rewound, at once", rewound(at_once=True), [REWOUND, "superseded", CHILDREN]),
    Scenario("rewound, queued", rewound(at_once=False), [REWOUND, "superseded", CHILDREN]),
    Scenario("resumed", resumed, ["cancelled", REWOUND, "superseded", CHILDREN]),
    Scenario("reset", reset(children=False), [REWOUND, "superseded", CHILDREN, [1, 1]]),
    Scenario("reset with children", reset(children=True), [REWOUND, "superseded", CHILDREN, [2, 2]]),
    Scenario("moved", moved, [REWOUND, 1, None]),
    Scenario("skipped", skipped, "went on by hand"),
    Scenario("forked", forked, [[*REWOUND[:5], "fork's", "last"], REWOUND]),
    Scenario("restarted", restarted, ["terminated", REWOUND]),
    plain(c.cautious, result="done"),
    Scenario("recited", recited, ["recited", 19, [recitals(1), recitals(0, "end")]]),
    plain(c.audience, result=["heard", *sorted(chain(*recitals(0, "end")))]),
    Scenario("delayed", delayed, ["act 0", "act 1"]),
    Scenario("started twice", started_twice, [["act 0", "act 1"]] * 2),
    Scenario("many", many, ["a/2", "b/2", "c/2"]),
    Scenario("sleeper, evicted", sleeper_evicted, 150.0),
    Scenario("children, evicted", children_evicted, ["one/2", "two/2", "three/2", "four/2"]),
    plain(s.sequence, 3, result=["act 0", "act 1", "act 2"]),
    plain(s.naps, result=150.0),
    plain(s.retried, result="rafter"),
    plain(s.children, result=["one/2", "two/2", "three/2"]),
    plain(s.talkers, result="['letter 0', 'letter 1', None] read"),
    plain(s.generations, 2, result="the last"),
    plain(s.caught, result="caught first"),
    plain(s.cautious, result="done"),
    plain(s.audience, result=["heard", "begin", "a 0", "a 1", "a 2", "a 3", "end"]),
    Scenario("sync mailbox", mailbox(s), ["first", "second", None], s.app),
    Scenario(
        "sync guardian",
        outlived(s.guardian),
        ["leaving", "abandoned completed after", "waited completed before"],
        s.app,
    ),
    Scenario("sync replaced, running", replaced(s, running=True), ["second", "superseded", IN_AND_OUT], s.app),
    Scenario("sync paused", paused(s), [["first", "second", None], ["pause", "unpause"] * 2], s.app),
    Scenario("sync cancelled", cancel(s), "cancelled", s.app),
]
# For reads that no crash point asks for.
READING = [
    *SCENARIOS,
    Scenario("continued, started again", continued_and_started_again, ["the last"] * 2),
    Scenario("heard while leaving", heard_while_leaving, "announced"),
]
