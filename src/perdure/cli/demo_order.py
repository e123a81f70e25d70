"""The shop of ``perdure demo``: an order of eight steps, run in a process of its own that may be killed at any moment.

Each step has an effect outside: a line in ``effects.jsonl``, the ledger of the outside world, with the idempotency key
that a real service would be given. The process tells its parent what it begins, a line each on standard output, and
ends when its standard input does.

    python -m perdure.cli.demo_order ORDER LEDGER [--slow STEP]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from perdure import App, current

WORK_SECONDS = 0.35  # that a step takes, so that a person can follow
SLOW_SECONDS = 60.0  # that the slow one takes: nobody waits for it, the process is killed meanwhile

shop = App("demo", executor_id="shop", version="demo", lease=3)
ledger = Path(os.devnull)
slow = ""


async def outside(effect: str) -> None:
    """Do something to the world that cannot be undone, then wait for the answer."""
    line = {"step": effect, "key": current().idempotency_key, "pid": os.getpid()}
    write_down(json.dumps(line))
    tell("began", effect)
    await asyncio.sleep(SLOW_SECONDS if effect == slow else WORK_SECONDS)


def write_down(line: str) -> None:
    """A line of the ledger; it is there even if the process is killed in the next moment."""
    with ledger.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def tell(*words: str) -> None:
    """Tell the parent, at once."""
    print("\t".join(words), flush=True)


@shop.step
async def check_stock(item: str, count: int) -> int:
    await outside("check_stock")
    return 12 - count


@shop.step
async def reserve(item: str, count: int) -> str:
    await outside("reserve")
    return "shelf-7"


@shop.step
async def charge(order: str, cents: int) -> str:
    await outside("charge")
    return "payment-5512"


@shop.step
async def write_invoice(payment: str) -> str:
    await outside("write_invoice")
    return "invoice-2024.pdf"


@shop.step
async def book_courier(order: str) -> str:
    await outside("book_courier")
    return "parcel-88"


@shop.step
async def pack(shelf: str, parcel: str) -> int:
    await outside("pack")
    return 830


@shop.step
async def hand_over(parcel: str, grams: int) -> bool:
    await outside("hand_over")
    return True


@shop.step
async def thank_customer(order: str, parcel: str) -> None:
    await outside("thank_customer")


@shop.workflow
async def place_order(order: str, item: str, count: int) -> str:
    """Ordinary code: no state is saved by hand, none is restored by hand."""
    await check_stock(item, count)
    shelf = await reserve(item, count)
    payment = await charge(order, count * 1250)
    await write_invoice(payment)
    parcel = await book_courier(order)
    grams = await pack(shelf, parcel)
    await hand_over(parcel, grams)
    await thank_customer(order, parcel)
    return parcel


async def serve(order: str) -> None:
    """Run the app until the parent closes our standard input; start the order unless it is there."""
    async with shop:
        tell("open", str(os.getpid()))
        handle = await place_order.options(id=order).start(order, "mug", 2)
        tell("result", json.dumps(await handle.result()))
        await asyncio.to_thread(sys.stdin.read)


def main(arguments: list[str]) -> None:
    global ledger, slow  # noqa: PLW0603 - one process, one order
    order, ledger = arguments[0], Path(arguments[1])
    slow = arguments[3] if arguments[2:3] == ["--slow"] else ""
    asyncio.run(serve(order))


if __name__ == "__main__":
    main(sys.argv[1:])
