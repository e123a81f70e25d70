"""The workflow id is the idempotency key: called many times with one id, a workflow runs once.

python examples/ids_and_idempotency.py
"""

import asyncio
from uuid import uuid4

from perdure import App, current
from perdure.errors import WorkflowConflict

app = App("ids")


@app.step
async def send_email(to: str) -> str:
    print(f"an email goes to {to}")
    return f"mail from {current().id}"


@app.workflow
async def welcome(customer: str) -> str:
    return await send_email(customer)


async def main() -> None:
    order = f"welcome-{uuid4()}"  # in real life: the order number, the id of the webhook's event, …
    async with app:
        for _ in range(3):
            print(await welcome.options(id=order)("ann@example.com"))  # one email, three times its result

        try:
            await welcome.options(id=order)("bob@example.com")
        except WorkflowConflict:
            print("the same id for another call is refused")

        again = welcome.options(id=order, on_conflict="replace")
        print(await again("bob@example.com"))  # meant: the next run of this id
        print("run", (await welcome.handle(order).info()).run)


if __name__ == "__main__":
    asyncio.run(main())
