"""A program to be killed: one workflow, and a recovery policy that may be killed while it is asked.

    python -m tests.crash.policy_victim URL (hang | die | answer)

``hang``: its step never ends. ``die``: its policy kills the process. ``answer``: its policy skips the step.
Markers: ``effect``, ``asked ATTEMPT STEP EXECUTOR``, ``result N``, ``decision NAME POLICY`` for each row at the end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from perdure import App
from perdure.recovery import Decision, Incident, Skip

url, order = sys.argv[1:]
app = App("policies", database=url, executor_id="victim", lease=30)


def say(*what: object) -> None:
    os.write(1, f"{' '.join(map(str, what))}\n".encode())


@app.step
async def charge() -> int:
    say("effect")
    await asyncio.Event().wait()
    return 0


@app.workflow
async def pay() -> int:
    return await charge() + 1


@app.recovery_policy(pay)
def decide(incident: Incident) -> Decision:
    say("asked", incident.attempt, incident.in_flight[0].name, incident.executor)
    if order == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return Skip(result=7, because="paid by hand")


async def main() -> None:
    async with app:
        handle = await pay.options(id="a").start()
        say("result", await handle.result())
        for row in await app._home.engine().line.store.decisions(["a"]):
            say("decision", row.decision, row.policy or "-")


if __name__ == "__main__":
    asyncio.run(main())
