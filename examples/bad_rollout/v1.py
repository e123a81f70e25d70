"""Version 1 of the shop: the good one."""

from __future__ import annotations

from examples.bad_rollout import bank
from perdure import App, Retry, current, recv

shop = App("shop", rollout="manual", lease=5)
hourly = Retry(attempts=20, delay=3600)  # services that are down are asked again in an hour


@shop.step
async def charge(order: str, cents: int) -> None:
    bank.charge(current().idempotency_key, order, cents)


@shop.step(retry=hourly)
async def look_up(cents: int) -> int:
    return cents + 5


@shop.step(retry=hourly)
async def ship(order: str, address: str) -> str:
    return f"{order} went to {address}"


@shop.step
async def split(cents: int) -> int:
    return cents // 10


@shop.step(retry=hourly)
async def transfer(order: str, cents: int, share: int) -> str:
    if share > cents:
        raise ValueError(f"{share} is more than came in")
    return f"{order} gives {share}"


@shop.step
async def total(cents: int) -> int:
    return cents * 119 // 100


@shop.step(retry=hourly)
async def render(order: str) -> str:
    return f"all about {order}"


@shop.workflow(versioning="pinned", restartable=True)
async def offer(order: str, cents: int) -> str:
    """Before the charge nothing has happened outside."""
    price = await look_up(cents)
    await charge(order, price)
    return f"{order} costs {price}"


@shop.workflow(versioning="pinned")
async def checkout(order: str, cents: int) -> str:
    """Not restartable: what has left the house has left it."""
    await charge(order, cents)
    return await ship(order, "the counter")


@shop.workflow(versioning="pinned")
async def parcel(order: str, cents: int) -> str:
    """Sleeps until somebody says where to."""
    await charge(order, cents)
    return await ship(order, await recv("address"))


@shop.workflow(versioning="pinned")
async def payout(order: str, cents: int) -> str:
    """Not restartable: somebody has approved it."""
    await charge(order, cents)
    await recv("approved")
    return await transfer(order, cents, await split(cents))


@shop.workflow(versioning="pinned")
async def invoice(order: str, cents: int) -> str:
    """Short: it has ended before anybody looks."""
    await charge(order, cents)
    return f"{order} comes to {await total(cents)}"


@shop.workflow(versioning="pinned")
async def report(order: str, cents: int) -> str:
    """No state at all: another one is as good."""
    return await render(order)
