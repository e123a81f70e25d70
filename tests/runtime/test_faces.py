"""The face decides how you call: which one a body may use, and what a step or a workflow is outside a workflow."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

import perdure
import perdure.process
import perdure.sync
import perdure.sync.process
from perdure import App, current
from perdure.errors import DefinitionError, Misuse, OutsideWorkflow, PerdureError, WrongFace
from perdure.process import State
from tests.runtime.support import Ledger, kinds

# -- the colour of a body


def test_an_async_workflow_is_refused_by_the_sync_face() -> None:
    app = perdure.sync.App("shop")

    async def body() -> None: ...

    with pytest.raises(DefinitionError, match=r"must be 'def' in perdure\.sync.*import App from perdure:"):
        app.workflow(body)


@pytest.mark.parametrize("sync", [False, True])
def test_a_process_is_refused_by_an_app_of_the_other_face(sync: bool) -> None:
    """At the decorator: it would run, and each call of the class say that it belongs to no app."""
    app: Any = perdure.sync.App("shop") if sync else App("shop")
    ours = "perdure.sync" if sync else "perdure"
    other: Any = perdure.process.Process if sync else perdure.sync.process.Process

    class Parcel(other):
        new = State(initial=True)
        done = State(final=True)
        go = new.to(done)

    with pytest.raises(DefinitionError, match=rf"Parcel .*: write from {ours}\.process import Process, State"):
        app.process(Parcel)


def test_a_sync_workflow_is_refused_by_the_async_face() -> None:
    app = App("shop")

    def body() -> None: ...

    with pytest.raises(DefinitionError, match=r"must be 'async def' in perdure;.*import App from perdure\.sync"):
        app.workflow(body)


# -- a body of one face that calls the other


other_sync = perdure.sync.App("other")
other_async = App("other")


@other_sync.step
def blocking_step() -> int:
    return 1


@other_sync.workflow
def blocking_workflow() -> int:
    return 1


@other_async.step
async def awaited_step() -> int:
    return 1


@other_async.workflow
async def awaited_workflow() -> int:
    return 1


SYNC_CALLS: dict[str, Callable[[], Any]] = {
    "sleep": lambda: perdure.sync.sleep(1),
    "recv": lambda: perdure.sync.recv("topic"),
    "set_event": lambda: perdure.sync.set_event("event", 1),
    "now": perdure.sync.now,
    "uuid4": perdure.sync.uuid4,
    "random": perdure.sync.random.random,
    "step": blocking_step,
    "workflow": blocking_workflow,
    "start": blocking_workflow.start,
    "result": blocking_workflow.handle("x").result,
    "status": blocking_workflow.handle("x").status,
    "cancel": blocking_workflow.handle("x").cancel,
    "send": lambda: blocking_workflow.handle("x").send(1),
    "get_event": lambda: blocking_workflow.handle("x").get_event("event"),
}
ASYNC_CALLS: dict[str, Callable[[], Any]] = {
    "sleep": lambda: perdure.sleep(1),
    "recv": lambda: perdure.recv("topic"),
    "set_event": lambda: perdure.set_event("event", 1),
    "now": perdure.now,
    "uuid4": perdure.uuid4,
    "random": perdure.random.random,
    "step": awaited_step,
    "workflow": awaited_workflow,
    "start": awaited_workflow.start,
    "result": awaited_workflow.handle("x").result,
    "status": awaited_workflow.handle("x").status,
    "cancel": awaited_workflow.handle("x").cancel,
    "send": lambda: awaited_workflow.handle("x").send(1),
    "get_event": lambda: awaited_workflow.handle("x").get_event("event"),
}


def face_of(call: Callable[[], Any]) -> str:
    """What a call says, at the call itself."""
    try:
        call()
    except PerdureError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


async def test_the_sync_face_is_refused_in_an_async_body(app: App) -> None:
    @app.workflow
    async def body() -> dict[str, str]:
        return {name: face_of(call) for name, call in SYNC_CALLS.items()}

    async with app:
        said = await body()
    assert [name for name, text in said.items() if not text.startswith("WrongFace: ")] == []
    assert all("from perdure import" in text for text in said.values())


def test_the_async_face_is_refused_in_a_sync_body(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow
    def body() -> dict[str, str]:
        return {name: face_of(call) for name, call in ASYNC_CALLS.items()}

    with sync_app:
        said = body()
    assert [name for name, text in said.items() if not text.startswith("WrongFace: ")] == []
    assert all("from perdure.sync import" in text for text in said.values())


async def test_a_wrong_face_that_nobody_catches_fails_the_workflow(app: App) -> None:
    @app.workflow
    async def body() -> None:
        perdure.sync.sleep(1)

    async with app:
        with pytest.raises(WrongFace, match="import it from perdure there"):
            await body()


# -- steps of either colour, in a workflow of either face


async def test_steps_of_both_colours_are_awaited_in_the_async_face(app: App, ledger: Ledger) -> None:
    @app.step
    async def on_the_loop(x: int) -> int:
        ledger.note(threading.current_thread() is threading.main_thread())
        return x + 1

    @app.step
    def in_a_thread(x: int) -> int:
        ledger.note(threading.current_thread() is threading.main_thread())
        return x * 2

    @app.workflow
    async def body(x: int) -> int:
        return await in_a_thread(await on_the_loop(x))

    async with app:
        assert await body.options(id="a").start(3)
        assert await body.handle("a").result() == 8
        assert await kinds(app, "a") == [
            "STEP test_steps_of_both_colours_are_awaited_in_the_async_face.on_the_loop VALUE",
            "STEP test_steps_of_both_colours_are_awaited_in_the_async_face.in_a_thread VALUE",
        ]
    assert ledger == ["True", "False"]


def test_steps_of_both_colours_just_return_in_the_sync_face(sync_app: perdure.sync.App, bodies: str) -> None:
    threads: dict[str, threading.Thread] = {}

    @sync_app.step
    async def on_the_loop(x: int) -> int:
        threads["loop"] = threading.current_thread()
        return x + 1

    @sync_app.step
    def in_its_workflows_thread(x: int) -> int:
        threads["step"] = threading.current_thread()
        return x * 2

    @sync_app.workflow
    def body(x: int) -> int:
        threads["body"] = threading.current_thread()
        return in_its_workflows_thread(on_the_loop(x))

    with sync_app:
        assert body(3) == 8
    same = threads["body"] is threads["step"] if bodies == "threads" else threads["body"] is threads["loop"]
    assert same
    assert threads["step"] is not threads["loop"]
    assert threading.main_thread() not in threads.values()


# -- outside a workflow


async def test_outside_a_workflow_a_step_is_the_plain_function(app: App) -> None:
    @app.step
    async def add(x: int, y: int = 1) -> int:
        return x + y

    @app.step
    def double(x: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return x * 2

    assert inspect.iscoroutine(call := add(1))
    assert await call == 2
    assert await add(1, y=5) == 6
    assert await double(4) == 8  # awaited, as every call in this face; the body in a thread
    with pytest.raises(OutsideWorkflow, match="outside any workflow"):
        current()


def test_outside_a_workflow_a_step_of_the_sync_face_is_the_plain_function(sync_app: perdure.sync.App) -> None:
    @sync_app.step
    async def add(x: int, y: int = 1) -> int:
        return x + y

    @sync_app.step
    def double(x: int) -> int:
        assert threading.current_thread() is threading.main_thread()
        return x * 2

    assert add(1) == 2
    assert double(4) == 8


@pytest.mark.parametrize("call", [perdure.now, perdure.uuid4, perdure.random.random])
def test_what_speaks_for_a_workflow_is_refused_outside(call: Callable[[], Any]) -> None:
    with pytest.raises(OutsideWorkflow, match=r"outside any workflow; .* use its handle: my_workflow\.handle\(id\)"):
        call()


@pytest.mark.parametrize("name", ["sleep", "recv", "set_event"])
async def test_awaited_speech_is_refused_outside_and_in_steps(app: App, name: str) -> None:
    call = {name: ASYNC_CALLS[name] for name in ("sleep", "recv", "set_event")}[name]
    with pytest.raises(OutsideWorkflow, match=f"{name} was called outside any workflow"):
        await call()

    @app.step
    async def step() -> None:
        await call()

    @app.workflow
    async def body() -> None:
        await step()

    async with app:
        with pytest.raises(OutsideWorkflow, match=f"{name} was called in a step"):
            await body()


async def test_a_workflow_is_not_started_in_a_step(app: App) -> None:
    @app.workflow(name="child")
    async def child(x: int) -> int:
        return x

    calls: dict[str, Callable[[], Any]] = {
        "call": lambda: child(1),
        "start": lambda: child.options(id="kid").start(1),
        "many": lambda: child.start_many([1, 2]),
        "client": lambda: app.client.workflow("child", returns=int).start(1),
    }

    @app.step
    async def step(how: str) -> None:
        await calls[how]()

    @app.step
    async def chosen() -> int:
        handle = await app.client.workflow("child", returns=int).options(id=current().idempotency_key).start(7)
        return await handle.result()

    @app.workflow(name="body")
    async def body(how: str) -> int:
        if how == "chosen":
            return await chosen()
        await step(how)
        return 0

    async with app:
        for how in calls:
            with pytest.raises(Misuse, match=r"'child' was started in a step of 'body' .*current\(\)\.idempotency_key"):
                await body(how)
        assert [info.name async for info in app.client.list()] == ["body"] * 4
        assert await body("chosen") == 7


def test_a_workflow_is_not_started_in_a_step_of_the_sync_face(sync_app: perdure.sync.App) -> None:
    @sync_app.workflow(name="child")
    def child(x: int) -> int:
        return x

    @sync_app.step
    def step() -> int:
        return child(1)

    @sync_app.workflow(name="body")
    def body() -> int:
        return step()

    with sync_app, pytest.raises(Misuse, match=r"call it in the body of 'body', where it is a child"):
        body()


# -- blocking calls on the loop that would have to answer them


@pytest.mark.parametrize("call", ["status", "result", "start", "list", "step"])
def test_an_async_step_of_the_sync_face_blocks_no_loop(sync_app: perdure.sync.App, call: str) -> None:
    @sync_app.workflow(name="other")
    def other() -> int:
        return 1

    @sync_app.step
    async def inner() -> int:
        return 1

    calls: dict[str, Callable[[], Any]] = {
        "status": other.handle("x").status,
        "result": other.handle("x").result,
        "start": lambda: sync_app.client.workflow("other", returns=int).options(id="y").start(),
        "list": lambda: list(sync_app.client.list()),
        "step": inner,
    }

    @sync_app.step
    async def on_the_loop() -> str:
        with pytest.raises(WrongFace, match=r"write the step 'def'") as refused:
            calls[call]()
        return str(refused.value)

    @sync_app.workflow
    def body() -> str:
        return on_the_loop()

    with sync_app:
        other.options(id="x")()
        assert "event loop" in body()


async def test_a_step_in_a_step_is_the_plain_function(app: App) -> None:
    @app.step
    async def inner(x: int) -> int:
        return x + 1

    @app.step
    async def outer(x: int) -> int:
        return await inner(x) * 10

    @app.workflow
    async def body() -> int:
        return await outer(1)

    async with app:
        await body.options(id="a").start()
        assert await body.handle("a").result() == 20
        assert [kind.split(".")[-1] for kind in await kinds(app, "a")] == ["outer VALUE"]


def test_both_faces_offer_the_same_names() -> None:
    assert set(perdure.__all__) == set(perdure.sync.__all__)
    assert perdure.Topic is perdure.sync.Topic
    assert perdure.current is perdure.sync.current
