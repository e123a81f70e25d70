"""Each thing that a workflow's body can do with others, and with itself: one table, of which every entry is a body.

They say what they saw as text that is the same on every run, whatever time it takes.
"""

# waits: durable timers of bodies; nobody waits for them by the clock.

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from perdure import (
    App,
    Event,
    Retry,
    Stream,
    Topic,
    Workflow,
    close_stream,
    current,
    now,
    patched,
    recv,
    set_event,
    sleep,
    uuid4,
    write_stream,
)
from perdure.errors import WorkflowCancelled, WorkflowNotFound
from perdure.process import Process, State

Doing = Callable[[], Awaitable[Any]]
LATER = 3600.0
said = Event[str]("said")
letters = Topic[str]("letters")
lines = Stream[str]("lines")


def declare(  # long: one table, whose entries share what they begin with
    app: App, effects: list[str], reached: Callable[[str], Awaitable[None]], session: Any
) -> tuple[dict[str, Any], Any]:
    """Declare the bodies: each takes two steps at a time, one of which ends when it is told to; then it does its thing.

    ``reached(id)``: awaited by the second step; ``effects``: what steps have done.
    """
    app.queue("later", concurrency=100)
    table: dict[str, Workflow[..., Any]] = {}

    @app.step
    async def act(what: str) -> str:
        effects.append(f"{current().id} {what}")
        return what

    @app.step
    async def second() -> None:
        effects.append(f"{current().id} second")
        await reached(current().id)

    @app.step(retry=Retry(3, on=ConnectionError, delay=0.001))
    async def third_time() -> int:
        effects.append(f"{current().id} third_time")
        if current().attempt < 3:
            raise ConnectionError
        return current().attempt

    @app.transaction(session)
    def transfer(_session: Any) -> str:
        return "transferred"

    @app.workflow
    async def double(n: int) -> int:
        await act("double")
        return 2 * n

    @app.workflow
    async def speaker() -> str:
        await set_event(said, "hello")
        await write_stream(lines, "one")
        await act("between")
        await write_stream(lines, "two")
        await close_stream(lines)
        return await recv(letters)

    @app.workflow
    async def answering(to: str) -> None:  # to its parent
        await speaker.handle(to).send("an answer", letters)

    @app.workflow
    async def hearing(of: str) -> str | None:
        return await speaker.handle(of).get_event(said)

    @app.workflow
    async def reading(of: str) -> list[str]:
        return [line async for line in speaker.handle(of).read_stream(lines)]

    @app.workflow
    async def asking(after: str) -> str:
        """A child that asks after another, which its parent has begun."""
        return f"{await speaker.handle(after).get_event(said)} {(await speaker.handle(after).info()).name}"

    @app.workflow
    async def waiting() -> str:
        return await recv(letters)

    @app.process
    class Door(Process):
        closed = State(initial=True, settable=True)
        open = State()
        push = closed.to(open)
        pull = open.to(closed)

    def doing(what: Doing) -> Doing:
        name = what.__name__

        async def body(again: bool = False) -> Any:
            if again:
                return "gone on as new"
            await asyncio.gather(act("first"), second())
            return await what()

        table[name] = app.workflow(name=name)(body)
        return what

    def me() -> str:
        return current().id

    # -- children

    @doing
    async def calls_a_child() -> Any:
        return await double(4)

    @doing
    async def starts_a_child_and_waits() -> Any:
        return await (await double.start(4)).result()

    @doing
    async def starts_a_child_in_a_queue() -> Any:
        return await (await double.options(queue="later").start(4)).result()

    @doing
    async def starts_one_of_a_chosen_id() -> Any:
        return await (await double.options(id=f"{me()} own").start(4)).result()

    @doing
    async def starts_one_of_a_chosen_id_in_a_queue() -> Any:
        return await (await double.options(id=f"{me()} own", queue="later").start(4)).result()

    @doing
    async def starts_one_twice() -> Any:
        many = [await double.options(id=f"{me()} own").start(4) for _ in range(2)]
        return [await one.result() for one in many]

    @doing
    async def starts_one_with_a_key() -> Any:
        return await (await double.options(queue="later", dedup=me()).start(4)).result()

    @doing
    async def replaces_one() -> Any:
        await waiting.options(id=f"{me()} own").start()
        return await (await double.options(id=f"{me()} own", on_conflict="replace").start(4)).result()

    @doing
    async def starts_one_for_later() -> Any:
        child = await double.options(delay=LATER).start(4)
        return [await child.status(), await child.cancel()]

    @doing
    async def starts_many() -> Any:
        some = [await double.start(n) for n in range(3)]
        more = [await double.options(queue="later").start(n) for n in range(3)]
        return await asyncio.gather(*(one.result() for one in (*some, *more)))

    @doing
    async def asks_after_a_child() -> Any:
        info = await (await waiting.start()).info()
        return [info.name, info.parent is not None]

    @doing
    async def asks_after_a_child_in_a_queue() -> Any:
        return (await (await waiting.options(queue="later").start()).info()).name

    @doing
    async def asks_after_one_for_later() -> Any:
        return await (await waiting.options(delay=LATER).start()).status()

    @doing
    async def leaves_a_child_open() -> Any:
        await waiting.start()
        await waiting.options(queue="later").start()
        return "ended"

    @doing
    async def cancels_a_child() -> Any:
        return await (await waiting.start()).cancel()

    @doing
    async def cancels_a_child_in_a_queue() -> Any:
        return await (await waiting.options(delay=LATER).start()).cancel()

    @doing
    async def waits_for_a_child_no_longer() -> Any:
        child = await waiting.start()
        try:
            async with asyncio.timeout(0.001):
                await child.result()
        except TimeoutError:
            pass
        again = await waiting.start()
        try:
            async with asyncio.timeout(0.001):
                await waiting()
        except TimeoutError:
            pass
        return await again.cancel()

    @doing
    async def waits_for_what_is_cancelled() -> Any:
        child = await waiting.start()
        await child.cancel()
        try:
            return await child.result()
        except WorkflowCancelled:
            return "cancelled"

    @doing
    async def asks_after_nobody() -> Any:
        seen = []
        for ask in (double.handle("nobody").result, double.handle("nobody").info, double.handle("nobody").cancel):
            try:
                seen.append(str(await ask()))
            except WorkflowNotFound:
                seen.append("not found")
        return seen

    # -- events, messages, streams

    @doing
    async def hears_an_event_of_a_child() -> Any:
        child = await speaker.start()
        return await child.get_event(said)

    @doing
    async def hears_an_event_of_a_child_in_a_queue() -> Any:
        child = await speaker.options(queue="later").start()
        return await child.get_event(said)

    @doing
    async def sets_an_event_that_a_child_hears() -> Any:
        await set_event(said, "to all")
        return [await hearing(me()), await (await hearing.options(queue="later").start(me())).result()]

    @doing
    async def sends_to_a_child() -> Any:
        child = await waiting.start()
        await child.send("a letter", letters)
        return await child.result()

    @doing
    async def sends_to_a_child_in_a_queue() -> Any:
        child = await waiting.options(queue="later").start()
        await child.send("a letter", letters)
        return await child.result()

    @doing
    async def sends_to_one_of_a_chosen_id() -> Any:
        child = await waiting.options(id=f"{me()} own", queue="later").start()
        await child.send("a letter", letters)
        return await child.result()

    @doing
    async def sends_to_a_stranger() -> Any:
        stranger = waiting.handle(f"{me()} stranger")
        await stranger.send("a letter", letters)
        return await stranger.result()

    @doing
    async def sends_to_nobody() -> Any:
        try:
            await waiting.handle("nobody").send("a letter", letters)
        except WorkflowNotFound:
            return "not found"

    @doing
    async def sends_to_itself() -> Any:
        await waiting.handle(me()).send("a note", letters)
        return await recv(letters)

    @doing
    async def receives_of_a_child() -> Any:
        await answering.start(me())
        await answering.options(queue="later").start(me())
        return [await recv(letters), await recv(letters), await recv(letters, timeout=0.001)]

    @doing
    async def reads_a_stream_of_a_child() -> Any:
        child = await speaker.start()
        return [line async for line in child.read_stream(lines)]

    @doing
    async def reads_a_stream_of_a_child_in_a_queue() -> Any:
        child = await speaker.options(queue="later").start()
        return [line async for line in child.read_stream(lines)]

    @doing
    async def writes_a_stream_that_a_child_reads() -> Any:
        await write_stream(lines, "one")
        child = await reading.options(queue="later").start(me())
        await act("between")
        await write_stream(lines, "two")
        await close_stream(lines)
        return await child.result()

    @doing
    async def has_children_that_know_each_other() -> Any:
        first = await speaker.start()
        return [await asking(first.id), await (await asking.options(queue="later").start(first.id)).result()]

    # -- a process

    @doing
    async def begins_a_process_and_orders() -> Any:
        door = (await Door.options(id=f"{me()} own").start()).within(10)
        await door.execute("push")
        seen = [await door.state(), await door.status()]
        await door.set_state("closed")
        return [*seen, await door.state(), [command.name for command in await door.commands()]]

    @doing
    async def orders_a_process_of_a_derived_id() -> Any:
        door = (await Door.start()).within(10)
        await door.execute("push")
        return await door.state()

    # -- by itself

    @doing
    async def takes_steps() -> Any:
        return [await act(f"act {n}") for n in range(3)]

    @doing
    async def takes_steps_that_fail() -> Any:
        return await third_time()

    @doing
    async def transacts() -> Any:
        return [await transfer(), await act("after"), await transfer()]

    @doing
    async def sleeps() -> Any:
        before = now()
        await sleep(0.01)
        await asyncio.sleep(0.01)
        return (now() - before).total_seconds() >= 0.02

    @doing
    async def asks_for_a_patch() -> Any:
        return [patched("new"), await act("after"), len(str(uuid4()))]

    @doing
    async def fails() -> Any:
        await set_event(said, "goodbye")
        raise ValueError("as it should")

    @doing
    async def goes_on_as_new() -> Any:
        await set_event(said, "before")
        await double.start(1)
        table["goes_on_as_new"].options(attributes={"run": 2}).continue_as_new(True)

    @doing
    async def does_all_at_once() -> Any:
        child = await speaker.start()
        got = await asyncio.gather(
            child.get_event(said), double(3), act("a"), child.send("done", letters), child.result(), sleep(0.001)
        )
        return list(got)

    return table, waiting
