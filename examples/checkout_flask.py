"""The same checkout for blocking code: the sync face, under Flask.

    python examples/checkout_flask.py

The face decides how you call: from ``perdure.sync`` nothing is awaited, in a workflow or out of it.
"""

from collections.abc import Iterator
from datetime import timedelta

from flask import Flask, abort, redirect, request
from werkzeug.wrappers import Response

from perdure.errors import WorkflowClosed, WorkflowNotFound
from perdure.sync import App, Event, Retry, Topic, current, logger, recv, set_event

shop = App("checkout-flask")
payment_url = Event[str]("payment_url")
paid = Topic[bool]("paid")
PATIENCE = timedelta(minutes=30)


class PaymentService:
    """Stands for a client with a connection."""

    def new_page(self, order: str, key: str) -> str:
        return f"https://pay.example/{order}?key={key}"


@shop.resource
def payments() -> Iterator[PaymentService]:
    yield PaymentService()  # opened before the first workflow is claimed, closed after the app has drained


@shop.step(retry=Retry(5, on=ConnectionError))
def payment_session(order: str) -> str:
    return payments().new_page(order, current().idempotency_key)


@shop.step
async def send_mail(order: str) -> None:  # an async library: runs on the loop
    logger.info("mail: %s is on its way", order)


@shop.workflow
def checkout(sku: str) -> str:
    set_event(payment_url, payment_session(current().id))
    if not recv(paid, timeout=PATIENCE):
        return f"{sku} goes back on the shelf"
    send_mail(current().id)
    return f"{sku} is on its way"


def create_app() -> Flask:
    """The web application; whoever runs it opens ``shop`` around it (or ``shop.connect()``, beside ``perdure run``)."""
    web = Flask(__name__)

    @web.post("/checkout/<key>")
    def start(key: str) -> Response:
        handle = checkout.options(id=f"order-{key}").start(request.args["sku"])
        url = handle.get_event(payment_url, timeout=10)
        return redirect(url, 303) if url is not None else abort(504)

    @web.post("/webhook/payment")
    def webhook() -> tuple[str, int]:
        notice = request.get_json()
        try:
            checkout.handle(notice["order"]).send(notice["ok"], paid, key=notice["id"])
        except WorkflowNotFound:
            abort(404)
        except WorkflowClosed:
            abort(410)
        return "", 204

    @web.get("/orders/<key>")
    def order(key: str) -> dict[str, str]:
        handle = checkout.handle(f"order-{key}")
        status = handle.status()
        return {"status": status, "outcome": handle.result() if status == "completed" else ""}

    return web


if __name__ == "__main__":
    with shop:
        create_app().run()
