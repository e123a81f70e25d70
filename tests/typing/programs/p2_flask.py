"""A Flask service on the sync face. With a transaction: later/p2_flask.py."""

from collections.abc import Iterator
from typing import assert_type

import httpx
from flask import Flask, request

from perdure.sync import App, Event, Handle, Retry, Topic, recv, set_event, sleep

shop = App("shop")
paid = Topic[bool]("paid")
url = Event[str]("url")


@shop.resource
def http() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@shop.step(retry=Retry(5, on=ConnectionError))
def charge(order: str) -> str:
    return http().get(order).text


@shop.step
def notify(order: str) -> None: ...


@shop.workflow
def checkout(order: str) -> str:
    set_event(url, "x")
    if not recv(paid, timeout=3):
        return "no"
    sleep(3)
    notify(order)
    assert_type(charge(order), str)
    return charge(order)


def create_app() -> Flask:
    web = Flask(__name__)
    shop.connect().open()  # the web process calls; `perdure run shop:shop` works

    @web.post("/checkout/<key>")
    def start(key: str) -> str:  # pyright: ignore[reportUnusedFunction]
        handle = checkout.options(id=key).start(key)
        assert_type(handle, Handle[str])
        return handle.get_event(url, timeout=10) or "late"

    @web.post("/hook")
    def hook() -> str:  # pyright: ignore[reportUnusedFunction]
        checkout.handle(str(request.json["order"])).send(True, paid, key="evt")
        return checkout("x") + many().result()

    return web


def many() -> Handle[str]:
    return checkout.start_many(["a"])[0]
