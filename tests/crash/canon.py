"""The canonical workflows: each construct that a crash might tear apart, with effects that are counted outside."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

from perdure import (
    App,
    Event,
    Rate,
    Retry,
    Stream,
    Topic,
    close_stream,
    current,
    now,
    random,
    recv,
    set_event,
    sleep,
    track,
    uuid4,
    write_stream,
)
from perdure.errors import ResultTimeout, StepOutcomeUnknown
from perdure.runtime.context import STEP
from tests.crash.ledger import ledger

app = App("canon")
line = app.queue("line", concurrency=1, rate=Rate(3, per=10))
letters = Topic[str]("letters")
stage = Event[str]("stage")
lines = Stream[str]("lines")


@app.step
async def act(what: str) -> str:
    ledger.effect(what)
    return what


@app.step
async def slow(what: str, turns: int = 5) -> str:
    ledger.effect(what)
    for _ in range(turns):
        await asyncio.sleep(0)
    return what


@app.step
def act_in_thread(what: str) -> str:
    ledger.effect(what)
    return what


@app.step(retry=Retry(4, on=ConnectionError, delay=5))
async def third_time(what: str) -> str:
    ledger.effect(what)
    if current().attempt < 3:
        raise ConnectionError(f"attempt {current().attempt}")
    return f"{what} at attempt {current().attempt}"


@app.step(retry=Retry(10, on=ConnectionError, delay=60))
async def never(what: str) -> str:
    ledger.effect(what)
    raise ConnectionError("never")


@app.step
async def refuse(what: str) -> str:
    ledger.effect(what)
    raise ValueError(what)


@app.step(at_most_once=True)
async def shoot(what: str) -> str:
    ledger.effect(what, once=True)
    return what


@app.step(pure=True)
async def add(a: int, b: int) -> int:
    ledger.effect("add", pure=True)
    return a + b


@app.step
async def say(what: str) -> str:
    ledger.effect(what)
    await write_stream(lines, what)
    return what


@app.step(retry=Retry(3, on=ConnectionError, delay=5))
async def recite(what: str) -> str:
    ledger.effect(what)
    for n in track(range(4), what):
        await write_stream(lines, f"{what} {n}")
        await asyncio.sleep(0)
        if n == 1 and current().attempt == 1:
            raise ConnectionError("once")
    return what


@app.workflow
async def sequence(n: int) -> list[str]:
    return [await act(f"act {i}") for i in range(n)]


@app.workflow
async def gathered() -> list[str]:
    return list(await asyncio.gather(slow("a", 3), act_in_thread("b"), act("c"), slow("d", 1)))


@app.workflow
async def grouped() -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(twice(name)) for name in ("x", "y", "z")]
    return [task.result() for task in tasks]


async def twice(name: str) -> str:
    return await act(f"{name}1") + await slow(f"{name}2")


@app.workflow
async def first_of() -> str:
    work = asyncio.create_task(slow("work"))
    alarm = asyncio.create_task(asyncio.sleep(3600))
    done, pending = await asyncio.wait({work, alarm}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    assert done == {work}
    return work.result() + await act("after")


@app.workflow
async def as_they_come() -> list[str]:
    found: list[str] = []
    for next_one in asyncio.as_completed([slow("p", 4), act("q"), slow("r", 2)]):
        found.append(await next_one)
        await act(f"saw {len(found)}")
    return sorted(found)


@app.workflow
async def timed() -> list[str]:
    out: list[str] = []
    async with asyncio.timeout(100):
        out.append(await slow("in time"))
    try:
        async with asyncio.timeout(10):
            await never("too slow")
    except TimeoutError:
        out.append("timed out")
    out.append(await act("afterwards"))
    return out


@app.workflow
async def child(what: str) -> str:
    await act(f"{what}/1")
    await sleep(10)
    return await act(f"{what}/2")


@app.workflow(queue=line)
async def lined(what: str) -> str:
    return f"{await act(what)} done"


@app.workflow
async def through_a_line() -> list[str | bool]:
    """Children that stand in line, one of them late, with a key that a second start meets."""
    handles = [await lined.options(priority=-n).start(f"child {n}") for n in range(3)]
    late = await lined.options(delay=30, dedup="key").start("late")
    same = await lined.options(dedup="key").start("another")
    return [await handle.result() for handle in handles] + [same.id == late.id, await late.result()]


@app.workflow
async def replaced_in_line() -> list[str]:
    """A child under a chosen id with a key, and the next run of that id, with another key that a third has."""
    first = await (await lined.options(id="main-a", dedup="one").start("first")).result()
    holder = await lined.options(id="main-b", delay=60, dedup="two").start("never")
    second = await lined.options(id="main-a", dedup="two", on_conflict="replace").start("second")
    return [first, await second.result(), str(await holder.status())]


@app.workflow
async def children() -> list[str]:
    first = await child("one")
    handle = await child.start("two")
    many = await child.start_many(["three", "four"])
    await act("between")
    return [first, await handle.result(), *[await one.result() for one in many]]


@app.workflow
async def named_children() -> list[str]:
    one = await child.options(id="chosen").start("chosen")
    again = await child.options(id="chosen").start("chosen")
    return [one.id, again.id, await one.result(), await again.result(), await child.options(id="other")("other")]


@app.workflow
async def failing_child() -> str:
    return await refuse("child refuses")


@app.workflow
async def child_fails() -> str:
    try:
        return await failing_child()
    except ValueError as error:
        return await act(f"caught {error}")


@app.workflow
async def mailbox() -> list[str | None]:
    got: list[str | None] = [await recv(letters), await recv(letters, timeout=1000)]
    await act(f"read {got}")
    got.append(await recv(letters, timeout=50))
    return got


@app.workflow
async def collector(n: int) -> list[str]:
    got: list[str] = []
    for _ in range(n):
        got.append(await recv(letters))
        await act(f"got {got[-1]}")
    if await recv(letters, timeout=30) is not None:
        got.append("one too many")
    return got


@app.workflow
async def postman(to: str, n: int) -> int:
    for i in range(n):
        await act(f"write {i}")
        await collector.handle(to).send(f"letter {i}", letters)
    return n


@app.workflow
async def talkers() -> list[str]:
    box = await collector.options(id="box").start(3)
    await postman("box", 3)
    return await box.result()


@app.workflow
async def teller(steps: int) -> str:
    for i in range(steps):
        await act(f"step {i}")
        await set_event(stage, f"stage {i}")
    return "told"


@app.workflow
async def listener() -> str | None:
    other = await teller.options(id="teller").start(2)
    await other.result()
    return await other.get_event(stage)


@app.workflow
async def announcer() -> None:
    await recv(letters)
    await set_event(stage, "announced")


@app.workflow
async def hearer() -> str | None:
    return await announcer.handle("announcer").get_event(stage)


@app.workflow
async def sleeper() -> float:
    began = now()
    await sleep(100)
    await act("awake")
    await asyncio.sleep(50)
    return (now() - began).total_seconds()


@app.workflow
async def retried() -> list[str]:
    return list(await asyncio.gather(third_time("r1"), third_time("r2")))


@app.workflow
async def hopeless() -> str:
    """Its step fails for ever, unless somebody skips it."""
    return await act(f"went on {await never('hopeless')}")


@app.workflow
async def in_threads() -> list[str]:
    one = await act_in_thread("one")
    return [one, *await asyncio.gather(act_in_thread("two"), act_in_thread("three"))]


@app.workflow
async def generations(left: int) -> str:
    await act(f"generation {left}")
    if left:
        generations.continue_as_new(left - 1)
    return await act("the last")


@app.workflow
async def cancelled() -> str:
    try:
        await act("begun")
        await recv(letters)
        return "not cancelled"
    finally:
        await act("cleaned up")
        await slow("all of it")


@app.step
async def until_cancelled(what: str) -> str:
    """Under way until its workflow is told to stop."""
    ledger.effect(what)
    step = STEP.get()
    assert step is not None
    while step.execution.cancelling is None:  # noqa: ASYNC110  the engine has no event for it
        await asyncio.sleep(0.001)  # waits: for the commit of who asks for it; turns alone would keep a core busy
    return what


@app.workflow
async def cancelled_in_steps() -> str:
    async def leg(name: str) -> None:
        try:
            await until_cancelled(name)
            await recv(letters)
        finally:
            await act(f"{name} undone")
            await act(f"{name} paid back")

    async with asyncio.TaskGroup() as group:
        for name in "ab":
            group.create_task(leg(name))
    return "not cancelled"


@app.workflow(timeout=500)
async def out_of_time() -> str:
    try:
        await act("begun")
        await sleep(10_000)
        return "in time"
    except asyncio.CancelledError:
        await act("cleaned up")
        raise


@app.workflow
async def caught() -> str:
    try:
        await refuse("first")
    except ValueError as error:
        return await act(f"caught {error}")
    return "not raised"


@app.workflow
async def uncaught() -> str:
    await act("before")
    return await refuse("uncaught")


@app.workflow
async def saga() -> str:
    try:
        async with AsyncExitStack() as stack:
            for part in ("flight", "hotel"):
                await act(f"book {part}")
                stack.push_async_callback(act, f"cancel {part}")
            await refuse("car")
    except ValueError as error:
        return f"no {error}"
    return "booked"


@app.workflow
async def long_child(what: str) -> str:
    try:
        await act(f"{what} begun")
        await sleep(1000)
        return await act(f"{what} done")
    except asyncio.CancelledError:
        await act(f"{what} cancelled")
        raise


@app.workflow
async def leaver() -> str:
    await long_child.options(id="cancel", on_parent_close="cancel").start("cancel")
    await long_child.options(id="abandon", on_parent_close="abandon").start("abandon")
    await long_child.start("derived")
    await act("leaving")
    return "left"


@app.workflow
async def quitter() -> str:
    """Gives up two children that would outlive it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            await asyncio.gather(*(long_child.options(on_parent_close="abandon")(name) for name in ("one", "two")))
    return await act("went on")


@app.workflow
async def impatient() -> list[str]:
    """Waits for a while only, and looks at what it began."""
    handle = await long_child.start("slow")
    said = [str(await handle.status() in ("running", "waiting"))]
    try:
        await handle.result(timeout=100)
    except ResultTimeout:
        said.append(await act("too long"))
    said.append(str(await handle.get_event(stage, timeout=100)))
    return [*said, await handle.result(timeout=10_000)]


@app.workflow
async def waiter() -> str:
    """Its end waits for two children, of whose ends its body never asked."""
    await child.options(id="chosen", on_parent_close="wait").start("chosen")
    await child.options(on_parent_close="wait").start("derived")
    return await act("leaving")


@app.workflow
async def abandoner() -> str:
    """Cancelled while its children go on."""
    await long_child.options(on_parent_close="abandon").start("derived")
    await long_child.start("bound")
    await recv(letters)
    return "not cancelled"


@app.workflow
async def tenant(what: str) -> str:
    """Waits for mail unless it is the second: for starts that replace it."""
    try:
        await act(f"{what} moved in")
        if what == "first":
            await recv(letters)
        return what
    except asyncio.CancelledError:
        await act(f"{what} moved out")
        raise


@app.workflow
async def cautious() -> str:
    """Steps that are never run again: their workflow goes on, knowing that it does not know."""
    for what in ("ready", "steady"):
        try:
            await shoot(what)
        except StepOutcomeUnknown:
            await act(f"look after {what}")
    return await act("done")


@app.workflow
async def landlord() -> str:
    """Its child takes the place of what waits under that id."""
    await tenant.options(id="flat").start("first")
    await sleep(10)
    return await (await tenant.options(id="flat", on_conflict="replace").start("second")).result()


@app.workflow
async def canceller() -> str:
    other = await long_child.options(id="victim").start("victim")
    await sleep(10)
    status = await other.cancel(reason="enough")
    return f"{status} {(await other.info()).status}"


@app.workflow
async def chances() -> list[str]:
    first, second = uuid4(), random.random()
    await act(f"{first}"[:0] + "drew")
    again = await add(int(second * 1000), 1)
    await sleep(5)
    return [str(len({first, uuid4()})), str(again == int(second * 1000) + 1), await act("drawn")]


@app.workflow
async def rewindable() -> list[str]:
    """Of each kind something before and after the place where it is cut: a step, an event, a message, a child."""
    out = [await say("before")]
    await set_event(stage, "before")
    out.append(await child("kept"))
    out.append(await recv(letters))
    out.append(await say("after"))
    await set_event(stage, "after")
    out.append(await child("cut off"))
    out.append(await recv(letters))
    return [*out, await say("last")]


@app.workflow
async def reciter(generations: int) -> str:
    """Writes in its body and in steps side by side that fail half way, and goes on with the stream as new."""
    await write_stream(lines, f"begin {generations}")
    await asyncio.gather(recite(f"left{generations}"), recite(f"right{generations}"))
    if generations:
        reciter.continue_as_new(generations - 1)
    await write_stream(lines, "end")
    await close_stream(lines)
    return "recited"


@app.workflow
async def audience() -> list[str]:
    """Reads what its child writes, while it does."""
    child = await reciter.start(0)
    heard = [line async for line in child.read_stream(lines)]
    return [await act("heard"), *sorted(heard)]
