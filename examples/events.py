"""Events: a workflow publishes about itself, and anybody can wait for it, while it runs and after its end.

python examples/events.py
"""

import asyncio
from dataclasses import dataclass

from perdure import App, Event, set_event, sleep

app = App("events")


@dataclass
class Progress:
    done: int
    total: int


progress = Event[Progress]("progress")


@app.step
async def convert(page: int) -> str:
    return f"page {page}"


@app.workflow
async def convert_book(pages: int) -> list[str]:
    converted: list[str] = []
    for page in range(pages):
        converted.append(await convert(page + 1))
        await set_event(progress, Progress(len(converted), pages))
        await sleep(0.05)
    return converted


async def main() -> None:
    async with app:
        handle = await convert_book.start(3)
        first = await handle.get_event(progress)  # waits until there is one
        print("already", first.done if first else 0, "of 3")
        print(await handle.result())
        print("in the end", await handle.get_event(progress))
        print("never set:", await handle.get_event("errors"))


if __name__ == "__main__":
    asyncio.run(main())
