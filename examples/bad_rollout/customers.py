"""Those who order, and what each order must come to in the end; they know nothing of versions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from perdure.api.app import App
from perdure.api.client import Client

KINDS = ("offer", "checkout", "parcel", "payout", "invoice", "report")
AT_ONCE = 200
LOOK_SECONDS = 0.2


class Order(NamedTuple):
    """An order; its number is all there is to it."""

    kind: str
    number: int

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.number:05}"

    @property
    def cents(self) -> int:
        return 1000 + self.number // len(KINDS)

    @property
    def charged(self) -> int:
        """What the bank must have booked; a report costs nothing."""
        return {"offer": self.cents + 5, "report": 0}.get(self.kind, self.cents)

    @property
    def result(self) -> str:
        return {
            "offer": f"{self.id} costs {self.cents + 5}",
            "checkout": f"{self.id} went to the counter",
            "parcel": f"{self.id} went to street {self.number}",
            "payout": f"{self.id} gives {self.cents // 10}",
            "invoice": f"{self.id} comes to {self.cents * 119 // 100}",
            "report": f"all about {self.id}",
        }[self.kind]


def orders(first: int, count: int) -> list[Order]:
    """So many, of each kind in turn."""
    return [Order(KINDS[number % len(KINDS)], number) for number in range(first, first + count)]


def connect(database: str) -> Client:
    """A client that starts work where the routing says."""
    return App("shop", database=database, rollout="manual").connect()


async def until_none(client: Client, query: str, patience: float = 90) -> None:
    """Wait until no workflow is like that."""
    end = time.monotonic() + patience
    while left := int(await client.count(query)):
        if time.monotonic() > end:
            raise TimeoutError(f"{left} workflows are still like that after {patience:g} s: {query}")
        await asyncio.sleep(LOOK_SECONDS)


async def place(client: Client, some: Sequence[Order]) -> None:
    """Start them, and approve what wants to be approved."""

    async def one(order: Order) -> None:
        workflow = client.workflow(order.kind, returns=str).options(id=order.id)
        handle = await workflow.start(order.id, order.cents)
        if order.kind == "payout":
            await handle.send(True, "approved", key="approved")

    for at in range(0, len(some), AT_ONCE):
        await asyncio.gather(*map(one, some[at : at + AT_ONCE]))


async def tell_addresses(client: Client, some: Sequence[Order]) -> None:
    """What the parcels sleep for."""
    parcels = [order for order in some if order.kind == "parcel"]
    for at in range(0, len(parcels), AT_ONCE):
        await asyncio.gather(
            *(
                client.handle(order.id).send(f"street {order.number}", "address", key="address")
                for order in parcels[at : at + AT_ONCE]
            )
        )


async def results(client: Client, ids: Sequence[str], timeout: float) -> list[object]:
    """What each has come to, or the exception."""
    found: list[object] = []
    for at in range(0, len(ids), AT_ONCE):
        some = (client.handle(id).result(timeout=timeout) for id in ids[at : at + AT_ONCE])
        found += await asyncio.gather(*some, return_exceptions=True)
    return found
