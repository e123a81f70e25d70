"""A program whose workflows get into trouble, in versions of it: to be killed, and started again.

    python -m tests.crash.troubled URL LEDGER VERSION good|bad [POINT MODE]

``good``: each workflow waits between two steps, the second of which fails twice. ``bad``: the release that has
forgotten the workflow. With POINT and MODE it kills itself (SIGKILL) at such a write. Says ``ready``, and ``done`` when
all have ended.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

from perdure import App, Retry, Topic, current, recv
from perdure.store.base import Store
from perdure.testing.crash import CrashStore, Mode, Plan
from tests.crash.victim import die, say

IDS = tuple(f"w{n}" for n in range(6))
GO = Topic[bool]("go")
ledger: list[int] = []


def release(url: str, version: str, kind: str) -> App:
    app = App("troubled", database=url, version=version, rollout="manual", lease=5)
    if kind == "bad":

        @app.workflow(name="other")
        async def other() -> None: ...

        return app

    @app.step(name="first")
    async def first() -> int:
        os.write(ledger[0], f"{current().id} first\n".encode())
        return 1

    @app.step(name="second", retry=Retry(attempts=9, delay=0.05, factor=1))
    async def second() -> int:
        me = current()
        if me.attempt < 3:
            raise ConnectionError(f"attempt {me.attempt}")
        os.write(ledger[0], f"{me.id} second\n".encode())
        return 2

    @app.workflow(name="order")
    async def order() -> list[int]:
        done = await first()
        await recv(GO)
        return [done, await second()]

    return app


async def main(url: str, path: str, version: str, kind: str, point: str | None, mode: str | None) -> None:
    ledger.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    app = release(url, version, kind)
    if point is not None and mode is not None:
        plan = Plan({int(point): Mode[mode]})
        plan.counting = True
        home = app._home
        make = home.make_store
        home.make_store = lambda *given: cast(Store, CrashStore(make(*given), plan, die))
    async with app:
        say("ready")
        for id in IDS if kind == "good" else ():
            await app.client.handle(id).result()
        if kind == "good":
            say("done")
        else:
            await asyncio.Event().wait()


if __name__ == "__main__":
    url, path, version, kind, *rest = sys.argv[1:]
    asyncio.run(main(url, path, version, kind, *(rest or (None, None))))
