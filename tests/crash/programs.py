"""The workflows of ``examples/``, called as their programs call them: scenarios for crashes at every write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from examples import (
    agent_approval,
    background_start,
    checkout_fastapi,
    checkout_flask,
    events,
    example_workflow,
    fan_out,
    ids_and_idempotency,
    messages,
    saga,
)
from perdure.definitions import StepDef
from perdure.errors import WorkflowConflict
from perdure.testing import Harness
from tests.crash.ledger import ledger
from tests.crash.scenarios import Drive, Outside, Scenario


def watch(harness: Harness, app: Any) -> None:
    """Let the ledger see the steps of a program, which know nothing of it."""
    for step in app._registry.steps.values():
        harness._fakes[step.name] = _seen(step)


def _seen(step: StepDef) -> Callable[..., Any]:
    async def on_the_loop(*args: Any, **kwargs: Any) -> Any:
        ledger.effect(step.name, pure=step.pure)
        return await step.fn(*args, **kwargs)

    def in_a_thread(*args: Any, **kwargs: Any) -> Any:
        ledger.effect(step.name, pure=step.pure)
        return step.fn(*args, **kwargs)

    return on_the_loop if step.is_async else in_a_thread


def ended(workflow: Any, *args: Any) -> Drive:
    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: workflow.options(id="main").start(*args))
        return await io.wait(handle.result)

    return drive


async def one_id(io: Outside, harness: Harness) -> Any:
    """Called again and again, by another in vain, and anew."""
    welcome = ids_and_idempotency.welcome.options(id="main")
    mails = [await io.wait(lambda: welcome("ann")) for _ in range(3)]
    try:
        await io.wait(lambda: welcome("bob"))
    except WorkflowConflict:
        mails.append("refused")
    anew = await io.wait(lambda: welcome.options(on_conflict="replace").start("bob"))
    return [*mails, await io.wait(anew.result)]


async def in_the_background(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: background_start.combine.options(id="main").start("one", "two"))
    await io(lambda: background_start.combine.handle("main").send("and", "between", key="1"))
    return await io.wait(handle.result)


async def progress(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: events.convert_book.options(id="main").start(3))
    assert await io.wait(lambda: handle.get_event(events.progress)) is not None
    pages = await io.wait(handle.result)
    last = await io.wait(lambda: handle.get_event(events.progress))
    return [pages, last, await io.wait(lambda: handle.get_event("errors"))]


async def bids(io: Outside, harness: Harness) -> Any:
    handle = await io(lambda: messages.auction.options(id="main").start("the painting"))
    for amount in (100, 250, 900, 180, 900):
        await io(lambda amount=amount: handle.send(amount, messages.bids, key=f"form-{amount}"))
    return [await io.wait(handle.result), await io.wait(lambda: messages.auction.options(id="vase")("the vase"))]


async def thumbnails(io: Outside, harness: Harness) -> Any:
    total = await ended(fan_out.folder_of_thumbnails, "pets")(io, harness)

    async def children() -> list[str]:
        return sorted([str(info.status) async for info in fan_out.etl.client.list("parent = main")])

    return [total, await io(children)]


def asked(*, yes: bool) -> Drive:
    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: agent_approval.agent.options(id="main").start("is the disk full?"))
        call = await io.wait(lambda: handle.get_event(agent_approval.pending))
        assert call is not None
        await io(lambda: handle.send(yes, f"approve/{call.id}", key="answer"))
        return await io.wait(handle.result)

    return drive


def paid(shop: Any, notice: Any) -> Drive:
    """What the shop's web handlers do: a start, a look at the page's address, and what the payment service says."""

    async def drive(io: Outside, harness: Harness) -> Any:
        handle = await io(lambda: shop.checkout.options(id="order-7").start("lamp"))
        url = await io.wait(lambda: handle.get_event(shop.payment_url))
        assert url is not None
        assert url.startswith("https://pay.example/order-7?key=")
        if notice is not None:
            for _ in range(2):
                await io(lambda: shop.checkout.handle("order-7").send(notice, shop.paid, key="pay-1"))
        return await io.wait(handle.result)

    return drive


def program(name: str, app: Any, drive: Drive, result: Any) -> Scenario:
    return Scenario(f"examples/{name}", drive, result, app, prepare=watch)


_GOOD = checkout_fastapi.Payment(id="pay-1", order="order-7", ok=True)
_BAD = checkout_fastapi.Payment(id="pay-1", order="order-7", ok=False)
_FLASK = "checkout_flask"
_MAIL = "mail from main"
PROGRAMS = [
    program("example_workflow", example_workflow.app, ended(example_workflow.example_workflow), "both steps are done"),
    program("ids_and_idempotency", ids_and_idempotency.app, one_id, [_MAIL, _MAIL, _MAIL, "refused", _MAIL]),
    program("background_start", background_start.app, in_the_background, "one and two"),
    program("events", events.app, progress, [["page 1", "page 2", "page 3"], events.Progress(3, 3), None]),
    program("messages", messages.app, bids, ["the painting goes for 900", "nobody wants the vase"]),
    program("saga", saga.trips, ended(saga.book, "Rome"), ("flight-Rome", "hotel-Rome")),
    program("saga, undone", saga.trips, ended(saga.book, "Venice"), None),
    program("fan_out", fan_out.etl, thumbnails, [740, ["completed"] * 6]),
    program("agent_approval", agent_approval.agents, asked(yes=True), "the disk has room again"),
    program("agent_approval, refused", agent_approval.agents, asked(yes=False), "'rm big.log' was refused in main"),
    program("checkout_fastapi", checkout_fastapi.shop, paid(checkout_fastapi, _GOOD), "paid with pay-1"),
    program("checkout_fastapi, failed", checkout_fastapi.shop, paid(checkout_fastapi, _BAD), "the payment failed"),
    program("checkout_fastapi, late", checkout_fastapi.shop, paid(checkout_fastapi, None), "nobody paid"),
    program(_FLASK, checkout_flask.shop, paid(checkout_flask, True), "lamp is on its way"),
    program(f"{_FLASK}, late", checkout_flask.shop, paid(checkout_flask, None), "lamp goes back on the shelf"),
]
