"""What rollouts, overrides and resets come to where several of them meet. On both stores.

The cases are those that Temporal's own tests know, where no other test here shows them; which test shows which case is
in ``docs/internals/rollout-acceptance.md``.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from perdure import App, Retry, current, recv
from perdure.model.states import Status, Versioning
from tests.runtime.moving import at_rest, go, names, run_of, trip
from tests.runtime.releases import Replica, everybody_follows, known, version_of, waits
from tests.runtime.releases import go as let_go
from tests.runtime.support import Ledger, history, row, status, until


async def begun(app: Any, id: str = "w", name: str = "order", *args: Any) -> Any:
    handle = await getattr(app, name).options(id=id).start(*args)
    await waits(app, id)
    return handle


async def is_(app: App, id: str, wanted: str) -> bool:
    return await status(app, id) == wanted


# -- inheritance


async def test_restarts_go_where_new_work_goes(replica: Replica) -> None:
    """Whatever the one before was pinned to, they are new work. A version without traffic takes none of them."""
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    await replica("v3", "pinned")
    handle = await begun(old)
    await let_go(old)
    await old.client.deployment.set_current_version("v2")
    await everybody_follows(old, new)
    for _ in range(5):
        again = await handle.restart()
        assert await let_go(new, again.id) == ["v2", "v2"]


async def test_a_queue_does_not_part_a_child_from_its_pinned_parent(database: str) -> None:
    """Lines are limits, not places: who runs it is the version's matter."""

    def release(version: str) -> App:
        app = App("shop", database=database, version=version, rollout="manual")
        app.queue("slowly", concurrency=1)

        @app.workflow(name="child")
        async def child() -> str:
            return current().version

        @app.workflow(name="parent", versioning="pinned")
        async def parent() -> list[str]:
            await recv("go")
            return [current().version, await child.options(queue="slowly")()]

        return app

    async with release("v1") as old, release("v2") as new:
        handle = await old.client.workflow("parent", returns=list).options(id="p").start()
        await new.client.deployment.set_current_version("v2")
        await everybody_follows(old, new)
        await handle.send(True, "go")
        assert await handle.result(timeout=15) == ["v1", "v1"]


# -- overrides


async def test_from_one_order_to_the_next_and_back_to_what_is_declared(replica: Replica) -> None:
    """With the routing, then to a version whatever that says, then as its code declares: pinned, where it is then."""
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    handle = await begun(old)
    await old.client.deployment.set_current_version("v2")
    await handle.move("auto-upgrade")
    await until(partial(is_, new, "w", "waiting"))
    assert await version_of(new) == "v2"
    await handle.move("v1")
    await everybody_follows(old, new)
    found = await row(new, "w")
    assert (found.version, found.versioning) == ("v1", Versioning.PINNED)
    await handle.move("auto-upgrade")
    await until(partial(is_, new, "w", "waiting"))
    await handle.move("unset")
    found = await row(new, "w")
    assert (found.version, found.versioning, found.override) == ("v2", Versioning.PINNED, None)
    await old.client.deployment.set_current_version("v1")
    await everybody_follows(old, new)
    assert await let_go(new) == ["v1", "v2"]


async def test_a_move_for_one_turn_that_has_not_had_it_yet_outlives_a_reset(replica: Replica) -> None:
    old = await replica("v1", "auto_upgrade")
    handle = await begun(old)
    await handle.move("v2", one_time=True, force=True)  # nobody runs it yet
    assert await handle.reset("first") == "queued"
    await everybody_follows(old)
    found = await row(old, "w")
    assert (found.run, found.version, found.status) == (2, "v2", Status.QUEUED)
    assert found.override is not None
    assert found.override.once
    new = await replica("v2", "auto_upgrade")

    async def back() -> bool:
        await everybody_follows(old, new)
        now = await row(old, "w")
        return now.override is None and now.version == "v1" and now.status is Status.WAITING

    await until(back)
    assert await let_go(old) == ["v2", "v1"]


# -- drainage and deletion


async def test_a_paused_workflow_keeps_its_version_from_being_drained(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    handle = await begun(old)
    await old.client.deployment.set_current_version("v2")
    await handle.pause(reason="a look")
    assert (await known(new, "v1")).state == "draining"
    await handle.cancel()
    await until(partial(is_, new, "w", "cancelled"))
    assert (await known(new, "v1")).state == "drained"


async def test_what_ended_on_a_version_that_was_deleted_is_readable_and_begins_anew_elsewhere(replica: Replica) -> None:
    old, new = await replica("v1", "pinned"), await replica("v2", "pinned")
    await begun(old)
    await let_go(old)
    to = new.client.deployment
    await to.set_current_version("v2")
    await old.close()
    await to.delete_version("v1")
    handle = new.client.handle("w")
    assert await handle.result() == ["v1", "v1"]
    assert await new.client.count("WorkerDeploymentVersion = 'shop:v1' AND ExecutionStatus = 'Completed'") == 1
    await handle.reset("first", move_to="v2")
    assert await handle.result(timeout=20) == ["v2", "v2"], "the message came again"


# -- resets


@pytest.mark.parametrize(("exclude", "word"), [("none", "early"), ("messages", "late"), ("all", "late")])
async def test_messages_that_nobody_has_received_yet_are_kept_or_dropped_like_others(
    app: App, ledger: Ledger, exclude: Any, word: str
) -> None:
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a").start("ann")
        await until(lambda: names(ledger) == ["flight", "hotel"])
        await at_rest(app, "a")
        await handle.pause()
        await until(partial(is_, app, "a", "held"))
        await handle.send("early", go)
        await handle.reset("first", exclude=exclude)
        if exclude != "all":
            await handle.unpause()
        await until(lambda: names(ledger).count("hotel") == 2)
        if word == "late":
            await handle.send("late", go)
        assert (await handle.result(timeout=15))[3] == word


async def test_asked_for_by_many_at_once_it_is_reset_once(app: App, ledger: Ledger) -> None:
    """As whoever has lost the answer does: closed or open, it is the same next run."""
    workflow = trip(app, ledger)
    async with app:
        handle = await workflow.options(id="a").start("ann")
        await handle.send("on", go)
        await handle.result(timeout=15)
        await asyncio.gather(*(handle.reset("first", key="a fix") for _ in range(5)))
        assert (await row(app, "a")).run == 2
        await handle.result(timeout=15)
        await asyncio.gather(*(handle.reset("first", key="a fix") for _ in range(5)))
        assert (await row(app, "a")).run == 2
    assert names(ledger) == ["flight", "hotel", "taxi"] * 2


async def test_a_failure_that_is_reset_again_and_again_is_counted_once(app: App) -> None:
    @app.workflow
    async def body() -> None:
        raise ValueError(f"in run {current().run}")

    async with app:
        handle = await body.options(id="a").start()
        for run in (1, 2, 3):
            with pytest.raises(ValueError, match=f"in run {run}"):
                await handle.result(timeout=15)
            assert await app.client.count("status = failed") == 1
            if run < 3:
                await handle.reset("first", again=True)
        assert [(await run_of(app, "a", run))[0].status for run in (1, 2, 3)] == [
            Status.SUPERSEDED, Status.SUPERSEDED, Status.FAILED,
        ]  # fmt: skip


async def test_a_run_that_the_bad_version_has_begun_is_begun_anew_and_the_one_before_it_left(replica: Replica) -> None:
    """It continued as new on the bad version: nothing of its latest run is older than that."""
    old, bad = await replica("v1", "auto_upgrade"), await replica("v2", "auto_upgrade")
    to = old.client.deployment
    handle = await begun(old, "r", "rounds", 1)
    await to.set_current_version("v2")
    await everybody_follows(old, bad)
    await handle.send(True, "go")

    async def second() -> bool:
        now = await row(bad, "r")
        return (now.run, now.version, now.status) == (2, "v2", Status.WAITING)

    await until(second)
    before = await run_of(old, "r", 1)
    await to.set_current_version("v1", reason="v2 is bad")
    assert await handle.reset("before-version:v2", move_to="v1") == "queued"
    assert (await row(old, "r")).run == 3
    assert await let_go(old, "r") == "v1"
    assert await run_of(old, "r", 1) == before
    assert {record.version for record in await history(old, "r")} == {"v1"}


# -- resets of parents


async def test_a_child_that_runs_and_was_started_in_the_dropped_part_is_attached_to(app: App, ledger: Ledger) -> None:
    """Under an id of its own or the parent's choice, and however the parent guards that: it is its own child."""

    @app.step(name="act")
    async def act(name: str) -> str:
        ledger.note(name)
        return name

    @app.workflow(name="child")
    async def child(name: str) -> str:
        return f"{await act(name)} {await recv('go')}"

    @app.workflow(name="parent")
    async def parent() -> list[str]:
        derived = await child.start("derived")
        chosen = await child.options(id="kid", on_conflict="fail").start("chosen")
        return [await derived.result(), await chosen.result()]

    async with app:
        handle = await parent.options(id="p").start()
        await until(lambda: sorted(ledger) == ["chosen", "derived"])
        await at_rest(app, "p")
        await handle.reset("first")
        for id in ("p:1", "kid"):
            await app.client.handle(id).send("on", "go")
        assert await handle.result(timeout=15) == ["derived on", "chosen on"]
        assert [(await row(app, id)).run for id in ("p", "p:1", "kid")] == [2, 1, 1]
    assert len(ledger) == 2


@pytest.mark.parametrize("children", ["keep", "reset"])
async def test_a_child_that_was_terminated_stays_so_or_begins_anew_with_its_parent(app: App, children: Any) -> None:
    @app.workflow(name="child")
    async def child() -> str:
        return f"{await recv('go')} in run {current().run}"

    @app.workflow(name="parent")
    async def parent() -> str:
        started = await child.options(id="kid").start()
        try:
            return await started.result()
        except Exception as error:
            return type(error).__name__

    async with app:
        handle = await parent.options(id="p").start()
        await until(partial(_there, app, "kid"))
        kid = app.client.handle("kid")
        await kid.terminate(reason="a slip")
        assert await handle.result(timeout=15) == "WorkflowTerminated"
        await handle.reset("first", children=children)
        if children == "reset":
            await kid.send("on", "go")
        wanted = "on in run 2" if children == "reset" else "WorkflowTerminated"
        assert await handle.result(timeout=15) == wanted


async def _there(app: App, id: str) -> bool:
    return id in await app._home.engine().line.store.rows([id])


# -- problems


async def test_a_message_is_no_progress_of_the_step_that_fails(app: App) -> None:
    """Whatever is sent to it, and received: the problem is over with the attempt that succeeds, and not before."""

    @app.step(name="charge", retry=Retry(attempts=10, delay=600))
    async def charge() -> str:
        raise ConnectionError("no route")

    @app.workflow(name="order")
    async def order() -> list[str]:
        charged, *heard = await asyncio.gather(charge(), recv("one"), recv("two"))
        return [charged, *map(str, heard)]

    async with app:
        handle = await order.options(id="w").start()

        async def told() -> bool:
            return str((await row(app, "w")).problem) == "step_failed"

        await until(told)
        await handle.send("1", "one")
        await until(lambda: _received(app, "w"))
        await app.client.handle("w").send("unread", "nobody reads it")
        assert await told()
        [problem] = await handle.problems()
        assert (problem.attempt, problem.cleared) == (1, None)
        assert await app.client.count("ReportedProblems IS NOT NULL") == 1
        await handle.send("2", "two")
        assert await handle.skip("charge", "charged") in ("queued", "running")
        assert await handle.result(timeout=15) == ["charged", "1", "2"]
        [problem] = await handle.problems()
        assert problem.cleared is not None
        assert await app.client.count("ReportedProblems IS NOT NULL") == 0


async def _received(app: App, id: str) -> bool:
    return any(record.kind.name == "RECV" for record in await history(app, id))
