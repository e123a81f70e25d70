"""A saga: each booking pushes its own undoing onto a plain ``AsyncExitStack``; a failure, or a cancel, unwinds it.

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
async def cancel_flight(reference: str) -> None:
    print("cancelled", reference)


@trips.step(retry=Retry(3, on=ConnectionError))
async def book_hotel(trip: str) -> str:
    if trip == "Venice":
        raise SoldOut(trip)
    print("hotel booked for", trip)
    return f"hotel-{trip}"


@trips.step(retry=Retry(10))
async def cancel_hotel(reference: str) -> None:
    print("cancelled", reference)


@trips.workflow
async def book(trip: str) -> tuple[str, str] | None:
    try:
        async with AsyncExitStack() as undo:
            flight = await book_flight(trip)
            undo.push_async_callback(cancel_flight, flight)
            hotel = await book_hotel(trip)
            undo.push_async_callback(cancel_hotel, hotel)
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
