"""A shop's checkout with a payment webhook, under FastAPI.

    PERDURE_DATABASE_URL=postgresql://… uvicorn examples.checkout_fastapi:web

``POST /checkout/7?sku=lamp`` starts the workflow and redirects to the payment page, whose URL the workflow publishes as
an event. The payment service later calls ``POST /webhook/payment``; the webhook passes the notice on as a message. If
none comes in time, the reservation is released. Both requests may be repeated, and every process may die in between.
"""

from datetime import timedelta

from fastapi import FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from perdure import App, Event, Retry, Topic, current, logger, recv, set_event
from perdure.errors import WorkflowClosed, WorkflowNotFound

shop = App("checkout")
web = FastAPI(lifespan=shop.lifespan)
PATIENCE = timedelta(minutes=30)


class Payment(BaseModel):
    id: str
    order: str
    ok: bool


payment_url = Event[str]("payment_url")
paid = Topic[Payment]("paid")


@shop.step
async def reserve(sku: str) -> str:
    return f"reserved {sku}"


@shop.step
async def release(reservation: str) -> None:
    logger.info("released: %s", reservation)


@shop.step(retry=Retry(5, on=ConnectionError))
async def payment_session(order: str) -> str:
    """Asks the payment service for a page; the key makes that safe to repeat."""
    return f"https://pay.example/{order}?key={current().idempotency_key}"


@shop.step
def send_mail(order: str) -> None:  # blocking SMTP: runs in a thread
    logger.info("mail: %s is on its way", order)


@shop.workflow
async def checkout(sku: str) -> str:
    order = current().id
    reservation = await reserve(sku)
    await set_event(payment_url, await payment_session(order))
    payment = await recv(paid, timeout=PATIENCE)
    if payment is None or not payment.ok:
        await release(reservation)
        return "nobody paid" if payment is None else "the payment failed"
    await send_mail(order)
    return f"paid with {payment.id}"


@web.post("/checkout/{key}")
async def start(key: str, sku: str) -> RedirectResponse:
    handle = await checkout.options(id=f"order-{key}").start(sku)
    url = await handle.get_event(payment_url, timeout=10)
    if url is None:
        raise HTTPException(504, f"no payment page yet for {handle.id}")
    return RedirectResponse(url, status_code=303)


@web.post("/webhook/payment", status_code=204)
async def webhook(payment: Payment) -> None:
    try:
        await checkout.handle(payment.order).send(payment, paid, key=payment.id)  # once, however often they call
    except WorkflowNotFound as unknown:
        raise HTTPException(404, str(unknown)) from None
    except WorkflowClosed as late:
        raise HTTPException(410, str(late)) from None


@web.get("/orders/{key}")
async def order(key: str) -> dict[str, str]:
    handle = checkout.handle(f"order-{key}")
    try:
        status = await handle.status()
    except WorkflowNotFound as unknown:
        raise HTTPException(404, str(unknown)) from None
    return {"status": status, "outcome": await handle.result() if status == "completed" else ""}


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(web)
