"""A client of the chaos run: starts, sends, cancels and waits as planned, and notes what it was told.

    python -m chaos.client URL FOLDER NAME SEED WORKFLOWS RATE BEGAN SHARE OF

``FOLDER/NAME.history`` gets one JSON line when an operation is invoked and one when it was answered (``ok`` with the
value, ``fail`` with the error). Killed and started again, it does what it has no answer to once more: what has only an
``invoke`` is unknown, to it as to the judge.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from chaos import plan, programs
from chaos.executor import Lines, Told
from chaos.judge import read_lines
from perdure import Client
from perdure.errors import WorkflowCancelled, WorkflowFailed

APPS = {False: "chaos", True: "chaos-sync"}
TREES = {False: "tree", True: "sync_tree"}


class Teller:
    """One client's operations and its history."""

    def __init__(self, folder: Path, name: str, clients: dict[bool, Client]) -> None:
        path = folder / f"{name}.history"
        self.answered = {(line["id"], line["op"], line["n"]) for line in read_lines(path) if line["event"] != "invoke"}
        self.lines = Lines(path)
        self.clients = clients

    async def ask(self, id: str, op: str, call: Callable[[], Awaitable[Any]], n: int = 0) -> None:
        """Do it, unless it was answered in an earlier life."""
        if (id, op, n) in self.answered:
            return
        self.lines.write(event="invoke", id=id, op=op, n=n)
        try:
            value = await call()
        except (WorkflowCancelled, WorkflowFailed) as ended:
            self.lines.write(event="ok", id=id, op=op, n=n, value=None, ended=ended.status)
        except RuntimeError as error:  # of the workflow itself
            self.lines.write(event="ok", id=id, op=op, n=n, value=str(error), ended="failed")
        except Exception as error:
            self.lines.write(event="fail", id=id, op=op, n=n, error=f"{type(error).__name__}: {error}")
        else:
            self.lines.write(event="ok", id=id, op=op, n=n, value=value, ended="completed")

    async def serve(self, planned: plan.Planned) -> None:
        """All that is asked about one workflow."""
        client = self.clients[planned.blocking]
        workflow = client.workflow(TREES[planned.blocking], returns=list[Any]).options(id=planned.id)
        handle = client.workflow(TREES[planned.blocking], returns=list[Any]).handle(planned.id)

        async def start() -> str:
            return (await workflow.start(planned.tree)).id

        async def cancel() -> str:
            return str(await handle.cancel(reason="chaos"))

        await self.ask(planned.id, "start", start)
        post = asyncio.create_task(self.send(planned, handle))
        if planned.cancel is not None:
            await asyncio.sleep(planned.cancel)
            await self.ask(planned.id, "cancel", cancel)
        await post
        if planned.ends != "waiting":
            await self.ask(planned.id, "result", handle.result)

    async def send(self, planned: plan.Planned, handle: Any) -> None:
        for n, letter in enumerate(planned.mail):
            await self.ask(
                planned.id, "send", lambda n=n, letter=letter: handle.send(letter, programs.letters, key=str(n)), n
            )


async def main(url: str, folder: Path, name: str, seed: int, count: int, rate: float, began: float, share: str) -> None:
    logging.getLogger("perdure").addHandler(Told(Lines(folder / f"{name}.log")))
    mine, of = map(int, share.split("/"))
    async with AsyncExitStack() as stack:
        clients = {face: await stack.enter_async_context(Client(url, app=app)) for face, app in APPS.items()}
        teller = Teller(folder, name, clients)
        async with asyncio.TaskGroup() as group:
            for n in range(mine, count, of):
                planned = plan.workflow(seed, n, rate)
                await asyncio.sleep(max(0.0, began + planned.at - time.time()))
                group.create_task(teller.serve(planned))
    teller.lines.write(event="done", id="", op="done", n=0)


if __name__ == "__main__":
    url, folder, name, seed, count, rate, began, share = sys.argv[1:]
    asyncio.run(main(url, Path(folder), name, int(seed), int(count), float(rate), float(began), share))
