"""Starts of blocking callers: begun in the caller's thread, told to the loop once, with all that it needs."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

import perdure.sync
from perdure.model.ids import WorkflowIds
from perdure.model.records import Kind
from perdure.runtime import births, sface, thread_body
from tests.runtime.support import IN_THREADS, Ledger, executor, until_sync


def stored(app: Any, id: str) -> list[Kind]:
    """The kinds of the records that the database has by now."""
    engine = app._home.engine()

    async def read() -> list[Kind]:
        found = (await engine.line.store.rows([id])).get(id)
        if found is None:
            return []
        return [record.kind for record in (await engine.line.store.histories([found.key]))[found.key]]

    kinds: list[Kind] = sface.on_engine(engine, read)
    return kinds


@pytest.fixture
def go_on() -> threading.Event:
    """A body waits for it, as one that computes: with nothing that Perdure knows of."""
    return threading.Event()


def test_a_start_rings_once_and_so_does_the_end(sync_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_body, "PATIENCE_SECONDS", 30.0)  # however slow this machine is

    @sync_app.step
    def step() -> None: ...

    @sync_app.workflow
    def work() -> None:
        step()

    with sync_app:
        work()
        bell, rings = executor(sync_app).bell, list[Any]()
        answer = bell._answer
        monkeypatch.setattr(bell, "_answer", lambda: (rings.append(list(bell._calls)), answer()))
        work()
        assert len(rings) <= 2, rings


@IN_THREADS
def test_a_start_does_not_wait_for_a_body_that_takes_its_time(sync_app: Any, go_on: threading.Event) -> None:
    @sync_app.workflow
    def work() -> str:
        go_on.wait(20)
        return "done" if go_on.is_set() else "in vain"

    with sync_app:
        handle = work.start()
        assert handle.info().status == "running"
        go_on.set()
        assert handle.result() == "done"


@IN_THREADS
@pytest.mark.parametrize("step_takes_its_time", [False, True])
def test_what_is_written_does_not_wait_for_a_body_that_computes(
    sync_app: Any, go_on: threading.Event, step_takes_its_time: bool
) -> None:
    late = threading.Event()

    @sync_app.step
    def step() -> None:
        if step_takes_its_time:
            late.wait(10 * thread_body.PATIENCE_SECONDS)

    @sync_app.workflow
    def work() -> bool:
        step()
        return go_on.wait(20)

    with sync_app:
        handle = work.start()
        until_sync(lambda: Kind.STEP in stored(sync_app, handle.id))  # a slow thread has its intent written before
        go_on.set()
        assert handle.result()


@IN_THREADS
def test_events_do_not_wait_for_a_body_that_computes(sync_app: Any, go_on: threading.Event) -> None:
    told = perdure.sync.Event[int]("told")

    @sync_app.workflow
    def work() -> bool:
        perdure.sync.set_event(told, 1)
        first = go_on.wait(20)
        go_on.clear()
        perdure.sync.set_event(told, 2)
        return first and go_on.wait(20)

    with sync_app:
        handle = work.start()
        until_sync(lambda: handle.get_event(told) == 1)
        go_on.set()
        until_sync(lambda: handle.get_event(told) == 2)
        go_on.set()
        assert handle.result()


def test_who_may_not_run_here_any_more_leaves_no_trace(
    sync_app: Any, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the caller's look and the loop's, the executor may begin to drain; then another one runs it."""

    @sync_app.step
    def step() -> None:
        ledger.note("step")

    @sync_app.workflow
    def work() -> int:
        step()
        return 1

    with sync_app:
        host = executor(sync_app)
        loop_looks: list[bool] = []
        can_run = host.can_run

        def look(order: Any) -> bool:
            if threading.current_thread() is not host.thread:
                return True
            loop_looks.append(False)
            return False

        monkeypatch.setattr(host, "can_run", look)
        handle = work.start()
        assert loop_looks
        assert not host.newcomers
        monkeypatch.setattr(host, "can_run", can_run)
        assert handle.result() == 1
        assert ledger == ["step"]
        assert len(list(sync_app.client.list())) == 1


def test_one_of_two_identities_is_not_begun_under_the_other(sync_app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared dead and reborn between the caller's thread and the loop: nothing goes out in the dead one's name."""

    @sync_app.workflow
    def work() -> int:
        return 1

    with sync_app:
        host = executor(sync_app)
        dead = b"of the dead one."
        born = births.born

        def as_another(host: Any, *given: Any) -> Any:
            execution = born(host, *given)
            execution.row = msgspec.structs.replace(execution.row, owner=dead)
            return execution

        monkeypatch.setattr(births, "born", as_another)
        handle = work.start()
        monkeypatch.undo()
        assert handle.result() == 1
        assert handle.id not in host.executions


def test_a_chosen_id_is_begun_once_by_many_threads(sync_app: Any, ledger: Ledger) -> None:
    @sync_app.step
    def step() -> None:
        ledger.note("step")

    @sync_app.workflow
    def work() -> int:
        step()
        return 1

    results: list[int] = []
    with sync_app:
        threads = [
            threading.Thread(target=lambda: results.append(work.options(id="one").start().result())) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert results == [1] * 8
    assert ledger == ["step"]


def test_ids_made_by_many_threads_at_once_differ() -> None:
    make = WorkflowIds()
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([make() for _ in range(3000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(made)) == len(made) == 12_000
