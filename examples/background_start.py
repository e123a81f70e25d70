"""Start a workflow in the background: durable when ``start`` returns, then talk to it by its handle or its id.

python examples/background_start.py
"""

import asyncio

from perdure import App, recv

app = App("background")


@app.workflow
async def combine(first: str, second: str) -> str:
    return f"{first} {await recv('between')} {second}"


async def main() -> None:
    async with app:
        handle = await combine.start("one", "two")  # from here on it runs to its end, whatever happens
        print("status:", await handle.status())

        same = combine.handle(handle.id)  # by id, from anywhere: another request, another process, next week
        await same.send("and", "between")
        print("result:", await handle.result())
        print("status:", await same.status())


if __name__ == "__main__":
    asyncio.run(main())
