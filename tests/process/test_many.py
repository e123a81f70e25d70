"""Thousands that were Running at the crash: recovered a bounded number at a time, while the application serves."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from perdure import App
from perdure.api.process import Process
from perdure.recovery import Decision, Default, Incident
from perdure.runtime.recovery import UNDECIDED
from perdure.schemes.grammar import State
from tests.effort import by_effort
from tests.process.test_lives import stands
from tests.runtime.support import crash, executor, until

pytestmark = [pytest.mark.slow, pytest.mark.crash, pytest.mark.timeout(360)]
MANY = by_effort(400, 800, 10_000)
AT_ONCE = 500
HELD_MAX = UNDECIDED + 200  # in memory at a time: those that are decided about, and some that go on
EACH_SECOND = 250  # decided, at least, beside all that this machine does


def build(app: App, *, hangs: bool) -> tuple[Any, list[int]]:
    inside: list[int] = []
    never = asyncio.get_running_loop().create_future()

    @app.step(name="work")
    async def work(n: int) -> None:
        if hangs:
            inside.append(n)
            await never

    @app.process(name="Job")
    class Job(Process):
        n: int = 0
        ready = State(initial=True)
        done = State(final=True)
        go = ready.to(done)

        async def on_enter_ready(self) -> None:
            await work(self.n)

    return Job, inside


async def test_it_serves_before_all_are_decided_about(database: str) -> None:
    app = App("many", database=database)
    job, inside = build(app, hangs=True)
    await app.open()
    for some in range(0, MANY, AT_ONCE):
        await asyncio.gather(*(
            job.options(id=f"j{n}").start(n=n) for n in range(some, min(some + AT_ONCE, MANY))
        ))  # fmt: skip
    await until(lambda: len(inside) == MANY, 120)
    await crash(app)
    app = App("many", database=database)
    job, _ = build(app, hangs=False)
    held: list[int] = []
    served = asyncio.Event()

    @app.recovery_policy(job)
    async def after_that(incident: Incident) -> Decision:
        await served.wait()
        return Default()

    began = time.monotonic()
    async with app:

        async def watch() -> None:
            while True:
                held.append(len(executor(app).deciding) + len(executor(app).executions))
                await asyncio.sleep(0.005)  # waits: looks on

        watching = asyncio.ensure_future(watch())
        p = await job.options(id="new").start()
        await stands(p, "Idled", "ready")
        await p.execute("go")
        assert await p.status() == "Finalized"
        assert int(await app.client.count("attributes.status = 'Error'")) == 0
        served.set()
        after = time.monotonic() - began

        async def decided() -> bool:
            await asyncio.sleep(0.2)  # waits: counting is work, too
            return int(await app.client.count("attributes.status = 'Error' AND status = waiting")) == MANY

        await until(decided, MANY / EACH_SECOND + 30)
        took = time.monotonic() - began
        watching.cancel()
        rows = await executor(app).line.store.decisions([f"j{n}" for n in range(0, MANY, 97)])
        assert {(row.id, row.run) for row in rows} == {(f"j{n}", 1) for n in range(0, MANY, 97)}
        print(f"{MANY} in {took:.1f} s, a new one served after {after:.1f} s, {max(held)} held at most")
        assert max(held) <= HELD_MAX
