"""A program to be killed while it changes a deployment.

    python -m tests.crash.deployer URL prepare|current|ramp|unset|note|delete [MODE]

With MODE it kills itself (SIGKILL) at the write of the order itself.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from perdure import App, recv
from perdure.store.base import Store
from perdure.testing.crash import CrashStore, Mode, Plan
from tests.crash.victim import die, say


def release(url: str, version: str) -> App:
    app = App("deployed", database=url, version=version, rollout="manual", lease=5)

    @app.workflow(name="job", versioning="pinned")
    async def job() -> None:
        await recv("go")

    app.job = job  # type: ignore[attr-defined]
    return app


async def prepare(url: str) -> None:
    """Three versions; the first is current, and has open work."""
    for version in ("v1", "v2", "v3"):
        async with release(url, version) as app:
            if version == "v1":
                await app.job.options(id="w").start()  # type: ignore[attr-defined]


async def order(app: App, what: str) -> None:
    to = app.client.deployment
    match what:
        case "current":
            done = await to.set_current_version("v2", allow_no_executors=True, reason="a test")
        case "ramp":
            done = await to.set_ramping_version("v3", 12.5, allow_no_executors=True)
        case "unset":
            done = await to.unset_ramping_version()
        case "note":
            done = await to.update_metadata("v2", {"commit": "4f1c2aa"})
        case _:
            done = await to.delete_version("v1", skip_drainage=True)
    say("done", done.changed, done.revision)


async def main(url: str, what: str, mode: str | None) -> None:
    if what == "prepare":
        await prepare(url)
        return
    app = release(url, "v1")
    if mode is not None:
        plan = Plan({1: Mode[mode]}, {"change_deployment"})
        plan.counting = True
        make = app._home.make_store
        app._home.make_store = lambda *given: cast(Store, CrashStore(make(*given), plan, die))
    async with app.connect():
        await order(app, what)


if __name__ == "__main__":
    url, what, *mode = sys.argv[1:]
    asyncio.run(main(url, what, mode[0] if mode else None))
