"""The simulated app: one workflow of each kind of thing that a body can do, and clients that ask for them.

Its bodies are async; those of blocking code are in ``blocking``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import datetime
from typing import Any, Protocol

from perdure import App, Event, Retry, Stream, Topic, close_stream, current, now, recv, set_event, sleep, write_stream
from perdure.model.info import from_datetime
from perdure.recovery import Compensating, Incident
from perdure.runtime.face import Home
from perdure.testing.histcheck.streams import ClientHistory, Ledger
from perdure.testing.simulation import asking, blocking, programs
from perdure.testing.simulation.bank import declare
from perdure.testing.simulation.judgement import decide
from perdure.testing.simulation.loop import PROCESS
from perdure.testing.simulation.rollout import OLD
from perdure.testing.simulation.sometimes import sometimes

NOTE = Topic[int]("note")
PROGRESS = Event[int]("progress")
STORY = Stream[str]("story")


class Stage(Protocol):
    """What the app needs of the world that it runs in."""

    chance: Any

    @property
    def ledger(self) -> Ledger: ...

    def duration(self) -> float:
        """How long an effect takes, in seconds."""
        ...


class Simulated:
    """The app, made once for each edition of its code; ``stage`` is the world of the moment.

    What the second edition changes: ``chain`` has one more step in the end, which replays; ``sleeper`` and ``stubborn``
    begin with another step, which does not replay once they have begun.
    """

    def __init__(self, edition: int = OLD) -> None:
        self.edited = edition != OLD
        self.app = App("sim")
        self.home: Home = self.app._home  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  the app's own line, which a world takes over
        self.stage: Stage
        self._declare()

    def _declare(self) -> None:  # long: one declaration after the other
        app = self.app

        @app.step
        async def work(what: str, seen: Any = None) -> int:
            with self.stage.ledger.effect(what, args=seen) as effect:
                await asyncio.sleep(self.stage.duration())
                effect.result = len(what)
            return len(what)

        @app.step(retry=Retry(attempts=4, delay=0.05))
        async def flaky(what: str) -> int:
            with self.stage.ledger.effect(what):
                await asyncio.sleep(self.stage.duration())
                if self.stage.chance.random() < 0.5:
                    raise ConnectionError(what)
            return 1

        @app.step(at_most_once=True)
        async def once(what: str) -> int:
            with self.stage.ledger.effect(what, once=True):
                await asyncio.sleep(self.stage.duration())
            return 1

        @app.workflow
        async def chain(length: int) -> int:
            total = 0
            for n in range(length):
                total += await work(f"link {n}", total)
            with contextlib.suppress(ConnectionError):
                total += await flaky("flaky")
            with contextlib.suppress(Exception):  # unknown after a crash
                await once("once")
            if self.edited:
                await work("audit", total)
            return total

        @app.workflow
        async def family(size: int) -> int:
            await work("before children")
            first = await asyncio.gather(*(chain(1 + n % 2) for n in range(size)))
            await sleeper.options(on_parent_close="abandon").start(0.3)
            named = await chain.options(id=f"{current().id}-named").start(1)
            await work("after children", len(first))
            return size + await _or_zero(named.result())

        @app.workflow
        async def race(rounds: int) -> list[str]:
            winners: list[str] = []
            for n in range(rounds):
                tasks = {asyncio.ensure_future(work(f"runner {n} {k}")): str(k) for k in range(2)}
                tasks[asyncio.ensure_future(asyncio.sleep(0.02))] = "time"  # type: ignore[arg-type]
                done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                winners.append(min(tasks[one] for one in done))
                await work(f"winner {n}", list(winners))
                for one in rest:
                    one.cancel()
                await asyncio.gather(*rest, return_exceptions=True)
            return winners

        @app.workflow
        async def sleeper(seconds: float) -> int:
            if self.edited:
                await work("about to sleep")
            before = _us(now())
            await sleep(seconds)
            await work("slept", {"slept": [before, _us(now()), round(seconds * 1e6)]})
            return 1

        @app.workflow
        async def mailbox(expected: int) -> list[int]:
            got: list[int] = []
            for _ in range(expected):
                message = await recv(NOTE, timeout=3)
                if message is None:
                    break
                got.append(message)
                await set_event(PROGRESS, len(got))
                await work(f"message {len(got)}", list(got))
            return got

        @app.workflow
        async def sender(dest: str, count: int) -> int:
            sent = 0
            for n in range(count):
                with contextlib.suppress(Exception):  # it has ended, or never was
                    await mailbox.handle(dest).send(n, NOTE)
                    sent += 1
                await work(f"sent {n}", sent)
            with contextlib.suppress(Exception):
                await mailbox.handle(dest).get_event(PROGRESS, timeout=1)
            return sent

        @app.workflow(versioning="auto_upgrade")
        async def looper(rounds: int) -> int:
            await work(f"round {rounds}")
            if rounds:
                looper.continue_as_new(rounds - 1)
            return rounds

        @app.workflow(versioning="pinned")
        async def hurried(seconds: float) -> int:
            try:
                await work("hurried")
                await sleep(seconds)
            finally:
                await work("cleanup")
            return 1

        @app.workflow
        async def group(size: int) -> int:
            await asyncio.sleep(0)
            async with asyncio.TaskGroup() as tasks:
                made = [tasks.create_task(chain_of_two(n)) for n in range(size)]
            return sum(task.result() for task in made)

        @app.workflow
        async def stubborn(times: int) -> int:
            if self.edited:
                await work("about to try")
            for n in range(times):
                await flaky(f"stubborn {n}")
            return times

        @app.workflow
        async def judged(length: int) -> int:
            try:
                for n in range(length):
                    await work(f"judged {n}")
            except Compensating:
                await work("undone")
                raise
            return length

        @app.recovery_policy(judged, on={"crash", "drained"})
        async def judge(incident: Incident) -> Any:
            return await decide(self.stage.chance, incident)

        @app.step(retry=Retry(attempts=4, delay=0.05))
        async def tell(what: str, count: int) -> int:
            with self.stage.ledger.effect(what):
                for n in range(count):
                    await write_stream(STORY, f"{what} {n}")
                    await asyncio.sleep(self.stage.duration() / count)
                    if self.stage.chance.random() < 0.1:
                        raise ConnectionError(what)
            return count

        @app.workflow
        async def teller(rounds: int) -> int:
            await write_stream(STORY, f"round {rounds}")
            for told in await asyncio.gather(tell("left", 5), tell("right", 3), return_exceptions=True):
                await write_stream(STORY, "failed" if isinstance(told, Exception) else "told")
            if rounds:
                teller.continue_as_new(rounds - 1)
            await close_stream(STORY)
            return rounds

        @app.workflow
        async def listener(id: str, rounds: int) -> int:
            await teller.options(id=id).start(rounds)
            heard = 0
            async for _ in teller.handle(id).read_stream(STORY):
                heard += 1
            await work("heard", heard)
            return heard

        async def chain_of_two(n: int) -> int:
            first = await work(f"first of {n}")
            return first + await work(f"second of {n}", first)

        @app.workflow
        async def queued() -> int:
            first = await work("in line")
            await asyncio.sleep(0.2)
            return first + await work("through")

        @app.workflow
        async def fired(due: datetime) -> int:
            await work("fired", str(due))
            if due.second % 3 == 0:
                await sleep(1.5)  # longer than until the next one
                await work("late")
            return 1

        self.payer = declare(self)
        blocking.declare(self)
        self.asker, self.asked = asking.declare(self, NOTE, PROGRESS)
        self.program = programs.declare(self)
        self.queued, self.fired = queued, fired
        self.chain, self.family, self.race, self.sleeper, self.mailbox = chain, family, race, sleeper, mailbox
        self.judged = judged
        self.teller, self.listener = teller, listener
        self.sender, self.looper, self.hurried, self.group, self.stubborn = sender, looper, hurried, group, stubborn


def _us(when: datetime) -> int:
    return from_datetime(when)


async def _or_zero(result: Awaitable[int]) -> int:
    try:
        return await result
    except Exception:  # it was cancelled, or failed
        return 0


class Client:
    """One client's calls, each noted with what was answered."""

    def __init__(self, history: ClientHistory, chance: Any) -> None:
        self.history = history
        self.chance = chance

    @property
    def app(self) -> Simulated:
        """The edition of the code that the asking process has."""
        code: Simulated = PROCESS.get().code
        return code

    async def start(self, workflow: Any, id: str, *args: Any, **options: Any) -> Any:
        with self.history.call("start", id, args=list(args)):
            return await workflow.options(id=id, **options).start(*args)

    async def enqueue(self, workflow: Any, id: str, *args: Any, **options: Any) -> Any:
        """What it was answered, which is another one's handle if that has the deduplication key."""
        with self.history.call("enqueue", id, args=list(args)) as call:
            handle = await workflow.options(id=id, **options).start(*args)
            call.value = handle.id
        sometimes("a key was another's", handle.id != id)
        return handle

    async def limit(self, queue: str, limits: dict[str, Any]) -> None:
        """Of a queue that the code does not declare: all worlds are of one code, and few have queues."""
        with self.history.call("limit", queue):
            await self.app.app.client.set_queue(queue, **limits)

    async def schedule(self, name: str, missed: Any, overlap: Any, seconds: float) -> None:
        """One that fires every second, for so long."""
        client = self.app.app.client
        with contextlib.suppress(Exception), self.history.call("schedule", name):
            await client.create_schedule(name, self.app.fired, every=1, missed=missed, overlap=overlap)
        await asyncio.sleep(seconds)
        with contextlib.suppress(Exception), self.history.call("pause", name):
            await client.schedule(name).pause()

    async def result(self, handle: Any) -> None:
        with contextlib.suppress(Exception), self.history.call("result", handle.id) as call:
            call.value = await handle.result()

    async def cancel(self, handle: Any) -> None:
        with contextlib.suppress(Exception), self.history.call("cancel", handle.id) as call:
            call.value = str(await handle.cancel())

    async def order(self, handle: Any, verb: str, key: str, *given: Any, **options: Any) -> None:
        """Reset, skip, cancel: whatever an operator may order of one workflow."""
        named = {"key": key} if verb == "reset" else {}
        with contextlib.suppress(Exception), self.history.call(verb, handle.id, key=key) as call:
            call.value = str(await getattr(handle, verb)(*given, reason=key, **named, **options))

    async def pause(self, handle: Any) -> None:
        with contextlib.suppress(Exception), self.history.call("pause", handle.id) as call:
            call.value = str(await handle.pause())

    async def unpause(self, handle: Any) -> None:
        """Until it is done."""
        done = False
        while not done:
            with contextlib.suppress(Exception), self.history.call("unpause", handle.id) as call:
                call.value = str(await handle.unpause())
                done = True

    async def pin(self, handle: Any) -> None:
        """Whatever its code declares, to the version that runs it."""
        with contextlib.suppress(Exception), self.history.call("pin", handle.id) as call:
            call.value = str(await handle.move((await handle.info()).version))

    async def unpin(self, handle: Any) -> None:
        """Until it is done, or has ended."""
        done = False
        while not done:
            with contextlib.suppress(Exception), self.history.call("unpin", handle.id) as call:
                done = not (await handle.status()).open
                call.value = "ended" if done else str(await handle.move("unset"))
                done = True

    async def send(self, handle: Any, value: int, key: str | None = None, topic: Topic[int] = NOTE) -> None:
        with contextlib.suppress(Exception), self.history.call("send", handle.id, args=value, key=key):
            await handle.send(value, topic, key=key)

    async def read_stream(self, handle: Any, offset: int) -> None:
        """To its end."""
        call = self.history.call("read_stream", handle.id, args=["story", offset])
        with contextlib.suppress(Exception), call as answer:
            answer.value = [word async for word in handle.read_stream(STORY, offset=offset)]

    async def read(self, handle: Any) -> None:
        with contextlib.suppress(Exception), self.history.call("get_event", handle.id, args="progress") as call:
            call.value = await handle.get_event(PROGRESS, timeout=2)
