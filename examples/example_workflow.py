"""The smallest durable workflow: two steps with a durable sleep between them.

    python examples/example_workflow.py

Interrupt it as often as you like after step one (Ctrl+C, kill -9, pull the plug) and run it again: it goes on where it
was, step one never runs twice, and step two always completes.
"""

import asyncio
import logging

from perdure import App, logger, sleep

app = App("example")


@app.step
async def step_one() -> None:
    logger.info("Step one completed!")


@app.step
async def step_two() -> None:
    logger.info("Step two completed!")


@app.workflow
async def example_workflow() -> str:
    await step_one()
    for seconds in range(5, 0, -1):
        logger.info("%d ... press Ctrl+C to stop the app", seconds)  # silent when history is replayed
        await sleep(1)
    await step_two()
    return "both steps are done"


async def main() -> None:
    async with app:
        print(await example_workflow.options(id="example")())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(main())
