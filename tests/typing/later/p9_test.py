from collections.abc import AsyncIterator
from datetime import timedelta
import pytest
from perdure.testing import Harness, harness
from programs.p1_checkout_fastapi import checkout, paid, payment_session, shop, Payment
from later.p3_pipeline import http
import httpx
@pytest.fixture
async def h() -> AsyncIterator[Harness]:
    async with harness(shop) as h:
        yield h
async def test_times_out(h: Harness) -> None:
    handle = await checkout.start("sku", 1)
    await h.advance(timedelta(minutes=31))
    assert await handle.result() is False
@pytest.mark.perdure_crash_everywhere
async def test_charged_once(h: Harness) -> None:
    keys: set[int] = set()
    async def fake(cents: int) -> str:
        keys.add(cents)
        return "url"
    h.replace(payment_session, fake)
    h.replace(http, httpx.AsyncClient())
    handle = await checkout.options(id="o").start("sku", 1)
    await handle.send(Payment(id="1", order="o", ok=True), paid)
    assert await handle.result()
    assert len(keys) == 1
