"""A program to be killed while it resumes, forks, restarts, moves, resets or skips, and one that works.

    python -m tests.crash.mover URL LEDGER prepare|work|held|cancelled|fork|restart|moved|reset|skipped [MODE]

With MODE it kills itself (SIGKILL) at the write of the order itself. ``prepare`` runs workflows up to their wait,
cancels one and holds one. Markers: ``effect …`` when a step has had its effect, ``done …`` at the end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any, cast

from perdure import App, Topic, current, recv
from perdure.model.states import Reason
from perdure.store.base import Store
from perdure.testing.crash import CrashStore, Mode, Plan
from tests.crash.victim import die, say
from tests.runtime.support import until

app = App("mover", lease=5)
word = Topic[str]("word")
ledger: list[int] = []


@app.step(name="act")
async def act(n: int) -> int:
    me = current()
    os.write(ledger[0], f"{me.id} {n} {me.idempotency_key}\n".encode())  # one write: whole or not at all
    say("effect", me.id, n)
    return n


@app.workflow(name="job")
async def job() -> list[Any]:
    out: list[Any] = [await act(1), await act(2)]
    out.append(await recv(word))
    return [*out, await act(3)]


inside = asyncio.Event()


@app.step(name="hang")
async def hang() -> int:
    inside.set()
    await asyncio.Event().wait()
    return 0


@app.workflow(name="stuck")
async def stuck() -> list[Any]:
    return [await act(1), await hang(), await recv(word), await act(3)]


async def prepare() -> None:
    async with app:
        for id in ("held", "cancelled", "source", "moved", "reset"):
            await job.options(id=id).start()
        await stuck.options(id="skipped").start()
        engine = app._home.engine()
        executor = engine.executor
        assert executor is not None
        await until(lambda: all(e.waiting for id, e in executor.executions.items() if id != "skipped"))
        await inside.wait()
        await job.handle("cancelled").cancel()
        executor.executions["held"].hold(Reason.POLICY, "by hand")
        await engine.line.journal.drained()


async def work() -> None:
    async with app:
        ids = ["held", "cancelled", "source-2", "again", "moved", "reset", "skipped"]
        for id in ids:
            await job.handle(id).send("go", word, key="go")
        say("done", [await job.handle(id).result() for id in ids])


async def order(what: str) -> None:
    async with app.connect():
        handle = job.handle("source" if what in ("fork", "restart") else what)
        if what == "moved":
            say("done", await handle.move("auto-upgrade", reason="a try"))
        elif what == "reset":
            say("done", await handle.reset("2", reason="a bad act"))
        elif what == "skipped":
            say("done", await handle.skip("hang", 2, reason="by hand"))
        elif what == "fork":
            say("done", (await handle.fork("2", id="source-2")).id)
        elif what == "restart":
            say("done", (await handle.restart(id="again", terminate=True)).id)
        else:
            say("done", await handle.resume())


async def main(url: str, path: str, what: str, mode: str | None) -> None:
    ledger.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    home = app._home
    home.arguments["database"] = url
    if mode is not None:
        plan = Plan({1: Mode[mode]})
        plan.counting = True
        make = home.make_store
        home.make_store = lambda *given: cast(Store, CrashStore(make(*given), plan, die))
    await {"prepare": prepare, "work": work}.get(what, lambda: order(what))()


if __name__ == "__main__":
    url, path, what, *mode = sys.argv[1:]
    asyncio.run(main(url, path, what, mode[0] if mode else None))
