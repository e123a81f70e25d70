"""Messages: send to a workflow by its id; each topic is a queue, each message is received once.

python examples/messages.py
"""

import asyncio
from datetime import timedelta

from perdure import App, Topic, recv

app = App("messages")
bids = Topic[int]("bids")


@app.workflow
async def auction(item: str) -> str:
    best = 0
    while (bid := await recv(bids, timeout=timedelta(seconds=0.5))) is not None:  # None: nobody bids any more
        best = max(best, bid)
    return f"{item} goes for {best}" if best else f"nobody wants {item}"


async def main() -> None:
    async with app:
        handle = await auction.start("the painting")
        for amount in (100, 250, 180):
            await handle.send(amount, bids)  # durable when this returns
        await handle.send(900, bids, key="form-17")
        await handle.send(900, bids, key="form-17")  # a retried request: delivered once
        print(await handle.result())
        print(await auction("the vase"))


if __name__ == "__main__":
    asyncio.run(main())
