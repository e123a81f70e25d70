"""Plays a plan: every way in which asyncio lets a body combine what it waits for, and a log of what happened when.

What a body waits for in the end (a step, a message) is for a subclass to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from typing import Any, cast

from perdure.testing.plans import Plan


class Boom(Exception):
    """What a plan raises."""


class Play:
    """One run of a plan.

    A subclass says what a step is and how a message is received; any other leaf is a step, unless it says more.
    """

    def __init__(self) -> None:
        self.log: list[str] = []

    def seen(self) -> str:
        """A digest of all that has happened so far, in its order."""
        return f"{len(self.log)} {hashlib.blake2b(repr(self.log).encode(), digest_size=6).hexdigest()}"

    async def do(self, plan: Plan) -> Any:
        """Do what a node says; its log has when it began and how it ended."""
        self.log.append(f"{plan.name} {plan.kind}")
        try:
            said = await getattr(self, f"_{plan.kind}")(plan)
        except BaseException as error:
            self.log.append(f"{plan.name} {name_of(error)}")
            raise
        self.log.append(f"{plan.name} = {said}")
        return said

    def _tasks(self, plan: Plan) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.do(part)) for part in plan.parts]

    async def _drop(self, tasks: Any) -> None:
        """Cancel what is left, in the order in which it was made, and wait for its end."""
        for task in tasks:
            task.cancel()
        for said in await asyncio.gather(*tasks, return_exceptions=True):
            self.log.append(f"dropped {name_of(said)}")

    # -- leaves

    async def step(self, name: str) -> str:
        """Whatever the durable thing of the subclass is."""
        raise NotImplementedError

    async def receive(self, seconds: float) -> Any:
        """A message, or None when the time is out."""
        raise NotImplementedError

    async def _step(self, plan: Plan) -> str:
        return await self.step(plan.name)

    _flaky = _chance = _child = _beside = _step

    async def _receive(self, plan: Plan) -> Any:
        return await self.receive(plan.seconds)

    async def _nap(self, plan: Plan) -> None:
        await asyncio.sleep(plan.seconds)

    async def _yield_(self, plan: Plan) -> None:
        await asyncio.sleep(0)

    async def _raise_(self, plan: Plan) -> None:
        raise Boom(plan.name)

    # -- branches

    async def _row(self, plan: Plan) -> list[Any]:
        return [await self.do(part) for part in plan.parts]

    async def _gather(self, plan: Plan) -> list[Any]:
        return await asyncio.gather(*map(self.do, plan.parts))

    async def _gather_all(self, plan: Plan) -> list[str]:
        return [name_of(said) for said in await asyncio.gather(*map(self.do, plan.parts), return_exceptions=True)]

    async def _group(self, plan: Plan) -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.do(part)) for part in plan.parts]
        return [task.result() for task in tasks]

    async def _nested_group(self, plan: Plan) -> str:
        """A group whose members begin others in it."""

        async def member(part: Plan) -> None:
            await asyncio.sleep(0)
            group.create_task(self.do(part))
            await self._step(part)

        try:
            async with asyncio.TaskGroup() as group:
                for part in plan.parts:
                    group.create_task(member(part))
        except* (Boom, ConnectionError) as errors:
            self.log.append(f"{plan.name} {[name_of(error) for error in errors.exceptions]}")
        return "grouped"

    async def _until(self, plan: Plan, when: str, timeout: float | None = None) -> list[str]:
        tasks = self._tasks(plan)
        try:
            done, rest = await asyncio.wait(tasks, return_when=when, timeout=timeout)
            said = [name_of(task.exception() or task.result()) for task in tasks if task in done]
            self.log.append(f"{plan.name} {[tasks.index(task) for task in done]} {len(rest)}")
        finally:
            await self._drop([task for task in tasks if not task.done()])
        return said

    async def _first(self, plan: Plan) -> list[str]:
        return await self._until(plan, asyncio.FIRST_COMPLETED)

    async def _first_failed(self, plan: Plan) -> list[str]:
        return await self._until(plan, asyncio.FIRST_EXCEPTION)

    async def _all_by_then(self, plan: Plan) -> list[str]:
        return await self._until(plan, asyncio.ALL_COMPLETED, plan.seconds)

    async def _left_running(self, plan: Plan) -> str:
        """Tasks that nobody waits for: they may be under way when the body ends."""
        self._tasks(plan)
        await asyncio.sleep(plan.seconds)
        return "left"

    async def _within(self, plan: Plan) -> str:
        try:
            async with asyncio.timeout(plan.seconds):
                return str(await self._row(plan))
        except TimeoutError:
            return "late"

    async def _wait_for(self, plan: Plan) -> str:
        try:
            return str(await asyncio.wait_for(self._gather(plan), plan.seconds))
        except TimeoutError:
            return "late"

    async def _shielded(self, plan: Plan) -> str:
        inner = asyncio.ensure_future(self._row(plan))
        try:
            async with asyncio.timeout(plan.seconds):
                return str(await asyncio.shield(inner))
        except TimeoutError:
            await self._step(plan)
            return str(await inner)

    async def _as_completed(self, plan: Plan) -> str:
        for one in asyncio.as_completed(list(map(self.do, plan.parts))):
            try:
                self.log.append(f"{plan.name} came {await one}")
            except (Boom, ConnectionError, TimeoutError, ExceptionGroup) as error:
                self.log.append(f"{plan.name} came {name_of(error)}")
        return "all"

    async def _cancelled(self, plan: Plan) -> str:
        """What is begun is given up a while later, or when a step is done."""
        tasks = self._tasks(plan)
        await (self._step(plan) if plan.seconds > 0.01 else asyncio.sleep(plan.seconds))
        await self._drop(tasks)
        return "dropped"

    async def _cleanup(self, plan: Plan) -> Any:
        try:
            return await self._row(plan)
        finally:
            await self._step(plan)

    async def _caught(self, plan: Plan) -> str:
        try:
            return str(await self._row(plan))
        except Exception as error:
            self.log.append(f"{plan.name} caught {name_of(error)}")
            return await self._step(plan)

    async def _queue(self, plan: Plan) -> str:
        """Producers put what they come to into a short queue; one takes it out, with a step each."""
        queue: asyncio.Queue[str] = asyncio.Queue(1)

        async def produce(part: Plan) -> None:
            try:
                said = str(await self.do(part))
            except Exception as error:
                said = name_of(error)
            await queue.put(said)

        producers = [asyncio.create_task(produce(part)) for part in plan.parts]
        try:
            for _ in plan.parts:
                self.log.append(f"{plan.name} took {await queue.get()}")
                await self._step(plan)
        finally:
            await self._drop([task for task in producers if not task.done()])
        return "taken"

    async def _locked(self, plan: Plan) -> str:
        lock = asyncio.Lock()

        async def hold(part: Plan) -> None:
            async with lock:
                self.log.append(f"{part.name} has the lock")
                await self.do(part)

        said = await asyncio.gather(*map(hold, plan.parts), return_exceptions=True)
        return str([name_of(one) for one in said])

    async def _gated(self, plan: Plan) -> str:
        """All wait for an event that one sets when it is done."""
        gate = asyncio.Event()

        async def behind(part: Plan) -> None:
            await gate.wait()
            await self.do(part)

        rest = [asyncio.create_task(behind(part)) for part in plan.parts[1:]]
        try:
            await self.do(plan.parts[0])
        finally:
            gate.set()
        said = await asyncio.gather(*rest, return_exceptions=True)
        return str([name_of(one) for one in said])

    async def _condition(self, plan: Plan) -> str:
        """Who is done tells the others; the last to be told goes on."""
        condition, over = asyncio.Condition(), 0

        async def play(part: Plan) -> None:
            nonlocal over
            try:
                await self.do(part)
            except Exception as error:
                self.log.append(f"{part.name} {name_of(error)}")
            async with condition:
                over += 1
                condition.notify_all()

        tasks = [asyncio.create_task(play(part)) for part in plan.parts]
        try:
            async with condition:
                await condition.wait_for(lambda: over == len(tasks))
        finally:
            await self._drop([task for task in tasks if not task.done()])
        return "told"

    async def _generator(self, plan: Plan) -> str:
        """One that is left in its middle, and cleans up."""

        async def parts() -> AsyncGenerator[Any, None]:
            try:
                for part in plan.parts:
                    yield await self.do(part)
            finally:
                self.log.append(f"{plan.name} closed")
                await asyncio.sleep(0)

        async with contextlib.aclosing(parts()) as some:
            async for said in some:
                return str(said)
        return "none"

    async def _later(self, plan: Plan) -> str:
        """A callback after a while sets a future; what is done meanwhile takes its time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        def ring() -> None:
            if not future.done():
                future.set_result(len(self.log))

        timer = loop.call_later(plan.seconds, ring)
        try:
            await self._row(plan)
            return str(await future)
        finally:
            timer.cancel()

    async def _twice(self, plan: Plan) -> str:
        """Two loops over a semaphore's two places."""
        places = asyncio.Semaphore(2)

        async def one(part: Plan) -> None:
            for _ in range(2):
                async with places:
                    await self.do(part)

        said = await asyncio.gather(*map(one, plan.parts), return_exceptions=True)
        return str([name_of(error) for error in said])

    async def _mail(self, plan: Plan) -> str:
        """Two receive beside what else is done; whoever is not served is given up."""
        both = [asyncio.create_task(self.receive(plan.seconds + n)) for n in range(2)]
        try:
            await self._row(plan)
        finally:
            self.log.append(f"{plan.name} got {[one.result() for one in both if one.done() and not one.cancelled()]}")
            await self._drop(both)
        return "mail"

    async def _gone(self, plan: Plan) -> str:
        """A task that cancels itself in its middle."""

        async def self_cancelling() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await self._row(plan)

        said = await asyncio.gather(self_cancelling(), return_exceptions=True)
        return str([name_of(error) for error in said])


def name_of(said: Any) -> str:
    """What one can say of it that is the same in every process."""
    if isinstance(said, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", said)
        return f"{type(group).__name__}({', '.join(map(name_of, group.exceptions))})"
    return type(said).__name__ if isinstance(said, BaseException) else str(said)
