"""A saga: each booking's undoing is on a plain ``AsyncExitStack`` before it is made; a failure or a cancel unwinds it.

Before: a cancel may come while the booking is under way, and an answer may be lost. So an undoing names what it undoes
by something that is known in advance, and does nothing if there is nothing.

python examples/saga.py
"""

import asyncio
from contextlib import AsyncExitStack

from perdure import App, Retry

trips = App("trips")


class SoldOut(Exception):
    """No room; trying again does not help."""


@trips.step(retry=Retry(3, on=ConnectionError))
async def book_flight(trip: str) -> str:
    print("flight booked for", trip)
    return f"flight-{trip}"


@trips.step(retry=Retry(10))
async def cancel_flight(trip: str) -> None:
    print(f"cancelled flight-{trip}")


@trips.step(retry=Retry(3, on=ConnectionError))
async def book_hotel(trip: str) -> str:
    if trip == "Venice":
        raise SoldOut(trip)
    print("hotel booked for", trip)
    return f"hotel-{trip}"


@trips.step(retry=Retry(10))
async def cancel_hotel(trip: str) -> None:
    print(f"cancelled hotel-{trip}, if there was one")


@trips.workflow
async def book(trip: str) -> tuple[str, str] | None:
    try:
        async with AsyncExitStack() as undo:
            undo.push_async_callback(cancel_flight, trip)
            flight = await book_flight(trip)
            undo.push_async_callback(cancel_hotel, trip)
            hotel = await book_hotel(trip)
            undo.pop_all()  # all went well: nothing to undo
            return flight, hotel
    except SoldOut:
        return None


async def main() -> None:
    async with trips:
        print(await book("Rome"))
        print(await book("Venice"))


if __name__ == "__main__":
    asyncio.run(main())
