"""Several apps in one process: what a body does is done in its own app, and nothing is mistaken for another's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import perdure.sync
from perdure import App, Client, Router, recv
from perdure.errors import Misuse, NotOpen
from perdure.testing import harness

REFUSED = (
    r"a call of app 'bank' was made in the body of 'order', a workflow of app 'shop'\. What a body does is done in its "
    r"own app, .*: do it in a step, through a client of app 'bank'"
)


@pytest.fixture
async def bank(database: str) -> AsyncIterator[App]:
    app = App("bank", database=database)
    yield app
    await app.close()


@pytest.fixture
def sync_bank(database: str) -> Iterator[perdure.sync.App]:
    app = perdure.sync.App("bank", database=database)
    yield app
    app.close()


@pytest.mark.parametrize("how", ["call", "start", "start_many", "by id", "handle", "client", "next run"])
async def test_a_body_that_speaks_to_another_app_is_refused(app: App, bank: App, how: str) -> None:
    """Both have a ``pay``: its own would be run in place of the other's, or be told what was meant for the other."""

    @app.workflow(name="pay")
    async def own(cents: int) -> str:
        raise AssertionError("the wrong one")

    @bank.workflow(name="pay")
    async def pay(cents: int) -> str:
        return str(await recv("go"))

    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "call": lambda: pay(1),
        "start": lambda: pay.start(1),
        "start_many": lambda: pay.start_many([1]),
        "by id": lambda: pay.options(id="p").start(1),
        "handle": lambda: pay.handle("p").send("theirs", "go"),
        "client": lambda: bank.client.handle("p").cancel(),
        "next run": lambda: pay.continue_as_new(1),
    }

    @app.workflow(name="order")
    async def order() -> None:
        await calls[how]()

    async with app, bank:
        handle = await pay.options(id="p").start(1)
        with pytest.raises(Misuse, match=REFUSED):
            await order.options(id="o")()
        await handle.send("ours", "go")
        assert await handle.result() == "ours"
        assert [info.id async for info in app.client.list()] == ["o"]


@pytest.mark.parametrize("how", ["call", "start", "handle", "next run"])
def test_a_blocking_body_too(sync_app: perdure.sync.App, sync_bank: perdure.sync.App, how: str) -> None:
    @sync_bank.workflow
    def pay(cents: int) -> int:
        return cents

    calls: dict[str, Callable[[], Any]] = {
        "call": lambda: pay(1),
        "start": lambda: pay.start(1),
        "handle": pay.handle("p").status,
        "next run": lambda: pay.continue_as_new(1),
    }

    @sync_app.workflow(name="order")
    def order() -> None:
        calls[how]()

    with sync_app, sync_bank, pytest.raises(Misuse, match=REFUSED):
        order()


async def test_steps_of_another_app_are_code_like_any_other(app: App, bank: App) -> None:
    @bank.step
    async def fee(cents: int) -> int:
        return cents + 1

    @app.workflow(name="order")
    async def order() -> int:
        return await fee(1)

    async with app:
        assert await order() == 2


async def test_a_router_of_two_apps_is_that_of_the_app_whose_body_speaks(app: App, bank: App) -> None:
    common = Router()

    @common.workflow(name="child")
    async def child(x: int) -> int:
        return x + 1

    @app.workflow(name="order")
    async def order() -> int:
        return await child.options(id="c")(1) + await child.handle("c").result()

    @bank.workflow
    async def transfer() -> int:
        return await child.options(id="c")(2) + await child.handle("c").result()

    app.include(common)
    bank.include(common)
    async with app, bank:
        assert (await order(), await transfer()) == (4, 6)
        for each in (app, bank):
            assert await each.client.handle("c").status() == "completed"


def shared(*apps: App) -> Any:
    """A workflow of a router that all of them include."""
    common = Router()

    @common.workflow(name="child")
    async def child(x: int) -> int:
        return x + int(await recv("go", timeout=0.01) or 0)

    for each in apps:
        each.include(common)
    return child


BOTH = r"workflow 'child' is of a Router that several open apps include, 'shop' and 'bank'; .*client\.workflow\('child'"


@pytest.mark.parametrize("how", ["call", "start", "start_many", "handle"])
async def test_what_two_open_apps_include_is_called_through_one_of_them(app: App, bank: App, how: str) -> None:
    """It went to the app that was the last to include it, without a word."""
    child = shared(app, bank)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "call": lambda: child(1),
        "start": lambda: child.start(1),
        "start_many": lambda: child.start_many([1]),
        "handle": lambda: child.handle("c").status(),
    }
    async with app, bank:
        with pytest.raises(Misuse, match=BOTH):
            await calls[how]()
        for each in (app, bank):
            assert await each.client.count("id IS NOT NULL") == 0
            assert await each.client.workflow("child", returns=int)(1) == 1


async def test_what_two_apps_include_is_that_of_the_only_one_that_is_open(app: App, bank: App) -> None:
    child = shared(app, bank)
    with pytest.raises(NotOpen, match=r"several apps include, 'shop' and 'bank', and none of them is open: open one"):
        await child(1)
    for each in (app, bank):
        async with each:
            handle = await child.options(id="c").start(1)
            assert (await handle.result(), await child.handle("c").status()) == (1, "completed")
            assert [info.id async for info in each.client.list()] == ["c"]


async def test_a_step_speaks_to_its_own_app_of_the_two(app: App, bank: App) -> None:
    child = shared(app, bank)

    @app.step
    async def look() -> str:
        return str(await child.handle("c").status())

    @app.workflow(name="order")
    async def order() -> str:
        await child.options(id="c")(1)
        return await look()

    async with app, bank:
        assert await order() == "completed"


async def test_a_client_of_the_same_app_speaks_in_its_bodies(app: App, database: str) -> None:
    client = Client(database, app="shop")

    @app.workflow(name="child")
    async def child(x: int) -> int:
        return x + 1

    @app.workflow(name="order")
    async def order() -> int:
        return await client.workflow("child", returns=int)(1)

    async with app, client:
        assert await order() == 2
    async with harness(app, database=database if database.startswith("postgresql") else None) as h:
        assert await h.run(order) == 2
