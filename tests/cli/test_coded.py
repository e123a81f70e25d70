"""The command line reads an app whose values are coded: it has no codec, says so, and goes wrong nowhere."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from perdure import App, Codec, recv, set_event
from tests.cli.conftest import Cli

CODED = re.compile(r"\(coded, \d+ bytes\)")


def turn(data: bytes) -> bytes:
    return bytes(byte ^ 0xA5 for byte in data)


def serve(url: str, scene: Any) -> Any:
    app = App("shop", database=url, codec=Codec(encode=turn, decode=turn))

    @app.step(name="charge")
    async def charge(card: str) -> str:
        if card == "declined":
            raise ValueError(f"{card} 4242")
        return f"paid with {card}"

    @app.workflow(name="checkout")
    async def checkout(card: str) -> str:
        await set_event("stage", card)
        return await charge(card)

    @app.workflow(name="parcel")
    async def parcel() -> str:
        return f"got {await recv()}"

    async def go() -> Any:
        async with app:
            return await scene(app)

    return asyncio.run(go())


@pytest.fixture
def day(url: str) -> str:
    async def scene(app: Any) -> None:
        checkout = app.client.workflow("checkout", returns=str)
        await checkout.options(id="good")("4242")
        with pytest.raises(ValueError, match="declined 4242"):
            await checkout.options(id="bad")("declined")

    serve(url, scene)
    return url


def test_people_see_that_values_are_coded(perdure: Cli, day: str) -> None:
    assert "completed" in perdure("workflow", "list").stdout
    for id in ("good", "bad"):
        for verb in ("show", "history"):
            text = perdure("workflow", verb, id).stdout
            assert CODED.search(text)
            assert "charge" in text
            assert "4242" not in text
            assert "$coded" not in text
    assert "charge(…)" in perdure("workflow", "show", "good").stdout


def test_the_result_says_who_can_read_it(perdure: Cli, day: str) -> None:
    good = perdure("workflow", "result", "good")
    assert CODED.search(good.stdout)
    assert "Client(…, codec=…).handle('good')" in good.stderr
    assert CODED.search(perdure("workflow", "result", "bad", code=1).stderr)


def test_programs_get_the_same_words(perdure: Cli, day: str) -> None:
    good = perdure.json("workflow", "show", "good")["workflow"]
    assert CODED.fullmatch(good["input"])
    assert CODED.fullmatch(good["value"])
    bad = perdure.json("workflow", "show", "bad")["workflow"]
    assert CODED.fullmatch(bad["error"]["type"])
    assert bad["failed_at"] is None, "nothing tells where a coded error came from"


def test_what_the_command_line_gives_is_read_by_the_app(perdure: Cli, day: str) -> None:
    perdure("workflow", "start", "parcel", "--id", "p")
    perdure("workflow", "send", "p", '"a stamp"')
    assert (
        "is taken by checkout(coded, " in perdure("workflow", "start", "checkout", '"1"', "--id", "good", code=1).stderr
    )

    async def scene(app: Any) -> Any:
        return await app.client.handle("p").result(timeout=20)

    assert serve(day, scene) == "got a stamp"
