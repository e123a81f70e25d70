"""A small app of many features, run in earnest over an audited database: evidence to judge, and to spoil."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from perdure import (
    App,
    Event,
    Rate,
    Retry,
    Stream,
    Topic,
    close_stream,
    now,
    recv,
    set_event,
    sleep,
    write_stream,
)
from perdure.testing.histcheck import ClientHistory, Evidence, FaultLog, Ledger, install_audit, read_audit, read_lines

PARCEL = Topic[int]("parcel")
RECEIPT = Event[str]("receipt")
STORY = Stream[str]("story")


class Shop:
    """The app, its streams in ``folder``, and a day's work."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.app = app = App("shop", database=database)
        self.ledger = ledger = Ledger(folder / "ledger", app=app)
        self.history = ClientHistory("client", folder / "history")
        self.faults = FaultLog(folder / "faults")
        failed: list[str] = []

        @app.step(retry=Retry(attempts=3, delay=0.001))
        async def charge(order: str) -> str:
            for word in ("asks", "waits"):
                await write_stream(STORY, f"{order} {word}")
            with ledger.effect("charge", args=order) as effect:
                if order not in failed:
                    failed.append(order)
                    raise ConnectionError("once")
                effect.result = f"paid {order}"
            await write_stream(STORY, effect.result)
            return effect.result

        @app.step(at_most_once=True)
        async def ship(slept: list[int]) -> int:
            with ledger.effect("ship", args={"slept": slept}, once=True):
                return len(slept)

        @app.workflow
        async def child(n: int) -> int:
            return n + 1

        @app.workflow
        async def order(id: str) -> int:
            paid = await charge(id)
            await set_event(RECEIPT, paid)
            await write_stream(STORY, "receipt")
            await close_stream(STORY)
            before = now()
            await sleep(0.01)
            total = await child(await ship([_us(before), _us(now()), 10_000]))
            await child.options(on_parent_close="abandon").start(total)
            parcel = await recv(PARCEL)
            return total + (parcel or 0)

        @app.workflow(queue=app.queue("gate", concurrency=2, worker_concurrency=2, rate=Rate(50, per=1),
                                      partition_rate=Rate(50, per=1)))  # fmt: skip
        async def lined(n: int) -> int:
            return n

        self.order, self.lined = order, lined

    async def day(self) -> None:
        """Orders come in, parcels arrive; one order is cancelled."""
        await install_audit(self.database)
        async with self.app:
            await asyncio.gather(*(self._order(f"order-{n}") for n in range(4)))
            handles = await self.lined.start_many(range(6))
            handles.append(await self.lined.options(dedup="key").start(6))
            for handle in handles:
                await handle.result()
            with self.history.call("start", "late", args="late"):
                handle = await self.order.options(id="late").start("late")
            with self.history.call("cancel", "late") as call:
                call.value = str(await handle.cancel())

    async def _order(self, id: str) -> None:
        history = ClientHistory(f"client of {id}", self.folder / "history")
        with history.call("start", id, args=id):
            handle = await self.order.options(id=id).start(id)
        with history.call("get_event", id, args="receipt") as call:
            call.value = await handle.get_event(RECEIPT)
        with history.call("read_stream", id, args=["story", 1]) as call:
            call.value = [word async for word in handle.read_stream(STORY, offset=1)]
        with history.call("send", id, args=1, key="parcel"):
            await handle.send(1, PARCEL, key="parcel")
        with history.call("result", id) as call:
            call.value = await handle.result()

    async def streams(self) -> list[list[dict[str, Any]]]:
        """Audit, ledger, history, faults."""
        files = [read_lines(self.folder / name) for name in ("ledger", "history", "faults")]
        return [await read_audit(self.database), *files]

    async def evidence(self) -> Evidence:
        return Evidence(*await self.streams())


def _us(when: Any) -> int:
    return round(when.timestamp() * 1_000_000)
