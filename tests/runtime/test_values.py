"""Values that do not survive the round trip, and what a workflow receives."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import perdure.sync
from perdure import App, Event, Secret, Topic, recv, set_event, sleep
from perdure.errors import StepFailed, Unserializable
from tests.runtime.support import Ledger, crash, history, kinds, row, until, until_sync
from tests.serde.test_failures import ARRIVES_AS_STEP_FAILED, SAME_CLASS


@dataclass
class Line:
    sku: str
    price: Decimal


@dataclass
class Order:
    id: str
    lines: list[Line]
    made: datetime


@dataclass
class Loose:
    lines: list[object]


async def test_typed_values_arrive_as_their_types(app: App) -> None:
    @app.step
    async def enrich(order: Order) -> Order:
        return Order(order.id, [*order.lines, Line("gift", Decimal("0.00"))], order.made)

    @app.workflow
    async def body(order: Order) -> Order:
        return await enrich(order)

    order = Order("o", [Line("a", Decimal("19.90"))], datetime(2026, 1, 2, tzinfo=UTC))
    async with app:
        assert await body(order) == Order("o", [*order.lines, Line("gift", Decimal("0.00"))], order.made)


async def test_an_input_that_cannot_be_stored_names_the_path_before_anything_is_written(
    app: App, ledger: Ledger
) -> None:
    @app.workflow
    async def body(order: Loose, note: object = None) -> None:
        ledger.note("ran")

    async with app:
        for start in (body.options(id="a").start, body.options(id="a")):
            with pytest.raises(Unserializable, match=r"args\[0\]\.lines\[2\]") as caught:
                await start(Loose([1, 2, object()]))
            assert caught.value.path == "args[0].lines[2]"
        with pytest.raises(Unserializable, match=r"args\[1\]"):
            await body.options(id="a").start(Loose([]), note=object())
        assert [info.id async for info in app.client.list()] == []
    assert ledger == []


async def test_an_input_of_the_wrong_type_is_refused_before_anything_is_written(app: App) -> None:
    @app.workflow
    async def body(x: int) -> None: ...

    async with app:
        with pytest.raises(Unserializable, match=r"args\[0\]"):
            await body.start("seven")  # type: ignore[arg-type]
        assert [info.id async for info in app.client.list()] == []


async def test_the_input_of_a_child_that_cannot_be_stored_fails_at_the_call(app: App) -> None:
    @app.workflow
    async def child(x: object) -> None: ...

    @app.workflow
    async def body() -> str:
        try:
            await child(object())
        except Unserializable as error:
            return error.path
        return "no error"

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == "args[0]"
        assert [info.id async for info in app.client.list()] == ["a"]


async def test_a_step_result_that_cannot_be_stored_is_the_steps_failure_and_its_effect_is_not_repeated(
    app: App, ledger: Ledger
) -> None:
    @app.step
    async def charge() -> object:
        ledger.note("charged")
        return object()

    @app.workflow
    async def body() -> str:
        try:
            await charge()
        except Unserializable as error:
            caught = f"{type(error).__name__} {error.path}"
        await sleep(0.2)
        return caught

    async with app:
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
    async with app:  # replayed: the recorded failure, not the effect
        assert await body.handle("a").result() == (
            "Unserializable result of test_a_step_result_that_cannot_be_stored_is_the_steps_failure_"
            "and_its_effect_is_not_repeated.charge"
        )
        assert (await kinds(app, "a"))[0].endswith("charge ERROR")
    assert ledger == ["charged"]


async def test_a_step_result_that_cannot_be_stored_is_not_retried(app: App, ledger: Ledger) -> None:
    from perdure import Retry

    @app.step(retry=Retry(5, delay=0))
    async def charge() -> object:
        ledger.note("charged")
        return object()

    @app.workflow
    async def body() -> None:
        await charge()

    async with app:
        with pytest.raises(Unserializable, match=r"result of .*charge"):
            await body()
    assert ledger == ["charged"]


async def test_a_workflow_result_that_cannot_be_stored_fails_the_workflow(app: App) -> None:
    @app.workflow
    async def body() -> object:
        return {"a": [object()]}

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(Unserializable, match=r"result\['a'\]\[0\]|result\.a\[0\]"):
            await handle.result()
        assert await handle.status() == "failed"


async def test_arguments_of_steps_need_not_be_encodable(app: App, ledger: Ledger) -> None:
    @app.step
    async def use(x: object, size: int) -> int:
        ledger.note("ran")
        return size

    @app.workflow
    async def body() -> int:
        first = await use(object(), 3)
        await sleep(0.2)
        return first

    async with app:
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
    async with app:
        assert await body.handle("a").result() == 3
    assert ledger == ["ran"]


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 3_000_000], ids=["NUL", "surrogate", "oversize"])
async def test_text_that_no_database_keeps_is_refused_at_the_call(app: App, text: str) -> None:
    @app.workflow
    async def body(text: str) -> int:
        return len(text)

    async with app:
        with pytest.raises(Unserializable, match=r"args"):
            await body.options(id="a")(text)
        assert [info.id async for info in app.client.list()] == []


async def test_a_message_and_an_event_of_the_wrong_type_are_refused_at_the_call(app: App) -> None:
    paid, receipt = Topic[int]("paid"), Event[int]("receipt")

    @app.workflow
    async def body() -> str:
        try:
            await set_event(receipt, "x")  # type: ignore[arg-type]
        except Unserializable as error:
            await set_event(receipt, 1)
            return f"{error.path} {await recv(paid)}"
        return "no error"

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(Unserializable, match="value"):
            await handle.send("x", paid)  # type: ignore[arg-type]
        await handle.send(3, paid)
        assert await handle.result() == "event 'receipt' 3"


async def test_secrets_are_not_shown_in_the_history(app: App) -> None:
    @app.step
    async def login(user: str, password: Secret[str]) -> str:
        return "ok"

    @app.workflow
    async def body() -> str:
        return await login("ann", Secret("hunter2"))

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == "ok"
        (record,) = await history(app, "a")
    assert "ann" in record.shown
    assert "hunter2" not in record.shown


async def test_what_is_shown_of_arguments_is_bounded(app: App) -> None:
    @app.step
    async def step(text: str) -> int:
        return len(text)

    @app.workflow
    async def body() -> int:
        return await step("x" * 100_000)

    async with app:
        handle = await body.options(id="a").start()
        assert await handle.result() == 100_000
        (record,) = await history(app, "a")
    assert 100 < len(record.shown) <= 512


class Upload:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Upload {self.name}>"


@pytest.mark.parametrize("name", ["caf\udce9.txt", "a\0b"])
async def test_an_argument_whose_repr_cannot_be_stored_costs_nothing(app: App, ledger: Ledger, name: str) -> None:
    @app.step
    async def store(upload: Upload) -> str:
        ledger.note("stored")
        return "stored"

    @app.workflow
    async def body() -> str:
        return await store(Upload(name))

    async with app:
        assert await body.options(id="a").start() is not None
        assert await body.handle("a").result(timeout=15) == "stored"
        (record,) = await history(app, "a")
    assert record.shown.startswith("<Upload ")
    assert ledger == ["stored"]


# -- exceptions


class Declined(Exception):
    def __init__(self, code: int, because: str) -> None:
        super().__init__(f"declined with {code}: {because}")
        self.code = code
        self.because = because


async def test_an_exception_caught_live_equals_the_one_caught_after_a_replay(app: App, ledger: Ledger) -> None:
    @app.step
    async def charge() -> None:
        raise Declined(51, "no funds")

    @app.workflow
    async def body() -> list[object]:
        try:
            await charge()
        except Declined as error:
            caught = [type(error).__name__, str(error), error.code, error.because, [str(a) for a in error.args]]
            ledger.note(caught)
        await sleep(0.2)
        return caught

    async with app:
        await body.options(id="a").start()
        await until(lambda: history(app, "a"))
    async with app:
        result = await body.handle("a").result()
    assert len(ledger) == 2  # caught once live, once on replay
    assert ledger[0] == ledger[1] == str(result)
    assert result[:4] == ["Declined", "declined with 51: no funds", 51, "no funds"]


RAISED = SAME_CLASS | {name: fn for name, (fn, _) in ARRIVES_AS_STEP_FAILED.items()}


def seen(error: BaseException | None) -> object:
    """All that a body can see of an exception."""
    if error is None:
        return None
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [
        type(error).__module__, type(error).__qualname__, str(error), repr(error), repr(error.args),
        {name: repr(value) for name, value in sorted(vars(error).items())},
        seen(error.__cause__), seen(error.__context__), [seen(each) for each in inner],
    ]  # fmt: skip


async def test_all_of_the_table_is_caught_alike_live_and_after_a_replay(app: App, ledger: Ledger) -> None:
    @app.step
    async def fail(name: str) -> None:
        RAISED[name]()

    @app.workflow
    async def body() -> int:
        caught = []
        for name in RAISED:
            try:
                await fail(name)
            except (Exception, asyncio.CancelledError) as error:
                caught.append([name, seen(error)])
        ledger.note(caught)
        await recv()
        return len(caught)

    async def all_recorded() -> bool:  # else the last is raised again, and has a longer traceback
        return sum(kind.startswith("STEP ") for kind in await kinds(app, "a")) == len(RAISED)

    async with app:
        await body.options(id="a").start()
        await until(lambda: ledger)
        await until(all_recorded)
        await crash(app)
    async with app:
        await body.handle("a").send("go on")
        assert await body.handle("a").result() == len(RAISED)
    assert len(ledger) >= 2
    assert set(ledger) == {ledger[0]}
    assert "IntegrityError" in ledger[0]


def test_in_blocking_code_too(sync_app: perdure.sync.App, ledger: Ledger) -> None:
    @sync_app.step
    def fail(name: str) -> None:
        RAISED[name]()

    @sync_app.workflow
    def body() -> int:
        caught = []
        for name in RAISED:
            try:
                fail(name)
            except (Exception, asyncio.CancelledError) as error:
                caught.append([name, seen(error)])
        ledger.note(caught)
        perdure.sync.recv()
        return len(caught)

    with sync_app:
        body.options(id="a").start()
        until_sync(lambda: ledger)
    with sync_app:
        body.handle("a").send("go on")
        assert body.handle("a").result() == len(RAISED)
    assert len(ledger) >= 2
    assert set(ledger) == {ledger[0]}


async def test_an_exception_of_a_class_that_cannot_be_found_arrives_as_step_failed(app: App) -> None:
    def local() -> type[Exception]:
        class Odd(Exception): ...

        return Odd

    @app.step
    async def charge() -> None:
        raise local()("odd one")

    @app.workflow
    async def body() -> list[str]:
        try:
            await charge()
        except StepFailed as error:
            return [error.type_name, error.message, error.traceback]
        return []

    async with app:
        type_name, message, traceback = await body()
    assert type_name.endswith("Odd")
    assert message == "odd one"
    assert "in charge" in traceback


async def test_an_uncaught_exception_fails_the_workflow_with_type_message_and_traceback(
    app: App, database: str
) -> None:
    @app.step
    async def charge() -> None:
        raise Declined(51, "no funds")

    @app.workflow
    async def body() -> None:
        await charge()

    async with app:
        handle = await body.options(id="a").start()
        with pytest.raises(Declined, match="declined with 51: no funds") as caught:
            await handle.result()
        assert caught.value.code == 51
        assert await handle.status() == "failed"
        ended = (await app._home.engine().line.store.ended(["a"]))["a"]
    assert b"Declined" in (ended.data or b"")
    assert b"in charge" in (ended.data or b"")  # the step's line
    assert b"test_values.py" in (ended.data or b"")
    async with app.connect():  # another process, later
        with pytest.raises(Declined) as later:
            await body.handle("a").result()
    assert (later.value.code, str(later.value)) == (51, "declined with 51: no funds")


async def test_a_failed_workflow_is_not_recovered(app: App, ledger: Ledger) -> None:
    @app.step
    async def step() -> None:
        ledger.note("ran")

    @app.workflow
    async def body() -> None:
        await step()
        raise ValueError("once")

    async with app:
        await body.options(id="a").start()
        with pytest.raises(ValueError, match="once"):
            await body.handle("a").result()
    async with app:
        assert (await row(app, "a")).status == "failed"
        with pytest.raises(ValueError, match="once"):
            await body.options(id="a")()
    assert ledger == ["ran"]
