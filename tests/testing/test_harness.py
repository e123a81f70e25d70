"""The harness: virtual time, settling, crashes that the test's own calls survive, fakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest

import perdure
import perdure.sync
from perdure import App, Event, Rate, Retry, Topic, now, recv, set_event, sleep
from perdure.testing import Harness, harness

shop = App("shop")
ran: list[str] = []
paid = Topic[bool]("paid")
receipt = Event[str]("receipt")
REAL_SECONDS = 60  # after which a test that hangs has failed


@shop.resource
async def gateway() -> AsyncIterator[str]:
    ran.append("gateway opened")
    yield "real"
    ran.append("gateway closed")


@shop.step
async def charge(order: str) -> str:
    ran.append(f"charge {order}")
    return f"charged {order}"


@shop.step
def pack(order: str) -> str:
    ran.append(f"pack {order}")
    return f"packed {order}"


@shop.step(retry=Retry(5, on=ConnectionError, delay=60))
async def flaky(until: int) -> int:
    ran.append("flaky")
    if ran.count("flaky") < until:
        raise ConnectionError("not yet")
    return ran.count("flaky")


@shop.step
async def through_gateway() -> str:
    return gateway()


@shop.workflow
async def checkout(order: str) -> str:
    charged = await charge(order)
    await set_event(receipt, charged)
    if await recv(paid, timeout=timedelta(days=3)) is None:
        return "never paid"
    return await pack(order)


@shop.workflow
async def naps(times: int) -> int:
    began = now()
    for _ in range(times):
        await sleep(3600)
    return int((now() - began).total_seconds())


@shop.workflow
async def stubborn(until: int) -> int:
    return await flaky(until)


@shop.workflow
async def asks_gateway() -> str:
    return await through_gateway()


@shop.workflow
async def parent(order: str) -> list[str]:
    return list(await asyncio.gather(checkout(f"{order}-a"), checkout(f"{order}-b")))


@pytest.fixture
async def h() -> AsyncIterator[Harness]:
    ran.clear()
    async with harness(shop) as h:
        yield h


async def test_time_skips_while_a_result_is_awaited(h: Harness) -> None:
    began = time.monotonic()
    assert await h.run(naps, 24) == 24 * 3600
    assert time.monotonic() - began < 5


async def test_time_moves_by_advance(h: Harness) -> None:
    handle = await checkout.start("1")
    await h.advance(timedelta(days=2))
    assert (await handle.status()).open
    await h.advance(timedelta(days=1))
    assert await handle.status() == "completed"
    assert await handle.result() == "never paid"


async def test_messages_and_events(h: Harness) -> None:
    handle = await checkout.options(id="m").start("1")
    assert await handle.get_event(receipt) == "charged 1"
    await handle.send(True, paid)
    assert await handle.result() == "packed 1"
    assert ran == ["gateway opened", "charge 1", "pack 1"]


async def test_time_stands_still_once_the_end_was_told(h: Harness) -> None:
    """The end is found by the look that comes before time is moved on, as after a crash that swallowed the hint."""
    h._client_seat.hinted = lambda: None
    handle = await naps.options(id="short").start(1)
    await naps.options(id="long").start(2)
    began = h.clock.now()
    with h.waiting():
        assert await handle.result() == 3600
    for _ in range(100):  # the driver's turns, if it had any left to take
        await asyncio.sleep(0)
    assert h.clock.now() - began == 3600 * 1_000_000


async def test_settle_returns_when_all_wait(h: Harness) -> None:
    handle = await parent.start("1")
    await h.settle()
    assert sorted(ran) == ["charge 1-a", "charge 1-b", "gateway opened"]
    assert (await handle.info()).status.open


async def test_crash_and_recovery(h: Harness) -> None:
    handle = await checkout.start("1")
    await h.settle()
    await h.crash()
    assert h.crashes == 1
    await handle.send(True, paid)
    assert await handle.result() == "packed 1"
    assert ran == ["gateway opened", "charge 1", "pack 1"]


async def test_crash_after_a_step(h: Harness) -> None:
    h.crash_after(charge)
    handle = await checkout.start("1")
    await handle.send(True, paid)
    assert await handle.result() == "packed 1"
    assert h.crashes == 1
    assert ran.count("charge 1") == 1


async def test_a_result_is_awaited_through_crashes(h: Harness) -> None:
    waits = asyncio.create_task(h.run(naps, 3))
    for _ in range(3):
        await h.crash()
    assert await waits == 3 * 3600


async def test_retries_wait_in_virtual_time(h: Harness) -> None:
    began = time.monotonic()
    assert await h.run(stubborn, 4) == 4
    assert time.monotonic() - began < 5


async def test_replacing_a_step_and_a_resource(h: Harness) -> None:
    async def fake(order: str) -> str:
        return f"fake {order}"

    h.replace(charge, fake)
    h.replace(pack, lambda order: f"fake pack {order}")
    h.replace(gateway, "fake")
    handle = await checkout.start("1")
    assert await handle.get_event(receipt) == "fake 1"
    await handle.send(True, paid)
    assert await handle.result() == "fake pack 1"
    assert await asks_gateway() == "fake"
    assert ran == []


def with_resources(app: Any, heard: list[str], *, broken: str) -> Any:
    """Three resources, of which the second cannot be opened, or not be closed."""

    def resource(name: str, *, fails: bool) -> None:
        async def awaited() -> AsyncIterator[str]:
            assert not (fails and broken == "opened"), f"{name} cannot be opened"
            yield name
            heard.append(f"{name} closed")
            assert not (fails and broken == "closed"), f"{name} cannot be closed"

        def blocks() -> Iterator[str]:
            assert not (fails and broken == "opened"), f"{name} cannot be opened"
            yield name
            heard.append(f"{name} closed")
            assert not (fails and broken == "closed"), f"{name} cannot be closed"

        fn: Any = blocks if isinstance(app, perdure.sync.App) else awaited
        fn.__name__ = fn.__qualname__ = name
        app.resource(fn)

    for name in ("first", "second", "third"):
        resource(name, fails=name == "second")
    return app


@pytest.mark.parametrize("face", [perdure, perdure.sync], ids=lambda face: str(face.__name__))
async def test_a_resource_that_cannot_close_keeps_nothing_else_open(face: Any) -> None:
    heard: list[str] = []
    h = Harness(with_resources(face.App("broken"), heard, broken="closed"), direct=True)
    for _ in range(2):
        await h.open()
        with pytest.raises(AssertionError, match="second cannot be closed"):
            await h.close()
        assert h._folder is None  # it is removed with the store
    assert heard == ["third closed", "second closed", "first closed"] * 2


@pytest.mark.parametrize("face", [perdure, perdure.sync], ids=lambda face: str(face.__name__))
async def test_a_resource_that_cannot_be_opened_leaves_none_open(face: Any) -> None:
    heard: list[str] = []
    h = Harness(with_resources(face.App("broken"), heard, broken="opened"), direct=True)
    for _ in range(2):
        with pytest.raises(AssertionError, match="second cannot be opened"):
            await h.open()
        assert h._folder is None
    assert heard == ["first closed"] * 2


async def test_what_cannot_be_replaced_is_refused(h: Harness) -> None:
    """A fake that nobody runs would leave a test green that tests the real thing."""
    takes = "replace takes a step or a resource of the app, not"
    with pytest.raises(TypeError, match=f"{takes} <workflow checkout>; replace the steps that it calls"):
        h.replace(checkout, charge)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=f"{takes} 'charge'$"):
        h.replace("charge", pack)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=f"{takes} <function sleep"):
        h.replace(asyncio.sleep, pack)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="<step charge> is replaced by a function, not by 'fake'"):
        h.replace(charge, "fake")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="crash_after takes a step of the app, not <workflow checkout>; crash_after"):
        h.crash_after(checkout)  # type: ignore[arg-type]


async def test_a_delayed_start(h: Harness) -> None:
    handle = await naps.options(delay=600).start(0)
    await h.settle()
    assert await handle.status() == "scheduled"
    assert await handle.result() == 0


async def test_a_timeout_of_result_is_virtual(h: Harness) -> None:
    handle = await checkout.start("1")
    with pytest.raises(TimeoutError):
        await handle.result(timeout=3600)
    assert (await handle.status()).open


async def test_renewed_is_empty(h: Harness) -> None:
    await h.run(checkout.options(id="x"), "1")
    await h.renew()
    assert [info async for info in shop.client.list()] == []
    assert await h.run(checkout.options(id="x"), "1") == "never paid"
    assert ran.count("charge 1") == 2


async def test_on_postgres(postgres_url: str) -> None:
    ran.clear()
    async with harness(shop, database=postgres_url) as h:
        handle = await parent.start("1")
        await h.settle()
        await h.crash()
        assert await handle.result() == ["never paid", "never paid"]
        assert sorted(ran)[:2] == ["charge 1-a", "charge 1-b"]


blocking = perdure.sync.App("blocking")


@blocking.step
def work(n: int) -> int:
    ran.append(f"work {n}")
    return n


@blocking.workflow
def toil(n: int) -> int:
    total = 0
    for i in range(n):
        total += work(i)
        perdure.sync.sleep(60)
    return total


async def test_a_sync_workflow() -> None:
    ran.clear()
    async with harness(blocking) as h:  # type: ignore[arg-type]
        h.crash_after("work")
        assert await h.run(toil, 5) == 10
        assert ran == [f"work {i}" for i in range(5)]
        assert h.crashes == 1


inside = perdure.sync.App("inside")
word = perdure.sync.Topic[str]("word")


@inside.workflow
def listen() -> str | None:
    return perdure.sync.recv(word, timeout=1000)


@pytest.mark.parametrize("direct", [False, True], ids=["from another process", "from the process that works"])
async def test_time_stands_still_while_a_blocking_caller_is_at_work(direct: bool) -> None:
    """Before it asks, between its answers, and before it has ended: however slow its thread is."""
    loop = asyncio.get_running_loop()

    async def many_turns() -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    def slow() -> None:
        asyncio.run_coroutine_threadsafe(many_turns(), loop).result()

    def call() -> list[str | None]:
        slow()
        handle = listen.options(id="a").start()
        slow()
        handle.info()
        slow()
        handle.send("now", word)
        heard = [handle.result()]
        other = listen.options(id="b").start()
        slow()
        other.send("again", word)
        slow()
        return [*heard, other.result(), listen()]

    anything: Any = inside
    h = Harness(anything, direct=direct)
    await h.open()
    try:
        with h.waiting():
            assert await h.in_thread(call) == ["now", "again", None]
    finally:
        await h.close()


async def test_who_stands_in_line_lets_time_pass() -> None:
    """Looks at a line that lets nobody through find nothing, and so all is at rest; time is what is waited for."""
    mailing = App("mailing")
    one_at_a_time = mailing.queue("one", concurrency=1)
    seldom = mailing.queue("seldom", rate=Rate(1, per=60))

    @mailing.workflow
    async def mail(to: str) -> str:
        return f"{to} {await recv('answer', timeout=3600)}"

    async with harness(mailing) as h, asyncio.timeout(REAL_SECONDS):
        for queue, begun in ((one_at_a_time, [1, 1, 2]), (seldom, [1, 3, 3])):
            handles = await mail.options(queue=queue).start_many(["a", "b", "c"])
            for expected in begun:
                await h.advance(59)
                assert [(await handle.info()).started is not None for handle in handles].count(True) == expected
                await h.advance(timedelta(minutes=30))
            assert [await handle.result() for handle in handles] == ["a None", "b None", "c None"]
