"""The checkout under FastAPI and under Flask: start, redirect, webhook, time running out."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from flask.testing import FlaskClient

from examples import checkout_fastapi, checkout_flask


@pytest.fixture
async def browser(database: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the FastAPI application, whose lifespan opens the app."""
    web = checkout_fastapi.web
    transport = httpx.ASGITransport(app=web)
    async with (
        web.router.lifespan_context(web),
        httpx.AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        yield client


async def outcome(key: str) -> str:
    return await checkout_fastapi.checkout.handle(f"order-{key}").result(timeout=20)


async def test_fastapi_paid(browser: httpx.AsyncClient) -> None:
    first = await browser.post("/checkout/7?sku=lamp")
    assert first.status_code == 303
    assert first.headers["location"].startswith("https://pay.example/order-7?key=")
    second = await browser.post("/checkout/7?sku=lamp")  # the customer clicks twice
    assert second.headers["location"] == first.headers["location"]
    assert (await browser.get("/orders/7")).json()["status"] in ("running", "waiting")
    for _ in range(2):  # the payment service repeats its notice
        notice = {"id": "pay-1", "order": "order-7", "ok": True}
        assert (await browser.post("/webhook/payment", json=notice)).status_code == 204
    assert await outcome("7") == "paid with pay-1"
    assert (await browser.get("/orders/7")).json() == {"status": "completed", "outcome": "paid with pay-1"}


async def test_fastapi_payment_failed(browser: httpx.AsyncClient) -> None:
    await browser.post("/checkout/8?sku=lamp")
    await browser.post("/webhook/payment", json={"id": "pay-2", "order": "order-8", "ok": False})
    assert await outcome("8") == "the payment failed"


async def test_fastapi_nobody_pays(browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout_fastapi, "PATIENCE", 0.2)
    await browser.post("/checkout/9?sku=lamp")
    assert await outcome("9") == "nobody paid"
    late = await browser.post("/webhook/payment", json={"id": "pay-3", "order": "order-9", "ok": True})
    assert late.status_code == 410


async def test_fastapi_unknown_order(browser: httpx.AsyncClient) -> None:
    notice = {"id": "pay-4", "order": "order-none", "ok": True}
    assert (await browser.post("/webhook/payment", json=notice)).status_code == 404
    assert (await browser.get("/orders/none")).status_code == 404


async def test_fastapi_the_webhook_may_reach_another_process_after_a_restart(database: str) -> None:
    web = checkout_fastapi.web
    transport = httpx.ASGITransport(app=web)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        async with web.router.lifespan_context(web):
            await client.post("/checkout/10?sku=lamp")
        async with web.router.lifespan_context(web):
            notice = {"id": "pay-5", "order": "order-10", "ok": True}
            assert (await client.post("/webhook/payment", json=notice)).status_code == 204
            assert await outcome("10") == "paid with pay-5"


@pytest.fixture
def flask(database: str) -> Iterator[FlaskClient]:
    with checkout_flask.shop:
        yield checkout_flask.create_app().test_client()


def test_flask_paid(flask: FlaskClient) -> None:
    first = flask.post("/checkout/7?sku=lamp")
    assert first.status_code == 303
    assert first.headers["Location"].startswith("https://pay.example/order-7?key=")
    assert flask.post("/checkout/7?sku=lamp").headers["Location"] == first.headers["Location"]
    notice = {"id": "pay-1", "order": "order-7", "ok": True}
    assert flask.post("/webhook/payment", json=notice).status_code == 204
    assert checkout_flask.checkout.handle("order-7").result(timeout=20) == "lamp is on its way"
    assert flask.get("/orders/7").json == {"status": "completed", "outcome": "lamp is on its way"}
    assert flask.post("/webhook/payment", json=notice).status_code == 204  # the same notice again: delivered already
    assert flask.post("/webhook/payment", json=notice | {"id": "pay-2"}).status_code == 410


def test_flask_nobody_pays(flask: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout_flask, "PATIENCE", 0.2)
    flask.post("/checkout/8?sku=lamp")
    assert checkout_flask.checkout.handle("order-8").result(timeout=20) == "lamp goes back on the shelf"
    assert flask.post("/webhook/payment", json={"id": "p", "order": "none", "ok": True}).status_code == 404


def test_flask_requests_come_in_threads(flask: FlaskClient) -> None:
    places: list[str] = []

    def request(n: int) -> None:
        client = checkout_flask.create_app().test_client()
        places.append(client.post(f"/checkout/many-{n}?sku=lamp").headers["Location"].partition("?")[0])

    threads = [threading.Thread(target=request, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(places) == sorted(f"https://pay.example/order-many-{n}" for n in range(10))
