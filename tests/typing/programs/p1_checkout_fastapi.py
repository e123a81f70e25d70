"""Checkout with a payment webhook and an outbox. web = FastAPI, shop = Perdure."""
from datetime import timedelta
from uuid import uuid4

from fastapi import FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from perdure import App, Event, Retry, Topic, current, recv, set_event

Session = async_sessionmaker(create_async_engine("postgresql+asyncpg:///shop"))
shop = App("shop")
web = FastAPI(lifespan=shop.lifespan)


class Payment(BaseModel):
    id: str
    order: str
    ok: bool


payment_url = Event[str]("payment_url")
paid = Topic[Payment]("paid")


@shop.transaction(Session)
async def reserve(db: AsyncSession, sku: str, n: int) -> int:
    return 1


@shop.transaction(Session)
async def release(db: AsyncSession, reservation: int) -> None: ...


@shop.step(retry=Retry(attempts=5, on=ConnectionError))
async def payment_session(cents: int) -> str:
    return f"https://pay.example/{current().idempotency_key}?c={cents}"


@shop.step
def send_mail(order: str) -> None:  # blocking SMTP: a thread
    ...


@shop.workflow
async def checkout(sku: str, n: int) -> bool:
    reservation = await reserve(sku, n)
    await set_event(payment_url, await payment_session(1999))
    payment = await recv(paid, timeout=timedelta(minutes=30))
    if payment is None or not payment.ok:
        await release(reservation)
        return False
    await send_mail(current().id)
    return True


@web.post("/checkout/{key}")
async def start(key: str, sku: str) -> RedirectResponse:
    handle = await checkout.options(id=f"order-{key}").start(sku, 1)
    url = await handle.get_event(payment_url, timeout=10)
    if url is None:
        raise HTTPException(504, f"no payment link yet for {handle.id}")
    return RedirectResponse(url)


@web.post("/webhook/payment")
async def webhook(payment: Payment) -> None:
    await checkout.handle(payment.order).send(payment, paid, key=payment.id)


@web.post("/quick")
async def quick(sku: str) -> dict[str, bool]:
    return {"paid": await checkout.options(id=str(uuid4()))(sku, 1)}


@web.post("/outbox")
async def outbox(sku: str) -> str:
    async with Session.begin() as db:
        handle = await checkout.options(session=db).start(sku, 2)
    return handle.id
